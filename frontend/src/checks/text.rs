//! The build checks that need nothing but the text.

use std::collections::{BTreeMap, HashMap};

use super::quote::{pair_value, quoted};
use super::{CheckSettings, RULES};
use crate::ast::{Arguments, Dockerfile, Node, Pair, Word};
use crate::diagnostic::{Diagnostic, Edit};
use crate::letters;
use crate::source::Span;
use crate::word::{Mode, expand_with};

/// All warnings of a file whose instructions are valid, in the order of the rules' work.
pub(crate) fn of_text(file: &Dockerfile) -> Vec<Diagnostic> {
    let mut checker = Checker {
        file,
        warnings: file.warnings.clone(),
        stages: HashMap::new(),
    };
    for node in &file.nodes {
        checker.check(node);
    }
    checker.check_casing(&file.nodes);
    checker.warnings
}

/// What is remembered from instruction to instruction.
struct Checker<'a> {
    file: &'a Dockerfile,
    warnings: Vec<Diagnostic>,
    /// Names of stages so far, lower-cased, and where they stand.
    stages: HashMap<String, Span>,
}

impl<'a> Checker<'a> {
    /// Reports unless a comment above the instruction says not to.
    fn report(&mut self, rule: &'static str, node: &Node, span: Span, message: String) {
        self.report_mendable(rule, node, span, message, None);
    }

    /// As [`Checker::report`], with an edit that mends it if there is one.
    fn report_mendable(
        &mut self,
        rule: &'static str,
        node: &Node,
        span: Span,
        message: String,
        edit: Option<Edit>,
    ) {
        if !is_skipped_by_comment(rule, &node.comments) {
            let mut warning = warning(rule, span, message).within(node.lines);
            warning.edits.extend(edit);
            self.warnings.push(warning);
        }
    }

    /// What writes another text in place of a word; none if the word does not stand in the file in one piece.
    fn replacing(&self, word: &Word, text: String) -> Option<Edit> {
        let span = word.span;
        self.file.is_verbatim(word).then_some(Edit { span, text })
    }

    fn check(&mut self, node: &'a Node) {
        let keyword = letters::upper(&letters::lower(&node.keyword.text));
        match keyword.as_str() {
            "FROM" => self.check_from(node),
            "ARG" => {
                let names = node.arguments.words().iter().map(name_of_arg);
                self.check_description(node, &names.map(|(name, _)| name).collect::<Vec<_>>());
                // An ARG before the first FROM reaches no image by itself.
                if !self.stages.is_empty() {
                    node.arguments
                        .words()
                        .iter()
                        .map(name_of_arg)
                        .for_each(|name| self.check_secret(node, name));
                }
            }
            "ENV" | "LABEL" => {
                let Arguments::Pairs(pairs) = &node.arguments else {
                    return;
                };
                for pair in pairs {
                    if pair.is_legacy {
                        let message =
                            format!("{keyword} `{}` is written without `=`", pair.name.text);
                        let edit = self.pair_edit(pair);
                        let span = pair.name.span;
                        self.report_mendable("LegacyKeyValueFormat", node, span, message, edit);
                    }
                    if keyword == "ENV" {
                        self.check_secret(node, (&pair.name.text, pair.name.span));
                    }
                }
            }
            "MAINTAINER" => {
                let message = "MAINTAINER is deprecated".to_owned();
                let edit = self.maintainer_edit(node);
                let span = node.keyword.span;
                self.report_mendable("MaintainerDeprecated", node, span, message, edit);
            }
            _ => {}
        }
    }

    fn check_from(&mut self, node: &Node) {
        let is_target = |flag: &&Word| {
            flag.text
                .strip_prefix("--platform=")
                .is_some_and(is_target_platform)
        };
        if let Some(flag) = node.flags.iter().find(is_target) {
            let message = "the target platform is what FROM uses anyway".to_owned();
            let edit = self.removed_flag(node, flag);
            self.report_mendable("RedundantTargetPlatform", node, flag.span, message, edit);
        }
        let [_, word, name] = node.arguments.words() else {
            // Not a name that a stage can have; it says that there was a stage.
            self.stages.insert(String::new(), node.span);
            return;
        };
        let keyword = &node.keyword.text;
        if is_lower(keyword) && !is_lower(&word.text) || is_upper(keyword) && !is_upper(&word.text)
        {
            let message = format!("`{}` is not cased like `{keyword}`", word.text);
            let cased = if is_upper(keyword) { "AS" } else { "as" };
            let edit = self.replacing(word, cased.to_owned());
            self.report_mendable("FromAsCasing", node, word.span, message, edit);
        }
        let lower = letters::lower(&name.text);
        if lower != name.text {
            let message = format!("the stage name `{}` is read as `{lower}`", name.text);
            let edit = self.replacing(name, lower.clone());
            self.report_mendable("StageNameCasing", node, name.span, message, edit);
        }
        if matches!(lower.as_str(), "context" | "scratch") {
            let message = format!("`{lower}` has a meaning of its own as a stage name");
            // Neither this nor a second stage of one name is a matter of one instruction: comments have no say.
            let reserved = warning("ReservedStageName", name.span, message);
            self.warnings.push(reserved.within(node.lines));
        }
        self.check_description(node, &[&lower]);
        if let Some(first) = self.stages.insert(lower, name.span) {
            let message = format!("a stage named `{}` exists already", name.text);
            let duplicate =
                warning("DuplicateStageName", name.span, message).with_note(first, "first here");
            self.warnings.push(duplicate.within(node.lines));
        }
    }

