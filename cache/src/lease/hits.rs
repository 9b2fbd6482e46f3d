//! Looking up steps so that what is found stays.

use super::{Lease, LeaseError};
use crate::chain::Chain;
use crate::key::StepKey;
use crate::record::{Lookup, StepRecord};

impl Lease {
    /// Looks up a step and holds its chain: a hit stays one.
    pub fn lookup(&self, key: &StepKey) -> Result<Option<StepRecord>, LeaseError> {
        Ok(self.look_up(key)?.found())
    }

    /// Looks up many steps at once, at a fraction of the cost of one by one: one read of the database, one hold for all.
    pub fn look_up_all(&self, keys: &[StepKey]) -> Result<Vec<Lookup>, LeaseError> {
        let mut found = self.store().look_up_all(keys)?;
        let chains = found.iter().filter_map(|found| match found {
            Lookup::Found(record) => Some(&record.chain),
            Lookup::Lost(_) | Lookup::Nothing => None,
        });
        match self.hold_all(&Chain::snapshots_of(chains)) {
            Ok(()) => Ok(found),
            // Somebody has just removed one: which records that spoils is seen one by one.
            Err(LeaseError::Missing { .. }) => {
                for (key, found) in keys.iter().zip(&mut found) {
                    *found = self.look_up(key)?;
                }
                Ok(found)
            }
            Err(error) => Err(error),
        }
    }

    /// As [`lookup`](Self::lookup), and what was missing of a record that is not one any more.
    pub fn look_up(&self, key: &StepKey) -> Result<Lookup, LeaseError> {
        let found = self.store().look_up(key)?;
        if let Lookup::Found(record) = &found {
            match self.hold(&record.chain) {
                Ok(()) => {}
                Err(LeaseError::Missing { snapshot }) => return Ok(Lookup::Lost(snapshot)),
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }
}
