//! What is built: a base image of busybox, and a Dockerfile whose result is known without building it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest as _, Sha256};

use crate::Result;
use crate::place::Place;
use crate::random::Random;
use crate::tree::{self, Node, Tree};

/// What steps call.
const APPLETS: [&str; 8] = ["sh", "cat", "echo", "mkdir", "rm", "sleep", "true", "ls"];

/// Full name of the image that [`Workload::command`] makes.
pub(crate) const IMAGE: &str = "docker.io/library/proof:latest";

/// How many files a workload's RUN makes.
const MADE: usize = 30;

/// Writes an OCI layout of two layers into the new directory `layout`; the second one holds `ballast` bytes that do not
/// compress, so that there is something to pull.
pub(crate) fn write_base(layout: &Path, ballast: &[u8]) -> Result<()> {
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs)?;
    fs::write(
        layout.join("oci-layout"),
        r#"{"imageLayoutVersion":"1.0.0"}"#,
    )?;
    let put = |bytes: &[u8]| -> Result<(String, usize)> {
        let mut digest = String::new();
        for byte in Sha256::digest(bytes) {
            write!(digest, "{byte:02x}")?;
        }
        fs::write(blobs.join(&digest), bytes)?;
        Ok((format!("sha256:{digest}"), bytes.len()))
    };
    let layers = [first_layer()?, second_layer(ballast)?];
    let stored = [put(&layers[0])?, put(&layers[1])?];
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": { "Env": ["PATH=/bin"] },
        "rootfs": { "type": "layers", "diff_ids": [stored[0].0, stored[1].0] },
    });
    let (config_digest, config_size) = put(config.to_string().as_bytes())?;
    let descriptors: Vec<_> = stored
        .iter()
        .map(|(digest, size)| {
            serde_json::json!({
                "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": size,
            })
        })
        .collect();
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "layers": descriptors,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json", "digest": config_digest, "size": config_size,
        },
    });
    let (digest, size) = put(manifest.to_string().as_bytes())?;
    let index = serde_json::json!({
        "schemaVersion": 2,
        "manifests": [{ "mediaType": MANIFEST, "digest": digest, "size": size }],
    });
    Ok(fs::write(layout.join("index.json"), index.to_string())?)
}

/// Media type of the base's manifest.
pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

fn first_layer() -> Result<Vec<u8>> {
    let busybox = fs::read("/bin/busybox")
        .map_err(|error| format!("/bin/busybox (Debian's busybox-static) is needed: {error}"))?;
    let mut layer = tar::Builder::new(Vec::new());
    for directory in ["bin", "etc", "dev", "proc", "sys", "tmp"] {
        append(
            &mut layer,
            &format!("{directory}/"),
            tar::EntryType::Directory,
            b"",
        )?;
    }
    append(&mut layer, "bin/busybox", tar::EntryType::Regular, &busybox)?;
    for applet in APPLETS {
        let mut header = header(tar::EntryType::Symlink, 0);
        layer.append_link(&mut header, format!("bin/{applet}"), "busybox")?;
    }
    Ok(layer.into_inner()?)
}

fn second_layer(ballast: &[u8]) -> Result<Vec<u8>> {
    let mut layer = tar::Builder::new(Vec::new());
    append(&mut layer, "ballast/", tar::EntryType::Directory, b"")?;
    for (number, part) in ballast.chunks(64 << 10).enumerate() {
        append(
            &mut layer,
            &format!("ballast/{number}"),
            tar::EntryType::Regular,
            part,
        )?;
    }
    Ok(layer.into_inner()?)
}

fn header(kind: tar::EntryType, size: usize) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(0o755);
    header.set_size(size as u64);
    header.set_mtime(1_000_000_000);
    header.set_uid(0);
    header.set_gid(0);
    header
}

fn append(
    layer: &mut tar::Builder<Vec<u8>>,
    path: &str,
    kind: tar::EntryType,
    content: &[u8],
) -> Result<()> {
    Ok(layer.append_data(&mut header(kind, content.len()), path, content)?)
}

/// A context and a Dockerfile, and what the image has to hold.
#[derive(Debug)]
pub(crate) struct Workload {
    context: PathBuf,
    base: String,
    files: BTreeMap<String, Vec<u8>>,
    /// In the text of a step, so that a new one makes it run.
    version: u64,
}

impl Workload {
    /// A workload with its context in the directory `context`. `base` is the layout of [`write_base`].
    pub(crate) fn new(context: PathBuf, base: &Path, random: &mut Random) -> Result<Self> {
        fs::create_dir_all(context.join("src"))?;
        let mut workload = Self {
            context,
            base: format!("base=oci-layout://{}", base.display()),
            files: BTreeMap::new(),
            version: 0,
        };
        for number in 0..12 {
            let size = 1 + random.below(32 << 10);
            workload.write(&format!("f{number}"), random.bytes(size))?;
        }
        workload.change(random)?;
        Ok(workload)
    }

    fn write(&mut self, name: &str, content: Vec<u8>) -> Result<()> {
        fs::write(self.context.join("src").join(name), &content)?;
        self.files.insert(name.to_owned(), content);
        Ok(())
    }

    /// Changes a file and the text of a step: what depends on them has to run again.
    pub(crate) fn change(&mut self, random: &mut Random) -> Result<()> {
        let name = format!("f{}", random.below(12));
        let size = 1 + random.below(32 << 10);
        self.write(&name, random.bytes(size))?;
        if random.chance(50) {
            self.version = random.next();
        }
        let text = format!(
            "FROM base AS one\nCOPY src /src\n\
            RUN --mount=type=cache,target=/cache cat /src/* > /one && echo x >> /cache/log\n\
            FROM base AS two\n\
            RUN mkdir /made && i=0 && while [ $i -lt {MADE} ]; do echo \"$i {version}\" > /made/$i; i=$((i+1)); done\n\
            FROM base\nCOPY --from=one /one /one\nCOPY --from=two /made /made\nCOPY src/f0 /f0\n\
            RUN cat /one /f0 > /two && rm /f0\n",
            version = self.version,
        );
        Ok(fs::write(self.context.join("Dockerfile"), text)?)
    }

    /// The build.
    pub(crate) fn command(&self, place: &Place, root: &Path) -> Command {
        let mut command = place.rbuild(root);
        command
            .args([
                "build",
                "--progress",
                "plain",
                "-t",
                "proof",
                "--build-context",
            ])
            .arg(&self.base)
            .arg(&self.context);
        command
    }

    /// What the image has to hold, beside the base.
    pub(crate) fn expected(&self) -> Tree {
        let one: Vec<u8> = self.files.values().flatten().copied().collect();
        let two = [one.as_slice(), &self.files["f0"]].concat();
        let mut expected = Tree::from([
            ("one".into(), tree::file(0o644, &one)),
            ("two".into(), tree::file(0o644, &two)),
            ("made".into(), Node::Directory { mode: 0o755 }),
        ]);
        for number in 0..MADE {
            let content = format!("{number} {}\n", self.version);
            expected.insert(
                format!("made/{number}").into(),
                tree::file(0o644, content.as_bytes()),
            );
        }
        expected
    }
}