    /// The last comment above must begin with one of the names.
    fn check_description(&mut self, node: &Node, names: &[&str]) {
        let Some(comment) = node.comments.last() else {
            return;
        };
        let first = comment.split(' ').next().unwrap_or_default();
        if !names.is_empty() && !names.contains(&first) {
            let message = format!(
                "the comment above does not begin with `{}`",
                names.join("` or `")
            );
            self.report(
                "InvalidDefinitionDescription",
                node,
                node.keyword.span,
                message,
            );
        }
    }

    fn check_secret(&mut self, node: &Node, (name, span): (&str, Span)) {
        if looks_secret(name) {
            let message =
                format!("`{name}` looks like a secret, and its value can be read from the image");
            self.report("SecretsUsedInArgOrEnv", node, span, message);
        }
    }

    /// Writes `name value` as `name=value`.
    fn pair_edit(&self, pair: &Pair) -> Option<Edit> {
        let (name, value) = (&pair.name, &pair.value);
        let is_simple = self.file.is_verbatim(name)
            && self.file.is_verbatim(value)
            && self.file.is_blank_between(name.span.end, value.span.start)
            && !name.text.contains(['"', '\'', self.file.escape])
            // A name ends at an ASCII blank, a word at any: `a\u{a0}b c` is a name that no word can be.
            && !name.text.contains(char::is_whitespace);
        let text = pair_value(&value.text, self.file.escape).filter(|_| is_simple)?;
        Some(Edit {
            span: Span::new(name.span.end, value.span.end),
            text: format!("={text}"),
        })
    }

    /// Writes `MAINTAINER name` as the label that replaces it.
    fn maintainer_edit(&self, node: &Node) -> Option<Edit> {
        let [name] = node.arguments.words() else {
            return None;
        };
        let is_simple = self.file.is_verbatim(&node.keyword)
            && self.file.is_verbatim(name)
            && self
                .file
                .is_blank_between(node.keyword.span.end, name.span.start);
        let keyword = if is_upper(&node.keyword.text) {
            "LABEL"
        } else {
            "label"
        };
        let name_text = quoted(&name.text, self.file.escape);
        is_simple.then(|| Edit {
            span: Span::new(node.keyword.span.start, name.span.end),
            text: format!("{keyword} org.opencontainers.image.authors={name_text}"),
        })
    }

    /// Removes a flag and the blanks behind it.
    fn removed_flag(&self, node: &Node, flag: &Word) -> Option<Edit> {
        let words = node.flags.iter().chain(node.arguments.words());
        let next = words.map(|word| word.span.start);
        let next = next.filter(|start| *start >= flag.span.end).min()?;
        let is_simple = self.file.is_blank_between(flag.span.end, next);
        is_simple.then(|| Edit {
            span: Span::new(flag.span.start, next),
            text: String::new(),
        })
    }

    /// Instruction words must be cased like most of them. What stands before the first FROM has no vote.
    fn check_casing(&mut self, nodes: &[Node]) {
        let first_stage = nodes
            .iter()
            .position(|node| letters::lower(&node.keyword.text) == "from");
        let nodes = first_stage.map_or(&[][..], |first| &nodes[first..]);
        let count = |is_cased: fn(&str) -> bool| {
            nodes
                .iter()
                .filter(|node| is_cased(&node.keyword.text))
                .count()
        };
        let (wanted, is_wanted): (_, fn(&str) -> bool) = if count(is_lower) > count(is_upper) {
            ("lower", is_lower)
        } else {
            ("upper", is_upper)
        };
        for node in nodes.iter().filter(|node| !is_wanted(&node.keyword.text)) {
            let message = format!(
                "`{}` is not in {wanted} case like most instructions here",
                node.keyword.text
            );
            let cased = if wanted == "lower" {
                node.keyword.text.to_lowercase()
            } else {
                node.keyword.text.to_uppercase()
            };
            let mut casing = warning("ConsistentInstructionCasing", node.keyword.span, message);
            casing.edits.extend(self.replacing(&node.keyword, cased));
            self.warnings.push(casing.within(node.lines));
        }
    }
}

