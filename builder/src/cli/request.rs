//! From what was typed to what is meant: the only place where flags become [`BuildOptions`]. Pure: the environment
//! is handed in, no file is opened.

mod lent;
mod outputs;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::PathBuf;

use rbuild::options::{BuildOptions, ContextSource, DockerfileSource, Entitlement, PullPolicy};
use rbuild::registry::{RegistryFlags, RegistrySettings, Secret};
use rbuild_frontend::git_reference::GitReference;
use rbuild_frontend::graph::Network;

use self::lent::offer_agent;
pub(super) use self::lent::{secret, ssh};
use self::outputs::{load, output, push};
use super::args::{
    BuildArgs, CacheArgs, CheckArgs, DisplayArgs, GraphArgs, InputArgs, RegistryArgs, SandboxArgs,
};
use super::cache::{parse_source, parse_target};
use super::call::Call;
use super::error::UsageError;
use super::shelling::OnFailure;
use super::typed::parse_switch;
use super::values::{parse_host, parse_platform, parse_size, parse_ulimit};

/// The environment variables of the process.
pub(crate) type Variables = BTreeMap<String, String>;

/// A build, and what the command line does with its result.
#[derive(Clone, Debug)]
pub(crate) struct BuildRequest {
    /// For the library.
    pub(crate) options: BuildOptions,
    /// `--progress` or `-q`
    pub(crate) progress: ProgressMode,
    /// `--iidfile`
    pub(crate) iidfile: Option<PathBuf>,
    /// `--metadata-file`
    pub(crate) metadata_file: Option<PathBuf>,
    /// `--report`
    pub(crate) report: Option<PathBuf>,
    /// `--call`, `--check`
    pub(crate) call: Call,
    /// `--on-failure`
    pub(crate) on_failure: OnFailure,
}

/// `--progress`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ProgressMode {
    /// What suits stderr.
    #[default]
    Auto,
    /// For a terminal.
    Tty,
    /// Lines.
    Plain,
    /// The image id, and errors.
    Quiet,
    /// One JSON object per event.
    RawJson,
}

/// Variable and build argument that say what time it is.
const SOURCE_DATE_EPOCH: &str = "SOURCE_DATE_EPOCH";

impl BuildRequest {
    /// Converts a parsed command line, or says which flag is wrong.
    pub(crate) fn new(args: &BuildArgs, variables: &Variables) -> Result<Self, UsageError> {
        args.tabled.check()?;
        let mut options = BuildOptions {
            context: context_of(&args.context),
            context_subdirectory: args.input.context_subdir.clone(),
            ..BuildOptions::default()
        };
        input(&args.input, variables, &mut options)?;
        offer_agent(&mut options, variables);
        output(&args.output, &mut options)?;
        load(args, &mut options)?;
        push(args, &mut options)?;
        options.registries = registries(&args.registries, variables)?;
        cache(&args.cache, &mut options)?;
        sandbox(&args.sandbox, &mut options)?;
        timestamp(args.output.timestamp, &mut options)?;
        options.source_date_epoch = source_date_epoch(&mut options.build_args, variables);
        let progress = progress(&args.display, variables)?;
        check_streams(&options, progress)?;
        Ok(Self {
            options,
            progress,
            iidfile: args.output.iidfile.clone(),
            metadata_file: args.output.metadata_file.clone(),
            report: args.output.report.clone(),
            on_failure: OnFailure::parse(args.sandbox.on_failure.as_deref())?,
            call: Call::of_build(
                args.display.call.as_deref(),
                args.display.check,
                args.display.format.as_deref(),
            )?,
        })
    }

    /// What `rbuild check` looks at: as much of a build's options as can change what is found.
    pub(crate) fn of_check(
        args: &CheckArgs,
        variables: &Variables,
    ) -> Result<BuildOptions, UsageError> {
        let mut options = BuildOptions {
            context: context_of(&args.context),
            pull: pull_policy(args.pull.as_deref())?,
            ..BuildOptions::default()
        };
        input(&args.input, variables, &mut options)?;
        check_streams(&options, ProgressMode::Auto)?;
        Ok(options)
    }
}

impl BuildRequest {
    /// What `rbuild graph` draws.
    pub(crate) fn of_graph(
        args: &GraphArgs,
        variables: &Variables,
    ) -> Result<BuildOptions, UsageError> {
        let mut options = BuildOptions {
            context: context_of(&args.context),
            ..BuildOptions::default()
        };
        input(&args.input, variables, &mut options)?;
        check_streams(&options, ProgressMode::Auto)?;
        Ok(options)
    }
}

fn context_of(context: &OsStr) -> ContextSource {
    match context.to_str() {
        Some("-") => ContextSource::Stdin,
        Some(text) if is_url(text) => ContextSource::Url(text.to_owned()),
        _ => ContextSource::Directory(PathBuf::from(context)),
    }
}

