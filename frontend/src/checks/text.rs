//! The build checks that need nothing but the text.

use std::collections::{BTreeMap, HashMap};

use super::quote::{pair_value, quoted};
use super::{CheckSettings, RULES};
use crate::ast::{self, Arguments, Node, Pair, Word};
use crate::diagnostic::{Diagnostic, Edit};
use crate::instruction::{Comments, Program};
use crate::keyword::Keyword;
use crate::letters;
use crate::source::Span;
use crate::word::{Mode, expand_with};

/// All warnings that a program's text fires, in the order of the rules' work.
pub(crate) fn of_text(program: &Program) -> Vec<Diagnostic> {
    let noted = &program.noted;
    let text = program.source.text();
    let mut checks = TextChecks {
        text,
        escape: program.escape,
        warnings: noted.blank_lines.clone(),
        stages: HashMap::new(),
    };
    for suspect in &noted.suspects {
        let again = ast::read_at(&program.source, suspect.start, program.escape, |node| {
            node.comments.clone_from(&suspect.comments);
            checks.look_at(node);
        });
        debug_assert!(again.is_some(), "what was read once can be read again");
    }
    checks
        .warnings
        .extend(noted.casing.warnings(&program.source));
    checks.warnings
}

/// Looks at instructions one after the other.
#[derive(Debug)]
struct TextChecks<'a> {
    /// The file's text.
    text: &'a str,
    escape: char,
    warnings: Vec<Diagnostic>,
    /// Names of stages so far, lower-cased, and where they stand.
    stages: HashMap<String, Span>,
}

