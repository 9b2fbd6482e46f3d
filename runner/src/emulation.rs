//! Programs of other machines, in a user namespace: qemu's static binaries are registered in a `binfmt_misc` of our own.
//!
//! Handlers that the machine has are found by the kernel from any namespace, and then nothing is done here. Otherwise
//! `qemu-ARCHITECTURE-static` is looked for in PATH and registered with the flag `F`: the kernel opens it now, so an image
//! needs none of it. The file system belongs to the user namespace and goes with it: nothing of the machine is changed, and nothing is
//! left after a crash. Kernels before 6.7 have no `binfmt_misc` in user namespaces; there nothing is registered.

use std::fmt::Write as _;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use crate::mounts;

/// Keeps the file system, and so the handlers, while the process lives.
static HANDLERS: OnceLock<OwnedFd> = OnceLock::new();

/// Where the machine's own handlers are, if it has any.
const MACHINE: &str = "/proc/sys/fs/binfmt_misc";

/// How the programs of a machine are recognised.
struct Architecture {
    /// In the name of qemu's binary.
    name: &'static str,
    /// As Rust calls it.
    rust: &'static str,
    is_64: bool,
    is_little: bool,
    /// `e_machine`
    machine: u8,
}

const fn architecture(
    name: &'static str,
    rust: &'static str,
    (is_64, is_little): (bool, bool),
    machine: u8,
) -> Architecture {
    Architecture {
        name,
        rust,
        is_64,
        is_little,
        machine,
    }
}

/// The architectures that images are made for.
const ARCHITECTURES: [Architecture; 7] = [
    architecture("aarch64", "aarch64", (true, true), 183),
    architecture("arm", "arm", (false, true), 40),
    architecture("x86_64", "x86_64", (true, true), 62),
    architecture("i386", "x86", (false, true), 3),
    architecture("ppc64le", "powerpc64", (true, true), 21),
    architecture("riscv64", "riscv64", (true, true), 243),
    architecture("s390x", "s390x", (true, false), 22),
];

/// Registers what is there for other machines. Best effort: without it a foreign program can't be executed, and the step that
/// tries says so.
pub(crate) fn register() {
    if has_handlers(Path::new(MACHINE)) {
        return;
    }
    let found = emulators(
        &std::env::var_os("PATH").unwrap_or_default(),
        std::env::consts::ARCH,
    );
    if found.is_empty() {
        return;
    }
    match register_all(&found) {
        Ok(handlers) => _ = HANDLERS.set(handlers), // a process enters one namespace, once
        Err(errno) => tracing::debug!(%errno, "no binfmt_misc in the user namespace"),
    }
}

fn has_handlers(directory: &Path) -> bool {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name())
        .any(|name| name.as_encoded_bytes().starts_with(b"qemu-"))
}

/// The binaries in a search path for all machines but this.
fn emulators(path: &std::ffi::OsStr, this: &str) -> Vec<(&'static Architecture, PathBuf)> {
    let is_native = |other: &Architecture| {
        other.rust == this || matches!((this, other.rust), ("x86_64", "x86") | ("aarch64", "arm"))
    };
    let find = |other: &'static Architecture| {
        let name = format!("qemu-{}-static", other.name);
        let places = std::env::split_paths(path).filter(|place| place.is_absolute());
        let found = places
            .map(|place| place.join(&name))
            .find(|path| path.is_file());
        found.map(|path| (other, path))
    };
    ARCHITECTURES
        .iter()
        .filter(|other| !is_native(other))
        .filter_map(find)
        .collect()
}

fn register_all(found: &[(&Architecture, PathBuf)]) -> Result<OwnedFd, Errno> {
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    let root =
        mounts::make_filesystem("binfmt_misc", &[], attributes).map_err(|error| error.source)?;
    for (other, path) in found {
        let Some(line) = line(other, path) else {
            continue;
        };
        let file = rustix::fs::openat(
            &root,
            "register",
            OFlags::WRONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        // One that the kernel does not take leaves the others.
        if let Err(errno) = rustix::io::write(&file, line.as_bytes()) {
            tracing::debug!(%errno, path = %path.display(), "not registered");
        }
    }
    Ok(root)
}

/// `:NAME:M::MAGIC:MASK:INTERPRETER:F`, as the kernel's admin-guide/binfmt-misc has it. None for a path that can't stand there.
fn line(other: &Architecture, path: &Path) -> Option<String> {
    let path = path.to_str().filter(|path| !path.contains([':', '\n']))?;
    let (class, data) = (1 + u8::from(other.is_64), 2 - u8::from(other.is_little));
    let wide = |value: u8| {
        if other.is_little {
            [value, 0]
        } else {
            [0, value]
        }
    };
    let mut magic = vec![0x7f, b'E', b'L', b'F', class, data, 1];
    magic.resize(16, 0);
    magic.extend(wide(2));
    magic.extend(wide(other.machine));
    let mut mask = vec![0xff; 20];
    mask[7] = 0; // whatever ABI
    // Executables, position-independent or not: types 2 and 3.
    mask[if other.is_little { 16 } else { 17 }] = 0xfe;
    let escaped = |bytes: &[u8]| {
        bytes.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "\\x{byte:02x}"); // writing to a String cannot fail
            text
        })
    };
    Some(format!(
        ":qemu-{}:M::{}:{}:{path}:F",
        other.name,
        escaped(&magic),
        escaped(&mask)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_those_of_the_kernels_table() {
        let [arm64, .., s390x] = &ARCHITECTURES;
        assert_eq!(
            line(arm64, Path::new("/usr/bin/qemu-aarch64-static")).as_deref(),
            Some(
                ":qemu-aarch64:M::\\x7f\\x45\\x4c\\x46\\x02\\x01\\x01\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x02\\x00\\xb7\\x00:\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\x00\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xfe\\xff\\xff\\xff:/usr/bin/qemu-aarch64-static:F"
            )
        );
        let big = line(s390x, Path::new("/q")).expect("a line");
        assert!(big.contains("\\x02\\x02\\x01\\x00"), "{big}");
        assert!(big.contains("\\x00\\x02\\x00\\x16:"), "{big}");
        assert!(big.contains("\\xff\\xfe\\xff\\xff:/q:F"), "{big}");
        assert_eq!(line(arm64, Path::new("/a:b")), None);
    }

    #[test]
    fn emulators_of_other_machines_are_found() {
        let directory = tempfile::tempdir().expect("a directory");
        for name in [
            "qemu-aarch64-static",
            "qemu-x86_64-static",
            "qemu-arm-static",
            "qemu-mips-static",
        ] {
            std::fs::write(directory.path().join(name), "").expect("written");
        }
        let names = |this: &str| {
            let found = emulators(directory.path().as_os_str(), this);
            found
                .iter()
                .map(|(other, _)| other.name)
                .collect::<Vec<_>>()
        };
        assert_eq!(names("x86_64"), ["aarch64", "arm"]);
        assert_eq!(names("aarch64"), ["x86_64"]);
        assert!(emulators(std::ffi::OsStr::new("relative"), "x86_64").is_empty());
        assert!(!has_handlers(directory.path().join("none").as_path()));
        assert!(has_handlers(directory.path()));
    }
}
