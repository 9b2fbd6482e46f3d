//! Every example of `docs/dockerfile.md` is a Dockerfile that is planned without an error.

use std::collections::BTreeMap;
use std::path::Path;

use rbuild_frontend::graph::{PlanOptions, Planned, ResolvedImage};
use rbuild_frontend::image_config::ImageConfig;
use rbuild_frontend::source::Source;
use rbuild_frontend::{instructions, plan};

#[test]
fn examples_of_the_language_are_planned() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/dockerfile.md");
    let document = std::fs::read_to_string(path).expect("the page is there");
    let mut examples = 0;
    for block in document.split("```dockerfile\n").skip(1) {
        let (text, _) = block.split_once("```").expect("the example is closed");
        examples += 1;
        let source = Source::new("Dockerfile", text.as_bytes());
        let program = instructions::parse(&source)
            .unwrap_or_else(|errors| panic!("{}\n{text}", errors.first()));
        let options = PlanOptions {
            checks_all_stages: true,
            ..PlanOptions::default()
        };
        let mut images = BTreeMap::new();
        loop {
            let planned = plan(&program, &options, &images);
            match planned.unwrap_or_else(|errors| panic!("{}\n{text}", errors.first())) {
                Planned::Ready(graph) => {
                    assert!(!graph.history.is_empty(), "{text}");
                    break;
                }
                Planned::Needs(requests) => images.extend(requests.into_iter().map(|request| {
                    let config = ImageConfig::default();
                    (request, ResolvedImage { config })
                })),
            }
        }
    }
    assert!(examples >= 4, "the page has lost its examples");
}
