//! Limits of a command: a cgroup in each hierarchy that is needed, made before the command's first process and removed after
//! its last.
//!
//! ```text
//! worker                                         sandbox
//!   Cgroup::make: directories, limits, lock  ──▶   Cgroup::enter (writes 0 to cgroup.procs)
//!   Cgroup::report, remove
//! ```
//!
//! On cgroup v1 they are made below the caller's own cgroup of each controller; on v2 beside the caller's own, because a cgroup
//! with processes in it may not hand controllers down. `--cgroup-parent` names another place.
//!
//! **After a SIGKILL** the empty directories stay. Their owner held a lock on them; whoever makes the next ones removes those
//! without.

mod hierarchy;
mod settings;

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use self::hierarchy::Hierarchies;
use self::settings::Setting;
use crate::error::{JobError, JobErrorKind};
use crate::job::{Limits, MemoryReport};

/// What the directories' names begin with.
const PREFIX: &str = "rbuild-";

/// The kernel needs a moment to let go of a cgroup whose last process has been reaped.
const REMOVAL_TRIES: u32 = 50;
const REMOVAL_PAUSE: Duration = Duration::from_millis(2);

/// How often a cgroup is made anew that somebody else removed before it was locked.
const CREATION_TRIES: u32 = 5;

/// A command's cgroups.
#[derive(Debug)]
pub(crate) struct Cgroup {
    places: Vec<Place>,
}

/// One directory.
#[derive(Debug)]
struct Place {
    path: PathBuf,
    version: Version,
    controllers: Vec<&'static str>,
    /// Holds the lock that says that somebody uses it.
    directory: OwnedFd,
}

/// The two kinds of hierarchies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

impl Cgroup {
    /// Makes the cgroups that these limits need; none when there are no limits.
    pub(crate) fn make(limits: &Limits) -> Result<Option<Self>, JobError> {
        if limits.is_empty() {
            return Ok(None);
        }
        let hierarchies = Hierarchies::of_this_process()?;
        let mut cgroup = Self { places: Vec::new() };
        for (controller, version, parent) in hierarchies.parents(limits)? {
            match cgroup
                .places
                .iter_mut()
                .find(|place| place.path.parent() == Some(&parent))
            {
                Some(place) => place.controllers.push(controller),
                None => cgroup
                    .places
                    .push(Place::make(&parent, version, controller)?),
            }
        }
        for place in &cgroup.places {
            for setting in settings::of(limits, place.version, &place.controllers) {
                place.set(&setting)?;
            }
        }
        Ok(Some(cgroup))
    }

    /// Moves the calling process into them.
    pub(crate) fn enter(&self) -> Result<(), JobError> {
        for place in &self.places {
            place.write("cgroup.procs", "0")?;
        }
        Ok(())
    }

    /// What memory was used and refused.
    pub(crate) fn report(&self) -> Option<MemoryReport> {
        let place = (self.places.iter()).find(|place| place.controllers.contains(&"memory"))?;
        let (peak, events) = match place.version {
            Version::One => ("memory.max_usage_in_bytes", "memory.oom_control"),
            Version::Two => ("memory.peak", "memory.events"),
        };
        let number = |text: String| text.trim().parse().ok();
        let kills = place.read(events).and_then(|text| {
            let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
            line.and_then(|count| count.trim().parse().ok())
        });
        Some(MemoryReport {
            peak: place.read(peak).and_then(number),
            kills: kills.unwrap_or(0),
        })
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for place in &self.places {
            for _ in 0..REMOVAL_TRIES {
                // Anything but "busy" will not pass; whoever makes the next one tries again.
                match rustix::fs::rmdir(&place.path) {
                    Err(Errno::BUSY) => std::thread::sleep(REMOVAL_PAUSE),
                    _ => break,
                }
            }
        }
    }
}

