//! The parts of a step's key by name: what [`crate::keys`] encodes, in words.
//!
//! | name | value |
//! |---|---|
//! | `instruction` | the line as it is spelt |
//! | `command`, `destination`, `mount /x`, … | what the line spells out |
//! | `user`, `directory`, `network`, … | settings from other lines or the command line |
//! | `build arg NAME`, `variable NAME` | what the step sees |
//! | `files SOURCE` | digest of a file list |
//! | `parent`, `base image NAME`, `below` | content chain; digest of the image; the step below, for people |
//! | `ran-in` | the log of the run that made the record: build and step |
//! | `result-key` | the key that the parts led to |
//! | `link-key` | of a `COPY --link`: the key of its layer, whatever is below |
//!
//! Long values are shortened to their beginning and a digest.

use std::collections::BTreeSet;

use rbuild_cache::{ContentDigest, Entry, KeyEncoder, KeyPart};
use rbuild_frontend::graph::{
    Copy, CopySource, Input, Mount, MountKind, Network, Operation, Run, Security, Step, Unpack,
};

use crate::keys::{InputKey, Settings};
use crate::select::{SelectError, Selected};
use crate::solve::{Reading, sources};

/// The line as it is spelt.
pub(crate) const INSTRUCTION: &str = "instruction";

/// The content chain below.
pub(crate) const PARENT: &str = "parent";

/// Begins the name of the part with the base image's digest.
pub(crate) const BASE_IMAGE: &str = "base image ";

/// The step below, as people know it.
pub(crate) const BELOW: &str = "below";

/// Name of the log of the run that made the record.
pub(crate) const RAN_IN: &str = "ran-in";

/// The result key, for caches that the record is copied to when only its definition key is known.
pub(crate) const RESULT_KEY: &str = "result-key";

/// The key of the layer alone, whatever is below: of a `COPY --link`.
pub(crate) const LINK_KEY: &str = "link-key";

/// Begins the value of a part that must not be shown.
const HIDDEN: &str = "hidden:";

/// Longest value that is kept as it is.
const LONGEST_VALUE: usize = 160;

/// How much of a longer one is kept.
const SHORT_VALUE: usize = 60;

