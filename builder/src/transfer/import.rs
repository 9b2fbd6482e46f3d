//! A root file system in a tar becomes an image: `FROM scratch`, `ADD` of the tar, and the changes as instructions.

use std::fs::File;
use std::path::{Path, PathBuf};

use rbuild_frontend::platform::Platform;
use tokio_util::sync::CancellationToken;

use super::{TransferError, load};
use crate::blocking;
use crate::build::BuildOutcome;
use crate::context::Patient;
use crate::engine::Engine;
use crate::event::EventSink;
use crate::options::{BuildOptions, ContextSource, DockerfileSource};

/// Instructions that need no files: they change the config, and WORKDIR makes its directory.
pub(super) const CHANGES: [&str; 13] = [
    "CMD",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// The tar in the context that the image is made from.
const ROOT: &str = "root.tar";

/// What an imported image is to be.
#[derive(Clone, Debug, Default)]
pub struct ImportOptions {
    /// `-t`, as typed.
    pub tags: Vec<String>,
    /// `--change`: instructions, each in a line.
    pub changes: Vec<String>,
    /// `--platform`; this machine's without.
    pub platform: Option<Platform>,
}

impl Engine {
    /// Makes an image of a tar, compressed or not; no path is standard input.
    pub async fn import(
        &self,
        path: Option<&Path>,
        options: &ImportOptions,
        events: EventSink,
        cancel: CancellationToken,
    ) -> Result<BuildOutcome, TransferError> {
        for change in &options.changes {
            check(change)?;
        }
        let lease = self
            .store()
            .lease()
            .map_err(|error| TransferError::Store(Box::new(error)))?;
        let shown = path.map_or_else(|| PathBuf::from("-"), Path::to_owned);
        let (source, own, reading) = (path.map(Path::to_owned), lease.clone(), cancel.clone());
        let context = blocking::run(move || {
            let context = own
                .scratch("import")
                .map_err(|error| TransferError::Store(Box::new(error)))?;
            let target = context.join(ROOT);
            match &source {
                None => {
                    let input = Patient { cancel: &reading };
                    load::spool_to(Path::new("-"), input, &target)?;
                }
                Some(path) => {
                    let file = File::open(path).map_err(|source| TransferError::Read {
                        path: path.clone(),
                        source,
                    })?;
                    load::spool_to(path, file, &target)?;
                }
            }
            let mut tar = File::open(&target).map_err(|source| TransferError::Spool {
                path: target.clone(),
                source,
            })?;
            // ADD would take anything else as a file like any other.
            match rbuild_runner::archive::holds_tar(&mut tar) {
                Ok(true) => Ok(context),
                _ => Err(TransferError::NotATar {
                    path: source.unwrap_or_else(|| PathBuf::from("-")),
                }),
            }
        })
        .await?;
        let mut text = format!("FROM scratch\nADD {ROOT} /\n");
        for change in &options.changes {
            text += change;
            text.push('\n');
        }
        let options = BuildOptions {
            context: ContextSource::Directory(context),
            dockerfile: Some(DockerfileSource::Text(text)),
            tags: options.tags.clone(),
            platforms: options.platform.clone().into_iter().collect(),
            no_stat_cache: true,
            ..BuildOptions::default()
        };
        let built = Box::pin(self.build(&options, events, cancel)).await;
        drop(lease); // the context is not needed any more
        built.map_err(|source| TransferError::Import {
            path: shown,
            source: Box::new(source),
        })
    }
}

/// One instruction of those that are allowed, in one line.
fn check(change: &str) -> Result<(), TransferError> {
    let name = change.split_whitespace().next().unwrap_or_default();
    let is_known = CHANGES.iter().any(|known| known.eq_ignore_ascii_case(name));
    if is_known && !change.contains(['\n', '\r']) && !change.trim_end().ends_with('\\') {
        Ok(())
    } else {
        Err(TransferError::Change {
            change: change.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_single_instructions() {
        for good in ["CMD [\"sh\"]", "env A=1", "LABEL a=b c=d", "ONBUILD RUN x"] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "RUN rm -r /",
            "COPY a b",
            "FROM x",
            "ENV A=1\nRUN x",
            "ENV A=1 \\",
            "# escape=`",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
