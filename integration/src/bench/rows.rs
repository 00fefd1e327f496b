//! The rows: what is built, from what state, what must come out, and how fast it should be.

use super::figures::Unit;

/// One row of the table.
#[derive(Debug)]
pub(super) struct Row {
    /// Short name, for `--row` and JSON.
    pub(super) name: &'static str,
    /// For people; backticks are Markdown's.
    pub(super) title: &'static str,
    /// What is measured.
    pub(super) measure: Measure,
    /// What we aim at.
    pub(super) goal: Goal,
    /// The row that makes the state that this one starts from.
    pub(super) follows: Option<&'static str>,
    /// In which of a round's daemons.
    pub(super) life: Life,
}

/// A round starts each daemon three times, in a new state directory each time, so that what rows have in common is cold in
/// each, and no context takes the place of an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    First,
    Second,
    Third,
}

impl Life {
    /// All, in order.
    pub(super) const ALL: [Self; 3] = [Self::First, Self::Second, Self::Third];
}

impl Row {
    /// Returns what the row's figures are.
    pub(super) fn unit(&self) -> Unit {
        match self.measure {
            Measure::Start | Measure::Build(_) => Unit::Seconds,
            Measure::Size | Measure::Idle | Measure::After | Measure::Peak => Unit::Bytes,
        }
    }
}

/// What a row measures.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Measure {
    /// From exec to the first answer on the socket.
    Start,
    /// The daemon's program as a file.
    Size,
    /// Memory before the first build.
    Idle,
    /// Memory when all rows of a life are done; of the lives the most.
    After,
    /// The most memory at any time.
    Peak,
    /// A build by `buildctl`, from its start to its end.
    Build(Build),
}

/// A build and what it must do.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Build {
    /// Name of context and Dockerfile.
    pub(super) context: &'static str,
    /// What is there before.
    pub(super) from: From,
    /// Number of `RUN` and `COPY` steps; all are cached in [`From::Cache`], none otherwise.
    pub(super) steps: usize,
    /// Number of layers of the image; the build is exported as an OCI tar when there is one.
    pub(super) layers: Option<usize>,
    /// Least bytes of the exported file.
    pub(super) least: u64,
}

/// The state that a build starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum From {
    /// Nothing of it.
    Nothing,
    /// The base image is pulled and unpacked.
    Base,
    /// The same build before.
    Cache,
}

/// What we aim at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Goal {
    /// So many times less than the reference.
    Times(f64),
    /// At most this, in the row's unit.
    AtMost(f64),
    /// Not more than the reference.
    NotMore,
}

const MB: f64 = 1e6;

const fn build(
    context: &'static str,
    from: From,
    steps: usize,
    layers: Option<usize>,
    least: u64,
) -> Measure {
    Measure::Build(Build {
        context,
        from,
        steps,
        layers,
        least,
    })
}

/// All rows, in the order in which a round measures them.
pub(super) const ROWS: &[Row] = &[
    Row {
        name: "size",
        title: "the daemon's program, a file without debug information",
        measure: Measure::Size,
        goal: Goal::NotMore,
        follows: None,
        life: Life::Third,
    },
    Row {
        name: "start",
        title: "from exec to a served socket",
        measure: Measure::Start,
        goal: Goal::AtMost(0.05),
        follows: None,
        life: Life::Third,
    },
    Row {
        name: "memory-idle",
        title: "memory, idle",
        measure: Measure::Idle,
        goal: Goal::AtMost(15.0 * MB),
        follows: None,
        life: Life::Third,
    },
    Row {
        name: "run",
        title: "50 `RUN echo` steps, cold",
        measure: build("run", From::Nothing, 50, None, 0),
        goal: Goal::Times(10.0),
        follows: None,
        life: Life::Third,
    },
    Row {
        name: "run-cached",
        title: "the same again, all cached",
        measure: build("run", From::Cache, 50, None, 0),
        goal: Goal::Times(4.0),
        follows: Some("run"),
        life: Life::Third,
    },
    Row {
        name: "files",
        title: "context of 10,000 files, 60 MB, cold",
        measure: build("files", From::Nothing, 1, None, 0),
        goal: Goal::Times(4.0),
        follows: None,
        life: Life::Third,
    },
    Row {
        name: "files-unchanged",
        title: "the same, unchanged",
        measure: build("files", From::Cache, 1, None, 0),
        goal: Goal::Times(4.0),
        follows: Some("files"),
        life: Life::Third,
    },
    Row {
        name: "files-export",
        title: "the same, exported as OCI tar from cache",
        measure: build("files", From::Cache, 1, Some(1), 10_000_000),
        goal: Goal::Times(4.0),
        follows: Some("files"),
        life: Life::Third,
    },
    Row {
        name: "big",
        title: "300 MB random file: `COPY`",
        measure: build("big", From::Nothing, 1, None, 0),
        goal: Goal::Times(2.0),
        follows: None,
        life: Life::First,
    },
    Row {
        name: "big-export",
        title: "the same with export as OCI tar (gzip)",
        measure: build("big", From::Nothing, 1, Some(1), 300_000_000),
        goal: Goal::Times(3.0),
        follows: None,
        life: Life::Second,
    },
    Row {
        name: "debian",
        title: "debian slim: pull, unpack, `cp -a /usr`",
        measure: build("debian", From::Nothing, 1, None, 0),
        goal: Goal::Times(2.0),
        follows: None,
        life: Life::First,
    },
    Row {
        name: "debian-export",
        title: "the same with export as OCI tar (gzip)",
        measure: build("debian", From::Nothing, 1, Some(2), 50_000_000),
        goal: Goal::Times(3.0),
        follows: None,
        life: Life::Second,
    },
    Row {
        name: "parallel",
        title: "8 parallel stages of `sleep 1`, joined",
        measure: build("parallel", From::Base, 16, None, 0),
        goal: Goal::AtMost(1.15),
        follows: None,
        life: Life::Third,
    },
    Row {
        name: "memory-after",
        title: "memory, after these",
        measure: Measure::After,
        goal: Goal::AtMost(60.0 * MB),
        follows: None,
        life: Life::Third,
    },
    Row {
        name: "memory-peak",
        title: "memory, at its peak",
        measure: Measure::Peak,
        goal: Goal::NotMore,
        follows: None,
        life: Life::Third,
    },
];

/// Returns the names of all rows.
pub(super) fn names() -> Vec<&'static str> {
    ROWS.iter().map(|row| row.name).collect()
}

/// Returns the rows of these names and those that they follow from; all when none is named.
pub(super) fn chosen(names: &[String]) -> Vec<&'static Row> {
    let is_named = |row: &Row| names.iter().any(|name| name == row.name);
    ROWS.iter()
        .filter(|row| {
            names.is_empty()
                || is_named(row)
                || ROWS
                    .iter()
                    .any(|other| is_named(other) && other.follows == Some(row.name))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_brings_the_one_it_follows_from() {
        let names: Vec<&str> = chosen(&["files-export".to_owned()])
            .iter()
            .map(|row| row.name)
            .collect();
        assert_eq!(names, ["files", "files-export"]);
        assert_eq!(chosen(&[]).len(), ROWS.len());
    }
}
