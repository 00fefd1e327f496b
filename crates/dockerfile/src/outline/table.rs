//! Columns of text.

/// Rows whose cells are aligned; the last cell of a row is not padded.
#[derive(Debug)]
pub(crate) struct Table {
    gap: usize,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// No rows; `gap` spaces between columns.
    pub(crate) fn new(gap: usize) -> Self {
        Self {
            gap,
            rows: Vec::new(),
        }
    }

    /// Adds a row.
    pub(crate) fn row<S: AsRef<str>>(&mut self, cells: impl IntoIterator<Item = S>) {
        self.rows.push(
            cells
                .into_iter()
                .map(|cell| cell.as_ref().to_owned())
                .collect(),
        );
    }

    /// Writes the rows.
    pub(crate) fn print(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns)
            .map(|column| {
                self.rows
                    .iter()
                    .filter_map(|row| row.get(column))
                    .map(|cell| cell.chars().count())
                    .max()
            })
            .map(Option::unwrap_or_default)
            .collect();
        let mut out = String::new();
        for row in &self.rows {
            let last = row.len().saturating_sub(1);
            for (at, (cell, width)) in row.iter().zip(&widths).enumerate() {
                out.push_str(cell);
                if at < last {
                    let missing = width + self.gap - cell.chars().count();
                    out.extend(std::iter::repeat_n(' ', missing));
                }
            }
            out.push('\n');
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::Table;

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new(3);
        table.row(["A", "LONG", "C"]);
        table.row(["xyz", "", "c"]);
        assert_eq!(table.print(), "A     LONG   C\nxyz          c\n");
    }
}
