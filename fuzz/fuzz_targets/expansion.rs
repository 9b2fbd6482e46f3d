//! Any word in any mode is expanded or refused, and stays within its limit.
#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use rbuild_frontend::word::{Escapes, MAX_EXPANSION, Mode, Quotes, Unset, expand_with};

fuzz_target!(|input: (u8, &str, &str)| {
    let (choice, value, word) = input;
    let mode = Mode {
        escape: if choice & 1 == 0 { '\\' } else { '`' },
        unset: if choice & 2 == 0 { Unset::Empty } else { Unset::Keep },
        quotes: match choice & 12 {
            0 | 4 => Quotes::Remove,
            8 => Quotes::Keep,
            _ => Quotes::Ordinary,
        },
        escapes: if choice & 16 == 0 { Escapes::Remove } else { Escapes::Keep },
    };
    let environment = BTreeMap::from([("a".to_owned(), value.to_owned()), ("b".to_owned(), String::new())]);
    if let Ok(expansion) = expand_with(word, mode, &environment) {
        assert!(expansion.text.len() <= MAX_EXPANSION + word.len());
        assert!(expansion.matched.is_disjoint(&expansion.unmatched));
    }
});
