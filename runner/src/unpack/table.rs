//! The tree of one layer, in memory: what is where, which names are one file, which directories are only implied.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;

use super::UnpackError;
use crate::job::{LayerEntry, LayerEntryKind};

/// As many as the kernel follows.
const MAX_LINKS: u32 = 40;

/// A path of the layer.
#[derive(Clone, Debug)]
pub(super) struct Known {
    /// Of a hard link: its target's, with this path.
    pub(super) entry: LayerEntry,
    /// The same for all names of one file.
    pub(super) file: usize,
    /// A directory that the layer does not name.
    pub(super) is_implied: bool,
}

/// All paths of the layer.
#[derive(Debug, Default)]
pub(super) struct Table {
    paths: BTreeMap<Vec<u8>, Known>,
    files: usize,
}

/// Beginning of all paths below a directory.
fn prefix(path: &[u8]) -> Vec<u8> {
    if path.is_empty() {
        Vec::new()
    } else {
        [path, b"/"].concat()
    }
}

/// A path below a directory.
pub(super) fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = prefix(directory);
    path.extend_from_slice(name);
    path
}

/// Directory and last component.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

/// The directories above a path, from the top; the root is not one of them.
pub(super) fn parents(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.iter()
        .enumerate()
        .filter(|(_, byte)| **byte == b'/')
        .map(|(slash, _)| &path[..slash])
}

/// Makes a name of the archive a path: no `.`, no empty components, no leading `/`; `..` as Go's `path.Clean`.
pub(super) fn clean(path: &[u8]) -> Result<Vec<u8>, UnpackError> {
    let mut components: Vec<&[u8]> = Vec::new();
    for component in path.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => {
                components
                    .pop()
                    .ok_or_else(|| UnpackError::Escape { path: path.into() })?;
            }
            _ => components.push(component),
        }
    }
    Ok(components.join(&b'/'))
}

impl Table {
    pub(super) fn get(&self, path: &[u8]) -> Option<&Known> {
        self.paths.get(path)
    }

    pub(super) fn get_mut(&mut self, path: &[u8]) -> Option<&mut Known> {
        self.paths.get_mut(path)
    }

    /// Adds a path with a file of its own.
    pub(super) fn insert(&mut self, entry: LayerEntry, is_implied: bool) {
        self.files += 1;
        self.paths.insert(
            entry.path.clone(),
            Known {
                entry,
                file: self.files,
                is_implied,
            },
        );
    }

    /// Adds another name of what is at `target`.
    pub(super) fn insert_link(&mut self, path: &[u8], target: &[u8]) {
        if let Some(known) = self.paths.get(target) {
            let mut known = known.clone();
            known.entry.path = path.to_vec();
            self.paths.insert(path.to_vec(), known);
        }
    }

    /// Forgets a path and all below it.
    pub(super) fn remove(&mut self, path: &[u8]) {
        self.paths.remove(path);
        for below in self.below(path) {
            self.paths.remove(&below);
        }
    }

    /// All paths below a directory, in byte order.
    pub(super) fn below(&self, path: &[u8]) -> Vec<Vec<u8>> {
        let start = prefix(path);
        let range = self
            .paths
            .range::<[u8], _>((Bound::Included(start.as_slice()), Bound::Unbounded));
        let below = range
            .map(|(path, _)| path)
            .take_while(|path| path.starts_with(&start));
        below.filter(|path| !path.is_empty()).cloned().collect()
    }

    /// Moves one path, not what is below it.
    pub(super) fn rename(&mut self, from: &[u8], to: &[u8]) {
        if let Some(mut known) = self.paths.remove(from) {
            known.entry.path = to.to_vec();
            self.paths.insert(to.to_vec(), known);
        }
    }

    /// Directories that the layer does not name.
    pub(super) fn implied(&self) -> Vec<Vec<u8>> {
        self.paths
            .values()
            .filter(|known| known.is_implied)
            .map(|known| known.entry.path.clone())
            .collect()
    }

    /// Where a directory of an entry's name is, following the layer's own symlinks. Components that the layer does not
    /// have are taken for directories.
    pub(super) fn resolve(&self, directory: &[u8], entry: &[u8]) -> Result<Vec<u8>, UnpackError> {
        let mut resolved: Vec<u8> = Vec::new();
        let mut queue: VecDeque<&[u8]> = directory.split(|byte| *byte == b'/').collect();
        let mut links = 0;
        while let Some(component) = queue.pop_front() {
            match component {
                b"" | b"." => continue,
                b".." => {
                    resolved.truncate(split(&resolved).0.len());
                    continue;
                }
                _ => {}
            }
            let next = join(&resolved, component);
            match self.paths.get(&next).map(|known| &known.entry.kind) {
                None | Some(LayerEntryKind::Directory { .. } | LayerEntryKind::Whiteout) => {
                    resolved = next;
                }
                Some(LayerEntryKind::Symlink { target }) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(UnpackError::LinkLoop { path: entry.into() });
                    }
                    if target.starts_with(b"/") {
                        resolved.clear();
                    }
                    for part in target.rsplit(|byte| *byte == b'/') {
                        queue.push_front(part);
                    }
                }
                Some(_) => {
                    return Err(UnpackError::NotADirectory {
                        path: entry.into(),
                        below: (&next).into(),
                    });
                }
            }
        }
        Ok(resolved)
    }

    /// The entries in byte order. Of a file's names the first is the file, the others are links to it.
    pub(super) fn into_entries(self) -> Vec<LayerEntry> {
        let mut first: HashMap<usize, Vec<u8>> = HashMap::new();
        let mut entries = Vec::with_capacity(self.paths.len());
        for (
            path,
            Known {
                mut entry, file, ..
            },
        ) in self.paths
        {
            if matches!(entry.kind, LayerEntryKind::File { .. }) {
                if let Some(target) = first.get(&file) {
                    entry.kind = LayerEntryKind::HardLink {
                        target: target.clone(),
                    };
                } else {
                    first.insert(file, path);
                }
            }
            entries.push(entry);
        }
        entries
    }

    /// The table of entries that [`Self::into_entries`] gave.
    pub(super) fn from_entries(entries: &[LayerEntry], implied: &[Vec<u8>]) -> Self {
        let mut table = Self::default();
        for entry in entries {
            match &entry.kind {
                LayerEntryKind::HardLink { target } if table.paths.contains_key(target) => {
                    table.insert_link(&entry.path, &target.clone());
                }
                _ => table.insert(entry.clone(), false),
            }
        }
        for path in implied {
            if let Some(known) = table.paths.get_mut(path) {
                known.is_implied = true;
            }
        }
        table
    }
}
