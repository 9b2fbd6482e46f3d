//! Digests and lists of selections.

use std::path::Path;

use rbuild_frontend::ignore_file::{IgnoreFile, IgnoreMatcher};

use super::*;
use crate::tree::directory::DirectoryTree;

fn tree(root: &Path, ignored: &str) -> Arc<dyn SourceTree> {
    let ignore = IgnoreFile::parse(ignored.as_bytes()).unwrap();
    let ignore = IgnoreMatcher::new(&ignore.patterns).unwrap();
    Arc::new(DirectoryTree::open(root, ignore, "test".into(), None).unwrap())
}

/// `a`, `a-b`, `a.txt` and what is in `a` come in another order by whole paths.
fn fill(root: &Path) {
    for directory in ["a/deep/er", "a-b", "empty", "z"] {
        std::fs::create_dir_all(root.join(directory)).unwrap();
    }
    for file in ["a/1", "a/deep/er/2", "a-b/3", "a.txt", "b", "z/4", "z/5"] {
        std::fs::write(root.join(file), file).unwrap();
    }
    std::os::unix::fs::symlink("b", root.join("link")).unwrap();
}

fn select_all(tree: &Arc<dyn SourceTree>, exclude: &[&str]) -> Vec<Selected> {
    let exclude: Vec<String> = exclude.iter().map(|text| (*text).to_owned()).collect();
    let request = Request {
        source: "/",
        keeps_parents: false,
        exclude: &exclude,
    };
    select(tree, &request).unwrap()
}

fn items(found: &[Selected]) -> Vec<Item> {
    let mut items = Vec::new();
    for selected in found {
        selected.each_item(|item| items.push(item)).unwrap();
    }
    items
}

fn paths(found: &[Selected]) -> Vec<String> {
    items(found)
        .iter()
        .map(|item| display(&item.path))
        .collect()
}

#[test]
fn all_of_a_tree_is_the_same_however_it_is_asked_for() {
    let place = tempfile::tempdir().unwrap();
    fill(place.path());
    // Directory by directory on all CPUs; entry by entry; with every directory judged.
    let at_once = select_all(&tree(place.path(), ""), &[]);
    let one_by_one = select_all(&tree(place.path(), ""), &["nothing"]);
    let judged = select_all(&tree(place.path(), "nothing\n"), &[]);
    let expected = [
        "a",
        "a/1",
        "a/deep",
        "a/deep/er",
        "a/deep/er/2",
        "a-b",
        "a-b/3",
        "a.txt",
        "b",
        "empty",
        "link",
        "z",
        "z/4",
        "z/5",
    ];
    for found in [&at_once, &one_by_one, &judged] {
        assert_eq!(paths(found), expected);
        assert_eq!(digest(found), digest(&at_once));
    }
    let ignored = select_all(&tree(place.path(), "*\n!a/deep\n!b\n"), &[]);
    assert_eq!(
        paths(&ignored),
        ["a", "a/deep", "a/deep/er", "a/deep/er/2", "b"]
    );
    let excluded = select_all(&tree(place.path(), ""), &["*", "!a/deep", "!b"]);
    assert_eq!(paths(&excluded), paths(&ignored));
    assert_eq!(digest(&excluded), digest(&ignored));
    assert_ne!(digest(&ignored), digest(&at_once));
}

#[test]
fn what_was_read_gives_the_digest_that_it_would_have_had() {
    let place = tempfile::tempdir().unwrap();
    fill(place.path());
    let one_file = Request {
        source: "a.txt",
        keeps_parents: false,
        exclude: &[],
    };
    for exclude in [&[][..], &["z/4"]] {
        let select_both = || {
            let tree = tree(place.path(), "");
            let mut found = select_all(&tree, exclude);
            found.extend(select(&tree, &one_file).unwrap());
            found
        };
        std::fs::write(place.path().join("a/deep/er/2"), "before").unwrap();
        let before = select_both();
        let contents = |found: &[Selected]| -> Vec<[u8; 32]> {
            let digests = items(found).into_iter().filter_map(|item| item.digest);
            digests.map(|digest| digest.0).collect()
        };
        let read = contents(&before);
        let as_read = |found: &[Selected], read: &[[u8; 32]]| {
            digest_as_read(found, &mut read.iter()).unwrap()
        };
        assert_eq!(as_read(&before, &read), digest(&before));
        // The same size: the tree that was listed before says nothing else of it.
        std::fs::write(place.path().join("a/deep/er/2"), "behind").unwrap();
        let after = select_both();
        assert_ne!(digest(&after), digest(&before));
        assert_eq!(as_read(&before, &contents(&after)), digest(&after));
    }
}
