//! The registry that tests script.

pub(crate) use testkit::registry::{FakeRegistry as Fake, Request, Response};
