//! COPY and ADD.

use super::checks::Place;
use super::evaluate::Evaluator;
use super::history;
use super::reach::StageInstruction;
use super::table::{FromKind, FromName};
use crate::chmod::ModeChange;
use crate::diagnostic::{Diagnostic, Errors, Found};
use crate::git_reference::GitReference;
use crate::graph::{Copy, CopySource, InlineFile, Input, Operation, Unpack};
use crate::instruction::{AddInstruction, CopyInstruction, Instruction, SourceArgument, Transfer};
use crate::path;
use crate::reference::is_digest;
use crate::text::{Text, to_strings};
use crate::word::Mode;

/// Arguments and flags after expansion.
struct Expanded {
    owner: Option<String>,
    mode_text: Option<String>,
    mode: Option<ModeChange>,
    checksum: Option<String>,
    paths: Vec<String>,
    inline: Vec<InlineFile>,
    destination: String,
}

impl Evaluator<'_, '_> {
    pub(super) fn apply_copy(
        &mut self,
        planned: &StageInstruction<'_>,
        copy: &CopyInstruction,
    ) -> Result<(), Errors> {
        let instruction = &*planned.instruction;
        let title = self.title(planned);
        let mut found = Found::default();
        let expanded = self.expand_transfer(instruction, &copy.transfer, None, &mut found);
        let Some(expanded) = expanded else {
            return found.into_result();
        };
        let from = match copy.from.as_deref() {
            None | Some("") => Input::Context,
            Some(name) => {
                let kind = FromKind::Copy;
                let input = self.input(instruction, FromName { name, kind });
                found.or_default(input.map(Some)).unwrap_or(Input::Empty)
            }
        };
        let mut sources = Vec::new();
        for path in &expanded.paths {
            let git = found.or_default(parse_git(self, instruction, path));
            if git.is_some() || is_http(path) {
                let message = format!("COPY can't fetch `{path}`");
                let error = self
                    .inputs
                    .error_at("remote-source", instruction, path, message);
                found.push(error.with_help("use ADD, which fetches URLs and git repositories"));
            }
            sources.push(CopySource::Path(path.clone()));
        }
        found.into_result()?;
        let step = Copy {
            from,
            keeps_parents: copy.keeps_parents,
            ..base_copy("COPY", &copy.transfer)
        };
        self.finish_transfer(planned, title, expanded, sources, step);
        Ok(())
    }

    pub(super) fn apply_add(
        &mut self,
        planned: &StageInstruction<'_>,
        add: &AddInstruction,
    ) -> Result<(), Errors> {
        let instruction = &*planned.instruction;
        let title = self.title(planned);
        let mut found = Found::default();
        let checksum = add.checksum.as_ref();
        let expanded = self.expand_transfer(instruction, &add.transfer, checksum, &mut found);
        let Some(expanded) = expanded else {
            return found.into_result();
        };
        found.or_default(self.check_checksum(instruction, &expanded));
        let mut sources = Vec::new();
        for path in &expanded.paths {
            let source = self.added(instruction, path, add, expanded.checksum.as_deref());
            sources.extend(found.or_default(source.map(Some)));
        }
        found.into_result()?;
        let unpack = match add.unpack {
            None => Unpack::Local,
            Some(true) => Unpack::Always,
            Some(false) => Unpack::Never,
        };
        let step = Copy {
            unpack,
            ..base_copy("ADD", &add.transfer)
        };
        self.finish_transfer(planned, title, expanded, sources, step);
        Ok(())
    }

