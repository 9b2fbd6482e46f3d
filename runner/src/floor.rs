//! What the kernel alone charges for a step: the yardstick of the benchmarks, not part of any build.
//!
//! The same namespaces, an overlay like ours, proc, `pivot_root`, exec, wait. Nothing else: no spawner, no worker, no
//! report, no device, no mask, no layer.

use std::ffi::CString;
use std::path::Path;

use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount,
};

use crate::job::{CommandStatus, Network};
use crate::sys::process::{CStrings, Namespaces, clone_process, execute, wait_for};

/// A bare step that is ready to be run: everything that allocates is done.
#[derive(Debug)]
pub struct Floor {
    namespaces: Namespaces,
    merged: CString,
    proc: CString,
    options: CString,
    program: CString,
    argv: CStrings,
    environment: CStrings,
}

impl Floor {
    /// Prepares to run `program`, a path in `lower`, on an overlay in the existing empty directory `scratch`.
    ///
    /// # Errors
    /// A directory can't be made, or a path holds a NUL byte.
    pub fn prepare(
        lower: &Path,
        scratch: &Path,
        program: &str,
        network: Network,
    ) -> std::io::Result<Self> {
        for name in ["upper", "work", "merged"] {
            std::fs::create_dir(scratch.join(name))?;
        }
        let (lower, scratch) = (lower.display(), scratch.display());
        let options = format!(
            "userxattr,index=off,lowerdir={lower},upperdir={scratch}/upper,workdir={scratch}/work,volatile"
        );
        let namespaces = match network {
            Network::Host => Namespaces::SANDBOX,
            // A private one is a new one too, only that somebody else has made it.
            Network::None | Network::Private => Namespaces::SANDBOX.and(Namespaces::NETWORK),
        };
        Ok(Self {
            namespaces,
            merged: CString::new(format!("{scratch}/merged"))?,
            proc: CString::new(format!("{scratch}/merged/proc"))?,
            options: CString::new(options)?,
            program: CString::new(program)?,
            argv: CStrings::new(vec![CString::new(program)?]),
            environment: CStrings::new(Vec::new()),
        })
    }

    /// Runs it; the caller has to be single-threaded.
    ///
    /// # Errors
    /// A namespace or a mount was refused, or the program did not end with 0.
    pub fn run(&self) -> std::io::Result<()> {
        let child = clone_process(self.namespaces, || {
            let _ = self.become_program();
            1
        })?;
        match wait_for(child.pid)?.0 {
            CommandStatus::Exited(0) => Ok(()),
            status => Err(std::io::Error::other(format!(
                "the bare step ended with {status:?}"
            ))),
        }
    }

    fn become_program(&self) -> Result<(), Errno> {
        mount_change(
            "/",
            MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
        )?;
        let no_flags = MountFlags::empty();
        mount(
            "overlay",
            &self.merged,
            "overlay",
            no_flags,
            self.options.as_c_str(),
        )?;
        mount("proc", &self.proc, "proc", no_flags, None)?;
        rustix::process::chdir(&self.merged)?;
        rustix::process::pivot_root(".", ".")?;
        unmount(".", UnmountFlags::DETACH)?;
        Err(execute(&self.program, &self.argv, &self.environment))
    }
}
