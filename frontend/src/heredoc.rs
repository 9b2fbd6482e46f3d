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

/// The heredoc that one word announces, without content.
pub(crate) fn parse_word(word: &str) -> Option<Heredoc> {
    let (descriptor, rest) = word.split_once("<<")?;
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
    Some(Heredoc {
        name: name.clone(),
        // Too many digits mean the largest number, as in the reference; nothing reads it.
        file_descriptor: if descriptor.is_empty() {
            0
        } else {
            descriptor.parse().unwrap_or(u32::MAX)
        },
        is_expanded: raw.first() == Some(name),
        is_chomped,
        content: String::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
