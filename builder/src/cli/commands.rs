//! The verbs, carried out: the only place that calls the engine.

mod archives;
mod registries;
mod transfers;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use rbuild::history::History;
use rbuild::images::{Document, Images};
use rbuild::layers::{self, ImageLayers};
use rbuild::options::BuildOptions;
use rbuild::{Engine, EngineOptions};
use tokio::runtime::Runtime;

use super::args::{
    BuildArgs, Cli, GlobalArgs, InspectArgs, IsolationArgs, LayersArgs, ListFormat, LogLevel, Verb,
};
use super::call::Method;
use super::error::UsageError;
use super::failure::{Failure, Words};
use super::isolation;
use super::request::{BuildRequest, Variables};
use super::result_files;
use super::running::RunArgs;
use super::settings::Settings;
use super::shelling::{self, OnFailure};
use super::signals::Interrupt;
use super::store_verbs;
use crate::ui;

/// Exit code of `rbuild run` when not the command failed but we.
const RUN_FAILED: u8 = 125;

/// Does what the command line says; whatever goes wrong is told on stderr.
pub(crate) fn carry_out(
    cli: Cli,
    settings: &Settings,
    mut variables: Variables,
    verb_was_typed: bool,
) -> ExitCode {
    settings.fill(&mut variables);
    let is_debug = matches!(&cli.verb, Verb::Build(args) if args.display.debug);
    let debug = is_debug.then_some(LogLevel::Debug);
    let level = cli.global.log_level.or(debug);
    ui::log::start(level.map(filter_of), &variables);
    match dispatch(cli, settings, &variables, verb_was_typed) {
        Ok(code) => code,
        Err(failure) => super::fail(&failure.with_origin(settings)),
    }
}

fn filter_of(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Off => "off",
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    }
}

fn dispatch(
    cli: Cli,
    settings: &Settings,
    variables: &Variables,
    verb_was_typed: bool,
) -> Result<ExitCode, Failure> {
    let engine = || open_engine(&cli.global, &IsolationArgs::default(), variables);
    let images = || Ok::<_, Failure>(Images::new(engine()?.store().clone()));
    let history = || Ok::<_, Failure>(History::new(engine()?.store().clone()));
    match cli.verb {
        Verb::Build(args) => build(&args, &cli.global, variables, verb_was_typed),
        Verb::Check(args) => super::checking::check(&args, &cli.global, variables),
        Verb::Run(args) => run(&args, &cli.global, variables),
        Verb::Shell(args) => super::shelling::shell(&args, &cli.global, variables),
        Verb::Images(args) => {
            ui::table::print_images(
                &images()?.list().map_err(Failure::new)?,
                args.quiet,
                args.no_trunc,
            );
            Ok(ExitCode::SUCCESS)
        }
        Verb::Inspect(args) => {
            inspect(&args, &images()?)?;
            Ok(ExitCode::SUCCESS)
        }
        Verb::History(args) => {
            ui::table::print_history(
                &images()?.history(&args.image).map_err(Failure::new)?,
                args.no_trunc,
            );
            Ok(ExitCode::SUCCESS)
        }
        Verb::Layers(args) => {
            let engine = engine()?;
            let images = Images::new(engine.store().clone());
            let shown = layers::layers_of(&images, engine.store(), &args.image);
            show_layers(&args, &shown.map_err(Failure::new)?)
        }
        Verb::Report(args) => super::drawing::report(&args, &engine()?),
        Verb::Graph(args) => super::drawing::graph(&args, &cli.global, variables),
        Verb::Explain(args) => super::past::explain(&args, &history()?),
        Verb::Builds(args) => super::past::builds(&args, &history()?),
        Verb::Logs(args) => super::past::logs(&args, &history()?),
        Verb::Tag(args) => {
            images()?
                .tag(&args.image, &args.name)
                .map_err(Failure::new)?;
            Ok(ExitCode::SUCCESS)
        }
        Verb::Rmi(args) => {
            let images = images()?;
            for name in &args.images {
                images.remove(name).map_err(Failure::new)?;
                ui::print_line(&format!("removed {name}"));
            }
            Ok(ExitCode::SUCCESS)
        }
        Verb::Du(args) => store_verbs::du(&args, &engine()?),
        Verb::Prune(args) => store_verbs::prune(&args, engine),
        Verb::Cache(verb) => store_verbs::cache(&verb, &engine()?),
        Verb::Fsck(args) => {
            let options = engine_options(&cli.global, &IsolationArgs::default(), variables)?;
            store_verbs::fsck(&args, &options)
        }
        Verb::Pull(args) => transfers::pull(&args, &cli.global, variables),
        Verb::Push(args) => transfers::push(&args, &cli.global, variables),
        Verb::Save(args) => transfers::save(&args, &cli.global, variables),
        Verb::Copy(args) => archives::copy(&args, &cli.global, variables),
        Verb::Load(args) => archives::load(&args, &cli.global, variables),
        Verb::Import(args) => archives::import(&args, &cli.global, variables),
        Verb::Export(args) => archives::export(&args, &cli.global, variables),
        Verb::Login(args) => registries::login(&args, variables),
        Verb::Logout(args) => registries::logout(&args, variables),
        Verb::Info(args) => {
            match &args.registry {
                Some(name) => registries::info(name, &args, variables)?,
                None => info(&cli.global, settings)?,
            }
            Ok(ExitCode::SUCCESS)
        }
        Verb::Version => {
            ui::print_line(concat!("rbuild ", env!("CARGO_PKG_VERSION")));
            Ok(ExitCode::SUCCESS)
        }
        Verb::Completion { shell } => {
            ui::print_bytes(super::completion::script(shell).as_bytes());
            Ok(ExitCode::SUCCESS)
        }
        Verb::Man { directory } => super::manual::write(directory.as_deref()),
    }
}

