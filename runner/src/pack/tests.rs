use std::io::Read;

use sha2::Digest as _;

use super::*;
use crate::seal::seal;

fn job(snapshot: &std::path::Path, compression: Compression) -> PackJob {
    let diff_id = seal(snapshot).unwrap().diff_id;
    PackJob {
        snapshot: snapshot.to_path_buf(),
        diff_id,
        clamp: None,
        compression,
    }
}

fn sample() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("d")).unwrap();
    for number in 0..40_u32 {
        let content = format!("{number} ").repeat(20_000);
        std::fs::write(directory.path().join(format!("d/{number}")), content).unwrap();
    }
    directory
}

#[test]
fn every_compression_gives_the_sealed_tar_back() {
    let directory = sample();
    for compression in [
        Compression::None,
        Compression::Gzip { level: 6 },
        Compression::Zstd { level: 3 },
    ] {
        let job = job(directory.path(), compression);
        let mut one = Vec::new();
        let outcome = pack_with(&job, &mut one, 1).unwrap();
        assert_eq!(
            (outcome.size, &outcome.diff_id),
            (one.len() as u64, &job.diff_id)
        );
        assert_eq!(outcome.digest, sha256::text(Sha256::new_with_prefix(&one)));
        for threads in [2, 5] {
            let mut other = Vec::new();
            pack_with(&job, &mut other, threads).unwrap();
            assert!(one == other, "{compression:?} with {threads} threads");
        }
        let mut tar = Vec::new();
        crate::decompress::reader(&one[..])
            .unwrap()
            .read_to_end(&mut tar)
            .unwrap();
        assert_eq!(sha256::text(Sha256::new_with_prefix(&tar)), job.diff_id);
    }
}

#[test]
fn a_changed_snapshot_is_corrupt() {
    let directory = sample();
    let mut job = job(directory.path(), Compression::Gzip { level: 1 });
    std::fs::write(directory.path().join("d/7"), "flipped").unwrap();
    assert!(matches!(
        pack(&job, io::sink()),
        Err(PackError::Corrupt { .. })
    ));
    job.clamp = Some(0);
    assert!(matches!(
        pack(&job, io::sink()),
        Err(PackError::Corrupt { .. })
    ));
}

#[test]
fn clamping_makes_times_equal() {
    let (first, second) = (sample(), sample());
    let clamped = |directory: &tempfile::TempDir| {
        let job = PackJob {
            clamp: Some(1_000_000_000),
            ..job(directory.path(), Compression::None)
        };
        let outcome = pack(&job, io::sink()).unwrap();
        assert_ne!(outcome.diff_id, job.diff_id);
        outcome
    };
    assert_eq!(clamped(&first), clamped(&second));
}
