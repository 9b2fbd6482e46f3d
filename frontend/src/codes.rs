//! The codes of errors, as a table: what each means, why it is one, and a small file that shows it.
//!
//! Build checks have their own table, [`crate::checks::RULES`]. `docs/rules.md` and `rbuild check --explain` are made from
//! both, and tests walk them: every example says what its row says, and no longer once it is mended. A code is never
//! renamed: people search for it.

mod table;

use std::borrow::Cow;

pub use table::ERROR_CODES;

use crate::checks::{RULES, Rule};

/// A small Dockerfile that shows a message, and the same without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Example {
    /// The Dockerfile; [`Example::dockerfile`] has it in full. Empty where no file alone can show the message.
    pub text: &'static str,
    /// The same, mended.
    pub mended: &'static str,
    /// `.dockerignore` beside it.
    pub ignore: &'static str,
    /// `--target`; empty for the last stage.
    pub target: &'static str,
    /// `--build-arg`; both empty for none.
    pub build_arg: (&'static str, &'static str),
}

/// Stands in examples for as many letters as nobody wants to read.
const MANY_LETTERS: &str = "<70000 letters>";

impl Example {
    /// What fails while building can't be shown by a file alone.
    pub(crate) const NONE: Self = example("", "");

    /// The Dockerfile as it is to be read.
    pub fn dockerfile(&self) -> Cow<'static, str> {
        if self.text.contains(MANY_LETTERS) {
            Cow::Owned(self.text.replace(MANY_LETTERS, &"x".repeat(70_000)))
        } else {
            Cow::Borrowed(self.text)
        }
    }

    pub(crate) const fn ignoring(self, ignore: &'static str) -> Self {
        Self { ignore, ..self }
    }

    pub(crate) const fn for_target(self, target: &'static str) -> Self {
        Self { target, ..self }
    }

    pub(crate) const fn with_arg(self, name: &'static str, value: &'static str) -> Self {
        Self {
            build_arg: (name, value),
            ..self
        }
    }
}

pub(crate) const fn example(text: &'static str, mended: &'static str) -> Example {
    Example {
        text,
        mended,
        ignore: "",
        target: "",
        build_arg: ("", ""),
    }
}

/// One kind of error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorCode {
    /// The code in messages.
    pub name: &'static str,
    /// What it says, in one line.
    pub summary: &'static str,
    /// What is behind it, in a few sentences.
    pub why: &'static str,
    /// A file that shows it.
    pub example: Example,
}

/// What a code stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// A build check.
    Rule(&'static Rule),
    /// An error.
    Error(&'static ErrorCode),
}

/// Finds a code, in any case.
pub fn find(name: &str) -> Option<Code> {
    let rule = RULES
        .iter()
        .find(|rule| rule.name.eq_ignore_ascii_case(name));
    let error = || {
        ERROR_CODES
            .iter()
            .find(|code| code.name.eq_ignore_ascii_case(name))
    };
    rule.map(Code::Rule).or_else(|| error().map(Code::Error))
}

/// The code that was probably meant.
pub fn closest(name: &str) -> Option<&'static str> {
    let rules = RULES.iter().map(|rule| rule.name);
    crate::suggest::closest(name, rules.chain(ERROR_CODES.iter().map(|code| code.name)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::graph::{PlanOptions, Planned, ResolvedImage};
    use crate::ignore_file::IgnoreFile;
    use crate::image_config::ImageConfig;
    use crate::instructions::parse_partly;
    use crate::plan;
    use crate::platform::Platform;
    use crate::source::Source;

    /// Codes of all that is said of a file, each once.
    fn said(text: &str, example: &Example) -> Vec<&'static str> {
        let (program, mut diagnostics) = parse_partly(&Source::new("Dockerfile", text.as_bytes()));
        if diagnostics.is_empty() {
            let mut options = PlanOptions {
                target: Some(example.target.to_owned()).filter(|target| !target.is_empty()),
                checks_all_stages: example.target.is_empty(),
                ..PlanOptions::default()
            };
            let (name, value) = example.build_arg;
            if !name.is_empty() {
                options.build_args.insert(name.to_owned(), value.to_owned());
            }
            let ignore = IgnoreFile::parse(example.ignore.as_bytes()).expect("it is one");
            options.ignore = ignore.matcher().expect("its patterns are");
            let mut images = BTreeMap::new();
            diagnostics = loop {
                match plan(&program, &options, &images) {
                    Ok(Planned::Ready(graph)) => break graph.warnings,
                    Err(errors) => break errors.into_vec(),
                    Ok(Planned::Needs(requests)) => {
                        for request in requests {
                            let config = ImageConfig::default().with_platform(&Platform::default());
                            images.insert(request, ResolvedImage { config });
                        }
                    }
                }
            };
        }
        let mut codes: Vec<_> = diagnostics.iter().map(|found| found.code).collect();
        codes.dedup();
        codes
    }

    #[test]
    fn names_are_sorted_and_found() {
        assert!(ERROR_CODES.is_sorted_by(|left, right| left.name < right.name));
        assert!(matches!(find("FROMASCASING"), Some(Code::Rule(_))));
        assert!(matches!(find("unknown-flag"), Some(Code::Error(_))));
        assert_eq!(find("nope"), None);
        assert_eq!(closest("unknown-flg"), Some("unknown-flag"));
    }

    #[test]
    fn every_example_shows_its_code_and_nothing_else() {
        let rules = RULES.iter().map(|rule| (rule.name, rule.example));
        let errors = ERROR_CODES.iter().map(|code| (code.name, code.example));
        for (name, example) in rules.chain(errors) {
            if example == Example::NONE {
                continue;
            }
            let text = example.dockerfile();
            assert_eq!(said(&text, &example), [name], "{text}");
            assert_eq!(
                said(example.mended, &example),
                [""; 0],
                "{name}: {}",
                example.mended
            );
        }
    }
}
