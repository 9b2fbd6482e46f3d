//! Small file systems on loop devices.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::processes::run;
use crate::{Result, report};

/// How long a loop device may take to let go on a busy machine.
const LOOP_ENDS: Duration = Duration::from_mins(1);

/// Makes a sparse file of `kib` KiB with a file system in it.
pub(crate) fn make(image: &Path, kib: u64, mkfs: &[&str]) -> Result<()> {
    File::create(image)?.set_len(kib * 1024)?;
    run(Command::new(mkfs[0]).args(&mkfs[1..]).arg(image)).map(drop)
}

/// Waits until no loop device uses `file` any more: unmounting what is on it lets go of it a little later.
pub(crate) fn wait_for_loop_devices(file: &Path) -> Result<()> {
    let start = Instant::now();
    while start.elapsed() < LOOP_ENDS {
        let mut is_used = false;
        for device in std::fs::read_dir("/sys/block")? {
            let backing = device?.path().join("loop/backing_file");
            // Most block devices are none of ours.
            let backing = std::fs::read_to_string(backing).unwrap_or_default();
            is_used |= Path::new(backing.trim()) == file;
        }
        if !is_used {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Err(format!("a loop device does not let go of `{}`", file.display()).into())
}

/// A mounted file system; unmounted when dropped.
#[derive(Debug)]
pub(crate) struct Mounted {
    path: PathBuf,
}

impl Mounted {
    /// Mounts `source` on the directory `path`, which is made.
    pub(crate) fn new(source: &Path, path: &Path, options: &str) -> Result<Self> {
        std::fs::create_dir_all(path)?;
        run(Command::new("mount")
            .args(["-o", options])
            .arg(source)
            .arg(path))?;
        Ok(Self {
            path: path.to_owned(),
        })
    }

    /// Mounts a file system that needs no device.
    pub(crate) fn of_type(kind: &str, path: &Path, options: &str) -> Result<Self> {
        std::fs::create_dir_all(path)?;
        run(Command::new("mount")
            .args(["-t", kind, "-o", options, kind])
            .arg(path))?;
        Ok(Self {
            path: path.to_owned(),
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Unmounts it now, and says when it can't be.
    pub(crate) fn unmount(mut self) -> Result<()> {
        let path = std::mem::take(&mut self.path);
        run(Command::new("umount").arg(&path)).map(drop)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.path.as_os_str().is_empty() {
            return;
        }
        // Lazily: a proof that failed may have left something running in it.
        if let Err(error) = run(Command::new("umount").arg("-l").arg(&self.path)) {
            report::complain(&format!(
                "cannot unmount `{}`: {error}",
                self.path.display()
            ));
        }
    }
}
