//! Layers of deletions, opaque directories, links and files under few names: nothing outside is touched, and what was unpacked is
//! what is found in the directory afterwards.
#![no_main]

use std::fs;
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use rbuild_runner::job::{LayerEntryKind, UnpackJob};
use rbuild_runner::{seal, unpack};

const NAMES: [&str; 8] = ["a", "b", "c", ".wh.a", ".wh.b", ".wh..wh..opq", "..", ".wh.."];
const LINKS: [&str; 6] = ["a", "/b", "../..", "../outside", "/", "b/c"];

/// One entry of three bytes: type, names, link or length.
fn add(tar: &mut Vec<u8>, bytes: &[u8]) {
    let (kind, names, extra) = (bytes[0], usize::from(bytes[1]), usize::from(bytes[2]));
    let mut path = NAMES[names & 7].to_owned();
    if names & 0x40 != 0 {
        path = format!("{path}/{}", NAMES[(names >> 3) & 7]);
    }
    if names & 0x80 != 0 {
        path = format!("{path}/{}", NAMES[extra & 7]);
    }
    let flag = [b'0', b'5', b'2', b'1', b'0', b'3'][usize::from(kind) % 6];
    let link = match flag {
        b'1' | b'2' => LINKS[extra % LINKS.len()],
        _ => "",
    };
    let mut block = [0_u8; 512];
    block[..path.len()].copy_from_slice(path.as_bytes());
    block[100..107].copy_from_slice(b"0000755");
    for at in [108, 116, 329, 337] {
        block[at..at + 7].copy_from_slice(b"0000000");
    }
    block[124..135].copy_from_slice(b"00000000000");
    block[136..147].copy_from_slice(b"07346545000");
    block[156] = flag;
    block[157..157 + link.len()].copy_from_slice(link.as_bytes());
    block[257..265].copy_from_slice(b"ustar\x0000");
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    tar.extend_from_slice(&block);
}

fn run(directory: &Path, bytes: &[u8]) {
    let path = |name: &str| directory.join(name);
    let mut tar = Vec::new();
    for entry in bytes.chunks_exact(3).take(64) {
        add(&mut tar, entry);
    }
    tar.resize(tar.len() + 1024, 0);
    fs::write(path("blob"), &tar).expect("the temporary directory is writable");
    fs::create_dir(path("outside")).expect("the temporary directory is writable");
    fs::write(path("outside/a"), "untouched").expect("the temporary directory is writable");
    fs::create_dir(path("target")).expect("the temporary directory is writable");
    let unpacked = unpack::unpack(&UnpackJob {
        blob: path("blob"),
        target: path("target"),
        diff_id: rbuild_runner::fuzz::diff_id(&tar),
    });
    assert_eq!(fs::read(path("outside/a")).ok().as_deref(), Some(&b"untouched"[..]));
    assert_eq!(fs::read_dir(path("outside")).map(Iterator::count).ok(), Some(1));
    assert_eq!(fs::read_dir(directory).map(Iterator::count).ok(), Some(3));
    let Ok(unpacked) = unpacked else { return };
    for entry in &unpacked.entries {
        let name = entry.path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        let is_mark = name.starts_with(b".wh.");
        assert!(!is_mark, "a mark became a file: {:?}", entry.path.escape_ascii().to_string());
        assert!(!(entry.kind == LayerEntryKind::Whiteout && name.is_empty()));
    }
    let mut sealed = seal::seal(&path("target")).expect("what was unpacked can be read").entries;
    // Directories that the layer does not name get their times when it is completed. The root among them means that the layer hides
    // all that lies beneath; it is an entry only if it is named.
    for entry in &mut sealed {
        if !entry.path.is_empty() && unpacked.leans_on.implied_parents.contains(&entry.path) {
            (entry.mtime, entry.mtime_nanos) = (0, 0);
        }
    }
    // A link into a lower layer is made when the layer is completed: until then nothing stands there.
    let mut entries = unpacked.entries;
    let is_pending = |path: &[u8]| unpacked.leans_on.lower_links.iter().any(|(link, _)| link == path);
    entries.retain(|entry| !is_pending(&entry.path));
    assert_eq!(sealed, entries);
}

fuzz_target!(|bytes: &[u8]| {
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    run(directory.path(), bytes);
});