/// What the reference takes for remote: http(s) addresses, and whatever is a git reference, be it a bad one.
fn is_url(text: &str) -> bool {
    is_http(text) || !matches!(GitReference::parse(text), Ok(None))
}

fn is_http(text: &str) -> bool {
    text.starts_with("http://") || text.starts_with("https://")
}

fn input(
    args: &InputArgs,
    variables: &Variables,
    options: &mut BuildOptions,
) -> Result<(), UsageError> {
    options.dockerfile = args.file.as_ref().map(|path| match path.to_str() {
        Some("-") => DockerfileSource::Stdin,
        Some(text) if is_http(text) => DockerfileSource::Url(text.to_owned()),
        _ => DockerfileSource::Path(path.clone()),
    });
    options.target.clone_from(&args.target);
    let default_platform = variables
        .get("DOCKER_DEFAULT_PLATFORM")
        .filter(|text| !text.is_empty());
    let platforms = if args.platform.is_empty() {
        default_platform.into_iter().collect()
    } else {
        args.platform.iter().collect::<Vec<_>>()
    };
    for platform in platforms.into_iter().flat_map(|list| list.split(',')) {
        let platform = parse_platform(platform.trim())?;
        if !options.platforms.contains(&platform) {
            options.platforms.push(platform);
        }
    }
    for text in &args.build_arg {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text.as_str(), variables.get(text).cloned()),
        };
        if name.is_empty() {
            return Err(UsageError::value("--build-arg", text, "the name is empty"));
        }
        if let Some(value) = value {
            options.build_args.insert(name.to_owned(), value);
        }
    }
    for text in &args.build_context {
        let (name, spec) = text
            .split_once('=')
            .filter(|(name, spec)| !name.is_empty() && !spec.is_empty())
            .ok_or_else(|| UsageError::value("--build-context", text, "it is not NAME=SPEC"))?;
        options
            .named_contexts
            .insert(name.to_owned(), spec.to_owned());
    }
    for text in &args.secret {
        let (id, source) = secret(text, variables)?;
        options.secrets.insert(id, source);
    }
    for text in &args.ssh {
        let (id, path) = ssh(text, variables)?;
        options.ssh.insert(id, path);
    }
    Ok(())
}

/// The registry flags above the machine's files.
pub(crate) fn registries(
    args: &RegistryArgs,
    variables: &Variables,
) -> Result<RegistrySettings, UsageError> {
    let credentials = match args.creds.as_deref().map(|text| text.split_once(':')) {
        None => None,
        Some(Some((user, password))) if !user.is_empty() => {
            Some((user.to_owned(), Secret::new(password)))
        }
        // Whatever was typed may be a password: it is not repeated.
        Some(_) => {
            return Err(UsageError::value("--creds", "…", "it is not USER:PASSWORD")
                .with_help("`rbuild login` keeps a password where others can't see it"));
        }
    };
    let verifies_tls = match args.tls_verify.as_deref() {
        None => None,
        Some(text) => Some(
            parse_switch(text)
                .ok_or_else(|| UsageError::value("--tls-verify", text, "it is true or false"))?,
        ),
    };
    let flags = RegistryFlags {
        credentials,
        authfile: args.authfile.clone(),
        verifies_tls,
        certificates: args.cert_dir.clone(),
        authorities: args.authorities()?,
    };
    Ok(RegistrySettings::of_machine(variables, flags))
}

fn cache(args: &CacheArgs, options: &mut BuildOptions) -> Result<(), UsageError> {
    options.ignores_cache = args.no_cache;
    options.ignores_cache_of = args
        .no_cache_filter
        .iter()
        .filter(|name| !name.is_empty())
        .cloned()
        .collect();
    options.no_stat_cache = args.no_stat_cache;
    for text in &args.cache_from {
        options.cache_from.push(parse_source(text)?);
    }
    for text in &args.cache_to {
        options.cache_to.push(parse_target(text)?);
    }
    options.pull = pull_policy(args.pull.as_deref())?;
    Ok(())
}

fn pull_policy(text: Option<&str>) -> Result<PullPolicy, UsageError> {
    match text {
        None | Some("missing") => Ok(PullPolicy::Missing),
        Some("always") => Ok(PullPolicy::Always),
        Some("never") => Ok(PullPolicy::Never),
        Some(text) => match parse_switch(text) {
            Some(true) => Ok(PullPolicy::Always),
            Some(false) => Ok(PullPolicy::Missing),
            None => Err(UsageError::value(
                "--pull",
                text,
                "it is one of always, missing, never, true, false",
            )),
        },
    }
}