fn show_layers(args: &LayersArgs, image: &ImageLayers) -> Result<ExitCode, Failure> {
    let Some(number) = args.layer else {
        if args.format.is_none() && ui::browse::can_be_shown() {
            return browse_layers(image);
        }
        ui::layers::print_layers(image, args.format == Some(ListFormat::Json));
        return Ok(ExitCode::SUCCESS);
    };
    let layer = number.checked_sub(1).and_then(|at| image.layers.get(at));
    let Some(layer) = layer else {
        return Err(UsageError::value(
            "LAYER",
            number.to_string(),
            format!("the image has layers 1 to {}", image.layers.len()),
        )
        .into());
    };
    ui::layers::print_tree(number - 1, layer, args.depth.max(1));
    Ok(ExitCode::SUCCESS)
}

/// The terminal is put back before a signal ends us.
fn browse_layers(image: &ImageLayers) -> Result<ExitCode, Failure> {
    let runtime = runtime()?;
    let interrupt = runtime
        .block_on(async { Interrupt::listen(|| ()) })
        .map_err(Failure::new)?;
    ui::browse::run(image, || interrupt.token.is_cancelled()).map_err(Failure::new)?;
    Ok(interrupt
        .exit_code()
        .map_or(ExitCode::SUCCESS, ExitCode::from))
}

/// Forks the spawner, and opens the store. Comes before anything that starts a thread.
pub(super) fn open_engine(
    global: &GlobalArgs,
    isolation: &IsolationArgs,
    variables: &Variables,
) -> Result<Engine, Failure> {
    let options = engine_options(global, isolation, variables)?;
    Engine::open(&options).map_err(|error| Failure::of_build(error, |_| Vec::new()))
}

fn engine_options(
    global: &GlobalArgs,
    isolation: &IsolationArgs,
    variables: &Variables,
) -> Result<EngineOptions, Failure> {
    rbuild::init().map_err(Failure::new)?;
    Ok(EngineOptions {
        budget: super::values::budget()?,
        ..isolation::engine_options(root_of(global), isolation, variables)?
    })
}

fn root_of(global: &GlobalArgs) -> PathBuf {
    global
        .root
        .clone()
        .unwrap_or_else(EngineOptions::default_root)
}

fn inspect(args: &InspectArgs, images: &Images) -> Result<(), Failure> {
    let what = if args.config {
        Some(Document::Config)
    } else {
        args.manifest.then_some(Document::Manifest)
    };
    if let Some(what) = what {
        let bytes = images.document(&args.image, what).map_err(|error| {
            let help = error.help();
            Failure::with_help(error, help)
        })?;
        ui::print_bytes(&bytes);
        return Ok(());
    }
    let value = images.inspect(&args.image).map_err(Failure::new)?;
    match &args.format {
        None => ui::print_json(&value),
        Some(format) => {
            let text = super::format::render(format, &value).map_err(Failure::new)?;
            ui::print_bytes(text.as_bytes());
        }
    }
    Ok(())
}

/// What this machine allows is tried out; when that can't even be begun, the rest is told all the same.
fn info(global: &GlobalArgs, settings: &Settings) -> Result<(), Failure> {
    rbuild::init().map_err(Failure::new)?;
    ui::table::print_facts(&facts(global));
    ui::table::print_settings(&settings.files, &settings.described);
    let survey = rbuild::survey(&root_of(global))
        .map_err(|error| Failure::of_build(error, |_| Vec::new()))?;
    ui::table::print_survey(&survey);
    Ok(())
}

