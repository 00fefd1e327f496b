//! The configuration of a CNI network: which programs are called one after the other, and with what.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::plugin::{self, Container, Order, PluginError};

/// The most programs that one network may have.
const MAX_PLUGINS: usize = 64;
/// The most that a configuration may have.
pub(crate) const MAX_CONFIG_BYTES: u64 = 1 << 20;
/// What a configuration is written for that does not say it.
const OLDEST_VERSION: &str = "0.1.0";
/// The first version in which DEL is told the result of ADD.
const TOLD_ON_DELETE: [u32; 3] = [0, 4, 0];

/// A network: its programs in the order in which ADD calls them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Network {
    version: String,
    name: String,
    plugins: Vec<Map<String, Value>>,
}

/// Why a file is no configuration of a CNI network.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidNetwork {
    /// It is not JSON.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    /// A field is not there, or is no text.
    #[error("`{0}` is missing")]
    Missing(&'static str),
    /// There are no programs in it, or too many.
    #[error("`plugins` has {0} entries, it needs 1 to {MAX_PLUGINS}")]
    Plugins(usize),
    /// The name of the network, or of a program, has bytes that it may not have.
    #[error("`{field}` is `{value}`, which {rule}")]
    Text {
        /// Which field.
        field: &'static str,
        /// What it is.
        value: String,
        /// What it may be.
        rule: &'static str,
    },
}

