//! Where words find their variables.

use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher;

/// Where variables are looked up.
pub trait Environment {
    /// The value of a variable; none if it is not set. An empty value is set.
    fn lookup(&self, name: &str) -> Option<&str>;
}

/// No variables at all.
impl Environment for () {
    fn lookup(&self, _name: &str) -> Option<&str> {
        None
    }
}

impl Environment for BTreeMap<String, String> {
    fn lookup(&self, name: &str) -> Option<&str> {
        self.get(name).map(String::as_str)
    }
}

impl<S: BuildHasher> Environment for HashMap<String, String, S> {
    fn lookup(&self, name: &str) -> Option<&str> {
        self.get(name).map(String::as_str)
    }
}

/// Pairs in order; the first of a name counts.
impl Environment for [(String, String)] {
    fn lookup(&self, name: &str) -> Option<&str> {
        self.iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }
}

/// Pairs in order; the first of a name counts.
impl Environment for Vec<(String, String)> {
    fn lookup(&self, name: &str) -> Option<&str> {
        self.as_slice().lookup(name)
    }
}
