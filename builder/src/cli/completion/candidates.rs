//! Values that can be completed: what the store and the Dockerfile of the line have. Reads and never writes; what can't be
//! read has no values.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap_complete::engine::CompletionCandidate;
use rbuild::history::History;
use rbuild::images::Images;
use rbuild_cache::Store;
use rbuild_frontend::instruction::{Instruction, InstructionKind, Program};
use rbuild_frontend::source::Source;

use crate::ui;

/// Past builds that are offered.
const MOST_BUILDS: usize = 50;

/// Bytes of a Dockerfile that are looked at.
const MOST_TEXT: u64 = 1024 * 1024;

/// Platforms that images are commonly made for.
const PLATFORMS: [&str; 9] = [
    "linux/amd64",
    "linux/arm64",
    "linux/arm/v7",
    "linux/arm/v6",
    "linux/386",
    "linux/ppc64le",
    "linux/s390x",
    "linux/riscv64",
    "linux/loong64",
];

/// What a line is typed in.
#[derive(Clone, Debug)]
pub(super) struct Surroundings {
    /// The store.
    pub(super) root: PathBuf,
    /// The words before the one that is completed.
    pub(super) words: Vec<OsString>,
}

/// Whether values of this name in the help can be listed.
pub(super) fn are_known(name: &str) -> bool {
    kind_of(name).is_some() || is_choice(name)
}

/// What a value is.
#[derive(Clone, Copy)]
enum Kind {
    Image,
    Build,
    Step,
    Stage,
    Argument,
    Platform,
}

fn kind_of(name: &str) -> Option<Kind> {
    Some(match name {
        "IMAGE" | "NAME[:TAG]" | "NAME" => Kind::Image,
        "BUILD" => Kind::Build,
        "STEP" => Kind::Step,
        "STAGE" | "STAGE[,…]" => Kind::Stage,
        "NAME[=VALUE]" => Kind::Argument,
        "PLATFORM" | "PLATFORM[,…]" => Kind::Platform,
        _ => return None,
    })
}

/// `auto|tty|plain`: the help lists the values.
fn is_choice(name: &str) -> bool {
    name.contains('|')
        && (name.split('|')).all(|word| word.chars().all(|c| c.is_ascii_lowercase() || c == '-'))
}

/// Values of this name that begin with what was typed.
pub(super) fn of(
    name: &str,
    typed: &OsStr,
    surroundings: &Surroundings,
) -> Vec<CompletionCandidate> {
    let Some(typed) = typed.to_str() else {
        return Vec::new();
    };
    // In a list the last one is completed.
    let is_list = name.contains("[,…]");
    let before = match typed.rfind(',').filter(|_| is_list) {
        Some(comma) => &typed[..=comma],
        None => "",
    };
    let values = match kind_of(name) {
        Some(Kind::Image) => surroundings.images(),
        Some(Kind::Build) => surroundings.builds(),
        Some(Kind::Step) => surroundings.steps(),
        Some(Kind::Stage) => surroundings.stages(),
        Some(Kind::Argument) => surroundings.arguments(),
        Some(Kind::Platform) => PLATFORMS.map(|name| (name.to_owned(), None)).to_vec(),
        None => name
            .split('|')
            .map(|word| (word.to_owned(), None))
            .collect(),
    };
    let candidate = |(value, help): (String, Option<String>)| {
        let value = format!("{before}{value}");
        let help = help.map(Into::into);
        (value.starts_with(typed)).then(|| CompletionCandidate::new(value).help(help))
    };
    values.into_iter().filter_map(candidate).collect()
}

/// A value, and what it is.
type Value = (String, Option<String>);

impl Surroundings {
    /// The store, when there is one.
    fn store(&self) -> Option<Store> {
        self.root.join("VERSION").exists().then_some(())?;
        Store::open(&self.root).ok()
    }

    fn images(&self) -> Vec<Value> {
        let images = self.store().map(|store| Images::new(store).list());
        let images = images.and_then(Result::ok).unwrap_or_default();
        images
            .into_iter()
            .filter_map(|image| {
                let what = format!("{}, {}", image.platform, ui::units::bytes(image.size));
                Some((image.name?, Some(what)))
            })
            .collect()
    }

