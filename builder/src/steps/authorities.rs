//! What `--ca-cert` gives a RUN step: a file with the machine's authorities and the added ones, and the variables that programs look
//! for it by. It lies in the sandbox's own /dev, so it is never in a layer; and like a proxy's address it is in no key.

use rbuild_runner::job::ProvidedFile;

use crate::registry::{Authority, add_authorities, of_machine};

/// Where the file is.
const TARGET: &str = "/dev/rbuild/certificates.pem";

/// Who looks for it by what.
const VARIABLES: [&str; 5] = [
    "SSL_CERT_FILE",
    "NODE_EXTRA_CA_CERTS",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
];

/// The file; none when nothing was added.
pub(super) fn file(authorities: &[Authority]) -> Option<ProvidedFile> {
    if authorities.is_empty() {
        return None;
    }
    let mut content = of_machine();
    add_authorities(&mut content, authorities);
    Some(ProvidedFile {
        target: TARGET.into(),
        content,
        mode: 0o644,
        uid: 0,
        gid: 0,
    })
}

/// Adds the variables that the image and the Dockerfile don't set.
pub(super) fn add_variables(authorities: &[Authority], environment: &mut Vec<(Vec<u8>, Vec<u8>)>) {
    if authorities.is_empty() {
        return;
    }
    for name in VARIABLES {
        if !environment
            .iter()
            .any(|(known, _)| known == name.as_bytes())
        {
            environment.push((name.into(), TARGET.into()));
        }
    }
}