fn facts(global: &GlobalArgs) -> BTreeMap<&'static str, String> {
    let kernel = rustix::system::uname();
    BTreeMap::from([
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("root", root_of(global).display().to_string()),
        ("kernel", kernel.release().to_string_lossy().into_owned()),
        ("machine", kernel.machine().to_string_lossy().into_owned()),
        ("user", rustix::process::geteuid().as_raw().to_string()),
    ])
}

pub(super) fn runtime() -> Result<Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Failure::new)
}

fn build(
    args: &BuildArgs,
    global: &GlobalArgs,
    variables: &Variables,
    verb_was_typed: bool,
) -> Result<ExitCode, Failure> {
    let mut request = BuildRequest::new(args, variables)?;
    request.options.failed_steps = request.on_failure.failed_steps();
    check_context(&request.options, verb_was_typed)?;
    if request.call.method != Method::Build {
        return super::checking::answer(request.call, &request.options, global, variables);
    }
    ui::refuse_archive_on_terminal(&request.options)?;
    let engine = open_engine(global, &args.sandbox.isolation, variables)?;
    let console = ui::Console::new(request.progress);
    let runtime = runtime()?;
    let (interrupt, result) = runtime.block_on(async {
        let words = console.clone();
        let interrupt =
            Interrupt::listen(move || words.notice("stopping; once more to stop at once"))
                .map_err(Failure::new)?;
        let result = engine
            .build(&request.options, console.sink(), interrupt.token.clone())
            .await;
        Ok::<_, Failure>((interrupt, result))
    })?;
    console.finish_progress();
    // Also of a build that failed, whose own error is told first.
    let reported = match (&request.report, console.build_id()) {
        (Some(path), Some(id)) => super::drawing::report_of(&id, path, &engine),
        _ => Ok(()),
    };
    match (interrupt.exit_code(), result) {
        (_, Ok(outcome)) => {
            result_files::write(&request, &outcome)?;
            console.print_summary(&outcome);
            reported.map(|()| ExitCode::SUCCESS)
        }
        (Some(exit_code), Err(_)) => Err(Failure {
            exit_code,
            words: Words::Nothing,
        }),
        (None, Err(error)) => {
            let step = error.failed_step();
            let mut failure = Failure::of_build(error, |step| console.last_lines(step));
            let kept = step
                .filter(|step| console.is_kept(*step))
                .zip(console.build_id());
            let Some((step, build)) = kept else {
                return Err(failure);
            };
            let command = shelling::command(global, &build, step);
            failure.set_shell(command);
            if request.on_failure == OnFailure::Shell && ui::is_terminal() {
                let exit_code = super::fail(&failure);
                shelling::enter_failed(&engine, &build, step, &request.options, variables)?;
                return Ok(exit_code);
            }
            Err(failure)
        }
    }
}

/// The one look at the disk before the engine: a mistyped verb is a context that does not exist.
pub(super) fn check_context(
    options: &BuildOptions,
    verb_was_typed: bool,
) -> Result<(), UsageError> {
    let rbuild::options::ContextSource::Directory(path) = &options.context else {
        return Ok(());
    };
    let context = |reason, help| {
        Err(UsageError::Context {
            path: path.display().to_string(),
            reason,
            help,
        })
    };
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => context(
            "is not a directory",
            Some(
                "the Dockerfile is given with `-f`, and the context behind it: `-f FILE .`"
                    .to_owned(),
            ),
        ),
        Err(_) => context(
            "does not exist or can't be entered",
            Some(if verb_was_typed {
                "it is the directory that COPY reads from, often `.`; repositories and archives are fetched from https://, ssh:// and git@host:".to_owned()
            } else {
                "the first word is neither a verb nor a directory; `rbuild --help` lists the verbs"
                    .to_owned()
            }),
        ),
    }
}

fn run(args: &RunArgs, global: &GlobalArgs, variables: &Variables) -> Result<ExitCode, Failure> {
    let options = args
        .options(variables)
        .map_err(|error| Failure::from(error).with_exit_code(RUN_FAILED))?;
    let engine = open_engine(global, &args.isolation, variables)
        .map_err(|failure| failure.with_exit_code(RUN_FAILED))?;
    let runtime = runtime().map_err(|failure| failure.with_exit_code(RUN_FAILED))?;
    runtime.block_on(async {
        let interrupt = Interrupt::listen(|| ())
            .map_err(|error| Failure::new(error).with_exit_code(RUN_FAILED))?;
        let code = engine
            .run(&args.image, &options, interrupt.token.clone())
            .await;
        code.map(ExitCode::from).map_err(|error| {
            let exit_code = error.exit_code();
            if let rbuild::RunError::Isolation(error) = error {
                return Failure::of_build(*error, |_| Vec::new()).with_exit_code(exit_code);
            }
            Failure::new(error).with_exit_code(exit_code)
        })
    })
}
