use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::*;
use crate::job::{Compression, LayerEntryKind, LeansOn, PackJob};
use crate::seal::seal;

mod hostile;
mod lower;
mod round_trip;

/// A layer tar made by hand.
#[derive(Default)]
pub(crate) struct Layer(Vec<u8>);

impl Layer {
    pub(crate) fn raw(
        mut self,
        path: &str,
        flag: u8,
        link: &str,
        mode: u32,
        content: &[u8],
    ) -> Self {
        let mut block = [0_u8; 512];
        block[..path.len()].copy_from_slice(path.as_bytes());
        let mut octal = |at: usize, width: usize, number: u64| {
            block[at..at + width].copy_from_slice(format!("{number:0width$o}").as_bytes());
        };
        octal(100, 7, mode.into());
        octal(108, 7, 0);
        octal(116, 7, 0);
        octal(124, 11, content.len() as u64);
        octal(136, 11, 1_000_000_000);
        octal(
            329,
            7,
            u64::from(!(flag == b'3' && content.is_empty() && link == "0:0")),
        );
        octal(337, 7, if link == "0:0" { 0 } else { 3 });
        block[156] = flag;
        if link != "0:0" {
            block[157..157 + link.len()].copy_from_slice(link.as_bytes());
        }
        block[257..265].copy_from_slice(b"ustar\x0000");
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        self.0.extend_from_slice(&block);
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(crate) fn directory(self, path: &str) -> Self {
        self.raw(path, b'5', "", 0o755, b"")
    }

    pub(crate) fn file(self, path: &str, content: &str) -> Self {
        self.raw(path, b'0', "", 0o644, content.as_bytes())
    }

    pub(crate) fn symlink(self, path: &str, target: &str) -> Self {
        self.raw(path, b'2', target, 0o777, b"")
    }

    pub(crate) fn link(self, path: &str, target: &str) -> Self {
        self.raw(path, b'1', target, 0o644, b"")
    }

    /// A PAX header for the next entry.
    pub(crate) fn pax(self, records: &[(&str, &str)]) -> Self {
        let mut bytes = String::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let length = (rest + 1..rest + 20)
                .find(|length| *length == rest + length.to_string().len())
                .unwrap();
            bytes.extend([&length.to_string(), " ", key, "=", value, "\n"]);
        }
        self.raw("pax", b'x', "", 0o644, bytes.as_bytes())
    }

    pub(crate) fn bytes(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }

    pub(crate) fn unpack(self) -> (tempfile::TempDir, Result<UnpackOutcome, UnpackError>) {
        let tar = self.bytes();
        unpack_blob(&tar, &crate::sha256::text(Sha256::new_with_prefix(&tar)))
    }

    /// Unpacks what must unpack.
    pub(crate) fn snapshot(self) -> (tempfile::TempDir, UnpackOutcome) {
        let (directory, result) = self.unpack();
        (directory, result.unwrap())
    }
}

pub(crate) fn unpack_blob(
    blob: &[u8],
    diff_id: &str,
) -> (tempfile::TempDir, Result<UnpackOutcome, UnpackError>) {
    let directory = tempfile::tempdir().unwrap();
    let (file, target) = (directory.path().join("blob"), directory.path().join("t"));
    std::fs::write(&file, blob).unwrap();
    std::fs::create_dir(&target).unwrap();
    let result = unpack(&UnpackJob {
        blob: file,
        target,
        diff_id: diff_id.to_string(),
    });
    (directory, result)
}

/// Paths and kinds in few words.
pub(crate) fn summary(entries: &[LayerEntry]) -> Vec<String> {
    let kind = |entry: &LayerEntry| match &entry.kind {
        LayerEntryKind::Directory { is_opaque: true } => "opaque".to_string(),
        LayerEntryKind::Directory { .. } => format!("dir {:o}", entry.mode),
        LayerEntryKind::File { size, .. } => format!("file {size}"),
        LayerEntryKind::HardLink { target } => format!("link {}", target.escape_ascii()),
        LayerEntryKind::Symlink { target } => format!("-> {}", target.escape_ascii()),
        LayerEntryKind::Whiteout => "gone".into(),
        other => format!("{other:?}"),
    };
    entries
        .iter()
        .map(|entry| format!("{} {}", entry.path.escape_ascii(), kind(entry)))
        .collect()
}
