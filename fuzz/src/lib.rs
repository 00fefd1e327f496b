//! Inputs of strangers, one target for each format.
//!
//! ```text
//!   ./run fuzz NAME SECONDS ─► libFuzzer (feature `libfuzzer`) ─┐
//!   rbuild-fuzz NAME FILE…  ─► replay ──────────────────────────┼─► Target::run ─► public functions of the crates
//!   tests/suite.rs          ─► every file of corpus/NAME ───────┘       within a limit of memory and of time
//! ```
//!
//! A target must not panic, must not hold more than [`MAX_HEAP_BYTES`] at once beyond what it had, and must end within [`PATIENCE`].

mod filesync;
mod formats;
mod gateway;
mod policy;
mod signature;

use std::alloc::System;
use std::time::Duration;

use cap::Cap;

/// Counts what is allocated, and lets an allocation fail that goes above the limit.
#[global_allocator]
static HEAP: Cap<System> = Cap::new(System, usize::MAX);

/// How many bytes one input may add to the heap at any moment.
const MAX_HEAP_BYTES: usize = 192 << 20;

/// How long one input may take, in time that passes and in processor time of all threads: on a machine under load the first alone says
/// little.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// A format that comes from outside.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, and that of its folder below `corpus`.
    pub name: &'static str,
    /// What reads it.
    pub reads: &'static str,
    run: fn(&[u8]),
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target {
        name: "tar",
        reads: "archives: every entry and its content, and unpacking into a folder",
        run: formats::tar,
    },
    Target {
        name: "pax",
        reads: "extended headers of an archive's entry",
        run: formats::pax,
    },
    Target {
        name: "documents",
        reads: "indexes, manifests, configs of images and of caches",
        run: formats::documents,
    },
    Target {
        name: "definition",
        reads: "definitions and the source identifiers in them",
        run: formats::definition,
    },
    Target {
        name: "git-address",
        reads: "git addresses and references",
        run: formats::git_address,
    },
    Target {
        name: "policy",
        reads: "source policies and sources that they judge",
        run: policy::policy,
    },
    Target {
        name: "gateway",
        reads: "calls of the control and gateway services, the bytes of their messages",
        run: gateway::calls,
    },
    Target {
        name: "filesync",
        reads: "packets of a client that uploads a folder",
        run: filesync::receive,
    },
    Target {
        name: "signature",
        reads: "OpenPGP and SSH signatures with their keys, signed commits and tags",
        run: signature::check,
    },
];

impl Target {
    /// Finds one by its name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        TARGETS.iter().find(|target| target.name == name).copied()
    }

    /// Takes one input. An allocation beyond the limit ends the process, which fuzzer and tests see.
    ///
    /// # Panics
    /// When the input took longer than [`PATIENCE`], and where the code under test panics.
    pub fn run(self, input: &[u8]) {
        let held = HEAP.allocated();
        HEAP.set_limit(held + MAX_HEAP_BYTES)
            .expect("the limit is above what is allocated");
        let (begun, used) = (task::clock::monotonic(), sys::memory::processor_time());
        (self.run)(input);
        let worked = sys::memory::processor_time().saturating_sub(used);
        let took = begun.elapsed().min(worked);
        HEAP.set_limit(usize::MAX)
            .expect("there is no higher limit");
        assert!(
            took < PATIENCE,
            "an input of {} bytes took {took:?}",
            input.len()
        );
    }
}
