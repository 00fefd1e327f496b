//! Differences between two answers, in words.

use serde_json::Value;

use super::corpus::Case;

/// Differences that are meant: the name of a case, and where in `docs/compat.md` they are argued.
const ARGUED_DIFFERENCES: &[(&str, &str)] = &[
    (
        "words: onbuild takes from a stage",
        "the number of a step in its name, where a trigger brings in a stage",
    ),
    (
        "bad: lint as an error in the file",
        "the order in which broken rules are named; the reference's changes from run to run",
    ),
    (
        "java-dotnet: windows base under linux",
        "the error has the status NotFound, which clients put in front of the words",
    ),
];

/// Prints each difference and a sum; returns whether there is none that is not argued.
pub(super) fn all(cases: &[Case], reference: &[Value], ours: &[Value]) -> bool {
    let mut equal = 0;
    let mut refused = 0;
    let mut argued = 0;
    for ((case, reference), ours) in cases.iter().zip(reference).zip(ours) {
        let differences = differences(reference, ours);
        if !text(reference, "error").is_empty() {
            refused += 1;
        }
        let why = ARGUED_DIFFERENCES
            .iter()
            .find(|(name, _)| *name == case.name);
        match why {
            _ if differences.is_empty() => equal += 1,
            Some((_, why)) => {
                argued += 1;
                println!("{}: differs, see docs/compat.md: {why}", case.name);
            }
            None => {
                println!("{}: differs (< reference, > ours)", case.name);
                for difference in differences {
                    println!("  {difference}");
                }
            }
        }
    }
    println!(
        "{equal} of {} Dockerfiles equal ({refused} of them are refused), {argued} differ as argued",
        cases.len()
    );
    equal + argued == cases.len() && cases.len() == ours.len()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn differences(reference: &Value, ours: &Value) -> Vec<String> {
    let mut report = Vec::new();
    for key in ["error", "marked", "warnings"] {
        values(key, reference.get(key), ours.get(key), &mut report);
    }
    let (a, b) = (reference.get("metadata"), ours.get("metadata"));
    for key in keys(a, b) {
        values(
            &key,
            a.and_then(|m| m.get(&key)),
            b.and_then(|m| m.get(&key)),
            &mut report,
        );
    }
    let (a, b) = (reference.get("refs"), ours.get("refs"));
    for key in keys(a, b) {
        steps(
            &key,
            a.and_then(|m| m.get(&key)),
            b.and_then(|m| m.get(&key)),
            &mut report,
        );
    }
    report
}

fn keys(a: Option<&Value>, b: Option<&Value>) -> Vec<String> {
    let mut keys: Vec<String> = [a, b]
        .into_iter()
        .flatten()
        .filter_map(Value::as_object)
        .flat_map(|map| map.keys().cloned())
        .collect();
    keys.sort();
    keys.dedup();
    keys
}

fn values(what: &str, a: Option<&Value>, b: Option<&Value>, report: &mut Vec<String>) {
    if a != b {
        let show =
            |value: Option<&Value>| value.map_or_else(|| "nothing".to_owned(), Value::to_string);
        report.push(format!("{what}:\n    < {}\n    > {}", show(a), show(b)));
    }
}

/// Steps are compared one by one; a step's own text leaves out those that differ only because their inputs do.
fn steps(platform: &str, a: Option<&Value>, b: Option<&Value>, report: &mut Vec<String>) {
    let list = |value: Option<&Value>| value.and_then(Value::as_array).cloned().unwrap_or_default();
    let (a, b) = (list(a), list(b));
    if a.len() != b.len() {
        let names = |all: &[Value]| {
            all.iter()
                .map(|s| text(s, "name").to_owned())
                .collect::<Vec<_>>()
        };
        report.push(format!(
            "steps {platform}: {:?} and {:?}",
            names(&a),
            names(&b)
        ));
    }
    for step in &a {
        if b.contains(step) {
            continue;
        }
        let name = text(step, "name");
        let partner = b
            .iter()
            .find(|other| text(other, "digest") == text(step, "digest"))
            .or_else(|| b.iter().find(|other| text(other, "name") == name));
        let Some(partner) = partner else {
            report.push(format!("only the reference has the step {step}"));
            continue;
        };
        let own = |value: &Value| {
            let mut op = value.get("op").cloned().unwrap_or_default();
            if let Some(op) = op.as_object_mut() {
                op.remove("inputs");
            }
            format!("{op} {} {}", text(value, "name"), text(value, "more"))
        };
        if own(step) == own(partner) {
            report.push(format!("step {name:?}: its inputs or its encoding"));
        } else {
            report.push(format!(
                "step {name:?}:\n    < {}\n    > {}",
                own(step),
                own(partner)
            ));
        }
    }
}