/// What kind of part a name means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PartName<'name> {
    Instruction,
    /// Seen in the line itself.
    Spelt,
    /// Comes from elsewhere.
    Setting,
    Argument(&'name str),
    Variable(&'name str),
    Files(&'name str),
    Parent,
    BaseImage,
    /// Not a part of the key.
    Bookkeeping,
}

impl<'name> PartName<'name> {
    pub(crate) fn parse(name: &'name str) -> Self {
        const SPELT: [&str; 11] = [
            "command",
            "script",
            "sources",
            "destination",
            "chown",
            "chmod",
            "link",
            "parents",
            "exclude",
            "unpack",
            "devices",
        ];
        if let Some(name) = name.strip_prefix("build arg ") {
            return Self::Argument(name);
        }
        if let Some(name) = name.strip_prefix("variable ") {
            return Self::Variable(name);
        }
        if let Some(source) = name.strip_prefix("files ") {
            return Self::Files(source);
        }
        match name {
            INSTRUCTION => Self::Instruction,
            PARENT => Self::Parent,
            BELOW | RAN_IN | RESULT_KEY | LINK_KEY => Self::Bookkeeping,
            _ if name.starts_with(BASE_IMAGE) => Self::BaseImage,
            _ if name.starts_with("stands-on-") => Self::Bookkeeping,
            _ if SPELT.contains(&name) => Self::Spelt,
            _ if name.starts_with("mount ") || name.starts_with("inline ") => Self::Spelt,
            _ => Self::Setting,
        }
    }
}

/// Whether a value stands for one that must not be shown.
pub(crate) fn is_hidden(value: &str) -> bool {
    value.starts_with(HIDDEN)
}

/// Whether a value is not all there: hidden, or shortened.
pub(crate) fn is_incomplete(value: &str) -> bool {
    is_hidden(value) || (value.contains("… (") && value.ends_with(')'))
}

/// What a step stands on.
pub(crate) struct Below {
    /// Content chain of its parent.
    pub(crate) content: ContentDigest,
    /// The base image, if it stands on one: name and digest.
    pub(crate) base: Option<(String, String)>,
    /// The step, if it stands on one.
    pub(crate) step: Option<String>,
}

/// All parts of a step's key but how it is spelt. What it reads is in `inputs`, resolved.
pub(crate) fn of_step(
    step: &Step,
    below: &Below,
    inputs: &[(Reading, InputKey)],
    settings: &Settings,
    arguments: &BTreeSet<String>,
) -> Vec<KeyPart> {
    let mut parts = Parts::default();
    parts.add("platform", &step.platform.to_string());
    match &step.operation {
        Operation::Run(run) => of_run(&mut parts, run, settings, arguments),
        Operation::Copy(copy) => of_copy(&mut parts, copy),
        Operation::Workdir { path, owner } => {
            parts.add("directory", path);
            parts.add("user", owner);
            if let Some(time) = settings.source_date_epoch {
                parts.add("SOURCE_DATE_EPOCH", &time.to_string());
            }
        }
        Operation::Image(_) => {}
    }
    for (name, digest) in file_digests(&step.operation, inputs) {
        parts.add(&format!("files {name}"), &digest);
    }
    parts.add(PARENT, &below.content.to_string());
    if let Some((name, digest)) = &below.base {
        parts.add(&format!("{BASE_IMAGE}{name}"), digest);
    }
    if let Some(step) = &below.step {
        parts.add(BELOW, step);
    }
    parts.0
}

#[derive(Default)]
struct Parts(Vec<KeyPart>);

impl Parts {
    /// Absent and empty are the same to a person.
    fn add(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            self.0.push(KeyPart::new(name, shorten(value)));
        }
    }

    fn list<'text>(&mut self, name: &str, values: impl Iterator<Item = &'text str>) {
        let values: Vec<&str> = values.collect();
        self.add(name, &values.join(" "));
    }
}

fn of_run(parts: &mut Parts, run: &Run, settings: &Settings, arguments: &BTreeSet<String>) {
    parts.list("command", run.argv.iter().map(String::as_str));
    let script = |script: &rbuild_frontend::graph::InlineFile| format!("{}\n", script.content);
    parts.add(
        "script",
        &run.scripts.iter().map(script).collect::<String>(),
    );
    for (name, value) in &run.environment {
        let kind = if arguments.contains(name) {
            "build arg"
        } else {
            "variable"
        };
        let value = if is_sensitive(name) {
            hide(value)
        } else {
            shorten(value)
        };
        parts.0.push(KeyPart::new(format!("{kind} {name}"), value));
    }
    parts.add("directory", &run.working_directory);
    parts.add("user", &run.user);
    parts.add(
        "network",
        match run.network {
            Network::Default => "",
            Network::None => "none",
            Network::Host => "host",
        },
    );
    if run.security == Security::Insecure {
        parts.add("security", "insecure");
    }
    parts.add("host name", &run.hostname);
    parts.list(
        "devices",
        run.devices.iter().map(|device| device.name.as_str()),
    );
    parts.list(
        "added hosts",
        settings.extra_hosts.iter().map(|(name, _)| name.as_str()),
    );
    if let Some(size) = settings.shm_size {
        parts.add("size of /dev/shm", &size.to_string());
    }
    for (name, soft, hard) in &settings.ulimits {
        parts.add(&format!("ulimit {name}"), &format!("{soft}:{hard}"));
    }
    for mount in &run.mounts {
        let (name, value) = mount_words(mount);
        parts.add(&name, &value);
    }
}

