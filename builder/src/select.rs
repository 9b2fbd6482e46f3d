//! Which files a `COPY`, `ADD` or bind mount means: paths and wildcards resolved inside a [`SourceTree`].
//!
//! The result names physical paths only (every symlink followed here, inside the root), so that whoever copies
//! them need not follow any. The same selection gives the step's input digest and the list of what is copied: the
//! digest at once, the list when it is asked for, which a cached step never does. It is never held as a whole.

mod digest;
mod pattern_walk;
mod resolve;

use std::sync::Arc;

use rbuild_cache::{ContentDigest, KeyEncoder};
use rbuild_frontend::glob::{self, GlobError};
use rbuild_frontend::pattern::{PatternError, PatternList};
use rbuild_frontend::suggest;

use crate::tree::{SourceTree, TreeEntry, TreeEntryKind, TreeError, display, join};
use digest::Digesting;
use pattern_walk::{Filter, Met, Visit};

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
        /// What is there instead, under nearly that name.
        nearby: Option<String>,
        /// The path as written leads out of the tree, and was looked for at its root.
        leads_out: bool,
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
    /// What a directory holds.
    Directory(SelectedDirectory),
}

/// What a directory holds, as far as it is wanted.
#[derive(Clone, Debug)]
pub(crate) struct SelectedDirectory {
    tree: Arc<dyn SourceTree>,
    filter: Arc<Filter>,
    /// Of all that is wanted, names and contents.
    digest: ContentDigest,
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
    shared: &Arc<dyn SourceTree>,
    request: &Request<'_>,
) -> Result<Vec<Selected>, SelectError> {
    let tree = &**shared;
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
    let filter = Arc::new(Filter { include, exclude });
    let mut found = Vec::new();
    for path in resolve::expand_wildcards(tree, source)? {
        let physical = resolve::resolve(tree, &path)?.ok_or_else(|| not_found(tree, source))?;
        let entry = tree
            .entry(&physical)?
            .ok_or_else(|| not_found(tree, source))?;
        let content = if entry.is_directory() {
            let mut digesting = Digesting::new();
            // With patterns, who knows what will be looked at.
            if filter.takes_all() {
                tree.read_ahead(&physical);
            }
            pattern_walk::walk(tree, &physical, &filter, &mut digesting)?;
            SelectedContent::Directory(SelectedDirectory {
                tree: Arc::clone(shared),
                filter: Arc::clone(&filter),
                digest: digesting.finish(),
            })
        } else {
            let digest = match entry.kind {
                TreeEntryKind::File(_) => Some(tree.content(&physical)?),
                _ => None,
            };
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

impl Selected {
    /// Lists what is copied: parents before children, the names of a directory in byte order.
    pub(crate) fn each_item(&self, take: impl FnMut(Item)) -> Result<(), SelectError> {
        /// Makes items of what a walk meets.
        struct Items<F>(F);
        impl<F: FnMut(Item)> Visit for Items<F> {
            fn enter(&mut self, met: Met<'_>) {
                self.take(met);
            }

            fn leave(&mut self) {}

            fn take(&mut self, met: Met<'_>) {
                (self.0)(Item {
                    path: met.path.to_vec(),
                    entry: met.entry,
                    digest: met.digest,
                });
            }
        }
        let mut items = Items(take);
        match &self.content {
            SelectedContent::File(item) => (items.0)(item.clone()),
            SelectedContent::Directory(directory) => {
                let (tree, filter) = (&*directory.tree, &*directory.filter);
                pattern_walk::walk(tree, &self.path, filter, &mut items)?;
            }
        }
        Ok(())
    }
}

/// Digest of everything about a selection that can change what is copied.
pub(crate) fn digest(found: &[Selected]) -> ContentDigest {
    let contents = found.iter().map(|selected| match &selected.content {
        SelectedContent::File(item) => digest::of_item(item.entry.clone(), item.digest),
        SelectedContent::Directory(directory) => directory.digest,
    });
    encode(found, contents)
}

/// The digest that the selection would have had if files had the contents `read`: those of all its regular files, in the
/// order of [`Selected::each_item`].
pub(crate) fn digest_as_read(
    found: &[Selected],
    read: &mut dyn Iterator<Item = &[u8; 32]>,
) -> Result<ContentDigest, SelectError> {
    let mut contents = Vec::with_capacity(found.len());
    for selected in found {
        contents.push(match &selected.content {
            SelectedContent::File(item) => {
                let digest = item.digest.and_then(|_| read.next().copied());
                digest::of_item(item.entry.clone(), digest.map(ContentDigest))
            }
            SelectedContent::Directory(directory) => {
                let mut digesting = Digesting::of_contents(read);
                let (tree, filter) = (&*directory.tree, &*directory.filter);
                pattern_walk::walk(tree, &selected.path, filter, &mut digesting)?;
                digesting.finish()
            }
        });
    }
    Ok(encode(found, contents.into_iter()))
}

fn encode(found: &[Selected], contents: impl Iterator<Item = ContentDigest>) -> ContentDigest {
    let mut key = KeyEncoder::new("selection", 2);
    for (selected, content) in found.iter().zip(contents) {
        match &selected.content {
            SelectedContent::File(_) => {
                key.bytes("file", &selected.name);
                key.bytes("content", &content.0);
            }
            SelectedContent::Directory(_) => {
                key.bytes("directory", &content.0);
            }
        }
    }
    ContentDigest(*key.finish().as_bytes())
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

fn not_found(tree: &dyn SourceTree, path: &str) -> SelectError {
    let cleaned = clean(path);
    SelectError::NotFound {
        nearby: nearby(tree, &cleaned),
        leads_out: leads_out(path),
        path: format!("/{cleaned}"),
        tree: tree.title(),
    }
}

/// The path with its first missing name replaced by the one that was probably meant, if there is such a file.
fn nearby(tree: &dyn SourceTree, path: &str) -> Option<String> {
    let mut directory = String::new();
    let mut names = path.split('/').filter(|name| !name.is_empty());
    loop {
        let name = names.next()?;
        let below = join(directory.as_bytes(), name.as_bytes());
        if tree.entry(&below).ok()?.is_some() {
            directory = String::from_utf8(below).ok()?;
            continue;
        }
        let listing = tree.list(directory.as_bytes()).ok()?;
        let there: Vec<&str> = (0..listing.count())
            .filter_map(|index| std::str::from_utf8(listing.name(index)).ok())
            .collect();
        let meant = suggest::closest(name, there)?;
        let found = [directory.as_str(), meant]
            .into_iter()
            .chain(names)
            .filter(|name| !name.is_empty());
        let found = found.collect::<Vec<_>>().join("/");
        let is_there = tree
            .entry(found.as_bytes())
            .is_ok_and(|entry| entry.is_some());
        return is_there.then_some(found);
    }
}

/// Whether a path climbs above where it began.
fn leads_out(path: &str) -> bool {
    let mut depth = 0_i64;
    path.split('/').any(|name| {
        match name {
            ".." => depth -= 1,
            "" | "." => {}
            _ => depth += 1,
        }
        depth < 0
    })
}

#[cfg(test)]
mod tests;
