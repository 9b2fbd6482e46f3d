//! Many files, which threads copy, and files with holes.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::Path;

use super::transfer::Transfer;
use super::*;
use crate::job::{Expected, ExpectedKind, SelectedEntry};
use crate::root::open_root;

/// Directories, files, links of both kinds and a fifo, 700 in all.
fn fill(source: &Path) {
    for number in 0..600 {
        let directory = source.join(format!("d{}", number / 50));
        fs::create_dir_all(&directory).unwrap();
        let path = directory.join(format!("f{number}"));
        fs::write(&path, format!("content of {number}")).unwrap();
        if number % 10 == 0 {
            fs::hard_link(&path, source.join(format!("d0/linked{number}"))).unwrap();
        }
        if number % 20 == 0 {
            symlink(
                format!("f{number}"),
                directory.join(format!("symlink{number}")),
            )
            .unwrap();
        }
    }
    rustix::fs::mkfifoat(rustix::fs::CWD, source.join("fifo"), 0o600.into()).unwrap();
}

/// Everything beneath, in byte order of the paths.
fn entries(source: &Path, is_expected: bool) -> Vec<SelectedEntry> {
    let mut entries = Vec::new();
    let mut left = vec![source.to_owned()];
    while let Some(directory) = left.pop() {
        for found in fs::read_dir(directory).unwrap() {
            let path = found.unwrap().path();
            let metadata = path.symlink_metadata().unwrap();
            let kind = if metadata.is_dir() {
                left.push(path.clone());
                ExpectedKind::Directory
            } else if metadata.is_symlink() {
                let text = fs::read_link(&path).unwrap();
                ExpectedKind::Symlink(text.into_os_string().into_encoded_bytes())
            } else if metadata.is_file() {
                ExpectedKind::File
            } else {
                ExpectedKind::Special
            };
            let name = path.strip_prefix(source).unwrap();
            entries.push(SelectedEntry {
                path: name.as_os_str().as_encoded_bytes().to_vec(),
                mode: None,
                ids: Some((0, 0)),
                expected: is_expected.then(|| Expected {
                    mode: metadata.mode() & 0o7777,
                    kind,
                }),
            });
        }
    }
    entries.sort_by(|one, other| one.path.cmp(&other.path));
    entries
}

/// By path: type, mode, content or text, and what else has the same inode.
fn summary(root: &Path) -> BTreeMap<String, String> {
    let mut names: BTreeMap<u64, String> = BTreeMap::new();
    let told = |entry: SelectedEntry| {
        let name = String::from_utf8(entry.path).unwrap();
        let path = root.join(&name);
        let metadata = path.symlink_metadata().unwrap();
        let content = if metadata.is_file() {
            let first = names.entry(metadata.ino()).or_insert_with(|| name.clone());
            format!("{} as {first}", fs::read_to_string(&path).unwrap())
        } else {
            fs::read_link(&path)
                .map(|text| text.display().to_string())
                .unwrap_or_default()
        };
        (name, format!("{:o} {content}", metadata.mode()))
    };
    entries(root, false).into_iter().map(told).collect()
}

fn copy_with(
    source: &Path,
    root: &Path,
    entries: &[SelectedEntry],
    threads: usize,
) -> Vec<[u8; 32]> {
    let (source, root) = (open_root(source).unwrap(), open_root(root).unwrap());
    let mut copied = Vec::new();
    let mut transfer = Transfer::new(source.as_fd(), root.as_fd(), b"", None, &mut copied);
    transfer.all_with(entries, threads).unwrap();
    transfer.finish().unwrap();
    copied
}

#[test]
fn threads_make_what_one_thread_makes() {
    let place = tempfile::tempdir().unwrap();
    let source = place.path().join("source");
    fill(&source);
    let expected = summary(&source);
    assert_eq!(expected.len(), 600 + 60 + 30 + 12 + 1);
    let mut all = Vec::new();
    for (threads, is_expected) in [(1, true), (2, true), (5, true), (3, false)] {
        let root = place.path().join(format!("root{threads}"));
        fs::create_dir(&root).unwrap();
        all.push(copy_with(
            &source,
            &root,
            &entries(&source, is_expected),
            threads,
        ));
        assert_eq!(summary(&root), expected, "{threads} threads");
    }
    assert_eq!(all[0].len(), 660);
    assert!(all.iter().all(|digests| *digests == all[0]));
}

#[test]
fn an_error_of_a_thread_is_the_error() {
    let place = tempfile::tempdir().unwrap();
    let (source, root) = (place.path().join("source"), place.path().join("root"));
    fill(&source);
    fs::create_dir_all(root.join("d3/f155")).unwrap();
    let entries = entries(&source, true);
    let (source, root) = (open_root(&source).unwrap(), open_root(&root).unwrap());
    let mut copied = Vec::new();
    let mut transfer = Transfer::new(source.as_fd(), root.as_fd(), b"", None, &mut copied);
    let error = transfer.all_with(&entries, 4).unwrap_err();
    let told = format!("{error:?}");
    assert!(
        told.contains("IsADirectory") && told.contains("d3/f155"),
        "{told}"
    );
}

#[test]
fn holes_stay_holes() {
    let place = tempfile::tempdir().unwrap();
    let (source, root) = (place.path().join("source"), place.path().join("root"));
    fs::create_dir_all(&source).unwrap();
    fs::create_dir_all(&root).unwrap();
    let length = 64 << 20;
    let file = File::create(source.join("sparse")).unwrap();
    file.set_len(length).unwrap();
    file.write_all_at(b"in the middle", 20 << 20).unwrap();
    file.write_all_at(b"later", 50_000_001).unwrap();
    let empty = File::create(source.join("hole")).unwrap();
    empty.set_len(5 << 20).unwrap();
    let copied = copy_with(&source, &root, &entries(&source, true), 2);
    for (name, digest) in ["hole", "sparse"].into_iter().zip(copied) {
        let (from, to) = (source.join(name), root.join(name));
        let bytes = fs::read(&from).unwrap();
        assert!(bytes == fs::read(&to).unwrap(), "{name}");
        assert_eq!(digest, *blake3::hash(&bytes).as_bytes());
        let taken = |path: &Path| path.metadata().unwrap().blocks() * 512;
        assert!(
            taken(&to) <= taken(&from) + (64 << 10),
            "{name}: {} of {}",
            taken(&to),
            taken(&from)
        );
    }
}