/// Ids of secrets, never their values; ids and sharing of cache mounts are in no key.
fn mount_words(mount: &Mount) -> (String, String) {
    let read_only = |is_read_only: bool| if is_read_only { " read-only" } else { "" };
    let (place, words) = match &mount.kind {
        MountKind::Bind {
            source,
            is_read_only,
            ..
        } => ("", format!("bind {source}{}", read_only(*is_read_only))),
        MountKind::Cache { is_read_only, .. } => ("", format!("cache{}", read_only(*is_read_only))),
        MountKind::Tmpfs { size, is_read_only } => {
            let size = size.map(|size| format!(" size {size}")).unwrap_or_default();
            ("", format!("tmpfs{size}{}", read_only(*is_read_only)))
        }
        MountKind::Secret {
            id,
            environment,
            is_required,
            uid,
            gid,
            mode,
        } => {
            let variable = environment.as_deref().unwrap_or("-");
            (
                id.as_str(),
                format!("secret {id} {variable} {is_required} {uid}:{gid} {mode:o}"),
            )
        }
        MountKind::Ssh {
            id,
            is_required,
            uid,
            gid,
            mode,
        } => (
            id.as_str(),
            format!("ssh {id} {is_required} {uid}:{gid} {mode:o}"),
        ),
    };
    let target = if mount.target.is_empty() {
        place
    } else {
        &mount.target
    };
    (format!("mount {target}"), words)
}

fn of_copy(parts: &mut Parts, copy: &Copy) {
    let sources: Vec<String> = copy.sources.iter().map(source_words).collect();
    parts.list("sources", sources.iter().map(String::as_str));
    parts.add("destination", &copy.destination);
    parts.add("chown", copy.owner.as_deref().unwrap_or_default());
    let mode = copy.mode.as_ref().map(ToString::to_string);
    parts.add("chmod", &mode.unwrap_or_default());
    for (name, is_on) in [("link", copy.is_linked), ("parents", copy.keeps_parents)] {
        if is_on {
            parts.add(name, "yes");
        }
    }
    parts.list("exclude", copy.exclude.iter().map(String::as_str));
    parts.add(
        "unpack",
        match copy.unpack {
            Unpack::Never => "",
            Unpack::Local => "local",
            Unpack::Always => "always",
        },
    );
    for source in &copy.sources {
        if let CopySource::Inline(file) = source {
            parts.add(&format!("inline {}", file.name), &file.content);
        }
    }
}

fn source_words(source: &CopySource) -> String {
    match source {
        CopySource::Path(path) => path.clone(),
        CopySource::Inline(file) => file.name.clone(),
        CopySource::Url { url, checksum } => [
            without_password(url).as_str(),
            checksum.as_deref().unwrap_or_default(),
        ]
        .join(" "),
        CopySource::Git {
            reference,
            checksum,
            ..
        } => [
            without_password(reference).as_str(),
            checksum.as_deref().unwrap_or_default(),
        ]
        .join(" "),
    }
}

/// `https://user:password@host/` without what stands before the `@`, nor a query, which may be a signature.
pub(crate) fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let (place, path) = rest
        .find('/')
        .map_or((rest, ""), |slash| rest.split_at(slash));
    let host = place.rsplit('@').next().unwrap_or(place);
    let path = path.split('?').next().unwrap_or(path);
    format!("{scheme}://{host}{path}")
}

/// What a step reads, by the words that name it, with the digest of its list.
fn file_digests(operation: &Operation, inputs: &[(Reading, InputKey)]) -> Vec<(String, String)> {
    let urls: Vec<String> = match operation {
        Operation::Copy(copy) => copy.sources.iter().map(source_words).collect(),
        _ => Vec::new(),
    };
    let mut found = Vec::new();
    let places = sources(operation).into_iter().zip(inputs).enumerate();
    for (position, ((input, request), (reading, key))) in places {
        match reading {
            Reading::Context(selected) => {
                let Some(digest) = list_digest(selected, key) else {
                    continue;
                };
                let path = request.map_or("", |request| request.source);
                let from = match input {
                    Input::NamedContext(name) => format!(" of {name}"),
                    _ => String::new(),
                };
                found.push((format!("{path}{from}"), digest.to_string()));
            }
            Reading::Source(_) | Reading::Fetched { .. } => {
                let url = urls.get(position).cloned().unwrap_or_default();
                if let InputKey::Content(digest) = key {
                    found.push((url, digest.to_string()));
                }
            }
            Reading::Nothing | Reading::Step(_) => {}
        }
    }
    found
}

