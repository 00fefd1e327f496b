//! Images of trees: written, read again, mounted, damaged.

#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

#[path = "suite/damage.rs"]
mod damage;
#[path = "suite/model.rs"]
mod model;
#[path = "suite/mounted.rs"]
mod mounted;
#[path = "suite/places.rs"]
mod places;
#[path = "suite/reading.rs"]
mod reading;
#[path = "suite/refusals.rs"]
mod refusals;
#[path = "suite/tools.rs"]
mod tools;
