//! Hand-over to an engine of this machine: podman, docker, or containerd through ctr.
//!
//! | engine | how | what goes over |
//! |---|---|---|
//! | podman | `podman pull oci:DIR`, a layout of links to the store's blobs | the layers that it lacks; nothing but names when it has the image |
//! | docker | `docker load`, an archive through a pipe | the whole image, unless it has it: its API takes no single layers |
//! | containerd | `ctr images import -`, an archive through a pipe | the blobs that its namespace lacks |
//!
//! Layers made here go uncompressed: compressing for a place on the same disk is work for nothing, and engines know
//! layers by the digest of their uncompressed tar.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use oci_spec::image::Digest;
use rbuild_cache::{Lease, Store};
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;

use super::contents::{Assembled, Blob};
use super::document::Index;
use super::{ExportError, ExportOptions, Exported, Exporter};
use crate::blocking;
use crate::image::BuiltImage;
use crate::layout::REF_NAME;
use crate::options::{LocalEngine, MediaTypes, Output, OutputCompression, OutputKind};
use crate::tasks::Task;

/// What an engine says is read up to here.
///
/// The longest is the list of all that containerd has, 72 bytes for each.
const LONGEST_ANSWER: u64 = 4 << 20;

/// What an engine answered.
struct Answer {
    is_success: bool,
    stdout: String,
    stderr: String,
}

impl LocalEngine {
    /// The first one that is in PATH.
    pub fn find() -> Option<Self> {
        [Self::Podman, Self::Docker, Self::Containerd]
            .into_iter()
            .find(|engine| is_in_path(engine.program()))
    }

    /// What is being done while it gets an image.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Podman => "loading into podman",
            Self::Docker => "loading into docker",
            Self::Containerd => "loading into containerd",
        }
    }

    /// The program that is called.
    pub fn program(self) -> &'static str {
        match self {
            Self::Podman => "podman",
            Self::Docker => "docker",
            Self::Containerd => "ctr",
        }
    }
}

fn is_in_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

impl Exporter {
    /// Gives an image and its names to an engine.
    pub(super) async fn hand_over(
        &self,
        images: &[BuiltImage],
        output: &Output,
        options: &ExportOptions,
        names: Vec<String>,
        lease: &Lease,
        task: &Task,
    ) -> Result<Exported, ExportError> {
        if images.len() > 1 {
            return Err(ExportError::SeveralPlatforms {
                count: images.len(),
            });
        }
        let engine = output.engine.ok_or(ExportError::NoEngine)?;
        let output = Output {
            compression: OutputCompression::Uncompressed,
            // What is handed over is a config and layers; podman reads OCI's layouts only.
            media_types: MediaTypes::Oci,
            kind: OutputKind::Docker,
            ..output.clone()
        };
        let options = ExportOptions {
            has_index: false,
            ..options.clone()
        };
        // Before anything is packed: an engine that has the image needs its names only.
        let id = images[0].config_digest.clone();
        if !output.rewrites_timestamps && has_image(engine, &id).await? {
            name_image(engine, &id, &names).await?;
            return Ok(Exported {
                descriptor: None,
                config_digest: Some(id),
                names,
            });
        }
        let assembled = self
            .assemble(images, &output, &options, lease, task)
            .await?;
        let exported = Exported {
            descriptor: Some(assembled.descriptor()),
            config_digest: assembled.config_digest(),
            names: names.clone(),
        };
        match engine {
            LocalEngine::Podman => self.pull_by_podman(&assembled, &names, lease).await?,
            LocalEngine::Docker => self.pipe_to(engine, assembled, names, &output).await?,
            LocalEngine::Containerd => self.import_by_ctr(assembled, names, &output).await?,
        }
        Ok(exported)
    }

