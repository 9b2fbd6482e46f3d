//! Lines of commands made safe to show: colours stay where they can be seen, everything that moves the cursor, sets
//! titles or rings goes.

/// One line of output as text. `keeps_colours` lets `ESC [ … m` through and ends with a reset where one came.
pub(crate) fn clean_line(line: &[u8], keeps_colours: bool) -> String {
    // A carriage return overwrites: what a terminal would show in the end is what follows the last one.
    let visible = line
        .rsplit(|&byte| byte == b'\r')
        .find(|part| !part.is_empty())
        .unwrap_or_default();
    let text = String::from_utf8_lossy(visible);
    let mut clean = String::with_capacity(text.len());
    let mut rest = text.as_ref();
    let mut is_coloured = false;
    while let Some(position) = rest.find(char::is_control) {
        clean.push_str(&rest[..position]);
        rest = &rest[position..];
        if rest.starts_with('\x1b') {
            let (sequence, behind) = rest.split_at(escape_length(rest));
            if keeps_colours && is_colour(sequence) {
                clean.push_str(sequence);
                is_coloured = true;
            }
            rest = behind;
        } else {
            let control = rest.chars().next().unwrap_or('\0');
            if control == '\t' {
                clean.push('\t');
            }
            rest = &rest[control.len_utf8()..];
        }
    }
    clean.push_str(rest);
    if is_coloured {
        clean.push_str("\x1b[0m");
    }
    clean
}

fn is_colour(sequence: &str) -> bool {
    let parameters = sequence
        .strip_prefix("\x1b[")
        .and_then(|rest| rest.strip_suffix('m'));
    parameters.is_some_and(|parameters| {
        parameters
            .bytes()
            .all(|byte| byte.is_ascii_digit() || matches!(byte, b';' | b':'))
    })
}

/// Length of the escape sequence (ECMA-48) that `text` starts with; an unfinished one takes the rest. Every end stands
/// behind an ASCII byte and so on a character border.
fn escape_length(text: &str) -> usize {
    let bytes = text.as_bytes();
    let end = match bytes.get(1) {
        // CSI: parameters and intermediates, then one final byte.
        Some(b'[') => bytes[2..]
            .iter()
            .position(|byte| (0x40..=0x7e).contains(byte))
            .map(|at| at + 3),
        // OSC, DCS, SOS, PM, APC: up to BEL or ESC \.
        Some(b']' | b'P' | b'X' | b'^' | b'_') => (2..bytes.len()).find_map(|at| match bytes[at] {
            0x07 => Some(at + 1),
            0x1b if bytes.get(at + 1) == Some(&b'\\') => Some(at + 2),
            _ => None,
        }),
        // Two more bytes say a character set.
        Some(b'(' | b')' | b'*' | b'+') if bytes.get(2).is_some_and(u8::is_ascii) => Some(3),
        Some(byte) if byte.is_ascii() => Some(2),
        _ => Some(1),
    };
    end.unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_made_safe() {
        let table: &[(&str, &[u8], &str, &str)] = &[
            ("text", b"plain", "plain", "plain"),
            ("tab", b"a\tb", "a\tb", "a\tb"),
            (
                "colour",
                b"\x1b[31mred\x1b[0m!",
                "red!",
                "\x1b[31mred\x1b[0m!\x1b[0m",
            ),
            ("cursor", b"a\x1b[2Kb\x1b[10;1Hc", "abc", "abc"),
            (
                "title",
                b"\x1b]0;title\x07a\x1b]8;;http://x\x1b\\b",
                "ab",
                "ab",
            ),
            ("unfinished", b"a\x1b[31", "a", "a"),
            ("lone escape", b"a\x1b", "a", "a"),
            ("character set", b"\x1b(Ba", "a", "a"),
            ("bell and backspace", b"a\x07\x08b", "ab", "ab"),
            ("c1 control", "a\u{9b}31mb".as_bytes(), "a31mb", "a31mb"),
            ("windows line end", b"a\r", "a", "a"),
            ("progress", b"10%\r50%\r100%", "100%", "100%"),
            (
                "progress with a return at the end",
                b"50%\r100%\r",
                "100%",
                "100%",
            ),
            ("not utf-8", b"a\xffb", "a\u{fffd}b", "a\u{fffd}b"),
            (
                "escape before utf-8",
                "\x1b\u{e9}a".as_bytes(),
                "\u{e9}a",
                "\u{e9}a",
            ),
            ("empty", b"", "", ""),
        ];
        for (name, line, stripped, kept) in table {
            assert_eq!(&clean_line(line, false), stripped, "{name}");
            assert_eq!(&clean_line(line, true), kept, "{name}");
        }
    }
}
