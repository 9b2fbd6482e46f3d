//! pack and unpack of random trees.

use std::os::unix::ffi::OsStrExt;

use proptest::prelude::*;
use rustix::fs::XattrFlags;

use super::*;
use crate::pack::pack;

#[derive(Clone, Debug)]
enum Node {
    Directory {
        mode: u32,
        is_opaque: bool,
    },
    File {
        content: Vec<u8>,
        mode: u32,
        ids: (u32, u32),
        xattr: Option<Vec<u8>>,
    },
    Symlink(Vec<u8>),
    HardLink(usize),
    Whiteout,
    Fifo,
}

fn node() -> impl Strategy<Value = Node> {
    let ids = (
        prop_oneof![0..70_000_u32, Just(3_000_000)],
        prop_oneof![0..70_000_u32, Just(2_000_000_000)],
    );
    prop_oneof![
        3 => (0..0o10000_u32, any::<bool>()).prop_map(|(mode, is_opaque)| Node::Directory { mode, is_opaque }),
        4 => (proptest::collection::vec(any::<u8>(), 0..2000), 0..0o10000_u32, ids, proptest::option::of(proptest::collection::vec(any::<u8>(), 0..300)))
            .prop_map(|(content, mode, ids, xattr)| Node::File { content, mode, ids, xattr }),
        1 => proptest::collection::vec(1..=255_u8, 1..150).prop_map(Node::Symlink),
        1 => any::<usize>().prop_map(Node::HardLink),
        1 => Just(Node::Whiteout),
        1 => Just(Node::Fifo),
    ]
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => "[ab.-]{1,3}".prop_map(String::into_bytes),
        1 => proptest::collection::vec(1..=255_u8, 1..40),
        1 => "[n]{90,120}".prop_map(String::into_bytes),
    ]
    .prop_filter("a name", |name| {
        !name.contains(&b'/') && name != b"." && name != b".." && !name.starts_with(b".wh.")
    })
}

/// Makes the tree as far as names allow; collisions are left out.
fn build(root: &Path, nodes: &[(usize, Vec<u8>, Node)]) {
    let (mut directories, mut files) = (vec![root.to_path_buf()], Vec::<PathBuf>::new());
    let mut modes = Vec::new();
    for (parent, name, node) in nodes {
        let path = directories[parent % directories.len()].join(std::ffi::OsStr::from_bytes(name));
        if path.symlink_metadata().is_ok() {
            continue;
        }
        let at = rustix::fs::CWD;
        match node {
            Node::Directory { mode, is_opaque } => {
                std::fs::create_dir(&path).unwrap();
                if *is_opaque {
                    rustix::fs::lsetxattr(&path, "user.overlay.opaque", b"y", XattrFlags::empty())
                        .unwrap();
                }
                modes.push((path.clone(), *mode));
                directories.push(path);
            }
            Node::File {
                content,
                mode,
                ids,
                xattr,
            } => {
                std::fs::write(&path, content).unwrap();
                std::os::unix::fs::chown(&path, Some(ids.0), Some(ids.1)).unwrap();
                if let Some(value) = xattr {
                    rustix::fs::lsetxattr(
                        &path,
                        "user.overlay.overlay.x",
                        value,
                        XattrFlags::empty(),
                    )
                    .unwrap();
                    rustix::fs::lsetxattr(&path, "user.odd name", value, XattrFlags::empty())
                        .unwrap();
                }
                modes.push((path.clone(), *mode));
                files.push(path);
            }
            Node::Symlink(target) => rustix::fs::symlinkat(&target[..], at, &path).unwrap(),
            Node::HardLink(index) => {
                if let Some(target) = files.get(index % files.len().max(1)) {
                    std::fs::hard_link(target, &path).unwrap();
                }
            }
            Node::Whiteout => rustix::fs::mknodat(
                at,
                &path,
                rustix::fs::FileType::CharacterDevice,
                rustix::fs::Mode::empty(),
                0,
            )
            .unwrap(),
            Node::Fifo => rustix::fs::mknodat(
                at,
                &path,
                rustix::fs::FileType::Fifo,
                rustix::fs::Mode::empty(),
                0,
            )
            .unwrap(),
        }
    }
    for (path, mode) in modes {
        rustix::fs::chmod(&path, rustix::fs::Mode::from_raw_mode(mode)).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, fork: false, ..ProptestConfig::default() })]

    #[test]
    fn unpacking_what_was_packed_gives_it_back(
        nodes in proptest::collection::vec((any::<usize>(), name(), node()), 0..40),
        compression in prop_oneof![
            Just(Compression::None), Just(Compression::Gzip { level: 6 }), Just(Compression::Zstd { level: 3 })
        ],
    ) {
        let directory = tempfile::tempdir().unwrap();
        let tree = directory.path().join("tree");
        std::fs::create_dir(&tree).unwrap();
        build(&tree, &nodes);
        let sealed = seal(&tree).unwrap();
        prop_assert!(sealed.entries.is_sorted_by(|left, right| left.path < right.path));
        let mut blob = Vec::new();
        let job = PackJob { snapshot: tree, diff_id: sealed.diff_id.clone(), clamp: None, compression };
        pack(&job, &mut blob).unwrap();
        let (unpacked, outcome) = unpack_blob(&blob, &sealed.diff_id);
        let outcome = outcome.unwrap();
        prop_assert!(outcome.leans_on.is_empty());
        prop_assert_eq!(outcome.tar_size, sealed.tar_size);
        prop_assert_eq!(&outcome.entries, &sealed.entries);
        prop_assert_eq!(seal(&unpacked.path().join("t")).unwrap(), sealed);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..3000), flips in proptest::collection::vec((any::<usize>(), any::<u8>()), 0..8)) {
        let _ = unpack_blob(&bytes, "sha256:none");
        let mut tar = Layer::default()
            .pax(&[("path", "a/b"), ("mtime", "1.5")])
            .file("x", "content")
            .raw("s", b'S', "", 0o644, &[7; 600])
            .raw("long", b'L', "", 0o644, b"long/name\0")
            .link("l", "a/b")
            .file(".wh.gone", "")
            .bytes();
        for (at, value) in flips {
            let at = at % tar.len();
            tar[at] = value;
            // A correct checksum gets further.
            let header = at / 512 * 512;
            tar[header + 148..header + 156].fill(b' ');
            let sum: u32 = tar[header..header + 512].iter().map(|byte| u32::from(*byte)).sum();
            tar[header + 148..header + 155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        }
        let _ = unpack_blob(&tar, "sha256:none");
    }
}
