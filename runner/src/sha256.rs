//! sha256 digests as OCI spells them.

use sha2::{Digest, Sha256};

/// `sha256:` and the hex digits.
pub(crate) fn text(hasher: Sha256) -> String {
    use std::fmt::Write;
    let mut text = String::from("sha256:");
    for byte in hasher.finalize() {
        write!(text, "{byte:02x}").expect("writing to a string");
    }
    text
}
