//! Words, in all modes.

use std::collections::BTreeMap;

use super::*;

fn environment() -> BTreeMap<String, String> {
    let pairs = [
        ("A", "val"),
        ("B", "two words"),
        ("E", ""),
        ("P", "a/b.tar.gz"),
        ("N", "nine"),
    ];
    pairs
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

#[test]
fn words_become_text() {
    let table = [
        ("plain", "plain"),
        ("a'b c'\"d e\"", "ab cd e"),
        ("\\$A\\\\\\x", "$A\\x"),
        ("\"\\$A \\x \\\"\"", "$A \\x \""),
        ("'$A'", "$A"),
        ("end\\", "end"),
        ("$A-${A}-$Ax-${U}", "val-val--"),
        ("$1x$10$", "x$"),
        ("$.", "$."),
        ("${U-w}${U:-w}${E-w}${E:-w}${A:-w}", "wwwval"),
        ("${U+w}${U:+w}${E+w}${E:+w}${A:+w}", "ww"),
        ("${A?no}${E?no}${A:?no}", "valval"),
        ("${P#*/}${P##*.}${P%.*}${P%%.*}", "b.tar.gzgza/b.tara/b"),
        (
            "${P/a/x}${P//./_}${P/\\//-}",
            "x/b.tar.gza/b_tar_gza-b.tar.gz",
        ),
        ("${U:-${U:-\"$A}\"}}", "val}"),
        ("\u{feff}x", "x"),
    ];
    for (word, expected) in table {
        let text = expand(word, '\\', &environment()).map(|expansion| expansion.text);
        assert_eq!(text.as_deref(), Ok(expected), "{word}");
    }
    let backtick = expand("`$A\\", '`', &environment()).map(|expansion| expansion.text);
    assert_eq!(backtick.as_deref(), Ok("$A\\"));
}

#[test]
fn unquoted_blanks_make_words() {
    let table: &[(&str, &[&str])] = &[
        ("a b", &["a", "b"]),
        ("$B x", &["two", "words", "x"]),
        ("\"$B\" 'x y'", &["two words", "x y"]),
        ("a\\ b", &["a b"]),
        ("<< EOF x", &["<< EOF", "x"]),
        ("", &[]),
    ];
    for (word, expected) in table {
        let words = expand(word, '\\', &environment())
            .expect("the word is valid")
            .words;
        assert_eq!(&words, expected, "{word}");
    }
}

#[test]
fn modes_keep_what_they_say() {
    let mode = Mode::new('\\');
    let table = [
        (
            mode.keeping_unset(),
            "$U${U}${U:-w}${A}",
            "$U${U}${U:-w}val",
        ),
        (
            Mode {
                quotes: Quotes::Keep,
                ..mode
            },
            "'$A'\"$A\"",
            "'$A'\"val\"",
        ),
        (
            Mode {
                escapes: Escapes::Keep,
                ..mode
            },
            "\\$A",
            "\\$A",
        ),
        (Mode::heredoc_body(), "it's \"$A\"", "it's \"val\""),
    ];
    for (mode, word, expected) in table {
        let text = expand_with(word, mode, &environment()).map(|expansion| expansion.text);
        assert_eq!(text.as_deref(), Ok(expected), "{word}");
    }
}

#[test]
fn broken_words_are_refused() {
    let required = |reason: &str| WordError::Required {
        name: "U".to_owned(),
        reason: reason.to_owned(),
    };
    let unsupported = |name: &str, modifier: &str| WordError::UnsupportedModifier {
        name: name.to_owned(),
        modifier: modifier.to_owned(),
    };
    let table = [
        ("'a", WordError::UnclosedQuote { quote: '\'' }),
        ("\"a", WordError::UnclosedQuote { quote: '"' }),
        ("${A", WordError::MissingBrace),
        ("${A:-x", WordError::MissingBrace),
        ("${", WordError::MissingBrace),
        ("${}", WordError::MissingName),
        ("${A/x}", WordError::MissingSlash),
        ("${A:=x}", unsupported("A", ":=")),
        ("${A^^}", unsupported("A", "^")),
        ("${#A}", unsupported("#", "A")),
        ("${U?}", required("it is not set")),
        ("${U:?say why}", required("say why")),
    ];
    for (word, expected) in table {
        assert_eq!(expand(word, '\\', &environment()), Err(expected), "{word}");
    }
    // An unset variable that is kept as written does not hide it.
    let kept = expand_with("${U:#x}", Mode::new('\\').keeping_unset(), &environment());
    assert_eq!(kept, Err(unsupported("U", ":#")));
    let deep = "${U:-".repeat(10_000);
    assert_eq!(expand(&deep, '\\', &()), Err(WordError::TooDeep));
}

#[test]
fn used_names_are_reported() {
    let expansion = expand("$A$U${E:-$V}", '\\', &environment()).expect("the word is valid");
    assert_eq!(
        expansion.matched.into_iter().collect::<Vec<_>>(),
        ["A", "E"]
    );
    assert_eq!(
        expansion.unmatched.into_iter().collect::<Vec<_>>(),
        ["U", "V"]
    );
}
