//! Deliberate differences that can meet any row: see `docs/differences.md`. A row is first compared like every other;
//! only when it differs does it count what its text holds.

use super::rows::notice;

/// Why a row about this file may differ, if it may; `error` is what the reference said about it.
pub(crate) fn reason(dockerfile: &str, error: &str) -> Option<&'static str> {
    if dockerfile.lines().any(has_flag_beyond_ascii) {
        return Some("flags are UTF-8");
    }
    if dockerfile.contains("--platform=windows") {
        return Some("paths for Windows");
    }
    // Left out of the recorded warnings, but the build that it failed has failed.
    if error.contains("for rules: InvalidBaseImagePlatform") {
        return Some("the recorded base is of another platform");
    }
    if error.contains("circular dependency detected on stage: scratch") {
        return Some("a mount without `from` reads no stage called `scratch`");
    }
    error
        .contains("device feature is only supported")
        .then_some("`RUN --device` is understood")
}

/// Whether a character beyond ASCII follows the beginning of a flag: at the front of a line, or behind an instruction's
/// word or two.
fn has_flag_beyond_ascii(line: &str) -> bool {
    let mut words = line.split_whitespace().take(3);
    let flag = words.find(|word| word.starts_with("--"));
    let place = flag.and_then(|flag| line.find(flag));
    place.is_some_and(|place| !line[place..].is_ascii())
}

/// Fails with `words`, unless the row may differ: then it is told.
pub(crate) fn differs(dockerfile: &str, error: &str, words: String) -> Result<(), String> {
    let Some(reason) = reason(dockerfile, error) else {
        return Err(words);
    };
    notice(&format!("differs on purpose ({reason}): {dockerfile:?}"));
    Ok(())
}
