//! Text cut to a number of columns, colours and wide characters included.

use unicode_width::UnicodeWidthChar;

/// Columns that a tab stands for in the live view, where lines begin at different columns.
const TAB: &str = "    ";

/// Columns that a line takes on a terminal. Colour sequences (`ESC [ … m`) take none.
pub(crate) fn width(text: &str) -> usize {
    pieces(text).map(Piece::width).sum()
}

/// The line in at most `columns` columns; three dots where something is missing. Colours are ended with the text.
pub(crate) fn fit(text: &str, columns: usize) -> String {
    let text = text.replace('\t', TAB);
    if width(&text) <= columns {
        return text;
    }
    let dots = &"..."[..columns.min(3)];
    let mut room = columns - dots.len();
    let mut cut = String::new();
    let mut is_coloured = false;
    for piece in pieces(&text) {
        match piece {
            Piece::Colour(sequence) => {
                is_coloured = sequence != RESET;
                cut.push_str(sequence);
            }
            Piece::Character(character) => match room.checked_sub(piece.width()) {
                Some(rest) => {
                    room = rest;
                    cut.push(character);
                }
                None => break,
            },
        }
    }
    cut.push_str(dots);
    if is_coloured {
        cut.push_str(RESET);
    }
    cut
}

const RESET: &str = "\x1b[0m";

#[derive(Clone, Copy)]
enum Piece<'a> {
    Colour(&'a str),
    Character(char),
}

impl Piece<'_> {
    fn width(self) -> usize {
        match self {
            Self::Colour(_) => 0,
            // Controls have no width; lines that come here have none.
            Self::Character(character) => character.width().unwrap_or(0),
        }
    }
}

fn pieces(text: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let end = rest
            .strip_prefix("\x1b[")
            .and_then(|parameters| parameters.find('m'));
        if let Some(end) = end {
            let (sequence, behind) = rest.split_at("\x1b[".len() + end + 1);
            rest = behind;
            return Some(Piece::Colour(sequence));
        }
        let character = rest.chars().next()?;
        rest = &rest[character.len_utf8()..];
        Some(Piece::Character(character))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_to_columns() {
        let table = [
            ("fits", "abc", 3, "abc"),
            ("too long", "abcdefgh", 6, "abc..."),
            ("hardly any room", "abcdef", 2, ".."),
            ("none", "abcdef", 0, ""),
            ("wide", "日本語日本語", 9, "日本語..."),
            ("a wide one that fits half", "日本語日本語", 8, "日本..."),
            (
                "combining",
                "e\u{301}e\u{301}e\u{301}",
                3,
                "e\u{301}e\u{301}e\u{301}",
            ),
            ("tab", "a\tb", 6, "a    b"),
            (
                "colours take no room",
                "\x1b[31mabc\x1b[0m",
                3,
                "\x1b[31mabc\x1b[0m",
            ),
            (
                "colours are ended",
                "\x1b[31mabcdefgh\x1b[0m",
                5,
                "\x1b[31mab...\x1b[0m",
            ),
        ];
        for (name, text, columns, expected) in table {
            let cut = fit(text, columns);
            assert_eq!(cut, expected, "{name}");
            assert!(width(&cut) <= columns, "{name}");
        }
    }
}
