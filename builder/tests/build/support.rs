//! A build as a test reads it: a Dockerfile, a context, and what came out.

#[path = "../support/registry.rs"]
pub(crate) mod registry;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt::Write;
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// Applets that the test base has.
const APPLETS: [&str; 24] = [
    "sh", "cat", "cp", "chmod", "date", "echo", "grep", "head", "id", "ip", "ln", "ls", "mkdir",
    "mv", "nc", "nslookup", "rm", "sleep", "stat", "tail", "timeout", "touch", "tr", "true",
];

/// A store, a context and a base image in temporary directories.
pub(crate) struct Place {
    directory: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        let place = Self {
            directory: TempDir::new().unwrap(),
        };
        fs::create_dir(place.context()).unwrap();
        write_base(&place.path().join("base"));
        place
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn context(&self) -> PathBuf {
        self.path().join("context")
    }

    /// Writes a context file, parents included.
    pub(crate) fn file(&self, path: &str, content: &str) -> &Self {
        let path = self.context().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        self
    }

    pub(crate) fn mode(&self, path: &str, mode: u32) -> &Self {
        fs::set_permissions(self.context().join(path), fs::Permissions::from_mode(mode)).unwrap();
        self
    }

    pub(crate) fn build(&self, dockerfile: &str) -> Build<'_> {
        fs::write(self.path().join("Dockerfile"), dockerfile).unwrap();
        Build {
            place: self,
            arguments: Vec::new(),
            dockerfile: Some(self.path().join("Dockerfile")),
            context: self.context().into_os_string(),
            environment: Vec::new(),
            stdin: None,
        }
    }

    /// A build whose Dockerfile lies in its context.
    pub(crate) fn build_context(&self, context: impl Into<OsString>) -> Build<'_> {
        Build {
            place: self,
            arguments: Vec::new(),
            dockerfile: None,
            context: context.into(),
            environment: Vec::new(),
            stdin: None,
        }
    }

    /// The binary with this place's store.
    pub(crate) fn rbuild(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rbuild"));
        command
            .arg("--root")
            .arg(self.path().join("root"))
            .env_remove("SOURCE_DATE_EPOCH");
        command
    }
}

/// One call of `rbuild build`.
pub(crate) struct Build<'place> {
    place: &'place Place,
    arguments: Vec<String>,
    /// `-f`
    dockerfile: Option<PathBuf>,
    context: OsString,
    environment: Vec<(String, String)>,
    stdin: Option<Vec<u8>>,
}

impl Build<'_> {
    pub(crate) fn arg(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// A variable that the binary sees.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// What the build reads on standard input.
    pub(crate) fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(bytes.into());
        self
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = self.place.rbuild();
        command.arg("build").args(["--progress", "plain"]);
        if let Some(dockerfile) = &self.dockerfile {
            command.arg("-f").arg(dockerfile);
        }
        command
            .arg(format!(
                "--build-context=base=oci-layout://{}",
                self.place.path().join("base").display()
            ))
            .arg(format!(
                "--output=type=oci,dest={}",
                self.place.path().join("out.tar").display()
            ))
            .args(&self.arguments)
            .arg(&self.context)
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    fn output(&self) -> Output {
        let Some(stdin) = &self.stdin else {
            return self.command().output().unwrap();
        };
        // From a file: a build that ends early would break a pipe.
        let path = self.place.path().join("stdin");
        fs::write(&path, stdin).unwrap();
        let stdin = fs::File::open(&path).unwrap();
        self.command().stdin(stdin).output().unwrap()
    }

    /// Builds, and expects it to work.
    pub(crate) fn ok(self) -> Built {
        let output = self.output();
        let log = text(&output);
        assert!(output.status.success(), "build failed:\n{log}");
        Built {
            log,
            image: Image::read(&self.place.path().join("out.tar")),
        }
    }

    /// Builds, expects it to fail, and gives the exit code and all output.
    pub(crate) fn err(self) -> (i32, String) {
        let output = self.output();
        let log = text(&output);
        assert!(!output.status.success(), "build should have failed:\n{log}");
        (output.status.code().unwrap_or(-1), log)
    }
}

