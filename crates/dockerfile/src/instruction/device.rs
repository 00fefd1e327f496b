//! `RUN --device`.

use super::InstructionError;
use crate::suggest::nearest;
use gostd::csv::fields;
use gostd::strconv::parse_bool;

/// One `--device`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Device {
    /// The device's name, as `vendor.com/class=name`.
    pub name: String,
    /// Whether the build fails when the device does not exist.
    pub required: bool,
}

impl Device {
    /// Reads a device: `name`, `name=…`, `required`, `required=…`, separated by commas.
    pub fn parse(word: &str) -> Result<Self, InstructionError> {
        let mut device = Self::default();
        for field in fields(word).map_err(|reason| InstructionError::Csv {
            what: "devices",
            reason,
        })? {
            let (key, value) = field
                .split_once('=')
                .map_or((field.as_str(), None), |(key, value)| (key, Some(value)));
            let key = key.to_lowercase();
            match (key.as_str(), value) {
                ("required", None) => device.required = true,
                ("required", Some(value)) => {
                    device.required =
                        // BuildKit's words: what the cause says is left out.
                        parse_bool(value).map_err(|_| InstructionError::InvalidValue {
                            key: key.clone(),
                            value: value.to_owned(),
                        })?
                }
                ("name", Some(_)) if !device.name.is_empty() => {
                    return Err(InstructionError::DeviceNamedTwice(device.name));
                }
                ("name", Some(value)) => device.name = value.to_owned(),
                // A name may contain `=`.
                _ if device.name.is_empty() => device.name = field,
                (_, None) => return Err(InstructionError::NotAPair(field)),
                (_, Some(_)) => {
                    let near = nearest(&key, ["name", "required"], true);
                    return Err(InstructionError::UnknownKey { key, field, near });
                }
            }
        }
        Ok(device)
    }
}