    /// Has podman pull from a layout whose blobs are links to the store's.
    async fn pull_by_podman(
        &self,
        assembled: &Assembled,
        names: &[String],
        lease: &Lease,
    ) -> Result<(), ExportError> {
        let id = assembled
            .config_digest()
            .unwrap_or_else(|| assembled.top.digest.clone());
        // Podman makes a name of the directory's path as it is typed, later versions of the tag behind it: the path is
        // relative and in lower case.
        let passing = format!("rbuild-{}-{}", &id.digest()[..12], std::process::id());
        let tag = format!("localhost/{passing}:latest");
        let (store, own, contents) = (self.sources.store.clone(), lease.clone(), assembled.clone());
        let (directory, wanted) = (passing.clone(), tag.clone());
        let place =
            blocking::run(move || write_links(&store, &own, &contents, &directory, &wanted))
                .await?;
        let source = format!("oci:{passing}:{tag}");
        call_in(
            Some(&place),
            LocalEngine::Podman,
            &["pull", "--quiet", &source],
        )
        .await?
        .expect_success(LocalEngine::Podman)?;
        let outcome = name_image(LocalEngine::Podman, &id, names).await;
        // The passing name goes in any case; what its loss could say is said by the naming.
        let _ = call(LocalEngine::Podman, &["untag", id.digest(), &tag]).await;
        outcome
    }

    /// Sends containerd what its namespace lacks.
    async fn import_by_ctr(
        &self,
        assembled: Assembled,
        names: Vec<String>,
        output: &Output,
    ) -> Result<(), ExportError> {
        let engine = LocalEngine::Containerd;
        let held = call(engine, &["content", "ls", "--quiet"]).await?;
        let held: HashSet<&str> = held.stdout.lines().collect();
        let mut lacking = assembled.clone();
        lacking.contents.blobs.retain(|hex, blob| {
            matches!(blob, Blob::Bytes(_)) || !held.contains(format!("sha256:{hex}").as_str())
        });
        if lacking.contents.blobs.len() < assembled.contents.blobs.len() {
            match self.pipe_to(engine, lacking, names.clone(), output).await {
                // Its garbage collector may have been there in between.
                Err(error) => tracing::debug!(%error, "not taken in part"),
                done => return done,
            }
        }
        self.pipe_to(engine, assembled, names, output).await
    }

    /// Pipes an archive to an engine that takes nothing else.
    async fn pipe_to(
        &self,
        engine: LocalEngine,
        assembled: Assembled,
        names: Vec<String>,
        output: &Output,
    ) -> Result<(), ExportError> {
        let arguments: &[&str] = match engine {
            LocalEngine::Containerd => &["images", "import", "-"],
            _ => &["load", "--quiet"],
        };
        let failed = |source| ExportError::Engine {
            program: engine.program(),
            source: EngineError::Run(source),
        };
        let (reader, writer) = io::pipe().map_err(failed)?;
        let mut child = Command::new(engine.program())
            .args(arguments)
            .stdin(Stdio::from(reader))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let written = self.write_to_pipe(vec![(assembled, names)], output.kind, writer);
        let (written, answer) = tokio::join!(written, listen(&mut child));
        // An engine that gives up breaks the pipe: what it says is the reason.
        answer.map_err(failed)?.expect_success(engine)?;
        written
    }
}

/// Why an engine did not take an image.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// It could not be called.
    #[error("it cannot be run")]
    Run(#[source] io::Error),
    /// It failed, and says why.
    #[error("{0}")]
    Said(String),
}

impl Answer {
    fn expect_success(&self, engine: LocalEngine) -> Result<(), ExportError> {
        if self.is_success {
            return Ok(());
        }
        let words = [&self.stderr, &self.stdout]
            .into_iter()
            .flat_map(|text| text.lines().rev())
            .map(str::trim)
            .find(|line| !line.is_empty())
            .unwrap_or("it gives no reason");
        let is_plain = |letter: &char| !letter.is_control();
        Err(ExportError::Engine {
            program: engine.program(),
            source: EngineError::Said(words.chars().filter(is_plain).take(400).collect()),
        })
    }
}

