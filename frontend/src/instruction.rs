//! Typed instructions: what a Dockerfile says, before any variable is expanded.
//!
//! Made from the AST by [`crate::instructions`]; read by the planner. Texts are kept as written (quotes and `$`
//! included) where the planner still has to expand them.

use std::borrow::Cow;

use crate::checks::{self, Noted};
use crate::diagnostic::Diagnostic;
use crate::directive::Directive;
use crate::graph::Device;
use crate::lines;
use crate::source::{Lines, Source, Span};
use crate::text::Text;

/// A whole Dockerfile in typed form.
#[derive(Clone, Debug)]
pub struct Program {
    /// The text that all spans point into.
    pub source: Source,
    /// The escape character of the `escape` directive: a backslash or a backtick.
    pub escape: char,
    /// Directives at the top of the file; `check` says which build checks count.
    pub directives: Vec<Directive>,
    /// `ARG` instructions before the first `FROM`.
    pub global_args: Vec<Instruction>,
    /// In file order; may be empty (the planner refuses that).
    pub stages: Vec<Stage>,
    /// What the build checks of the text have to look at.
    pub(crate) noted: Noted,
    /// False if what could not be read was left out.
    pub is_whole: bool,
}

impl Program {
    /// The build checks that the text alone fires, all of them: [`crate::checks::CheckSettings`] says which count.
    pub fn warnings(&self) -> Vec<Diagnostic> {
        checks::of_text(self)
    }

    /// The logical line of an instruction as written: continuations joined, keyword included, heredoc bodies not.
    pub fn text_of<'a>(&'a self, instruction: &'a Instruction) -> Cow<'a, str> {
        match &instruction.trigger {
            Some(text) => Cow::Borrowed(text),
            None => lines::joined_at(&self.source, instruction.span.start, self.escape),
        }
    }
}

/// The comments right above an instruction, without `#` and the blanks around.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comments {
    /// The lines that they stand on, from the first to the last, and perhaps blank lines between.
    lines: Option<Text>,
}

impl Comments {
    /// Of lines that hold nothing but comments and blanks.
    pub(crate) fn of(lines: Option<Text>) -> Self {
        Self { lines }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.lines.is_none()
    }

    /// Each of them, from the top.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &str> {
        let lines = self.lines.as_deref().unwrap_or_default();
        lines
            .split('\n')
            .map(comment_of)
            .filter(|text| !text.is_empty())
    }

    /// What they say about a name: the rest of the first one that begins with it.
    pub(crate) fn description_of(&self, name: &str) -> Option<String> {
        let describes = |comment: &str| {
            let rest = comment.strip_prefix(name)?.strip_prefix(' ')?;
            Some(rest.to_owned())
        };
        self.iter().find_map(describes)
    }
}

/// What a line says that is a comment; nothing for a blank line.
pub(crate) fn comment_of(line: &str) -> &str {
    // Of an indented comment the reference removes the first blank instead of the `#`, so those never match a rule
    // that looks at comments; the same here.
    let mut chars = line.chars();
    chars.next();
    chars.as_str().trim()
}

impl Stage {
    /// The comment above it, if that begins with its name; without the name.
    pub fn description(&self) -> Option<String> {
        self.comments.description_of(self.name.as_deref()?)
    }
}

/// One `FROM` and what follows it.
#[derive(Clone, Debug)]
pub struct Stage {
    /// `AS name`, lower-cased.
    pub name: Option<String>,
    /// `AS name` as written.
    pub name_as_written: Option<Text>,
    /// The base as written; empty if `is_readable` is false.
    pub base: Text,
    /// False for what stands below a `FROM` that could not be read, or above the first one: so that what its
    /// instructions say can be checked. Never in a program that is whole.
    pub is_readable: bool,
    /// `--platform` as written.
    pub platform: Option<Text>,
    /// The `FROM` instruction's place.
    pub span: Span,
    /// Its lines.
    pub lines: Lines,
    /// The place of the base's name.
    pub base_span: Span,
    /// Comments right above, without `#`.
    pub comments: Comments,
    /// What follows, without the `FROM`.
    pub instructions: Vec<Instruction>,
}

/// One instruction with its place.
#[derive(Clone, Debug)]
pub struct Instruction {
    /// What it says.
    pub kind: InstructionKind,
    /// Whole instruction including continuations and heredocs. For a fired ONBUILD trigger: the `FROM` line.
    pub span: Span,
    /// Its lines.
    pub lines: Lines,
    /// The logical line of a fired ONBUILD trigger, which does not stand in the file; [`Program::text_of`] knows the
    /// others'.
    pub trigger: Option<String>,
    /// Comments right above, without `#`.
    pub comments: Comments,
}