impl TextChecks<'_> {
    /// Whether a word stands in the text as it was read: without continuations, quotes or escapes that were taken out.
    fn is_verbatim(&self, word: &Word<'_>) -> bool {
        self.text.get(word.span.start..word.span.end) == Some(&*word.text)
    }

    /// Whether nothing but blanks stands between two places, on one line.
    fn is_blank_between(&self, start: usize, end: usize) -> bool {
        let between = self.text.get(start..end);
        between.is_some_and(|text| text.chars().all(|char| matches!(char, ' ' | '\t')))
    }

    /// Reports unless a comment above the instruction says not to.
    fn report(&mut self, rule: &'static str, node: &Node<'_>, span: Span, message: String) {
        self.report_mendable(rule, node, span, message, None);
    }

    /// As [`TextChecks::report`], with an edit that mends it if there is one.
    fn report_mendable(
        &mut self,
        rule: &'static str,
        node: &Node<'_>,
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
    fn replacing(&self, word: &Word<'_>, text: String) -> Option<Edit> {
        let span = word.span;
        self.is_verbatim(word).then_some(Edit { span, text })
    }

    /// Looks at the next instruction.
    fn look_at(&mut self, node: &Node<'_>) {
        match node.keyword {
            Keyword::From => self.check_from(node),
            Keyword::Arg => {
                self.check_description(node, || {
                    let words = node.arguments.words().iter();
                    words.map(|word| name_of_arg(word).0).collect()
                });
                // An ARG before the first FROM reaches no image by itself.
                if !self.stages.is_empty() {
                    let words = node.arguments.words().iter();
                    words.for_each(|word| self.check_secret(node, name_of_arg(word)));
                }
            }
            Keyword::Env | Keyword::Label => self.check_pairs(node),
            Keyword::Maintainer => {
                let message = "MAINTAINER is deprecated".to_owned();
                let edit = self.maintainer_edit(node);
                let span = node.word.span;
                self.report_mendable("MaintainerDeprecated", node, span, message, edit);
            }
            _ => {}
        }
    }

    fn check_pairs(&mut self, node: &Node<'_>) {
        let Arguments::Pairs(pairs) = &node.arguments else {
            return;
        };
        for pair in pairs {
            if pair.is_legacy {
                let keyword = node.keyword.name();
                let message = format!("{keyword} `{}` is written without `=`", pair.name.text);
                let edit = self.pair_edit(pair);
                let span = pair.name.span;
                self.report_mendable("LegacyKeyValueFormat", node, span, message, edit);
            }
            if node.keyword == Keyword::Env {
                self.check_secret(node, (&pair.name.text, pair.name.span));
            }
        }
    }

    fn check_from(&mut self, node: &Node<'_>) {
        let is_target = |flag: &&Word<'_>| {
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
        let keyword = &node.word.text;
        if is_lower(keyword) && !is_lower(&word.text) || is_upper(keyword) && !is_upper(&word.text)
        {
            let message = format!("`{}` is not cased like `{keyword}`", word.text);
            let cased = if is_upper(keyword) { "AS" } else { "as" };
            let edit = self.replacing(word, cased.to_owned());
            self.report_mendable("FromAsCasing", node, word.span, message, edit);
        }
        let lower = letters::lower(&name.text);
        if lower != *name.text {
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
        self.check_description(node, || vec![&lower]);
        if let Some(first) = self.stages.insert(lower, name.span) {
            let message = format!("a stage named `{}` exists already", name.text);
            let duplicate =
                warning("DuplicateStageName", name.span, message).with_note(first, "first here");
            self.warnings.push(duplicate.within(node.lines));
        }
    }

    /// The last comment above must begin with one of the names.
    fn check_description<'n>(&mut self, node: &Node<'_>, names: impl FnOnce() -> Vec<&'n str>) {
        let Some(comment) = node.comments.iter().next_back() else {
            return;
        };
        let first = comment.split(' ').next().unwrap_or_default();
        let names = names();
        if !names.is_empty() && !names.contains(&first) {
            let message = format!(
                "the comment above does not begin with `{}`",
                names.join("` or `")
            );
            let span = node.word.span;
            self.report("InvalidDefinitionDescription", node, span, message);
        }
    }

    fn check_secret(&mut self, node: &Node<'_>, (name, span): (&str, Span)) {
        if looks_secret(name) {
            let message =
                format!("`{name}` looks like a secret, and its value can be read from the image");
            self.report("SecretsUsedInArgOrEnv", node, span, message);
        }
    }

    /// Writes `name value` as `name=value`.
    fn pair_edit(&self, pair: &Pair<'_>) -> Option<Edit> {
        let (name, value) = (&pair.name, &pair.value);
        let is_simple = self.is_verbatim(name)
            && self.is_verbatim(value)
            && self.is_blank_between(name.span.end, value.span.start)
            && !name.text.contains(['"', '\'', self.escape])
            // A name ends at an ASCII blank, a word at any: `a\u{a0}b c` is a name that no word can be.
            && !name.text.contains(char::is_whitespace);
        let text = pair_value(&value.text, self.escape).filter(|_| is_simple)?;
        Some(Edit {
            span: Span::new(name.span.end, value.span.end),
            text: format!("={text}"),
        })
    }

    /// Writes `MAINTAINER name` as the label that replaces it.
    fn maintainer_edit(&self, node: &Node<'_>) -> Option<Edit> {
        let [name] = node.arguments.words() else {
            return None;
        };
        let is_simple = self.is_verbatim(&node.word)
            && self.is_verbatim(name)
            && self.is_blank_between(node.word.span.end, name.span.start);
        let keyword = if is_upper(&node.word.text) {
            "LABEL"
        } else {
            "label"
        };
        let name_text = quoted(&name.text, self.escape);
        is_simple.then(|| Edit {
            span: Span::new(node.word.span.start, name.span.end),
            text: format!("{keyword} org.opencontainers.image.authors={name_text}"),
        })
    }

    /// Removes a flag and the blanks behind it.
    fn removed_flag(&self, node: &Node<'_>, flag: &Word<'_>) -> Option<Edit> {
        let words = node.flags.iter().chain(node.arguments.words());
        let next = words.map(|word| word.span.start);
        let next = next.filter(|start| *start >= flag.span.end).min()?;
        let is_simple = self.is_blank_between(flag.span.end, next);
        is_simple.then(|| Edit {
            span: Span::new(flag.span.start, next),
            text: String::new(),
        })
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
pub(crate) fn is_skipped_by_comment(rule: &str, comments: &Comments) -> bool {
    !super::is_experimental(rule)
        && settings_of(comments).is_some_and(|settings| settings.skip.has(rule))
}

/// What the first `check=` comment above an instruction says. One that can't be read says nothing.
pub(crate) fn settings_of(comments: &Comments) -> Option<CheckSettings> {
    let mut comments = comments.iter();
    let value = comments.find_map(|comment| {
        let (name, value) = comment.split_once('=')?;
        (name.trim() == "check").then_some(value.trim_start())
    })?;
    // Behind a blank stands the reason.
    CheckSettings::parse(value.split_whitespace().next().unwrap_or_default()).ok()
}

/// Whether a word has no upper case in it.
pub(super) fn is_lower(text: &str) -> bool {
    if text.is_ascii() {
        return !text.bytes().any(|byte| byte.is_ascii_uppercase());
    }
    text == letters::lower(text)
}

/// Whether a word has no lower case in it.
pub(super) fn is_upper(text: &str) -> bool {
    if text.is_ascii() {
        return !text.bytes().any(|byte| byte.is_ascii_lowercase());
    }
    text == letters::upper(text)
}

pub(super) fn name_of_arg<'w>(word: &'w Word<'_>) -> (&'w str, Span) {
    let equals = word.text.bytes().position(|byte| byte == b'=');
    (&word.text[..equals.unwrap_or(word.text.len())], word.span)
}

/// Whether a platform is the variable `TARGETPLATFORM` and nothing else.
fn is_target_platform(platform: &str) -> bool {
    const MARK: &str = "\u{1}";
    const NAME: &str = "TARGETPLATFORM";
    if !platform.contains(NAME) {
        return false;
    }
    let environment = BTreeMap::from([(NAME.to_owned(), MARK.to_owned())]);
    let expansion = expand_with(platform, Mode::new('\\'), &environment);
    expansion.is_ok_and(|found| found.text == MARK && found.unmatched.is_empty())
}

/// Whether a variable of this name likely holds a secret.
pub fn looks_secret(name: &str) -> bool {
    if name.is_ascii() {
        return has_secret_part(name);
    }
    // Letters beyond ASCII can have their lower case in it.
    has_secret_part(&name.to_lowercase())
}

/// Whether one of the words with `_` between says so, and none says that it is harmless.
fn has_secret_part(name: &str) -> bool {
    const HARMLESS: [&str; 3] = ["file", "public", "version"];
    // By their length, so that few are compared.
    let secret = |length| -> &[&str] {
        match length {
            3 => &["key"],
            4 => &["auth"],
            5 => &["token", "pword"],
            6 => &["secret", "passwd", "apikey"],
            8 => &["password"],
            10 => &["credential"],
            11 => &["credentials"],
            _ => &[],
        }
    };
    let is = |part: &[u8], words: &[&str]| {
        let mut words = words.iter();
        words.any(|word| word.as_bytes().eq_ignore_ascii_case(part))
    };
    let parts = || name.as_bytes().split(|byte| *byte == b'_');
    parts().any(|part| is(part, secret(part.len()))) && !parts().any(|part| is(part, &HARMLESS))
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
                .warnings()
                .iter()
                .map(|warning| (warning.code, &text[warning.span.start..warning.span.end]))
                .collect();
            assert_eq!(&found, expected, "{text}");
        }
    }
}
