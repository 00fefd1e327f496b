//! Results in four forms: a table for a terminal, one for a page, JSON; and what they are made of.

use serde_json::{Value, json};

use super::figures::{Figures, Sample, Side, Unit};
use super::machine::Machine;
use super::rows::{Goal, Row};
use crate::process::Error;

/// The markers between which a page's table stands.
const BEGIN: &str = "<!-- bench:begin -->";
const END: &str = "<!-- bench:end -->";

/// One row with its figures.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) row: &'static Row,
    pub(super) ours: Sample,
    /// Not there when only our daemon was measured.
    pub(super) theirs: Option<Sample>,
}

impl Outcome {
    /// Returns how many times less than the reference we took, by the minima.
    pub(super) fn ratio(&self) -> Option<f64> {
        let theirs = self.theirs.as_ref()?;
        (self.ours.min > 0.0).then(|| theirs.min / self.ours.min)
    }

    /// Returns the figure that reaches the goal.
    pub(super) fn goal(&self) -> Option<f64> {
        match self.row.goal {
            Goal::AtMost(most) => Some(most),
            Goal::Times(times) => Some(self.theirs.as_ref()?.min / times),
            Goal::NotMore => Some(self.theirs.as_ref()?.min),
        }
    }

    fn standing(&self) -> Option<Standing> {
        Some(if self.ours.min <= self.goal()? {
            Standing::Reached
        } else if self.ratio()? >= 1.0 {
            Standing::Ahead
        } else {
            Standing::Behind
        })
    }
}

/// Where a row stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// The goal is reached.
    Reached,
    /// Better than the reference, but short of the goal.
    Ahead,
    /// Worse than the reference.
    Behind,
}

impl Standing {
    fn word(self) -> &'static str {
        match self {
            Self::Reached => "reached",
            Self::Ahead => "not yet",
            Self::Behind => "slower",
        }
    }

    fn colour(self) -> &'static str {
        match self {
            Self::Reached => "32",
            Self::Ahead => "33",
            Self::Behind => "31",
        }
    }
}

