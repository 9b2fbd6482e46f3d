//! A store with a spawner, images made by hand, and trees made comparable.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses its own part"
)]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rbuild::event::Event;
use rbuild::export::Exporter;
use rbuild::manifest::digest_of;
use rbuild::pull::ImageSources;
use rbuild::registry::{ClientOptions, RegistryClient};
use rbuild::tasks::Tasks;
use rbuild_cache::{Lease, Store};
use rbuild_runner::Spawner;
use tempfile::TempDir;

/// A store in a directory of its own.
pub struct Place {
    pub directory: TempDir,
    pub sources: ImageSources,
    pub lease: Lease,
    pub events: Arc<Mutex<Vec<Event>>>,
}

impl Place {
    /// None, with a word why, where tests can't do what they need.
    pub fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            assert!(std::env::var_os("CI").is_none(), "image tests need root");
            return None;
        }
        let directory = tempfile::tempdir().expect("a directory");
        let store = Store::open(&directory.path().join("store")).expect("a store");
        let lease = store.lease().expect("a lease");
        let events: Arc<Mutex<Vec<Event>>> = Arc::default();
        let log = Arc::clone(&events);
        let tasks = Tasks::new(Arc::new(move |event| {
            log.lock().expect("no panic").push(event);
        }));
        let options = ClientOptions {
            attempts: 2,
            first_pause: Duration::from_millis(1),
            ..ClientOptions::default()
        };
        let client = RegistryClient::new(options);
        let spawner = Spawner::start().expect("a spawner");
        Some(Self {
            sources: ImageSources {
                store,
                spawner,
                client,
                tasks,
            },
            lease,
            events,
            directory,
        })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn exporter(&self) -> Exporter {
        Exporter {
            sources: self.sources.clone(),
        }
    }
}

/// One member of a layer tar.
pub enum Member<'a> {
    Directory(&'a str, u32, u64),
    File(&'a str, u32, u64, &'a [u8]),
    Symlink(&'a str, &'a str),
    HardLink(&'a str, &'a str),
}

/// Makes a layer tar.
pub fn layer_tar(members: &[Member<'_>]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for member in members {
        let mut header = tar::Header::new_ustar();
        header.set_mtime(981_173_106);
        header.set_size(0);
        header.set_gid(0);
        header.set_uid(0);
        let (path, content): (&str, &[u8]) = match member {
            Member::Directory(path, mode, uid) => {
                header.set_entry_type(tar::EntryType::Directory);
                header.set_mode(*mode);
                header.set_uid(*uid);
                (path, b"")
            }
            Member::File(path, mode, uid, content) => {
                header.set_mode(*mode);
                header.set_uid(*uid);
                header.set_size(content.len() as u64);
                (path, content)
            }
            Member::Symlink(path, target) => {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_mode(0o777);
                header.set_link_name(target).expect("a short name");
                (path, b"")
            }
            Member::HardLink(path, target) => {
                header.set_entry_type(tar::EntryType::Link);
                header.set_mode(0o644);
                header.set_link_name(target).expect("a short name");
                (path, b"")
            }
        };
        header.set_path(path).expect("a short name");
        header.set_cksum();
        builder.append(&header, content).expect("into memory");
    }
    builder.into_inner().expect("into memory")
}