    /// What a source of an ADD is.
    fn added(
        &self,
        instruction: &Instruction,
        path: &str,
        add: &AddInstruction,
        checksum: Option<&str>,
    ) -> Result<CopySource, Diagnostic> {
        if let Some(git) = parse_git(self, instruction, path)? {
            return self.git_source(instruction, path, &git, add, checksum);
        }
        if !is_http(path) {
            return Ok(CopySource::Path(path.to_owned()));
        }
        if let Some(text) = checksum.filter(|text| !is_digest(text)) {
            let message = format!("`{text}` is not a checksum");
            let error = self
                .inputs
                .error_at("invalid-checksum", instruction, text, message);
            return Err(error.with_help("write `sha256:` and 64 hexadecimal digits in lower case"));
        }
        Ok(CopySource::Url {
            url: path.to_owned(),
            checksum: checksum.map(str::to_owned),
        })
    }

    /// Expands all words, and reads the mode. None if a word could not be expanded: what it was to say is not known.
    fn expand_transfer(
        &mut self,
        instruction: &Instruction,
        transfer: &Transfer,
        checksum: Option<&Text>,
        found: &mut Found,
    ) -> Option<Expanded> {
        let mut wrong_modes = 0;
        let owner = found.or_default(self.expand_flag(instruction, transfer.chown.as_ref()));
        let mode_text = found.or_default(self.expand_flag(instruction, transfer.chmod.as_ref()));
        let mode = mode_text.as_ref().and_then(|text| {
            let mode = ModeChange::parse(text).map_err(|error| {
                let span = self
                    .inputs
                    .place_of_value(instruction.span, "--chmod=", text);
                super::error("invalid-mode", span, error.to_string())
                    .with_help("write an octal number such as `755`, or changes such as `u+x,go-w`")
            });
            wrong_modes += usize::from(mode.is_err());
            found.or_default(mode.map(Some))
        });
        let checksum = found.or_default(self.expand_flag(instruction, checksum));
        let mut paths = Vec::new();
        for source in &transfer.sources {
            if let SourceArgument::Path(path) = source {
                paths.push(found.or_default(self.expand(instruction, path)).text);
            }
        }
        let destination = self.expand(instruction, &transfer.destination);
        let destination = found.or_default(destination).text;
        let mut inline = Vec::new();
        for source in &transfer.sources {
            if let SourceArgument::Heredoc(heredoc) = source {
                let body = heredoc.body();
                let content = if heredoc.is_expanded {
                    let expansion = self.expand_with(instruction, &body, Mode::heredoc_body());
                    found.or_default(expansion).text
                } else {
                    body
                };
                inline.push(InlineFile {
                    name: heredoc.name.clone(),
                    content,
                });
            }
        }
        (found.0.len() == wrong_modes).then_some(Expanded {
            owner,
            mode_text,
            mode,
            checksum,
            paths,
            inline,
            destination,
        })
    }

    fn check_checksum(
        &self,
        instruction: &Instruction,
        expanded: &Expanded,
    ) -> Result<(), Diagnostic> {
        let Some(checksum) = &expanded.checksum else {
            return Ok(());
        };
        let refuse = |message: &str| {
            let error =
                self.inputs
                    .error_at("misplaced-checksum", instruction, "--checksum", message);
            Err(error.with_help(format!(
                "remove `--checksum={checksum}`, or give each source an ADD of its own"
            )))
        };
        match &expanded.paths[..] {
            [path] => match GitReference::parse(path) {
                Ok(None) if !is_http(path) => {
                    refuse("a checksum needs a URL or a git repository as the source")
                }
                // What is wrong with a git reference is reported where it is used.
                _ => Ok(()),
            },
            _ => refuse("a checksum needs exactly one source"),
        }
    }

