//! Other builders, where this machine has them.
//!
//! kaniko is not among them: it builds in the root it runs in, and would replace this machine's files.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Result;
use crate::measure::{Times, run};
use crate::table::Table;

/// Another builder that works here.
#[derive(Debug)]
pub(crate) struct Peer {
    /// Its name and version.
    pub(crate) name: String,
    kind: Kind,
    /// Where its storage goes, if it can be told.
    place: PathBuf,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Buildah,
    Docker,
    Buildctl,
}

impl Peer {
    /// Those on PATH whose daemon, if they need one, answers. Storage goes to the new directory `place`.
    pub(crate) fn found(place: &Path) -> Vec<Self> {
        let candidates: [(Kind, &str, &[&str]); 3] = [
            (Kind::Buildah, "buildah", &["--version"]),
            (
                Kind::Docker,
                "docker",
                &["version", "--format", "docker {{.Server.Version}}"],
            ),
            (Kind::Buildctl, "buildctl", &["debug", "workers"]),
        ];
        let ask = |(kind, program, question): (Kind, &str, &[&str])| {
            let output = Command::new(program).args(question).output().ok()?;
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let name = match kind {
                Kind::Buildctl => program.to_owned(),
                Kind::Buildah => text.split(" (").next()?.replace(" version", ""),
                Kind::Docker => text.trim().to_owned(),
            };
            output.status.success().then(|| Self {
                name,
                kind,
                place: place.to_owned(),
            })
        };
        candidates.into_iter().filter_map(ask).collect()
    }

    /// A build with the host's network and a cache, in the storage of that name where it can be told.
    pub(crate) fn build(&self, context: &Path, storage: &str) -> Command {
        self.build_as(context, storage, "bench")
    }

    /// The same for an image with a name.
    pub(crate) fn build_as(&self, context: &Path, storage: &str, name: &str) -> Command {
        self.command(context, storage, name, &[])
    }

    /// The same where nothing that was built before is looked at.
    pub(crate) fn build_anew(&self, context: &Path, storage: &str) -> Command {
        self.command(context, storage, "bench", &["--no-cache"])
    }

    fn command(&self, context: &Path, storage: &str, name: &str, flags: &[&str]) -> Command {
        let mut command;
        match self.kind {
            Kind::Buildah => {
                command = Command::new("buildah");
                let place = self.place.join(storage);
                command.arg("--root").arg(place.join("storage"));
                command.arg("--runroot").arg(place.join("run"));
                // Debian's crun refuses hybrid cgroups.
                command.args(["bud", "--layers", "--runtime", "runc"]);
                command
                    .args(flags)
                    .args(["--network", "host", "--tag", name, "--file"]);
                command.arg(context.join("Dockerfile")).arg(context);
            }
            Kind::Docker => {
                command = Command::new("docker");
                command
                    .args(["build", "--network", "host", "--tag", name])
                    .args(flags)
                    .arg(context);
            }
            Kind::Buildctl => {
                command = Command::new("buildctl");
                command
                    .args(["build", "--frontend", "dockerfile.v0"])
                    .args(flags);
                for kind in ["dockerfile", "context"] {
                    command
                        .arg("--local")
                        .arg(format!("{kind}={}", context.display()));
                }
                command
                    .arg("--output")
                    .arg(format!("type=image,name={name}"));
            }
        }
        command
    }

    /// The same where nothing is cached.
    pub(crate) fn build_cold(&self, context: &Path, storage: &str) -> Command {
        match self.kind {
            // Its storage is new.
            Kind::Buildah => self.build(context, storage),
            Kind::Docker | Kind::Buildctl => self.build_anew(context, storage),
        }
    }
}

/// Adds to the last row what each builder takes for a build of `context` where nothing is cached, in storages that begin with `name`.
pub(crate) fn cold(
    table: &mut Table,
    peers: &[Peer],
    context: &Path,
    name: &str,
    rounds: usize,
) -> Result<()> {
    for peer in peers {
        let mut times = Times::default();
        for round in 0..rounds {
            times.take(|| run(&mut peer.build_cold(context, &format!("{name}{round}"))))?;
        }
        table.beside(&peer.name, &times, 1);
    }
    Ok(())
}

/// Adds to the last row what each builder takes for building `context` again. It has been built in that storage.
pub(crate) fn again(
    table: &mut Table,
    peers: &[Peer],
    context: &Path,
    storage: &str,
    rounds: usize,
) -> Result<()> {
    for peer in peers {
        let mut times = Times::default();
        for _ in 0..rounds {
            times.take(|| run(&mut peer.build(context, storage)))?;
        }
        table.beside(&peer.name, &times, 1);
    }
    Ok(())
}
