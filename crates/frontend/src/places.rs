//! Places in source files, as clients print them.

use llb::pb;

/// A place in a source file, for clients to print the failing lines.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceLocation {
    /// The file.
    pub info: pb::SourceInfo,
    /// Where in it.
    pub ranges: Vec<pb::Range>,
}

/// Ranges of lines as messages.
pub(crate) fn wire_ranges(ranges: &[dockerfile::syntax::Range]) -> Vec<pb::Range> {
    let position = |position: dockerfile::syntax::Position| pb::Position {
        line: i32::try_from(position.line).unwrap_or(i32::MAX),
        character: i32::try_from(position.character).unwrap_or(i32::MAX),
    };
    ranges
        .iter()
        .map(|range| pb::Range {
            start: Some(position(range.start)),
            end: Some(position(range.end)),
        })
        .collect()
}