/// What a file list is kept under: what was selected, as its key has it, and where it lies.
pub(crate) fn list_digest(selected: &[Selected], key: &InputKey) -> Option<ContentDigest> {
    let InputKey::Content(selection) = key else {
        return None;
    };
    let mut key = KeyEncoder::new("file list", 1);
    key.bytes("selection", &selection.0);
    for one in selected {
        key.bytes("path", &one.path);
    }
    Some(ContentDigest(*key.finish().as_bytes()))
}

/// The entries of a file list, in byte order of their paths in what they are read from.
pub(crate) fn listed_entries(selected: &[Selected]) -> Result<Vec<Entry>, SelectError> {
    let mut entries = Vec::new();
    for one in selected {
        one.each_item(|item| {
            let path = match (one.path.is_empty(), item.path.is_empty()) {
                (true, _) => item.path,
                (false, true) => one.path.clone(),
                (false, false) => [&one.path[..], b"/", &item.path].concat(),
            };
            entries.push(crate::convert::selection_entry(
                &path,
                item.entry,
                item.digest,
            ));
        })?;
    }
    entries.sort_unstable_by(|left, right| left.path.cmp(&right.path));
    Ok(entries)
}

/// A digest as a part's value has it.
pub(crate) fn parse_digest(text: &str) -> Option<ContentDigest> {
    let mut digest = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (byte, position) in digest.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&text[position..position + 2], 16).ok()?;
    }
    Some(ContentDigest(digest))
}

fn shorten(value: &str) -> String {
    if value.len() <= LONGEST_VALUE && !value.contains(char::is_control) {
        return value.to_owned();
    }
    let start: String = value
        .chars()
        .take_while(|letter| !letter.is_control())
        .take(SHORT_VALUE)
        .collect();
    let digest = ContentDigest::of_bytes(value.as_bytes()).to_string();
    format!("{start}… ({} bytes, digest {})", value.len(), &digest[..12])
}

/// Whether a variable's value is kept from the store: wider than the check, since nobody is bothered by it.
pub(crate) fn is_sensitive(name: &str) -> bool {
    const WORDS: [&str; 5] = ["password", "passwd", "secret", "token", "credential"];
    let lower = name.to_lowercase();
    rbuild_frontend::checks::looks_secret(name) || WORDS.iter().any(|word| lower.contains(word))
}

/// Enough to see a change most of the time; far too little to find the value.
fn hide(value: &str) -> String {
    let digest = ContentDigest::of_bytes(value.as_bytes()).to_string();
    format!("{HIDDEN}{}", &digest[..4])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_lose_their_passwords() {
        for (url, expected) in [
            ("https://a:b@host/x?sig=1", "https://host/x"),
            ("https://host/x@y", "https://host/x@y"),
            ("https://token@host", "https://host"),
            ("git@host:x", "git@host:x"),
        ] {
            assert_eq!(without_password(url), expected, "{url}");
        }
    }

    #[test]
    fn long_values_are_shortened_and_still_differ() {
        let long = |end: &str| shorten(&format!("{}{end}", "x".repeat(500)));
        assert_ne!(long("a"), long("b"));
        assert!(long("a").len() < LONGEST_VALUE, "{}", long("a"));
        assert_eq!(shorten("short"), "short");
        assert!(!shorten("two\nlines").contains('\n'));
        assert!(!hide("hunter2").contains("hunter2"));
    }

    #[test]
    fn names_of_secrets_are_known() {
        for (name, expected) in [
            ("NPM_TOKEN", true),
            ("DBPASSWORD", true),
            ("API_KEY", true),
            ("VERSION", false),
            ("AUTHOR", false),
            ("KEYBOARD", false),
        ] {
            assert_eq!(is_sensitive(name), expected, "{name}");
        }
    }

    #[test]
    fn digests_are_read_back() {
        let digest = ContentDigest::of_bytes(b"x");
        assert_eq!(parse_digest(&digest.to_string()), Some(digest));
        assert_eq!(parse_digest("x"), None);
        assert_eq!(parse_digest(&"é".repeat(32)), None);
    }
}
