//! Remotes that have moved on their own host.
//!
//! git sends a token wherever a redirect leads, so it follows none while it has one. Hosts do redirect honest people: renamed
//! repositories, addresses without `.git`, http to https. So the redirect that git refused is looked at here: on the same host
//! the remote is taken to be where it points, elsewhere it is an error.

use reqwest::Url;
use reqwest::header::{AUTHORIZATION, HeaderValue, LOCATION};

use crate::error::{Cause, SourceError, cause};
use crate::git::auth::Auth;

pub(super) const MAX_REDIRECTS: usize = 5;

/// What git asks a remote for first, below its address (gitprotocol-http(5)).
const REFS_PATH: &str = "/info/refs";

/// What was being done when a redirect could not be followed.
#[derive(Debug, thiserror::Error)]
#[error("{doing}: {}", oci::error::chain(source.as_ref()))]
struct RedirectError {
    doing: String,
    source: Cause,
}

/// A host that did not answer.
#[derive(Debug, thiserror::Error)]
#[error("{host}: {source}")]
struct HostError {
    host: String,
    source: registry::ConnectionError,
}

/// Whether git says that it was redirected and did not follow.
pub(super) fn is_told_by(stderr: &str) -> bool {
    ["301", "302", "303", "307", "308"]
        .iter()
        .any(|code| stderr.contains(&format!("The requested URL returned error: {code}")))
}

/// Asks where the remote has gone, and has `auth` know it if that is on the same host.
pub(super) async fn follow(auth: &Auth, doing: &str) -> Result<(), SourceError> {
    let failed = |source: Cause| SourceError::GitAnswer {
        source: cause(RedirectError {
            doing: doing.to_owned(),
            source,
        }),
    };
    let current = auth.current();
    let address = format!(
        "{}{REFS_PATH}?service=git-upload-pack",
        current.trim_end_matches('/')
    );
    let requested = Url::parse(&address).map_err(|e| failed(cause(e)))?;
    let is_here = requested.host_str().is_some_and(|host| {
        let bare = host.trim_matches(['[', ']']);
        host == "localhost"
            || bare
                .parse::<std::net::IpAddr>()
                .is_ok_and(|ip| ip.is_loopback())
    });
    let mut client = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .user_agent("git/rbuild")
        .timeout(registry::ANSWER_TIMEOUT);
    if is_here {
        client = client.no_proxy();
    }
    let client = client
        .build()
        .map_err(|e| failed(cause(registry::ConnectionError::from(e))))?;
    let mut request = client.get(requested.clone());
    if let Some(header) = auth.header() {
        let mut header = HeaderValue::from_str(header.trim())
            // What is wrong with a secret is not said.
            .map_err(|_| failed(cause("the secret is not a valid header value")))?;
        header.set_sensitive(true);
        request = request.header(AUTHORIZATION, header);
    }
    let response = request.send().await.map_err(|e| {
        failed(cause(HostError {
            host: auth.host().to_owned(),
            source: registry::ConnectionError::from(e),
        }))
    })?;
    let location = response
        .headers()
        .get(LOCATION)
        .and_then(|v| v.to_str().ok())
        .filter(|_| response.status().is_redirection())
        .ok_or_else(|| failed(cause(format!("{} redirects to nowhere", auth.host()))))?;
    let moved = moved(&requested, location).map_err(|error| failed(cause(error)))?;
    auth.move_to(moved);
    Ok(())
}

/// The remote that a redirect names, if it is on the same host and no less protected.
fn moved(requested: &Url, location: &str) -> Result<String, String> {
    let to = requested
        .join(location)
        .map_err(|e| format!("redirect cannot be read: {e}"))?;
    let same_port = to.port_or_known_default() == requested.port_or_known_default();
    let is_upgrade = requested.scheme() == "http"
        && to.scheme() == "https"
        && requested.port().is_none()
        && to.port().is_none();
    let is_same = to.host_str() == requested.host_str()
        && ((to.scheme() == requested.scheme() && same_port) || is_upgrade);
    let (from_host, to_host) = (
        requested.origin().ascii_serialization(),
        to.origin().ascii_serialization(),
    );
    if !is_same {
        return Err(format!(
            "{from_host} redirects to {to_host}, and the credentials are for {from_host} only; name the repository by its new address"
        ));
    }
    let path = to
        .path()
        .strip_suffix(REFS_PATH)
        .ok_or_else(|| format!("{from_host} redirects to what is no repository"))?;
    Ok(format!("{to_host}{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_is_followed_with_a_token_only_on_the_same_host() {
        for (from, to, want) in [
            (
                "https://h/a",
                "https://h/a.git/info/refs?service=x",
                Some("https://h/a.git"),
            ),
            (
                "https://h/a",
                "/b.git/info/refs?service=x",
                Some("https://h/b.git"),
            ),
            ("http://h/a", "https://h/a/info/refs", Some("https://h/a")),
            (
                "https://h:8443/a",
                "https://h:8443/b/info/refs",
                Some("https://h:8443/b"),
            ),
            ("https://h/a", "https://evil.example/a/info/refs", None),
            ("https://h/a", "//evil.example/a/info/refs", None),
            ("https://h/a", "https://h.evil.example/a/info/refs", None),
            ("https://h/a", "https://h@evil.example/a/info/refs", None),
            ("https://h/a", "https://h:444/a/info/refs", None),
            ("https://h/a", "http://h/a/info/refs", None),
            ("http://h:80/a", "https://h:444/a/info/refs", None),
            ("https://h/a", "ssh://h/a/info/refs", None),
            ("https://h/a", "file:///etc/info/refs", None),
            ("https://h/a", "https://h/login", None),
        ] {
            let requested =
                Url::parse(&format!("{from}/info/refs?service=git-upload-pack")).unwrap();
            assert_eq!(moved(&requested, to).ok().as_deref(), want, "{from} {to}");
        }
    }
}