fn text(output: &Output) -> String {
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    text
}

/// A finished build.
pub(crate) struct Built {
    pub log: String,
    pub image: Image,
}

impl Built {
    /// Whether the step with this title was taken from the cache.
    pub(crate) fn is_cached(&self, title: &str) -> bool {
        let line = self
            .log
            .lines()
            .find(|line| line.contains(title))
            .unwrap_or_else(|| panic!("no step `{title}` in:\n{}", self.log));
        let label = line.split_inclusive(']').next().unwrap_or_default();
        let cached = format!("{label} CACHED");
        self.log.lines().any(|line| line.starts_with(&cached))
    }

    /// Asserts for each title whether it was cached.
    pub(crate) fn expect(&self, steps: &[(&str, bool)]) -> &Self {
        for (title, cached) in steps {
            assert_eq!(
                self.is_cached(title),
                *cached,
                "`{title}` cached? in:\n{}",
                self.log
            );
        }
        self
    }
}

/// What an OCI archive holds.
pub(crate) struct Image {
    pub config: serde_json::Value,
    /// Entries of each layer, lowest first, in tar order.
    pub layers: Vec<Vec<TarEntry>>,
}

#[derive(Clone, Debug)]
pub(crate) struct TarEntry {
    pub path: String,
    pub kind: tar::EntryType,
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    pub mtime: u64,
    pub link: Option<String>,
    pub content: Vec<u8>,
}

impl Image {
    pub(crate) fn read(archive: &Path) -> Self {
        let mut blobs: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        let mut tar = tar::Archive::new(fs::File::open(archive).unwrap());
        for entry in tar.entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().to_string_lossy().into_owned();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            blobs.insert(path, content);
        }
        let json =
            |path: &str| -> serde_json::Value { serde_json::from_slice(&blobs[path]).unwrap() };
        let blob = |digest: &serde_json::Value| {
            format!("blobs/{}", digest.as_str().unwrap().replace(':', "/"))
        };
        let index = json("index.json");
        let manifest = json(&blob(&index["manifests"][0]["digest"]));
        let config = json(&blob(&manifest["config"]["digest"]));
        let layers = manifest["layers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|layer| read_layer(&gunzip(&blobs[&blob(&layer["digest"])])))
            .collect();
        Self { config, layers }
    }

    /// The last entry of this path in any layer above the base.
    pub(crate) fn entry(&self, path: &str) -> Option<&TarEntry> {
        self.layers
            .iter()
            .rev()
            .find_map(|layer| layer.iter().find(|entry| entry.path == path))
    }

    /// Content of a file as text.
    pub(crate) fn text(&self, path: &str) -> String {
        let entry = self
            .entry(path)
            .unwrap_or_else(|| panic!("no `{path}` in the image"));
        String::from_utf8_lossy(&entry.content).into_owned()
    }

    pub(crate) fn diff_ids(&self) -> Vec<String> {
        let ids = self.config["rootfs"]["diff_ids"].as_array().unwrap();
        ids.iter()
            .map(|id| id.as_str().unwrap().to_owned())
            .collect()
    }
}

fn gunzip(bytes: &[u8]) -> Vec<u8> {
    if !bytes.starts_with(&[0x1f, 0x8b]) {
        return bytes.to_vec();
    }
    let mut plain = Vec::new();
    flate2::read::MultiGzDecoder::new(bytes)
        .read_to_end(&mut plain)
        .unwrap();
    plain
}

fn read_layer(bytes: &[u8]) -> Vec<TarEntry> {
    let mut entries = Vec::new();
    let mut tar = tar::Archive::new(bytes);
    for entry in tar.entries().unwrap() {
        let mut entry = entry.unwrap();
        let header = entry.header().clone();
        let path = entry
            .path()
            .unwrap()
            .to_string_lossy()
            .trim_end_matches('/')
            .to_owned();
        let link = entry
            .link_name()
            .unwrap()
            .map(|link| link.to_string_lossy().into_owned());
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        entries.push(TarEntry {
            path,
            kind: header.entry_type(),
            mode: header.mode().unwrap(),
            uid: header.uid().unwrap(),
            gid: header.gid().unwrap(),
            mtime: header.mtime().unwrap(),
            link,
            content,
        });
    }
    entries
}

