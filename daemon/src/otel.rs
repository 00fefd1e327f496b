//! Where spans and metrics are sent: OpenTelemetry's variables of the environment, read as BuildKit reads them.
//!
//! | variable | meaning |
//! |---|---|
//! | `OTEL_TRACES_EXPORTER`, `OTEL_METRICS_EXPORTER` | `otlp`, or `none`; without, `otlp` where an endpoint is named |
//! | `OTEL_EXPORTER_OTLP_ENDPOINT`, `…_TRACES_ENDPOINT`, `…_METRICS_ENDPOINT` | the collector: by default port 4317 of this machine for gRPC, 4318 for HTTP |
//! | `OTEL_EXPORTER_OTLP_PROTOCOL`, `…_TRACES_PROTOCOL`, `…_METRICS_PROTOCOL` | `grpc` (default) or `http/protobuf` |
//! | `OTEL_EXPORTER_OTLP_HEADERS`, … | `name=value,…` |
//! | `OTEL_EXPORTER_OTLP_TIMEOUT`, … | milliseconds (default 10,000) |
//! | `OTEL_EXPORTER_OTLP_CERTIFICATE`, … | file of authorities of the collector's certificate |
//! | `OTEL_EXPORTER_OTLP_INSECURE`, … | whether an endpoint without a scheme is spoken to without TLS |
//! | `OTEL_METRIC_EXPORT_INTERVAL` | milliseconds (default 60,000) |
//! | `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES` | who tells it |
//! | `OTEL_IGNORE_ERROR` | whether a daemon starts although these make no sense |
//!
//! Facts followed: `util/tracing/detect/otlp.go`, `detect.go`, `resource.go` (v0.34.2), and OpenTelemetry's specification of the exporters.

use std::time::Duration;

use control::{Endpoint, OtlpConfig, Protocol};

/// How long one request may take unless the environment says otherwise.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// How often metrics are sent unless the environment says otherwise.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(60);
/// Where Debian, Alpine and others keep the authorities that the machine trusts.
const SYSTEM_AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Why the variables of OpenTelemetry cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OtelError {
    /// The environment names an exporter that is not `otlp` or `none`.
    #[error("unsupported opentelemetry exporter {value} ({variable}): use otlp or none")]
    Exporter {
        /// The variable that names it.
        variable: String,
        /// Its value.
        value: String,
    },
    /// The environment names a protocol that is not `grpc` or `http/protobuf`.
    #[error("unsupported otlp protocol {value}: use grpc or http/protobuf")]
    Protocol {
        /// The value of the variable.
        value: String,
    },
    /// A variable of milliseconds is not a positive number.
    #[error("{variable} is not a number of milliseconds: {value:?}")]
    Number {
        /// The variable.
        variable: String,
        /// Its value.
        value: String,
    },
    /// The file of authorities cannot be read.
    #[error("cannot read the authorities of {variable}: {source}")]
    Authorities {
        /// The variable that names the file.
        variable: String,
        /// Why it cannot be read.
        source: std::io::Error,
    },
}

impl OtelError {
    /// What kind of error it is.
    #[must_use]
    pub fn kind(&self) -> oci::ErrorKind {
        match self {
            Self::Authorities { source, .. } => oci::ErrorKind::of_io(source),
            Self::Exporter { .. } | Self::Protocol { .. } | Self::Number { .. } => {
                oci::ErrorKind::Invalid
            }
        }
    }
}

/// Where spans and metrics are sent; `None` if the environment names no collector. `program` is the name of the service unless there is another.
pub(crate) fn config(
    program: &str,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<OtlpConfig>, OtelError> {
    let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
    let traces = endpoint("TRACES", "v1/traces", &variable);
    let metrics = endpoint("METRICS", "v1/metrics", &variable);
    let is_ignored = variable("OTEL_IGNORE_ERROR").is_some_and(|v| gostd::strconv::is_true(&v));
    let unless_ignored = |result: Result<Option<Endpoint>, OtelError>| match result {
        Err(error) if is_ignored => {
            tracing::warn!(%error, "telemetry is not sent");
            Ok(None)
        }
        result => result,
    };
    let (traces, metrics) = (unless_ignored(traces)?, unless_ignored(metrics)?);
    if traces.is_none() && metrics.is_none() {
        return Ok(None);
    }
    let interval = millis("OTEL_METRIC_EXPORT_INTERVAL", &variable)?;
    Ok(Some(OtlpConfig {
        traces,
        metrics,
        resource: resource(program, &variable),
        metric_interval: interval.unwrap_or(DEFAULT_INTERVAL),
    }))
}

/// Reads the environment of this process as [`config`] does.
pub fn from_environment(program: &str) -> Result<Option<OtlpConfig>, OtelError> {
    #[expect(
        clippy::disallowed_methods,
        reason = "OpenTelemetry is configured by the environment"
    )]
    let variable = |name: &str| std::env::var(name).ok();
    config(program, &variable)
}

