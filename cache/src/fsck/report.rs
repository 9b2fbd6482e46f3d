//! What checking a store found.

use std::path::PathBuf;

use oci_spec::image::Digest;

use crate::db::RawPacked;
use crate::layer::{Layer, SnapshotId};

/// What was looked at, what is wrong, and what lies about.
#[derive(Debug, Default)]
pub struct FsckReport {
    /// How much was looked at.
    pub checked: Checked,
    /// What was found on the disk and is, or would be, in the new database of a repair.
    pub recovered: Recovered,
    /// What is wrong.
    pub damages: Vec<Damage>,
    /// What crashes left, and what nobody reads: no damage.
    pub leftovers: Vec<Leftover>,
    /// Processes that work on the store meanwhile.
    pub running: usize,
    /// What a repair does about leftovers that are rows.
    pub(crate) gone: Vec<Cure>,
}

/// How much was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Snapshots that were read.
    pub snapshots: usize,
    /// Bytes in them, as tars.
    pub snapshot_bytes: u64,
    /// Blobs that were read.
    pub blobs: usize,
    /// Bytes in them.
    pub blob_bytes: u64,
    /// Images.
    pub images: usize,
    /// Step records.
    pub steps: usize,
}

/// What proves itself, and was not in what could be read of the database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Snapshots.
    pub snapshots: usize,
    /// Blobs.
    pub blobs: usize,
    /// Images, by the name that was left of them.
    pub images: usize,
}

/// What sort of thing is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DamageKind {
    /// `VERSION`, or one of the store's directories.
    Layout,
    /// The database.
    Database,
    /// A layer's directory, or its rows.
    Snapshot,
    /// A blob.
    Blob,
    /// An image.
    Image,
    /// A name of an image.
    Tag,
    /// The record of a step.
    Step,
    /// A note of where something is to be had.
    Note,
}

impl DamageKind {
    /// As it is written in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Layout => "store",
            Self::Database => "database",
            Self::Snapshot => "snapshot",
            Self::Blob => "blob",
            Self::Image => "image",
            Self::Tag => "name",
            Self::Step => "step",
            Self::Note => "note",
        }
    }
}

/// One damaged thing.
#[derive(Debug)]
pub struct Damage {
    /// What sort of thing.
    pub kind: DamageKind,
    /// A digest, a snapshot's name, an image's name.
    pub id: String,
    /// Where it is, or should be.
    pub path: PathBuf,
    /// What is wrong with it, at least one.
    pub problems: Vec<Problem>,
    /// What can't be had without it.
    pub needed_by: Vec<Dependant>,
    /// How it comes back after a repair.
    pub healing: Healing,
    /// The repair was done.
    pub is_repaired: bool,
    /// What a repair does.
    pub(crate) cure: Cure,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The file or directory is not there.
    #[error("is missing")]
    Missing,
    /// Something else has its name.
    #[error("is not a directory")]
    NoDirectory,
    /// A file has another size.
    #[error("has {actual} bytes, not {expected}")]
    Size {
        /// What it should have.
        expected: u64,
        /// What it has.
        actual: u64,
    },
    /// A file has other bytes.
    #[error("holds other bytes: their digest is `{actual}`")]
    Digest {
        /// Of what is there.
        actual: Digest,
    },
    /// It can't be read.
    #[error("cannot be read: {reason}")]
    Unreadable {
        /// Why.
        reason: String,
    },
    /// The entry table's checksum or shape is wrong.
    #[error("its entry table in `db.sqlite` is damaged")]
    EntryTable,
    /// A row holds what rbuild never wrote.
    #[error("its row in `db.sqlite` is damaged: {what}")]
    Row {
        /// Which value.
        what: &'static str,
    },
    /// A file of a snapshot is not as it was recorded.
    #[error("`{path}` {what}")]
    Entry {
        /// In the layer.
        path: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// More of the same.
    #[error("and {count} more")]
    More {
        /// How many.
        count: usize,
    },
    /// What packing gives now is another layer.
    #[error("it would be packed as another layer, with the diff_id `{actual}`")]
    DiffId {
        /// What it would be.
        actual: String,
    },
    /// An image or name lacks something.
    #[error("needs {what} `{id}`, which is missing or damaged")]
    Needs {
        /// What sort of thing.
        what: &'static str,
        /// Its digest or name.
        id: String,
    },
    /// An image's config says something else than its row.
    #[error("its config lists other layers than the store has for it")]
    OtherLayers,
    /// The version file.
    #[error("does not hold the store's format")]
    Version,
    /// What SQLite says.
    #[error("{text}")]
    Database {
        /// Its words.
        text: String,
    },
    /// Tables that a new database has nothing of.
    #[error("nothing can be kept of `{}`: {reason}", tables.join("`, `"))]
    Tables {
        /// The tables.
        tables: Vec<String>,
        /// Why.
        reason: String,
    },
    /// What a new database lacks.
    #[error("of `{table}`, {kept} rows can be kept: {reason}")]
    Table {
        /// The table.
        table: String,
        /// Rows that can be kept.
        kept: usize,
        /// Why not all.
        reason: String,
    },
}

/// What needs a damaged thing.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dependant {
    /// An image, by its names, or by its id where it has none.
    Image(String),
    /// The result of a step, by its title.
    Step(String),
    /// What was kept of a failed step, by its title.
    Kept(String),
}

