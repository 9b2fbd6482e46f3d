//! Any bytes are a Dockerfile or diagnostics whose places are inside the text; what is one is planned or refused.
#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use rbuild_frontend::diagnostic::Diagnostic;
use rbuild_frontend::graph::{PlanOptions, Planned, ResolvedImage};
use rbuild_frontend::image_config::ImageConfig;
use rbuild_frontend::source::Source;
use rbuild_frontend::{instructions, plan, syntax};

fn check_place(source: &Source, diagnostic: &Diagnostic) {
    let span = diagnostic.span;
    assert!(
        source.text().get(span.start..span.end).is_some(),
        "outside the text or inside a character: {diagnostic:?}"
    );
}

fuzz_target!(|bytes: &[u8]| {
    let source = Source::new("Dockerfile", bytes);
    let _ = syntax::requested(source.text(), None);
    let program = match instructions::parse(&source) {
        Ok(program) => program,
        Err(errors) => return errors.iter().for_each(|error| check_place(&source, error)),
    };
    program
        .warnings()
        .iter()
        .for_each(|warning| check_place(&source, warning));
    let mut config = ImageConfig::default();
    config.config.on_build = vec!["COPY --from=a x y".to_owned(), "ENV TOKEN $b".to_owned()];
    let options = PlanOptions {
        checks_all_stages: true,
        ..PlanOptions::default()
    };
    let mut images = BTreeMap::new();
    loop {
        match plan(&program, &options, &images) {
            Ok(Planned::Needs(requests)) => {
                for request in requests {
                    let config = config.clone();
                    let earlier = images.insert(request, ResolvedImage { config });
                    assert!(earlier.is_none(), "asked twice");
                }
            }
            Ok(Planned::Ready(graph)) => {
                graph
                    .warnings
                    .iter()
                    .for_each(|warning| check_place(&source, warning));
                return;
            }
            Err(errors) => return errors.iter().for_each(|error| check_place(&source, error)),
        }
    }
});
