//! The process rbuildd: settings, sockets, signals, phases, wiring.

pub mod settings;

pub use settings::{Args, Defaults, Settings, SettingsError};
