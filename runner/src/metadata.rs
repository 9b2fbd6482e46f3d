//! What the kernel says about a file, and setting it on files that were just made.
//!
//! Everything here works on a directory fd and one name in it, and never follows a symlink.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Stat, StatxFlags, Timespec, Timestamps, Uid,
};
use rustix::io::Errno;

use crate::ids;

/// What `st_blocks` counts in, whatever the file system's own blocks are.
const STAT_BLOCK: u64 = 512;

/// A file's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// Directory.
    Directory,
    /// Regular file.
    File,
    /// Symbolic link.
    Symlink,
    /// Character device.
    CharDevice,
    /// Block device.
    BlockDevice,
    /// Fifo.
    Fifo,
    /// Socket.
    Socket,
}

impl FileKind {
    /// None when the file system gave no type.
    pub(crate) fn from_type(file_type: FileType) -> Option<Self> {
        Some(match file_type {
            FileType::Directory => Self::Directory,
            FileType::RegularFile => Self::File,
            FileType::Symlink => Self::Symlink,
            FileType::CharacterDevice => Self::CharDevice,
            FileType::BlockDevice => Self::BlockDevice,
            FileType::Fifo => Self::Fifo,
            FileType::Socket => Self::Socket,
            FileType::Unknown => return None,
        })
    }
}

/// A point in time, since the epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time {
    /// Seconds; negative before 1970.
    pub seconds: i64,
    /// Nanoseconds, added to the seconds.
    pub nanos: u32,
}

impl Time {
    /// By the clock that files get their times from: a file that is written later has no earlier time.
    pub(crate) fn now() -> Self {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
        Self {
            seconds: now.tv_sec,
            nanos: u32::try_from(now.tv_nsec).unwrap_or(0),
        }
    }
}

/// What `stat` says about a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// Type.
    pub kind: FileKind,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Size in bytes.
    pub size: u64,
    /// Bytes that it takes on the disk.
    pub allocated: u64,
    /// Last change of the content.
    pub mtime: Time,
    /// Last change of the inode.
    pub ctime: Time,
    /// File system.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// Number of names.
    pub links: u64,
    /// Device numbers (major, minor) of a device node.
    pub numbers: (u32, u32),
}

// The widths of `struct stat` differ between architectures; every value fits these types on all of them.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::unnecessary_cast,
    clippy::useless_conversion,
    reason = "which of them fire depends on the architecture"
)]
impl From<&Stat> for Metadata {
    fn from(stat: &Stat) -> Self {
        Self {
            kind: FileKind::from_type(FileType::from_raw_mode(stat.st_mode))
                .unwrap_or(FileKind::Socket),
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            size: stat.st_size as u64,
            allocated: stat.st_blocks as u64 * STAT_BLOCK,
            mtime: Time {
                seconds: stat.st_mtime as i64,
                nanos: stat.st_mtime_nsec as u32,
            },
            ctime: Time {
                seconds: stat.st_ctime as i64,
                nanos: stat.st_ctime_nsec as u32,
            },
            device: stat.st_dev as u64,
            inode: stat.st_ino as u64,
            links: stat.st_nlink as u64,
            numbers: (
                rustix::fs::major(stat.st_rdev),
                rustix::fs::minor(stat.st_rdev),
            ),
        }
    }
}

impl Metadata {
    /// Of `name` in `directory`; a symlink is not followed.
    pub(crate) fn of_name(directory: BorrowedFd<'_>, name: &[u8]) -> Result<Self, Errno> {
        rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).map(|stat| Self::from(&stat))
    }

    /// Of an open file.
    pub fn of_fd(fd: impl AsFd) -> Result<Self, Errno> {
        rustix::fs::fstat(fd).map(|stat| Self::from(&stat))
    }

    /// Identifies the inode among all that are there at the moment.
    pub(crate) fn identity(&self) -> (u64, u64) {
        (self.device, self.inode)
    }

    /// The mark that overlayfs leaves for a deleted file.
    pub(crate) fn is_whiteout_device(&self) -> bool {
        self.kind == FileKind::CharDevice && self.numbers == (0, 0)
    }
}

/// When a file was made, by file systems that tell.
pub(crate) fn birth(fd: impl AsFd) -> Option<Time> {
    let (flags, wanted) = (AtFlags::EMPTY_PATH, StatxFlags::BTIME);
    let told = rustix::fs::statx(fd, "", flags, wanted).ok()?;
    let has_birth = StatxFlags::from_bits_retain(told.stx_mask).contains(wanted);
    has_birth.then_some(Time {
        seconds: told.stx_btime.tv_sec,
        nanos: told.stx_btime.tv_nsec,
    })
}

fn timestamps(mtime: Time) -> Timestamps {
    let time = Timespec {
        tv_sec: mtime.seconds,
        tv_nsec: mtime.nanos.into(),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

/// Sets the owner of an open file. See [`ids::judge_chown`] for owners that can't be set.
pub(crate) fn set_owner(fd: impl AsFd, uid: u32, gid: u32) -> Result<(), Errno> {
    let result = rustix::fs::fchown(fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    ids::judge_chown(result, uid, gid)
}

/// Sets the owner of a name; a symlink's own.
pub(crate) fn set_owner_at(
    directory: BorrowedFd<'_>,
    name: &[u8],
    uid: u32,
    gid: u32,
) -> Result<(), Errno> {
    let (user, group) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    let result = rustix::fs::chownat(directory, name, user, group, AtFlags::SYMLINK_NOFOLLOW);
    ids::judge_chown(result, uid, gid)
}

/// Sets the permission bits of an open file. Comes after [`set_owner`], which clears setuid.
pub(crate) fn set_mode(fd: impl AsFd, mode: u32) -> Result<(), Errno> {
    rustix::fs::fchmod(fd, Mode::from_raw_mode(mode & 0o7777))
}

/// Sets the permission bits of a name that is not a symlink (those have none).
pub(crate) fn set_mode_at(directory: BorrowedFd<'_>, name: &[u8], mode: u32) -> Result<(), Errno> {
    use std::os::fd::AsRawFd;
    // fchmodat has no usable AT_SYMLINK_NOFOLLOW before 6.6, and fchmod refuses O_PATH: go by the fd's name in /proc.
    let file = rustix::fs::openat(
        directory,
        name,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    if Metadata::of_fd(&file)?.kind == FileKind::Symlink {
        return Err(Errno::LOOP);
    }
    rustix::fs::chmod(
        format!("/proc/self/fd/{}", file.as_raw_fd()),
        Mode::from_raw_mode(mode & 0o7777),
    )
}

/// Sets access and modification time of an open file.
pub(crate) fn set_time(fd: impl AsFd, mtime: Time) -> Result<(), Errno> {
    rustix::fs::futimens(fd, &timestamps(mtime))
}

/// Sets access and modification time of a name; a symlink's own.
pub(crate) fn set_time_at(
    directory: BorrowedFd<'_>,
    name: &[u8],
    mtime: Time,
) -> Result<(), Errno> {
    rustix::fs::utimensat(
        directory,
        name,
        &timestamps(mtime),
        AtFlags::SYMLINK_NOFOLLOW,
    )
}
