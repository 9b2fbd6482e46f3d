//! Mounts of a RUN in the reference's form, every value as written.

use std::convert::Infallible;

use rbuild_frontend::graph::Sharing;
use rbuild_frontend::instruction::MountRecord;
use rbuild_frontend::mount_options::MountOptions;
use serde_json::{Value, json};

/// What stands for the mounts of a RUN of which one can't be read.
pub(crate) const UNREADABLE: &str = "unreadable";

/// The mounts of one RUN.
pub(crate) fn all(records: &[MountRecord]) -> Value {
    let read = |record: &MountRecord| {
        MountOptions::read(&record.text, |value| Ok::<_, Infallible>(value.to_owned()))
    };
    let mounts: Result<Vec<_>, _> = records.iter().map(read).collect();
    mounts.map_or_else(
        |_| json!(UNREADABLE),
        |mounts| mounts.iter().map(one).collect(),
    )
}

fn one(mount: &MountOptions) -> Value {
    let sharing = mount.sharing.map_or("", |sharing| match sharing {
        Sharing::Shared => "shared",
        Sharing::Private => "private",
        Sharing::Locked => "locked",
    });
    json!({
        "Type": mount.kind.name(),
        "From": mount.from,
        "Source": mount.source,
        "Target": mount.target,
        "ReadOnly": mount.is_read_only(),
        "SizeLimit": mount.size,
        "CacheID": mount.id,
        "CacheSharing": sharing,
        "Required": mount.is_required,
        "Env": mount.environment,
        "Mode": mount.mode,
        "UID": mount.uid,
        "GID": mount.gid,
    })
}
