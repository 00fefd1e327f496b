//! Spans of steps: the socket in their containers, and the environment that leads programs to it.
//!
//! Facts: `executor/oci/spec.go` and `util/tracing/childprocess` of BuildKit v0.34.2. None of it is part of a step's cache key.

use std::path::Path;

use executor::{ContainerSpec, Mount, MountSource};
use rustix::fs::{Mode, OFlags};
use solver::OpCtx;

use crate::BuildDomain;

/// Where containers have the socket.
const SOCKET_PLACE: &str = "/dev/otel-grpc.sock";
/// What OpenTelemetry's libraries read, unless the step sets it.
const ENVIRONMENT: [(&str, &str); 3] = [
    ("OTEL_TRACES_EXPORTER", "otlp"),
    (
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        "unix:///dev/otel-grpc.sock",
    ),
    ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc"),
];
const TRACE_PARENT: &str = "TRACEPARENT";

/// Shows the socket to a container of the step of `ctx`. Without the socket nothing is done: a program would wait for it in vain.
pub(crate) fn show_socket(spec: &mut ContainerSpec, socket: &Path, ctx: &OpCtx<BuildDomain>) {
    let jobs = ctx.job_values();
    let parent = jobs
        .iter()
        .find_map(|job| job.trace.as_ref())
        .map(|trace| trace.parent(&ctx.vertex.digest));
    show(spec, socket, parent);
}

/// As [`show_socket`], for containers of a frontend.
pub fn show(spec: &mut ContainerSpec, socket: &Path, parent: Option<String>) {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let place = match rustix::fs::open(socket, flags, Mode::empty()) {
        Ok(place) => place,
        Err(error) => {
            tracing::debug!(%error, socket = %socket.display(), "steps have no socket for their spans");
            return;
        }
    };
    let variables = ENVIRONMENT.map(|(name, value)| (name, value.to_owned()));
    let parent = parent.map(|parent| (TRACE_PARENT, parent));
    for (name, value) in variables.into_iter().chain(parent) {
        set_missing(&mut spec.process.env, name, &value);
    }
    spec.mounts.push(Mount {
        dest: SOCKET_PLACE.to_owned(),
        source: MountSource::Place(place),
        selector: String::new(),
        readonly: true,
    });
}

fn set_missing(env: &mut Vec<String>, name: &str, value: &str) {
    let is_same = |variable: &String| variable.split('=').next() == Some(name);
    if !env.iter().any(is_same) {
        env.push(format!("{name}={value}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_step_sets_itself_stays() {
        let mut env = vec![
            "PATH=/bin".to_owned(),
            "OTEL_TRACES_EXPORTER=none".to_owned(),
        ];
        for (name, value) in ENVIRONMENT {
            set_missing(&mut env, name, value);
        }
        assert_eq!(
            env,
            [
                "PATH=/bin",
                "OTEL_TRACES_EXPORTER=none",
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=unix:///dev/otel-grpc.sock",
                "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=grpc",
            ]
        );
    }
}
