//! Tables as `text/tabwriter` aligns them (Go 1.26, `src/text/tabwriter/tabwriter.go`).

/// Bytes that pad a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Padding {
    /// Tabs, eight columns each.
    Tabs,
    /// Blanks.
    Blanks,
}

/// How columns are aligned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TabWriter {
    /// The least columns of a cell, its padding included.
    pub min_width: usize,
    /// Columns between a cell and the next.
    pub padding: usize,
    /// What stands in them.
    pub pad_with: Padding,
}

/// Columns of a tab.
const TAB: usize = 8;

impl TabWriter {
    /// What `buildctl` lists records with: `NewWriter(out, 1, 8, 1, '\t', 0)`.
    #[must_use]
    pub fn tabs() -> Self {
        Self {
            min_width: 1,
            padding: 1,
            pad_with: Padding::Tabs,
        }
    }

    /// What `buildctl debug info` uses: `NewWriter(out, 0, 0, 1, ' ', 0)`.
    #[must_use]
    pub fn blanks() -> Self {
        Self {
            min_width: 0,
            padding: 1,
            pad_with: Padding::Blanks,
        }
    }

    /// Aligns `text`, whose cells end with tabs; what follows the last tab of a line is of no column.
    ///
    /// A column is a run of neighbouring lines that have a cell there, and as wide as the widest of those.
    #[must_use]
    pub fn align(self, text: &str) -> String {
        let lines: Vec<Vec<&str>> = text.split('\n').map(|l| l.split('\t').collect()).collect();
        let widths = self.widths(&lines);
        let mut out = String::with_capacity(text.len() * 2);
        for (index, (cells, widths)) in lines.iter().zip(&widths).enumerate() {
            if index > 0 {
                out.push('\n');
            }
            for (column, cell) in cells.iter().enumerate() {
                out.push_str(cell);
                if let Some(width) = widths.get(column) {
                    self.pad(&mut out, cell.chars().count(), *width);
                }
            }
        }
        out
    }

    /// For each line, the widths of the cells that end with a tab.
    fn widths(self, lines: &[Vec<&str>]) -> Vec<Vec<usize>> {
        let mut widths: Vec<Vec<usize>> =
            lines.iter().map(|cells| vec![0; cells.len() - 1]).collect();
        let columns = widths.iter().map(Vec::len).max().unwrap_or(0);
        for column in 0..columns {
            let mut from = 0;
            while from < lines.len() {
                let has = |line: &Vec<&str>| line.len() > column + 1;
                let run = lines[from..].iter().take_while(|line| has(line)).count();
                let widest = lines[from..from + run]
                    .iter()
                    .map(|cells| cells[column].chars().count() + self.padding)
                    .max()
                    .unwrap_or(0)
                    .max(self.min_width);
                for line in &mut widths[from..from + run] {
                    line[column] = widest;
                }
                from += run.max(1);
            }
        }
        widths
    }

    fn pad(self, out: &mut String, used: usize, width: usize) {
        match self.pad_with {
            Padding::Blanks => out.extend(std::iter::repeat_n(' ', width.saturating_sub(used))),
            Padding::Tabs => {
                let to = width.div_ceil(TAB) * TAB;
                let tabs = to.saturating_sub(used).div_ceil(TAB);
                out.extend(std::iter::repeat_n('\t', tabs));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_end_where_a_line_has_none() {
        // Recorded from Go's own: tabwriter.NewWriter(os.Stdout, 1, 8, 1, '\t', 0).
        for (text, aligned) in [
            ("a\tb\n", "a\tb\n"),
            (
                "ID\tPLATFORMS\nabcdefghijkl\tlinux/amd64\n",
                "ID\t\tPLATFORMS\nabcdefghijkl\tlinux/amd64\n",
            ),
            ("Total:\t0B\n", "Total:\t0B\n"),
            (
                "Reclaimable:\t1.00kB\nTotal:\t1.00kB\n",
                "Reclaimable:\t1.00kB\nTotal:\t\t1.00kB\n",
            ),
            // The second table does not know of the first.
            (
                "aaaaaaaaaaaaaaaaaa\tb\n\nc\td\n",
                "aaaaaaaaaaaaaaaaaa\tb\n\nc\td\n",
            ),
            // Seven letters and the padding fill a tab, eight need another.
            ("1234567\tx\n1\tx\n", "1234567\tx\n1\tx\n"),
            ("12345678\tx\n1\tx\n", "12345678\tx\n1\t\tx\n"),
            ("a\t\n", "a\t\n"),
            (
                "\tk:\tv\n\tlonger-key:\tv\n",
                "\tk:\t\tv\n\tlonger-key:\tv\n",
            ),
            ("", ""),
        ] {
            assert_eq!(TabWriter::tabs().align(text), aligned, "{text:?}");
        }
        let blanks = TabWriter::blanks().align("BuildKit:\tgo v1 abc\nDockerfile:\t1.28\n");
        assert_eq!(blanks, "BuildKit:   go v1 abc\nDockerfile: 1.28\n");
    }
}
