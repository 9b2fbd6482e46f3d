//! `copy`, `load`, `import` and `export`.

use std::path::Path;
use std::process::ExitCode;

use rbuild::{Endpoint, ImportOptions};

use super::transfers::{cancellable, transfer};
use crate::cli::args::{CopyArgs, ExportArgs, GlobalArgs, ImportArgs, LoadArgs, RegistryArgs};
use crate::cli::error::UsageError;
use crate::cli::failure::{self, Failure};
use crate::cli::request::{Variables, registries};
use crate::cli::values::parse_platform;
use crate::ui;

pub(super) fn copy(
    args: &CopyArgs,
    global: &GlobalArgs,
    variables: &Variables,
) -> Result<ExitCode, Failure> {
    let end = |text: &str| {
        Endpoint::parse(text)
            .map_err(|error| Failure::of_transfer(error).with_exit_code(failure::BAD_USAGE))
    };
    let (source, target) = (end(&args.source)?, end(&args.target)?);
    let platform = args.platform.as_deref().map(parse_platform).transpose()?;
    let settings = registries(&args.registries, variables)?;
    let copied = transfer(global, variables, args.quiet, async |engine, events| {
        engine
            .copy(&source, &target, platform, &settings, events)
            .await
    })?;
    ui::print_line(&if args.quiet {
        copied.digest.to_string()
    } else {
        format!("{} {}", args.target, copied.digest)
    });
    Ok(ExitCode::SUCCESS)
}

pub(super) fn load(
    args: &LoadArgs,
    global: &GlobalArgs,
    variables: &Variables,
) -> Result<ExitCode, Failure> {
    let platform = args.platform.as_deref().map(parse_platform).transpose()?;
    let input = args.input.as_deref().filter(|path| *path != Path::new("-"));
    if input.is_none() && ui::is_stdin_terminal() {
        return Err(UsageError::Missing {
            flag: "--input",
            reason: "there is nothing to load: stdin is the terminal",
            help: "`rbuild load -i FILE`, or pipe an archive in",
        }
        .into());
    }
    let loaded = transfer(global, variables, args.quiet, async |engine, events| {
        engine.load(input, platform, events).await
    })?;
    for image in loaded {
        if args.quiet || image.names.is_empty() {
            ui::print_line(image.id.as_ref());
            continue;
        }
        for name in &image.names {
            ui::print_line(&format!("{name} {}", image.id));
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn import(
    args: &ImportArgs,
    global: &GlobalArgs,
    variables: &Variables,
) -> Result<ExitCode, Failure> {
    let options = ImportOptions {
        tags: args.name.clone().into_iter().collect(),
        changes: args.change.clone(),
        platform: args.platform.as_deref().map(parse_platform).transpose()?,
    };
    let path = Some(args.file.as_path()).filter(|path| *path != Path::new("-"));
    let outcome = cancellable(global, variables, false, async |engine, events, cancel| {
        engine.import(path, &options, events, cancel).await
    })?;
    ui::print_line(outcome.image_id.as_ref());
    Ok(ExitCode::SUCCESS)
}

pub(super) fn export(
    args: &ExportArgs,
    global: &GlobalArgs,
    variables: &Variables,
) -> Result<ExitCode, Failure> {
    ui::refuse_terminal(args.output.as_deref())?;
    let destination = args.output.clone().filter(|path| path != Path::new("-"));
    let settings = registries(&RegistryArgs::default(), variables)?;
    transfer(global, variables, false, async |engine, events| {
        engine
            .export(&args.image, destination, &settings, events)
            .await
    })?;
    Ok(ExitCode::SUCCESS)
}
