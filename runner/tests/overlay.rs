//! Sealing what a real overlay leaves behind. The overlay is mounted in a mount namespace of its own by `unshare`,
//! which ends with the command; needs root.

use std::path::Path;
use std::process::Command;

use rbuild_runner::job::{Compression, LayerEntryKind, PackJob, SealedLayer, UnpackJob};
use rbuild_runner::{pack, seal, unpack};

/// Runs a script in the merged view of an overlay of `lower` and a new upper directory, and seals that.
fn change(directory: &Path, script: &str) -> SealedLayer {
    for name in ["lower", "upper", "work", "merged"] {
        std::fs::create_dir_all(directory.join(name)).expect("a directory");
    }
    let script = format!(
        "mount -t overlay overlay -o userxattr,lowerdir=lower,upperdir=upper,workdir=work merged && cd merged && {script}"
    );
    let output = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-euc", &script])
        .current_dir(directory)
        .output()
        .expect("unshare is installed");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    seal::seal(&directory.join("upper")).expect("the upper directory is sealed")
}

fn summary(layer: &SealedLayer) -> Vec<String> {
    let kind = |kind: &LayerEntryKind| match kind {
        LayerEntryKind::Directory { is_opaque: true } => "opaque",
        LayerEntryKind::Directory { .. } => "dir",
        LayerEntryKind::File { .. } => "file",
        LayerEntryKind::HardLink { .. } => "link",
        LayerEntryKind::Whiteout => "gone",
        _ => "other",
    };
    layer
        .entries
        .iter()
        .map(|entry| format!("{} {}", entry.path.escape_ascii(), kind(&entry.kind)))
        .collect()
}

#[test]
fn what_a_command_changes_is_the_layer() {
    let directory = tempfile::tempdir().expect("a directory");
    let lower = directory.path().join("lower");
    for name in ["keep/in", "replaced/old", "gone/deep"] {
        std::fs::create_dir_all(lower.join(name)).expect("a directory");
    }
    std::fs::write(lower.join("keep/in/f"), "old").expect("a file");
    std::fs::write(lower.join("file"), "old").expect("a file");
    std::fs::write(lower.join("other"), "old").expect("a file");
    let layer = change(
        directory.path(),
        "rm -r gone replaced && mkdir replaced && echo n > replaced/new
         rm file && rm other && mkdir other && ln -s x link && mkfifo pipe
         echo more >> keep/in/f && ln keep/in/f hard
         setfattr -n user.overlay.opaque -v y replaced 2>/dev/null || true",
    );
    assert_eq!(
        summary(&layer),
        [
            "file gone",
            "gone gone",
            "hard file",
            "keep dir",
            "keep/in dir",
            "keep/in/f link",
            "link other",
            "other opaque",
            "pipe other",
            "replaced opaque",
            "replaced/new file",
        ]
    );

    let blob = directory.path().join("blob");
    let out = std::fs::File::create(&blob).expect("a file");
    let snapshot = directory.path().join("upper");
    let diff_id = layer.diff_id.clone();
    let job = PackJob {
        snapshot,
        diff_id: diff_id.clone(),
        clamp: None,
        compression: Compression::Zstd { level: 3 },
    };
    pack::pack(&job, out).expect("it packs");
    let target = directory.path().join("unpacked");
    std::fs::create_dir(&target).expect("a directory");
    let outcome = unpack::unpack(&UnpackJob {
        blob,
        target: target.clone(),
        diff_id,
    })
    .expect("it unpacks");
    assert_eq!(outcome.entries, layer.entries);
    assert_eq!(seal::seal(&target).expect("it seals"), layer);
}

#[test]
fn touching_nothing_is_the_empty_layer() {
    let directory = tempfile::tempdir().expect("a directory");
    let layer = change(directory.path(), "ls > /dev/null");
    assert_eq!(
        layer.diff_id,
        "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"
    );
}