    fn git_source(
        &self,
        instruction: &Instruction,
        path: &str,
        git: &GitReference,
        add: &AddInstruction,
        checksum: Option<&str>,
    ) -> Result<CopySource, Diagnostic> {
        let conflict = |what: &str| {
            let message = format!("the flag and the reference `{path}` disagree about the {what}");
            let error = self
                .inputs
                .error_at("git-conflict", instruction, path, message);
            Err(error.with_help("say it in one place"))
        };
        if let (Some(flag), Some(query)) = (add.keep_git_dir, git.keep_git_dir)
            && flag != query
        {
            return conflict("`.git` directory");
        }
        let query = Some(git.checksum.as_str()).filter(|checksum| !checksum.is_empty());
        if let (Some(flag), Some(query)) = (checksum, query)
            && flag != query
        {
            return conflict("expected commit");
        }
        Ok(CopySource::Git {
            reference: path.to_owned(),
            checksum: checksum.or(query).map(str::to_owned),
            keep_git_dir: add.keep_git_dir.or(git.keep_git_dir),
        })
    }

    fn finish_transfer(
        &mut self,
        planned: &StageInstruction<'_>,
        title: String,
        expanded: Expanded,
        mut sources: Vec<CopySource>,
        step: Copy,
    ) {
        let instruction = &*planned.instruction;
        if step.from == Input::Context {
            for source in &sources {
                if let CopySource::Path(path) = source {
                    let span = self.inputs.place_of(instruction.span, path);
                    let place = Place::from(instruction).at(span);
                    let ignore = &self.inputs.options.ignore;
                    self.checks.ignored_source(place, ignore, path);
                }
            }
        }
        let text = history_text(&step, &expanded);
        sources.extend(expanded.inline.into_iter().map(CopySource::Inline));
        let copy = Copy {
            sources,
            destination: path::resolve_keeping_slash(
                &self.state.directory(),
                &expanded.destination,
            ),
            owner: expanded.owner,
            // As in the reference: with --chmod the copy is an ordinary one.
            is_linked: step.is_linked && expanded.mode.is_none(),
            mode: expanded.mode,
            ..step
        };
        let step = self.push_step(planned, Operation::Copy(Box::new(copy)), title);
        self.state.history.push(history::layer_entry(&text, step));
    }
}

fn base_copy(instruction: &'static str, transfer: &Transfer) -> Copy {
    Copy {
        instruction,
        from: Input::Context,
        sources: Vec::new(),
        destination: String::new(),
        owner: None,
        mode: None,
        is_linked: transfer.is_linked,
        keeps_parents: false,
        exclude: to_strings(&transfer.exclude),
        unpack: Unpack::Never,
    }
}

/// `COPY [--parents] [--chown=…] [--chmod=…] source… <<heredoc… destination`
fn history_text(step: &Copy, expanded: &Expanded) -> String {
    let mut words = vec![step.instruction.to_owned()];
    if step.keeps_parents {
        words.push("--parents".to_owned());
    }
    words.extend(
        expanded
            .owner
            .as_ref()
            .map(|owner| format!("--chown={owner}")),
    );
    words.extend(
        expanded
            .mode_text
            .as_ref()
            .map(|mode| format!("--chmod={mode}")),
    );
    words.extend(expanded.paths.iter().cloned());
    words.extend(
        expanded
            .inline
            .iter()
            .map(|file| format!("<<{}", file.name)),
    );
    words.push(expanded.destination.clone());
    words.join(" ")
}

fn is_http(path: &str) -> bool {
    path.starts_with("http://") || path.starts_with("https://")
}

/// A source that is a git repository; `github.com/…` is a path here.
fn parse_git(
    evaluator: &Evaluator<'_, '_>,
    instruction: &Instruction,
    path: &str,
) -> Result<Option<GitReference>, Diagnostic> {
    match GitReference::parse(path) {
        Ok(git) => Ok(git.filter(|git| !git.is_ambiguous)),
        Err(error) => {
            let (code, message) = ("invalid-git-reference", error.to_string());
            let diagnostic = evaluator.inputs.error_at(code, instruction, path, message);
            Err(match error.suggestion() {
                Some(known) => diagnostic.with_help(format!("did you mean `{known}`?")),
                None => diagnostic.with_help(
                    "a git reference looks like `https://host/name.git?tag=v1&subdir=dir`",
                ),
            })
        }
    }
}
