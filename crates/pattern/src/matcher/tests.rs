use proptest::prelude::*;

use super::{MatchInfo, PatternError, PatternMatcher, parents};
use crate::path_match;

/// Asks in the three ways a list can be asked; they must agree.
fn check(patterns: &[&str], path: &str, want: bool) {
    let matcher = PatternMatcher::new(patterns).expect("the patterns are well formed");
    assert_eq!(
        matcher.matches_or_parent_matches(path),
        want,
        "{patterns:?} {path:?}"
    );
    assert_eq!(
        matcher
            .matches_using_parent_results(path, &MatchInfo::default())
            .0,
        want,
        "{patterns:?} {path:?}, no parent"
    );
    let mut info = MatchInfo::default();
    for parent in parents(path) {
        info = matcher.matches_using_parent_results(parent, &info).1;
    }
    assert_eq!(
        matcher.matches_using_parent_results(path, &info).0,
        want,
        "{patterns:?} {path:?}, walked"
    );
}

#[test]
fn patterns_match_as_in_an_ignore_file() {
    let cases = [
        ("**", "file", true),
        ("**", "file/", true),
        ("**/", "file", true),
        ("**", "/", true),
        ("**", "dir/file", true),
        ("**/", "dir/file/", true),
        ("**/**", "dir/file", true),
        ("**/**", "dir/file/", true),
        ("dir/**", "dir/file", true),
        ("dir/**", "dir/dir2/file/", true),
        ("**/dir", "dir", true),
        ("**/dir", "dir/file", true),
        ("**/dir2/*", "dir/dir2/file", true),
        ("**/dir2/*", "dir/dir2/file/", true),
        ("**/dir2/**", "dir/dir2/dir3/file", true),
        ("**file", "file", true),
        ("**file", "dir/file", true),
        ("**file", "dir/dir/myfile", true),
        ("**/file", "dir/dir/file", true),
        ("**/file", "dir/myfile", false),
        ("**/file*", "dir/dir/file.txt", true),
        ("**/file*txt", "dir/dir/file.txt", true),
        ("**/file*.txt*", "dir/dir/file.txt", true),
        ("**/**/*.txt", "dir/dir/file.txt", true),
        ("**/**/*.txt2", "dir/dir/file.txt", false),
        ("**/*.txt", "file.txt", true),
        ("**/**/*.txt", "file.txt", true),
        ("a**/*.txt", "a/file.txt", true),
        ("a**/*.txt", "a/dir/dir/file.txt", true),
        ("a/*.txt", "a/dir/file.txt", false),
        ("a/*.txt", "a/file.txt", true),
        ("a/*.txt**", "a/file.txt", true),
        ("a[b-d]e", "ae", false),
        ("a[b-d]e", "ace", true),
        ("a[b-d]e", "aae", false),
        ("a[^b-d]e", "aze", true),
        (".*", ".foo", true),
        (".*", "foo", false),
        ("abc.def", "abcdef", false),
        ("abc.def", "abc.def", true),
        ("abc.def", "abcZdef", false),
        ("abc?def", "abcZdef", true),
        ("abc?def", "abcdef", false),
        ("a\\\\", "a\\", true),
        ("**/foo/bar", "foo/bar", true),
        ("**/foo/bar", "dir/dir2/foo/bar", true),
        ("abc/**", "abc", false),
        ("abc/**", "abc/def/ghi", true),
        ("**/.foo", ".foo", true),
        ("**/.foo", "bar.foo", false),
        ("a(b)c/def", "a(b)c/def", true),
        ("a(b)c/def", "a(b)c/xyz", false),
        ("a.|)$(}+{bc", "a.|)$(}+{bc", true),
        (
            "dist/*.whl",
            "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl",
            true,
        ),
        ("a\\*b", "a*b", true),
        ("a*", "ab/c", true),
        ("a*/b", "a/c/b", false),
        ("a*b**c", "abbc", true),
        ("a**b", "ab", true),
        ("a**b", "axb", false),
        ("a**b", "ax/b", true),
        ("./a/", "a", true),
        ("a/../b", "b", true),
        ("sub", "sub2", false),
    ];
    for (pattern, path, want) in cases {
        check(&[pattern], path, want);
    }
}

#[test]
fn the_last_pattern_that_matches_decides() {
    check(&["**", "!util/docker/web"], "util/docker/web/foo", false);
    check(
        &["**", "!util/docker/web", "util/docker/web/foo"],
        "util/docker/web/foo",
        true,
    );
    check(&["**", "!dist/*.whl"], "dist/a.whl", false);
    check(&["!a", "a"], "a", true);
    check(
        &["dir", "!dir/keep", "dir/keep/not"],
        "dir/keep/not/x",
        true,
    );
    check(&["dir", "!dir/keep", "dir/keep/not"], "dir/keep/yes", false);
    check(&[], "any/path", false);
}

