//! Looking after a store: what it takes, what may go, whether it is whole.
//!
//! All of it blocks, and all of it may be called while builds run: see [`Engine::prune`].

pub use rbuild_cache::{
    Budget, CacheMountUse, Checked, Damage, DamageKind, Dependant, DiskUse, FsckReport, GcError,
    Healing, ItemUse, Kind, KindUse, Leftover, LeftoverKind, MountRemoveError, Problem,
    PruneOptions, Pruned, PrunedItem, Recovered, is_damaged_store,
};

use crate::engine::Engine;
pub use crate::fsck::{FsckError, fsck};

impl Engine {
    /// What the store takes on its disk. Walks every file of it.
    ///
    /// # Errors
    /// Something in it can't be read.
    pub fn disk_use(&self) -> Result<DiskUse, GcError> {
        self.store().disk_use()
    }

    /// Removes what nothing needs, least regretted first. What a running build uses stays, and waits no longer than it takes
    /// to move directories out of the way.
    ///
    /// # Errors
    /// Something can't be removed; what went before is gone.
    pub fn prune(&self, options: &PruneOptions) -> Result<Pruned, GcError> {
        self.store().prune(options)
    }

    /// What [`prune`](Self::prune) would remove. Changes nothing.
    ///
    /// # Errors
    /// The store can't be read.
    pub fn plan_prune(&self, options: &PruneOptions) -> Result<Pruned, GcError> {
        self.store().plan_prune(options)
    }

    /// All cache mounts. Walks them, for their sizes.
    ///
    /// # Errors
    /// The store can't be read.
    pub fn cache_mounts(&self) -> Result<Vec<CacheMountUse>, GcError> {
        self.store().cache_mounts()
    }

    /// Removes one cache mount, given by the id in the Dockerfile or the start of its directory's name. All of an id that has
    /// several directories go, unless one of them is in use.
    ///
    /// # Errors
    /// There is none, or a running step uses it.
    pub fn remove_cache_mount(&self, id: &str) -> Result<Vec<CacheMountUse>, MountRemoveError> {
        self.store().remove_cache_mount(id)
    }
}