/// Writes an OCI layout with one busybox layer.
pub(crate) fn write_base(directory: &Path) {
    let container = serde_json::json!({"Env": ["PATH=/bin"]});
    write_layout(directory, &[busybox_layer()], &container);
}

/// A layer with busybox, users and two files.
pub(crate) fn busybox_layer() -> Vec<u8> {
    let busybox = fs::read("/bin/busybox").expect("Debian's busybox-static is installed");
    let mut layer = tar::Builder::new(Vec::new());
    let mut add = |path: &str, kind: tar::EntryType, mode: u32, content: &[u8], link: &str| {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(content.len() as u64);
        header.set_mtime(1_000_000_000);
        header.set_uid(0);
        header.set_gid(0);
        if link.is_empty() {
            layer.append_data(&mut header, path, content).unwrap();
        } else {
            layer.append_link(&mut header, path, link).unwrap();
        }
    };
    for directory in ["bin", "etc", "dev", "proc", "sys", "tmp", "root", "data"] {
        add(
            &format!("{directory}/"),
            tar::EntryType::Directory,
            if directory == "tmp" { 0o1777 } else { 0o755 },
            b"",
            "",
        );
    }
    add("bin/busybox", tar::EntryType::Regular, 0o755, &busybox, "");
    for applet in APPLETS {
        add(
            &format!("bin/{applet}"),
            tar::EntryType::Symlink,
            0o777,
            b"",
            "busybox",
        );
    }
    add(
        "etc/passwd",
        tar::EntryType::Regular,
        0o644,
        b"root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n",
        "",
    );
    add(
        "etc/group",
        tar::EntryType::Regular,
        0o644,
        b"root:x:0:\napp:x:1001:\nextra:x:1002:app\n",
        "",
    );
    for (path, content) in [("data/one", "1"), ("data/two", "2")] {
        add(path, tar::EntryType::Regular, 0o644, content.as_bytes(), "");
    }
    layer.into_inner().unwrap()
}

/// Writes an OCI layout of uncompressed layers, tagged `latest`.
pub(crate) fn write_layout(directory: &Path, layers: &[Vec<u8>], container: &serde_json::Value) {
    let blobs = directory.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let put = |bytes: &[u8], media_type: &str| {
        let mut hex = String::new();
        for byte in Sha256::digest(bytes) {
            write!(hex, "{byte:02x}").unwrap();
        }
        fs::write(blobs.join(&hex), bytes).unwrap();
        serde_json::json!({"mediaType": media_type, "digest": format!("sha256:{hex}"), "size": bytes.len()})
    };
    let layers: Vec<_> = layers
        .iter()
        .map(|layer| put(layer, "application/vnd.oci.image.layer.v1.tar"))
        .collect();
    let diff_ids: Vec<_> = layers.iter().map(|layer| layer["digest"].clone()).collect();
    let config = serde_json::json!({
        "architecture": if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" },
        "os": "linux",
        "config": container,
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let config = put(
        &serde_json::to_vec(&config).unwrap(),
        "application/vnd.oci.image.config.v1+json",
    );
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config,
        "layers": layers,
    });
    let mut manifest = put(
        &serde_json::to_vec(&manifest).unwrap(),
        "application/vnd.oci.image.manifest.v1+json",
    );
    manifest["annotations"] = serde_json::json!({"org.opencontainers.image.ref.name": "latest"});
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [manifest]});
    fs::write(
        directory.join("index.json"),
        serde_json::to_vec(&index).unwrap(),
    )
    .unwrap();
    fs::write(
        directory.join("oci-layout"),
        r#"{"imageLayoutVersion":"1.0.0"}"#,
    )
    .unwrap();
}

/// Runs a tool and expects success.
pub(crate) fn tool<S: AsRef<OsStr>>(
    program: &str,
    arguments: impl IntoIterator<Item = S>,
) -> String {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program} is not installed: {error}"));
    assert!(
        output.status.success(),
        "{program} failed:\n{}",
        text(&output)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
