//! Any bytes are a layer or an error, and nothing outside the target directory is touched.
#![no_main]

use std::fs;

use libfuzzer_sys::fuzz_target;
use rbuild_runner::job::UnpackJob;
use rbuild_runner::unpack::unpack;

fuzz_target!(|bytes: &[u8]| {
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let path = |name: &str| directory.path().join(name);
    fs::write(path("blob"), bytes).expect("the temporary directory is writable");
    fs::write(path("canary"), "untouched").expect("the temporary directory is writable");
    fs::create_dir(path("target")).expect("the temporary directory is writable");
    let diff_id = format!("sha256:{}", "0".repeat(64));
    let _ = unpack(&UnpackJob {
        blob: path("blob"),
        target: path("target"),
        diff_id,
    });
    let mut names: Vec<_> = fs::read_dir(directory.path())
        .expect("it is still there")
        .filter_map(|entry| Some(entry.ok()?.file_name()))
        .collect();
    names.sort();
    assert_eq!(names, ["blob", "canary", "target"]);
    assert_eq!(
        fs::read(path("canary")).ok().as_deref(),
        Some(&b"untouched"[..])
    );
    assert_eq!(fs::read(path("blob")).ok().as_deref(), Some(bytes));
});
