//! How work is spawned, shared, paused and stopped.
//!
//! * [`spawn`] starts a named task whose handle aborts on drop: dropping a future is how everything is cancelled.
//! * [`blocking`] runs blocking work on the runtime's blocking threads; [`Pool`] does so with a bound of its own;
//!   [`thread`] is for work that somebody outside can hold up.
//! * [`Flight`] is one run for many waiters, cancelled when the last of them leaves.
//! * [`uncancellable`] finishes what it began even when its caller leaves.
//! * [`apart`] runs a future whose polls take long where they hold nobody up.
//! * [`watch`] tells who keeps a thread of the runtime for himself.
//! * [`Clock`] is real or paused time; [`Permits`] bounds how many may do something.

mod apart;
pub mod clock;
mod flight;
mod pool;
mod spawn;
pub mod watch;

pub use apart::apart;
pub use clock::Clock;
pub use flight::Flight;
pub use pool::{Blocking, Permit, Permits, Pool, Thread, blocking, thread};
pub use spawn::{Task, spawn, uncancellable};
