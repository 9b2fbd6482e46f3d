//! What `Debug` shows of jobs: never the content of a file or the value of a variable, which may be a secret.

use std::fmt;

use super::{ProvidedFile, RunJob, SandboxMountKind};
use crate::container_path::ContainerPath;

impl fmt::Debug for ProvidedFile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ProvidedFile")
            .field("target", &ContainerPath::from(&self.target))
            .field("mode", &self.mode)
            .field("uid", &self.uid)
            .field("gid", &self.gid)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for SandboxMountKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory {
                root,
                source,
                access,
            } => formatter
                .debug_struct("Directory")
                .field("root", root)
                .field("source", &ContainerPath::from(source))
                .field("access", access)
                .finish(),
            Self::Chain {
                lowers,
                source,
                access,
                scratch,
            } => formatter
                .debug_struct("Chain")
                .field("lowers", lowers)
                .field("source", &ContainerPath::from(source))
                .field("access", access)
                .field("scratch", scratch)
                .finish(),
            Self::Tmpfs { size, is_read_only } => formatter
                .debug_struct("Tmpfs")
                .field("size", size)
                .field("is_read_only", is_read_only)
                .finish(),
            Self::File { mode, uid, gid, .. } => formatter
                .debug_struct("File")
                .field("mode", mode)
                .field("uid", uid)
                .field("gid", gid)
                .finish_non_exhaustive(),
        }
    }
}

impl fmt::Debug for RunJob {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = (self.environment.iter())
            .map(|(name, _)| String::from_utf8_lossy(name))
            .collect();
        formatter
            .debug_struct("RunJob")
            .field("root", &self.root)
            .field("environment", &names)
            .field("files", &self.files)
            .field("mounts", &self.mounts)
            .field("network", &self.network)
            .field("confinement", &self.confinement)
            .field("makes_layer", &self.makes_layer)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Confinement, Limits, Network, OverlaySpec, SandboxMount};
    use super::*;

    #[test]
    fn contents_and_values_are_not_shown() {
        let secret = || b"hunter2".to_vec();
        let file = || ProvidedFile {
            target: b"/run/x".to_vec(),
            content: secret(),
            mode: 0o400,
            uid: 0,
            gid: 0,
        };
        let kind = SandboxMountKind::File {
            content: secret(),
            mode: 0o400,
            uid: 0,
            gid: 0,
        };
        let job = RunJob {
            root: OverlaySpec {
                lowers: Vec::new(),
                scratch: "/s".into(),
            },
            argv: vec![secret()],
            environment: vec![(b"TOKEN".to_vec(), secret())],
            working_directory: Vec::new(),
            user: Vec::new(),
            hostname: Vec::new(),
            files: vec![file()],
            mounts: vec![SandboxMount {
                target: b"/run/y".to_vec(),
                kind,
            }],
            network: Network::None,
            confinement: Confinement::Default,
            shm_size: 0,
            rlimits: Vec::new(),
            limits: Limits::default(),
            makes_layer: true,
        };
        let shown = format!("{job:?}");
        let as_numbers = format!("{:?}", secret());
        assert!(
            shown.contains("TOKEN") && shown.contains("/run/x"),
            "{shown}"
        );
        for leak in ["hunter2", as_numbers.trim_matches(['[', ']'])] {
            assert!(!shown.contains(leak), "{shown}");
        }
    }
}
