//! What the requests of a step were.

use std::collections::BTreeMap;

use parking_lot::Mutex;

/// How many requests of one step are recorded.
const MAX_REQUESTS: usize = 10_000;
/// Bytes of all their addresses together.
const MAX_BYTES: usize = 8 << 20;

/// A request that was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The method, such as `GET`.
    pub method: String,
    /// The requested URL, without credentials.
    pub url: String,
    /// Where the answer says to go, absolute; empty if it does not.
    pub redirect: String,
    /// The status that the step got; 0 if it got none.
    pub status: u16,
    /// Why it got none, or why it was refused; empty if there is nothing to say.
    pub note: String,
}

/// A request whose answer is a material of the step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Material {
    /// The requested URL, without credentials.
    pub url: String,
    /// SHA-256 of the body, in hexadecimal.
    pub sha256: String,
}

/// A request whose answer cannot be a material.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incomplete {
    /// The method, such as `GET`.
    pub method: String,
    /// The requested URL, without credentials.
    pub url: String,
    /// One of BuildKit's words, such as `method_not_materializable`; `too_many_requests` where the step made more than are told of.
    pub reason: &'static str,
}

#[derive(Debug, Default)]
struct State {
    requests: Vec<Request>,
    materials: Vec<Material>,
    incomplete: Vec<Incomplete>,
    bytes: usize,
    /// How many requests are not recorded because there were too many.
    left_out: u64,
}

/// What the requests of a step were. Bounded: of a step that makes more, the rest is counted.
#[derive(Debug, Default)]
pub struct Capture(Mutex<State>);

impl State {
    /// Whether there is room for something of this size.
    fn takes(&mut self, count: usize, bytes: usize) -> bool {
        let fits = count < MAX_REQUESTS && self.bytes + bytes <= MAX_BYTES;
        if fits {
            self.bytes += bytes;
        } else {
            self.left_out += 1;
        }
        fits
    }
}

impl Capture {
    pub(crate) fn request(&self, request: Request) {
        let mut state = self.0.lock();
        let bytes = request.url.len() + request.redirect.len() + request.note.len();
        let count = state.requests.len();
        if state.takes(count, bytes) {
            state.requests.push(request);
        }
    }

    pub(crate) fn material(&self, material: Material) {
        let mut state = self.0.lock();
        let count = state.materials.len();
        if state.takes(count, material.url.len()) {
            state.materials.push(material);
        }
    }

    pub(crate) fn incomplete(&self, incomplete: Incomplete) {
        let mut state = self.0.lock();
        let count = state.incomplete.len();
        if state.takes(count, incomplete.url.len()) {
            state.incomplete.push(incomplete);
        }
    }

    /// The requests in their order, and how many more there were.
    #[must_use]
    pub fn requests(&self) -> (Vec<Request>, u64) {
        let state = self.0.lock();
        let more = (state.left_out > 0).then_some(state.left_out);
        (state.requests.clone(), more.unwrap_or_default())
    }

    /// The materials. An address that led to another is one as well, with the same digest.
    #[must_use]
    pub fn materials(&self) -> Vec<Material> {
        let state = self.0.lock();
        let mut out = state.materials.clone();
        let mut digests: BTreeMap<&str, &str> = BTreeMap::new();
        // Who leads to an address.
        let mut sources: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for material in &state.materials {
            digests.insert(&material.url, &material.sha256);
        }
        for request in &state.requests {
            if !request.redirect.is_empty() && request.redirect != request.url {
                let from = sources.entry(&request.redirect).or_default();
                from.push(&request.url);
            }
        }
        let mut todo: Vec<&str> = digests.keys().copied().collect();
        while let Some(to) = todo.pop() {
            let Some(digest) = digests.get(to).copied() else {
                continue;
            };
            for from in sources.remove(to).unwrap_or_default() {
                if digests.contains_key(from) {
                    continue;
                }
                digests.insert(from, digest);
                out.push(Material {
                    url: from.to_owned(),
                    sha256: digest.to_owned(),
                });
                todo.push(from);
            }
        }
        out
    }

    /// The requests whose answers are no materials.
    #[must_use]
    pub fn incompletes(&self) -> Vec<Incomplete> {
        let state = self.0.lock();
        let mut out = state.incomplete.clone();
        if state.left_out > 0 {
            out.push(Incomplete {
                method: String::new(),
                url: String::new(),
                reason: "too_many_requests",
            });
        }
        out
    }

    /// What a step's log says of its requests; empty if it made none.
    #[must_use]
    pub fn log(&self) -> String {
        let (requests, more) = self.requests();
        if requests.is_empty() {
            return String::new();
        }
        let mut out = "proxy network requests:\n".to_owned();
        for request in &requests {
            out.push_str(&format!("- {} {}", request.method, request.url));
            if request.status != 0 {
                out.push_str(&format!(" -> {}", request.status));
            }
            if !request.note.is_empty() {
                out.push_str(&format!(" ({})", request.note));
            }
            out.push('\n');
        }
        if more > 0 {
            out.push_str(&format!("- and {more} more\n"));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(url: &str, redirect: &str, status: u16) -> Request {
        Request {
            method: "GET".into(),
            url: url.into(),
            redirect: redirect.into(),
            status,
            note: String::new(),
        }
    }

    #[test]
    fn addresses_that_led_to_a_material_are_materials_whatever_the_circle() {
        let capture = Capture::default();
        capture.request(request("http://a/", "http://b/", 302));
        capture.request(request("http://b/", "http://c/", 302));
        capture.request(request("http://c/", "http://a/", 200));
        capture.request(request("http://d/", "http://nowhere/", 302));
        capture.material(Material {
            url: "http://c/".into(),
            sha256: "00".into(),
        });
        let mut urls: Vec<_> = capture.materials().into_iter().map(|m| m.url).collect();
        urls.sort();
        assert_eq!(urls, ["http://a/", "http://b/", "http://c/"]);
    }

    #[test]
    fn the_log_has_a_line_for_each_request_and_none_without() {
        let capture = Capture::default();
        assert_eq!(capture.log(), "");
        capture.request(request("http://a/", "", 200));
        capture.request(Request {
            note: "the host is not in the allow-list of the proxy network".into(),
            ..request("http://b/", "", 403)
        });
        capture.request(request("http://c/", "", 0));
        assert_eq!(
            capture.log(),
            "proxy network requests:\n- GET http://a/ -> 200\n- GET http://b/ -> 403 (the host is not in the allow-list of the proxy network)\n- GET http://c/\n"
        );
    }

    #[test]
    fn a_step_that_makes_many_requests_costs_little_and_is_incomplete() {
        let capture = Capture::default();
        let long = format!("http://a/{}", "x".repeat(60_000));
        for _ in 0..1000 {
            capture.request(request(&long, "", 200));
        }
        let (requests, more) = capture.requests();
        assert_eq!(requests.len() as u64 + more, 1000);
        assert!(requests.len() * long.len() <= MAX_BYTES && more > 0);
        assert!(capture.log().ends_with(&format!("- and {more} more\n")));
        let reasons: Vec<_> = capture.incompletes().iter().map(|i| i.reason).collect();
        assert_eq!(reasons, ["too_many_requests"]);
    }
}
