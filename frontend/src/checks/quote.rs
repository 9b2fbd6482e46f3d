//! Texts written so that a word of `ENV` or `LABEL` means them.

use crate::word::{self, Mode, expand_with};

/// What stands behind `name=` to mean what `name value` means: the value as it is, quoted, or with its blanks escaped.
///
/// None where that would not be sure to be the same.
pub(super) fn pair_value(value: &str, escape: char) -> Option<String> {
    let is_plain =
        |char: char| !char.is_whitespace() && !matches!(char, '"' | '\'') && char != escape;
    let candidates = [
        value.chars().all(is_plain).then(|| value.to_owned()),
        (!value.contains(['"', '\'', escape])).then(|| format!("\"{value}\"")),
        Some(value.to_owned()),
        Some(with_escaped_blanks(value, escape)),
    ];
    let mut candidates = candidates.into_iter().flatten();
    candidates.find(|candidate| {
        is_one_word(candidate, escape) && means_the_same(value, candidate, escape)
    })
}

/// A text in double quotes in which nothing is expanded.
pub(super) fn quoted(text: &str, escape: char) -> String {
    let mut quoted = String::from("\"");
    for char in text.chars() {
        if matches!(char, '"' | '$') || char == escape {
            quoted.push(escape);
        }
        quoted.push(char);
    }
    quoted + "\""
}

fn with_escaped_blanks(value: &str, escape: char) -> String {
    let (mut text, mut quote, mut is_protected) = (String::new(), None, false);
    for char in value.chars() {
        if is_protected {
            is_protected = false;
        } else if char == escape && quote != Some('\'') {
            is_protected = true;
        } else if quote == Some(char) {
            quote = None;
        } else if quote.is_none() && matches!(char, '"' | '\'') {
            quote = Some(char);
        } else if quote.is_none() && char.is_whitespace() {
            text.push(escape);
        }
        text.push(char);
    }
    text
}

/// Whether the grammar of pairs takes the text for one word, with all quotes closed and no escape at its end.
fn is_one_word(text: &str, escape: char) -> bool {
    let (mut quote, mut is_protected) = (None, false);
    for char in text.chars() {
        if is_protected {
            is_protected = false;
        } else if char == escape && quote != Some('\'') {
            is_protected = true;
        } else if quote == Some(char) {
            quote = None;
        } else if quote.is_none() && matches!(char, '"' | '\'') {
            quote = Some(char);
        } else if quote.is_none() && char.is_whitespace() {
            return false;
        }
    }
    quote.is_none() && !is_protected
}

/// Whether two words come out the same, with their variables set and unset.
fn means_the_same(old: &str, new: &str, escape: char) -> bool {
    let all_set = |text: &str| expand_with(text, Mode::new(escape), &AllSet);
    let none_set = |text: &str| word::expand(text, escape, &());
    let is_same = |old: Result<word::Expansion, _>,
                   new: Result<word::Expansion, word::WordError>| {
        matches!((old, new), (Ok(old), Ok(new)) if old.text == new.text && old.matched == new.matched && old.unmatched == new.unmatched)
    };
    is_same(all_set(old), all_set(new)) && is_same(none_set(old), none_set(new))
}

/// Every variable has a value with blanks and quotes in it.
struct AllSet;

impl word::Environment for AllSet {
    fn lookup(&self, _name: &str) -> Option<&str> {
        Some(" a  \"b' ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_keep_their_meaning() {
        for (value, written) in [
            ("b", Some("b")),
            ("b  c", Some("\"b  c\"")),
            ("$b c", Some("\"$b c\"")),
            ("${b:-c d}", Some("\"${b:-c d}\"")),
            ("\"b c\"", Some("\"b c\"")),
            ("\"b\" c", Some("\"b\"\\ c")),
            ("b=c d=e", Some("\"b=c d=e\"")),
            ("it\\'s so", Some("it\\'s\\ so")),
            ("it's", None),
            ("a\\", None),
        ] {
            assert_eq!(pair_value(value, '\\').as_deref(), written, "{value}");
        }
        assert_eq!(quoted("a \"b\" $c \\", '\\'), "\"a \\\"b\\\" \\$c \\\\\"");
    }
}