impl Place {
    fn make(parent: &Path, version: Version, controller: &'static str) -> Result<Self, JobError> {
        remove_abandoned(parent);
        for _ in 0..CREATION_TRIES {
            let name = format!("{PREFIX}{}-{}", std::process::id(), boot_nanoseconds());
            let path = parent.join(name);
            rustix::fs::mkdir(&path, Mode::from(0o755))
                .map_err(|errno| cannot("make", &path, errno))?;
            match lock(&path) {
                Ok(directory) => {
                    return Ok(Self {
                        directory,
                        path,
                        version,
                        controllers: vec![controller],
                    });
                }
                // Somebody who cleans up took it for an abandoned one before it was locked.
                Err(Errno::NOENT | Errno::NODEV) => {}
                Err(errno) => return Err(cannot("lock", &path, errno)),
            }
        }
        Err(cannot("keep", parent, Errno::NOENT))
    }

    fn set(&self, setting: &Setting) -> Result<(), JobError> {
        match setting {
            Setting::Value { file, value } => self.write(file, value),
            Setting::OptionalValue { file, value } => match self.write(file, value) {
                // Without swap, or its accounting, the limit of memory alone says the same.
                Err(_) if self.read(file).is_none() => Ok(()),
                result => result,
            },
            Setting::FromParent { file } => {
                let above = self.path.parent().unwrap_or(&self.path).join(file);
                let value = fs::read_to_string(&above).unwrap_or_default();
                self.write(file, value.trim())
            }
        }
    }

    fn write(&self, file: &str, value: &str) -> Result<(), JobError> {
        let written = rustix::fs::openat(
            &self.directory,
            file,
            OFlags::WRONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .and_then(|open| rustix::io::write(open, value.as_bytes()));
        written.map(drop).map_err(|errno| {
            let message = format!("cannot set the limit `{file}` to `{value}`");
            explain(
                JobError::from_errno(JobErrorKind::Limit, message, errno),
                errno,
            )
        })
    }

    fn read(&self, file: &str) -> Option<String> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let open = rustix::fs::openat(&self.directory, file, flags, Mode::empty()).ok()?;
        std::io::read_to_string(File::from(open)).ok()
    }
}

/// Opens and locks it; fails when it has been removed meanwhile.
fn lock(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(path, flags, Mode::empty())?;
    rustix::fs::flock(&directory, FlockOperation::LockShared)?;
    // Whoever removes it holds the lock meanwhile, and its name is never used again.
    rustix::fs::lstat(path)?;
    Ok(directory)
}

/// Removes what killed processes left: nobody holds the lock, and nothing is in it.
fn remove_abandoned(parent: &Path) {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX)) {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Ok(directory) = rustix::fs::open(entry.path(), flags, Mode::empty()) else {
            continue;
        };
        if rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive).is_ok() {
            // One with processes in it is busy, and stays.
            let _ = rustix::fs::rmdir(entry.path());
        }
    }
}

/// What tells names apart that are made by processes of the same number in different pid namespaces.
fn boot_nanoseconds() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

fn cannot(action: &str, path: &Path, errno: Errno) -> JobError {
    let message = format!(
        "cannot {action} the cgroup `{}` for the limits of a step",
        path.display()
    );
    explain(
        JobError::from_errno(JobErrorKind::Limit, message, errno),
        errno,
    )
}

fn explain(error: JobError, errno: Errno) -> JobError {
    match errno {
        Errno::ACCESS | Errno::PERM | Errno::ROFS => error.with_help(
            "limits need root, or a cgroup that was handed down: `systemd-run --user --scope -p Delegate=yes rbuild …` \
             (cgroup v2), or `--cgroup-parent` with one that this user may write to",
        ),
        Errno::NOENT | Errno::OPNOTSUPP => error.with_help(
            "the cgroup above does not hand this controller down: `--cgroup-parent` names another",
        ),
        Errno::INVAL | Errno::RANGE => error.with_help("the kernel does not take this value"),
        _ => error,
    }
}

#[cfg(test)]
mod tests;
