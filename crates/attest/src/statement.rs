//! In-toto statements: a predicate about subjects.

use std::borrow::Cow;
use std::collections::BTreeMap;

use oci::Digest;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::error::AttestError;

/// The type of all statements.
const IN_TOTO_STATEMENT: &str = "https://in-toto.io/Statement/v1";

/// A subject of a statement: an image or a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// A package URL of an image, or the path of a file.
    #[serde(default)]
    pub name: String,
    /// Digests in hexadecimal, by algorithm.
    #[serde(default)]
    pub digest: BTreeMap<String, String>,
}

impl Subject {
    /// A subject with one digest.
    #[must_use]
    pub fn new(name: impl Into<String>, digest: &Digest) -> Self {
        Self::with_digests(name, std::slice::from_ref(digest))
    }

    /// A subject with several digests.
    fn with_digests(name: impl Into<String>, digests: &[Digest]) -> Self {
        let pair = |d: &Digest| (d.algorithm().to_owned(), d.hex().to_owned());
        Self {
            name: name.into(),
            digest: digests.iter().map(pair).collect(),
        }
    }
}

/// The kind of subject that a frontend names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubjectKind {
    /// The exported result.
    SelfResult,
    /// The name and digests that the frontend gives.
    Raw,
}

/// One subject of a frontend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubjectSpec {
    /// The kind of subject.
    pub kind: SubjectKind,
    /// The name; empty for none.
    pub name: String,
    /// The digests; empty unless the kind is [`SubjectKind::Raw`].
    pub digests: Vec<Digest>,
}

/// A statement in Go's field order.
#[derive(Debug, Serialize)]
pub struct Statement<'a> {
    #[serde(rename = "_type")]
    kind: &'static str,
    #[serde(rename = "predicateType")]
    predicate_type: &'a str,
    subject: Vec<Subject>,
    predicate: Option<Cow<'a, RawValue>>,
}

impl<'a> Statement<'a> {
    /// States `predicate` (JSON; an empty one is written as `null`) about the subjects that `specs` name. Without `specs` the
    /// statement is about the `exported` subjects.
    pub fn new(
        predicate_type: &'a str,
        predicate: &'a [u8],
        specs: &[SubjectSpec],
        exported: &[Subject],
    ) -> Result<Self, AttestError> {
        let predicate = if predicate.is_empty() {
            None
        } else {
            let raw = match String::from_utf8_lossy(predicate) {
                Cow::Borrowed(text) => serde_json::from_str(text).map(Cow::Borrowed),
                Cow::Owned(text) => RawValue::from_string(text).map(Cow::Owned),
            };
            Some(raw.map_err(|source| AttestError::Statement { source })?)
        };
        let self_result = [SubjectSpec {
            kind: SubjectKind::SelfResult,
            name: String::new(),
            digests: Vec::new(),
        }];
        let specs = if specs.is_empty() {
            &self_result
        } else {
            specs
        };
        let mut subject = Vec::new();
        for spec in specs {
            match spec.kind {
                SubjectKind::SelfResult => {
                    for result in exported {
                        subject.push(result.clone());
                        if !spec.name.is_empty() {
                            subject.push(Subject {
                                name: spec.name.clone(),
                                digest: result.digest.clone(),
                            });
                        }
                    }
                }
                SubjectKind::Raw => {
                    let name = if spec.name.is_empty() {
                        "_"
                    } else {
                        &spec.name
                    };
                    subject.push(Subject::with_digests(name, &spec.digests));
                }
            }
        }
        Ok(Self {
            kind: IN_TOTO_STATEMENT,
            predicate_type,
            subject,
            predicate,
        })
    }

    /// The statement as compact JSON, as images hold it.
    #[must_use]
    pub fn compact(&self) -> Vec<u8> {
        self.reread(gostd::json::to_vec)
    }

    /// The statement as indented JSON, for exported files.
    #[must_use]
    pub fn pretty(&self) -> Vec<u8> {
        self.reread(|value| gostd::json::to_vec_indent(value, "  "))
    }