fn sandbox(args: &SandboxArgs, options: &mut BuildOptions) -> Result<(), UsageError> {
    options.network = match args.network.as_deref() {
        // `bridge` is what Docker's default is called.
        None | Some("" | "default" | "bridge") => Network::Default,
        Some("none") => Network::None,
        Some("host") => Network::Host,
        Some(other) => {
            return Err(UsageError::value(
                "--network",
                other,
                "it is one of default, host, none",
            ));
        }
    };
    options.extra_hosts = args
        .add_host
        .iter()
        .map(|text| parse_host(text))
        .collect::<Result<_, _>>()?;
    options.ulimits = args
        .ulimit
        .iter()
        .map(|text| parse_ulimit(text))
        .collect::<Result<_, _>>()?;
    options.limits = args.resources.add_to(args.limits.limits()?)?;
    if let Some(text) = &args.shm_size {
        let wrong = || {
            UsageError::value("--shm-size", text, "it is not a size")
                .with_help("for example `16m` or `1g`")
        };
        options.shm_size = Some(parse_size(text).ok_or_else(wrong)?);
    }
    for text in &args.allow {
        for word in text.split(',') {
            options.entitlements.push(match word.trim() {
                "network.host" => Entitlement::NetworkHost,
                "security.insecure" => Entitlement::SecurityInsecure,
                other => {
                    return Err(
                        UsageError::value("--allow", other, "it is not an entitlement")
                            .with_help("entitlements are network.host and security.insecure"),
                    );
                }
            });
        }
    }
    if args.jobs == Some(0) {
        return Err(UsageError::value(
            "--jobs",
            "0",
            "at least one step has to run at a time",
        ));
    }
    options.max_parallelism = args.jobs;
    Ok(())
}

/// `--timestamp`, which is more than the variable: every output has its files' times rewritten.
fn timestamp(seconds: Option<i64>, options: &mut BuildOptions) -> Result<(), UsageError> {
    let Some(seconds) = seconds else {
        return Ok(());
    };
    let seconds = seconds.to_string();
    let said = options.build_args.get(SOURCE_DATE_EPOCH);
    if said.is_some_and(|said| *said != seconds) {
        return Err(UsageError::Conflict {
            first: "--timestamp",
            second: "--build-arg SOURCE_DATE_EPOCH",
            reason: "both say what time it is",
            help: Some("leave one of them out"),
        });
    }
    (options.build_args).insert(SOURCE_DATE_EPOCH.to_owned(), seconds);
    for output in &mut options.outputs {
        output.rewrites_timestamps = true;
    }
    Ok(())
}

/// The environment's value also becomes a build arg, as with the reference's clients; a build arg goes first. Whether a
/// word that is no number names something is known when the Dockerfile is.
fn source_date_epoch(
    build_args: &mut BTreeMap<String, String>,
    variables: &Variables,
) -> Option<i64> {
    let from_outside = variables.get(SOURCE_DATE_EPOCH);
    if !build_args.contains_key(SOURCE_DATE_EPOCH)
        && let Some(value) = from_outside.filter(|value| !value.is_empty())
    {
        build_args.insert(SOURCE_DATE_EPOCH.to_owned(), value.clone());
    }
    build_args.get(SOURCE_DATE_EPOCH)?.parse().ok()
}

fn progress(args: &DisplayArgs, variables: &Variables) -> Result<ProgressMode, UsageError> {
    if args.quiet {
        return Ok(ProgressMode::Quiet);
    }
    let (flag, text) = match (&args.progress, variables.get("BUILDKIT_PROGRESS")) {
        (Some(text), _) => ("--progress", text.as_str()),
        (None, Some(text)) => ("BUILDKIT_PROGRESS", text.as_str()),
        (None, None) => return Ok(ProgressMode::Auto),
    };
    match text {
        "" | "auto" => Ok(ProgressMode::Auto),
        "tty" => Ok(ProgressMode::Tty),
        "plain" => Ok(ProgressMode::Plain),
        "quiet" | "none" => Ok(ProgressMode::Quiet),
        "rawjson" => Ok(ProgressMode::RawJson),
        other => Err(UsageError::value(
            flag,
            other,
            "it is one of auto, tty, plain, quiet, rawjson",
        )),
    }
}

/// stdin and stdout can each be used for one thing.
fn check_streams(options: &BuildOptions, progress: ProgressMode) -> Result<(), UsageError> {
    if matches!(
        (&options.context, &options.dockerfile),
        (ContextSource::Stdin, Some(DockerfileSource::Stdin))
    ) {
        return Err(UsageError::Conflict {
            first: "-f -",
            second: "-",
            reason: "both read stdin",
            help: Some("put the Dockerfile into the archive, or name a directory as the context"),
        });
    }
    let to_stdout = options
        .outputs
        .iter()
        .filter(|output| output.kind.writes_out() && output.destination.is_none());
    match to_stdout.count() {
        1 if progress == ProgressMode::Quiet => Err(UsageError::Conflict {
            first: "--quiet",
            second: "--output",
            reason: "both write to stdout",
            help: Some(
                "give the output a file (`dest=FILE`), or have the id written to one with `--iidfile`",
            ),
        }),
        0 | 1 => Ok(()),
        _ => Err(UsageError::Conflict {
            first: "--output",
            second: "--output",
            reason: "both write to stdout",
            help: Some("give one of them a file: `dest=FILE`"),
        }),
    }
}

#[cfg(test)]
mod tests;
