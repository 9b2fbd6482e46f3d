//! The variables that a word may use, in the order in which they were first set.

use std::collections::HashMap;

use super::budget::ENTRY;
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

    /// About how many bytes a copy takes.
    pub(super) fn size(&self) -> usize {
        self.pairs
            .iter()
            .map(|(name, value)| name.len() + value.len() + ENTRY)
            .sum()
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

/// ARGs that were declared, in the order of their first declaration, each with the value of its last.
#[derive(Clone, Debug, Default)]
pub(super) struct BuildArgs {
    list: Vec<(String, Option<String>)>,
    places: HashMap<String, usize>,
}

impl BuildArgs {
    /// Declares one, perhaps again.
    pub(super) fn declare(&mut self, name: &str, value: Option<String>) {
        if let Some(&place) = self.places.get(name) {
            self.list[place].1 = value;
        } else {
            self.places.insert(name.to_owned(), self.list.len());
            self.list.push((name.to_owned(), value));
        }
    }

    /// Whether it was declared.
    pub(super) fn has(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    /// All, in order.
    pub(super) fn list(&self) -> &[(String, Option<String>)] {
        &self.list
    }

    /// About how many bytes a copy takes.
    pub(super) fn size(&self) -> usize {
        let value = |value: &Option<String>| value.as_ref().map_or(0, String::len);
        self.list
            .iter()
            .map(|(name, default)| 2 * (name.len() + ENTRY) + value(default))
            .sum()
    }
}
