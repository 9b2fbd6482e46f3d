//! `rbuild check`, `--check` and `--call`: looking without building.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use rbuild::Engine;
use rbuild::check::{self, Mend};
use rbuild::options::{BuildOptions, ContextSource, DockerfileSource};

use super::args::{CheckArgs, GlobalArgs, IsolationArgs};
use super::call::{Call, Format, Method};
use super::commands::{open_engine, runtime};
use super::error::UsageError;
use super::failure::Failure;
use super::request::{BuildRequest, Variables};
use crate::ui;

/// `rbuild check`
pub(crate) fn check(
    args: &CheckArgs,
    global: &GlobalArgs,
    variables: &Variables,
) -> Result<ExitCode, Failure> {
    if let Some(code) = &args.explain {
        return explain(code);
    }
    let call = Call::of_check(args.format.as_deref(), args.severity.as_deref())?;
    let options = BuildRequest::of_check(args, variables)?;
    super::commands::check_context(&options, true)?;
    if !args.fix && !args.diff {
        return answer(call, &options, global, variables);
    }
    if args.fix && !args.diff && is_stdin(&options) {
        return Err(UsageError::Conflict {
            first: "--fix",
            second: "-",
            reason: "don't go together: there is no file to write; `--diff` shows what would change",
            help: None,
        }
        .into());
    }
    let engine = engine(global, variables);
    let mend = runtime()?.block_on(check::mend_dockerfile(engine.as_ref(), &options));
    let mend = mend.map_err(of_build)?;
    let has_mends = ui::report::print_mends(&mend, call.format);
    if args.diff {
        return Ok(ExitCode::from(u8::from(has_mends)));
    }
    if has_mends {
        write(&mend)?;
    }
    answer(call, &options, global, variables)
}

fn is_stdin(options: &BuildOptions) -> bool {
    matches!(options.dockerfile, Some(DockerfileSource::Stdin))
        || matches!(options.context, ContextSource::Stdin)
}

/// Answers a call that is not a build.
pub(crate) fn answer(
    call: Call,
    options: &BuildOptions,
    global: &GlobalArgs,
    variables: &Variables,
) -> Result<ExitCode, Failure> {
    let engine = engine(global, variables);
    let runtime = runtime()?;
    match call.method {
        Method::Build | Method::Check => {
            let report = runtime.block_on(check::check(engine.as_ref(), options));
            let report = report.map_err(of_build)?;
            ui::report::print_check(&report, call.format);
            let code = call.fails_at.map_or(0, |least| report.exit_code(least));
            Ok(ExitCode::from(code))
        }
        Method::Outline => {
            let outline = runtime.block_on(check::outline(engine.as_ref(), options));
            ui::report::print_outline(&outline.map_err(of_build)?, call.format);
            Ok(ExitCode::SUCCESS)
        }
        Method::Targets => {
            let targets = runtime.block_on(check::targets(engine.as_ref(), options));
            ui::report::print_targets(&targets.map_err(of_build)?, call.format);
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Without a store the text can still be looked at: a check must not fail for a disk that is read-only.
fn engine(global: &GlobalArgs, variables: &Variables) -> Option<Engine> {
    open_engine(global, &IsolationArgs::default(), variables).ok()
}

fn of_build(error: rbuild::BuildError) -> Failure {
    Failure::of_build(error, |_| Vec::new())
}

fn explain(name: &str) -> Result<ExitCode, Failure> {
    use rbuild_frontend::codes;
    if let Some(code) = codes::find(name) {
        ui::report::print_explanation(code);
        return Ok(ExitCode::SUCCESS);
    }
    let help = match codes::closest(name) {
        Some(known) => format!("did you mean `{known}`?"),
        None => "codes stand in brackets in messages, such as `unknown-flag`".to_owned(),
    };
    let error = UsageError::value("--explain", name, "no message has this code");
    Err(error.with_help(help).into())
}

/// Why a mended Dockerfile can't be written.
#[derive(Debug, thiserror::Error)]
enum MendError {
    #[error("`--fix` needs a Dockerfile that is a file")]
    NoFile,
    #[error("`{path}` is not UTF-8: mending it would change more than it says")]
    NotText { path: PathBuf },
    #[error("cannot write `{path}`")]
    Write {
        path: PathBuf,
        source: std::io::Error,
    },
}

/// Puts the mended text in the file's place, whole or not at all.
fn write(mend: &Mend) -> Result<(), Failure> {
    let path = mend
        .path
        .as_deref()
        .ok_or_else(|| Failure::new(MendError::NoFile))?;
    let failed = |source| {
        let path = path.to_owned();
        Failure::new(MendError::Write { path, source })
    };
    let bytes = std::fs::read(path).map_err(failed)?;
    if bytes != mend.source.text().as_bytes() {
        let path = path.to_owned();
        return Err(Failure::new(MendError::NotText { path }));
    }
    replace(path, mend.mended.text.as_bytes()).map_err(failed)
}

/// Writes beside the file and renames; a link stays one, and the file's mode stays what it is.
fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let path = std::fs::canonicalize(path)?;
    let permissions = std::fs::metadata(&path)?.permissions();
    let directory = path.parent().unwrap_or_else(|| Path::new("/"));
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(bytes)?;
    file.as_file().set_permissions(permissions)?;
    file.persist(&path)?;
    Ok(())
}

impl Format {
    /// Whether stdout belongs to a program that reads it.
    pub(crate) fn is_for_programs(self) -> bool {
        self != Self::Text
    }
}
