//! `pull`, `push` and `save`.

use std::process::ExitCode;

use rbuild::event::EventSink;
use rbuild::options::{Output, OutputCompression, OutputKind, PullPolicy};
use rbuild::{Engine, SaveForm, TransferError};
use tokio_util::sync::CancellationToken;

use super::{open_engine, runtime};
use crate::cli::args::{GlobalArgs, IsolationArgs, PullArgs, PushArgs, RegistryArgs, SaveArgs};
use crate::cli::error::UsageError;
use crate::cli::failure::{Failure, Words};
use crate::cli::request::{ProgressMode, Variables, registries};
use crate::cli::signals::Interrupt;
use crate::cli::values::parse_platform;
use crate::ui;

/// Runs a transfer until it ends or a signal comes; progress goes to stderr.
pub(super) fn transfer<T>(
    global: &GlobalArgs,
    variables: &Variables,
    is_quiet: bool,
    work: impl AsyncFnOnce(Engine, EventSink) -> Result<T, TransferError>,
) -> Result<T, Failure> {
    let work = async |engine, events, _| work(engine, events).await;
    cancellable(global, variables, is_quiet, work)
}

/// The same for work that ends by itself when its token says so.
pub(super) fn cancellable<T>(
    global: &GlobalArgs,
    variables: &Variables,
    is_quiet: bool,
    work: impl AsyncFnOnce(Engine, EventSink, CancellationToken) -> Result<T, TransferError>,
) -> Result<T, Failure> {
    let engine = open_engine(global, &IsolationArgs::default(), variables)?;
    let console = ui::Console::new(if is_quiet {
        ProgressMode::Quiet
    } else {
        ProgressMode::Auto
    });
    let runtime = runtime()?;
    let (interrupt, result) = runtime.block_on(async {
        let words = console.clone();
        let interrupt =
            Interrupt::listen(move || words.notice("stopping; once more to stop at once"))
                .map_err(Failure::new)?;
        let result = interrupt
            .token
            .clone()
            .run_until_cancelled_owned(work(engine, console.sink(), interrupt.token.clone()))
            .await;
        Ok::<_, Failure>((interrupt, result))
    })?;
    console.finish_progress();
    match (interrupt.exit_code(), result) {
        (_, Some(Ok(value))) => Ok(value),
        (Some(exit_code), _) => Err(Failure {
            exit_code,
            words: Words::Nothing,
        }),
        (None, Some(Err(error))) => Err(Failure::of_transfer(error)),
        (None, None) => unreachable!("only a signal cancels, and it has an exit code"),
    }
}

fn compression(flag: Option<&str>) -> Result<OutputCompression, UsageError> {
    match flag {
        None | Some("gzip") => Ok(OutputCompression::Gzip),
        Some("zstd") => Ok(OutputCompression::Zstd),
        Some("uncompressed" | "none") => Ok(OutputCompression::Uncompressed),
        Some(other) => Err(UsageError::value(
            "--compression",
            other,
            "it is one of gzip, zstd, uncompressed",
        )),
    }
}

pub(super) fn pull(
    args: &PullArgs,
    global: &GlobalArgs,
    variables: &Variables,
) -> Result<ExitCode, Failure> {
    let platform = args.platform.as_deref().map(parse_platform).transpose()?;
    let settings = registries(&args.registries, variables)?;
    let pulled = transfer(global, variables, args.quiet, async |engine, events| {
        let mut pulled = Vec::new();
        for name in &args.images {
            let one = engine.pull(
                name,
                platform.clone(),
                PullPolicy::Newest,
                &settings,
                events.clone(),
            );
            pulled.push(one.await?);
        }
        Ok(pulled)
    })?;
    for (name, id) in pulled {
        ui::print_line(&if args.quiet {
            id.to_string()
        } else {
            format!("{name} {id}")
        });
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn push(
    args: &PushArgs,
    global: &GlobalArgs,
    variables: &Variables,
) -> Result<ExitCode, Failure> {
    let settings = registries(&args.registries, variables)?;
    let output = Output {
        compression: compression(args.compression.as_deref())?,
        ..Output::of_kind(OutputKind::Image)
    };
    let pushed = transfer(global, variables, args.quiet, async |engine, events| {
        engine
            .push(&args.images, args.all_tags, &output, &settings, events)
            .await
    })?;
    for image in pushed {
        if args.quiet {
            ui::print_line(image.digest.as_ref());
            continue;
        }
        for name in &image.names {
            ui::print_line(&format!("{name} {}", image.digest));
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn save(
    args: &SaveArgs,
    global: &GlobalArgs,
    variables: &Variables,
) -> Result<ExitCode, Failure> {
    let form = match args.format.as_deref() {
        None | Some("docker-archive") => SaveForm::DockerArchive,
        Some("oci-archive") => SaveForm::OciArchive,
        Some("oci-dir") => SaveForm::OciDirectory,
        Some(other) => {
            return Err(UsageError::value(
                "--format",
                other,
                "it is one of docker-archive, oci-archive, oci-dir",
            )
            .into());
        }
    };
    let compression = compression(args.compression.as_deref())?;
    ui::refuse_terminal(args.output.as_deref())?;
    // A layer of a base that was never kept is fetched again from where it came.
    let settings = registries(&RegistryArgs::default(), variables)?;
    transfer(global, variables, false, async |engine, events| {
        engine
            .save(
                &args.images,
                form,
                args.output.clone(),
                compression,
                events,
                &settings,
            )
            .await
    })?;
    Ok(ExitCode::SUCCESS)
}
