//! Ids as types: names of builds and ids of records.

use std::borrow::Borrow;
use std::fmt;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident;)*) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
            pub struct $name(String);

            impl $name {
                /// The id as text.
                #[must_use]
                pub fn as_str(&self) -> &str {
                    &self.0
                }

                /// Whether the id is empty, which names nothing.
                #[must_use]
                pub fn is_empty(&self) -> bool {
                    self.0.is_empty()
                }
            }

            impl fmt::Display for $name {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str(&self.0)
                }
            }

            impl From<String> for $name {
                fn from(text: String) -> Self {
                    Self(text)
                }
            }

            impl From<&str> for $name {
                fn from(text: &str) -> Self {
                    Self(text.to_owned())
                }
            }

            impl From<$name> for String {
                fn from(id: $name) -> Self {
                    id.0
                }
            }

            impl Borrow<str> for $name {
                fn borrow(&self) -> &str {
                    &self.0
                }
            }
        )*
    };
}

ids! {
    /// The client's name for a build, at most 512 bytes. It is free for another build when the build has ended.
    BuildRef;

    /// The id of what is kept on disk, such as a snapshot; chosen by the store.
    RecordId;
}
