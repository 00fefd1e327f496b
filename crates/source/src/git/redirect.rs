//! Remotes that were renamed on their own host.
//!
//! git sends a token wherever a redirect leads, so it follows none while it has one. Hosts redirect for honest reasons: renamed
//! repositories, addresses without `.git`, http to https. So the redirect that git refused is looked at here: on the same host
//! the remote is taken to be where it points, elsewhere it is an error.

use reqwest::Url;
use reqwest::header::{AUTHORIZATION, HeaderValue, LOCATION};

use crate::error::{Cause, SourceError, cause};
use crate::git::auth::GitAuth;

pub(super) const MAX_REDIRECTS: usize = 5;

/// What git asks a remote for first, below its address (gitprotocol-http(5)).
const REFS_PATH: &str = "/info/refs";

/// A redirect that is not followed, with the operation that met it.
#[derive(Debug, thiserror::Error)]
#[error("{doing}: {}", oci::error::chain(source.as_ref()))]
struct RedirectError {
    doing: String,
    source: Cause,
}

/// Why a redirect is not followed.
#[derive(Debug, thiserror::Error)]
enum RedirectRefusal {
    #[error("redirect cannot be read: {0}")]
    Malformed(#[source] <Url as std::str::FromStr>::Err),
    #[error(
        "{from} redirects to {to}, and the credentials are for {from} only; name the repository by its new address"
    )]
    OtherHost { from: String, to: String },
    #[error("{from} redirects to what is no repository")]
    NoRepository { from: String },
    #[error("{host} redirects to nowhere")]
    NoLocation { host: String },
    /// The secret itself is not shown.
    #[error("the secret is not a valid header value")]
    SecretNotHeader,
}

/// A host that did not answer.
#[derive(Debug, thiserror::Error)]
#[error("{host}: {source}")]
struct HostError {
    host: String,
    source: registry::ConnectionError,
}

/// Whether git says that it was redirected and did not follow.
pub(super) fn is_refused_in(stderr: &str) -> bool {
    ["301", "302", "303", "307", "308"]
        .iter()
        .any(|code| stderr.contains(&format!("The requested URL returned error: {code}")))
}

/// Requests the remote, and tells `auth` its new address if the redirect stays on the same host.
pub(super) async fn follow(auth: &GitAuth, doing: &str) -> Result<(), SourceError> {
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
    let is_loopback = requested.host_str().is_some_and(|host| {
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
    if is_loopback {
        client = client.no_proxy();
    }
    let client = client
        .build()
        .map_err(|e| failed(cause(registry::ConnectionError::from(e))))?;
    let mut request = client.get(requested.clone());
    if let Some(header) = auth.header() {
        let mut header = HeaderValue::from_str(header.trim())
            .map_err(|_| failed(cause(RedirectRefusal::SecretNotHeader)))?;
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
        .ok_or_else(|| {
            let host = auth.host().to_owned();
            failed(cause(RedirectRefusal::NoLocation { host }))
        })?;
    let address = redirected_remote(&requested, location).map_err(|error| failed(cause(error)))?;
    auth.move_to(address);
    Ok(())
}

/// The remote that a redirect names, if it is on the same host and no less protected.
fn redirected_remote(requested: &Url, location: &str) -> Result<String, RedirectRefusal> {
    let to = requested
        .join(location)
        .map_err(RedirectRefusal::Malformed)?;
    let same_port = to.port_or_known_default() == requested.port_or_known_default();
    let is_upgrade = requested.scheme() == "http"
        && to.scheme() == "https"
        && requested.port().is_none()
        && to.port().is_none();
    let is_same = to.host_str() == requested.host_str()
        && ((to.scheme() == requested.scheme() && same_port) || is_upgrade);
    let (from, target) = (
        requested.origin().ascii_serialization(),
        to.origin().ascii_serialization(),
    );
    if !is_same {
        return Err(RedirectRefusal::OtherHost { from, to: target });
    }
    match to.path().strip_suffix(REFS_PATH) {
        Some(path) => Ok(format!("{target}{path}")),
        None => Err(RedirectRefusal::NoRepository { from }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_is_followed_with_a_token_only_on_the_same_host() {
        for (from, to, remote) in [
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
            assert_eq!(
                redirected_remote(&requested, to).ok().as_deref(),
                remote,
                "{from} {to}"
            );
        }
    }
}
