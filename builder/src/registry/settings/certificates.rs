//! Certificates for one registry: a directory with `*.crt` (authorities) and `*.cert` with `*.key` (ours).

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use super::SettingsError;

/// A certificate file is a few KiB; a bundle of all authorities is some 300.
const LARGEST_FILE: u64 = 4 << 20;

/// A file with certificates of authorities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    /// Where it was read.
    pub path: PathBuf,
    /// What it holds, as PEM.
    pub pem: Vec<u8>,
}

impl Authority {
    /// Reads a file. Blocks.
    ///
    /// # Errors
    /// It can't be read, is no file of certificates, or larger than any such file.
    pub fn read(path: &Path) -> io::Result<Self> {
        let mut pem = Vec::new();
        std::fs::File::open(path)?
            .take(LARGEST_FILE + 1)
            .read_to_end(&mut pem)?;
        let has_one = pem.windows(BEGIN.len()).any(|window| window == BEGIN);
        if !has_one || pem.len() as u64 > LARGEST_FILE {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "it holds no certificate in PEM form",
            ));
        }
        Ok(Self {
            path: path.to_owned(),
            pem,
        })
    }
}

/// Where distributions keep all authorities in one file.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// All authorities of this machine, as one PEM text; empty where it has none. Blocks.
pub(crate) fn of_machine() -> Vec<u8> {
    let mut found = BUNDLES.iter().filter_map(|path| std::fs::read(path).ok());
    found.next().unwrap_or_default()
}

/// Adds authorities to a PEM text.
pub(crate) fn add_authorities(pem: &mut Vec<u8>, authorities: &[Authority]) {
    for authority in authorities {
        // The text before may lack the end of its line.
        pem.push(b'\n');
        pem.extend(&authority.pem);
    }
}

/// How a certificate in PEM form begins.
const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";

/// What a directory holds, as PEM.
#[derive(Clone, Debug, Default)]
pub(crate) struct CertificateFiles {
    /// Authorities that are trusted beside the machine's.
    pub(crate) authorities: Vec<(PathBuf, Vec<u8>)>,
    /// Our certificate with its key: the file of the certificate, and both texts after each other.
    pub(crate) client: Option<(PathBuf, ClientKey)>,
}

/// A private key with its certificate; never shown.
#[derive(Clone)]
pub(crate) struct ClientKey(Vec<u8>);

impl ClientKey {
    pub(crate) fn pem(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for ClientKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("***")
    }
}

/// The directory of a registry, if one of `roots` has one.
pub(super) fn directory_of(roots: &[PathBuf], registry: &str) -> Option<PathBuf> {
    // A name with a slash can't come out of a reference; still nothing leads out of the directory.
    if registry.contains('/') || registry.starts_with('.') {
        return None;
    }
    roots
        .iter()
        .map(|root| root.join(registry))
        .find(|path| path.is_dir())
}

/// Reads a directory.
pub(super) fn read(directory: &Path) -> Result<CertificateFiles, SettingsError> {
    let unreadable = |path: &Path| {
        let path = path.to_owned();
        move |source| SettingsError::Read { path, source }
    };
    let mut paths = std::fs::read_dir(directory)
        .and_then(|entries| {
            entries
                .map(|entry| entry.map(|entry| entry.path()))
                .collect::<io::Result<Vec<PathBuf>>>()
        })
        .map_err(unreadable(directory))?;
    paths.sort();
    let mut files = CertificateFiles::default();
    for path in paths {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("crt") => {
                let text = read_bounded(&path).map_err(unreadable(&path))?;
                files.authorities.push((path, text));
            }
            Some("cert") if files.client.is_none() => {
                let key_path = path.with_extension("key");
                if !key_path.exists() {
                    return Err(SettingsError::Certificate {
                        path,
                        reason: format!("its key `{}` is missing", key_path.display()),
                    });
                }
                let mut text = read_bounded(&path).map_err(unreadable(&path))?;
                text.push(b'\n');
                text.extend(read_bounded(&key_path).map_err(unreadable(&key_path))?);
                files.client = Some((path, ClientKey(text)));
            }
            _ => {}
        }
    }
    Ok(files)
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path)?;
    io::Read::read_to_end(&mut io::Read::take(file, LARGEST_FILE), &mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_found_and_read() {
        let root = tempfile::tempdir().expect("a directory");
        let own = root.path().join("localhost:5000");
        std::fs::create_dir(&own).expect("made");
        for (name, text) in [
            ("b.crt", "B"),
            ("a.crt", "A"),
            ("me.cert", "C"),
            ("x.txt", "X"),
        ] {
            std::fs::write(own.join(name), text).expect("written");
        }
        let roots = [PathBuf::from("/nonexistent"), root.path().to_owned()];
        assert_eq!(directory_of(&roots, "localhost:5000"), Some(own.clone()));
        assert_eq!(directory_of(&roots, "localhost:5001"), None);
        assert_eq!(directory_of(&roots, ".."), None);
        let error = read(&own).expect_err("no key").to_string();
        assert!(error.contains("me.key` is missing"), "{error}");
        std::fs::write(own.join("me.key"), "K").expect("written");
        let files = read(&own).expect("readable");
        let texts: Vec<&[u8]> = files
            .authorities
            .iter()
            .map(|(_, text)| &text[..])
            .collect();
        assert_eq!(texts, [b"A", b"B"]);
        let (_, key) = files.client.expect("a client certificate");
        assert_eq!(
            (key.pem(), format!("{key:?}").as_str()),
            (&b"C\nK"[..], "***")
        );
    }
}