type Variable<'a> = &'a dyn Fn(&str) -> Option<String>;

fn endpoint(
    signal: &str,
    path: &str,
    variable: Variable<'_>,
) -> Result<Option<Endpoint>, OtelError> {
    let name = format!("OTEL_{signal}_EXPORTER");
    let of_signal = |suffix: &str| format!("OTEL_EXPORTER_OTLP_{signal}_{suffix}");
    let general = |suffix: &str| format!("OTEL_EXPORTER_OTLP_{suffix}");
    let either = |suffix: &str| variable(&of_signal(suffix)).or_else(|| variable(&general(suffix)));
    let is_named = either("ENDPOINT").is_some();
    match variable(&name).as_deref() {
        Some("otlp") => {}
        None if is_named => {}
        None | Some("none") => return Ok(None),
        Some(value) => {
            return Err(OtelError::Exporter {
                variable: name,
                value: value.into(),
            });
        }
    }
    let protocol = match either("PROTOCOL").as_deref() {
        None | Some("grpc") => Protocol::Grpc,
        Some("http/protobuf") => Protocol::HttpProtobuf,
        Some(value) => {
            return Err(OtelError::Protocol {
                value: value.into(),
            });
        }
    };
    let is_insecure = either("INSECURE").is_some_and(|v| gostd::strconv::is_true(&v));
    let with_scheme = |address: String| match address.split_once("://") {
        Some(_) => address,
        None if is_insecure => format!("http://{address}"),
        None => format!("https://{address}"),
    };
    let url = match protocol {
        // gRPC has no use for a path in the endpoint.
        Protocol::Grpc => {
            either("ENDPOINT").map_or_else(|| "http://localhost:4317".to_owned(), with_scheme)
        }
        Protocol::HttpProtobuf => {
            match (
                variable(&of_signal("ENDPOINT")),
                variable(&general("ENDPOINT")),
            ) {
                (Some(whole), _) => whole,
                (None, Some(base)) => format!("{}/{path}", base.trim_end_matches('/')),
                (None, None) => format!("http://localhost:4318/{path}"),
            }
        }
    };
    let authorities = match (
        variable(&of_signal("CERTIFICATE")),
        variable(&general("CERTIFICATE")),
    ) {
        (Some(file), _) | (None, Some(file)) => {
            let pem = std::fs::read(&file);
            Some(pem.map_err(|source| OtelError::Authorities {
                variable: general("CERTIFICATE"),
                source,
            })?)
        }
        (None, None) if protocol == Protocol::Grpc && url.starts_with("https://") => {
            std::fs::read(SYSTEM_AUTHORITIES).ok()
        }
        (None, None) => None,
    };
    let timeout = match millis(&of_signal("TIMEOUT"), variable)? {
        Some(timeout) => Some(timeout),
        None => millis(&general("TIMEOUT"), variable)?,
    };
    Ok(Some(Endpoint {
        protocol,
        url,
        headers: pairs(&either("HEADERS").unwrap_or_default()),
        timeout: timeout.unwrap_or(DEFAULT_TIMEOUT),
        authorities,
    }))
}

fn millis(name: &str, variable: Variable<'_>) -> Result<Option<Duration>, OtelError> {
    let Some(value) = variable(name) else {
        return Ok(None);
    };
    match value.parse() {
        Ok(millis) if millis > 0 => Ok(Some(Duration::from_millis(millis))),
        Ok(_) | Err(_) => Err(OtelError::Number {
            variable: name.into(),
            value,
        }),
    }
}

/// `name=value,…`; what has no `=` is left out.
fn pairs(text: &str) -> Vec<(String, String)> {
    let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
    pairs
        .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
        .filter(|(name, _)| !name.is_empty())
        .collect()
}

