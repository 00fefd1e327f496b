//! Sets of variables.

use std::collections::HashMap;

/// A set of variables.
pub trait Env {
    /// Returns the value of a variable.
    fn get(&self, key: &str) -> Option<&str>;

    /// Returns the names, in the order in which they were set.
    fn keys(&self) -> Vec<&str>;
}

/// Variables in the order in which they were set; the last one of a name counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EnvList {
    keys: Vec<String>,
    values: HashMap<String, String>,
}

impl EnvList {
    /// Reads `key=value` strings; a word without `=` is an empty variable.
    pub fn from_strings<S: AsRef<str>>(strings: impl IntoIterator<Item = S>) -> Self {
        strings
            .into_iter()
            .map(|entry| {
                let (key, value) = entry
                    .as_ref()
                    .split_once('=')
                    .unwrap_or((entry.as_ref(), ""));
                (key.to_owned(), value.to_owned())
            })
            .collect()
    }

    /// Sets a variable.
    pub fn set(&mut self, key: impl Into<String>, value: impl Into<String>) {
        let key = key.into();
        if self.values.insert(key.clone(), value.into()).is_none() {
            self.keys.push(key);
        }
    }
}

impl FromIterator<(String, String)> for EnvList {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(pairs: I) -> Self {
        let mut list = Self::default();
        for (key, value) in pairs {
            list.set(key, value);
        }
        list
    }
}

impl Env for EnvList {
    fn get(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str)
    }

    fn keys(&self) -> Vec<&str> {
        self.keys.iter().map(String::as_str).collect()
    }
}
