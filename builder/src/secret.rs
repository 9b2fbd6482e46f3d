//! Values of `--secret`, read when a step or a source needs them and never kept.

use std::collections::BTreeMap;

use base64::Engine as _;

use crate::error::StepError;
use crate::options::SecretSource;

/// Secrets by id.
type Given = BTreeMap<String, SecretSource>;

/// Largest secret that is read; the reference's limit.
const MAX_SIZE: u64 = 500 << 10;

/// The value; none when the build was given no such secret.
pub(crate) fn read(given: &Given, id: &str) -> Result<Option<Vec<u8>>, StepError> {
    match given.get(id) {
        None => Ok(None),
        Some(SecretSource::Environment(name)) => {
            use std::os::unix::ffi::OsStringExt;
            Ok(std::env::var_os(name).map(OsStringExt::into_vec))
        }
        Some(SecretSource::File(path)) => {
            use std::io::Read;
            let failed = |source| StepError::SecretUnreadable {
                id: id.to_owned(),
                path: path.clone(),
                source,
            };
            let mut content = Vec::new();
            let file = std::fs::File::open(path).map_err(failed)?;
            file.take(MAX_SIZE + 1)
                .read_to_end(&mut content)
                .map_err(failed)?;
            if content.len() as u64 > MAX_SIZE {
                return Err(StepError::SecretTooLarge {
                    id: id.to_owned(),
                    limit: MAX_SIZE,
                });
            }
            Ok(Some(content))
        }
    }
}

/// A token or the value of a header: one line, without the line end that files have. An empty one is none.
pub(crate) fn read_text(given: &Given, id: &str) -> Result<Option<String>, StepError> {
    let Some(value) = read(given, id)? else {
        return Ok(None);
    };
    let not_text = || StepError::SecretNotText { id: id.to_owned() };
    let text = String::from_utf8(value).map_err(|_| not_text())?;
    let text = text.trim_end_matches(['\r', '\n']);
    if !text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return Err(not_text());
    }
    Ok(Some(text.to_owned()).filter(|text| !text.is_empty()))
}

/// For `Authorization: basic`.
pub(crate) fn base64(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}
