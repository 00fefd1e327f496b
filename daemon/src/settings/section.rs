//! One declaration for a key of the file: its name, its type and what it means. What the file is read into, the keys that are
//! known, and the table of `docs/configuration.md` all follow from it.

use std::collections::BTreeMap;

use super::context::CompareText;
use super::units::{DiskSpaceText, DurationText};

/// A key of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Its path; `*` stands for any name.
    pub path: String,
    /// What it means, with its default.
    pub meaning: &'static str,
}

/// A value of the file that can say which keys it has.
pub(super) trait Documented {
    /// Adds the keys of a value that stands at `path`; `meaning` is what the key itself is said to mean.
    fn document(path: &str, meaning: &'static str, keys: &mut Vec<Key>);
}

/// Declares a section: each row is a key as it is written, the field that it is read into, and what it means.
macro_rules! section {
    ($(#[$meta:meta])* $name:ident { $( $key:literal $field:ident: $type:ty = $meaning:literal, )* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Default, serde::Deserialize)]
        #[serde(default)]
        #[allow(clippy::empty_docs, reason = "a section means what its keys mean")]
        pub struct $name {
            $( #[doc = $meaning] #[serde(rename = $key)] pub $field: $type, )*
        }

        impl $crate::settings::section::Documented for $name {
            fn document(
                path: &str,
                _meaning: &'static str,
                keys: &mut Vec<$crate::settings::section::Key>,
            ) {
                let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
                $( <$type as $crate::settings::section::Documented>::document(&below($key), $meaning, keys); )*
            }
        }
    };
}
pub(super) use section;

macro_rules! plain_values {
    ($($type:ty),* $(,)?) => {$(
        impl Documented for $type {
            fn document(path: &str, meaning: &'static str, keys: &mut Vec<Key>) {
                let path = path.to_owned();
                keys.push(Key { path, meaning });
            }
        }
    )*};
}

plain_values!(
    bool,
    String,
    Vec<String>,
    Option<bool>,
    Option<u32>,
    Option<usize>,
    Option<f64>,
    Option<String>,
    Option<Vec<String>>,
    Option<CompareText>,
    Option<DiskSpaceText>,
    Option<DurationText>,
);

/// A table whose names are free.
impl<T: Documented> Documented for BTreeMap<String, T> {
    fn document(path: &str, meaning: &'static str, keys: &mut Vec<Key>) {
        T::document(&format!("{path}.*"), meaning, keys);
    }
}

/// A table that may be left out. (Options of plain values are values of their own.)
macro_rules! optional_sections {
    ($($type:ty),* $(,)?) => {$(
        impl Documented for Option<$type> {
            fn document(path: &str, meaning: &'static str, keys: &mut Vec<Key>) {
                <$type>::document(path, meaning, keys);
            }
        }
    )*};
}
optional_sections!(super::file::Dns);

/// Tables one after the other have the keys of one.
macro_rules! lists_of_sections {
    ($($type:ty),* $(,)?) => {$(
        impl Documented for Vec<$type> {
            fn document(path: &str, meaning: &'static str, keys: &mut Vec<Key>) {
                <$type>::document(path, meaning, keys);
            }
        }
    )*};
}
lists_of_sections!(super::file::GcPolicyFile, super::file::KeyPair);
