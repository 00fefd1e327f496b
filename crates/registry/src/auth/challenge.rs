//! `WWW-Authenticate` headers.

use http::HeaderMap;
use http::header::WWW_AUTHENTICATE;

/// A scheme of authorization that a host offers. Bearer sorts before basic, because it does not send the login to the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scheme {
    Bearer,
    Basic,
}

impl Scheme {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bearer => "bearer",
            Self::Basic => "basic",
        }
    }
}

/// One challenge and its parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Challenge {
    pub(crate) scheme: Scheme,
    params: Vec<(String, String)>,
}

impl Challenge {
    pub(crate) fn param(&self, name: &str) -> Option<&str> {
        self.params
            .iter()
            .rev()
            .find(|(k, _)| k == name)
            .map(|(_, v)| v.as_str())
            .filter(|v| !v.is_empty())
    }
}

/// The challenges of a response that can be met, the best first.
pub(crate) fn parse(headers: &HeaderMap) -> Vec<Challenge> {
    let mut out: Vec<_> = headers
        .get_all(WWW_AUTHENTICATE)
        .iter()
        .take(16)
        .filter_map(|v| v.to_str().ok())
        .filter_map(parse_one)
        .collect();
    out.sort_by_key(|c| c.scheme);
    out
}

fn parse_one(header: &str) -> Option<Challenge> {
    let mut cursor = ParamCursor(header.trim_start());
    let scheme = match cursor.token()?.to_ascii_lowercase().as_str() {
        "bearer" => Scheme::Bearer,
        "basic" => Scheme::Basic,
        _ => return None,
    };
    let mut params = Vec::new();
    loop {
        cursor.skip_spaces();
        let Some(name) = cursor.token() else { break };
        if !cursor.eat('=') {
            break;
        }
        let Some(value) = cursor.value() else { break };
        params.push((name.to_ascii_lowercase(), value));
        cursor.skip_spaces();
        if !cursor.eat(',') {
            break;
        }
    }
    Some(Challenge { scheme, params })
}

/// Reads the parameters of a challenge from the front.
struct ParamCursor<'a>(&'a str);

impl<'a> ParamCursor<'a> {
    fn skip_spaces(&mut self) {
        self.0 = self.0.trim_start_matches([' ', '\t', '\r', '\n']);
    }

    fn eat(&mut self, c: char) -> bool {
        match self.0.strip_prefix(c) {
            Some(remaining) => {
                self.0 = remaining;
                true
            }
            None => false,
        }
    }

    fn token(&mut self) -> Option<&'a str> {
        let end = self
            .0
            .find(|c: char| !c.is_ascii_graphic() || "()<>@,;:\\\"/[]?={}".contains(c))
            .unwrap_or(self.0.len());
        let (token, remaining) = self.0.split_at(end);
        self.0 = remaining;
        (!token.is_empty()).then_some(token)
    }

    fn value(&mut self) -> Option<String> {
        if !self.eat('"') {
            return Some(self.token().unwrap_or_default().to_owned());
        }
        let mut out = String::new();
        let mut chars = self.0.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.0 = self.0.get(at + 1..).unwrap_or_default();
                    return Some(out);
                }
                '\\' => out.push(chars.next()?.1),
                c => out.push(c),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::{Scheme, parse};
    use http::{HeaderMap, HeaderValue, header::WWW_AUTHENTICATE};

    #[test]
    fn challenges_are_read_with_quotes_escapes_and_garbage() {
        let mut headers = HeaderMap::new();
        for text in [
            "Basic realm=\"a\\\"b\"",
            "Negotiate",
            "Bearer realm=\"https://auth.example/token\",service=reg, scope=\"repository:a/b:pull,push\",error=\"x",
        ] {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_static(text));
        }
        let challenges = parse(&headers);
        assert_eq!(challenges.len(), 2);
        assert_eq!(challenges[0].scheme, Scheme::Bearer);
        assert_eq!(
            challenges[0].param("realm"),
            Some("https://auth.example/token")
        );
        assert_eq!(challenges[0].param("service"), Some("reg"));
        assert_eq!(
            challenges[0].param("scope"),
            Some("repository:a/b:pull,push")
        );
        assert_eq!(
            challenges[0].param("error"),
            None,
            "an unterminated value is no value"
        );
        assert_eq!(challenges[1].param("realm"), Some("a\"b"));
    }

    #[test]
    fn a_challenge_is_read_as_far_as_it_is_one() {
        type Params = &'static [(&'static str, &'static str)];
        let cases: [(&'static str, Option<Params>); 14] = [
            ("Bearer realm=\"r\"", Some(&[("realm", "r")])),
            ("bearer  realm = \"r\"", Some(&[])),
            (
                "BEARER REALM=r,Service=s",
                Some(&[("realm", "r"), ("service", "s")]),
            ),
            (
                "Bearer realm=\"a\" , service=\"b\"",
                Some(&[("realm", "a"), ("service", "b")]),
            ),
            ("Bearer realm=\"a\" service=\"b\"", Some(&[("realm", "a")])),
            ("Bearer realm=\"a\",realm=\"b\"", Some(&[("realm", "b")])),
            ("Bearer realm=\"\"", Some(&[])),
            (
                "Bearer realm=\"a\\\\b\\\"c\"",
                Some(&[("realm", "a\\b\"c")]),
            ),
            ("Bearer realm=\"a,b=c\"", Some(&[("realm", "a,b=c")])),
            ("Bearer ,realm=\"a\"", Some(&[])),
            ("Bearer", Some(&[])),
            ("   Bearer realm=x", Some(&[("realm", "x")])),
            ("Digest realm=\"r\"", None),
            ("", None),
        ];
        for (text, params) in cases {
            let mut headers = HeaderMap::new();
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_static(text));
            let challenges = parse(&headers);
            assert_eq!(challenges.len(), usize::from(params.is_some()), "{text}");
            for (challenge, params) in challenges.iter().zip(params) {
                for name in ["realm", "service", "scope", "error"] {
                    let value = params
                        .iter()
                        .find(|(own, _)| *own == name)
                        .map(|(_, value)| *value);
                    assert_eq!(challenge.param(name), value, "{text}: {name}");
                }
            }
        }
    }

    #[test]
    fn of_very_many_challenges_the_first_are_read() {
        let mut headers = HeaderMap::new();
        for _ in 0..1000 {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=x"));
        }
        headers.append(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=x"));
        let challenges = parse(&headers);
        assert_eq!(challenges.len(), 16);
        assert!(
            challenges
                .iter()
                .all(|challenge| challenge.scheme.name() == "basic")
        );
    }
}
