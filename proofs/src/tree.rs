//! Trees made comparable, by a walk that shares no code with rbuild.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rbuild_cache::{Chain, Store};

use crate::Result;

/// Everything about an entry that a `COPY` of a context has to get right: owners are root's there, and times do not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Node {
    Directory {
        mode: u32,
    },
    File {
        mode: u32,
        size: u64,
        digest: [u8; 32],
    },
    Symlink {
        target: Vec<u8>,
    },
    Other {
        mode: u32,
    },
}

/// By path beneath the root, which is not in it.
pub(crate) type Tree = BTreeMap<PathBuf, Node>;

/// A file with this content.
pub(crate) fn file(mode: u32, content: &[u8]) -> Node {
    Node::File {
        mode,
        size: content.len() as u64,
        digest: *blake3::hash(content).as_bytes(),
    }
}

/// Reads every file beneath `root`.
pub(crate) fn read(root: &Path) -> Result<Tree> {
    let mut tree = Tree::new();
    overlay(&mut tree, root)?;
    Ok(tree)
}

/// What an image's chain shows: its snapshots, read one over the other.
pub(crate) fn of_chain(store: &Store, chain: &Chain) -> Result<Tree> {
    let mut tree = Tree::new();
    for snapshot in chain.snapshot_paths(store) {
        overlay(&mut tree, &snapshot)?;
    }
    Ok(tree)
}

/// Puts one layer over a tree: what it names replaces, a character device takes away, an opaque directory hides.
fn overlay(tree: &mut Tree, root: &Path) -> Result<()> {
    let mut waiting = vec![root.to_owned()];
    while let Some(directory) = waiting.pop() {
        let entries = fs::read_dir(&directory)
            .map_err(|error| format!("cannot read `{}`: {error}", directory.display()))?;
        for entry in entries {
            let path = entry?.path();
            let metadata = fs::symlink_metadata(&path)
                .map_err(|error| format!("cannot stat `{}`: {error}", path.display()))?;
            let name = path.strip_prefix(root)?.to_owned();
            let (kind, mode) = (metadata.file_type(), metadata.permissions().mode() & 0o7777);
            if kind.is_char_device() && metadata.rdev() == 0 {
                remove(tree, &name);
                continue;
            }
            if !kind.is_dir() || is_opaque(&path) {
                remove(tree, &name);
            }
            let node = if kind.is_dir() {
                waiting.push(path);
                Node::Directory { mode }
            } else if kind.is_symlink() {
                let target = fs::read_link(&path)?;
                Node::Symlink {
                    target: target.as_os_str().as_bytes().to_vec(),
                }
            } else if kind.is_file() {
                let content = fs::read(&path)
                    .map_err(|error| format!("cannot read `{}`: {error}", path.display()))?;
                file(mode, &content)
            } else {
                Node::Other { mode }
            };
            tree.insert(name, node);
        }
    }
    Ok(())
}

pub(crate) fn remove(tree: &mut Tree, name: &Path) {
    let gone: Vec<_> = tree
        .range(name.to_owned()..)
        .map(|(path, _)| path)
        .take_while(|path| path.starts_with(name))
        .cloned()
        .collect();
    for path in gone {
        tree.remove(&path);
    }
}

fn is_opaque(directory: &Path) -> bool {
    let mut value = [0_u8; 8];
    rustix::fs::lgetxattr(directory, "user.overlay.opaque", &mut value).is_ok()
}

/// The first entry in which two trees differ.
pub(crate) fn difference(expected: &Tree, found: &Tree) -> Option<String> {
    for (path, node) in expected {
        match found.get(path) {
            None => return Some(format!("`{}` is missing", path.display())),
            Some(other) if other != node => {
                return Some(format!(
                    "`{}` is {other:?}, should be {node:?}",
                    path.display()
                ));
            }
            Some(_) => {}
        }
    }
    let extra = found.keys().find(|path| !expected.contains_key(*path))?;
    Some(format!("`{}` should not be there", extra.display()))
}

/// Whether all of `expected` is in `found`, which may hold more.
pub(crate) fn lacks(expected: &Tree, found: &Tree) -> Option<String> {
    let same: Tree = found
        .iter()
        .filter(|(path, _)| expected.contains_key(*path))
        .map(|(path, node)| (path.clone(), node.clone()))
        .collect();
    difference(expected, &same)
}
