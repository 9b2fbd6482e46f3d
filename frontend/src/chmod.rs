//! `--chmod`: an octal mode or the symbolic language of chmod(1), applied with umask 0.
//!
//! The symbolic form follows BSD's `setmode`, which the reference builder uses. It differs from GNU chmod in
//! three ways that show: `X` looks at the mode before any change, `=` never clears the sticky bit unless `t` was
//! given, and a clause may not be empty.

use std::fmt;

const SET_UID: u32 = 0o4000;
const SET_GID: u32 = 0o2000;
const STICKY: u32 = 0o1000;
const EXECUTE: u32 = 0o111;
/// All that a class word or its absence stands for: everything but the sticky bit.
const STANDARD: u32 = 0o6777;

/// A parsed `--chmod` value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ModeChange {
    /// The value in canonical spelling.
    text: String,
    change: Change,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Change {
    Octal(u32),
    Symbolic(Vec<Action>),
}

/// One thing done to the mode, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Action {
    Set(u32),
    Clear(u32),
    /// `X`: set these if the entry is a directory or was executable by anyone at the start.
    SetIfExecutable(u32),
    /// `g=u`: combine the three bits of one class into others.
    Copy {
        from: u32,
        to: u32,
        operator: u8,
    },
}

/// Why a text is not a `--chmod` value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ModeError {
    /// It begins like a number but isn't an octal one up to 7777.
    #[error("mode `{text}` is not an octal number between 0 and 07777")]
    Octal {
        /// What was given.
        text: String,
    },
    /// It isn't chmod's symbolic language either.
    #[error("mode `{text}` is neither an octal number nor of the form `u+x,go-w`")]
    Symbolic {
        /// What was given.
        text: String,
    },
}

impl ModeChange {
    /// Reads an octal or symbolic mode.
    pub fn parse(text: &str) -> Result<Self, ModeError> {
        if text.starts_with(|first: char| first.is_ascii_digit()) {
            let error = || ModeError::Octal {
                text: text.to_owned(),
            };
            let is_octal = text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
            let mode = u32::from_str_radix(text, 8)
                .ok()
                .filter(|mode| is_octal && *mode <= 0o7777);
            let mode = mode.ok_or_else(error)?;
            return Ok(Self {
                text: format!("{mode:04o}"),
                change: Change::Octal(mode),
            });
        }
        let actions = SymbolicParser {
            rest: text.as_bytes(),
            actions: Vec::new(),
        }
        .parse();
        let actions = actions.ok_or_else(|| ModeError::Symbolic {
            text: text.to_owned(),
        })?;
        Ok(Self {
            text: text.to_owned(),
            change: Change::Symbolic(actions),
        })
    }

    /// The mode of an octal value; none for a symbolic one.
    pub fn octal(&self) -> Option<u32> {
        match self.change {
            Change::Octal(mode) => Some(mode),
            Change::Symbolic(_) => None,
        }
    }

    /// The permission bits (07777) that an entry with `mode` gets. Symlinks are not to be asked about.
    pub fn apply(&self, mode: u32, is_dir: bool) -> u32 {
        let old = mode & 0o7777;
        let actions = match &self.change {
            Change::Octal(mode) => return *mode,
            Change::Symbolic(actions) => actions,
        };
        let mut new = old;
        for action in actions {
            match *action {
                Action::Set(bits) => new |= bits,
                Action::Clear(bits) => new &= !bits,
                Action::SetIfExecutable(bits) if is_dir || old & EXECUTE != 0 => new |= bits,
                Action::SetIfExecutable(_) => {}
                Action::Copy { from, to, operator } => {
                    let triple = (new >> from) & 7;
                    let copied = (triple * 0o111) & to;
                    match operator {
                        b'+' => new |= copied,
                        b'-' => new &= !copied,
                        _ => new = new & !to | copied,
                    }
                }
            }
        }
        new
    }
}

impl fmt::Display for ModeChange {
    /// Canonical text: four or more octal digits, or the symbolic form as written.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

struct SymbolicParser<'a> {
    rest: &'a [u8],
    actions: Vec<Action>,
}