impl Network {
    /// Reads a network with a list of programs (`.conflist`) or with one (`.conf`, `.json`): which it is, the text tells.
    pub(crate) fn parse(text: &str) -> Result<Self, InvalidNetwork> {
        let mut object: Map<String, Value> = serde_json::from_str(text)?;
        let plugins: Vec<Map<String, Value>> = match object.remove("plugins") {
            Some(list) => serde_json::from_value(list)?,
            None => vec![object.clone()],
        };
        if !(1..=MAX_PLUGINS).contains(&plugins.len()) {
            return Err(InvalidNetwork::Plugins(plugins.len()));
        }
        for plugin in &plugins {
            check(
                "type",
                text_of(plugin, "type").ok_or(InvalidNetwork::Missing("type"))?,
                "is no name of a program",
            )?;
        }
        let name = text_of(&object, "name").ok_or(InvalidNetwork::Missing("name"))?;
        check(
            "name",
            name,
            "is no name: it needs letters, digits, `.`, `_` or `-`, and begins with a letter or a digit",
        )?;
        let version = text_of(&object, "cniVersion").unwrap_or(OLDEST_VERSION);
        Ok(Self {
            version: version.to_owned(),
            name: name.to_owned(),
            plugins,
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Has all programs set up a container, each with the result of those before it. The result is the last one's. Whoever gets an
    /// error calls [`Network::delete`], as some may have been called.
    pub(crate) fn add(&self, container: &Container) -> Result<Value, PluginError> {
        let mut result = None;
        for config in &self.plugins {
            let config = self.config_for(config, result.as_ref());
            result = Some(plugin::call(
                kind(&config),
                Order::Add,
                container,
                &Value::Object(config.clone()),
            )?);
        }
        Ok(result.unwrap_or_default())
    }

    /// Has all programs take away what they set up, the last one first. All are called, whichever fails; the error is the first one's.
    pub(crate) fn delete(
        &self,
        container: &Container,
        result: Option<&Value>,
    ) -> Result<(), PluginError> {
        let result = result.filter(|_| number(&self.version) >= TOLD_ON_DELETE);
        let mut first = Ok(());
        for config in self.plugins.iter().rev() {
            let config = self.config_for(config, result);
            let value = Value::Object(config.clone());
            let deleted = plugin::call(kind(&config), Order::Delete, container, &value);
            first = first.and(deleted.map(drop));
        }
        first
    }

    /// What one program reads: its part, with the network's name and version, and what is there already. `runtimeConfig` is left out,
    /// for we have no values for any capability.
    fn config_for(
        &self,
        plugin: &Map<String, Value>,
        result: Option<&Value>,
    ) -> Map<String, Value> {
        let mut config = plugin.clone();
        config.insert("name".into(), self.name.clone().into());
        config.insert("cniVersion".into(), self.version.clone().into());
        if let Some(result) = result {
            config.insert("prevResult".into(), result.clone());
        }
        config
    }
}

fn text_of<'a>(object: &'a Map<String, Value>, field: &str) -> Option<&'a str> {
    object.get(field)?.as_str().filter(|text| !text.is_empty())
}

fn kind(config: &Map<String, Value>) -> &str {
    text_of(config, "type").unwrap_or_default()
}

fn check(field: &'static str, value: &str, rule: &'static str) -> Result<(), InvalidNetwork> {
    let mut bytes = value.bytes();
    let begins = bytes
        .next()
        .is_some_and(|byte| byte.is_ascii_alphanumeric());
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if begins && bytes.all(fits) {
        Ok(())
    } else {
        Err(InvalidNetwork::Text {
            field,
            value: value.to_owned(),
            rule,
        })
    }
}

/// A version as numbers, which compare as it does; what is none is the oldest.
fn number(version: &str) -> [u32; 3] {
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    std::array::from_fn(|_| parts.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_one_program_or_a_list() {
        let single = r#"{"cniVersion":"0.3.1","name":"a","type":"bridge","bridge":"b0"}"#;
        let network = Network::parse(single).unwrap();
        assert_eq!((network.name(), network.version.as_str()), ("a", "0.3.1"));
        assert_eq!(network.plugins.len(), 1);
        let config = network.config_for(&network.plugins[0], None);
        let same: Map<String, Value> = serde_json::from_str(single).unwrap();
        assert_eq!(config, same, "the program gets it as it is");
        let list = r#"{"name":"b","plugins":[{"type":"bridge"},{"type":"firewall"}]}"#;
        let network = Network::parse(list).unwrap();
        assert_eq!((network.name(), network.version.as_str()), ("b", "0.1.0"));
        let kinds: Vec<_> = network.plugins.iter().map(kind).collect();
        assert_eq!(kinds, ["bridge", "firewall"]);
    }

    #[test]
    fn what_is_no_network_is_refused_with_what_is_wrong() {
        let many = format!(
            r#"{{"name":"a","plugins":[{}]}}"#,
            vec![r#"{"type":"x"}"#; MAX_PLUGINS + 1].join(",")
        );
        for (text, expected) in [
            ("", "EOF while parsing a value at line 1 column 0"),
            (
                "[]",
                "invalid type: sequence, expected a map at line 1 column 0",
            ),
            ("{}", "`type` is missing"),
            (r#"{"name":"a"}"#, "`type` is missing"),
            (r#"{"type":"bridge"}"#, "`name` is missing"),
            (r#"{"name":"","type":"bridge"}"#, "`name` is missing"),
            (r#"{"name":"a","type":7}"#, "`type` is missing"),
            (
                r#"{"name":"a","plugins":[]}"#,
                "`plugins` has 0 entries, it needs 1 to 64",
            ),
            (
                r#"{"name":"a","plugins":7}"#,
                "invalid type: integer `7`, expected a sequence",
            ),
            (
                r#"{"name":"a","plugins":[7]}"#,
                "invalid type: integer `7`, expected a map",
            ),
            (r#"{"name":"a","plugins":[{}]}"#, "`type` is missing"),
            (&many, "`plugins` has 65 entries, it needs 1 to 64"),
            (
                r#"{"name":"a","type":"../../bin/sh"}"#,
                "`type` is `../../bin/sh`, which is no name of a program",
            ),
            (
                r#"{"name":"a b","type":"x"}"#,
                "`name` is `a b`, which is no name: it needs letters, digits, `.`, `_` or `-`, and begins with a letter or a digit",
            ),
        ] {
            assert_eq!(
                Network::parse(text).unwrap_err().to_string(),
                expected,
                "{text}"
            );
        }
    }

    #[test]
    fn versions_compare_by_their_numbers() {
        let told = |version: &str| number(version) >= TOLD_ON_DELETE;
        for (version, expected) in [
            ("0.1.0", false),
            ("0.3.1", false),
            ("0.4.0", true),
            ("0.10.0", true),
            ("1.0.0", true),
            ("1.1", true),
            ("", false),
            ("latest", false),
        ] {
            assert_eq!(told(version), expected, "{version}");
        }
    }
}
