//! `RUN --mount`.

use super::number::{size, uint32};
use super::{Expander, InstructionError};
use crate::suggest::nearest;
use gostd::csv::fields;
use gostd::strconv::parse_bool;

/// The `type` of a mount.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MountType {
    /// Files of a stage, context or image.
    #[default]
    Bind,
    /// A directory kept between builds.
    Cache,
    /// A file system in memory.
    Tmpfs,
    /// A secret of the client, as a file.
    Secret,
    /// A forwarded agent socket.
    Ssh,
}

/// Who may use a cache mount at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShareMode {
    /// All steps at the same time.
    Shared,
    /// One step at a time; another step gets a new cache.
    Private,
    /// One step at a time; another step waits.
    Locked,
}

/// One `--mount`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mount {
    /// `type`
    pub kind: MountType,
    /// `from`
    pub from: String,
    /// `source`, `src`
    pub source: String,
    /// `target`, `dst`, `destination`
    pub target: String,
    /// `readonly`/`ro`, `readwrite`/`rw`, or what the type prefers
    pub read_only: bool,
    /// `size`, in bytes; zero without
    pub size_limit: i64,
    /// `id`
    pub id: String,
    /// `sharing`
    pub sharing: Option<ShareMode>,
    /// `required`
    pub required: bool,
    /// `env`: the variable a secret is put into
    pub env: Option<String>,
    /// `mode`
    pub mode: Option<u32>,
    /// `uid`
    pub uid: Option<u32>,
    /// `gid`
    pub gid: Option<u32>,
}

impl MountType {
    const ALL: [Self; 5] = [
        Self::Bind,
        Self::Cache,
        Self::Tmpfs,
        Self::Secret,
        Self::Ssh,
    ];

    /// Returns the word that a mount option uses for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bind => "bind",
            Self::Cache => "cache",
            Self::Tmpfs => "tmpfs",
            Self::Secret => "secret",
            Self::Ssh => "ssh",
        }
    }

    fn parse(text: &str) -> Result<Self, InstructionError> {
        let lower = text.to_lowercase();
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == lower)
            .ok_or_else(|| InstructionError::MountType {
                value: text.to_owned(),
                near: nearest(text, Self::ALL.iter().map(|kind| kind.as_str()), true),
            })
    }
}

impl ShareMode {
    const ALL: [Self; 3] = [Self::Shared, Self::Private, Self::Locked];

    /// Returns the word that a mount option uses for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Shared => "shared",
            Self::Private => "private",
            Self::Locked => "locked",
        }
    }

    fn parse(text: &str) -> Result<Self, InstructionError> {
        let lower = text.to_lowercase();
        Self::ALL
            .into_iter()
            .find(|mode| mode.as_str() == lower)
            .ok_or_else(|| InstructionError::Sharing {
                value: text.to_owned(),
                near: nearest(text, Self::ALL.iter().map(|mode| mode.as_str()), true),
            })
    }
}

const KEYS: [&str; 19] = [
    "type",
    "from",
    "source",
    "target",
    "readonly",
    "id",
    "sharing",
    "required",
    "size",
    "mode",
    "uid",
    "gid",
    "src",
    "dst",
    "destination",
    "ro",
    "rw",
    "readwrite",
    "env",
];

impl Mount {
    /// Reads the options that take no variables (`from`); all others have the type's default.
    pub(super) fn deferred(word: &str) -> Result<Self, InstructionError> {
        let mut mount = Self {
            read_only: true,
            ..Self::default()
        };
        for field in split(word)? {
            let Some((key, value)) = field.split_once('=') else {
                continue;
            };
            if !key.eq_ignore_ascii_case("from") {
                continue;
            }
            if value.find('$').is_some_and(|at| at + 1 != value.len()) {
                return Err(InstructionError::VariableInKey("from".to_owned()));
            }
            mount.from = value.to_owned();
        }
        Ok(mount)
    }

