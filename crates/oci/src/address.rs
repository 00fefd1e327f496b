//! Removes user and password from addresses, for messages.

use std::borrow::Cow;

const HIDDEN_PASSWORD: &str = "xxxxx";

/// Replaces user and password of one address, as the reference does it.
#[must_use]
pub fn redact(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        return text.to_owned();
    };
    let end = authority_end(rest);
    let (authority, tail) = rest.split_at(end);
    let Some((user, host)) = authority.rsplit_once('@') else {
        return text.to_owned();
    };
    let hidden_user = match user.split_once(':') {
        Some(("", _)) => format!(":{HIDDEN_PASSWORD}"),
        Some(_) => format!("{HIDDEN_PASSWORD}:{HIDDEN_PASSWORD}"),
        None if user.is_empty() => String::new(),
        None => HIDDEN_PASSWORD.to_owned(),
    };
    format!("{scheme}://{hidden_user}@{host}{tail}")
}

/// Replaces user and password of every address in a text. A user without password stays where it is no secret: `ssh://git@host`.
#[must_use]
pub fn redact_text(text: &str) -> Cow<'_, str> {
    if !text.contains("://") || !text.contains('@') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, from) = rest.split_at(at);
        let scheme_at = before
            .rfind(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '+' | '-' | '.'))
            .and_then(|i| before.get(i..)?.chars().next().map(|c| i + c.len_utf8()))
            .unwrap_or(0);
        let (text_before, scheme) = before.split_at(scheme_at);
        let length = from
            .char_indices()
            .skip(3)
            .find(|(_, c)| ends_address(*c))
            .map_or(from.len(), |(i, _)| i);
        let (address, tail) = from.split_at(length);
        out.push_str(text_before);
        let whole = format!("{scheme}{address}");
        let is_name = matches!(scheme, "ssh" | "git") && !has_password(address);
        out.push_str(&if is_name { whole } else { redact(&whole) });
        rest = tail;
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// As [`redact_text`], of a text that may be replaced.
#[must_use]
pub fn redacted(text: String) -> String {
    match redact_text(&text) {
        Cow::Borrowed(_) => text,
        Cow::Owned(redacted) => redacted,
    }
}

fn ends_address(c: char) -> bool {
    c.is_whitespace() || c.is_control() || matches!(c, '"' | '\'' | '`' | '<' | '>' | '|')
}

/// End of host and port. Without a number in the place of the port, the text is a password with a slash in it.
fn authority_end(rest: &str) -> usize {
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    let has_port = |host: &str| {
        host.rsplit_once(':')
            .is_none_or(|(_, port)| port.ends_with(']') || port.bytes().all(|b| b.is_ascii_digit()))
    };
    if authority.contains('@') || has_port(authority) {
        return end;
    }
    match tail.rfind('@') {
        Some(at) => {
            let behind = end + at + 1;
            let host = rest.get(behind..).unwrap_or_default();
            behind + host.find(['/', '?', '#']).unwrap_or(host.len())
        }
        None => end,
    }
}

fn has_password(address: &str) -> bool {
    let rest = address.strip_prefix("://").unwrap_or(address);
    let (authority, _) = rest.split_at(authority_end(rest));
    authority
        .rsplit_once('@')
        .is_some_and(|(user, _)| user.contains(':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_redacted_as_the_reference_does_it() {
        for (text, want) in [
            ("https://u:p@h/x.git#v1", "https://xxxxx:xxxxx@h/x.git#v1"),
            (
                "https://user:password@host.tld/this:that",
                "https://xxxxx:xxxxx@host.tld/this:that",
            ),
            ("https://u@h", "https://xxxxx@h"),
            ("https://:p@h/x", "https://:xxxxx@h/x"),
            ("ssh://git@h/x", "ssh://xxxxx@h/x"),
            ("https://h/a@b", "https://h/a@b"),
            ("https://h:8443/a@b", "https://h:8443/a@b"),
            ("https://[::1]/a@b", "https://[::1]/a@b"),
            ("https://u:p@w@h/x", "https://xxxxx:xxxxx@h/x"),
            ("https://u:p/w@h/x", "https://xxxxx:xxxxx@h/x"),
            ("https://u:p#w?@h/x", "https://xxxxx:xxxxx@h/x"),
            ("git@h:x.git", "git@h:x.git"),
            ("context", "context"),
            ("", ""),
        ] {
            assert_eq!(redact(text), want, "{text}");
        }
    }

    #[test]
    fn no_credential_of_an_address_stays_in_a_text() {
        for (text, want) in [
            (
                "[2/3] ADD https://u:CANARY@h/x git://CANARY:x@h/y /z",
                "[2/3] ADD https://xxxxx:xxxxx@h/x git://xxxxx:xxxxx@h/y /z",
            ),
            (
                "RUN curl \"https://CANARY@h/x\"",
                "RUN curl \"https://xxxxx@h/x\"",
            ),
            (
                "a=https://u:CANARY@h,b=http://h",
                "a=https://xxxxx:xxxxx@h,b=http://h",
            ),
            ("é://u:CANARY@h", "é://xxxxx:xxxxx@h"),
            ("ssh://u:CANARY@h/x", "ssh://xxxxx:xxxxx@h/x"),
            (
                "load git source ssh://git@h/x",
                "load git source ssh://git@h/x",
            ),
            ("git@h:x and a@b.c", "git@h:x and a@b.c"),
            ("x://", "x://"),
            ("://@", "://@"),
            ("https://é:CANARY@ü/x", "https://xxxxx:xxxxx@ü/x"),
        ] {
            assert_eq!(redact_text(text), want, "{text}");
            assert_eq!(redacted(text.to_owned()), want, "{text}");
        }
    }
}
