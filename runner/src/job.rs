//! What the spawner is asked to do, and what it answers: plain data that crosses a socket.
//!
//! A job is carried out by a worker process (see `spawner`), so everything it needs is in the message:
//! host paths, bytes, numbers. Image paths are bytes, relative to the image's root without a leading `/`, unless a
//! field says otherwise.

mod limits;
mod network;
mod shown;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use self::limits::{Limits, MemoryReport};
pub use self::network::{Network, NetworkJob};

/// An overlay to assemble: what a step sees as `/`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverlaySpec {
    /// Snapshot directories, lowest layer first. May be empty.
    pub lowers: Vec<PathBuf>,
    /// An existing empty directory of the caller's lease in which `upper`, `work` and `merged` are made.
    pub scratch: PathBuf,
}

/// How tightly a sandbox is held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Confinement {
    /// Docker's default capabilities, masked and read-only paths.
    #[default]
    Default,
    /// All capabilities, nothing masked.
    Insecure,
}

/// One file made for a sandbox, never part of the layer.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProvidedFile {
    /// Absolute path inside.
    pub target: Vec<u8>,
    /// Content.
    pub content: Vec<u8>,
    /// Mode.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// One mount of a `RUN` step; made in the order given. Mount points that had to be made for it are removed from
/// the layer afterwards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxMount {
    /// Absolute path inside.
    pub target: Vec<u8>,
    /// What is mounted.
    pub kind: SandboxMountKind,
}

/// What a [`SandboxMount`] mounts.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SandboxMountKind {
    /// A directory or file below a host directory.
    Directory {
        /// Host directory.
        root: PathBuf,
        /// Path below `root`, resolved inside it (symlinks included). Empty is `root` itself.
        source: Vec<u8>,
        /// How it is seen.
        access: Access,
    },
    /// A path in a chain of snapshots.
    Chain {
        /// Snapshot directories, lowest first.
        lowers: Vec<PathBuf>,
        /// Path in it, resolved inside it.
        source: Vec<u8>,
        /// How it is seen; never [`Access::Shared`].
        access: Access,
        /// An existing empty directory for this mount's own `upper` and `work`.
        scratch: PathBuf,
    },
    /// An empty tmpfs, mode 1777.
    Tmpfs {
        /// Limit in bytes.
        size: Option<u64>,
        /// Mounted read-only.
        is_read_only: bool,
    },
    /// A file on a tmpfs, mounted read-only, nodev, nosuid, and noexec unless its mode has an x.
    File {
        /// Content.
        content: Vec<u8>,
        /// Mode.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
    },
}

/// How a mounted directory is seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Access {
    /// Read-only.
    ReadOnly,
    /// Writes are visible to the command and thrown away: an overlay whose upper lies in this empty directory.
    Discarded(PathBuf),
    /// Writes reach the directory (cache mounts).
    Shared,
}

/// A soft and hard resource limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// Lower-case name as Docker spells it (`nofile`).
    pub name: String,
    /// Soft limit; `u64::MAX` is unlimited.
    pub soft: u64,
    /// Hard limit; `u64::MAX` is unlimited.
    pub hard: u64,
}

/// Runs one command in a sandbox and turns what it left into a layer.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunJob {
    /// The root file system.
    pub root: OverlaySpec,
    /// Command; `argv[0]` is looked up in `PATH` of `environment`, inside.
    pub argv: Vec<Vec<u8>>,
    /// Environment. `HOME` is added from passwd when it is missing.
    pub environment: Vec<(Vec<u8>, Vec<u8>)>,
    /// Absolute; created 0755 when missing.
    pub working_directory: Vec<u8>,
    /// `USER` text (`name`, `uid`, `name:group`, `uid:gid`), looked up in the image's passwd and group; empty is root.
    pub user: Vec<u8>,
    /// Host name.
    pub hostname: Vec<u8>,
    /// `/etc/hosts`, `/etc/resolv.conf` and the like, and `/dev/pipes` scripts.
    pub files: Vec<ProvidedFile>,
    /// In order.
    pub mounts: Vec<SandboxMount>,
    /// Network.
    pub network: Network,
    /// Confinement.
    pub confinement: Confinement,
    /// Size of `/dev/shm` in bytes.
    pub shm_size: u64,
    /// `--ulimit`
    pub rlimits: Vec<Rlimit>,
    /// `--memory` and its like.
    pub limits: Limits,
    /// True: seal the upper directory into a layer when the command succeeds. False: `rbuild run`.
    pub makes_layer: bool,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CommandStatus {
    /// It exited.
    Exited(i32),
    /// It was killed by a signal.
    Signaled(i32),
    /// The caller dropped the job's handle (Ctrl-C) and everything in the sandbox was killed.
    Cancelled,
}

