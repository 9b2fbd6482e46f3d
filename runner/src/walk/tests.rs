use std::os::unix::fs::symlink;

use super::*;
use crate::root::open_root;

fn paths(root: &OwnedFd, mut filter: impl FnMut(&[u8]) -> Filter) -> Vec<String> {
    let mut paths = Vec::new();
    let take = |entry: &Entry<'_>| {
        paths.push(String::from_utf8(entry.path().to_vec()).unwrap());
        Ok::<_, FileError>(())
    };
    walk(root.as_fd(), |path, _| filter(path), take).unwrap();
    paths
}

#[test]
fn paths_come_in_byte_order_and_links_are_not_followed() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["a/c", "a/b/x", "a-b/x", "a.d", "z"] {
        std::fs::create_dir_all(directory.path().join(name)).unwrap();
    }
    std::fs::write(directory.path().join("a0"), "").unwrap();
    symlink("/", directory.path().join("a/link")).unwrap();
    let root = open_root(directory.path()).unwrap();
    let all = paths(&root, |_| Filter::Take);
    assert_eq!(
        all,
        [
            "a", "a-b", "a-b/x", "a.d", "a/b", "a/b/x", "a/c", "a/link", "a0", "z"
        ]
    );
    assert!(all.is_sorted());
    let some = paths(&root, |path| match path {
        b"a" => Filter::Enter,
        b"a/b" => Filter::TakeAlone,
        b"a-b" | b"a0" => Filter::Skip,
        _ => Filter::Take,
    });
    assert_eq!(some, ["a.d", "a/b", "a/c", "a/link", "z"]);
}

#[test]
fn depth_costs_neither_stack_nor_fds() {
    const DEPTH: usize = 1200;
    let directory = tempfile::tempdir().unwrap();
    let root = open_root(directory.path()).unwrap();
    let mut current = rustix::io::dup(&root).unwrap();
    for _ in 0..DEPTH {
        for name in ["d", "z"] {
            rustix::fs::mkdirat(&current, name, Mode::RWXU).unwrap();
        }
        current = crate::node::open_directory(current.as_fd(), b"d").unwrap();
    }
    drop(current);
    let all = paths(&root, |_| Filter::Take);
    assert_eq!(all.len(), 2 * DEPTH);
    assert_eq!(all.last().unwrap(), "z", "the way back up is found");
    let (mut open, mut seen) = (usize::MAX, 0);
    walk(
        root.as_fd(),
        |_, _| Filter::Take,
        |_| {
            seen += 1;
            if seen % 400 != 0 {
                return Ok(());
            }
            open = std::fs::read_dir("/proc/self/fd").unwrap().count();
            Ok::<_, FileError>(())
        },
    )
    .unwrap();
    assert!(open < 500, "{open} fds");
    crate::node::remove_all(root.as_fd(), b"d").unwrap();
}

#[test]
fn directories_are_listed() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("d")).unwrap();
    std::fs::write(directory.path().join("d/f"), "abc").unwrap();
    symlink("/nowhere", directory.path().join("d/a")).unwrap();
    symlink("/d", directory.path().join("to-d")).unwrap();
    let root = open_root(directory.path()).unwrap();
    let mut reader = DirectoryReader::default();
    for (path, expected) in [
        ("to-d", vec!["to-d/a Symlink 8", "to-d/f File 3"]),
        ("", vec!["d Directory", "to-d Symlink 2"]),
        ("d", vec!["d/a Symlink 8", "d/f File 3"]),
    ] {
        let mut found = Vec::new();
        let take = |entry: &Entry<'_>| {
            let name = String::from_utf8_lossy(entry.path()).into_owned();
            assert!(name.ends_with(&*String::from_utf8_lossy(entry.name())));
            let (kind, size) = (entry.metadata.kind, entry.metadata.size);
            found.push(match kind {
                FileKind::Directory => format!("{name} {kind:?}"),
                _ => format!("{name} {kind:?} {size}"),
            });
            Ok::<_, FileError>(())
        };
        reader.read(root.as_fd(), path.as_bytes(), take).unwrap();
        assert_eq!(found, expected, "{path}");
    }
    let take = |_: &Entry<'_>| Ok::<_, FileError>(());
    assert!(reader.read(root.as_fd(), b"d/f", take).is_err());
}
