//! Which file systems keep the promise of the stat cache.

use std::path::Path;
use std::time::Duration;

use rustix::fs::{Mode, OFlags, fstat, fstatfs, open};

/// Grain where times have nanoseconds. Times come from the clock that the start of hashing is read from, so any
/// positive number would do; this one covers the 10 ms tick of the slowest kernels, should that ever not hold.
const FINE: Duration = Duration::from_millis(20);

/// Grain where a time has no nanoseconds: the file system may keep whole seconds only (ext4 with small inodes).
/// A file whose nanoseconds are zero by chance is hashed once more.
const COARSE: Duration = Duration::from_secs(2);

/// `f_type` of the file systems that are trusted. Each sets ctime from this kernel's clock on every change, and keeps
/// inode numbers. The numbers are those of `statfs(2)`.
const TRUSTED: [(u64, &str); 7] = [
    (0xef53, "ext4"), // also ext2 and ext3
    (0x5846_5342, "xfs"),
    (0x9123_683e, "btrfs"),
    (0xf2f5_2010, "f2fs"),
    (0x0102_1994, "tmpfs"),
    (0x2fc1_2fc1, "zfs"),
    (0x794c_7630, "overlay"), // reports the times of the file beneath
];

/// What is known of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileSystem {
    /// Keeps the promise.
    Trusted,
    /// Is not known to.
    Unknown,
}

impl FileSystem {
    /// The file system of a file that was seen on the device `dev`. Unknown when the file is another one by now.
    pub(super) fn of(path: &Path, dev: u64) -> Self {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Ok(file) = open(path, flags, Mode::empty()) else {
            return Self::Unknown;
        };
        match (fstat(&file), fstatfs(&file)) {
            (Ok(stat), Ok(fs)) if stat.st_dev == dev => Self::of_type(fs.f_type.cast_unsigned()),
            _ => Self::Unknown,
        }
    }

    pub(super) fn of_type(number: u64) -> Self {
        if TRUSTED.iter().any(|(trusted, _)| *trusted == number) {
            Self::Trusted
        } else {
            Self::Unknown
        }
    }

    pub(super) fn is_trusted(self) -> bool {
        self == Self::Trusted
    }

    /// How much older than the start of hashing a ctime has to be; none when it is never trusted.
    pub(super) fn grain(self, ctime: (i64, u32)) -> Option<Duration> {
        match self {
            Self::Unknown => None,
            Self::Trusted if ctime.1 == 0 => Some(COARSE),
            Self::Trusted => Some(FINE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::HashingStart;
    use super::*;

    /// `f_type` numbers by statfs(2).
    const NFS: u64 = 0x6969;
    const NINE_P: u64 = 0x0102_1997;
    const FUSE: u64 = 0x6573_5546;
    const CIFS: u64 = 0xff53_4d42;
    const VFAT: u64 = 0x4d44;
    const EXT4: u64 = 0xef53;
    const OVERLAY: u64 = 0x794c_7630;

    #[test]
    fn only_old_files_of_known_file_systems_are_trusted() {
        let start = HashingStart {
            seconds: 1_000,
            nanos: 500_000_000,
        };
        for (case, kind, ctime, is_trusted) in [
            ("a second old", EXT4, (999, 500_000_000), true),
            ("as old as the grain", EXT4, (1_000, 480_000_000), true),
            ("younger than the grain", EXT4, (1_000, 480_000_001), false),
            ("this very tick", EXT4, (1_000, 500_000_000), false),
            ("in the future", EXT4, (1_001, 1), false),
            ("far in the future", EXT4, (i64::MAX, 999_999_999), false),
            ("before the epoch", EXT4, (i64::MIN, 1), true),
            ("whole seconds, two old", EXT4, (998, 0), true),
            ("whole seconds, one old", EXT4, (999, 0), false),
            ("on overlay", OVERLAY, (999, 1), true),
            ("NFS", NFS, (1, 1), false),
            ("9p", NINE_P, (1, 1), false),
            ("FUSE and virtiofs", FUSE, (1, 1), false),
            ("CIFS", CIFS, (1, 1), false),
            ("FAT", VFAT, (1, 1), false),
            ("unheard of", 0, (1, 1), false),
        ] {
            let grain = FileSystem::of_type(kind).grain(ctime);
            let found = grain.is_some_and(|grain| start.is_later_than(ctime, grain));
            assert_eq!(found, is_trusted, "{case}");
        }
    }

    #[test]
    fn file_that_is_another_one_by_now_is_unknown() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let dev = fstat(&file).unwrap().st_dev;
        assert_eq!(FileSystem::of(file.path(), dev + 1), FileSystem::Unknown);
        assert_eq!(
            FileSystem::of(&file.path().join("nothing"), dev),
            FileSystem::Unknown
        );
    }
}