/// What the kernel counted for a command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Microseconds in user mode.
    pub user_us: u64,
    /// Microseconds in kernel mode.
    pub system_us: u64,
    /// Largest resident set of one process, in KiB.
    pub max_rss_kib: u64,
}

/// Answer to a [`RunJob`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunOutcome {
    /// How it ended.
    pub status: CommandStatus,
    /// Its cost.
    pub usage: Usage,
    /// What its memory cgroup counted, when memory was limited.
    pub memory: Option<MemoryReport>,
    /// The layer, when the command succeeded and one was asked for. The upper directory is `scratch/upper`.
    pub layer: Option<SealedLayer>,
}

/// Changes files beneath a root without running anything in it, and seals the result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileJob {
    /// The root file system that is changed.
    pub root: OverlaySpec,
    /// Where [`FileOperation::Copy`] reads from.
    pub sources: Vec<SourceRoot>,
    /// In order.
    pub operations: Vec<FileOperation>,
}

/// A tree that files are copied from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SourceRoot {
    /// A host directory (build context, unpacked download).
    Directory(PathBuf),
    /// A chain of snapshots, lowest first, seen through a read-only overlay; `scratch` is an existing empty directory.
    Chain {
        /// Snapshot directories.
        lowers: Vec<PathBuf>,
        /// Working directory for the mount.
        scratch: PathBuf,
    },
}

/// One operation of a [`FileJob`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileOperation {
    /// `WORKDIR`: makes missing directories 0755, owned by `owner`; existing ones are left alone.
    MakeDirectory {
        /// Absolute.
        path: Vec<u8>,
        /// `user[:group]` looked up in the root as `USER` is; empty is root. An unknown name is root.
        owner: Vec<u8>,
        /// Modification time of what is made, in seconds since the epoch; none is now.
        mtime: Option<i64>,
    },
    /// `COPY`, `ADD`.
    Copy(CopyOperation),
}

/// Copies one selected source to a destination, by the rules of `COPY`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyOperation {
    /// Index in [`FileJob::sources`]; ignored for inline content.
    pub source: usize,
    /// What is copied.
    pub selection: Selection,
    /// Absolute path inside; a trailing `/` means a directory. Symlinks in it are followed inside the root.
    pub destination: Vec<u8>,
    /// Owner of everything copied and of parents that had to be made; none keeps each entry's own.
    pub owner: Option<OwnerSpec>,
    /// Mode of destination parents that had to be made; 0755 by default.
    pub parent_mode: u32,
    /// Unpack it when it is an archive.
    pub unpacks: bool,
}

/// `--chown`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OwnerSpec {
    /// Looked up in the destination root's passwd and group: `user[:group]`. Unknown names are root (as the
    /// reference does).
    Lookup(Vec<u8>),
    /// Numbers.
    Ids(u32, u32),
}