/// Pipes bytes through a command.
pub fn through(command: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new(command[0])
        .args(&command[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}", command[0]));
    let mut stdin = child.stdin.take().expect("piped");
    let input = input.to_vec();
    let feeder = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().expect("it ran");
    feeder.join().expect("no panic").expect("it read all");
    assert!(output.status.success(), "{command:?}");
    output.stdout
}

/// Runs a command that has to succeed; its stdout.
pub fn run(command: &[&str]) -> String {
    let output = Command::new(command[0]).args(&command[1..]).output();
    let output = output.unwrap_or_else(|error| panic!("{}: {error}", command[0]));
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// An OCI layout that is being made.
pub struct Layout {
    pub path: PathBuf,
    entries: Vec<serde_json::Value>,
    /// Compress with zstd, which Debian's umoci and Docker's manifests do not know.
    pub has_zstd: bool,
}

impl Layout {
    pub fn new(path: PathBuf) -> Self {
        fs::create_dir_all(path.join("blobs/sha256")).expect("mkdir");
        fs::write(path.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("write");
        Self {
            path,
            entries: Vec::new(),
            has_zstd: false,
        }
    }

    pub fn blob(&self, media_type: &str, bytes: &[u8]) -> serde_json::Value {
        let digest = digest_of(bytes);
        fs::write(self.path.join("blobs/sha256").join(digest.digest()), bytes).expect("write");
        serde_json::json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() })
    }

    /// Adds an image of layers: plain and gzip by turns, or zstd.
    pub fn image(&self, layers: &[Vec<u8>], architecture: &str) -> serde_json::Value {
        let diff_ids: Vec<String> = layers
            .iter()
            .map(|layer| digest_of(layer).to_string())
            .collect();
        let layers: Vec<serde_json::Value> = layers
            .iter()
            .enumerate()
            .map(|(number, layer)| match number % 2 {
                _ if self.has_zstd => self.blob(
                    "application/vnd.oci.image.layer.v1.tar+zstd",
                    &through(&["zstd", "-qc"], layer),
                ),
                0 => self.blob("application/vnd.oci.image.layer.v1.tar", layer),
                _ => self.blob(
                    "application/vnd.oci.image.layer.v1.tar+gzip",
                    &through(&["gzip", "-nc"], layer),
                ),
            })
            .collect();
        let config = serde_json::json!({
            "architecture": architecture, "os": "linux", "created": "2001-02-03T04:05:06Z",
            "config": { "Env": [format!("ARCH={architecture}")] },
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let config = self.blob(
            "application/vnd.oci.image.config.v1+json",
            config.to_string().as_bytes(),
        );
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config, "layers": layers,
        });
        let mut descriptor = self.blob(
            "application/vnd.oci.image.manifest.v1+json",
            manifest.to_string().as_bytes(),
        );
        descriptor["platform"] = serde_json::json!({ "architecture": architecture, "os": "linux" });
        descriptor
    }

    pub fn index(&self, manifests: &[serde_json::Value]) -> serde_json::Value {
        let index = serde_json::json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": manifests,
        });
        self.blob(
            "application/vnd.oci.image.index.v1+json",
            index.to_string().as_bytes(),
        )
    }

    pub fn tag(&mut self, mut descriptor: serde_json::Value, tag: Option<&str>) {
        if let Some(tag) = tag {
            descriptor["annotations"] =
                serde_json::json!({ "org.opencontainers.image.ref.name": tag });
        }
        self.entries.push(descriptor);
        let index = serde_json::json!({ "schemaVersion": 2, "manifests": self.entries });
        fs::write(self.path.join("index.json"), index.to_string()).expect("write");
    }
}

/// Everything about a tree that an image has to get right, one line a path.
pub fn describe(root: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut first_names = BTreeMap::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(directory) = waiting.pop() {
        let mut paths: Vec<PathBuf> = fs::read_dir(&directory)
            .expect("readable")
            .map(|entry| entry.expect("an entry").path())
            .collect();
        paths.sort();
        for path in paths {
            let metadata = fs::symlink_metadata(&path).expect("stat");
            let kind = metadata.file_type();
            let name = path
                .strip_prefix(root)
                .expect("below the root")
                .display()
                .to_string();
            let what = if kind.is_dir() {
                waiting.push(path.clone());
                "directory".to_owned()
            } else if kind.is_symlink() {
                let target = fs::read_link(&path).expect("a link");
                format!(
                    "link to {}",
                    String::from_utf8_lossy(target.as_os_str().as_bytes())
                )
            } else if kind.is_file() {
                let content = digest_of(&fs::read(&path).expect("readable"));
                let first = first_names
                    .entry(metadata.ino())
                    .or_insert_with(|| name.clone());
                format!(
                    "file {content}, same as {first}, {} names",
                    metadata.nlink()
                )
            } else {
                format!("special {} {}", kind.is_fifo(), metadata.rdev())
            };
            let (mode, uid, gid) = (metadata.mode(), metadata.uid(), metadata.gid());
            let mtime = if kind.is_dir() { 0 } else { metadata.mtime() };
            found.insert(name, format!("{what}, {mode:o} {uid}:{gid} {mtime}"));
        }
    }
    found
}
