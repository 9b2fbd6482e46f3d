//! `mount_setattr`, which rustix lacks.
#![expect(unsafe_code, reason = "rustix has no mount_setattr")]

use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use super::check;

/// Sets `attributes` on the mount that `fd` is the root of, and on all below it when `is_recursive`.
pub(crate) fn set_mount_attributes(
    fd: impl AsFd,
    attributes: MountAttrFlags,
    is_recursive: bool,
) -> Result<(), Errno> {
    let attribute = libc::mount_attr {
        attr_set: attributes.bits().into(),
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    let flags = libc::AT_EMPTY_PATH | if is_recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is an empty nul-terminated string, `attribute` lives through the call and its size is given;
    // the kernel only reads both.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attribute,
            size_of::<libc::mount_attr>(),
        )
    };
    check(result).map(|_| ())
}

#[cfg(test)]
mod tests {
    use rustix::mount::{OpenTreeFlags, open_tree};

    use super::*;

    #[test]
    fn a_cloned_tree_becomes_read_only() {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let Ok(tree) = open_tree(rustix::fs::CWD, "/tmp", flags) else {
            assert!(
                std::env::var_os("CI").is_none(),
                "open_tree needs CAP_SYS_ADMIN"
            );
            return;
        };
        set_mount_attributes(&tree, MountAttrFlags::MOUNT_ATTR_RDONLY, false)
            .expect("mount_setattr");
        assert_eq!(
            rustix::fs::mkdirat(&tree, "x", 0o700.into()),
            Err(Errno::ROFS)
        );
    }
}
