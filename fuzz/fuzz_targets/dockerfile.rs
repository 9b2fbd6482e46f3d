//! Any bytes are a Dockerfile or a diagnostic whose place is inside the text; never a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rbuild_frontend::instructions;
use rbuild_frontend::source::Source;

fuzz_target!(|bytes: &[u8]| {
    let source = Source::new("Dockerfile", bytes);
    if let Err(errors) = instructions::parse(&source) {
        for diagnostic in errors.iter() {
            let span = diagnostic.span;
            assert!(
                span.start <= span.end && span.end <= source.text().len(),
                "{diagnostic:?}"
            );
            assert!(
                source.text().get(span.start..span.end).is_some(),
                "inside a character: {diagnostic:?}"
            );
        }
    }
});
