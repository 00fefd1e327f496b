//! `Control.Session`: a client connects and can be asked for things until it leaves.

use std::collections::HashSet;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use proto::control::BytesMessage;
use proto::health::HealthCheckRequest;
use services::health::health_client::HealthClient;
use session::{SessionManager, header};
use task::Task;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{Response, Status, Streaming};
use tracing::Instrument as _;

use crate::remote::RemoteSession;
use crate::tunnel::{self, Outgoing};

/// Bytes of a session's id.
const MAX_ID_BYTES: usize = 256;
/// Methods of its client that a session may list; further ones are ignored.
const MAX_METHODS: usize = 256;

/// How often the client of a session is asked whether it answers, and when it is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Health {
    interval: Duration,
    timeout: Duration,
    failures: u32,
}

impl Health {
    fn of(metadata: &MetadataMap) -> Self {
        let custom = metadata
            .get(header::SESSION_HEALTH_TIMEOUT)
            .and_then(|v| v.to_str().ok())
            .and_then(|v| v.parse::<u64>().ok());
        match custom {
            Some(ms) if ms > 0 => {
                let each = Duration::from_millis(ms).max(Duration::from_secs(1));
                Self {
                    interval: each,
                    timeout: each,
                    failures: 1,
                }
            }
            _ => Self {
                interval: Duration::from_secs(5),
                timeout: Duration::from_secs(15),
                failures: 2,
            },
        }
    }
}

/// What a client says about itself when it connects.
struct SessionHello {
    id: String,
    shared_key: String,
    methods: HashSet<String>,
    health: Health,
}

impl SessionHello {
    fn of(metadata: &MetadataMap) -> Result<Self, Status> {
        let text = |key: &str| {
            metadata
                .get(key)
                .and_then(|v| v.to_str().ok())
                .unwrap_or_default()
        };
        let id = text(header::SESSION_ID).to_owned();
        if id.is_empty() || id.len() > MAX_ID_BYTES {
            return Err(Status::invalid_argument(
                "session id is missing or too long",
            ));
        }
        let encoded = gostd::strconv::is_true(text(header::SESSION_SHARED_KEY_ENCODED));
        let shared_key = header::decode(text(header::SESSION_SHARED_KEY), encoded);
        let listed = metadata.get_all(header::SESSION_METHOD);
        let methods = listed
            .iter()
            .filter_map(|v| v.to_str().ok())
            .take(MAX_METHODS)
            .map(str::to_ascii_lowercase)
            .collect();
        Ok(Self {
            id,
            shared_key,
            methods,
            health: Health::of(metadata),
        })
    }
}

/// The answer to a client; dropping it ends the session.
#[derive(Debug)]
pub(crate) struct SessionStream {
    outgoing: Outgoing,
    _task: Task<()>,
}

impl Stream for SessionStream {
    type Item = Result<BytesMessage, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.outgoing.poll_recv(cx)
    }
}

/// Starts a session. Returns at once: bytes flow only after the answer has begun.
pub(crate) fn start(
    sessions: Arc<SessionManager>,
    metadata: &MetadataMap,
    incoming: Streaming<BytesMessage>,
) -> Result<Response<SessionStream>, Status> {
    let hello = SessionHello::of(metadata)?;
    if sessions.get(&hello.id).is_some() {
        return Err(Status::unknown(format!(
            "session {} already exists",
            hello.id
        )));
    }
    let (tunnel, cut, mut alive, outgoing, farewell) = tunnel::open(incoming);
    // Every line about the session says which one it is.
    let span = tracing::info_span!("session", id = %hello.id);
    let serving = async move {
        let channel = match tunnel::connect(tunnel).await {
            Ok(channel) => channel,
            Err(error) => {
                let _gone = farewell
                    .send(Err(Status::unknown(format!(
                        "failed to create grpc client: {}",
                        oci::error::chain(&error)
                    ))))
                    .await;
                return;
            }
        };
        let remote = RemoteSession::new(
            hello.id.into(),
            hello.shared_key,
            hello.methods,
            channel.clone(),
            alive.clone(),
        );
        let registration = match sessions.register(Arc::new(remote)) {
            Ok(registration) => registration,
            Err(error) => {
                let _gone = farewell.send(Err(Status::unknown(error.to_string()))).await;
                return;
            }
        };
        tracing::debug!("session started");
        tokio::select! {
            () = watch_health(channel, hello.health) => {
                tracing::warn!("session healthcheck failed fatally");
                // Who waits for an answer must not wait forever.
                let _gone = cut.send(());
            }
            () = async { while alive.changed().await.is_ok() {} } => {}
        }
        drop(registration);
        tracing::debug!("session finished");
    };
    let task = task::spawn("session", serving.instrument(span));
    Ok(Response::new(SessionStream {
        outgoing,
        _task: task,
    }))
}

// Returns when the client has not answered often enough. A slow answer makes the next wait longer: a link that is busy with a
// context is no dead client.
async fn watch_health(channel: Channel, health: Health) {
    let mut client = HealthClient::new(channel);
    let mut failures = 0;
    let mut last = Duration::ZERO;
    loop {
        task::clock::sleep(health.interval).await;
        let started = tokio::time::Instant::now();
        let timeout = health.timeout.max(last.mul_f64(1.5));
        let answer =
            tokio::time::timeout(timeout, client.check(HealthCheckRequest::default())).await;
        last = started.elapsed();
        if matches!(answer, Ok(Ok(_))) {
            failures = 0;
            continue;
        }
        failures += 1;
        if failures >= health.failures {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(pairs: &[(&'static str, &str)]) -> MetadataMap {
        let mut metadata = MetadataMap::new();
        for (key, value) in pairs {
            metadata.append(*key, value.parse().unwrap());
        }
        metadata
    }

    #[test]
    fn a_client_chooses_how_long_it_may_be_silent_but_not_less_than_a_second() {
        let seconds = Duration::from_secs;
        let standard = (seconds(5), seconds(15), 2);
        for (text, want) in [
            ("", standard),
            ("0", standard),
            ("-5", standard),
            ("soon", standard),
            ("99999999999999999999", standard),
            ("1", (seconds(1), seconds(1), 1)),
            ("2500", {
                let each = Duration::from_millis(2500);
                (each, each, 1)
            }),
        ] {
            let health = Health::of(&metadata(&[(header::SESSION_HEALTH_TIMEOUT, text)]));
            let settings = (health.interval, health.timeout, health.failures);
            assert_eq!(settings, want, "{text:?}");
        }
    }

    #[test]
    fn what_a_client_says_of_itself_is_bounded() {
        for id in [String::new(), "x".repeat(MAX_ID_BYTES + 1)] {
            let refused = SessionHello::of(&metadata(&[(header::SESSION_ID, &id)])).err();
            assert_eq!(refused.unwrap().code(), tonic::Code::InvalidArgument);
        }
        let mut client = metadata(&[
            (header::SESSION_ID, "s"),
            (header::SESSION_SHARED_KEY, "%C3%BC"),
            (header::SESSION_SHARED_KEY_ENCODED, "1"),
        ]);
        for number in 0..2 * MAX_METHODS {
            let method = format!("/Package.Service/Method{number}");
            client.append(header::SESSION_METHOD, method.parse().unwrap());
        }
        let hello = SessionHello::of(&client).unwrap();
        assert_eq!(
            (hello.id.as_str(), hello.shared_key.as_str()),
            ("s", "\u{fc}")
        );
        assert_eq!(hello.methods.len(), MAX_METHODS);
        assert!(hello.methods.contains("/package.service/method0"));
    }
}
