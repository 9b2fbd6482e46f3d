//! Carries out a [`SandboxPlan`], in the sandbox's own process.
//!
//! All mounts are made before the root is entered, on descriptors beneath the new root, while the host's paths can still be
//! opened. Nothing here is ever resolved through a path of the image outside its root.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, UnmountFlags, unmount};
use rustix::process::{Resource, Rlimit};
use rustix::thread::{CapabilitySet, Gid, Uid};

use super::mount_point::{self, PointKind, Stubs};
use super::plan::{SandboxPlan, SetupOp};
use super::{capabilities, job_mounts, seccomp};
use crate::error::{JobError, JobErrorKind};
use crate::ids;
use crate::job::RunJob;
use crate::mounts::{self, FsOption, MountApi, MountError, Roots};
use crate::overlay;
use crate::spawner::SpawnerOptions;
use crate::sys;
use crate::users::{self, User};
use crate::working_root;

/// The group of terminals, by Debian's and everybody's numbers.
const TTY_GROUP: u32 = 5;

/// What a sandbox's process has mounted before it knew its job.
#[derive(Debug)]
pub(super) struct Trees {
    proc: OwnedFd,
    dev: OwnedFd,
    mask: Option<OwnedFd>,
}

/// Mounts what does not depend on the job, in the root of this namespace.
pub(super) fn prepare(options: SpawnerOptions) -> Result<Trees, JobError> {
    let job = RunJob::default();
    let mut setup = Setup::new(&job, options);
    for operation in &SandboxPlan::ahead().operations {
        setup.perform(operation)?;
    }
    let lost = || JobError::new(JobErrorKind::Sandbox, "a mount is not there");
    Ok(Trees {
        proc: setup.proc.ok_or_else(lost)?,
        dev: setup.dev.ok_or_else(lost)?,
        mask: setup.mask,
    })
}

/// A sandbox that only lacks its command.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) user: User,
    pub(super) stubs: Stubs,
}

/// Carries out the plan.
pub(super) fn carry_out(
    plan: &SandboxPlan,
    job: &RunJob,
    options: SpawnerOptions,
    trees: Option<Trees>,
) -> Result<Prepared, JobError> {
    let mut setup = Setup::new(job, options);
    if let Some(Trees { proc, dev, mask }) = trees {
        (setup.proc, setup.dev, setup.mask) = (Some(proc), Some(dev), mask);
    }
    for operation in &plan.operations {
        setup.perform(operation)?;
    }
    Ok(Prepared {
        user: setup.user,
        stubs: setup.stubs,
    })
}

/// How far the sandbox is.
#[derive(Debug)]
pub(super) struct Setup<'a> {
    pub(super) job: &'a RunJob,
    pub(super) api: MountApi,
    pub(super) roots: Roots,
    /// The new root, once it is mounted.
    root: Option<OwnedFd>,
    /// A tmpfs outside the root for the content of provided files, once one is needed.
    pub(super) files: Option<OwnedFd>,
    /// How many files are on it.
    pub(super) file_count: usize,
    /// The roots of the new `/proc` and `/dev`, where they are known.
    proc: Option<OwnedFd>,
    dev: Option<OwnedFd>,
    /// The host's `/dev`.
    devices: Option<OwnedFd>,
    /// What hides directories: one empty file system for all, since making and ending one costs more than the mount.
    mask: Option<OwnedFd>,
    user: User,
    /// The user namespace lets nobody change groups.
    keeps_groups: bool,
    pub(super) stubs: Stubs,
}

impl<'a> Setup<'a> {
    fn new(job: &'a RunJob, options: SpawnerOptions) -> Self {
        Self {
            job,
            api: options.mount_api,
            roots: options.roots,
            root: None,
            files: None,
            file_count: 0,
            proc: None,
            dev: None,
            devices: None,
            mask: None,
            user: User::default(),
            keeps_groups: ids::groups_are_fixed(),
            stubs: Stubs::default(),
        }
    }
}