fn resource(program: &str, variable: Variable<'_>) -> Vec<(String, String)> {
    let mut attributes = pairs(&variable("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default());
    if let Some(name) = variable("OTEL_SERVICE_NAME") {
        attributes.retain(|(key, _)| key != "service.name");
        attributes.push(("service.name".into(), name));
    } else if attributes.iter().all(|(key, _)| key != "service.name") {
        attributes.push(("service.name".into(), program.to_owned()));
    }
    for (key, value) in [
        ("telemetry.sdk.name", "rbuild"),
        ("telemetry.sdk.language", "rust"),
        ("telemetry.sdk.version", env!("CARGO_PKG_VERSION")),
    ] {
        attributes.push((key.into(), value.into()));
    }
    attributes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Option<OtlpConfig>, String> {
        let look = |name: &str| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        config("rbuildd", &look).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_sent_where_is_what_the_variables_say() {
        let http = ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf");
        let base = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:1/base/");
        let traces = ("OTEL_TRACES_EXPORTER", "otlp");
        for (variables, traced, measured) in [
            (&[][..], None, None),
            (&[("OTEL_EXPORTER_OTLP_ENDPOINT", "")], None, None),
            (&[traces], Some("http://localhost:4317"), None),
            (
                &[traces, http],
                Some("http://localhost:4318/v1/traces"),
                None,
            ),
            (
                &[base, http],
                Some("http://c:1/base/v1/traces"),
                Some("http://c:1/base/v1/metrics"),
            ),
            (
                &[base, ("OTEL_METRICS_EXPORTER", "none")],
                Some("http://c:1/base/"),
                None,
            ),
            (
                &[http, ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://m/x")],
                None,
                Some("http://m/x"),
            ),
            (
                &[
                    ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "c:4317"),
                    ("OTEL_EXPORTER_OTLP_TRACES_INSECURE", "true"),
                ],
                Some("http://c:4317"),
                None,
            ),
            (
                &[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "c:4317")],
                Some("https://c:4317"),
                None,
            ),
        ] {
            let config = read(variables).unwrap();
            let url = |endpoint: Option<&Endpoint>| endpoint.map(|e| e.url.clone());
            let traces = url(config.as_ref().and_then(|c| c.traces.as_ref()));
            let metrics = url(config.as_ref().and_then(|c| c.metrics.as_ref()));
            assert_eq!(traces.as_deref(), traced, "{variables:?}");
            assert_eq!(metrics.as_deref(), measured, "{variables:?}");
        }
    }

    #[test]
    fn headers_times_and_names_are_read_and_mistakes_are_named_unless_they_are_to_be_ignored() {
        let base = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:1");
        let config = read(&[
            base,
            ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=k, x = y ,broken"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "1500"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "250"),
            ("OTEL_RESOURCE_ATTRIBUTES", "service.name=a,team=b"),
            ("OTEL_SERVICE_NAME", "builder"),
        ]);
        let config = config.unwrap().unwrap();
        let pair = |k: &str, v: &str| (k.to_owned(), v.to_owned());
        let traces = config.traces.unwrap();
        assert_eq!(traces.headers, [pair("api-key", "k"), pair("x", "y")]);
        assert_eq!(traces.timeout, Duration::from_millis(1500));
        assert_eq!(config.metric_interval, Duration::from_millis(250));
        let named = [pair("team", "b"), pair("service.name", "builder")];
        assert_eq!(config.resource[..2], named);
        let plain = read(&[base]).unwrap().unwrap();
        assert_eq!(plain.resource[0], pair("service.name", "rbuildd"));
        for (variables, sentence) in [
            (
                [base, ("OTEL_TRACES_EXPORTER", "jaeger")],
                "unsupported opentelemetry exporter jaeger (OTEL_TRACES_EXPORTER): use otlp or none",
            ),
            (
                [base, ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")],
                "unsupported otlp protocol http/json: use grpc or http/protobuf",
            ),
            (
                [base, ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s")],
                "OTEL_EXPORTER_OTLP_TIMEOUT is not a number of milliseconds: \"10s\"",
            ),
        ] {
            assert_eq!(read(&variables).unwrap_err(), sentence);
            let [first, second] = variables;
            let ignored = read(&[first, second, ("OTEL_IGNORE_ERROR", "1")]).unwrap();
            assert!(ignored.is_none_or(|c| c.traces.is_none()), "{sentence}");
        }
    }
}
