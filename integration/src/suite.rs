//! The reference's three suites: where they lie and which of their tests we run.

/// One suite of the reference.
#[derive(Debug)]
pub(crate) struct Suite {
    /// How we call it, also the name of its list.
    pub(crate) name: &'static str,
    /// Its package inside the module; it runs in that folder, where its test data lies.
    pub(crate) package: &'static str,
    /// Tests that cannot run here at all, as a pattern of the test binary's.
    pub(crate) skip: &'static str,
}

/// All suites, the quickest first.
pub(crate) const SUITES: &[Suite] = &[
    Suite {
        name: "buildctl",
        package: "cmd/buildctl",
        skip: "/NoParallel$",
    },
    Suite {
        name: "dockerfile",
        package: "frontend/dockerfile",
        skip: "/NoParallel$",
    },
    // The compatibility cases want an image by a digest that only its publisher has.
    Suite {
        name: "client",
        package: "client",
        skip: "/NoParallel$|TestCompatibilityIntegration",
    },
];

impl Suite {
    /// Returns the file name of its test binary.
    pub(crate) fn binary(&self) -> String {
        format!("{}.test", self.name)
    }
}
