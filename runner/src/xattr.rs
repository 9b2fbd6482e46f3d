//! Extended attributes: which belong to a layer, overlayfs's own, and how they are read and set without following links.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::fs::XattrFlags;
use rustix::io::Errno;

/// Name and value.
pub type Xattr = (Vec<u8>, Vec<u8>);

/// What overlayfs keeps for itself under `userxattr`.
pub(crate) const OVERLAY_PREFIX: &[u8] = b"user.overlay.";
/// Marks a directory that hides what lower layers have in it (`y`), or one with xattr whiteouts inside (`x`).
pub(crate) const OPAQUE: &[u8] = b"user.overlay.opaque";
/// The xattr form of a whiteout: an empty regular file that carries this.
pub(crate) const WHITEOUT: &[u8] = b"user.overlay.whiteout";

/// The kernel's limit on the list of names, and on one value (`XATTR_LIST_MAX`, `XATTR_SIZE_MAX`).
const LARGEST: usize = 65536;

/// Whether an attribute is part of a layer: labels and ACLs belong to the machine, not to the image.
pub(crate) fn is_kept(name: &[u8]) -> bool {
    name == b"security.capability"
        || !(name.starts_with(b"security.") || name.starts_with(b"system."))
}

/// The name under which a layer's attribute is stored in a snapshot, so that overlayfs does not take it for its own.
pub(crate) fn escape(name: &[u8]) -> Vec<u8> {
    match name.strip_prefix(OVERLAY_PREFIX) {
        Some(rest) => [OVERLAY_PREFIX, b"overlay.", rest].concat(),
        None => name.to_vec(),
    }
}

/// The layer's name of a snapshot's attribute; none for overlayfs's own.
pub(crate) fn unescape(name: Vec<u8>) -> Option<Vec<u8>> {
    match name.strip_prefix(OVERLAY_PREFIX) {
        Some(rest) => rest
            .strip_prefix(b"overlay.")
            .map(|rest| [OVERLAY_PREFIX, rest].concat()),
        None => Some(name),
    }
}

/// Splits a snapshot file's raw attributes into the layer's (unescaped, kept ones) and overlayfs's own.
pub(crate) fn split(raw: Vec<Xattr>) -> (Vec<Xattr>, Vec<Xattr>) {
    let (mut kept, mut own) = (Vec::new(), Vec::new());
    for (name, value) in raw {
        if !is_kept(&name) {
            continue;
        }
        match unescape(name.clone()) {
            Some(name) => kept.push((name, value)),
            None => own.push((name, value)),
        }
    }
    kept.sort_unstable();
    (kept, own)
}

/// All attributes of an open file, in byte order.
pub(crate) fn list(fd: BorrowedFd<'_>) -> Result<Vec<Xattr>, Errno> {
    collect(
        |buffer| rustix::fs::flistxattr(fd, buffer),
        |name, buffer| rustix::fs::fgetxattr(fd, name, buffer),
    )
}

/// All attributes of a name, a symlink's own included, in byte order.
pub(crate) fn list_at(directory: BorrowedFd<'_>, name: &[u8]) -> Result<Vec<Xattr>, Errno> {
    let path = proc_path(directory, name);
    collect(
        |buffer| rustix::fs::llistxattr(path.as_slice(), buffer),
        |name, buffer| rustix::fs::lgetxattr(path.as_slice(), name, buffer),
    )
}

/// One attribute of an open file.
pub(crate) fn read(fd: BorrowedFd<'_>, name: &[u8]) -> Result<Option<Vec<u8>>, Errno> {
    let mut value = vec![0; 256];
    loop {
        match rustix::fs::fgetxattr(fd, name, value.as_mut_slice()) {
            Ok(length) => {
                value.truncate(length);
                return Ok(Some(value));
            }
            Err(Errno::NODATA | Errno::OPNOTSUPP) => return Ok(None),
            Err(Errno::RANGE) if value.len() < LARGEST => value.resize(LARGEST, 0),
            Err(errno) => return Err(errno),
        }
    }
}

/// Sets an attribute of an open file.
pub(crate) fn set(fd: BorrowedFd<'_>, name: &[u8], value: &[u8]) -> Result<(), Errno> {
    lenient(
        name,
        rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty()),
    )
}

/// Sets an attribute of a name, a symlink's own.
pub(crate) fn set_at(
    directory: BorrowedFd<'_>,
    file: &[u8],
    name: &[u8],
    value: &[u8],
) -> Result<(), Errno> {
    let path = proc_path(directory, file);
    lenient(
        name,
        rustix::fs::lsetxattr(path.as_slice(), name, value, XattrFlags::empty()),
    )
}

/// `trusted.*` can't be set in a user namespace, and `user.*` not on links and devices: the layer is used without
/// them, as by other tools. Overlay's own marks must be set.
fn lenient(name: &[u8], result: Result<(), Errno>) -> Result<(), Errno> {
    match result {
        Err(Errno::PERM | Errno::OPNOTSUPP) if !name.starts_with(OVERLAY_PREFIX) => {
            tracing::debug!(name = %String::from_utf8_lossy(name), "extended attribute can't be set here");
            Ok(())
        }
        result => result,
    }
}

/// There is no `lgetxattrat` before 6.13; the directory's name in `/proc` leads to the same inode.
fn proc_path(directory: BorrowedFd<'_>, name: &[u8]) -> Vec<u8> {
    [
        format!("/proc/self/fd/{}/", directory.as_raw_fd()).as_bytes(),
        name,
    ]
    .concat()
}

fn collect(
    names: impl Fn(&mut [u8]) -> Result<usize, Errno>,
    value: impl Fn(&[u8], &mut [u8]) -> Result<usize, Errno>,
) -> Result<Vec<Xattr>, Errno> {
    let mut small = [0; 1024];
    let mut large = Vec::new();
    let length = match names(&mut small) {
        Err(Errno::RANGE) => {
            large.resize(LARGEST, 0);
            names(&mut large)?
        }
        Err(Errno::OPNOTSUPP) => 0,
        result => result?,
    };
    let list = if large.is_empty() {
        &small[..length]
    } else {
        &large[..length]
    };
    let mut xattrs = Vec::new();
    for name in list
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
    {
        let mut buffer = vec![0; 256];
        let length = match value(name, &mut buffer) {
            Err(Errno::RANGE) => {
                buffer.resize(LARGEST, 0);
                value(name, &mut buffer)
            }
            result => result,
        };
        match length {
            Ok(length) => buffer.truncate(length),
            // Removed meanwhile, or a kernel's own that can't be read (`trusted.*` in a user namespace).
            Err(Errno::NODATA | Errno::OPNOTSUPP) => continue,
            Err(errno) => return Err(errno),
        }
        xattrs.push((name.to_vec(), buffer));
    }
    xattrs.sort_unstable();
    Ok(xattrs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kept_escaped_and_dropped() {
        for (name, kept) in [
            (&b"user.x"[..], true),
            (b"security.capability", true),
            (b"security.selinux", false),
            (b"system.posix_acl_default", false),
            (b"trusted.overlay.opaque", true),
        ] {
            assert_eq!(is_kept(name), kept, "{}", name.escape_ascii());
        }
        assert_eq!(
            escape(b"user.overlay.opaque"),
            b"user.overlay.overlay.opaque"
        );
        assert_eq!(
            unescape(b"user.overlay.overlay.opaque".to_vec()),
            Some(OPAQUE.to_vec())
        );
        assert_eq!(unescape(b"user.overlay.origin".to_vec()), None);
        assert_eq!(escape(b"user.overlayx"), b"user.overlayx");
    }
}
