//! The root file system of a stage, put together from its layers' entry tables.
//!
//! No snapshot is read: types, owners, attributes and content digests all stand in the tables, so the key of a
//! `COPY --from` costs no file access.

use std::collections::BTreeMap;

use rbuild_cache::{Chain, ContentDigest, Entry, EntryKind, Store};

use super::{Listing, SourceTree, TreeEntry, TreeEntryKind, TreeError, display};

/// A merged view of a chain.
#[derive(Debug)]
pub(crate) struct LayeredTree {
    root: Node,
    title: String,
}

#[derive(Debug)]
struct Node {
    entry: TreeEntry,
    digest: Option<ContentDigest>,
    children: BTreeMap<Vec<u8>, Node>,
}

impl Node {
    fn directory() -> Self {
        let entry = TreeEntry {
            kind: TreeEntryKind::Directory,
            mode: 0o755,
            uid: 0,
            gid: 0,
            xattrs: Vec::new(),
        };
        Self {
            entry,
            digest: None,
            children: BTreeMap::new(),
        }
    }
}

/// Not recursive: how deep a tree is, is up to whoever made the layer.
impl Drop for Node {
    fn drop(&mut self) {
        let mut rest: Vec<BTreeMap<Vec<u8>, Node>> = vec![std::mem::take(&mut self.children)];
        while let Some(children) = rest.pop() {
            rest.extend(
                children
                    .into_values()
                    .map(|mut node| std::mem::take(&mut node.children)),
            );
        }
    }
}

impl LayeredTree {
    /// Merges the layers of `chain`, lowest first.
    pub(crate) fn load(store: &Store, chain: &Chain, title: String) -> Result<Self, TreeError> {
        let mut root = Node::directory();
        for layer in chain {
            let entries = store
                .entries(&layer.snapshot)
                .map_err(|error| TreeError::Table(Box::new(error)))?;
            apply_layer(&mut root, &entries);
        }
        Ok(Self { root, title })
    }

    fn node(&self, path: &[u8]) -> Option<&Node> {
        components(path).try_fold(&self.root, |node, name| node.children.get(name))
    }
}

impl SourceTree for LayeredTree {
    fn entry(&self, path: &[u8]) -> Result<Option<TreeEntry>, TreeError> {
        Ok(self.node(path).map(|node| node.entry.clone()))
    }

    fn list(&self, directory: &[u8]) -> Result<Box<dyn Listing + '_>, TreeError> {
        let node = self.node(directory);
        let children = node.map(|node| node.children.iter().collect());
        Ok(Box::new(Children(children.unwrap_or_default())))
    }

    fn content(&self, path: &[u8]) -> Result<ContentDigest, TreeError> {
        self.node(path)
            .and_then(|node| node.digest)
            .ok_or_else(|| no_content(path))
    }

    fn title(&self) -> String {
        self.title.clone()
    }
}

/// A directory's entries by name.
struct Children<'tree>(Vec<(&'tree Vec<u8>, &'tree Node)>);

impl Listing for Children<'_> {
    fn count(&self) -> usize {
        self.0.len()
    }

    fn name(&self, index: usize) -> &[u8] {
        self.0[index].0
    }

    fn is_directory(&self, index: usize) -> bool {
        self.0[index].1.entry.is_directory()
    }

    fn entry(&self, index: usize) -> TreeEntry {
        self.0[index].1.entry.clone()
    }

    fn content(&self, index: usize) -> Result<ContentDigest, TreeError> {
        let (name, node) = self.0[index];
        node.digest.ok_or_else(|| no_content(name))
    }
}

fn no_content(path: &[u8]) -> TreeError {
    TreeError::Read {
        path: display(path),
        source: std::io::ErrorKind::NotFound.into(),
    }
}

fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|&byte| byte == b'/')
        .filter(|name| !name.is_empty())
}

/// Lays one layer over the tree. Deletions come first, whatever their place in the table: they only ever concern
/// lower layers.
fn apply_layer(root: &mut Node, entries: &[Entry]) {
    for entry in entries {
        match entry.kind {
            EntryKind::Whiteout => remove(root, &entry.path),
            EntryKind::Directory { is_opaque: true } => {
                if let Some(node) = find(root, &entry.path) {
                    node.children.clear();
                }
            }
            _ => {}
        }
    }
    // A hard link's target stands in the same table; its content is taken from there.
    let files: BTreeMap<&[u8], &Entry> = entries
        .iter()
        .filter(|entry| matches!(entry.kind, EntryKind::File { .. }))
        .map(|entry| (entry.path.as_slice(), entry))
        .collect();
    for entry in entries {
        let source = match &entry.kind {
            EntryKind::Whiteout => continue,
            EntryKind::HardLink { target } => match files.get(target.as_slice()) {
                Some(file) => *file,
                None => continue,
            },
            _ => entry,
        };
        insert(root, &entry.path, source);
    }
}

