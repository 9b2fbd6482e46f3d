//! What the kernel alone charges for a step: the yardstick of the benchmarks, not part of any build.
//!
//! The same namespaces, an overlay like ours, proc, `pivot_root`, exec, wait. Nothing else: no spawner, no worker, no
//! report, no device, no mask, no layer.

use std::ffi::CString;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount,
};
use serde::{Deserialize, Serialize};

use crate::isolation::IdMaps;
use crate::job::{CommandStatus, Network};
use crate::spawner::{protocol, userns};
use crate::sys;
use crate::sys::process::{CStrings, Namespaces, clone_process, execute, fork_process, wait_for};

/// A bare step that is ready to be run: everything that allocates is done.
#[derive(Debug)]
pub struct Floor {
    namespaces: Namespaces,
    chain: CString,
    merged: CString,
    proc: CString,
    options: CString,
    program: CString,
    argv: CStrings,
    environment: CStrings,
}

/// What a bare step is to be.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FloorSpec {
    /// Holds the layers of the chain, lowest first, as `0`, `1` and so on.
    pub chain: PathBuf,
    /// How many there are.
    pub layers: usize,
    /// An existing empty directory.
    pub scratch: PathBuf,
    /// A path in the chain.
    pub program: String,
    /// Which namespaces.
    pub network: Network,
}

impl Floor {
    /// Prepares to run the program on an overlay.
    ///
    /// # Errors
    /// A directory can't be made, or a path holds a NUL byte.
    pub fn prepare(spec: &FloorSpec) -> std::io::Result<Self> {
        let FloorSpec {
            chain,
            layers,
            scratch,
            program,
            network,
        } = spec;
        for name in ["upper", "work", "merged"] {
            std::fs::create_dir(scratch.join(name))?;
        }
        let (chain, scratch) = (chain.display(), scratch.display());
        // By short names from inside the chain: options of mount(2) have to fit in a page.
        let lowers: Vec<String> = (0..*layers).rev().map(|layer| layer.to_string()).collect();
        let lowers = lowers.join(":");
        let options = format!(
            "userxattr,index=off,lowerdir={lowers},upperdir={scratch}/upper,workdir={scratch}/work,volatile"
        );
        let namespaces = match network {
            Network::Host => Namespaces::SANDBOX,
            // A private one is a new one too, only that somebody else has made it.
            Network::None | Network::Private => Namespaces::SANDBOX.and(Namespaces::NETWORK),
        };
        Ok(Self {
            namespaces,
            chain: CString::new(chain.to_string())?,
            merged: CString::new(format!("{scratch}/merged"))?,
            proc: CString::new(format!("{scratch}/merged/proc"))?,
            options: CString::new(options)?,
            program: CString::new(program.as_str())?,
            argv: CStrings::new(vec![CString::new(program.as_str())?]),
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
        rustix::process::chdir(&self.chain)?;
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

/// A process below a user namespace, as the workers of an ordinary user are, that runs bare steps when it is told to. It ends
/// with this value.
#[derive(Debug)]
pub struct FloorBelow {
    orders: UnixStream,
}

impl FloorBelow {
    /// Makes it; the caller has to be single-threaded.
    ///
    /// # Errors
    /// There can be no process. That the namespace is refused is told by the first step.
    pub fn start(maps: &IdMaps) -> std::io::Result<Self> {
        let (orders, taken) = UnixStream::pair()?;
        let mut orders = Some(orders);
        fork_process(|| {
            // Its own copy, or the end of the caller would not be seen.
            drop(orders.take());
            sys::signal::keep_ended_children();
            let entered = userns::enter(maps, |standing| {
                sys::signal::keep_ended_children();
                while let Ok(Some(spec)) = protocol::read_message::<FloorSpec>(&taken) {
                    let result = match &standing {
                        Ok(()) => take_time(&spec).map_err(|error| error.to_string()),
                        Err(error) => Err(error.to_string()),
                    };
                    if protocol::write_message(&taken, &result).is_err() {
                        break;
                    }
                }
            });
            u8::from(entered.is_err())
        })?;
        let lost = || std::io::Error::other("the process for bare steps is lost");
        Ok(Self {
            orders: orders.ok_or_else(lost)?,
        })
    }

    /// Runs one; how long it took.
    ///
    /// # Errors
    /// Those of [`Floor::run`].
    pub fn run(&self, spec: &FloorSpec) -> std::io::Result<Duration> {
        protocol::write_message(&self.orders, spec)?;
        match protocol::read_message::<Result<Duration, String>>(&self.orders)? {
            Some(result) => result.map_err(std::io::Error::other),
            None => Err(std::io::Error::other(
                "the process for bare steps has ended: the kernel may refuse user namespaces",
            )),
        }
    }
}

fn take_time(spec: &FloorSpec) -> std::io::Result<Duration> {
    let floor = Floor::prepare(spec)?;
    let start = Instant::now();
    floor.run()?;
    Ok(start.elapsed())
}
