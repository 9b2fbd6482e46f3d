//! Where pruning puts what goes: out of view at once, removed when no lock is held any more.
//!
//! That is a directory of a lease in `work/`, so who dies leaves it to the next opening. On a disk that is too full for a
//! directory, it is `work/` itself.

use std::cell::RefCell;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::plan::Plan;
use super::{GcError, Pruned};
use crate::digest::to_hex;
use crate::lease::Lease;
use crate::remove::RemoveTree;
use crate::store::{Store, StoreError};

/// Where things go that are out of view but not removed yet.
pub(super) struct Grave {
    /// None where the disk is too full for another directory: things then lie in `work/` itself, under names that no
    /// lock file stands for.
    lease: Option<(Lease, PathBuf)>,
    work: PathBuf,
    /// Moves directories that the store's owner may not write to.
    remover: Arc<dyn RemoveTree>,
    prefix: String,
    taken: RefCell<Vec<PathBuf>>,
    noted: RefCell<Pruned>,
}

impl Grave {
    pub(super) fn open(store: &Store) -> Result<Self, GcError> {
        let lease = store.lease().map_err(Box::new)?;
        let directory = match lease.scratch("pruned") {
            Ok(directory) => Some(directory),
            Err(error) if error.is_full() => None,
            Err(error) => return Err(error.into()),
        };
        let mut name = [0_u8; 12];
        rustix::rand::getrandom(&mut name, rustix::rand::GetRandomFlags::empty())
            .map_err(|source| Box::new(StoreError::Random { source }))?;
        Ok(Self {
            lease: directory.map(|directory| (lease, directory)),
            work: store.inner.work.clone(),
            remover: Arc::clone(&store.inner.remover),
            prefix: to_hex(&name),
            taken: RefCell::default(),
            noted: RefCell::default(),
        })
    }

    fn place(&self) -> PathBuf {
        let number = self.taken.borrow().len();
        match &self.lease {
            Some((_, directory)) => directory.join(number.to_string()),
            None => self.work.join(format!("{}-{number}", self.prefix)),
        }
    }

    pub(super) fn take_tree(&self, path: &Path) -> Result<(), GcError> {
        let place = self.place();
        match self.remover.move_tree(path, &place) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(GcError::Remove {
                path: path.to_owned(),
                source,
            }),
            Ok(()) => {
                self.taken.borrow_mut().push(place);
                Ok(())
            }
        }
    }

    /// Without a directory of its own: a single file is gone at once or not at all.
    pub(super) fn take_file(&self, path: &Path) -> Result<(), GcError> {
        if self.lease.is_some() {
            return self.take_tree(path);
        }
        match std::fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(|source| GcError::Remove {
                path: path.to_owned(),
                source,
            }),
        }
    }

    /// Remembers what the plan was, for when its rows can't be deleted yet.
    pub(super) fn note(&self, plan: &Plan) {
        *self.noted.borrow_mut() = Pruned {
            items: plan.items.clone(),
            freed: 0,
        };
    }

    pub(super) fn taken_so_far(self, mut before: Pruned) -> Pruned {
        before.items.extend(self.noted.into_inner().items);
        before
    }

    /// Removes the trees. What can't be removed lies in `work/`, and is tried again when the store is opened next.
    pub(super) fn empty(&self) {
        let taken = match &self.lease {
            Some((_, directory)) => vec![directory.clone()],
            None => self.taken.borrow().clone(),
        };
        for path in &taken {
            if let Err(error) = self.remover.remove_tree(path) {
                tracing::warn!(path = %path.display(), %error, "cannot remove what was pruned; it is out of the store");
            }
        }
    }
}
