//! Letters as the reference's language has them: case one character at a time, and what may stand in a name.
//!
//! Rust maps case by whole strings (`ß` becomes `SS`, a final `Σ` becomes `ς`); here a character becomes one
//! character, so that the same instruction words and stage names are known.

use unicode_properties::{GeneralCategory, GeneralCategoryGroup, UnicodeGeneralCategory};

/// The text in lower case, character by character.
pub(crate) fn lower(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    let lower = |char: char| match char {
        // Its full mapping has a second character; the simple one is plain.
        '\u{130}' => 'i',
        char => only(char.to_lowercase()).unwrap_or(char),
    };
    text.chars().map(lower).collect()
}

/// The text in upper case, character by character.
pub(crate) fn upper(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_uppercase();
    }
    text.chars()
        .map(|char| only(char.to_uppercase()).unwrap_or(char))
        .collect()
}

/// The one character of a mapping; none if there are more.
fn only(mut mapping: impl Iterator<Item = char>) -> Option<char> {
    let first = mapping.next();
    first.filter(|_| mapping.next().is_none())
}

/// Whether a word is `as` in any case. Among the cases of `s` is the long one.
pub(crate) fn is_as(word: &str) -> bool {
    let mut chars = word.chars();
    matches!(chars.next(), Some('a' | 'A'))
        && matches!(chars.next(), Some('s' | 'S' | '\u{17f}'))
        && chars.next().is_none()
}

/// A letter of any script.
pub(crate) fn is_letter(char: char) -> bool {
    if char.is_ascii() {
        return char.is_ascii_alphabetic();
    }
    char.general_category_group() == GeneralCategoryGroup::Letter
}

/// A decimal digit of any script.
pub(crate) fn is_digit(char: char) -> bool {
    if char.is_ascii() {
        return char.is_ascii_digit();
    }
    char.general_category() == GeneralCategory::DecimalNumber
}

/// Whether the reference's way of quoting shows a character as it is.
pub(crate) fn is_printable(char: char) -> bool {
    if char.is_ascii() {
        return matches!(char, ' '..='~');
    }
    !matches!(
        char.general_category_group(),
        GeneralCategoryGroup::Separator | GeneralCategoryGroup::Other
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_character_becomes_one() {
        for (text, low, up) in [
            ("From", "from", "FROM"),
            ("ß", "ß", "ß"),
            ("ΑΣ", "ασ", "ΑΣ"),
            ("\u{130}", "i", "\u{130}"),
            ("\u{212a}", "k", "\u{212a}"),
            ("\u{17f}", "\u{17f}", "S"),
        ] {
            assert_eq!((lower(text).as_str(), upper(text).as_str()), (low, up));
        }
    }

    #[test]
    fn as_has_a_long_s() {
        for (word, wanted) in [
            ("as", true),
            ("AS", true),
            ("a\u{17f}", true),
            ("a", false),
            ("ass", false),
        ] {
            assert_eq!(is_as(word), wanted, "{word}");
        }
    }

    #[test]
    fn categories_are_told_apart() {
        for (char, letter, digit, printable) in [
            ('a', true, false, true),
            ('한', true, false, true),
            ('٣', false, true, true),
            ('½', false, false, true),
            ('Ⅷ', false, false, true),
            ('\u{301}', false, false, true),
            ('\u{a0}', false, false, false),
            ('\u{200b}', false, false, false),
            ('\u{e000}', false, false, false),
        ] {
            assert_eq!(
                (is_letter(char), is_digit(char), is_printable(char)),
                (letter, digit, printable),
                "{char:?}"
            );
        }
    }
}