fn find<'tree>(root: &'tree mut Node, path: &[u8]) -> Option<&'tree mut Node> {
    components(path).try_fold(root, |node, name| node.children.get_mut(name))
}

fn remove(root: &mut Node, path: &[u8]) {
    let (parent, name) = split(path);
    if let Some(node) = find(root, parent) {
        node.children.remove(name);
    }
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&[], path),
    }
}

fn insert(root: &mut Node, path: &[u8], source: &Entry) {
    let mut node = root;
    for name in components(path) {
        node = node
            .children
            .entry(name.to_vec())
            .or_insert_with(Node::directory);
    }
    let (kind, digest) = match &source.kind {
        EntryKind::Directory { .. } => (TreeEntryKind::Directory, None),
        EntryKind::File { size, digest } => (TreeEntryKind::File(*size), Some(*digest)),
        EntryKind::Symlink { target } => (TreeEntryKind::Symlink(target.clone()), None),
        EntryKind::CharDevice { major, minor } => (TreeEntryKind::CharDevice(*major, *minor), None),
        EntryKind::BlockDevice { major, minor } => {
            (TreeEntryKind::BlockDevice(*major, *minor), None)
        }
        EntryKind::Fifo => (TreeEntryKind::Fifo, None),
        EntryKind::Whiteout | EntryKind::HardLink { .. } => return,
    };
    if kind != TreeEntryKind::Directory {
        node.children.clear();
    }
    node.entry = TreeEntry {
        kind,
        mode: source.mode,
        uid: source.uid,
        gid: source.gid,
        xattrs: source.xattrs.clone(),
    };
    node.digest = digest;
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn entry(path: &str, kind: EntryKind) -> Entry {
        Entry {
            path: path.into(),
            kind,
            mode: 0o644,
            uid: 0,
            gid: 0,
            xattrs: Vec::new(),
            mtime: (0, 0),
        }
    }

    fn file(path: &str, byte: u8) -> Entry {
        entry(
            path,
            EntryKind::File {
                size: 1,
                digest: ContentDigest([byte; 32]),
            },
        )
    }

    fn directory(path: &str, is_opaque: bool) -> Entry {
        entry(path, EntryKind::Directory { is_opaque })
    }

    fn tree(layers: &[&[Entry]]) -> LayeredTree {
        let mut root = Node::directory();
        for layer in layers {
            apply_layer(&mut root, layer);
        }
        LayeredTree {
            root,
            title: "test".into(),
        }
    }

    fn names(tree: &LayeredTree, path: &str) -> Vec<String> {
        let list = tree.list(path.as_bytes()).unwrap();
        (0..list.count())
            .map(|index| display(list.name(index)))
            .collect()
    }

    #[test]
    fn upper_layers_hide_lower_ones() {
        let base: &[Entry] = &[
            directory("a", false),
            file("a/1", 1),
            file("a/2", 2),
            directory("b", false),
            file("b/x", 3),
        ];
        let rows: &[(&str, Vec<Entry>, &str, Vec<&str>)] = &[
            (
                "whiteout of a file",
                vec![directory("a", false), entry("a/1", EntryKind::Whiteout)],
                "a",
                vec!["2"],
            ),
            (
                "whiteout of a directory",
                vec![entry("a", EntryKind::Whiteout)],
                "",
                vec!["b"],
            ),
            (
                "opaque",
                vec![directory("a", true), file("a/3", 9)],
                "a",
                vec!["3"],
            ),
            ("file over directory", vec![file("a", 9)], "a", vec![]),
            (
                "merge",
                vec![directory("a", false), file("a/0", 9)],
                "a",
                vec!["0", "1", "2"],
            ),
        ];
        for (name, layer, path, expected) in rows {
            assert_eq!(names(&tree(&[base, layer]), path), *expected, "{name}");
        }
    }

    #[test]
    fn depth_does_not_cost_stack() {
        const LEVELS: usize = 2_000;
        let deep = || {
            let path = vec!["d"; LEVELS].join("/");
            let tree = tree(&[&[file(&path, 1)]]);
            let request = crate::select::Request {
                source: "/",
                keeps_parents: false,
                exclude: &[],
            };
            let tree: Arc<dyn SourceTree> = Arc::new(tree);
            let mut count = 0;
            for selected in &crate::select::select(&tree, &request).unwrap() {
                let count_it = |_: crate::select::Item| count += 1;
                selected.each_item(count_it).unwrap();
            }
            count
        };
        let small = std::thread::Builder::new().stack_size(128 << 10);
        assert_eq!(small.spawn(deep).unwrap().join().unwrap(), LEVELS);
    }

    #[test]
    fn hard_links_have_their_targets_content() {
        let layer: &[Entry] = &[
            file("a", 7),
            entry(
                "b",
                EntryKind::HardLink {
                    target: b"a".to_vec(),
                },
            ),
        ];
        assert_eq!(
            tree(&[layer]).content(b"b").unwrap(),
            ContentDigest([7; 32])
        );
    }
}