impl SymbolicParser<'_> {
    fn parse(mut self) -> Option<Vec<Action>> {
        loop {
            let mut who = 0;
            while let Some(class) = self.rest.first().and_then(|&byte| class_bits(byte)) {
                who |= class;
                self.rest = &self.rest[1..];
            }
            // At least one operator, then more of them on the same classes: `u+r-x`.
            loop {
                let operator = self.next().filter(|byte| b"+-=".contains(byte))?;
                self.parse_permissions(operator, &mut who);
                if self.rest.first().is_none_or(|&byte| byte == b',') {
                    break;
                }
            }
            if self.next().is_none() {
                return Some(self.actions);
            }
        }
    }

    fn next(&mut self) -> Option<u8> {
        let (&first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(first)
    }

    fn parse_permissions(&mut self, operator: u8, who: &mut u32) {
        *who &= !STICKY;
        let mut bits = 0;
        let mut conditional = 0;
        // `=` clears once, however many parts its right side has.
        let mut is_cleared = operator != b'=';
        let only_others = *who != 0 && *who & !0o007 == 0;
        while let Some(&letter) = self.rest.first() {
            match letter {
                b'r' => bits |= 0o444,
                b'w' => bits |= 0o222,
                b'x' => bits |= EXECUTE,
                b'X' if operator == b'-' => bits |= EXECUTE,
                b'X' => conditional = EXECUTE,
                // Others have neither.
                b's' | b't' if only_others => {}
                b's' => bits |= SET_UID | SET_GID,
                b't' => {
                    // As in BSD, a `t` without a class word makes the sticky bit the class: `+tx` sets no `x`.
                    *who |= STICKY;
                    bits |= STICKY;
                }
                b'u' | b'g' | b'o' => {
                    if bits != 0 {
                        self.push_bits(operator, *who, bits);
                        bits = 0;
                    }
                    is_cleared = true;
                    if conditional != 0 {
                        self.actions
                            .push(Action::SetIfExecutable(classes(*who) & conditional));
                        conditional = 0;
                    }
                    let from = match letter {
                        b'u' => 6,
                        b'g' => 3,
                        _ => 0,
                    };
                    self.actions.push(Action::Copy {
                        from,
                        to: classes(*who) & 0o777,
                        operator,
                    });
                }
                _ => break,
            }
            self.rest = &self.rest[1..];
        }
        if bits != 0 || !is_cleared {
            self.push_bits(operator, *who, bits);
        }
        if conditional != 0 {
            self.actions
                .push(Action::SetIfExecutable(classes(*who) & conditional));
        }
    }

    fn push_bits(&mut self, operator: u8, who: u32, bits: u32) {
        let selected = if who == 0 { bits } else { bits & who };
        match operator {
            b'-' => self.actions.push(Action::Clear(selected)),
            b'+' => self.actions.push(Action::Set(selected)),
            _ => self
                .actions
                .extend([Action::Clear(classes(who)), Action::Set(selected)]),
        }
    }
}

fn class_bits(letter: u8) -> Option<u32> {
    match letter {
        b'a' => Some(STANDARD),
        b'u' => Some(SET_UID | 0o700),
        b'g' => Some(SET_GID | 0o070),
        b'o' => Some(0o007),
        _ => None,
    }
}

fn classes(who: u32) -> u32 {
    if who == 0 { STANDARD } else { who }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_applied() {
        for (text, base, is_dir, wanted) in [
            ("755", 0o600, false, 0o755),
            ("07777", 0o600, false, 0o7777),
            ("u+x", 0o644, false, 0o744),
            ("+x", 0o600, false, 0o711),
            ("go-w", 0o777, false, 0o755),
            ("=rw", 0o4755, false, 0o666),
            ("a=r", 0o1777, false, 0o1444),
            ("a=rwxst", 0, false, 0o7777),
            ("a=rX", 0o600, false, 0o444),
            ("a=rX", 0o600, true, 0o555),
            ("a-x,a+X", 0o755, false, 0o755),
            ("u=", 0o4755, false, 0o055),
            ("u=g", 0o755, false, 0o555),
            ("g=u,o=g", 0o640, false, 0o666),
            ("u=rw,go=u-w", 0o777, false, 0o644),
            ("u+rw-x", 0o755, false, 0o655),
            ("+t", 0o755, true, 0o1755),
            ("o+t", 0o755, true, 0o755),
            ("u+s", 0o755, false, 0o4755),
            ("o+s", 0o755, false, 0o755),
            ("g-s", 0o2755, false, 0o755),
        ] {
            let change = ModeChange::parse(text).unwrap();
            assert_eq!(change.apply(base, is_dir), wanted, "{text} on {base:o}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "u+x,", "x", "u?x", ",u+x", "u", "é", "u+é"] {
            assert!(
                matches!(ModeChange::parse(text), Err(ModeError::Symbolic { .. })),
                "{text}"
            );
        }
        for text in ["9", "10000", "0o755", "755x", "07777777777777777777777"] {
            assert!(
                matches!(ModeChange::parse(text), Err(ModeError::Octal { .. })),
                "{text}"
            );
        }
    }

    #[test]
    fn octal_values_have_one_spelling() {
        let change = ModeChange::parse("00755").unwrap();
        assert_eq!(change, ModeChange::parse("755").unwrap());
        assert_eq!(
            (change.to_string().as_str(), change.octal()),
            ("0755", Some(0o755))
        );
        assert_eq!(ModeChange::parse("u+x").unwrap().octal(), None);
    }
}
