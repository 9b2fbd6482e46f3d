//! What a directory holds, after `--exclude` and the include pattern of `--parents`.
//!
//! Not recursive: how deep a tree is, is up to whoever made the image.

use std::sync::Arc;

use rbuild_frontend::pattern::{ParentMatch, PatternList};

use super::{Item, SelectError, SourceTree, content_of};

/// Lists everything below `directory` that is wanted. A directory that is not wanted itself but holds something
/// that is stands in the list as implied, just before it.
pub(super) fn descend(
    tree: &dyn SourceTree,
    directory: &[u8],
    include: Option<&PatternList>,
    exclude: Option<&PatternList>,
) -> Result<Vec<Item>, SelectError> {
    // With patterns, who knows what will be looked at.
    if include.is_none() && exclude.is_none() {
        tree.read_ahead(directory);
    }
    let mut walk = Walk {
        tree,
        include,
        exclude,
        items: Vec::new(),
        implied: Vec::new(),
    };
    walk.all(directory)?;
    Ok(walk.items)
}

struct Walk<'walk> {
    tree: &'walk dyn SourceTree,
    include: Option<&'walk PatternList>,
    exclude: Option<&'walk PatternList>,
    items: Vec<Item>,
    /// Directories on the way down that are not in `items` yet.
    implied: Vec<Item>,
}

/// A directory on the way down.
struct Level {
    names: Arc<[Vec<u8>]>,
    /// Index of the next name to look at.
    next: usize,
    /// Lengths of this directory's path in the tree, and of that relative to where the walk began.
    physical: usize,
    relative: usize,
    include: ParentMatch,
    exclude: ParentMatch,
    /// How many directories were implied before this one.
    implied: usize,
}

impl Walk<'_> {
    fn all(&mut self, directory: &[u8]) -> Result<(), SelectError> {
        let (mut physical, mut relative) = (directory.to_vec(), Vec::new());
        let mut levels = vec![Level {
            names: self.tree.names(directory)?,
            next: 0,
            physical: physical.len(),
            relative: 0,
            include: ParentMatch::default(),
            exclude: ParentMatch::default(),
            implied: 0,
        }];
        while let Some(level) = levels.last_mut() {
            physical.truncate(level.physical);
            relative.truncate(level.relative);
            let index = level.next;
            level.next += 1;
            let Some(name) = level.names.get(index) else {
                self.implied.truncate(level.implied);
                levels.pop();
                continue;
            };
            push(&mut physical, name);
            push(&mut relative, name);
            let below = self.entry(&physical, &relative, level)?;
            levels.extend(below);
        }
        Ok(())
    }

    /// Takes an entry if it is wanted; the level below it when it is a directory to be entered.
    fn entry(
        &mut self,
        physical: &[u8],
        relative: &[u8],
        level: &Level,
    ) -> Result<Option<Level>, SelectError> {
        let (is_included, include) = test(self.include, relative, &level.include, true);
        let (is_excluded, exclude) = test(self.exclude, relative, &level.exclude, false);
        let Some(entry) = self.tree.entry(physical)? else {
            return Ok(None);
        };
        let is_wanted = is_included && !is_excluded;
        if !entry.is_directory() {
            if is_wanted {
                let digest = content_of(self.tree, physical, &entry)?;
                self.emit(Item {
                    path: relative.to_vec(),
                    entry,
                    digest,
                });
            }
            return Ok(None);
        }
        // An excluded directory is entered only when a later `!` pattern could bring something back.
        if is_excluded && !self.exclude.is_some_and(PatternList::has_exceptions) {
            return Ok(None);
        }
        let item = Item {
            path: relative.to_vec(),
            entry,
            digest: None,
        };
        let implied = self.implied.len();
        if is_wanted {
            self.emit(item);
        } else {
            self.implied.push(item);
        }
        Ok(Some(Level {
            names: self.tree.names(physical)?,
            next: 0,
            physical: physical.len(),
            relative: relative.len(),
            include,
            exclude,
            implied,
        }))
    }

    fn emit(&mut self, item: Item) {
        self.items.append(&mut self.implied);
        self.items.push(item);
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
