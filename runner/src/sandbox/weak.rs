//! A sandbox with one of its protections taken away, and circumstances that an attack needs: for the tests in
//! [`crate::attacks`], which show that each attack works without the protection and fails with it.

use rustix::thread::{CapabilitySets, capabilities, set_capabilities};

use super::command::Command;
use super::plan::{SandboxPlan, SetupOp};
use crate::error::{JobError, JobErrorKind};
use crate::sys::process::Namespaces;

/// An attack that is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trial {
    pub(crate) attack: Attack,
    /// False: the protection against it is taken away.
    pub(crate) is_guarded: bool,
}

/// What is attacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attack {
    /// Opening a device node.
    Devices,
    /// Reading what is masked.
    Masks,
    /// Writing what is read-only.
    ReadOnlyPaths,
    /// System calls that are filtered.
    SystemCalls,
    /// What needs more capabilities than Docker's.
    Capabilities,
    /// A program with inheritable capabilities, when the caller has some.
    Inheritable,
    /// Looking at the processes outside.
    Processes,
    /// A descriptor of ours that leads to the host's root.
    Descriptors,
    /// Our own binary.
    OwnBinary,
}

/// Takes the protection out of the plan.
pub(super) fn weaken(
    trial: Option<Trial>,
    mut plan: SandboxPlan,
    namespaces: Namespaces,
) -> (SandboxPlan, Namespaces) {
    let Some(trial) = trial else {
        return (plan, namespaces);
    };
    if trial.attack == Attack::Inheritable {
        plan.operations.insert(0, SetupOp::Inherit);
    }
    if trial.is_guarded {
        return (plan, namespaces);
    }
    if trial.attack == Attack::Devices {
        for operation in &mut plan.operations {
            if let SetupOp::MountRoot { attributes } = operation {
                *attributes = rustix::mount::MountAttrFlags::empty();
            }
        }
    }
    plan.operations.retain(|operation| match trial.attack {
        Attack::Masks => !matches!(operation, SetupOp::Mask { .. }),
        Attack::ReadOnlyPaths => !matches!(operation, SetupOp::MakeReadOnly { .. }),
        Attack::SystemCalls => *operation != SetupOp::FilterSystemCalls,
        // A process with more capabilities than the one that looks is out of its sight too.
        Attack::Capabilities | Attack::Processes => !matches!(
            operation,
            SetupOp::FilterSystemCalls | SetupOp::LimitCapabilities
        ),
        Attack::Inheritable => *operation != SetupOp::LimitCapabilities,
        Attack::Devices | Attack::Descriptors | Attack::OwnBinary => true,
    });
    let namespaces = match trial.attack {
        Attack::Processes => namespaces.without_pid(),
        _ => namespaces,
    };
    (plan, namespaces)
}

/// Brings about what the attack needs, in the sandbox's process.
pub(super) fn begin(trial: Option<Trial>) {
    if trial.is_some_and(|trial| trial.attack == Attack::Descriptors) {
        let root = std::fs::File::open("/").expect("the host's root");
        let leaked = rustix::io::dup(root).expect("a descriptor that stays open on exec");
        std::mem::forget(leaked);
    }
}

/// Becomes the command without what guards that step.
pub(super) fn execute(trial: Option<Trial>, command: &Command) {
    let Some(trial) = trial.filter(|trial| !trial.is_guarded) else {
        return;
    };
    match trial.attack {
        Attack::Descriptors => {
            for entry in std::fs::read_dir("/proc/self/fd").expect("descriptors") {
                let name = entry.expect("entry").file_name();
                let number: u32 = name.to_string_lossy().parse().expect("a number");
                crate::sys::process::stay_open_on_exec(number);
            }
            command.execute_directly();
        }
        Attack::OwnBinary => command.execute_directly(),
        _ => {}
    }
}

/// Makes every capability that there is inheritable.
pub(super) fn inherit_all() -> Result<(), JobError> {
    let failed = |errno| JobError::from_errno(JobErrorKind::Sandbox, "cannot inherit", errno);
    let own = capabilities(None).map_err(failed)?;
    let sets = CapabilitySets {
        inheritable: own.permitted,
        ..own
    };
    set_capabilities(None, sets).map_err(failed)
}
