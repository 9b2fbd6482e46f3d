//! The variables that a word may use, in the order in which they were first set.

use std::collections::HashMap;

use crate::word::Environment;

/// Ordered name-value pairs with unique names.
#[derive(Clone, Debug, Default)]
pub(super) struct Variables {
    pairs: Vec<(String, String)>,
    places: HashMap<String, usize>,
}

impl Variables {
    /// Sets a variable: in place if the name exists, else at the end.
    pub(super) fn set(&mut self, name: &str, value: &str) {
        if let Some(&place) = self.places.get(name) {
            value.clone_into(&mut self.pairs[place].1);
        } else {
            self.places.insert(name.to_owned(), self.pairs.len());
            self.pairs.push((name.to_owned(), value.to_owned()));
        }
    }

    /// The value; none if it isn't set.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.places
            .get(name)
            .map(|&place| self.pairs[place].1.as_str())
    }

    /// All names in order.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.pairs.iter().map(|(name, _)| name.as_str())
    }

    /// All pairs in order.
    pub(super) fn pairs(&self) -> &[(String, String)] {
        &self.pairs
    }
}

impl Environment for Variables {
    fn lookup(&self, name: &str) -> Option<&str> {
        self.get(name)
    }
}
