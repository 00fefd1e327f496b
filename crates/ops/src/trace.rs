//! Where steps stand in the trace of their build.

use oci::Digest;

/// Where the steps of a build stand in its trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepTrace {
    /// The trace.
    pub trace: [u8; 16],
    /// The name of the build.
    pub build: String,
}

impl StepTrace {
    /// The span of a step. A step of several builds is a span of each.
    #[must_use]
    pub fn span_of(&self, vertex: &Digest) -> [u8; 8] {
        self.span(vertex.as_str())
    }

    /// The span of something with this name.
    #[must_use]
    pub fn span(&self, name: &str) -> [u8; 8] {
        let own = Digest::sha256(format!("{} {name}", self.build));
        let mut span = [0; 8];
        for (at, byte) in span.iter_mut().enumerate() {
            let digits = own.hex().get(2 * at..2 * at + 2).unwrap_or_default();
            *byte = u8::from_str_radix(digits, 16).unwrap_or_default();
        }
        span
    }

    /// What a program of a step is told of where its spans belong, as W3C's header `traceparent` says it.
    #[must_use]
    pub fn parent(&self, vertex: &Digest) -> String {
        self.parent_of(self.span_of(vertex))
    }

    /// As [`Self::parent`], of a span of the build.
    #[must_use]
    pub fn parent_of(&self, span: [u8; 8]) -> String {
        let hex = |bytes: &[u8]| -> String { bytes.iter().map(|b| format!("{b:02x}")).collect() };
        format!("00-{}-{}-01", hex(&self.trace), hex(&span))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_has_a_span_in_each_build_and_tells_its_programs() {
        let trace = |build: &str| StepTrace {
            trace: [0xab; 16],
            build: build.into(),
        };
        let vertex = Digest::sha256(b"v");
        let parent = trace("a").parent(&vertex);
        let span: String = trace("a")
            .span_of(&vertex)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(parent, format!("00-{}-{span}-01", "ab".repeat(16)));
        assert_ne!(trace("b").span_of(&vertex), trace("a").span_of(&vertex));
    }
}