#[test]
fn malformed_lists_are_errors_at_once() {
    let syntax = |pattern: &str| {
        Err(PatternError::Syntax {
            pattern: pattern.to_owned(),
        })
    };
    assert_eq!(PatternMatcher::new(["["]), syntax("["));
    assert_eq!(PatternMatcher::new(["ok", "!a/b["]), syntax("a/b["));
    assert_eq!(PatternMatcher::new(["x*[a-"]), syntax("x*[a-"));
    assert_eq!(PatternMatcher::new(["!"]), Err(PatternError::LoneExclusion));
    assert_eq!(
        PatternMatcher::new(["docs", " ", ""]).map(|matcher| matcher.patterns().len()),
        Ok(1)
    );
    let matcher =
        PatternMatcher::new(["docs", "  !docs/README.md  "]).expect("the patterns are well formed");
    assert!(matcher.exclusions());
    assert_eq!(
        matcher
            .patterns()
            .iter()
            .map(|pattern| (pattern.as_str(), pattern.is_exclusion()))
            .collect::<Vec<_>>(),
        [("docs", false), ("docs/README.md", true)]
    );
}

#[test]
fn long_patterns_of_stars_take_no_long_time() {
    let pattern = "a*".repeat(400);
    let path = "a".repeat(4000);
    check(&[&format!("{pattern}b")], &path, false);
    check(
        &[&format!("{}b", "**/a*/".repeat(100))],
        &"a/".repeat(2000),
        false,
    );
    assert_eq!(path_match(&format!("{pattern}b"), &path), Ok(false));
}

proptest! {
    #[test]
    fn any_pattern_and_any_path_give_an_answer(pattern in "[a-c/*?\\[\\]^\\\\!.-]{0,20}", path in "[a-c/.]{0,30}") {
        let _ = path_match(&pattern, &path);
        if let Ok(matcher) = PatternMatcher::new([&pattern]) {
            let one = matcher.matches_or_parent_matches(&path);
            prop_assert_eq!(matcher.matches_using_parent_results(&path, &MatchInfo::default()).0, one);
        }
    }

    /// Without `**` a list of one is the plain match of the path or a directory above it.
    #[test]
    fn a_list_of_one_agrees_with_the_plain_match(pattern in "[a-c/?*\\[\\]-]{1,12}", path in "[a-c]{1,3}(/[a-c]{1,3}){0,3}") {
        prop_assume!(!pattern.contains("**"));
        if let Ok(matcher) = PatternMatcher::new([&pattern]) {
            let cleaned = gostd::path::clean(&pattern);
            let plain = |path: &str| path_match(&cleaned, path) == Ok(true);
            let want = plain(&path) || parents(&path).any(plain);
            prop_assert_eq!(matcher.matches_or_parent_matches(&path), want);
        }
    }
}

#[test]
fn a_path_that_stands_by_itself_is_named_by_its_name_or_all_of_it() {
    for (patterns, path, want) in [
        (&["*.txt"][..], "home.txt", true),
        (&["*.txt"], "src/home.txt", true),
        (&["src/*.txt"], "src/home.txt", true),
        (&["src/*.txt"], "home.txt", false),
        (&["src"], "src/home.txt", false),
        (&["home.txt"], "src/home.txt", true),
        (&["**/home.txt"], "src/home.txt", true),
        (&["*", "!src/home.txt"], "src/home.txt", false),
        (&["!home.txt", "*"], "home.txt", true),
        (&["*", "!home.*", "home.txt"], "home.txt", true),
        (&[], "home.txt", false),
    ] {
        let matcher = PatternMatcher::new(patterns).unwrap();
        assert_eq!(matcher.names(path), want, "{patterns:?} {path}");
    }
}

#[test]
fn a_list_is_bounded_before_a_path_is_held_against_it() {
    let stars = "*a".repeat(1 << 11);
    for (patterns, want) in [
        (vec!["a".to_owned(); super::MAX_PATTERNS], ""),
        (
            vec!["a".to_owned(); super::MAX_PATTERNS + 1],
            "too many patterns: 100001 in a list, at most 100000 are accepted",
        ),
        (vec![stars.clone(); 32], ""),
        (
            vec![stars; 33],
            "too many patterns: 135168 characters in those that have wildcards, at most 131072 are accepted",
        ),
        (
            vec!["*a".repeat(1 << 20)],
            "too many patterns: 2097152 characters",
        ),
        (vec!["a".repeat(1 << 20)], ""),
    ] {
        let error = PatternMatcher::new(&patterns).err();
        let text = error.map(|error| error.to_string()).unwrap_or_default();
        assert!(
            text.starts_with(want) && text.is_empty() == want.is_empty(),
            "{text}"
        );
    }
    // The most that a path can take is done in a moment.
    let matcher = PatternMatcher::new(vec!["*a".repeat(1 << 11); 32]).expect("it is not too much");
    #[expect(
        clippy::disallowed_methods,
        reason = "measures how long an input takes"
    )]
    let begun = std::time::Instant::now();
    assert!(!matcher.matches_or_parent_matches(&"a".repeat(500)));
    assert!(
        begun.elapsed() < std::time::Duration::from_secs(30),
        "{:?}",
        begun.elapsed()
    );
}