/// Whether an engine has an image with this id.
async fn has_image(engine: LocalEngine, id: &Digest) -> Result<bool, ExportError> {
    let arguments: &[&str] = match engine {
        LocalEngine::Podman => &["image", "exists", id.digest()],
        LocalEngine::Docker => &["image", "inspect", "--format", "{{.Id}}", id.as_ref()],
        // Names lead to manifests there, and an id to nothing.
        LocalEngine::Containerd => return Ok(false),
    };
    Ok(call(engine, arguments).await?.is_success)
}

async fn name_image(engine: LocalEngine, id: &Digest, names: &[String]) -> Result<(), ExportError> {
    if names.is_empty() {
        return Ok(());
    }
    let id = match engine {
        LocalEngine::Podman => id.digest(),
        _ => id.as_ref(),
    };
    if engine == LocalEngine::Podman {
        let arguments: Vec<&str> = ["tag", id]
            .into_iter()
            .chain(names.iter().map(String::as_str))
            .collect();
        return call(engine, &arguments).await?.expect_success(engine);
    }
    for name in names {
        call(engine, &["tag", id, name])
            .await?
            .expect_success(engine)?;
    }
    Ok(())
}

async fn call(engine: LocalEngine, arguments: &[&str]) -> Result<Answer, ExportError> {
    call_in(None, engine, arguments).await
}

async fn call_in(
    directory: Option<&Path>,
    engine: LocalEngine,
    arguments: &[&str],
) -> Result<Answer, ExportError> {
    let failed = |source| ExportError::Engine {
        program: engine.program(),
        source: EngineError::Run(source),
    };
    let mut command = Command::new(engine.program());
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    if let Some(directory) = directory {
        command.current_dir(directory);
    }
    let mut child = command.spawn().map_err(failed)?;
    listen(&mut child).await.map_err(failed)
}

/// Waits for an engine to end, and keeps the beginning of what it says.
async fn listen(child: &mut tokio::process::Child) -> io::Result<Answer> {
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (out, err) = tokio::try_join!(text_of(stdout), text_of(stderr))?;
    Ok(Answer {
        is_success: child.wait().await?.success(),
        stdout: out,
        stderr: err,
    })
}

async fn text_of(stream: Option<impl tokio::io::AsyncRead + Unpin>) -> io::Result<String> {
    let Some(mut stream) = stream else {
        return Ok(String::new());
    };
    let mut bytes = Vec::new();
    (&mut stream)
        .take(LONGEST_ANSWER)
        .read_to_end(&mut bytes)
        .await?;
    // A talkative one must not wait for us.
    tokio::io::copy(&mut stream, &mut tokio::io::sink()).await?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A layout, a directory of that name in one of the lease's, whose blobs are the store's: hard links where that is
/// possible, copies elsewhere.
fn write_links(
    store: &Store,
    lease: &Lease,
    assembled: &Assembled,
    name: &str,
    tag: &str,
) -> Result<PathBuf, ExportError> {
    let place = lease.scratch("hand-over")?;
    let root = place.join(name);
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| ExportError::Write { path, source }
    };
    let blobs = root.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).map_err(failed(&blobs))?;
    for (hex, blob) in &assembled.contents.blobs {
        let target = blobs.join(hex);
        match blob {
            Blob::Bytes(bytes) => std::fs::write(&target, bytes).map_err(failed(&target))?,
            Blob::Stored { digest, .. } => {
                let source = store.blob_path(digest);
                if std::fs::hard_link(&source, &target).is_err() {
                    std::fs::copy(&source, &target).map_err(failed(&target))?;
                }
            }
        }
    }
    let entry = assembled
        .top
        .clone()
        .with_annotations(BTreeMap::from([(REF_NAME.to_owned(), tag.to_owned())]));
    let index = Index::new(vec![entry], BTreeMap::new()).to_json();
    for (name, bytes) in [
        ("oci-layout", super::oci::LAYOUT_FILE),
        ("index.json", index.as_slice()),
    ] {
        let path = root.join(name);
        std::fs::write(&path, bytes).map_err(failed(&path))?;
    }
    Ok(place)
}
