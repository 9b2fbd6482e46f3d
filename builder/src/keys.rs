//! What goes into a step's key, instruction by instruction.
//!
//! The rules are the design's: everything that can change the result, nothing else, in a canonical encoding. The
//! two keys of a step differ in how its parent and its inputs are named: the definition key names steps by their
//! own definition keys, the result key by the content they left.

use rbuild_cache::{ChainId, ContentDigest, KeyEncoder, StepKey};
use rbuild_frontend::graph::{
    Copy, CopySource, Mount, MountKind, Network, Operation, Run, Security, Sharing, Step, Unpack,
};

use crate::options::BuildOptions;

/// Raised when the encoding below changes: records of another version are simply not found.
const KEY_VERSION: u32 = 1;

/// What a base image is called in definition keys: the chain id of its diff_ids; empty for one without layers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BaseId(String);

impl BaseId {
    /// The id of the image whose layers have this chain id.
    pub(crate) fn of(chain: Option<&ChainId>) -> Self {
        Self(chain.map(ToString::to_string).unwrap_or_default())
    }
}

/// How a step's parent enters its key.
#[derive(Clone, Debug)]
pub(crate) enum ParentKey {
    /// An empty root.
    Empty,
    /// A base image, by its diff_ids: known before anything was pulled. Only in definition keys.
    Base(BaseId),
    /// Another step's definition key.
    Definition(StepKey),
    /// What the parent left, without times.
    Content(ContentDigest),
    /// `COPY --link`: whatever is below.
    Independent,
}

/// One input of a step, in the order of the step's sources and mounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum InputKey {
    /// Content that was selected.
    Content(ContentDigest),
    /// The selector applied to what a step leaves, by that step's definition key.
    Definition(StepKey),
    /// The selector applied to a base image, by its diff_ids.
    Base(BaseId),
    /// Nothing to read.
    Nothing,
}

/// Settings of the build that steps see.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    /// Names of `--add-host`; addresses are not part of the key.
    pub(crate) extra_hosts: Vec<(String, String)>,
    /// `--shm-size`
    pub(crate) shm_size: Option<u64>,
    /// `--ulimit`
    pub(crate) ulimits: Vec<(String, u64, u64)>,
    /// `SOURCE_DATE_EPOCH`: the time of directories that WORKDIR makes.
    pub(crate) source_date_epoch: Option<i64>,
}

impl Settings {
    pub(crate) fn of(options: &BuildOptions, source_date_epoch: Option<i64>) -> Self {
        Self {
            extra_hosts: options.extra_hosts.clone(),
            shm_size: options.shm_size,
            ulimits: options.ulimits.clone(),
            source_date_epoch,
        }
    }
}

/// The key of `step` below `parent` with `inputs`.
pub(crate) fn step_key(
    step: &Step,
    parent: &ParentKey,
    inputs: &[InputKey],
    settings: &Settings,
) -> StepKey {
    let mut key = KeyEncoder::new("step", KEY_VERSION);
    encode_parent(&mut key, parent);
    key.text("platform", &step.platform.to_string());
    match &step.operation {
        Operation::Run(run) => encode_run(&mut key, run, settings),
        Operation::Copy(copy) => encode_copy(&mut key, copy),
        Operation::Workdir { path, owner } => {
            key.text("instruction", "WORKDIR");
            key.text("path", path);
            key.text("owner", owner);
            key.optional_text(
                "mtime",
                settings
                    .source_date_epoch
                    .map(|time| time.to_string())
                    .as_deref(),
            );
        }
        Operation::Image(_) => {
            key.text("instruction", "FROM");
        }
    }
    key.number("inputs", inputs.len() as u64);
    for input in inputs {
        match input {
            InputKey::Content(digest) => key.bytes("content", &digest.0),
            InputKey::Definition(definition) => key.bytes("definition", definition.as_bytes()),
            InputKey::Base(chain) => key.text("base", &chain.0),
            InputKey::Nothing => key.text("nothing", ""),
        };
    }
    key.finish()
}

fn encode_parent(key: &mut KeyEncoder, parent: &ParentKey) {
    match parent {
        ParentKey::Empty => key.text("parent-empty", ""),
        ParentKey::Base(chain) => key.text("parent-base", &chain.0),
        ParentKey::Definition(definition) => key.bytes("parent-definition", definition.as_bytes()),
        ParentKey::Content(content) => key.bytes("parent-content", &content.0),
        ParentKey::Independent => key.text("parent-independent", ""),
    };
}

fn encode_run(key: &mut KeyEncoder, run: &Run, settings: &Settings) {
    key.text("instruction", "RUN");
    texts(key, "argv", run.argv.iter().map(String::as_str));
    texts(
        key,
        "script",
        run.scripts
            .iter()
            .flat_map(|script| [script.name.as_str(), script.content.as_str()]),
    );
    texts(
        key,
        "environment",
        run.environment
            .iter()
            .flat_map(|(name, value)| [name.as_str(), value.as_str()]),
    );
    key.text("directory", &run.working_directory);
    key.text("user", &run.user);
    key.text(
        "network",
        match run.network {
            Network::Default => "default",
            Network::None => "none",
            Network::Host => "host",
        },
    );
    key.text(
        "security",
        match run.security {
            Security::Sandbox => "sandbox",
            Security::Insecure => "insecure",
        },
    );
    key.text("hostname", &run.hostname);
    texts(
        key,
        "device",
        run.devices.iter().map(|device| device.name.as_str()),
    );
    texts(
        key,
        "extra-host",
        settings.extra_hosts.iter().map(|(name, _)| name.as_str()),
    );
    key.number("shm-size", settings.shm_size.unwrap_or(0));
    key.number("ulimits", settings.ulimits.len() as u64);
    for (name, soft, hard) in &settings.ulimits {
        key.text("ulimit", name);
        key.number("soft", *soft);
        key.number("hard", *hard);
    }
    key.number("mounts", run.mounts.len() as u64);
    for mount in &run.mounts {
        encode_mount(key, mount);
    }
}

