//! Slash paths as Go's `path` package treats them: pure text, no file system.

/// Returns the shortest path that means the same, judged by the text alone; `.` for the empty path.
///
/// Repeated slashes, `.` and inner `..` go, as does a slash at the end. `..` at the root goes as well.
#[must_use]
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

/// Joins the non-empty parts with slashes and cleans the result; empty when all parts are.
#[must_use]
pub fn join(parts: &[&str]) -> String {
    let present: Vec<&str> = parts.iter().copied().filter(|p| !p.is_empty()).collect();
    if present.is_empty() {
        String::new()
    } else {
        clean(&present.join("/"))
    }
}

/// The path below the root that `path` names, whether or not it begins with a slash: Go's `path.Join("/", path)`.
#[must_use]
pub fn join_root(path: &str) -> String {
    join(&["/", path])
}

/// The names that [`join_root`] leaves, from the root down; none for the root itself.
#[must_use]
pub fn names_below_root(path: &str) -> Vec<&str> {
    let mut names = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    names
}

/// Whether the path starts at the root.
#[must_use]
pub fn is_abs(path: &str) -> bool {
    path.starts_with('/')
}

/// The last element; `.` for the empty path and `/` for slashes only.
#[must_use]
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
#[must_use]
pub fn dir(path: &str) -> String {
    match path.rfind('/') {
        Some(at) => clean(path.get(..=at).unwrap_or_default()),
        None => ".".into(),
    }
}
