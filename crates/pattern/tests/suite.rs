//! Every list of patterns that `moby/patternmatcher` was asked about (`tests/data/patternmatcher.json`, written by
//! `integration/tools/buildkit`) gives the same answers.

use pattern::{MatchInfo, PatternMatcher};
use serde_json::{Value, json};

fn texts(value: &Value) -> Vec<&str> {
    let items = value.as_array().expect("a list");
    items.iter().filter_map(Value::as_str).collect()
}

/// What our matcher says in the form of the recording.
fn answer(patterns: &[&str], paths: &[&str]) -> Result<Value, String> {
    let matcher = PatternMatcher::new(patterns).map_err(|error| error.to_string())?;
    let chosen = |matches: &dyn Fn(&str) -> bool| -> Vec<&str> {
        paths.iter().copied().filter(|path| matches(path)).collect()
    };
    Ok(json!({
        "exclusions": matcher.exclusions(),
        "with_parents": chosen(&|path| matcher.matches_or_parent_matches(path)),
        "alone": chosen(&|path| matcher.matches_using_parent_results(path, &MatchInfo::default()).0),
    }))
}

#[test]
fn every_list_matches_as_the_reference_matches_it() {
    let vectors: Vec<Value> = serde_json::from_str(include_str!("data/patternmatcher.json"))
        .expect("the vectors are JSON");
    assert!(vectors.len() > 80, "{}", vectors.len());
    let mut differences = Vec::new();
    for vector in &vectors {
        let input = &vector["in"];
        let (patterns, paths) = match input.as_array() {
            // A list that was refused was asked about no path.
            Some(_) => (texts(input), Vec::new()),
            None => (texts(&input["patterns"]), texts(&input["paths"])),
        };
        let want = match vector["error"].as_str() {
            Some(error) => Err(error.to_owned()),
            None => Ok(vector["out"].clone()),
        };
        let actual = answer(&patterns, &paths);
        if actual != want {
            differences.push(format!(
                "{patterns:?}:\n  {actual:?}\n  the reference says\n  {want:?}"
            ));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn a_walk_gives_the_answers_that_each_path_alone_gives() {
    for patterns in [
        &["dir", "!dir/sub", "dir/sub/x"][..],
        &["**", "!**/keep", "keep/not"],
        &["*/a", "!b/a"],
        &["!a", "a"],
    ] {
        let matcher = PatternMatcher::new(patterns).expect("the patterns are well formed");
        for path in [
            "dir/sub/x",
            "dir/sub/y",
            "dir/z",
            "keep/not/x",
            "a/keep/b",
            "b/a",
            "c/a/d",
        ] {
            let mut info = MatchInfo::default();
            let mut last = false;
            let ends = path
                .match_indices('/')
                .map(|(at, _)| at)
                .chain([path.len()]);
            for end in ends {
                (last, info) = matcher.matches_using_parent_results(&path[..end], &info);
            }
            let alone = matcher.matches_or_parent_matches(path);
            assert_eq!(last, alone, "{patterns:?} {path}");
        }
    }
}
