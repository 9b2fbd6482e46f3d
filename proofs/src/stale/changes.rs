//! Changes to a context that try to go unnoticed.

use std::fs;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{CWD, FallocateFlags, RenameFlags, XattrFlags};

use crate::Result;
use crate::random::Random;
use crate::stale::AREAS;

/// Directories in an area, and names in each. Few names, so that changes meet again and again.
const DIRECTORIES: usize = 5;
const NAMES: usize = 12;

/// Sizes are few as well: most files have one that another has too.
const SIZES: [usize; 4] = [1, 64, 700, 9000];

/// One modification time for most files: what agrees in size and time is what a careless cache confuses.
const MTIME: i64 = 1_700_000_000;

/// Changes files beneath a context, each in a way drawn by lot.
#[derive(Debug)]
pub(super) struct Changer {
    root: PathBuf,
    /// A directory on the same file system, out of the context's sight.
    outside: PathBuf,
    random: Random,
    /// The areas that this batch may change.
    areas: Vec<usize>,
    /// What was done last, for a report.
    last: Vec<String>,
}

impl Changer {
    pub(super) fn new(root: &Path, outside: &Path, mut random: Random) -> Result<Self> {
        Self::fill(root, &mut random)?;
        Ok(Self {
            root: root.to_owned(),
            outside: outside.to_owned(),
            random,
            areas: (0..AREAS).collect(),
            last: Vec::new(),
        })
    }

    /// Makes every file of a context.
    pub(super) fn fill(root: &Path, random: &mut Random) -> Result<()> {
        for area in 0..AREAS {
            for directory in 0..DIRECTORIES {
                let path = root.join(format!("area{area}/d{directory}"));
                fs::create_dir_all(&path)?;
                for name in 0..NAMES {
                    let path = path.join(format!("f{name}"));
                    fs::write(&path, content(random))?;
                    set_mtime(&path, MTIME)?;
                }
            }
        }
        Ok(())
    }

    /// Draws the areas that the next batch may change.
    pub(super) fn choose_areas(&mut self) {
        self.areas = (0..AREAS).filter(|_| self.random.chance(45)).collect();
        if self.areas.is_empty() {
            self.areas.push(self.random.below(AREAS));
        }
        self.last.clear();
    }

    /// Its randomness.
    pub(super) fn random(&mut self) -> &mut Random {
        &mut self.random
    }

    /// What was done since [`choose_areas`](Self::choose_areas).
    pub(super) fn last(&self) -> String {
        self.last.join(", ")
    }

    /// Makes one change. What can't be done where the lot fell (a file is a directory by now) counts as one too: the file
    /// is then made anew.
    pub(super) fn change(&mut self) -> Result<()> {
        let (one, other) = (self.name(), self.name());
        let way = self.random.below(WAYS.len());
        let (title, change) = WAYS[way];
        self.last.push(format!("{title} {}", one.display()));
        if change(self, &one, &other).is_err() {
            self.make_anew(&one)?;
        }
        Ok(())
    }

    /// A path that most likely exists.
    fn name(&mut self) -> PathBuf {
        let area = *self.random.pick(&self.areas);
        let directory = self.random.below(DIRECTORIES);
        let name = self.random.below(NAMES);
        self.root.join(format!("area{area}/d{directory}/f{name}"))
    }

    fn make_anew(&mut self, path: &Path) -> Result<()> {
        let parent = path.parent().ok_or("a file has a parent")?;
        if !fs::symlink_metadata(parent).is_ok_and(|metadata| metadata.is_dir()) {
            remove(parent)?;
            fs::create_dir_all(parent)?;
        }
        remove(path)?;
        fs::write(path, content(&mut self.random))?;
        set_mtime(path, MTIME)
    }

    /// Other bytes of the same size.
    fn same_size(&mut self, path: &Path) -> Result<(Vec<u8>, fs::Metadata)> {
        let metadata = regular(path)?;
        let size = usize::try_from(metadata.len())?;
        Ok((self.random.bytes(size), metadata))
    }
}

type Change = fn(&mut Changer, &Path, &Path) -> Result<()>;