/// What a [`CopyOperation`] copies; paths were resolved before, so that no symlink is followed while reading.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Selection {
    /// One file, symlink or special file. It becomes `destination`, or `destination/name` when that is a directory.
    File {
        /// Path in the source root.
        path: Vec<u8>,
        /// Name to use inside a destination directory.
        name: Vec<u8>,
        /// Entry to make; `entry.path` is empty.
        entry: SelectedEntry,
    },
    /// A directory's contents.
    Directory {
        /// Path of the directory in the source root; empty is the root.
        path: Vec<u8>,
        /// What to copy beneath it, parents before children, in byte order. A directory takes the entry's metadata,
        /// also when it exists already.
        entries: Vec<SelectedEntry>,
        /// The destination takes the source directory's mtime.
        keeps_root_mtime: bool,
    },
    /// A file whose content is in the message.
    Inline {
        /// File name.
        name: Vec<u8>,
        /// Content.
        content: Vec<u8>,
        /// Mode.
        mode: u32,
        /// Modification time in seconds since the epoch; none is now.
        mtime: Option<i64>,
    },
}

/// One entry of a [`Selection`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SelectedEntry {
    /// Path relative to the selected directory.
    pub path: Vec<u8>,
    /// Permission bits to set in place of the source's (`--chmod` already applied); none keeps the source's.
    pub mode: Option<u32>,
    /// Owner to set in place of the source's: a context's files are root's.
    pub ids: Option<(u32, u32)>,
    /// What was selected: anything else under this name by now is refused. None takes whatever is there.
    pub expected: Option<Expected>,
}

/// What a [`SelectedEntry`] was when it was selected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expected {
    /// Permission bits of the source; of a symlink they say nothing.
    pub mode: u32,
    /// Type.
    pub kind: ExpectedKind,
}

/// The type of an [`Expected`] entry. A file's content is told by its digest, see [`FileOutcome::copied`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExpectedKind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link with this text.
    Symlink(Vec<u8>),
    /// A device, fifo or socket.
    Special,
}

/// Answer to a [`FileJob`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileOutcome {
    /// The layer. The upper directory is `scratch/upper`.
    pub layer: SealedLayer,
    /// BLAKE3 digests of the regular files as they were read while copying, in order of the selections' entries
    /// (files only): what is really in the layer, to be compared with what the key was made of.
    pub copied: Vec<[u8; 32]>,
    /// Users and groups that owners name and the image does not have: files went to root, or to the user's group.
    pub unknown_owners: Vec<String>,
}

/// What a step's upper directory holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedLayer {
    /// sha256 of the layer's uncompressed tar.
    pub diff_id: String,
    /// Size of that tar in bytes.
    pub tar_size: u64,
    /// All entries in tar order.
    pub entries: Vec<LayerEntry>,
}

/// One entry of a layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerEntry {
    /// Path relative to the root, no leading or trailing `/`; empty is the root itself.
    pub path: Vec<u8>,
    /// Type.
    pub kind: LayerEntryKind,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Seconds since the epoch.
    pub mtime: i64,
    /// Nanoseconds.
    pub mtime_nanos: u32,
    /// Kept extended attributes, by name, in byte order. Overlay's own are not here.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// The type of a [`LayerEntry`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LayerEntryKind {
    /// A directory; `is_opaque` hides what lower layers have in it.
    Directory {
        /// Opaque.
        is_opaque: bool,
    },
    /// A regular file.
    File {
        /// Size in bytes.
        size: u64,
        /// BLAKE3 of the content.
        digest: [u8; 32],
    },
    /// Another name of a file that stands earlier in this layer.
    HardLink {
        /// That file's path.
        target: Vec<u8>,
    },
    /// A symbolic link.
    Symlink {
        /// Its text.
        target: Vec<u8>,
    },
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A fifo.
    Fifo,
    /// A deletion of what lower layers have under this name.
    Whiteout,
}

/// Unpacks a layer blob into a snapshot directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnpackJob {
    /// The blob on this machine; its bytes have been verified.
    pub blob: PathBuf,
    /// An existing empty directory that receives the tree.
    pub target: PathBuf,
    /// The `diff_id` that the image's config promises.
    pub diff_id: String,
}

/// Answer to an [`UnpackJob`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnpackOutcome {
    /// Size of the uncompressed tar in bytes.
    pub tar_size: u64,
    /// Entries in byte order of their paths.
    pub entries: Vec<LayerEntry>,
    /// What it needs of lower layers: empty for a layer that stands alone.
    pub leans_on: LeansOn,
}