/// A rule's warning, with the way out that the table knows.
pub(crate) fn warning(rule: &'static str, span: Span, message: String) -> Diagnostic {
    let warning = Diagnostic::warning(rule, span, message);
    match RULES.iter().find(|known| known.name == rule) {
        Some(known) => warning.with_help(known.fix),
        None => warning,
    }
}

/// Whether a comment above an instruction says `check=skip=` and the rule's name. Who asks for an experimental rule gets
/// it: as everywhere, `skip` has no say in those.
pub(crate) fn is_skipped_by_comment(rule: &str, comments: &[String]) -> bool {
    !super::is_experimental(rule)
        && settings_of(comments).is_some_and(|settings| settings.skip.has(rule))
}

/// What the first `check=` comment above an instruction says. One that can't be read says nothing.
pub(crate) fn settings_of(comments: &[String]) -> Option<CheckSettings> {
    let value = comments.iter().find_map(|comment| {
        let (name, value) = comment.split_once('=')?;
        (name.trim() == "check").then_some(value.trim_start())
    })?;
    // Behind a blank stands the reason.
    CheckSettings::parse(value.split_whitespace().next().unwrap_or_default()).ok()
}

fn is_lower(text: &str) -> bool {
    text == letters::lower(text)
}

fn is_upper(text: &str) -> bool {
    text == letters::upper(text)
}

fn name_of_arg(word: &Word) -> (&str, Span) {
    let name = word.text.split_once('=');
    (name.map_or(&*word.text, |(name, _)| name), word.span)
}

/// Whether a platform is the variable `TARGETPLATFORM` and nothing else.
fn is_target_platform(platform: &str) -> bool {
    const MARK: &str = "\u{1}";
    let environment = BTreeMap::from([("TARGETPLATFORM".to_owned(), MARK.to_owned())]);
    let expansion = expand_with(platform, Mode::new('\\'), &environment);
    expansion.is_ok_and(|found| found.text == MARK && found.unmatched.is_empty())
}

/// Whether a variable of this name likely holds a secret.
pub fn looks_secret(name: &str) -> bool {
    const SECRET: [&str; 10] = [
        "apikey",
        "auth",
        "credential",
        "credentials",
        "key",
        "password",
        "pword",
        "passwd",
        "secret",
        "token",
    ];
    const HARMLESS: [&str; 3] = ["file", "public", "version"];
    let lower = name.to_lowercase();
    let has = |words: &[&str]| lower.split('_').any(|part| words.contains(&part));
    has(&SECRET) && !has(&HARMLESS)
}

#[cfg(test)]
mod tests {
    use crate::instructions::parse;
    use crate::source::Source;

    #[test]
    fn rules_fire_where_they_should() {
        // text, rules with the marked text
        let table: &[(&str, &[(&str, &str)])] = &[
            ("FROM a AS b\nRUN c", &[]),
            ("FROM a as b", &[("FromAsCasing", "as")]),
            (
                "fRom a as b\nRUN c",
                &[("ConsistentInstructionCasing", "fRom")],
            ),
            (
                "from a as b\nrun c\nRUN d",
                &[("ConsistentInstructionCasing", "RUN")],
            ),
            (
                "FROM a AS Scratch",
                &[
                    ("StageNameCasing", "Scratch"),
                    ("ReservedStageName", "Scratch"),
                ],
            ),
            ("FROM a AS b\nFROM b AS b", &[("DuplicateStageName", "b")]),
            (
                "ARG a\n# check=skip=all\nFROM a AS context",
                &[
                    ("ReservedStageName", "context"),
                    ("InvalidDefinitionDescription", "FROM"),
                ],
            ),
            (
                "FROM a\n# check=skip=MaintainerDeprecated for now\nMAINTAINER b",
                &[],
            ),
            (
                "FROM a\nMAINTAINER b",
                &[("MaintainerDeprecated", "MAINTAINER")],
            ),
            (
                "FROM --platform=${TARGETPLATFORM} a",
                &[("RedundantTargetPlatform", "--platform=${TARGETPLATFORM}")],
            ),
            (
                "FROM a\nARG MY_TOKEN TOKEN_FILE KEYS",
                &[("SecretsUsedInArgOrEnv", "MY_TOKEN")],
            ),
            (
                "FROM a\n# check = skip=all too old\n# check=experimental=all\nENV b c",
                &[],
            ),
            ("FROM a\nRUN b \\\n\n c", &[("NoEmptyContinuation", "")]),
        ];
        for (text, expected) in table {
            let program =
                parse(&Source::new("Dockerfile", text.as_bytes())).expect("the file is valid");
            let found: Vec<_> = program
                .warnings
                .iter()
                .map(|warning| (warning.code, &text[warning.span.start..warning.span.end]))
                .collect();
            assert_eq!(&found, expected, "{text}");
        }
    }
}
