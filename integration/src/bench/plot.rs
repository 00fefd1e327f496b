//! The minima as a picture: per row two bars, the longer one as wide as the picture allows.
//!
//! Rows differ by three orders of magnitude, so each has its own scale and what is read off is the ratio; the figures
//! stand beside the bars. Colours follow the reader's light or dark setting.

use std::fmt::Write as _;

use super::machine::Machine;
use super::report::{Outcome, times};

const WIDTH: usize = 860;
const LABELS: f64 = 300.0;
const BARS: f64 = 400.0;
const BAR: usize = 13;
const ROW: usize = 44;
const TOP: usize = 92;

const STYLE: &str = "<style>\
    text{font:13px system-ui,'Segoe UI',Helvetica,Arial,sans-serif;fill:#1f2328}\
    .title{font-size:19px;font-weight:600}.quiet{fill:#59636e;font-size:12px}\
    .times{font-weight:600}.paper{fill:#fff}.theirs{fill:#b6bfca}.ours{fill:#e5532d}\
    .goal{stroke:#1f2328;stroke-width:1.5;stroke-dasharray:2 2}.line{stroke:#d1d9e0}\
    @media(prefers-color-scheme:dark){text{fill:#f0f6fc}.quiet{fill:#9198a1}.paper{fill:#0d1117}\
    .theirs{fill:#4a535e}.ours{fill:#ff7a52}.goal{stroke:#f0f6fc}.line{stroke:#3d444d}}\
    </style>";

/// Draws the rows that both sides have figures of.
pub(super) fn svg(results: &[Outcome], machine: &Machine) -> String {
    let drawn: Vec<(&Outcome, f64)> = results
        .iter()
        .filter_map(|result| Some((result, result.theirs.as_ref()?.min)))
        .collect();
    let height = TOP + drawn.len() * ROW + 40;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" role=\"img\" \
         aria-label=\"rbuild and BuildKit, the same builds in turn\">\n{STYLE}\n\
         <rect class=\"paper\" width=\"{WIDTH}\" height=\"{height}\" rx=\"8\"/>\n"
    );
    text(
        &mut out,
        24.0,
        36,
        "title",
        "The same builds on rbuild and BuildKit",
    );
    legend(&mut out);
    for (place, (result, theirs)) in drawn.iter().enumerate() {
        row(&mut out, TOP + place * ROW, result, *theirs);
    }
    let foot = format!(
        "{}, {}; {} cores, Linux {}, {}; {}",
        machine.ours,
        machine.theirs,
        machine.cores,
        machine.kernel,
        machine.file_system,
        machine.date
    );
    text(&mut out, 24.0, height - 16, "quiet", &foot);
    out.push_str("</svg>\n");
    out
}

fn legend(out: &mut String) {
    let mut x = 24.0;
    for (class, words, wide) in [("ours", "rbuild", 76.0), ("theirs", "BuildKit", 88.0)] {
        rect(out, class, x, 53, 12.0, 12);
        text(out, x + 18.0, 64, "quiet", words);
        x += wide;
    }
    let _never = writeln!(
        out,
        "<line class=\"goal\" x1=\"{0}\" x2=\"{0}\" y1=\"51\" y2=\"67\"/>",
        x + 6.0
    );
    text(
        out,
        x + 14.0,
        64,
        "quiet",
        "goal; minima of the rounds, shorter is better, each row has its own scale",
    );
}

fn row(out: &mut String, y: usize, result: &Outcome, theirs: f64) {
    let unit = result.row.unit();
    let ours = result.ours.min;
    let scale = BARS / ours.max(theirs).max(f64::MIN_POSITIVE);
    let _never = writeln!(
        out,
        "<line class=\"line\" x1=\"24\" x2=\"{}\" y1=\"{y}\" y2=\"{y}\"/>",
        WIDTH - 24
    );
    text(out, 24.0, y + 27, "", &result.row.title.replace('`', ""));
    for (class, figure, top) in [("ours", ours, y + 7), ("theirs", theirs, y + 9 + BAR)] {
        let long = (figure * scale).max(1.5);
        rect(out, class, LABELS, top, long, BAR);
        let class = if class == "ours" { "" } else { "quiet" };
        let after = LABELS + long.round() + 6.0;
        text(out, after, top + 11, class, &unit.text(figure));
    }
    if let Some(goal) = result.goal().filter(|goal| *goal * scale <= BARS) {
        let _never = writeln!(
            out,
            "<line class=\"goal\" x1=\"{0:.1}\" x2=\"{0:.1}\" y1=\"{1}\" y2=\"{2}\"/>",
            LABELS + goal * scale,
            y + 4,
            y + 10 + BAR
        );
    }
    if let Some(ratio) = result.ratio() {
        let _never = writeln!(
            out,
            "<text class=\"times\" text-anchor=\"end\" x=\"{}\" y=\"{}\">{}</text>",
            WIDTH - 24,
            y + 27,
            times(ratio)
        );
    }
}

fn rect(out: &mut String, class: &str, x: f64, y: usize, wide: f64, high: usize) {
    let _never = writeln!(
        out,
        "<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{wide:.1}\" height=\"{high}\" rx=\"2\"/>"
    );
}

fn text(out: &mut String, x: f64, y: usize, class: &str, words: &str) {
    let words = words
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;");
    let _never = writeln!(
        out,
        "<text class=\"{class}\" x=\"{x}\" y=\"{y}\">{words}</text>"
    );
}