/// All ways, by name.
const WAYS: [(&str, Change); 19] = [
    ("rewrites in place", |changer, one, _| {
        let (bytes, metadata) = changer.same_size(one)?;
        fs::OpenOptions::new()
            .write(true)
            .open(one)?
            .write_all(&bytes)?;
        set_mtime(one, metadata.mtime())
    }),
    ("changes one byte", |changer, one, _| {
        let metadata = regular(one)?;
        let mut file = fs::OpenOptions::new().write(true).open(one)?;
        let size = usize::try_from(metadata.len())?;
        file.seek(SeekFrom::Start(changer.random.below(size) as u64))?;
        file.write_all(&changer.random.bytes(1))?;
        set_mtime(one, metadata.mtime())
    }),
    ("replaces by rename", |changer, one, _| {
        let (bytes, metadata) = changer.same_size(one)?;
        let new = changer.outside.join("new");
        fs::write(&new, bytes)?;
        fs::set_permissions(&new, metadata.permissions())?;
        set_mtime(&new, metadata.mtime())?;
        Ok(fs::rename(new, one)?)
    }),
    (
        "removes and makes (the inode may come back)",
        |changer, one, _| {
            let (bytes, metadata) = changer.same_size(one)?;
            fs::remove_file(one)?;
            fs::write(one, bytes)?;
            set_mtime(one, metadata.mtime())
        },
    ),
    ("swaps two files", |_, one, other| exchange(one, other)),
    ("swaps two directories", |_, one, other| {
        exchange(
            one.parent().ok_or("no parent")?,
            other.parent().ok_or("no parent")?,
        )
    }),
    (
        "renames a directory there and back with a change",
        |changer, one, _| {
            let directory = one.parent().ok_or("no parent")?;
            let away = changer.outside.join("away");
            fs::rename(directory, &away)?;
            let changed = away.join(one.file_name().ok_or("no name")?);
            let bytes = changer.same_size(&changed);
            if let Ok((bytes, metadata)) = bytes {
                fs::write(&changed, bytes)?;
                set_mtime(&changed, metadata.mtime())?;
            }
            Ok(fs::rename(&away, directory)?)
        },
    ),
    ("renames a file", |_, one, other| {
        regular(one)?;
        regular(other)?;
        Ok(fs::rename(one, other)?)
    }),
    (
        "appends, truncates back, changes in between",
        |changer, one, _| {
            let (bytes, metadata) = changer.same_size(one)?;
            let mut file = fs::OpenOptions::new().append(true).open(one)?;
            file.write_all(b"more")?;
            file.set_len(0)?;
            file.write_all(&bytes)?;
            set_mtime(one, metadata.mtime())
        },
    ),
    ("shrinks or grows", |changer, one, _| {
        let metadata = regular(one)?;
        let size = *changer.random.pick(&SIZES) as u64;
        fs::OpenOptions::new()
            .write(true)
            .open(one)?
            .set_len(size)?;
        set_mtime(one, metadata.mtime())
    }),
    ("punches a hole", |_, one, _| {
        let metadata = regular(one)?;
        let file = fs::OpenOptions::new().write(true).open(one)?;
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&file, flags, 0, metadata.len().div_ceil(2))?;
        set_mtime(one, metadata.mtime())
    }),
    ("links another file in its place", |_, one, other| {
        regular(other)?;
        if fs::metadata(one)?.ino() != fs::metadata(other)?.ino() {
            fs::remove_file(one)?;
            fs::hard_link(other, one)?;
        }
        Ok(())
    }),
    ("writes through a name outside", |changer, one, _| {
        let (bytes, metadata) = changer.same_size(one)?;
        let name = changer.outside.join("link");
        fs::hard_link(one, &name)?;
        let written = fs::write(&name, bytes);
        fs::remove_file(&name)?;
        written?;
        set_mtime(one, metadata.mtime())
    }),
    ("aims a symlink", |changer, one, other| {
        let target = format!("../d{}", changer.random.below(DIRECTORIES));
        let target = Path::new(&target).join(other.file_name().ok_or("no name")?);
        remove(one)?;
        Ok(symlink(target, one)?)
    }),
    ("changes a mode only", |changer, one, _| {
        regular(one)?;
        let mode = *changer.random.pick(&[0o644, 0o600, 0o755, 0o4755, 0o444]);
        Ok(fs::set_permissions(one, fs::Permissions::from_mode(mode))?)
    }),
    ("changes an attribute only", |changer, one, _| {
        regular(one)?;
        let value = changer.random.bytes(8);
        Ok(rustix::fs::setxattr(
            one,
            "user.proof",
            &value,
            XattrFlags::empty(),
        )?)
    }),
    ("changes a time only", |changer, one, _| {
        regular(one)?;
        set_mtime(one, MTIME + i64::from(changer.random.chance(50)))
    }),
    ("makes a directory of a file", |changer, one, _| {
        regular(one)?;
        fs::remove_file(one)?;
        fs::create_dir(one)?;
        Ok(fs::write(one.join("within"), content(&mut changer.random))?)
    }),
    ("makes it anew", |changer, one, _| changer.make_anew(one)),
];

fn content(random: &mut Random) -> Vec<u8> {
    let size = *random.pick(&SIZES);
    random.bytes(size)
}

/// What the kernel says of a regular file; anything else is an error.
fn regular(path: &Path) -> Result<fs::Metadata> {
    let metadata = fs::symlink_metadata(path)?;
    if !metadata.is_file() {
        return Err("not a file".into());
    }
    Ok(metadata)
}

fn exchange(one: &Path, other: &Path) -> Result<()> {
    match rustix::fs::renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE) {
        Ok(()) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

fn remove(path: &Path) -> Result<()> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => Ok(fs::remove_dir_all(path)?),
        Ok(_) => Ok(fs::remove_file(path)?),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Restores a modification time, as `cp -p`, `tar` and `git` tricks do.
fn set_mtime(path: &Path, seconds: i64) -> Result<()> {
    let time = SystemTime::UNIX_EPOCH
        + std::time::Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
    let times = fs::FileTimes::new().set_modified(time);
    // For reading: setting times needs no right to write, and 0444 files have none.
    Ok(fs::File::open(path)?.set_times(times)?)
}