    /// Reads a mount whose values are expanded.
    pub(super) fn expanded(
        word: &str,
        expander: &mut Expander<'_>,
    ) -> Result<Self, InstructionError> {
        let mut mount = Self::default();
        let mut read_only = None;
        for field in split(word)? {
            let (key, value) = field
                .split_once('=')
                .map_or((field.as_str(), None), |(key, value)| (key, Some(value)));
            let key = key.to_lowercase();
            match value {
                Some(value) => {
                    let value = expander(value)?;
                    mount.set(&key, value, &field, &mut read_only)?;
                }
                None => match key.as_str() {
                    "readonly" | "ro" => read_only = Some(true),
                    "readwrite" | "rw" => read_only = Some(false),
                    "required" => mount.set_required(&key, true)?,
                    _ => return Err(InstructionError::NotAPair(field)),
                },
            }
        }
        mount.read_only =
            read_only.unwrap_or(!matches!(mount.kind, MountType::Cache | MountType::Tmpfs));
        mount.check()?;
        Ok(mount)
    }

    fn set(
        &mut self,
        key: &str,
        value: String,
        field: &str,
        read_only: &mut Option<bool>,
    ) -> Result<(), InstructionError> {
        // BuildKit's words: what the cause says is left out.
        let invalid = |value: &str| InstructionError::InvalidValue {
            key: key.to_owned(),
            value: value.to_owned(),
        };
        let number = |key, value: &str, radix| {
            uint32(value, radix).ok_or_else(|| InstructionError::InvalidNumber {
                key,
                value: value.to_owned(),
            })
        };
        match key {
            "type" => self.kind = MountType::parse(&value)?,
            "from" => self.from = value,
            "source" | "src" => self.source = value,
            "target" | "dst" | "destination" => self.target = value,
            "readonly" | "ro" => {
                *read_only = Some(parse_bool(&value).map_err(|_| invalid(&value))?)
            }
            "readwrite" | "rw" => {
                *read_only = Some(!parse_bool(&value).map_err(|_| invalid(&value))?)
            }
            "required" if self.may_be_required() => {
                self.required = parse_bool(&value).map_err(|_| invalid(&value))?
            }
            "required" => self.set_required(key, true)?,
            "size" if self.kind == MountType::Tmpfs => {
                self.size_limit = size(&value).ok_or_else(|| invalid(&value))?
            }
            "size" => {
                return Err(InstructionError::KeyForType {
                    key: key.to_owned(),
                    kind: self.kind.as_str(),
                });
            }
            "id" => self.id = value,
            "sharing" => self.sharing = Some(ShareMode::parse(&value)?),
            "mode" => self.mode = Some(number("mode", &value, 8)?),
            "uid" => self.uid = Some(number("uid", &value, 10)?),
            "gid" => self.gid = Some(number("gid", &value, 10)?),
            "env" => self.env = Some(value),
            _ => {
                return Err(InstructionError::UnknownKey {
                    key: key.to_owned(),
                    field: field.to_owned(),
                    near: nearest(key, KEYS, true),
                });
            }
        }
        Ok(())
    }

    fn may_be_required(&self) -> bool {
        matches!(self.kind, MountType::Secret | MountType::Ssh)
    }

    fn set_required(&mut self, key: &str, required: bool) -> Result<(), InstructionError> {
        if !self.may_be_required() {
            return Err(InstructionError::KeyForType {
                key: key.to_owned(),
                kind: self.kind.as_str(),
            });
        }
        self.required = required;
        Ok(())
    }

    fn check(&self) -> Result<(), InstructionError> {
        if matches!(self.kind, MountType::Bind | MountType::Tmpfs) {
            let numbers = [("mode", self.mode), ("uid", self.uid), ("gid", self.gid)];
            if let Some((key, _)) = numbers.into_iter().find(|(_, value)| value.is_some()) {
                return Err(InstructionError::NotAllowed {
                    key,
                    kind: self.kind.as_str(),
                });
            }
        }
        if self.kind == MountType::Secret {
            if !self.from.is_empty() {
                return Err(InstructionError::SecretFrom);
            }
            if self.sharing.is_some() {
                return Err(InstructionError::SecretSharing);
            }
            if self.source.is_empty() && self.target.is_empty() && self.id.is_empty() {
                return Err(InstructionError::SecretWithoutName);
            }
            if !self.source.is_empty() && !self.id.is_empty() {
                return Err(InstructionError::SecretNamedTwice);
            }
        }
        if self.sharing.is_some() && self.kind != MountType::Cache {
            return Err(InstructionError::SharingForType(self.kind.as_str()));
        }
        Ok(())
    }
}

fn split(word: &str) -> Result<Vec<String>, InstructionError> {
    fields(word).map_err(|reason| InstructionError::Csv {
        what: "mounts",
        reason,
    })
}
