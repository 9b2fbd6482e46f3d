//! Whatever the bytes, the parser answers; and every place it names lies in the text.

use std::collections::BTreeMap;

use proptest::prelude::*;
use rbuild_frontend::diagnostic::Diagnostic;
use rbuild_frontend::graph::PlanOptions;
use rbuild_frontend::plan::errors_without_images;
use rbuild_frontend::source::{Lines, Source, Span};
use rbuild_frontend::word::{Escapes, Mode, Quotes, Unset, expand_with};
use rbuild_frontend::{csv, instructions};

/// Text that has what the grammars look for more often than chance would.
fn dockerfile() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        prop::sample::select(vec![
            "FROM a AS b\n",
            "RUN ",
            "COPY ",
            "ENV ",
            "ARG ",
            "ONBUILD ",
            "HEALTHCHECK ",
            "CMD ",
            "SHELL ",
            "LABEL ",
            "VOLUME ",
            "EXPOSE ",
            "<<EOF",
            "<<-",
            "EOF\n",
            "\\\n",
            "`",
            "\\",
            "\n",
            "\r\n",
            "# escape=`\n",
            "# check=",
            "--mount=from=",
            "--link",
            "--",
            "=",
            "$",
            "${",
            "}",
            ":-",
            "##",
            "%",
            "/",
            "\"",
            "'",
            "[\"",
            "\", ",
            "]",
            " ",
            "\t",
            "\u{a0}",
            "\u{feff}",
            "\u{e9}",
            "1h.5s",
            "\\ud800",
            "*",
            "?",
            ",",
        ])
        .prop_map(|piece| piece.as_bytes().to_vec()),
        prop::collection::vec(any::<u8>(), 0..6),
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

fn assert_inside(source: &Source, span: Span) {
    assert!(
        source.text().get(span.start..span.end).is_some(),
        "{span:?} in {:?}",
        source.text()
    );
}

fn assert_places(source: &Source, diagnostic: &Diagnostic) {
    assert_inside(source, diagnostic.span);
    diagnostic
        .notes
        .iter()
        .for_each(|(span, _)| assert_inside(source, *span));
}

proptest! {
    #[test]
    fn any_file_is_answered(bytes in dockerfile()) {
        let source = Source::new("Dockerfile", &bytes);
        match instructions::parse(&source) {
            Err(errors) => errors.iter().for_each(|error| assert_places(&source, error)),
            Ok(program) => {
                program.warnings().iter().for_each(|warning| assert_places(&source, warning));
                for stage in &program.stages {
                    assert_inside(&source, stage.span);
                    assert_inside(&source, stage.base_span);
                    stage.instructions.iter().for_each(|instruction| assert_inside(&source, instruction.span));
                }
            }
        }
        let (partial, _) = instructions::parse_partly(&source);
        for error in errors_without_images(&partial, &PlanOptions::default()) {
            assert_places(&source, &error);
        }
        let _ = instructions::parse_trigger(source.text(), Span::new(0, 0), Lines { first: 1, last: 1 });
        let _ = csv::fields(source.text());
    }

    #[test]
    fn any_word_is_answered(bytes in dockerfile(), escape in prop::sample::select(vec!['\\', '`']), kept in any::<[bool; 2]>()) {
        let word = String::from_utf8_lossy(&bytes);
        let environment = BTreeMap::from([("a".to_owned(), "x y\nz".to_owned())]);
        let mode = Mode {
            unset: if kept[0] { Unset::Keep } else { Unset::Empty },
            quotes: if kept[1] { Quotes::Keep } else { Quotes::Remove },
            escapes: Escapes::Remove,
            escape,
        };
        let _ = expand_with(&word, mode, &environment);
    }
}
