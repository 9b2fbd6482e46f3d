//! `docs/rules.md`, made from the tables of build checks and errors: each with an example and the message that rbuild
//! prints for it. So it can't fall behind, and every message is seen when it changes.
//!
//! `RBUILD_UPDATE_DOCS=1 cargo test -p rbuild rules` writes it anew.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use rbuild_frontend::checks::RULES;
use rbuild_frontend::codes::{ERROR_CODES, Example};
use rbuild_frontend::diagnostic::{Diagnostic, Errors};
use rbuild_frontend::graph::{PlanOptions, Planned, ResolvedImage};
use rbuild_frontend::ignore_file::IgnoreFile;
use rbuild_frontend::image_config::ImageConfig;
use rbuild_frontend::instructions::parse_partly;
use rbuild_frontend::plan;
use rbuild_frontend::platform::Platform;
use rbuild_frontend::source::Source;

use super::super::diagnostic::render;
use crate::ui::terminal::Terminal;

const HEAD: &str = "# Build checks and errors\n\n\
    Made from the code by `RBUILD_UPDATE_DOCS=1 cargo test -p rbuild rules`; a test keeps it current.\n\n\
    Every message about a Dockerfile has a code, in brackets: `warning[FromAsCasing]`, `error[unknown-flag]`.\n\
    `rbuild check --explain CODE` prints what stands here. Codes are never renamed.\n\n\
    * A **build check** that fires is a warning: the build goes on. Their names are BuildKit's.\n\
    \x20 `# check=skip=RULE,RULE` at the top of a Dockerfile (or `skip=all`) turns checks off for the file; the same comment\n\
    \x20 right above an instruction, for that instruction. `# check=error=true` makes every check that fires an error.\n\
    \x20 `# check=experimental=RULE` (or `all`) turns experimental checks on, there too. Settings are combined with `;`:\n\
    \x20 `# check=skip=JSONArgsRecommended;error=true`. The build argument `BUILDKIT_DOCKERFILE_CHECK` replaces them all.\n\
    * An **error** ends the build. All errors of a file that do not follow from one another are told at once.\n\n\
    `rbuild check` exits with 1 if a build check fires (`--severity error`: only if one fires as an error) or the file\n\
    can't be built, and with 2 if it does not parse. `rbuild check --fix` mends what is marked *mendable*, wherever it can\n\
    be sure that nothing but the spelling changes; `--diff` only shows that.\n";

/// Mended by `--fix`, at least in its example.
fn is_mendable(diagnostic: &Diagnostic) -> bool {
    !diagnostic.edits.is_empty()
}

/// What rbuild says of an example: the first message, and the source that it points into.
fn message(example: &Example) -> Option<(Diagnostic, Source)> {
    let source = Source::new("Dockerfile", example.dockerfile().as_bytes());
    let (program, errors) = parse_partly(&source);
    if let Err(errors) = Errors::of(errors) {
        return Some((errors.first().clone(), source));
    }
    let (name, value) = example.build_arg;
    let args = (!name.is_empty()).then(|| (name.to_owned(), value.to_owned()));
    let options = PlanOptions {
        target: Some(example.target.to_owned()).filter(|target| !target.is_empty()),
        checks_all_stages: example.target.is_empty(),
        build_args: args.into_iter().collect(),
        ignore: IgnoreFile::parse(example.ignore.as_bytes())
            .unwrap()
            .matcher()
            .unwrap(),
        ..PlanOptions::default()
    };
    let mut images = BTreeMap::new();
    loop {
        match plan(&program, &options, &images) {
            Err(errors) => return Some((errors.first().clone(), source)),
            Ok(Planned::Ready(graph)) => return Some((graph.warnings.first()?.clone(), source)),
            Ok(Planned::Needs(requests)) => {
                for request in requests {
                    let config = ImageConfig::default().with_platform(&Platform::default());
                    images.insert(request, ResolvedImage { config });
                }
            }
        }
    }
}

fn push(text: &mut String, name: &str, words: &[&str], fix: &str, example: &Example) {
    let _ = write!(text, "\n### {name}\n\n{}\n", words.join("\n\n"));
    let Some((diagnostic, source)) = message(example).filter(|_| !example.text.is_empty()) else {
        return;
    };
    assert_eq!(diagnostic.code, name, "{}", example.text);
    let _ = write!(text, "\n```dockerfile\n{}```\n", example.text);
    if !example.ignore.is_empty() {
        let _ = write!(
            text,
            "\nwith a `.dockerignore` of\n\n```\n{}```\n",
            example.ignore
        );
    }
    if !example.target.is_empty() {
        let _ = write!(text, "\nbuilt with `--target {}`\n", example.target);
    }
    let (name, value) = example.build_arg;
    if !name.is_empty() {
        let _ = write!(text, "\nbuilt with `--build-arg {name}={value}`\n");
    }
    let shown = render(&diagnostic, &source, Terminal::default());
    let _ = write!(text, "\n```\n{shown}```\n");
    let mark = if is_mendable(&diagnostic) {
        " (*mendable*)"
    } else {
        ""
    };
    let fix = if fix.is_empty() { "Mended" } else { fix };
    let _ = write!(
        text,
        "\n{fix}{mark}:\n\n```dockerfile\n{}```\n",
        example.mended
    );
}

fn sentence(words: &str) -> String {
    let mut chars = words.chars();
    let first = chars.next().map(|first| first.to_uppercase().to_string());
    format!("{}{}.", first.unwrap_or_default(), chars.as_str())
}

fn reference() -> String {
    let mut text = HEAD.to_owned();
    text.push_str("\n## Build checks\n\n| check | fires when | |\n|---|---|---|\n");
    for rule in &RULES {
        let mut marks = Vec::new();
        if rule.is_experimental {
            marks.push("experimental");
        }
        if message(&rule.example).is_some_and(|(found, _)| is_mendable(&found)) {
            marks.push("mendable");
        }
        let anchor = rule.name.to_lowercase();
        let _ = writeln!(
            text,
            "| [{}](#{anchor}) | {} | {} |",
            rule.name,
            rule.summary,
            marks.join(", ")
        );
    }
    for rule in &RULES {
        let words = [sentence(rule.summary), rule.why.to_owned()];
        let words = words.each_ref().map(String::as_str);
        let fix = sentence(rule.fix);
        push(
            &mut text,
            rule.name,
            &words,
            fix.trim_end_matches('.'),
            &rule.example,
        );
    }
    text.push_str("\n## Errors\n\n| code | meaning |\n|---|---|\n");
    for code in &ERROR_CODES {
        let _ = writeln!(text, "| [{0}](#{0}) | {1} |", code.name, code.summary);
    }
    for code in &ERROR_CODES {
        let words = [sentence(code.summary), code.why.to_owned()];
        let words = words.each_ref().map(String::as_str);
        push(&mut text, code.name, &words, "", &code.example);
    }
    text
}

#[test]
fn the_rules_are_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/rules.md");
    let text = reference();
    if std::env::var_os("RBUILD_UPDATE_DOCS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    for (line, (written, new)) in written.lines().zip(text.lines()).enumerate() {
        assert_eq!(
            written,
            new,
            "docs/rules.md:{}; RBUILD_UPDATE_DOCS=1 cargo test -p rbuild rules",
            line + 1
        );
    }
    assert_eq!(
        written.len(),
        text.len(),
        "docs/rules.md ends early or late"
    );
}