/// All 18 instructions but `FROM`, which is [`Stage`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InstructionKind {
    /// `ADD`
    Add(AddInstruction),
    /// `ARG`
    Arg(Vec<ArgPair>),
    /// `CMD`
    Cmd(CommandLine),
    /// `COPY`
    Copy(CopyInstruction),
    /// `ENTRYPOINT`
    Entrypoint(CommandLine),
    /// `ENV`
    Env(Vec<NameValue>),
    /// `EXPOSE`, the words as written, sorted as text as the reference does.
    Expose(Vec<String>),
    /// `HEALTHCHECK`
    Healthcheck(Healthcheck),
    /// `LABEL`
    Label(Vec<NameValue>),
    /// `MAINTAINER`
    Maintainer(Text),
    /// `ONBUILD`, the trigger's text: heredoc bodies and terminators appended after newlines.
    Onbuild(String),
    /// `RUN`
    Run(RunInstruction),
    /// `SHELL`
    Shell(Vec<String>),
    /// `STOPSIGNAL`
    Stopsignal(Text),
    /// `USER`
    User(Text),
    /// `VOLUME`
    Volume(Vec<String>),
    /// `WORKDIR`
    Workdir(Text),
}

/// Shell form or exec form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandLine {
    /// The text for the shell, continuations joined, inner blanks kept.
    Shell(Text),
    /// A JSON array of strings.
    Exec(Vec<Text>),
}

/// One word of `ARG`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArgPair {
    /// Name, not yet expanded.
    pub name: Text,
    /// Text behind `=`, quotes kept; none without `=`.
    pub default: Option<Text>,
    /// Where the word stands.
    pub span: Span,
}

/// One pair of `ENV` or `LABEL`, quotes kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameValue {
    /// Name as written.
    pub name: Text,
    /// Value as written.
    pub value: Text,
    /// The old `ENV name value` form without `=`.
    pub is_legacy: bool,
    /// Where the name stands, or the whole pair.
    pub span: Span,
}

/// `HEALTHCHECK`; the flags are checked and parsed already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Healthcheck {
    /// `HEALTHCHECK NONE`
    None,
    /// `HEALTHCHECK [flags] CMD …`. Durations are nanoseconds; 0 means the engine's default.
    Command {
        /// What to run.
        command: CommandLine,
        /// `--interval`
        interval: i64,
        /// `--timeout`
        timeout: i64,
        /// `--start-period`
        start_period: i64,
        /// `--start-interval`
        start_interval: i64,
        /// `--retries`
        retries: i64,
    },
}

/// A here-document's body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heredoc {
    /// The delimiter's name: what the file is called.
    pub name: String,
    /// File descriptor number before `<<`; parsed, otherwise unused. 0 when absent.
    pub file_descriptor: u32,
    /// False when the delimiter was quoted.
    pub is_expanded: bool,
    /// `<<-`: leading tabs are to be removed ([`Heredoc::body`] does it).
    pub is_chomped: bool,
    /// The raw lines between, newlines included.
    pub content: String,
}

impl Heredoc {
    /// The content with leading tabs removed if `<<-` asked for it.
    pub fn body(&self) -> String {
        if !self.is_chomped {
            return self.content.clone();
        }
        self.content
            .split_inclusive('\n')
            .map(|line| line.trim_start_matches('\t'))
            .collect()
    }
}

/// One source argument of `COPY` or `ADD`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceArgument {
    /// A path, URL or git reference as written.
    Path(Text),
    /// An inline file.
    Heredoc(Heredoc),
}

/// What `COPY` and `ADD` share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transfer {
    /// Sources in order of appearance.
    pub sources: Vec<SourceArgument>,
    /// Destination as written.
    pub destination: Text,
    /// `--chown` as written.
    pub chown: Option<Text>,
    /// `--chmod` as written.
    pub chmod: Option<Text>,
    /// `--link`
    pub is_linked: bool,
    /// `--exclude`, never expanded.
    pub exclude: Vec<Text>,
}

/// `COPY`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CopyInstruction {
    /// Sources, destination and common flags.
    pub transfer: Transfer,
    /// `--from` as written.
    pub from: Option<Text>,
    /// `--parents`
    pub keeps_parents: bool,
}

/// `ADD`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddInstruction {
    /// Sources, destination and common flags.
    pub transfer: Transfer,
    /// `--checksum` as written.
    pub checksum: Option<Text>,
    /// `--keep-git-dir`, none when not given.
    pub keep_git_dir: Option<bool>,
    /// `--unpack`, none when not given.
    pub unpack: Option<bool>,
}

/// `RUN`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunInstruction {
    /// Shell or exec form; for `RUN <<EOF` the shell text is the heredoc word as written.
    pub command: CommandLine,
    /// Bodies of the heredocs on the line, in order.
    pub heredocs: Vec<Heredoc>,
    /// `--mount` values. `from` has been checked for `$`.
    pub mounts: Vec<MountRecord>,
    /// `--network`, checked.
    pub network: Option<&'static str>,
    /// `--security`, checked.
    pub security: Option<&'static str>,
    /// `--device`
    pub devices: Vec<Device>,
}

/// The value of a `--mount`, one CSV record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountRecord {
    /// As written.
    pub text: Text,
    /// Where it stands; the whole flag's place if quotes, escapes or continuations were taken out of it.
    pub span: Span,
}
