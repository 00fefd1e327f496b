//! Slash paths as Go's `path` package treats them: pure text, no file system.

/// The shortest equivalent of `path`; `.` for the empty path.
pub fn clean(path: &str) -> String {
    if path.is_empty() {
        return ".".into();
    }
    if is_clean(path) {
        return path.into();
    }
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => match parts.last() {
                Some(&"..") => parts.push(".."),
                Some(_) => {
                    parts.pop();
                }
                None if rooted => {}
                None => parts.push(".."),
            },
            name => parts.push(name),
        }
    }
    let joined = parts.join("/");
    if rooted {
        format!("/{joined}")
    } else if joined.is_empty() {
        ".".into()
    } else {
        joined
    }
}

/// Whether no part is empty or made of dots, which most paths are: then nothing has to be done.
fn is_clean(path: &str) -> bool {
    let relative = path.strip_prefix('/').unwrap_or(path);
    relative.is_empty()
        || relative
            .split('/')
            .all(|part| !matches!(part, "" | "." | ".."))
}

/// Joins the non-empty parts and cleans the result; empty when all parts are.
pub fn join(parts: &[&str]) -> String {
    let present: Vec<&str> = parts.iter().copied().filter(|p| !p.is_empty()).collect();
    if present.is_empty() {
        String::new()
    } else {
        clean(&present.join("/"))
    }
}

/// Whether the path starts at the root.
pub fn is_abs(path: &str) -> bool {
    path.starts_with('/')
}

/// The last element; `.` for the empty path and `/` for slashes only.
pub fn base(path: &str) -> &str {
    if path.is_empty() {
        return ".";
    }
    let trimmed = path.trim_end_matches('/');
    if trimmed.is_empty() {
        return "/";
    }
    trimmed.rsplit('/').next().unwrap_or(trimmed)
}

/// All but the last element, cleaned.
pub fn dir(path: &str) -> String {
    match path.rfind('/') {
        Some(at) => clean(path.get(..=at).unwrap_or_default()),
        None => ".".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_as_go_cleans_them() {
        for (path, want) in [
            ("", "."),
            ("/", "/"),
            ("a//b/./c", "a/b/c"),
            ("../a", "../a"),
            ("a/../..", ".."),
            ("/../a/", "/a"),
            ("./", "."),
            ("/a/b/../../..", "/"),
        ] {
            assert_eq!(clean(path), want, "{path}");
        }
        assert_eq!(join(&["", ""]), "");
        assert_eq!(join(&["/", "a", "../b/"]), "/b");
        assert_eq!(base("/a/b/"), "b");
        assert_eq!(base("///"), "/");
        assert_eq!(dir("a/b"), "a");
        assert_eq!(dir("a"), ".");
        assert_eq!(dir("/a"), "/");
    }
}