    /// A raw value keeps the blanks that it was read with; decoding and encoding it again drops them.
    fn reread(&self, write: impl Fn(&Ordered) -> Vec<u8>) -> Vec<u8> {
        let raw = gostd::json::to_vec(self);
        serde_json::from_slice::<Ordered>(&raw).map_or(raw, |value| write(&value))
    }
}

/// Any JSON, in the order in which it was written.
#[derive(Debug)]
enum Ordered {
    Object(Vec<(String, Ordered)>),
    List(Vec<Ordered>),
    Plain(serde_json::Value),
}

impl Serialize for Ordered {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Object(fields) => to.collect_map(fields.iter().map(|(k, v)| (k, v))),
            Self::List(items) => to.collect_seq(items),
            Self::Plain(value) => value.serialize(to),
        }
    }
}

impl<'de> Deserialize<'de> for Ordered {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Ordered;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("JSON")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                mut map: A,
            ) -> Result<Ordered, A::Error> {
                let mut out = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    out.push(entry);
                }
                Ok(Ordered::Object(out))
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(
                self,
                mut seq: A,
            ) -> Result<Ordered, A::Error> {
                let mut out = Vec::new();
                while let Some(item) = seq.next_element()? {
                    out.push(item);
                }
                Ok(Ordered::List(out))
            }

            fn visit_str<E>(self, text: &str) -> Result<Ordered, E> {
                Ok(Ordered::Plain(text.into()))
            }

            fn visit_bool<E>(self, value: bool) -> Result<Ordered, E> {
                Ok(Ordered::Plain(value.into()))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Ordered, E> {
                Ok(Ordered::Plain(value.into()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Ordered, E> {
                Ok(Ordered::Plain(value.into()))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Ordered, E> {
                Ok(Ordered::Plain(value.into()))
            }

            fn visit_unit<E>(self) -> Result<Ordered, E> {
                Ok(Ordered::Plain(serde_json::Value::Null))
            }
        }
        from.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::{Statement, Subject, SubjectKind, SubjectSpec};
    use oci::Digest;

    #[test]
    fn statements_name_what_they_are_about() {
        let zero = Digest::parse(&format!("sha256:{}", "0".repeat(64))).unwrap();
        let exported = [Subject::new("file", &zero)];
        let spec = |kind, name: &str| SubjectSpec {
            kind,
            name: name.into(),
            digests: vec![zero.clone()],
        };
        let names = |specs: &[SubjectSpec]| -> Vec<String> {
            let statement =
                Statement::new("t", b"{\n \"z\": 1,\n \"a\": [\"<\"]}", specs, &exported);
            statement
                .unwrap()
                .subject
                .into_iter()
                .map(|s| s.name)
                .collect()
        };
        assert_eq!(names(&[]), ["file"]);
        assert_eq!(
            names(&[
                spec(SubjectKind::SelfResult, "x"),
                spec(SubjectKind::Raw, "")
            ]),
            ["file", "x", "_"]
        );
        let statement =
            Statement::new("t", b"{\n \"z\": 1,\n \"a\": [\"<\"]}", &[], &exported).unwrap();
        let text = String::from_utf8(statement.compact()).unwrap();
        assert_eq!(
            text,
            format!(
                "{{\"_type\":\"https://in-toto.io/Statement/v1\",\"predicateType\":\"t\",\"subject\":[{{\"name\":\"file\",\"digest\":{{\"sha256\":\"{}\"}}}}],\"predicate\":{{\"z\":1,\"a\":[\"\\u003c\"]}}}}",
                "0".repeat(64)
            )
        );
        assert!(Statement::new("t", b"{", &[], &exported).is_err());
        let none = Statement::new("t", b"", &[], &exported).unwrap().compact();
        assert!(
            String::from_utf8(none)
                .unwrap()
                .ends_with("\"predicate\":null}")
        );
    }
}
