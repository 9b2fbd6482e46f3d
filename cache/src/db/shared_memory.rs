//! `db.sqlite-shm` without holes, so that a full disk is an error and not a signal.
//!
//! SQLite keeps the index of its log in a file that all processes map. It makes that file grow by writing one byte of each
//! memory page. Where the file system's blocks are smaller than that (ext4 with 1 KiB) the rest of the page is a hole, and
//! when the disk is full, the first touch of it through the mapping kills the process: SIGBUS.
//!
//! So the first process of all writes the file's beginning before SQLite maps it. Who is first is decided by SQLite's own
//! protocol: a lock on one byte of the file, shared by everybody who is connected. The first one has it exclusively, and
//! makes the old content invalid (SQLite would truncate the file, which would bring the holes back). The lock here is of an
//! open file description: it conflicts with those that SQLite takes for the process, as it must.
//!
//! **Closing** any descriptor of a file lets go of all locks that the process has on it, SQLite's too. Descriptors are
//! therefore shared in the process, and closed when the last connection is gone.
//!
//! 32 KiB are enough for a log of 16 MB. A single transaction that is larger, on such a disk, filled up at that moment, may
//! still meet a hole.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use super::DbError;

/// Bytes of one region of the log's index: SQLite's own unit (`WALINDEX_PGSZ`).
const REGION: usize = 32 << 10;

/// The byte that everybody who is connected has locked: SQLite's `UNIX_SHM_DMS`.
const CONNECTED: libc::off_t = 128;

/// Times that the lock is asked for while another process is just being the first; it is so for microseconds.
const TRIES: u32 = 2000;

/// Pause before it is asked for again.
const PAUSE: Duration = Duration::from_millis(1);

/// Descriptors of this process. Held for opening and closing one; no other lock is taken while it is held.
static OPEN: Mutex<Vec<Opened>> = Mutex::new(Vec::new());

#[derive(Debug)]
struct Opened {
    /// Device and inode.
    identity: (u64, u64),
    /// Keeps the lock.
    _file: File,
    /// Connections that need it.
    users: usize,
}

/// Says that a connection uses the file; to be dropped after the connection.
#[derive(Debug)]
pub(super) struct SharedMemory {
    identity: (u64, u64),
}

impl SharedMemory {
    /// Makes sure that the file of the database at `database` has no holes. None where that can't be done, because nothing
    /// may be written or there are no such locks: SQLite is left to itself then.
    pub(super) fn prepare(database: &Path) -> Result<Option<Self>, DbError> {
        let mut path = database.as_os_str().to_owned();
        path.push("-shm");
        let path = PathBuf::from(path);
        match Self::prepare_file(&path, database) {
            Ok(shared) => Ok(shared),
            Err(source)
                if matches!(
                    source.kind(),
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
                ) =>
            {
                Err(DbError::NoRoom { path, source })
            }
            Err(error) => {
                tracing::debug!(path = %path.display(), %error, "left to SQLite");
                Ok(None)
            }
        }
    }

    fn prepare_file(path: &Path, database: &Path) -> io::Result<Option<Self>> {
        let mut open = open();
        if let Ok(metadata) = std::fs::symlink_metadata(path) {
            let identity = (metadata.dev(), metadata.ino());
            if let Some(opened) = open.iter_mut().find(|opened| opened.identity == identity) {
                opened.users += 1;
                return Ok(Some(Self { identity }));
            }
        }
        let mode = std::fs::metadata(database).map_or(0o600, |metadata| metadata.mode() & 0o777);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(mode)
            .custom_flags(libc::O_NOFOLLOW)
            .open(path)?;
        if !connect(&file)? {
            return Ok(None);
        }
        let metadata = file.metadata()?;
        let identity = (metadata.dev(), metadata.ino());
        open.push(Opened {
            identity,
            _file: file,
            users: 1,
        });
        Ok(Some(Self { identity }))
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        let mut open = open();
        if let Some(at) = (open.iter()).position(|opened| opened.identity == self.identity) {
            open[at].users -= 1;
            if open[at].users == 0 {
                // Closed while nobody can open it anew.
                open.swap_remove(at);
            }
        }
    }
}

fn open() -> MutexGuard<'static, Vec<Opened>> {
    OPEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Locks the file as everybody does who is connected, and prepares it if nobody else is; false when it can't be locked.
