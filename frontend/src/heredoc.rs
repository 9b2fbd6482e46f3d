//! Here-documents: which words of a line announce one.
//!
//! The line is cut into shell words with quotes and escapes kept; a word that consists of an optional file descriptor,
//! `<<`, an optional `-` and a delimiter announces a body. So `echo $(( 1 << 2 ))` announces one named `2`: the
//! reference reads it so, and files are written around it. The bodies themselves are read by [`crate::ast`].
//! Detection always uses the backslash, whatever the `escape` directive says.

use crate::instruction::Heredoc;
use crate::word::{Escapes, Mode, Quotes, expand_with};

/// The heredocs that a joined line announces, without content, in order.
pub(crate) fn announced_by(line: &str) -> Vec<Heredoc> {
    announced_by_plain(line).unwrap_or_else(|| announced_by_words(line))
}

/// The same, for any line.
fn announced_by_words(line: &str) -> Vec<Heredoc> {
    let mode = Mode {
        quotes: Quotes::Keep,
        escapes: Escapes::Keep,
        ..Mode::new('\\').keeping_unset()
    };
    // A line that is not made of shell words (an unbalanced quote) has no heredocs.
    let words = expand_with(line, mode, &())
        .map(|expansion| expansion.words)
        .unwrap_or_default();
    words.iter().filter_map(|word| parse_word(word)).collect()
}

/// The same, quick: for lines whose words are pieces of them. None if variables, escapes or letters beyond ASCII (some
/// of which are blanks) make it hard to tell.
fn announced_by_plain(line: &str) -> Option<Vec<Heredoc>> {
    let bytes = line.as_bytes();
    let mut found = Vec::new();
    let (mut start, mut at) = (0, 0);
    let mut has_marker = false;
    loop {
        match bytes.get(at) {
            Some(b'$' | b'\\' | 128..) => return None,
            Some(quote @ (b'"' | b'\'')) => {
                let quoted = &bytes[at + 1..];
                let length = quoted.iter().position(|byte| byte == quote)?;
                if quoted[..length]
                    .iter()
                    .any(|byte| matches!(byte, b'$' | b'\\'))
                {
                    return None;
                }
                at += length + 2;
            }
            Some(b'<') if bytes[at..].starts_with(b"<<") => {
                has_marker = true;
                let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r');
                let behind = &bytes[at + 2..];
                at += 2 + behind.iter().take_while(|byte| is_blank(byte)).count();
            }
            Some(b'\t'..=b'\r' | b' ') | None => {
                if has_marker {
                    found.extend(parse_word(&line[start..at]));
                }
                if at >= bytes.len() {
                    return Some(found);
                }
                at += 1;
                (start, has_marker) = (at, false);
            }
            Some(_) => at += 1,
        }
    }
}

/// The heredoc that one word announces, without content.
pub(crate) fn parse_word(word: &str) -> Option<Heredoc> {
    let marker = memchr::memchr(b'<', word.as_bytes())?;
    let (descriptor, rest) = (&word[..marker], word[marker..].strip_prefix("<<")?);
    if !descriptor.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (is_chomped, rest) = rest
        .strip_prefix('-')
        .map_or((false, rest), |rest| (true, rest));
    let delimiter = rest.trim_start_matches(['\t', '\n', '\u{c}', '\r', ' ']);
    if delimiter.is_empty() || delimiter.contains('<') {
        return None;
    }
    let (name, is_expanded) = match plain_name(delimiter) {
        Some((name, is_expanded)) => (name.to_owned(), is_expanded),
        None => name_of(delimiter)?,
    };
    Some(Heredoc {
        name,
        // Too many digits mean the largest number, as in the reference; nothing reads it.
        file_descriptor: if descriptor.is_empty() {
            0
        } else {
            descriptor.parse().unwrap_or(u32::MAX)
        },
        is_expanded,
        is_chomped,
        content: String::new(),
    })
}

/// The name that a delimiter says, and whether the body is expanded: letters, or letters in quotes. None if it says more.
fn plain_name(delimiter: &str) -> Option<(&str, bool)> {
    let bare = ['"', '\''].iter().find_map(|quote| {
        let behind = delimiter.strip_prefix(*quote)?;
        behind.strip_suffix(*quote)
    });
    let name = bare.unwrap_or(delimiter);
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    let is_name = !name.is_empty() && name.bytes().all(is_plain);
    is_name.then_some((name, bare.is_none()))
}

/// The same for any delimiter.
fn name_of(delimiter: &str) -> Option<(String, bool)> {
    let mode = Mode::new('\\').keeping_unset();
    let plain = expand_with(delimiter, mode, &()).ok()?.words;
    let [name] = plain.as_slice() else {
        return None;
    };
    let raw = expand_with(
        delimiter,
        Mode {
            quotes: Quotes::Keep,
            ..mode
        },
        &(),
    )
    .ok()?
    .words;
    Some((name.clone(), raw.first() == Some(name)))
}

#[cfg(test)]
mod tests {
    use proptest::{prop_assert_eq, proptest};

    use super::*;

    proptest! {
        #[test]
        fn plain_lines_are_read_as_all_others(line in "[A1 \t\r<\"'$\\\\|_-]{0,24}") {
            if let Some(found) = announced_by_plain(&line) {
                prop_assert_eq!(found, announced_by_words(&line));
            }
        }

        #[test]
        fn plain_names_are_read_as_all_others(delimiter in "[A1\"'$\\\\_.-]{1,6}") {
            if let Some((name, is_expanded)) = plain_name(&delimiter) {
                prop_assert_eq!(Some((name.to_owned(), is_expanded)), name_of(&delimiter));
            }
        }
    }

    #[test]
    fn words_that_announce() {
        type Row<'a> = (&'a str, &'a [(&'a str, bool, bool, u32)]);
        let table: &[Row<'_>] = &[
            ("RUN <<EOF", &[("EOF", true, false, 0)]),
            (
                "RUN cat <<-EOF 3<<'B C' | x",
                &[("EOF", true, true, 0), ("B C", false, false, 3)],
            ),
            ("RUN cat << EOF", &[("EOF", true, false, 0)]),
            ("RUN cat <<\t \rEOF", &[("EOF", true, false, 0)]),
            ("RUN cat <<E\\OF", &[("EOF", true, false, 0)]),
            ("RUN cat <<\"EOF\"", &[("EOF", false, false, 0)]),
            ("RUN cat <<$EOF", &[("$EOF", true, false, 0)]),
            ("RUN echo $(( 1 << 2 ))", &[("2", true, false, 0)]),
            ("RUN echo $((1<<2))", &[]),
            ("RUN a<<EOF", &[]),
            ("RUN cat <<<x", &[]),
            ("RUN \"<<EOF\"", &[]),
            ("RUN it's <<EOF", &[]),
            ("RUN cat <<", &[]),
        ];
        for (line, expected) in table {
            let found = announced_by(line);
            let found: Vec<_> = found
                .iter()
                .map(|heredoc| {
                    (
                        heredoc.name.as_str(),
                        heredoc.is_expanded,
                        heredoc.is_chomped,
                        heredoc.file_descriptor,
                    )
                })
                .collect();
            assert_eq!(&found, expected, "{line}");
        }
    }
}
