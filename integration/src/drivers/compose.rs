//! `docker compose` on a builder of ours.

use std::fs;
use std::path::Path;

use super::{BUILDER, Docker, Trouble, ensure};
use crate::process::{at, output};

/// Two services of one Dockerfile; the second is built with an argument and has a context beside its own.
const COMPOSE: &str = "\
services:
  one:
    image: composed:one
    network_mode: host
    build:
      context: .
  two:
    image: composed:two
    network_mode: host
    build:
      context: .
      dockerfile_inline: |
        FROM composed
        COPY --from=more more /more
        ARG TEXT
        RUN echo $$TEXT > /greeting
      args:
        TEXT: composed
      additional_contexts:
        composed: service:one
        more: ./more
";

/// Builds both services and starts one.
pub(super) fn run(docker: &Docker, project: &Path) -> Result<(), Trouble> {
    for (name, text) in [("compose.yaml", COMPOSE), ("more/more", "more\n")] {
        let file = project.join(name);
        let dir = file.parent().unwrap_or(project);
        fs::create_dir_all(dir).map_err(at("making", dir))?;
        fs::write(&file, text).map_err(at("writing", &file))?;
    }
    let compose = |arguments: &[&str]| {
        output(
            docker
                .command("docker", &["compose"])
                .args(arguments)
                .current_dir(project)
                .env("BUILDX_BUILDER", BUILDER),
        )
    };
    compose(&["build"])?;
    let images = docker.run(
        "docker",
        &["images", "--format", "{{.Repository}}:{{.Tag}}"],
    )?;
    ensure(
        images.contains("composed:one") && images.contains("composed:two"),
        || images.clone(),
    )?;
    let printed = compose(&["up", "--no-color", "two"])?;
    ensure(printed.contains("| composed"), || {
        format!("the service prints {printed:?}")
    })?;
    compose(&["down"])?;
    Ok(())
}
