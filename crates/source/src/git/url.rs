//! Addresses and names that are safe as arguments of git: it takes none of them for an option or an expression.

use llb::git_url::GitUrl;

use crate::error::{SourceError, cause};

/// Parses an address, which may leave out `https://`, and refuses what git or ssh would take for an option.
pub(crate) fn parse(text: &str) -> Result<GitUrl, SourceError> {
    let text = GitUrl::with_transport(text);
    let bad = |source| SourceError::Reference {
        reference: oci::address::redact(&text),
        source,
    };
    let url = GitUrl::parse(&text).map_err(|error| bad(cause(error)))?;
    let clean = |text: &str| !text.chars().any(|c| c.is_control() || c == ' ');
    if url.host.is_empty() || url.host.starts_with('-') || !clean(&url.remote) {
        return Err(bad(cause("invalid url")));
    }
    Ok(url)
}

/// Whether a text can name a reference: git reads it neither as an option, nor as a pattern or an expression.
/// git-check-ref-format(1).
pub(crate) fn is_ref_name(text: &str) -> bool {
    let bad = |c: char| c.is_control() || " ~^:?*[\\".contains(c);
    !text.starts_with(['-', '/'])
        && !text.ends_with(['/', '.'])
        && !text.chars().any(bad)
        && !["..", "@{", "//", "/."]
            .iter()
            .any(|part| text.contains(part))
        && text != "@"
}

/// Whether a text can be the beginning of a commit's name.
pub(crate) fn is_short_commit(text: &str) -> bool {
    (4..40).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// Whether a text is the full name of a commit.
pub(crate) fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64)
        && text
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

#[cfg(test)]
mod tests {
    use super::{is_ref_name, parse};

    #[test]
    fn credentials_are_no_part_of_the_address_that_git_gets() {
        for (text, address, login) in [
            ("https://u:p%40x@h/r.git", "https://h/r.git", Some("u:p@x")),
            ("https://token@h/r", "https://h/r", Some("token:")),
            ("https://h/r", "https://h/r", None),
            ("ssh://git@h/r", "ssh://git@h/r", None),
            ("git@h:r", "git@h:r", None),
        ] {
            let url = parse(text).unwrap();
            assert_eq!(url.address(), address, "{text}");
            assert_eq!(url.login().as_deref(), login.map(str::as_bytes), "{text}");
        }
    }

    #[test]
    fn what_git_would_read_as_an_option_or_an_expression_names_no_reference() {
        for good in [
            "main",
            "v1.0",
            "a/b",
            "refs/pull/1/head",
            "fix-#1",
            "ä",
            "HEAD",
        ] {
            assert!(is_ref_name(good), "{good}");
        }
        for bad in [
            "-x",
            "--upload-pack=x",
            "a b",
            "a..b",
            "a^",
            "a~1",
            "a:b",
            "*",
            "a?",
            "[a]",
            "a\\b",
            "a@{1}",
            "@",
            "a//b",
            "/a",
            "a/",
            "a/.b",
            "a.",
            "a\nb",
            "a\u{7f}",
        ] {
            assert!(!is_ref_name(bad), "{bad:?}");
        }
    }

    #[test]
    fn addresses_are_taken_apart() {
        for (text, remote, host, path, reference, subdir) in [
            (
                "https://github.com/a/b.git#v1:x/../y",
                "https://github.com/a/b.git",
                "github.com",
                "/a/b.git",
                "v1",
                "y",
            ),
            (
                "HTTPS://u:p@h:8443/r?x=1#:/d",
                "https://u:p@h:8443/r",
                "h:8443",
                "/r",
                "",
                "d",
            ),
            (
                "git@github.com:a/b.git#main",
                "git@github.com:a/b.git",
                "github.com",
                "a/b.git",
                "main",
                "",
            ),
            ("ssh://git@h/r", "ssh://git@h/r", "h", "/r", "", ""),
        ] {
            let url = parse(text).unwrap();
            assert_eq!(
                (url.remote.as_str(), url.host.as_str(), url.path.as_str()),
                (remote, host, path),
                "{text}"
            );
            assert_eq!(
                (url.reference.as_str(), url.subdir.as_str()),
                (reference, subdir),
                "{text}"
            );
        }
        for bad in [
            "ext::sh -c x",
            "https://",
            "https://-oProxy/x",
            "a b@c:d",
            "plain path",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        // What names none of the four protocols is a host behind https.
        let address = parse("file:///etc").unwrap().address();
        assert_eq!(address, "https://file:///etc");
    }

    #[test]
    fn commits_are_told_from_names_and_from_beginnings_of_commits() {
        use super::{is_commit, is_short_commit};
        let full = "0123456789abcdef0123456789abcdef01234567";
        for (text, commit, short) in [
            (full, true, false),
            (&full[..39], false, true),
            (&full[..4], false, true),
            (&full[..3], false, false),
            (&full.to_uppercase()[..], false, false),
            (&format!("{full}{}", &full[..24]), true, false),
            (&format!("{full}0"), false, false),
            ("master", false, false),
            ("dead", false, true),
            ("", false, false),
        ] {
            assert_eq!(
                (is_commit(text), is_short_commit(text)),
                (commit, short),
                "{text}"
            );
        }
    }

    #[test]
    fn an_error_shows_no_login_of_an_address() {
        for text in ["https://me:secret@/r", "https://me:secret@-h/r"] {
            let error = parse(text).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_folder_of_a_repository_stays_inside_it() {
        for (fragment, reference, subdir) in [
            ("", "", ""),
            ("main", "main", ""),
            ("main:", "main", ""),
            (":sub", "", "sub"),
            ("main:/sub/", "main", "sub"),
            ("main:../../etc", "main", "etc"),
            ("main:a/./b/../c", "main", "a/c"),
            ("a:b:c", "a", "b:c"),
        ] {
            let url = parse(&format!("https://h/r#{fragment}")).unwrap();
            assert_eq!(
                (url.reference.as_str(), url.subdir.as_str()),
                (reference, subdir),
                "{fragment}"
            );
        }
    }
}
