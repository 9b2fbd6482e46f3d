//! What a directory holds, after `--exclude` and the include pattern of `--parents`.
//!
//! Not recursive: how deep a tree is, is up to whoever made the image.

use rbuild_cache::ContentDigest;
use rbuild_frontend::pattern::{ParentMatch, PatternList};

use super::{SelectError, SourceTree};
use crate::tree::{Listing, TreeEntry, TreeEntryKind};

/// What of a directory is wanted.
#[derive(Debug)]
pub(super) struct Filter {
    /// `--parents`
    pub(super) include: Option<PatternList>,
    /// `--exclude`
    pub(super) exclude: Option<PatternList>,
}

impl Filter {
    /// Whether everything is wanted.
    pub(super) fn takes_all(&self) -> bool {
        self.include.is_none() && self.exclude.is_none()
    }
}

/// An entry that a walk meets.
#[derive(Clone, Debug)]
pub(super) struct Met<'walk> {
    /// Path relative to where the walk began.
    pub(super) path: &'walk [u8],
    /// What it is.
    pub(super) entry: TreeEntry,
    /// Content of a regular file.
    pub(super) digest: Option<ContentDigest>,
}

impl<'walk> Met<'walk> {
    /// Last component of its path.
    pub(super) fn name(&self) -> &'walk [u8] {
        let slash = self.path.iter().rposition(|&byte| byte == b'/');
        &self.path[slash.map_or(0, |slash| slash + 1)..]
    }
}

/// What is done with the entries of a walk. They come directory by directory, the names of each in byte order.
pub(super) trait Visit {
    /// A directory; what it holds follows.
    fn enter(&mut self, met: Met<'_>);

    /// That was all of the directory entered last.
    fn leave(&mut self);

    /// Anything but a directory.
    fn take(&mut self, met: Met<'_>);

    /// The digest of all entries of a directory that are no directories, before its first entry. True when that is enough:
    /// they do not follow then.
    fn take_files(&mut self, _digest: ContentDigest) -> bool {
        false
    }
}

/// Walks through everything below `directory` that is wanted. A directory that is not wanted itself but holds something
/// that is gets entered all the same.
pub(super) fn walk(
    tree: &dyn SourceTree,
    directory: &[u8],
    filter: &Filter,
    visit: &mut impl Visit,
) -> Result<(), SelectError> {
    let mut walk = Walk {
        tree,
        filter,
        visit,
        implied: Vec::new(),
    };
    walk.all(directory)
}

struct Walk<'walk, V> {
    tree: &'walk dyn SourceTree,
    filter: &'walk Filter,
    visit: &'walk mut V,
    /// Directories on the way down that were not entered yet, by path: nothing that is wanted was met in them.
    implied: Vec<(Vec<u8>, TreeEntry)>,
}

/// A directory on the way down.
struct Level<'walk> {
    listing: Box<dyn Listing + 'walk>,
    /// Index of the next entry to look at.
    next: usize,
    /// What is no directory was taken as a whole.
    is_digested: bool,
    /// Lengths of this directory's path in the tree, and of that relative to where the walk began.
    physical: usize,
    relative: usize,
    include: ParentMatch,
    exclude: ParentMatch,
}

impl<'walk, V: Visit> Walk<'walk, V> {
    fn all(&mut self, directory: &[u8]) -> Result<(), SelectError> {
        let (mut physical, mut relative) = (directory.to_vec(), Vec::new());
        let matches = (ParentMatch::default(), ParentMatch::default());
        let mut levels = vec![self.open(&physical, &relative, matches)?];
        while let Some(level) = levels.last_mut() {
            physical.truncate(level.physical);
            relative.truncate(level.relative);
            let index = level.next;
            level.next += 1;
            if index >= level.listing.count() {
                levels.pop();
                let is_top = levels.is_empty();
                if !is_top && self.implied.pop().is_none() {
                    self.visit.leave();
                }
                continue;
            }
            if level.is_digested && !level.listing.is_directory(index) {
                continue;
            }
            let name = level.listing.name(index);
            push(&mut physical, name);
            push(&mut relative, name);
            let below = self.entry(&physical, &relative, level, index)?;
            levels.extend(below);
        }
        Ok(())
    }

    /// Goes into a directory that the visitor has entered, or does not know of yet.
    fn open(
        &mut self,
        physical: &[u8],
        relative: &[u8],
        (include, exclude): (ParentMatch, ParentMatch),
    ) -> Result<Level<'walk>, SelectError> {
        let listing = self.tree.list(physical)?;
        let digest = listing.files_digest().filter(|_| self.filter.takes_all());
        Ok(Level {
            is_digested: digest.is_some_and(|digest| self.visit.take_files(digest)),
            listing,
            next: 0,
            physical: physical.len(),
            relative: relative.len(),
            include,
            exclude,
        })
    }

    /// Takes an entry if it is wanted; the level below it when it is a directory to be entered.
    fn entry(
        &mut self,
        physical: &[u8],
        relative: &[u8],
        level: &Level<'_>,
        index: usize,
    ) -> Result<Option<Level<'walk>>, SelectError> {
        let Filter { include, exclude } = self.filter;
        let (is_included, include) = test(include.as_ref(), relative, &level.include, true);
        let exceptions = exclude.as_ref().is_some_and(PatternList::has_exceptions);
        let (is_excluded, exclude) = test(exclude.as_ref(), relative, &level.exclude, false);
        let is_wanted = is_included && !is_excluded;
        if !level.listing.is_directory(index) {
            if is_wanted {
                let entry = level.listing.entry(index);
                let digest = match entry.kind {
                    TreeEntryKind::File(_) => Some(level.listing.content(index)?),
                    _ => None,
                };
                self.enter_implied();
                self.visit.take(Met {
                    path: relative,
                    entry,
                    digest,
                });
            }
            return Ok(None);
        }
        // An excluded directory is entered only when a later `!` pattern could bring something back.
        if is_excluded && !exceptions {
            return Ok(None);
        }
        self.implied
            .push((relative.to_vec(), level.listing.entry(index)));
        if is_wanted {
            self.enter_implied();
        }
        self.open(physical, relative, (include, exclude)).map(Some)
    }

    fn enter_implied(&mut self) {
        for (path, entry) in self.implied.drain(..) {
            self.visit.enter(Met {
                path: &path,
                entry,
                digest: None,
            });
        }
    }
}

fn push(path: &mut Vec<u8>, name: &[u8]) {
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
}

fn test(
    matcher: Option<&PatternList>,
    path: &[u8],
    parent: &ParentMatch,
    without: bool,
) -> (bool, ParentMatch) {
    matcher.map_or_else(
        || (without, ParentMatch::default()),
        |matcher| matcher.is_match_below(path, parent),
    )
}
