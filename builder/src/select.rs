//! Which files a `COPY`, `ADD` or bind mount means: paths and wildcards resolved inside a [`SourceTree`].
//!
//! The result names physical paths only (every symlink followed here, inside the root), so that whoever copies
//! them need not follow any. The same selection gives the step's input digest and the list of what is copied.

mod pattern_walk;
mod resolve;

use rbuild_cache::{ContentDigest, Entry, KeyEncoder, SelectionDigest};
use rbuild_frontend::glob::{self, GlobError};
use rbuild_frontend::pattern::{PatternError, PatternList};

use crate::tree::{SourceTree, TreeEntry, TreeEntryKind, TreeError, display, join};

/// Why a selection failed.
#[derive(Debug, thiserror::Error)]
pub enum SelectError {
    /// A path without wildcards does not exist.
    #[error("`{path}` not found in {tree}")]
    NotFound {
        /// Path as written.
        path: String,
        /// Where it was looked for.
        tree: String,
    },
    /// More symlinks than any real tree has.
    #[error("too many levels of symbolic links in `{path}` in {tree}")]
    SymlinkLoop {
        /// Path as written.
        path: String,
        /// Where.
        tree: String,
    },
    /// `--exclude` or `--parents` holds a pattern that is none.
    #[error("invalid pattern `{pattern}`")]
    Pattern {
        /// As written.
        pattern: String,
        /// The cause.
        #[source]
        source: PatternError,
    },
    /// A wildcard in a source is none.
    #[error("invalid wildcard in `{path}`")]
    Wildcard {
        /// As written.
        path: String,
        /// The cause.
        #[source]
        source: GlobError,
    },
    /// The tree could not be read.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

/// What is asked for: the parts of a `COPY` that decide which files it means.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'request> {
    /// Path or wildcard as expanded.
    pub(crate) source: &'request str,
    /// `--parents`
    pub(crate) keeps_parents: bool,
    /// `--exclude`
    pub(crate) exclude: &'request [String],
}

/// One source that was found.
#[derive(Clone, Debug)]
pub(crate) struct Selected {
    /// Last component of the path as written or matched: the name inside a destination directory.
    pub(crate) name: Vec<u8>,
    /// Physical path in the tree.
    pub(crate) path: Vec<u8>,
    /// What is there.
    pub(crate) content: SelectedContent,
}

/// A file or the contents of a directory.
#[derive(Clone, Debug)]
pub(crate) enum SelectedContent {
    /// Anything but a directory.
    File(Item),
    /// What a directory holds, parents before children, in byte order.
    Directory(Vec<Item>),
}

/// One entry that is copied.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    /// Path relative to the selected directory; empty for a lone file.
    pub(crate) path: Vec<u8>,
    /// What it is.
    pub(crate) entry: TreeEntry,
    /// Content of a regular file.
    pub(crate) digest: Option<ContentDigest>,
}

/// Finds what `request` means. An empty list is a wildcard without a match, which is no error.
pub(crate) fn select(
    tree: &dyn SourceTree,
    request: &Request<'_>,
) -> Result<Vec<Selected>, SelectError> {
    let exclude = patterns(request.exclude)?;
    let (source, include) = if request.keeps_parents {
        let (root, pattern) = split_pivot(request.source);
        let pattern = clean(pattern);
        let is_required = !glob::has_wildcards(root) && !glob::has_wildcards(&pattern);
        if is_required {
            let required = format!("{root}/{pattern}");
            resolve::resolve(tree, clean(&required).as_bytes())?
                .filter(|path| tree.entry(path).is_ok_and(|entry| entry.is_some()))
                .ok_or_else(|| not_found(tree, request.source))?;
        }
        (root, Some(patterns(&[pattern])?.unwrap_or_default()))
    } else {
        (request.source, None)
    };
    let mut found = Vec::new();
    for path in resolve::expand_wildcards(tree, source)? {
        let physical = resolve::resolve(tree, &path)?.ok_or_else(|| not_found(tree, source))?;
        let entry = tree
            .entry(&physical)?
            .ok_or_else(|| not_found(tree, source))?;
        let content = if entry.is_directory() {
            SelectedContent::Directory(pattern_walk::descend(
                tree,
                &physical,
                include.as_ref(),
                exclude.as_ref(),
            )?)
        } else {
            let digest = content_of(tree, &physical, &entry)?;
            SelectedContent::File(Item {
                path: Vec::new(),
                entry,
                digest,
            })
        };
        let name = path
            .rsplit(|&byte| byte == b'/')
            .next()
            .unwrap_or_default()
            .to_vec();
        found.push(Selected {
            name,
            path: physical,
            content,
        });
    }
    Ok(found)
}

/// Digest of everything about a selection that can change what is copied.
pub(crate) fn digest(found: &[Selected]) -> ContentDigest {
    let mut key = KeyEncoder::new("selection", 1);
    for selected in found {
        match &selected.content {
            SelectedContent::File(item) => {
                key.bytes("file", &selected.name);
                key.bytes("content", &items_digest(std::slice::from_ref(item)).0);
            }
            SelectedContent::Directory(items) => {
                key.bytes("directory", &items_digest(items).0);
            }
        }
    }
    ContentDigest(*key.finish().as_bytes())
}

/// The walk goes directory by directory; the digest is over the byte order of whole paths.
fn items_digest(items: &[Item]) -> ContentDigest {
    let mut entries: Vec<Entry> = items.iter().map(crate::convert::selection_entry).collect();
    entries.sort_unstable_by(|left, right| left.path.cmp(&right.path));
    let mut selection = SelectionDigest::new();
    for entry in &entries {
        selection
            .add(entry)
            .expect("paths of one tree are distinct, and sorted just now");
    }
    selection.finish()
}

fn patterns(texts: &[String]) -> Result<Option<PatternList>, SelectError> {
    if texts.is_empty() {
        return Ok(None);
    }
    PatternList::new(texts)
        .map(Some)
        .map_err(|source| SelectError::Pattern {
            pattern: texts.join(" "),
            source,
        })
}

/// `a/./b` is the root `a` and the pattern `b`; without a pivot the root is `/`.
pub(crate) fn split_pivot(source: &str) -> (&str, &str) {
    source.split_once("/./").unwrap_or(("/", source))
}

/// Cleans a path lexically, relative to the root: no leading `/`, no `.`, no `..` (which can't leave the root).
pub(crate) fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    parts.join("/")
}

fn content_of(
    tree: &dyn SourceTree,
    path: &[u8],
    entry: &TreeEntry,
) -> Result<Option<ContentDigest>, SelectError> {
    match entry.kind {
        TreeEntryKind::File(_) => Ok(Some(tree.content(path)?)),
        _ => Ok(None),
    }
}

fn not_found(tree: &dyn SourceTree, path: &str) -> SelectError {
    SelectError::NotFound {
        path: format!("/{}", clean(path)),
        tree: tree.title(),
    }
}