    fn builds(&self) -> Vec<Value> {
        let builds = self
            .store()
            .map(|store| History::new(store).list(MOST_BUILDS));
        let builds = builds.and_then(Result::ok).unwrap_or_default();
        let value = |build: rbuild::history::PastBuild| {
            let summary = &build.summary;
            let what = match summary.names.as_slice() {
                [] => summary.context.clone(),
                names => names.join(", "),
            };
            let result = ui::past::status_of(build.status);
            let text = format!("{} {result} {what}", build.started_text());
            (build.id.clone(), Some(text))
        };
        let last = ("last".to_owned(), Some("the last one".to_owned()));
        let mut values: Vec<Value> = builds.into_iter().map(value).collect();
        if !values.is_empty() {
            values.insert(0, last);
        }
        values
    }

    /// Those of the build that stands before.
    fn steps(&self) -> Vec<Value> {
        let mut words = self.words.iter().skip(2).filter_map(|word| word.to_str());
        let build = words.rfind(|word| !word.starts_with('-') || word.parse::<i64>().is_ok());
        let history = self.store().map(History::new);
        let steps = history.and_then(|history| {
            let build = history.find(build.unwrap_or("last")).ok()?;
            Some(history.detail(&build.id).ok()?.steps)
        });
        let steps = steps.unwrap_or_default().into_iter().enumerate();
        let value = |(index, step): (usize, rbuild::history::StepNote)| {
            let what = format!("{} {}", step.label(), step.title);
            ((index + 1).to_string(), Some(what))
        };
        steps.map(value).collect()
    }

    fn stages(&self) -> Vec<Value> {
        let Some(program) = self.program() else {
            return Vec::new();
        };
        let value = |stage: &rbuild_frontend::instruction::Stage| {
            let name = stage.name_as_written.as_ref()?;
            Some((name.to_string(), Some(format!("FROM {}", stage.base))))
        };
        program.stages.iter().filter_map(value).collect()
    }

    fn arguments(&self) -> Vec<Value> {
        let Some(program) = self.program() else {
            return Vec::new();
        };
        let in_stages = program.stages.iter().flat_map(|stage| &stage.instructions);
        let names = |instruction: &Instruction| match &instruction.kind {
            InstructionKind::Arg(pairs) => pairs.iter().map(|pair| pair.name.to_string()).collect(),
            _ => Vec::new(),
        };
        let mut names: Vec<String> = (program.global_args.iter().chain(in_stages))
            .flat_map(names)
            .collect();
        names.sort();
        names.dedup();
        names
            .into_iter()
            .map(|name| (format!("{name}="), None))
            .collect()
    }

    /// The Dockerfile that the line speaks of; of a line without a context it is that of the working directory.
    fn program(&self) -> Option<Program> {
        let words: Vec<&OsStr> = self.words.iter().map(OsString::as_os_str).collect();
        let path = if let Some(path) = value_of(&words, &["-f", "--file"]) {
            PathBuf::from(path)
        } else {
            let mut typed = words.iter().skip(2).map(Path::new);
            let context = typed.rfind(|path| path.is_dir());
            let context = context.unwrap_or_else(|| Path::new("."));
            let names = ["Dockerfile", "dockerfile", "Containerfile"];
            let mut paths = names.iter().map(|name| context.join(name));
            paths.find(|path| path.is_file())?
        };
        // Not a pipe: whoever reads it first has it.
        path.is_file().then_some(())?;
        let mut bytes = Vec::new();
        let file = File::open(&path).ok()?.take(MOST_TEXT);
        { file }.read_to_end(&mut bytes).ok()?;
        let source = Source::new("Dockerfile", &bytes);
        Some(rbuild_frontend::instructions::parse_partly(&source).0)
    }
}

/// The value of a flag, `--flag VALUE` or `--flag=VALUE`; the last one.
pub(super) fn value_of(words: &[&OsStr], flags: &[&str]) -> Option<OsString> {
    let mut found = None;
    for (index, word) in words.iter().enumerate() {
        let text = word.to_str().unwrap_or_default();
        for flag in flags {
            if text == *flag {
                found = words.get(index + 1).map(|&word| word.to_owned());
            } else if let Some(value) = text.strip_prefix(flag)
                && let Some(value) = value.strip_prefix('=')
            {
                found = Some(value.into());
            }
        }
    }
    found
}