impl Setup<'_> {
    fn perform(&mut self, operation: &SetupOp) -> Result<(), JobError> {
        match operation {
            SetupOp::StopPropagation => Ok(mounts::make_private()?),
            SetupOp::OpenOwnRoot => {
                self.root = Some(overlay::open_directory("/".as_ref())?);
                Ok(())
            }
            SetupOp::MoveIn { target } => self.move_in(target),
            SetupOp::OpenDevices => {
                self.devices = Some(overlay::open_directory("/dev".as_ref())?);
                Ok(())
            }
            SetupOp::MountRoot { attributes } => self.mount_root(*attributes),
            SetupOp::LookUpUser => self.look_up_user(),
            SetupOp::MountFilesystem {
                kind,
                target,
                options,
                attributes,
                directories,
                links,
            } => {
                let options: Vec<FsOption<'_>> = options
                    .iter()
                    // Without subordinate ids there is no group for terminals.
                    .filter(|(name, _)| *name != "gid" || ids::has_gid(TTY_GROUP))
                    .map(|(name, value)| (*name, value.as_deref()))
                    .collect();
                if *kind == "proc" {
                    return self.mount_proc(*attributes);
                }
                let root = self.mount_filesystem(kind, target, &options, *attributes)?;
                fill(root.as_fd(), directories, links).map_err(|errno| {
                    JobError::from_errno(JobErrorKind::Sandbox, "cannot fill", errno).at(*target)
                })?;
                if *target == "dev" {
                    self.dev = Some(root);
                }
                Ok(())
            }
            SetupOp::MountSysfs { attributes } => self.mount_sysfs(*attributes),
            SetupOp::BindDevice { name } => self.bind_device(name.as_bytes()),
            SetupOp::BindAllDevices => self.bind_all_devices(),
            SetupOp::MountJob { index } => job_mounts::mount(self, &self.job.mounts[*index]),
            SetupOp::ProvideFile { index } => job_mounts::provide(self, &self.job.files[*index]),
            SetupOp::Mask { path } => self.mask(path),
            SetupOp::MakeReadOnly { path } => self.make_read_only(path),
            SetupOp::BringLoopbackUp => sys::network::bring_loopback_up().map_err(|errno| {
                JobError::from_errno(
                    JobErrorKind::Sandbox,
                    "cannot set up the interface `lo`",
                    errno,
                )
            }),
            SetupOp::SetHostname => self.set_hostname(),
            SetupOp::OpenRoot => {
                let path = self.job.root.scratch.join(working_root::ROOT);
                self.root = Some(overlay::open_directory(&path)?);
                Ok(())
            }
            SetupOp::EnterRoot => self.enter_root(pivot_root),
            SetupOp::ChangeRoot => self.enter_root(change_root),
            SetupOp::SetLimits => self.job.rlimits.iter().try_for_each(set_limit),
            SetupOp::FilterSystemCalls => seccomp::install().map_err(cannot_filter),
            SetupOp::FilterSystemCallsIfPossible if !capabilities::may_administrate() => Ok(()),
            SetupOp::FilterSystemCallsIfPossible => seccomp::install().map_err(cannot_filter),
            SetupOp::LimitCapabilities => limit_to(capabilities::DEFAULT),
            SetupOp::LimitCapabilitiesInChroot => limit_to(capabilities::IN_CHROOT),
            SetupOp::BecomeUser => self.become_user(),
            #[cfg(test)]
            SetupOp::Inherit => super::weak::inherit_all(),
        }
    }

    /// The new root.
    pub(super) fn root(&self) -> BorrowedFd<'_> {
        self.root
            .as_ref()
            .expect("the plan mounts the root first")
            .as_fd()
    }

    /// Finds or makes the mount point `path`.
    pub(super) fn point(&mut self, path: &[u8], kind: PointKind) -> Result<OwnedFd, JobError> {
        let root = self
            .root
            .as_ref()
            .expect("the plan mounts the root first")
            .as_fd();
        mount_point::open(root, path, kind, &mut self.stubs).map_err(|errno| {
            JobError::from_errno(JobErrorKind::Sandbox, "cannot make the mount point", errno)
                .at(path)
        })
    }

    /// Mounts `source` on the mount point `target`.
    pub(super) fn bind(
        &mut self,
        source: BorrowedFd<'_>,
        is_recursive: bool,
        attributes: MountAttrFlags,
        target: &[u8],
        kind: PointKind,
    ) -> Result<(), JobError> {
        let point = self.point(target, kind)?;
        mounts::bind(self.api, source, is_recursive, attributes, point.as_fd()).map_err(|errno| {
            MountError::new(format!("`{}`", String::from_utf8_lossy(target)), errno).into()
        })
    }

    /// Mounts a new file system on the directory `target`, and gives its root.
    pub(super) fn mount_filesystem(
        &mut self,
        kind: &str,
        target: &str,
        options: &[FsOption<'_>],
        attributes: MountAttrFlags,
    ) -> Result<OwnedFd, JobError> {
        self.refuse_link(target)?;
        let point = self.point(target.as_bytes(), PointKind::Directory)?;
        match mounts::mount_filesystem(self.api, kind, options, attributes, point.as_fd())? {
            Some(root) => Ok(root),
            None => mount_point::look_up(self.root(), target.as_bytes())
                .map_err(|errno| MountError::new(kind, errno).into()),
        }
    }

    /// An image whose `/proc` is a link would have it mounted where a mount of the step covers it again, and what is masked
    /// afterwards would be something else (CVE-2019-19921, CVE-2023-27561).
    fn refuse_link(&self, target: &str) -> Result<(), JobError> {
        let stat = rustix::fs::statat(self.root(), target, AtFlags::SYMLINK_NOFOLLOW);
        let is_link = |stat: Stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink;
        if stat.is_ok_and(is_link) {
            let message =
                "a file system has to be mounted on a directory, and in this image it is a link:";
            return Err(JobError::new(JobErrorKind::Sandbox, message).at(format!("/{target}")));
        }
        Ok(())
    }

    fn mount_root(&mut self, attributes: MountAttrFlags) -> Result<(), JobError> {
        let scratch = &self.job.root.scratch;
        let root = match self.roots {
            Roots::Overlay => overlay::mount_writable(&self.job.root, attributes, self.api)?,
            Roots::Copy => {
                let (root, point) = (working_root::ROOT, overlay::MERGED);
                let (root, point) = (scratch.join(root), scratch.join(point));
                overlay::bind_directory(&root, &point, attributes, self.api)?
            }
        };
        // On a directory that is there and that nobody looks at any more: one more would have to be made and removed.
        let point = overlay::open_directory(&scratch.join(overlay::WORK))?;
        let is_attached = || {
            let merged = overlay::open_directory(&scratch.join(overlay::MERGED));
            merged.is_ok_and(|merged| overlay::is_same(&root, &merged))
        };
        match mounts::attach(&root, &point) {
            Ok(()) => {}
            // mount(2) has put it there already.
            Err(_) if is_attached() => {}
            Err(errno) => return Err(MountError::new("the root file system", errno).into()),
        }
        self.root = Some(root);
        Ok(())
    }

    fn look_up_user(&mut self) -> Result<(), JobError> {
        self.user = users::look_up(self.root(), &self.job.user).map_err(|error| {
            let text = String::from_utf8_lossy(&self.job.user);
            JobError::new(
                JobErrorKind::UnknownUser,
                format!("cannot run as user `{text}`"),
            )
            .caused_by(&error)
            .with_help("make it in an earlier step (`RUN useradd …`, or `adduser` on Alpine), or give a number such as `USER 1000`")
        })?;
        Ok(())
    }

    /// A new procfs shows the sandbox's processes only. Where parts of ours are covered, a user namespace may not mount one
    /// (it would uncover them); then ours is shown, with what covers it. `/proc/self` is right in it all the same.
    fn mount_proc(&mut self, attributes: MountAttrFlags) -> Result<(), JobError> {
        match self.mount_filesystem("proc", "proc", &[], attributes) {
            Err(error) if error.kind == JobErrorKind::MissingPrivilege && ids::maps().is_some() => {
                self.show_own("proc", attributes)
            }
            result => {
                self.proc = Some(result?);
                Ok(())
            }
        }
    }

    /// Moves a tree of mounts that was made ahead.
    fn move_in(&mut self, target: &'static str) -> Result<(), JobError> {
        self.refuse_link(target)?;
        let point = self.point(target.as_bytes(), PointKind::Directory)?;
        let tree = match target {
            "proc" => &self.proc,
            _ => &self.dev,
        };
        let tree = tree.as_ref().ok_or(Errno::NOENT);
        tree.and_then(|tree| mounts::attach(tree, &point))
            .map_err(|errno| MountError::new(target, errno).into())
    }

    /// Shows a directory of ours with everything mounted in it.
    fn show_own(&mut self, name: &str, attributes: MountAttrFlags) -> Result<(), JobError> {
        let path = std::path::Path::new("/").join(name);
        let source = overlay::open_directory(&path)?;
        let target = name.as_bytes();
        self.bind(
            source.as_fd(),
            true,
            attributes,
            target,
            PointKind::Directory,
        )
    }

    /// A new sysfs belongs to the sandbox's network namespace. Where mounting one is refused (inside some containers), the
    /// host's is shown.
    fn mount_sysfs(&mut self, attributes: MountAttrFlags) -> Result<(), JobError> {
        match self.mount_filesystem("sysfs", "sys", &[], attributes) {
            Ok(_) => Ok(()),
            Err(error) if error.kind == JobErrorKind::MissingPrivilege => {
                self.show_own("sys", attributes)?;
                // A new one has no cgroup file systems in it.
                self.mask("sys/fs/cgroup")
            }
            Err(error) => Err(error),
        }
    }

    fn bind_device(&mut self, name: &[u8]) -> Result<(), JobError> {
        let path = [b"/dev/", name].concat();
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let devices = self.devices.as_ref().ok_or(Errno::NOENT);
        match devices.and_then(|devices| rustix::fs::openat(devices, name, flags, Mode::empty())) {
            Err(Errno::NOENT) => Ok(()),
            Err(errno) => {
                Err(
                    JobError::from_errno(JobErrorKind::Sandbox, "cannot open the device", errno)
                        .at(path),
                )
            }
            Ok(device) => {
                let attributes =
                    MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
                match self.new_device_point(name) {
                    Ok(point) => {
                        mounts::bind(self.api, device.as_fd(), false, attributes, point.as_fd())
                            .map_err(|errno| {
                                MountError::new(
                                    format!("`{}`", String::from_utf8_lossy(&path)),
                                    errno,
                                )
                                .into()
                            })
                    }
                    Err(_) => self.bind(device.as_fd(), false, attributes, &path, PointKind::File),
                }
            }
        }
    }

    /// Makes a mount point in the new, still empty `/dev`: looking for it first would be in vain.
    fn new_device_point(&self, name: &[u8]) -> Result<OwnedFd, Errno> {
        let dev = self.dev.as_ref().ok_or(Errno::NOENT)?;
        let flags =
            OFlags::RDONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(dev, name, flags, Mode::from(0o644))
    }

    fn bind_all_devices(&mut self) -> Result<(), JobError> {
        let cannot =
            |error: std::io::Error| overlay::failed("cannot read", "/dev".as_ref(), &error);
        for entry in std::fs::read_dir("/dev").map_err(cannot)? {
            let entry = entry.map_err(cannot)?;
            let kind = entry.file_type().map_err(cannot)?;
            let target = entry.path().into_os_string().into_encoded_bytes();
            if kind.is_symlink() || mount_point::look_up(self.root(), &target).is_ok() {
                continue;
            }
            if kind.is_dir() {
                let source = overlay::open_directory(&entry.path())?;
                self.bind(
                    source.as_fd(),
                    true,
                    MountAttrFlags::empty(),
                    &target,
                    PointKind::Directory,
                )?;
            } else {
                self.bind_device(entry.file_name().as_encoded_bytes())?;
            }
        }
        Ok(())
    }

    fn mask(&mut self, path: &'static str) -> Result<(), JobError> {
        let Some((point, is_directory)) = self.existing(path)? else {
            return Ok(());
        };
        if is_directory {
            let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
                | MountAttrFlags::MOUNT_ATTR_NOSUID
                | MountAttrFlags::MOUNT_ATTR_NODEV
                | MountAttrFlags::MOUNT_ATTR_NOEXEC;
            let options = [
                ("size", Some("0")),
                ("nr_inodes", Some("1")),
                ("mode", Some("555")),
            ];
            if let Some(mask) = &self.mask {
                return mounts::bind(self.api, mask.as_fd(), false, attributes, point.as_fd())
                    .map_err(|errno| MountError::new(format!("over /{path}"), errno).into());
            }
            self.mask =
                mounts::mount_filesystem(self.api, "tmpfs", &options, attributes, point.as_fd())?;
            return Ok(());
        }
        let null = rustix::fs::open("/dev/null", OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        null.and_then(|null| {
            mounts::bind(
                self.api,
                null.as_fd(),
                false,
                MountAttrFlags::empty(),
                point.as_fd(),
            )
        })
        .map_err(|errno| MountError::new(format!("over /{path}"), errno).into())
    }

    fn make_read_only(&mut self, path: &'static str) -> Result<(), JobError> {
        let Some((point, _)) = self.existing(path)? else {
            return Ok(());
        };
        let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
            | MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        mounts::bind(self.api, point.as_fd(), true, attributes, point.as_fd())
            .map_err(|errno| MountError::new(format!("/{path} read-only"), errno).into())
    }

    /// A path of a file system that we mounted; `None` when this kernel does not have it.
    fn existing(&self, path: &'static str) -> Result<Option<(OwnedFd, bool)>, JobError> {
        let find = || {
            let point = mount_point::look_up(self.root(), path.as_bytes())?;
            let mode = rustix::fs::fstat(&point)?.st_mode;
            Ok((point, FileType::from_raw_mode(mode) == FileType::Directory))
        };
        match find() {
            Ok(found) => Ok(Some(found)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(errno) => {
                Err(JobError::from_errno(JobErrorKind::Sandbox, "cannot hide", errno).at(path))
            }
        }
    }

    /// `pivot_root` onto itself: the old root ends up below the new one's mount point and is let go of. Unlike chroot, there
    /// is no way back: the old root is not in this namespace any more.
    fn enter_root(
        &mut self,
        enter: fn(BorrowedFd<'_>) -> Result<(), JobError>,
    ) -> Result<(), JobError> {
        let path = &self.job.working_directory;
        let cannot_enter = |errno| {
            JobError::from_errno(
                JobErrorKind::WorkingDirectory,
                "cannot enter the working directory",
                errno,
            )
            .at(path.as_slice())
        };
        let directory = mount_point::make_directory(self.root(), path).map_err(cannot_enter)?;
        enter(self.root())?;
        rustix::process::fchdir(&directory).map_err(cannot_enter)?;
        // CVE-2024-21626: a working directory outside the root would be a way out.
        let is_inside =
            rustix::process::getcwd(Vec::new()).is_ok_and(|cwd| cwd.as_bytes().starts_with(b"/"));
        if !is_inside {
            return Err(cannot_enter(Errno::NOENT));
        }
        rustix::process::umask(Mode::from(0o022));
        Ok(())
    }

    /// In a container whose seccomp filter refuses this, the container's name stays; `Ground` has told so.
    fn set_hostname(&self) -> Result<(), JobError> {
        match rustix::system::sethostname(&self.job.hostname) {
            Err(Errno::PERM) if ids::maps().is_some() => Ok(()),
            result => result.map_err(|errno| {
                JobError::from_errno(JobErrorKind::Sandbox, "cannot set the host name", errno)
            }),
        }
    }

    fn become_user(&self) -> Result<(), JobError> {
        let (uid, gid) = (Uid::from_raw(self.user.uid), Gid::from_raw(self.user.gid));
        let groups: Vec<Gid> = self
            .user
            .groups
            .iter()
            .map(|&group| Gid::from_raw(group))
            .collect();
        let switch = || -> Result<(), Errno> {
            // A process group leader cannot; a process that was just cloned is none.
            rustix::process::setsid()?;
            if ids::ignores_owners() {
                return Ok(());
            }
            if !self.keeps_groups {
                rustix::thread::set_thread_groups(&groups)?;
            }
            rustix::thread::set_thread_res_gid(gid, gid, gid)?;
            rustix::thread::set_thread_res_uid(uid, uid, uid)
        };
        switch().map_err(|errno| {
            let user = String::from_utf8_lossy(&self.job.user);
            let error = JobError::from_errno(
                JobErrorKind::Sandbox,
                format!("cannot become user `{user}`"),
                errno,
            );
            match errno {
                Errno::INVAL => error.with_help(ids::why_unmapped(&format!(
                    "{}:{}",
                    self.user.uid, self.user.gid
                ))),
                _ => error,
            }
        })
    }
}

fn pivot_root(root: BorrowedFd<'_>) -> Result<(), JobError> {
    let pivot = || -> Result<(), Errno> {
        rustix::process::fchdir(root)?;
        rustix::process::pivot_root(".", ".")?;
        unmount(".", UnmountFlags::DETACH)
    };
    pivot().map_err(|errno| {
        JobError::from_errno(
            JobErrorKind::Sandbox,
            "cannot enter the root file system (pivot_root)",
            errno,
        )
        .with_help("pivot_root does not work when the machine's own root is an initramfs")
    })
}

fn change_root(root: BorrowedFd<'_>) -> Result<(), JobError> {
    let change = || -> Result<(), Errno> {
        rustix::process::fchdir(root)?;
        rustix::process::chroot(".")
    };
    change().map_err(|errno| {
        let what = "cannot enter the root file system (chroot)";
        JobError::from_errno(JobErrorKind::MissingPrivilege, what, errno)
            .with_help("chroot needs root with CAP_SYS_CHROOT: `--cap-add SYS_CHROOT`")
    })
}

fn limit_to(kept: CapabilitySet) -> Result<(), JobError> {
    capabilities::limit(kept).map_err(|errno| {
        JobError::from_errno(JobErrorKind::Sandbox, "cannot give up capabilities", errno)
    })
}

fn cannot_filter(errno: Errno) -> JobError {
    let what = "cannot filter the command's system calls (seccomp)";
    let made = JobError::from_errno(JobErrorKind::Sandbox, what, errno);
    match errno {
        Errno::NOSYS | Errno::INVAL => made.with_help(
            "this kernel lacks CONFIG_SECCOMP_FILTER; `RUN --security=insecure` with `--allow security.insecure` runs without",
        ),
        _ => made,
    }
}

fn fill(
    directory: BorrowedFd<'_>,
    directories: &[&str],
    links: &[(&str, &str)],
) -> Result<(), Errno> {
    for name in directories {
        rustix::fs::mkdirat(directory, *name, Mode::from(0o755))?;
    }
    for (name, text) in links {
        rustix::fs::symlinkat(*text, directory, *name)?;
    }
    Ok(())
}

fn set_limit(limit: &crate::job::Rlimit) -> Result<(), JobError> {
    let resource = match limit.name.as_str() {
        "as" => Resource::As,
        "core" => Resource::Core,
        "cpu" => Resource::Cpu,
        "data" => Resource::Data,
        "fsize" => Resource::Fsize,
        "locks" => Resource::Locks,
        "memlock" => Resource::Memlock,
        "msgqueue" => Resource::Msgqueue,
        "nice" => Resource::Nice,
        "nofile" => Resource::Nofile,
        "nproc" => Resource::Nproc,
        "rss" => Resource::Rss,
        "rtprio" => Resource::Rtprio,
        "rttime" => Resource::Rttime,
        "sigpending" => Resource::Sigpending,
        "stack" => Resource::Stack,
        name => {
            return Err(JobError::new(
                JobErrorKind::Sandbox,
                format!("there is no resource limit `{name}`"),
            ));
        }
    };
    let value = |number: u64| Some(number).filter(|&number| number != u64::MAX);
    rustix::process::setrlimit(
        resource,
        Rlimit {
            current: value(limit.soft),
            maximum: value(limit.hard),
        },
    )
    .map_err(|errno| {
        let made = JobError::from_errno(
            JobErrorKind::Sandbox,
            format!(
                "cannot set the limit `{}` to {}:{}",
                limit.name, limit.soft, limit.hard
            ),
            errno,
        );
        match errno {
            Errno::PERM => made.with_help("raising a hard limit needs CAP_SYS_RESOURCE"),
            _ => made,
        }
    })
}
