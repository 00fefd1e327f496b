//! One batch to one collector.

use std::time::Duration;

use bytes::Bytes;
use metrics::Signal;
use oci::error::chain;
use prost::Message as _;
use proto::metrics::ExportMetricsServiceRequest;
use proto::trace::ExportTraceServiceRequest;
use services::metrics::metrics_service_client::MetricsServiceClient;
use services::trace::trace_service_client::TraceServiceClient;
use tonic::metadata::{Ascii, MetadataKey, MetadataMap, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig};
use tonic::{Code, Request, Status};

use super::Endpoint;

/// How OTLP is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// gRPC.
    Grpc,
    /// Messages as bodies of POST requests.
    HttpProtobuf,
}

/// Why a batch was not taken, or cannot be sent at all.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    #[error("{}", chain(.0))]
    Address(#[source] tonic::transport::Error),
    #[error("header {0:?} is malformed")]
    Header(String),
    #[error("{}", chain(.0))]
    Client(#[source] reqwest::Error),
    #[error("authorities: {}", chain(.0))]
    Authorities(#[source] reqwest::Error),
    #[error("{}: {}", .0.code(), .0.message())]
    Refused(#[source] Box<Status>),
    #[error("{}", chain(.0))]
    Transport(#[source] reqwest::Error),
    #[error("status {0}")]
    Status(u16),
    #[error("no answer within {} s", .0.as_secs())]
    Silent(Duration),
}

impl SendError {
    /// Whether another attempt may succeed (OTLP specification: retryable codes).
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Refused(status) => matches!(
                status.code(),
                Code::Cancelled
                    | Code::DeadlineExceeded
                    | Code::Aborted
                    | Code::OutOfRange
                    | Code::Unavailable
                    | Code::DataLoss
                    | Code::ResourceExhausted
            ),
            Self::Status(status) => matches!(status, 429 | 502 | 503 | 504),
            Self::Transport(_) | Self::Silent(_) => true,
            Self::Address(_) | Self::Header(_) | Self::Client(_) | Self::Authorities(_) => false,
        }
    }
}

/// Sends to one collector.
pub(super) struct Sender {
    transport: Transport,
    timeout: Duration,
}

enum Transport {
    Grpc(Channel, MetadataMap),
    Http(reqwest::Client, String, Vec<(String, String)>),
}

impl Sender {
    /// Connects when something is sent for the first time.
    pub(super) fn new(endpoint: &Endpoint) -> Result<Self, SendError> {
        let transport = match endpoint.protocol {
            Protocol::Grpc => grpc(endpoint)?,
            Protocol::HttpProtobuf => {
                let mut client =
                    reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
                if let Some(pem) = &endpoint.authorities {
                    for authority in reqwest::Certificate::from_pem_bundle(pem)
                        .map_err(SendError::Authorities)?
                    {
                        client = client.add_root_certificate(authority);
                    }
                }
                let client = client.build().map_err(SendError::Client)?;
                Transport::Http(client, endpoint.url.clone(), endpoint.headers.clone())
            }
        };
        Ok(Self {
            transport,
            timeout: endpoint.timeout,
        })
    }

    /// Sends one batch: encoded messages of the signal's resources.
    pub(super) async fn send(&self, signal: Signal, batch: &[Bytes]) -> Result<(), SendError> {
        let sent = self.attempt(signal, batch);
        let done = tokio::time::timeout(self.timeout, sent).await;
        done.unwrap_or(Err(SendError::Silent(self.timeout)))
    }

    async fn attempt(&self, signal: Signal, batch: &[Bytes]) -> Result<(), SendError> {
        let parts = || batch.iter().map(|part| part.to_vec()).collect();
        match &self.transport {
            Transport::Grpc(channel, metadata) => {
                let refused = |status: Status| SendError::Refused(Box::new(status));
                match signal {
                    Signal::Traces => {
                        let mut request = Request::new(ExportTraceServiceRequest {
                            resource_spans: parts(),
                        });
                        *request.metadata_mut() = metadata.clone();
                        let mut client = TraceServiceClient::new(channel.clone());
                        client.export(request).await.map_err(refused)?;
                    }
                    Signal::Metrics => {
                        let mut request = Request::new(ExportMetricsServiceRequest {
                            resource_metrics: parts(),
                        });
                        *request.metadata_mut() = metadata.clone();
                        let mut client = MetricsServiceClient::new(channel.clone());
                        client.export(request).await.map_err(refused)?;
                    }
                }
                Ok(())
            }
            Transport::Http(client, url, headers) => {
                let body = match signal {
                    Signal::Traces => ExportTraceServiceRequest {
                        resource_spans: parts(),
                    }
                    .encode_to_vec(),
                    Signal::Metrics => ExportMetricsServiceRequest {
                        resource_metrics: parts(),
                    }
                    .encode_to_vec(),
                };
                let mut request = client
                    .post(url)
                    .header("content-type", "application/x-protobuf")
                    .body(body);
                for (name, value) in headers {
                    request = request.header(name, value);
                }
                let answer = request.send().await;
                let status = answer.map_err(SendError::Transport)?.status();
                if status.is_success() {
                    Ok(())
                } else {
                    Err(SendError::Status(status.as_u16()))
                }
            }
        }
    }
}

fn grpc(endpoint: &Endpoint) -> Result<Transport, SendError> {
    let mut channel = Channel::from_shared(endpoint.url.clone().into_bytes())
        .map_err(|_| SendError::Header(endpoint.url.clone()))?
        .connect_timeout(endpoint.timeout);
    if endpoint.url.starts_with("https://") {
        let mut tls = ClientTlsConfig::new();
        if let Some(pem) = &endpoint.authorities {
            tls = tls.ca_certificate(Certificate::from_pem(pem));
        }
        channel = channel.tls_config(tls).map_err(SendError::Address)?;
    }
    let mut metadata = MetadataMap::new();
    for (name, value) in &endpoint.headers {
        let malformed = || SendError::Header(name.clone());
        let key: MetadataKey<Ascii> = name.parse().map_err(|_| malformed())?;
        let value: MetadataValue<Ascii> = value.parse().map_err(|_| malformed())?;
        metadata.insert(key, value);
    }
    Ok(Transport::Grpc(channel.connect_lazy(), metadata))
}