/// Puts rows and figures together; a row without a figure of ours is left out.
pub(super) fn results(rows: &[&'static Row], figures: &Figures) -> Vec<Outcome> {
    rows.iter()
        .filter_map(|row| {
            Some(Outcome {
                row,
                ours: figures.of(row.name, Side::Ours)?,
                theirs: figures.of(row.name, Side::Theirs),
            })
        })
        .collect()
}

/// Prints the table for people.
pub(super) fn print(results: &[Outcome], machine: &Machine, colours: bool) {
    let colours = colours && std::env::var_os("NO_COLOR").is_none();
    println!(
        "{:44} {:>19}  {:>19}  {:>6}  goal",
        "", "rbuild min/median", "BuildKit min/median", "times"
    );
    for result in results {
        let cells = Cells::of(result);
        let line = format!(
            "{:44} {:>19}  {:>19}  {:>6}  {} {}",
            result.row.title.replace('`', ""),
            format!("{} / {}", cells.ours_min, cells.ours_median),
            format!("{} / {}", cells.theirs_min, cells.theirs_median),
            cells.ratio,
            cells.goal,
            cells.standing.map_or("", Standing::word),
        );
        match cells.standing {
            Some(standing) if colours => println!("\x1b[{}m{line}\x1b[0m", standing.colour()),
            _ => println!("{line}"),
        }
    }
    println!("{machine}");
}

/// Returns the table for a page.
pub(super) fn markdown(results: &[Outcome], machine: &Machine, rounds: usize) -> String {
    let mut text = format!(
        "Minimum (median) of {rounds} rounds in turn. {machine}.\n\n\
         | work | rbuild | BuildKit | times | goal | |\n|---|---:|---:|---:|---:|---|\n"
    );
    for result in results {
        let c = Cells::of(result);
        text.push_str(&format!(
            "| {} | {} ({}) | {} ({}) | {} | {} | {} |\n",
            result.row.title,
            c.ours_min,
            c.ours_median,
            c.theirs_min,
            c.theirs_median,
            c.ratio,
            c.goal,
            c.standing.map_or("", Standing::word),
        ));
    }
    text
}

/// Returns all figures, for programs.
pub(super) fn json(results: &[Outcome], machine: &Machine, rounds: usize) -> String {
    let sample = |s: &Sample| json!({"min": s.min, "median": s.median, "all": s.all});
    let rows: Vec<Value> = results
        .iter()
        .map(|result| {
            json!({
                "name": result.row.name,
                "title": result.row.title,
                "unit": match result.row.unit() {
                    Unit::Seconds => "seconds",
                    Unit::Bytes => "bytes",
                },
                "rbuild": sample(&result.ours),
                "buildkit": result.theirs.as_ref().map(sample),
                "ratio_of_minima": result.ratio(),
                "goal": result.goal(),
                "standing": result.standing().map(Standing::word),
            })
        })
        .collect();
    let all = json!({"rounds": rounds, "machine": machine.json(), "rows": rows});
    format!("{all:#}\n")
}

/// Returns `page` with `table` in the place of what stands between the markers.
pub(super) fn between_markers(page: &str, table: &str) -> Result<String, Error> {
    let parts = page
        .split_once(BEGIN)
        .and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    let Some((before, after)) = parts else {
        return Err(Error::Output {
            what: "the page",
            problem: format!("it has no line {BEGIN} with a line {END} after it"),
        });
    };
    Ok(format!("{before}{BEGIN}\n{}\n{END}{after}", table.trim()))
}

/// A row's cells as text.
struct Cells {
    ours_min: String,
    ours_median: String,
    theirs_min: String,
    theirs_median: String,
    ratio: String,
    goal: String,
    standing: Option<Standing>,
}

impl Cells {
    fn of(result: &Outcome) -> Self {
        let unit = result.row.unit();
        let theirs = |pick: fn(&Sample) -> f64| {
            let sample = result.theirs.as_ref();
            sample.map_or("-".to_owned(), |s| unit.text(pick(s)))
        };
        Self {
            ours_min: unit.text(result.ours.min),
            ours_median: unit.text(result.ours.median),
            theirs_min: theirs(|s| s.min),
            theirs_median: theirs(|s| s.median),
            ratio: result.ratio().map_or("-".to_owned(), times),
            goal: match result.row.goal {
                Goal::Times(goal) => format!("{goal}×"),
                Goal::AtMost(most) => format!("≤ {}", unit.text(most)),
                Goal::NotMore => "not more".to_owned(),
            },
            standing: result.standing(),
        }
    }
}

/// Writes a ratio.
pub(super) fn times(ratio: f64) -> String {
    if ratio < 9.95 {
        format!("{ratio:.1}×")
    } else {
        format!("{ratio:.0}×")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_replaces_the_one_between_the_markers_and_nothing_else() {
        let page = format!("top\n{BEGIN}\nold\n{END}\nbottom\n");
        let once = between_markers(&page, "new\n").expect("the page has markers");
        assert_eq!(once, format!("top\n{BEGIN}\nnew\n{END}\nbottom\n"));
        assert_eq!(between_markers(&once, "new").expect("still"), once);
    }

    #[test]
    fn a_page_without_markers_in_order_is_refused() {
        assert!(between_markers("nothing", "new").is_err());
        assert!(between_markers(&format!("{END}\n{BEGIN}\n"), "new").is_err());
    }

    #[test]
    fn a_row_is_behind_only_when_the_reference_took_less() {
        let standing = |ours: f64, theirs: f64| {
            let sample = |figure| Sample::new(&[figure]).expect("one figure");
            Outcome {
                // Ten times faster is its goal.
                row: super::super::rows::ROWS
                    .iter()
                    .find(|row| row.name == "run")
                    .expect("a row"),
                ours: sample(ours),
                theirs: Some(sample(theirs)),
            }
            .standing()
        };
        assert_eq!(standing(0.1, 1.0), Some(Standing::Reached));
        assert_eq!(standing(0.9, 1.0), Some(Standing::Ahead));
        assert_eq!(standing(1.1, 1.0), Some(Standing::Behind));
    }
}