/// What a layer needs of the layers below it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeansOn {
    /// Directories that entries lie in but the layer does not name; made 0755 root for now. The empty path stands for
    /// an opaque root: completing hides each of the lower layers' files in `/` by itself.
    pub implied_parents: Vec<Vec<u8>>,
    /// Hard links whose target the layer does not hold: (path, target, the tar entry's metadata is the target's).
    pub lower_links: Vec<(Vec<u8>, Vec<u8>)>,
}

impl LeansOn {
    /// True when nothing is needed.
    pub fn is_empty(&self) -> bool {
        self.implied_parents.is_empty() && self.lower_links.is_empty()
    }
}

/// Completes an unpacked layer that leans on lower ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompleteJob {
    /// The unpacked directory, changed in place.
    pub target: PathBuf,
    /// Its entries.
    pub entries: Vec<LayerEntry>,
    /// What it needs.
    pub leans_on: LeansOn,
    /// Completed snapshots below it, lowest first.
    pub lowers: Vec<PathBuf>,
    /// An existing empty directory for mounts.
    pub scratch: PathBuf,
}

/// What a tree takes on its disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeSize {
    /// Bytes of files that have one name, and of directories.
    pub bytes: u64,
    /// Files of any type, directories too.
    pub files: u64,
    /// Names of files that have several, perhaps elsewhere: an inode counts once, however often it is here.
    pub linked: Vec<LinkedFile>,
}

/// One name of a file that has several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkedFile {
    /// `st_dev`.
    pub device: u64,
    /// `st_ino`.
    pub inode: u64,
    /// Bytes on the disk.
    pub bytes: u64,
}

/// Sets owner and mode of a directory of the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttributesJob {
    /// An existing directory.
    pub path: PathBuf,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
}

/// Moves a directory within the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MoveJob {
    /// The directory itself, to a name that is free. Someone else than its owner may not do that (its `..` is changed).
    Whole {
        /// Where it is.
        from: PathBuf,
        /// Where it is to be.
        to: PathBuf,
    },
    /// What is in it, into another existing directory, which also takes its owner and mode. One that is not there, or is no
    /// directory, has nothing in it.
    Content {
        /// What is emptied.
        from: PathBuf,
        /// What is filled.
        into: PathBuf,
    },
}

/// Writes the merged root file system of a chain somewhere outside the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportJob {
    /// Snapshot directories, lowest first.
    pub lowers: Vec<PathBuf>,
    /// An existing empty directory for mounts.
    pub scratch: PathBuf,
    /// Where to, and as what.
    pub form: ExportForm,
}

/// What an [`ExportJob`] writes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExportForm {
    /// A tar of the whole tree, to the file descriptor that comes with the job.
    Tar {
        /// Later times become this one (seconds since the epoch).
        clamp: Option<i64>,
    },
    /// Files in this existing host directory.
    Directory(PathBuf),
}

/// Packs a snapshot directory as a layer tar, written to the file descriptor that comes with the job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackJob {
    /// Snapshot directory.
    pub snapshot: PathBuf,
    /// The `diff_id` it must have when packed without clamping; anything else is corruption.
    pub diff_id: String,
    /// `rewrite-timestamp`: later times become this one (seconds since the epoch).
    pub clamp: Option<i64>,
    /// Compression.
    pub compression: Compression,
}

/// How a layer blob is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Compression {
    /// Plain tar.
    None,
    /// gzip, in blocks of a fixed size.
    Gzip {
        /// 1 to 9.
        level: u32,
    },
    /// zstd, multi-threaded format.
    Zstd {
        /// 1 to 22.
        level: i32,
    },
}

/// Answer to a [`PackJob`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackOutcome {
    /// sha256 of the bytes written.
    pub digest: String,
    /// Bytes written.
    pub size: u64,
    /// sha256 of the uncompressed tar: the `diff_id` of the packed layer (differs from the job's with `clamp`).
    pub diff_id: String,
}
