//! Trees that steps read from: a build context, or the root file system of a stage.
//!
//! [`SourceTree`] is what [`crate::select`] needs of either. Paths are bytes relative to the root, without a
//! leading `/`; the empty path is the root. No method follows a symlink: resolving is the selection's work, so that
//! it is done once and inside the root for every kind of tree.

pub(crate) mod directory;
pub(crate) mod layered;
mod read_ahead;

use rbuild_cache::ContentDigest;

/// What a tree knows of one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TreeEntry {
    /// Type.
    pub(crate) kind: TreeEntryKind,
    /// Permission bits with setuid, setgid and sticky.
    pub(crate) mode: u32,
    /// Owner.
    pub(crate) uid: u32,
    /// Group.
    pub(crate) gid: u32,
    /// Kept extended attributes in byte order of their names.
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// The type of a [`TreeEntry`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TreeEntryKind {
    /// A directory.
    Directory,
    /// A regular file of this size.
    File(u64),
    /// A symbolic link with this text.
    Symlink(Vec<u8>),
    /// A character device.
    CharDevice(u32, u32),
    /// A block device.
    BlockDevice(u32, u32),
    /// A fifo.
    Fifo,
    /// A socket.
    Socket,
}

impl TreeEntry {
    pub(crate) fn is_directory(&self) -> bool {
        self.kind == TreeEntryKind::Directory
    }
}

/// Why a tree could not be read.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// The host refused.
    #[error("cannot read `{path}`")]
    Read {
        /// Path as the user knows it.
        path: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The runner could not read it.
    #[error(transparent)]
    File(#[from] rbuild_runner::root::FileError),
    /// The store's table of a layer could not be read.
    #[error("cannot read the entry table of a layer")]
    Table(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A readable tree.
pub(crate) trait SourceTree: Send + Sync + std::fmt::Debug {
    /// The entry at `path`, none when there is none or when it is hidden (ignored). Parents must be directories.
    fn entry(&self, path: &[u8]) -> Result<Option<TreeEntry>, TreeError>;

    /// What a directory holds, as often as it is asked within a build; nothing when there is none.
    fn list(&self, directory: &[u8]) -> Result<Box<dyn Listing + '_>, TreeError>;

    /// Digest of a regular file's content.
    fn content(&self, path: &[u8]) -> Result<ContentDigest, TreeError>;

    /// Says that everything below `directory` will be asked for, contents too. May be used to read it on all CPUs.
    fn read_ahead(&self, _directory: &[u8]) {}

    /// What this tree is called in messages: `the build context`, `stage build`.
    fn title(&self) -> String;
}

/// What a directory holds, without hidden entries, by position in byte order of the names.
pub(crate) trait Listing {
    /// How many there are.
    fn count(&self) -> usize;

    /// The name of an entry.
    fn name(&self, index: usize) -> &[u8];

    /// Whether it is a directory.
    fn is_directory(&self, index: usize) -> bool;

    /// All about it.
    fn entry(&self, index: usize) -> TreeEntry;

    /// Digest of the content of a regular file.
    fn content(&self, index: usize) -> Result<ContentDigest, TreeError>;

    /// Digest of all entries that are no directories; none where it was not made ahead.
    fn files_digest(&self) -> Option<ContentDigest> {
        None
    }
}

/// `directory/name`, or `name` in the root.
pub(crate) fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() {
        return name.to_vec();
    }
    [directory, b"/", name].concat()
}

/// The path for people.
pub(crate) fn display(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}
