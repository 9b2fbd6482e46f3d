//! What fuzz targets need of this crate's inside.

use sha2::{Digest, Sha256};

use crate::users;

/// Who a command would run as.
#[derive(Debug)]
pub struct FoundUser {
    /// User.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// All groups.
    pub groups: Vec<u32>,
}

/// Looks `text` up in the content of passwd and group.
pub fn user(text: &[u8], passwd: &[u8], group: &[u8]) -> Option<FoundUser> {
    let user = users::resolve(text, passwd, group).ok()?;
    Some(FoundUser {
        uid: user.uid,
        gid: user.gid,
        groups: user.groups,
    })
}

/// The `diff_id` of an uncompressed layer.
pub fn diff_id(tar: &[u8]) -> String {
    crate::sha256::text(Sha256::new_with_prefix(tar))
}