fn connect(file: &File) -> io::Result<bool> {
    for _ in 0..TRIES {
        match lock(file, libc::F_WRLCK) {
            Ok(()) => {
                let prepared = fill(file);
                // Shared from here on, without a moment in between.
                lock(file, libc::F_RDLCK)?;
                return prepared.map(|()| true);
            }
            Err(Errno::EAGAIN | Errno::EACCES) => {}
            // No such locks here: a file system of its own kind, or a kernel that is none.
            Err(_) => return Ok(false),
        }
        match lock(file, libc::F_RDLCK) {
            Ok(()) => return Ok(true),
            Err(Errno::EAGAIN | Errno::EACCES) => std::thread::sleep(PAUSE),
            Err(_) => return Ok(false),
        }
    }
    Ok(false)
}

/// Gives the file a whole region, of zeros: SQLite takes that for an index that has to be made anew.
fn fill(file: &File) -> io::Result<()> {
    if file.metadata()?.len() > REGION as u64 {
        file.set_len(REGION as u64)?;
    }
    // Over what is there: on a full disk, blocks that were given back might not be had again.
    file.write_all_at(&vec![0; REGION], 0)
}

fn lock(file: &File, kind: libc::c_int) -> Result<(), Errno> {
    let kind = libc::c_short::try_from(kind).unwrap_or(0);
    let whence = libc::c_short::try_from(libc::SEEK_SET).unwrap_or(0);
    let range = libc::flock {
        l_type: kind,
        l_whence: whence,
        l_start: CONNECTED,
        l_len: 1,
        l_pid: 0,
    };
    fcntl(file.as_fd(), FcntlArg::F_OFD_SETLK(&range)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db.sqlite");
        let shared = dir.path().join("db.sqlite-shm");
        (dir, path, shared)
    }

    #[test]
    fn the_first_region_has_all_its_blocks_before_it_is_mapped() {
        let (_dir, path, shared) = database();
        let prepared = SharedMemory::prepare(&path).unwrap();
        assert!(prepared.is_some());
        let metadata = std::fs::metadata(&shared).unwrap();
        assert_eq!(metadata.len(), REGION as u64);
        // SQLite does not take it for new, which would truncate it.
        let connection = rusqlite::Connection::open(&path).unwrap();
        connection
            .execute_batch(
                "PRAGMA journal_mode = wal; CREATE TABLE t (x); INSERT INTO t VALUES (1)",
            )
            .unwrap();
        assert_eq!(std::fs::metadata(&shared).unwrap().len(), REGION as u64);
        let count: i64 = connection
            .query_row("SELECT count(*) FROM t", [], |row| row.get(0))
            .unwrap();
        assert_eq!(count, 1);
    }

    #[test]
    fn a_second_connection_neither_empties_it_nor_lets_go_of_the_first() {
        let (_dir, path, shared) = database();
        let connect = || {
            let prepared = SharedMemory::prepare(&path).unwrap();
            let connection = rusqlite::Connection::open(&path).unwrap();
            connection
                .pragma_update(None, "journal_mode", "wal")
                .unwrap();
            (connection, prepared)
        };
        let (first, first_memory) = connect();
        first.execute_batch("CREATE TABLE t (x)").unwrap();
        first
            .execute_batch("BEGIN IMMEDIATE; INSERT INTO t VALUES (1)")
            .unwrap();
        let (second, second_memory) = connect();
        drop(second);
        drop(second_memory);
        // In another process: nobody may think to be the first, and the writer's lock is still there.
        let other = "import fcntl, struct, sys\n\
            f = open(sys.argv[1], 'r+b')\n\
            def held(start, kind):\n\
            \x20 q = struct.pack('hhqqi4x', kind, 0, start, 1, 0)\n\
            \x20 return struct.unpack('hhqqi4x', fcntl.fcntl(f, fcntl.F_GETLK, q))[0] != fcntl.F_UNLCK\n\
            print(held(128, fcntl.F_WRLCK), held(120, fcntl.F_WRLCK))";
        let output = std::process::Command::new("python3")
            .args(["-c", other])
            .arg(&shared)
            .output()
            .unwrap();
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            "True True\n",
            "{output:?}"
        );
        first.execute_batch("COMMIT").unwrap();
        drop(first);
        let identity = first_memory.as_ref().map(|memory| memory.identity);
        drop(first_memory);
        let is_open = |opened: &Opened| Some(opened.identity) == identity;
        assert!(!open().iter().any(is_open), "closed with the last one");
    }
}