/// A bind mount's source is not here: its content is an input. Cache contents, ids and sharing never count.
fn encode_mount(key: &mut KeyEncoder, mount: &Mount) {
    key.text("target", &mount.target);
    match &mount.kind {
        MountKind::Bind {
            is_read_only,
            source,
            ..
        } => {
            key.text("mount", "bind");
            key.number("read-only", u64::from(*is_read_only));
            key.text("source", source);
        }
        MountKind::Cache {
            is_read_only,
            sharing,
            ..
        } => {
            key.text("mount", "cache");
            key.number("read-only", u64::from(*is_read_only));
            debug_assert!(matches!(
                sharing,
                Sharing::Shared | Sharing::Private | Sharing::Locked
            ));
        }
        MountKind::Tmpfs { size, is_read_only } => {
            key.text("mount", "tmpfs");
            key.number("size", size.unwrap_or(0));
            key.number("read-only", u64::from(*is_read_only));
        }
        MountKind::Secret {
            id,
            environment,
            is_required,
            uid,
            gid,
            mode,
        } => {
            key.text("mount", "secret");
            key.text("id", id);
            key.text("environment", environment.as_deref().unwrap_or(""));
            attributes(key, *is_required, *uid, *gid, *mode);
        }
        MountKind::Ssh {
            id,
            is_required,
            uid,
            gid,
            mode,
        } => {
            key.text("mount", "ssh");
            key.text("id", id);
            attributes(key, *is_required, *uid, *gid, *mode);
        }
    }
}

fn attributes(key: &mut KeyEncoder, is_required: bool, uid: u32, gid: u32, mode: u32) {
    key.number("required", u64::from(is_required));
    key.number("uid", u64::from(uid));
    key.number("gid", u64::from(gid));
    key.number("mode", u64::from(mode));
}

fn encode_copy(key: &mut KeyEncoder, copy: &Copy) {
    key.text("instruction", copy.instruction);
    key.text("destination", &copy.destination);
    key.text("owner", copy.owner.as_deref().unwrap_or(""));
    key.number("has-owner", u64::from(copy.owner.is_some()));
    key.text(
        "mode",
        &copy
            .mode
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
    );
    key.number("link", u64::from(copy.is_linked));
    key.number("parents", u64::from(copy.keeps_parents));
    texts(key, "exclude", copy.exclude.iter().map(String::as_str));
    key.text(
        "unpack",
        match copy.unpack {
            Unpack::Never => "never",
            Unpack::Local => "local",
            Unpack::Always => "always",
        },
    );
    key.number("sources", copy.sources.len() as u64);
    for source in &copy.sources {
        match source {
            CopySource::Path(path) if copy.keeps_parents => {
                // `a/./b` and `a/b` name the same files, but the part before the pivot is not kept.
                let (root, pattern) = crate::select::split_pivot(path);
                key.text("path-root", &crate::select::clean(root));
                key.text("path", &crate::select::clean(pattern));
            }
            CopySource::Path(path) => {
                // `./a` and `a` mean the same files.
                key.text("path", &crate::select::clean(path));
            }
            CopySource::Inline(file) => {
                key.text("inline", &file.name);
                key.text("content", &file.content);
            }
            // What is there counts, not by which address it is reached: it is an input.
            CopySource::Url { .. } => {
                key.text("url", "");
            }
            CopySource::Git { .. } => {
                key.text("git", "");
            }
        }
    }
}

fn texts<'text>(key: &mut KeyEncoder, tag: &str, values: impl Iterator<Item = &'text str>) {
    let values: Vec<&str> = values.collect();
    key.number(tag, values.len() as u64);
    for value in values {
        key.text(tag, value);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rbuild_frontend::graph::{PlanOptions, Planned};
    use rbuild_frontend::source::Source;

    use super::*;

    /// The definition key of a Dockerfile's last step, whose parent and inputs are always the same.
    fn last_key(dockerfile: &str) -> StepKey {
        let program =
            rbuild_frontend::instructions::parse(&Source::new("Dockerfile", dockerfile.as_bytes()))
                .unwrap();
        let planned = rbuild_frontend::plan(&program, &PlanOptions::default(), &BTreeMap::new());
        let Planned::Ready(graph) = planned.unwrap() else {
            panic!("no base image is asked for")
        };
        let input = InputKey::Definition(StepKey([1; 32]));
        step_key(
            graph.steps.last().unwrap(),
            &ParentKey::Empty,
            &[input],
            &Settings::default(),
        )
    }

    #[test]
    fn a_pivot_is_part_of_the_key_and_the_spelling_is_not() {
        let copy = |text: &str| {
            last_key(&format!(
                "FROM scratch AS a\nCOPY x /x\nFROM scratch\nCOPY --from=a {text} /d/\n"
            ))
        };
        for (one, other, is_same) in [
            ("/a/b", "a//./b", true),
            ("/a/b", "/a/c", false),
            ("--parents /a/b", "--parents a//b", true),
            ("--parents /a/b", "--parents /a/./b", false),
            ("--parents /a/./b/c", "--parents /a/b/./c", false),
            ("--parents /a/./b", "--parents //a/././b", true),
            ("--parents /a/b", "/a/b", false),
        ] {
            assert_eq!(copy(one) == copy(other), is_same, "{one} and {other}");
        }
    }
}
