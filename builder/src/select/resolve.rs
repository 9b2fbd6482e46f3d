//! Symlinks and wildcards inside a tree.

use rbuild_frontend::glob::SourcePattern;

use super::{SelectError, SourceTree, TreeEntryKind, display, join};

/// As many symlinks as the reference follows in one path.
const MAX_SYMLINKS: usize = 255;

/// Follows every symlink of `path`, the last one too, without leaving the root. None when a component is missing.
pub(super) fn resolve(tree: &dyn SourceTree, path: &[u8]) -> Result<Option<Vec<u8>>, SelectError> {
    let mut pending: Vec<Vec<u8>> = components(path).rev().map(<[u8]>::to_vec).collect();
    let mut physical: Vec<u8> = Vec::new();
    let mut symlinks = 0;
    while let Some(name) = pending.pop() {
        match name.as_slice() {
            b"." => continue,
            b".." => {
                let parent = physical.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
                physical.truncate(parent);
                continue;
            }
            _ => {}
        }
        let next = join(&physical, &name);
        let Some(entry) = tree.entry(&next)? else {
            return Ok(None);
        };
        match entry.kind {
            TreeEntryKind::Symlink(target) => {
                symlinks += 1;
                if symlinks > MAX_SYMLINKS {
                    return Err(SelectError::SymlinkLoop {
                        path: display(path),
                        tree: tree.title(),
                    });
                }
                if target.starts_with(b"/") {
                    physical.clear();
                }
                pending.extend(components(&target).rev().map(<[u8]>::to_vec));
            }
            TreeEntryKind::Directory => physical = next,
            _ if pending.is_empty() => physical = next,
            _ => return Ok(None),
        }
    }
    Ok(Some(physical))
}

/// Expands the wildcards of a source. The part before the first component with a wildcard is resolved with
/// symlinks; from there on only real directories are searched, one pattern component a level.
pub(super) fn expand_wildcards(
    tree: &dyn SourceTree,
    source: &str,
) -> Result<Vec<Vec<u8>>, SelectError> {
    let pattern = SourcePattern::new(source).map_err(|error| SelectError::Wildcard {
        path: source.to_owned(),
        source: error,
    })?;
    let base = pattern.base.trim_start_matches('/').as_bytes();
    if pattern.components.is_empty() {
        return Ok(vec![base.to_vec()]);
    }
    let Some(base) = resolve(tree, base)? else {
        return Ok(Vec::new());
    };
    let mut level = vec![base];
    for component in &pattern.components {
        let mut next = Vec::new();
        for directory in &level {
            if !tree
                .entry(directory)?
                .is_some_and(|entry| entry.is_directory())
            {
                continue;
            }
            let listing = tree.list(directory)?;
            let names = (0..listing.count()).map(|index| listing.name(index));
            next.extend(
                names
                    .filter(|name| component.is_match(name))
                    .map(|name| join(directory, name)),
            );
        }
        level = next;
    }
    Ok(level)
}

fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|&byte| byte == b'/')
        .filter(|name| !name.is_empty())
}
