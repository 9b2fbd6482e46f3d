//! Layers and archives that write, delete, change or link what is not theirs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::naive::{self, Reader};
use crate::job::UnpackJob;
use crate::unpack::tests::Layer;
use crate::unpack::unpack;

/// A target directory, and beside it what no archive may touch.
struct Stage {
    directory: tempfile::TempDir,
}

impl Stage {
    fn new() -> Self {
        let stage = Self {
            directory: tempfile::tempdir().expect("tempdir"),
        };
        fs::create_dir(stage.outside()).expect("mkdir");
        fs::create_dir(stage.target()).expect("mkdir");
        fs::write(stage.outside().join("victim"), "untouched").expect("write");
        fs::set_permissions(stage.outside(), fs::Permissions::from_mode(0o700)).expect("chmod");
        stage
    }

    fn outside(&self) -> PathBuf {
        self.directory.path().join("outside")
    }

    fn target(&self) -> PathBuf {
        self.directory.path().join("target")
    }

    /// True when something outside is not as it was.
    fn is_touched(&self) -> bool {
        let names = |path: &Path| -> Vec<_> {
            let entries = fs::read_dir(path).into_iter().flatten().flatten();
            let mut names: Vec<_> = entries.map(|entry| entry.file_name()).collect();
            names.sort();
            names
        };
        let outside = self.outside();
        fs::read(outside.join("victim")).ok().as_deref() != Some(b"untouched")
            || names(&outside) != ["victim"]
            || fs::metadata(&outside).map_or(0, |data| data.permissions().mode()) & 0o777 != 0o700
            || names(self.directory.path()) != ["outside", "target"]
    }
}

fn unpack_for_real(layer: Layer, stage: &Stage) {
    let tar = layer.bytes();
    let blob = tempfile::NamedTempFile::new().expect("blob");
    fs::write(blob.path(), &tar).expect("write");
    let diff_id = crate::sha256::text(<sha2::Sha256 as sha2::Digest>::new_with_prefix(&tar));
    // Refused or unpacked: either is right, as long as nothing outside is touched.
    let _ = unpack(&UnpackJob {
        blob: blob.path().to_owned(),
        target: stage.target(),
        diff_id,
    });
}

/// The archive does harm to the naive unpacker, and none to ours.
#[track_caller]
fn attack(layer: impl Fn(&str) -> Layer, has_worked: impl Fn(&Stage) -> bool, reader: Reader) {
    let stage = Stage::new();
    let outside = stage.outside().to_string_lossy().into_owned();
    naive::unpack(&layer(&outside).bytes(), &stage.target(), reader);
    assert!(has_worked(&stage), "the attack does not work");
    let stage = Stage::new();
    let outside = stage.outside().to_string_lossy().into_owned();
    unpack_for_real(layer(&outside), &stage);
    assert!(!has_worked(&stage), "it works on us");
    assert!(!stage.is_touched(), "something is touched");
}

fn attack_outside(layer: impl Fn(&str) -> Layer) {
    attack(layer, Stage::is_touched, Reader::Sound);
}

#[test]
fn a_name_with_dot_dot() {
    attack_outside(|_| Layer::default().file("../outside/new", "x"));
    attack_outside(|_| {
        Layer::default()
            .directory("a")
            .file("a/../../outside/victim", "x")
    });
}

#[test]
fn an_absolute_name() {
    attack_outside(|outside| Layer::default().file(&format!("{outside}/new"), "x"));
}

#[test]
fn a_file_below_a_link() {
    attack_outside(|outside| {
        Layer::default()
            .symlink("l", outside)
            .file("l/victim", "changed")
    });
    attack_outside(|_| {
        Layer::default()
            .symlink("l", "../outside")
            .file("l/new", "x")
    });
}

#[test]
fn a_file_below_two_links() {
    attack_outside(|_| {
        Layer::default()
            .directory("a")
            .symlink("a/b", "..")
            .symlink("c", "a/b/../outside")
            .file("c/new", "x")
    });
}

#[test]
fn a_file_in_place_of_a_link() {
    attack_outside(|outside| {
        Layer::default()
            .symlink("f", &format!("{outside}/victim"))
            .file("f", "changed")
    });
}

#[test]
fn a_directory_made_below_a_link() {
    attack_outside(|outside| {
        Layer::default()
            .symlink("l", outside)
            .directory("l/new")
            .file("l/new/deep", "x")
    });
}

#[test]
fn a_hard_link_to_a_file_outside() {
    attack_outside(|_| {
        Layer::default()
            .link("h", "../outside/victim")
            .file("h", "changed")
    });
}

#[test]
fn a_hard_link_through_a_link() {
    attack_outside(|outside| {
        Layer::default()
            .symlink("l", outside)
            .link("h", "l/victim")
            .file("h", "changed")
    });
}

#[test]
fn a_deletion_below_a_link() {
    attack_outside(|outside| {
        Layer::default()
            .symlink("l", outside)
            .file("l/.wh.victim", "")
    });
}

#[test]
fn a_deletion_of_the_directory_above() {
    attack_outside(|_| Layer::default().file(".wh...", ""));
}

#[test]
fn an_opaque_mark_below_a_link() {
    attack_outside(|outside| {
        Layer::default()
            .symlink("l", outside)
            .file("l/.wh..wh..opq", "")
    });
}

#[test]
fn a_mode_through_a_link() {
    attack_outside(|outside| {
        Layer::default()
            .symlink("d", outside)
            .raw("d", b'5', "", 0o777, b"")
    });
}

/// Two readers that see different files in one archive: one of them is a scanner, the other unpacks.
#[test]
fn a_file_inside_what_another_reader_takes_for_content() {
    let layer = |_: &str| {
        Layer::default()
            .pax(&[("size", "1536")])
            .file("plain", &"x".repeat(512))
            .file("smuggled", &"y".repeat(512))
    };
    attack(
        layer,
        |stage| stage.target().join("smuggled").exists(),
        Reader::IgnoresPaxSize,
    );
}

#[test]
fn a_size_that_is_meant_for_another_header() {
    let layer = |_: &str| {
        Layer::default()
            .pax(&[("size", "1")])
            .raw("././@LongLink", b'L', "", 0o644, b"name\0")
            .file("short", "x")
    };
    attack(
        layer,
        |stage| stage.target().join("n").exists(),
        Reader::AppliesPaxToAll,
    );
}

#[test]
fn overlays_own_marks_as_attributes() {
    let layer = |_: &str| {
        Layer::default()
            .pax(&[("SCHILY.xattr.user.overlay.opaque", "y")])
            .directory("d")
    };
    let is_marked = |stage: &Stage| {
        let path = stage.target().join("d");
        rustix::fs::getxattr(path, "user.overlay.opaque", &mut [0_u8; 8]) == Ok(1)
    };
    attack(layer, is_marked, Reader::Sound);
}