/// How a thing comes back once a repair has taken the damaged one away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Healing {
    /// It is written anew from what is whole: nothing is lost.
    Mended,
    /// The next build that needs it runs the step.
    Run,
    /// The next build that needs it pulls it, from one of these places.
    Pull(Vec<String>),
    /// The next export packs it.
    Pack,
    /// The image has to be built or pulled again.
    Build,
    /// Nothing needs it.
    Needless,
}

/// What sort of thing lies about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LeftoverKind {
    /// Unfinished work of a process that died: removed by the next command.
    Work,
    /// A lock that nobody holds: removed by the next command.
    Lock,
    /// What was not on the disk when the machine went down: dropped by the next command.
    Unsynced,
    /// A file or directory that no row names: removed by pruning.
    Orphan,
    /// A row whose files are gone, and no image with a name needs them: a miss, made again when it is needed; or a cache
    /// mount, which begins empty; or what was kept of a failed step, or something that it stands on.
    Gone,
    /// Something that no rbuild put there; it stays.
    Foreign,
}

impl LeftoverKind {
    /// As it is written in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Work => "work of a process that died",
            Self::Lock => "lock that nobody holds",
            Self::Unsynced => "not yet on the disk when the machine went down",
            Self::Orphan => "in no table, never read",
            Self::Gone => "only noted, its files are gone",
            Self::Foreign => "not rbuild's",
        }
    }
}

/// Something that lies about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    /// What sort of thing.
    pub kind: LeftoverKind,
    /// Where.
    pub path: PathBuf,
    /// A repair removed it.
    pub is_removed: bool,
}

/// What a repair does about a damage.
#[derive(Debug)]
pub(crate) enum Cure {
    /// It is done where it was found.
    Done,
    DropSnapshot(SnapshotId),
    /// Name of a row that names no snapshot.
    DropLayerRow(String),
    /// The row and the entry table anew.
    WriteLayer(Box<Layer>, Vec<u8>),
    DropBlob(Digest),
    /// The row anew, with the file's size.
    WriteBlob(Digest, u64),
    DropBlobRow(String),
    DropImage(String),
    DropTag(String),
    DropRecord(i64),
    DropReference(String),
    DropPacked(RawPacked),
    DropOriginal(String),
    DropMount(String),
    DropKept(String),
}

impl FsckReport {
    /// True when nothing is wrong, or is not any more.
    pub fn is_whole(&self) -> bool {
        self.damages.iter().all(|damage| damage.is_repaired)
    }
}
