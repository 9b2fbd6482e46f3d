//! Removing kept file systems without pruning: those that are too many or too old, and those of builds that are forgotten.

use std::collections::BTreeSet;

use super::GcError;
use super::grave::Grave;
use crate::db::KeptRow;
use crate::kept::KeptLimits;
use crate::lock::StandingLock;
use crate::store::{Store, now};

impl Store {
    /// Removes what was kept of failed steps beyond the limits, the oldest first. What somebody looks at stays. Gives how many
    /// went.
    pub fn drop_kept(&self, limits: KeptLimits) -> Result<usize, GcError> {
        self.remove_kept(|rows| limits.surplus(rows, now()))
    }

    /// Removes what was kept of builds.
    pub(crate) fn drop_kept_of(&self, builds: &BTreeSet<&str>) -> Result<usize, GcError> {
        self.remove_kept(|rows| {
            (rows.iter())
                .filter(|row| builds.iter().any(|build| row.is_of(build)))
                .map(|row| row.name.clone())
                .collect()
        })
    }

    fn remove_kept(
        &self,
        choose: impl Fn(&[KeptRow]) -> BTreeSet<String>,
    ) -> Result<usize, GcError> {
        let inner = &self.inner;
        // Mostly there is nothing to do, and then nobody is made to wait.
        if choose(&inner.db.read(|tables| tables.kept())?).is_empty() {
            return Ok(0);
        }
        let grave = Grave::open(self)?;
        let gc = StandingLock::exclusive(&inner.gc_lock())?;
        let holds = inner.holds()?;
        let gone = inner.db.write(|tables| {
            let mut rows = tables.kept()?;
            let chosen = choose(&rows);
            rows.retain(|row| chosen.contains(&row.name) && !holds.kept.contains(&row.name));
            for row in &rows {
                tables.remove_kept(&row.name)?;
            }
            Ok::<_, GcError>(rows)
        })?;
        for row in gone.iter().filter(|row| row.has_plain_name()) {
            grave.take_tree(&inner.kept.join(&row.name))?;
        }
        drop(gc);
        grave.empty();
        Ok(gone.len())
    }
}
