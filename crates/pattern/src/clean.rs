//! The shortest form of a path.

/// Returns the shortest path that means the same, judged by the text alone, as Go's `path.Clean`.
///
/// Repeated slashes, `.` and inner `..` go, as does a slash at the end; an empty path is `.`.
pub fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut kept: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if kept.last().is_some_and(|last| *last != "..") => {
                kept.pop();
            }
            ".." if rooted => {}
            part => kept.push(part),
        }
    }
    let joined = kept.join("/");
    match (rooted, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

#[cfg(test)]
mod tests {
    use super::clean;

    #[test]
    fn paths_are_shortened_by_text_alone() {
        let cases = [
            ("", "."),
            ("abc", "abc"),
            ("abc/def/", "abc/def"),
            ("/", "/"),
            ("//abc//def//", "/abc/def"),
            ("./abc/./def/.", "abc/def"),
            ("abc/def/../ghi", "abc/ghi"),
            ("abc/../../def", "../def"),
            ("../../abc", "../../abc"),
            ("/../abc", "/abc"),
            ("abc/..", "."),
            ("/abc/def/../../..", "/"),
            ("!./abc/", "!./abc"),
        ];
        for (path, want) in cases {
            assert_eq!(clean(path), want, "{path:?}");
        }
    }
}
