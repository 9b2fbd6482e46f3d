use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use rustix::fs::{FileType, Mode, XattrFlags};

use super::*;
use crate::job::{LayerEntry, LayerEntryKind};
use crate::layer_root;

/// The `diff_id` of the tar that every tool writes for an empty layer.
const EMPTY: &str = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef";

fn upper() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn set(path: &Path, name: &str, value: &str) {
    rustix::fs::lsetxattr(path, name, value.as_bytes(), XattrFlags::empty()).unwrap();
}

fn whiteout(path: &Path) {
    rustix::fs::mknodat(
        rustix::fs::CWD,
        path,
        FileType::CharacterDevice,
        Mode::empty(),
        0,
    )
    .unwrap();
}

/// Paths and kinds in few words.
fn summary(entries: &[LayerEntry]) -> Vec<String> {
    let kind = |entry: &LayerEntry| match &entry.kind {
        LayerEntryKind::Directory { is_opaque: true } => "opaque".to_string(),
        LayerEntryKind::Directory { .. } => "dir".into(),
        LayerEntryKind::File { size, .. } => format!("file {size}"),
        LayerEntryKind::HardLink { target } => format!("link {}", target.escape_ascii()),
        LayerEntryKind::Symlink { target } => format!("-> {}", target.escape_ascii()),
        LayerEntryKind::CharDevice { major, minor } => format!("char {major}:{minor}"),
        LayerEntryKind::BlockDevice { major, minor } => format!("block {major}:{minor}"),
        LayerEntryKind::Fifo => "fifo".into(),
        LayerEntryKind::Whiteout => "gone".into(),
    };
    entries
        .iter()
        .map(|entry| format!("{} {}", entry.path.escape_ascii(), kind(entry)))
        .collect()
}

#[test]
fn nothing_is_the_empty_layer() {
    let layer = seal(upper().path()).unwrap();
    assert_eq!((layer.diff_id.as_str(), layer.tar_size), (EMPTY, 1024));
    assert!(layer.entries.is_empty());
}

#[test]
fn every_kind_of_file_is_sealed_in_byte_order() {
    let directory = upper();
    let at = |name: &str| directory.path().join(name);
    std::fs::create_dir_all(at("a/c")).unwrap();
    std::fs::create_dir(at("a-b")).unwrap();
    std::fs::write(at("a-b/f"), "x").unwrap();
    std::fs::write(at("a/c/f"), "content").unwrap();
    std::fs::hard_link(at("a/c/f"), at("z")).unwrap();
    symlink("/etc/passwd", at("link")).unwrap();
    whiteout(&at("deleted"));
    std::fs::hard_link(at("deleted"), at("a/deleted")).unwrap();
    set(&at("a/c"), "user.overlay.opaque", "y");
    set(&at("a/c"), "user.overlay.origin", "whatever");
    set(&at("a-b"), "user.overlay.opaque", "x");
    std::fs::write(at("a-b/gone"), "").unwrap();
    set(&at("a-b/gone"), "user.overlay.whiteout", "y");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        at("null"),
        FileType::CharacterDevice,
        Mode::empty(),
        rustix::fs::makedev(1, 3),
    )
    .unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        at("fifo"),
        FileType::Fifo,
        Mode::empty(),
        0,
    )
    .unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    set(&at("a"), "user.overlay.overlay.opaque", "nested");
    set(&at("a"), "user.mine", "1");
    set(&at("a"), "trusted.x", "2");
    let layer = seal(directory.path()).unwrap();
    assert_eq!(
        summary(&layer.entries),
        [
            "a dir",
            "a-b dir",
            "a-b/f file 1",
            "a-b/gone gone",
            "a/c opaque",
            "a/c/f file 7",
            "a/deleted gone",
            "deleted gone",
            "fifo fifo",
            "link -> /etc/passwd",
            "null char 1:3",
            "z link a/c/f",
        ]
    );
    let xattrs: Vec<_> = layer.entries[0]
        .xattrs
        .iter()
        .map(|(name, _)| name.escape_ascii().to_string())
        .collect();
    assert_eq!(xattrs, ["trusted.x", "user.mine", "user.overlay.opaque"]);
    let digest = *blake3::hash(b"content").as_bytes();
    assert_eq!(
        layer.entries[5].kind,
        LayerEntryKind::File { size: 7, digest }
    );
    assert_eq!(
        seal(directory.path()).unwrap(),
        layer,
        "sealing changes nothing"
    );
}

#[test]
fn what_a_layer_cannot_say_is_an_error() {
    let directory = upper();
    std::fs::write(directory.path().join(".wh.x"), "").unwrap();
    assert!(
        matches!(seal(directory.path()), Err(SealError::ReservedName { path }) if path.as_bytes() == b".wh.x")
    );
    let directory = upper();
    std::fs::create_dir(directory.path().join("d")).unwrap();
    set(
        &directory.path().join("d"),
        "user.overlay.redirect",
        "/other",
    );
    assert!(matches!(
        seal(directory.path()),
        Err(SealError::Redirect { .. })
    ));
}

#[test]
fn a_changed_root_is_an_entry() {
    let lower = upper();
    let directory = upper();
    let fd = open_root(directory.path()).unwrap();
    layer_root::prepare_upper(fd.as_fd(), &[lower.path().to_path_buf()]).unwrap();
    assert_eq!(
        directory.path().metadata().unwrap().mode() & 0o7777,
        0o755,
        "an unmarked lower says nothing"
    );
    assert_eq!(seal(directory.path()).unwrap().diff_id, EMPTY);
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    let layer = seal(directory.path()).unwrap();
    assert_eq!(summary(&layer.entries), [" dir"]);
    assert!(layer.entries[0].xattrs.is_empty());
    let next = upper();
    let fd = open_root(next.path()).unwrap();
    layer_root::prepare_upper(
        fd.as_fd(),
        &[lower.path().to_path_buf(), directory.path().to_path_buf()],
    )
    .unwrap();
    assert_eq!(
        next.path().metadata().unwrap().mode() & 0o7777,
        0o700,
        "the next step starts with it"
    );
    assert_eq!(seal(next.path()).unwrap().diff_id, EMPTY);
}

#[test]
fn the_tar_is_what_the_tar_crate_reads() {
    let directory = upper();
    let long = "n".repeat(200);
    std::fs::create_dir_all(directory.path().join(&long)).unwrap();
    let file = directory.path().join(&long).join("f".repeat(120));
    std::fs::write(&file, "deep").unwrap();
    std::os::unix::fs::chown(&file, Some(3_000_000), Some(2_000_000_000)).unwrap();
    set(&file, "user.k", "v\0w");
    let fd = open_root(directory.path()).unwrap();
    let mut tar = Vec::new();
    let (entries, size) =
        layer_tar::write(fd.as_fd(), View::Snapshot, None, Digests::Taken, &mut tar).unwrap();
    assert_eq!(size, tar.len() as u64);
    let mut archive = tar::Archive::new(&tar[..]);
    let mut read = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let pax: Vec<String> = entry
            .pax_extensions()
            .unwrap()
            .unwrap()
            .map(|record| record.unwrap().key().unwrap().to_string())
            .collect();
        read.push((
            entry.path_bytes().into_owned(),
            entry.header().uid().unwrap(),
            pax,
        ));
    }
    assert_eq!(read.len(), entries.len());
    assert_eq!(read[1].0, [long.as_bytes(), &b"f".repeat(120)].join(&b'/'));
    assert!(
        ["SCHILY.xattr.user.k", "gid", "mtime", "path", "uid"]
            .iter()
            .all(|key| read[1].2.iter().any(|have| have == key))
    );
}
