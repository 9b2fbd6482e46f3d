//! An ignore file and a path, split at the first zero byte: matching ends, and is the same twice.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rbuild_frontend::ignore_file::IgnoreFile;

fuzz_target!(|bytes: &[u8]| {
    let mut parts = bytes.splitn(2, |&byte| byte == 0);
    let (text, path) = (
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
    );
    let Ok(file) = IgnoreFile::parse(text) else {
        return;
    };
    let Ok(matcher) = file.matcher() else { return };
    assert_eq!(matcher.matches(path), matcher.matches(path));
    let _ = matcher.may_match_below(path);
});
