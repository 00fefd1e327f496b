//! Addresses as they may be shown.

const MASK: &str = "xxxxx";

/// Replaces user and password of an address.
#[must_use]
pub fn redact(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        return text.to_owned();
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    let Some((user, host)) = authority.rsplit_once('@') else {
        return text.to_owned();
    };
    let shown = match user.split_once(':') {
        Some(("", _)) => format!(":{MASK}"),
        Some(_) => format!("{MASK}:{MASK}"),
        None if user.is_empty() => String::new(),
        None => MASK.to_owned(),
    };
    format!("{scheme}://{shown}@{host}{tail}")
}

#[cfg(test)]
mod tests {
    use super::redact;

    #[test]
    fn users_and_passwords_are_not_shown() {
        for (text, want) in [
            ("https://u:p@h/x.git#v1", "https://xxxxx:xxxxx@h/x.git#v1"),
            ("https://u@h", "https://xxxxx@h"),
            ("https://h/a@b", "https://h/a@b"),
            ("git@h:x.git", "git@h:x.git"),
            ("context", "context"),
        ] {
            assert_eq!(redact(text), want);
        }
    }
}
