//! Places in source files, which clients print with errors.

use llb::pb;

/// A place in a source file; clients print its lines with the error.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceLocation {
    /// The source file.
    pub info: pb::SourceInfo,
    /// Lines of that file.
    pub ranges: Vec<pb::Range>,
}

/// Converts ranges of lines to messages.
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
