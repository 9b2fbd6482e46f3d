//! A root directory with busybox in it, and jobs that run in it.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use rbuild_runner::isolation::{IdMaps, Rung};
use rbuild_runner::job::*;
use rbuild_runner::{JobError, RunHandle, Spawner, SpawnerOptions, Stdio};

/// Says why a test can't run; in CI that is a failure.
pub(crate) fn has_privileges() -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    assert!(std::env::var_os("CI").is_none(), "sandbox tests need root");
    #[expect(clippy::print_stdout, reason = "that a test did nothing is to be seen")]
    {
        println!("skipped: sandbox tests need root");
    }
    false
}

/// A place with one layer that holds busybox.
pub(crate) struct Place {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) spawner: Spawner,
    steps: std::cell::Cell<usize>,
}

/// What a command did.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) result: Result<RunOutcome, JobError>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) scratch: PathBuf,
}

impl Place {
    pub(crate) fn new() -> Option<Self> {
        Self::with(SpawnerOptions::default())
    }

    pub(crate) fn with(options: SpawnerOptions) -> Option<Self> {
        if !has_privileges() {
            return None;
        }
        let directory = tempfile::tempdir().expect("tempdir");
        let base = directory.path().join("base");
        for name in ["", "bin", "dev", "etc", "home", "proc", "sys", "tmp", "usr"] {
            fs::create_dir(base.join(name)).expect("mkdir");
        }
        fs::copy("/bin/busybox", base.join("bin/busybox")).expect("busybox-static is installed");
        let applets = "sh true false cat ls id pwd env mount hostname ps sleep touch mkdir rm mknod stat df wc head \
            grep echo test ln chmod chown ip printf cut mv unshare dd kill setsid nproc awk sed tr seq ulimit ifconfig";
        for applet in applets.split_whitespace() {
            symlink("busybox", base.join("bin").join(applet)).expect("link");
        }
        fs::write(
            base.join("etc/passwd"),
            "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n",
        )
        .expect("passwd");
        fs::write(
            base.join("etc/group"),
            "root:x:0:\nwheel:x:10:app\napp:x:1001:\n",
        )
        .expect("group");
        let spawner = Spawner::start_with(options).expect("spawner");
        Some(Self {
            directory,
            spawner,
            steps: std::cell::Cell::new(0),
        })
    }

    /// A place whose jobs are done below a user namespace with these ids.
    pub(crate) fn in_userns(maps: IdMaps) -> Option<Self> {
        let place = Self::new()?;
        place
            .spawner
            .isolate(&Rung::Userns(maps))
            .expect("the first rung");
        Some(place)
    }

    pub(crate) fn base(&self) -> PathBuf {
        self.directory.path().join("base")
    }

    pub(crate) fn new_directory(&self) -> PathBuf {
        self.steps.set(self.steps.get() + 1);
        let path = self.directory.path().join(format!("d{}", self.steps.get()));
        fs::create_dir(&path).expect("mkdir");
        path
    }

    /// A job that runs a shell text.
    pub(crate) fn job(&self, text: &str) -> RunJob {
        RunJob {
            root: OverlaySpec {
                lowers: vec![self.base()],
                scratch: self.new_directory(),
            },
            argv: ["/bin/sh", "-c", text]
                .map(|a| a.as_bytes().to_vec())
                .to_vec(),
            environment: vec![(b"PATH".to_vec(), b"/bin:/usr/bin".to_vec())],
            working_directory: b"/".to_vec(),
            user: Vec::new(),
            hostname: b"buildkitsandbox".to_vec(),
            files: Vec::new(),
            mounts: Vec::new(),
            network: Network::None,
            confinement: Confinement::Default,
            shm_size: 64 << 20,
            rlimits: Vec::new(),
            limits: Limits::default(),
            makes_layer: true,
        }
    }

    /// Runs a job to its end.
    pub(crate) fn run(&self, job: RunJob) -> Ran {
        let scratch = job.root.scratch.clone();
        let (started, mut stdout, mut stderr) = self.start(job);
        let (mut out, mut err) = (String::new(), String::new());
        let result = started.and_then(|handle| {
            stdout.read_to_string(&mut out).expect("utf-8");
            stderr.read_to_string(&mut err).expect("utf-8");
            handle.wait()
        });
        Ran {
            result,
            stdout: out,
            stderr: err,
            scratch,
        }
    }

    pub(crate) fn start(&self, job: RunJob) -> (Result<RunHandle, JobError>, File, File) {
        let (stdout, stdout_writer) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).expect("pipe");
        let (stderr, stderr_writer) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).expect("pipe");
        let stdin: OwnedFd = File::open("/dev/null").expect("null").into();
        let handle = self.spawner.run(
            job,
            Stdio {
                stdin,
                stdout: stdout_writer,
                stderr: stderr_writer,
            },
        );
        (handle, stdout.into(), stderr.into())
    }

    /// Runs a shell text and expects success; what it printed.
    pub(crate) fn sh(&self, text: &str) -> String {
        self.run(self.job(text)).ok()
    }
}

impl Ran {
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.status(), CommandStatus::Exited(0), "{self:?}");
        self.stdout
    }

    #[track_caller]
    pub(crate) fn status(&self) -> CommandStatus {
        self.result
            .as_ref()
            .unwrap_or_else(|error| panic!("{error}: {error:?}"))
            .status
    }

    #[track_caller]
    pub(crate) fn error(&self) -> &JobError {
        self.result.as_ref().expect_err("an error")
    }

    /// Paths in the upper directory, sorted.
    pub(crate) fn upper(&self) -> Vec<String> {
        let root = self.scratch.join("upper");
        let mut found = Vec::new();
        let mut left = vec![root.clone()];
        while let Some(directory) = left.pop() {
            for entry in fs::read_dir(&directory).expect("read upper") {
                let path = entry.expect("entry").path();
                found.push(
                    path.strip_prefix(&root)
                        .expect("below")
                        .to_string_lossy()
                        .into_owned(),
                );
                if path.is_dir() && !path.is_symlink() {
                    left.push(path);
                }
            }
        }
        found.sort();
        found
    }
}
