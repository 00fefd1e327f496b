//! What Go's standard library does with text, where a client, a digest or a message of BuildKit shows it.
//!
//! BuildKit is written in Go, so its options are read by `strconv.ParseBool`, its paths are cleaned by `path.Clean`, and
//! its documents are written by `encoding/json`. Each of these rules is written here once and nowhere else.
//!
//! | module | package of Go | what |
//! |---|---|---|
//! | [`strconv`] | `strconv` | truth values, quoting (`%q`) |
//! | [`path`] | `path` | slash paths, judged by their text alone |
//! | [`time`] | `time` | durations |
//! | [`timestamp`] | `time` | points in time, as RFC 3339 |
//! | [`url`] | `net/url` | escapes of queries and paths |
//! | [`csv`] | `encoding/csv` (one line, as `go-csvvalue` reads it) | fields of an option |
//! | [`json`] | `encoding/json` | documents |
//!
//! `tests/vectors.json` holds what Go itself answers; `integration/tools/gostd` writes it.

pub mod csv;
pub mod json;
pub mod path;
pub mod strconv;
pub mod tabwriter;
pub mod time;
pub mod timestamp;
pub mod url;

pub use timestamp::Timestamp;
