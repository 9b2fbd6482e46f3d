//! A file in a FUSE file system, for a loop device: every write and every flush is kept, in order.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry,
    ReplyOpen, ReplyWrite, Request, WriteFlags,
};

use crate::{Result, disk};

/// Name of the one file.
const NAME: &str = "disk";
const DISK: INodeNo = INodeNo(2);

/// Attributes never change.
const TTL: Duration = Duration::from_hours(1);

/// What the kernel asked of the disk.
#[derive(Debug)]
pub(super) enum Event {
    Write {
        offset: usize,
        data: Vec<u8>,
    },
    /// All writes before this are on the medium.
    Flush,
}

#[derive(Debug, Default)]
struct Log {
    bytes: Vec<u8>,
    events: Vec<Event>,
}

/// The mounted file system.
pub(super) struct LoggedDisk {
    at: PathBuf,
    log: Arc<Mutex<Log>>,
    session: BackgroundSession,
}

impl LoggedDisk {
    /// Mounts it on `at`, with these bytes in the file.
    pub(super) fn mount(at: &Path, bytes: Vec<u8>) -> Result<Self> {
        std::fs::create_dir_all(at)?;
        let log = Arc::new(Mutex::new(Log {
            bytes,
            events: Vec::new(),
        }));
        let session = fuser::spawn_mount(Disk(Arc::clone(&log)), at, &Config::default())?;
        Ok(Self {
            at: at.to_owned(),
            log,
            session,
        })
    }

    /// The file.
    pub(super) fn file(&self) -> PathBuf {
        self.at.join(NAME)
    }

    /// How many events there were.
    pub(super) fn length(&self) -> usize {
        lock(&self.log).events.len()
    }

    /// Ends it, and gives what was logged.
    pub(super) fn unmount(self) -> Result<Vec<Event>> {
        disk::wait_for_loop_devices(&self.file())?;
        self.session.umount_and_join()?;
        Ok(std::mem::take(&mut lock(&self.log).events))
    }
}

fn lock(log: &Mutex<Log>) -> MutexGuard<'_, Log> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Disk(Arc<Mutex<Log>>);

impl Disk {
    fn attributes(&self, inode: INodeNo) -> FileAttr {
        let is_disk = inode == DISK;
        let size = lock(&self.0).bytes.len() as u64;
        FileAttr {
            ino: inode,
            size: if is_disk { size } else { 0 },
            blocks: size / 512,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if is_disk {
                FileType::RegularFile
            } else {
                FileType::Directory
            },
            perm: 0o700,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            flags: 0,
            blksize: 4096,
        }
    }
}

impl Filesystem for Disk {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if name == NAME {
            reply.entry(&TTL, &self.attributes(DISK), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&TTL, &self.attributes(inode));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::empty());
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let log = lock(&self.0);
        let length = log.bytes.len();
        let start = usize::try_from(offset).unwrap_or(length).min(length);
        let end = start.saturating_add(size as usize).min(length);
        reply.data(&log.bytes[start..end]);
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut log = lock(&self.0);
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let Some(place) = log.bytes.get_mut(offset..offset.saturating_add(data.len())) else {
            return reply.error(Errno::ENOSPC);
        };
        place.copy_from_slice(data);
        log.events.push(Event::Write {
            offset,
            data: data.to_vec(),
        });
        drop(log);
        reply.written(u32::try_from(data.len()).unwrap_or(u32::MAX));
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        lock(&self.0).events.push(Event::Flush);
        reply.ok();
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        // close(2), not a flush of the device.
        reply.ok();
    }
}
