//! Places in the source.

/// A point. Lines count from one, columns from zero in characters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The column.
    pub character: usize,
}

/// A stretch between two points. The last line is part of it and the last column is not; between columns zero it is whole lines,
/// which is all that BuildKit knows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Range {
    /// The first point.
    pub start: Position,
    /// The last point.
    pub end: Position,
}

impl Range {
    /// Returns the range of one line.
    pub fn line(line: usize) -> Self {
        let point = Position { line, character: 0 };
        Self {
            start: point,
            end: point,
        }
    }

    /// Returns the range of a part of a line.
    pub fn columns(line: usize, start: usize, end: usize) -> Self {
        let point = |character| Position { line, character };
        Self {
            start: point(start),
            end: point(end),
        }
    }

    /// Returns the lines it is in.
    #[must_use]
    pub fn whole_lines(self) -> Self {
        let begin = |point: Position| Position {
            character: 0,
            ..point
        };
        Self {
            start: begin(self.start),
            end: begin(self.end),
        }
    }

    /// Returns one range for each line; an end before the start counts as the start.
    // DIFFERS: more than ten thousand lines are one range, and so are lines far down, so that a file of line feeds does not cost
    // gigabytes.
    pub fn lines(start: usize, end: usize) -> Vec<Self> {
        let end = end.max(start);
        if end - start > 10_000 || (end > 200_000 && end > start) {
            return vec![Self {
                start: Position {
                    line: start,
                    character: 0,
                },
                end: Position {
                    line: end,
                    character: 0,
                },
            }];
        }
        (start..=end).map(Self::line).collect()
    }
}
