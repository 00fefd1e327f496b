# syntax=docker/dockerfile:1-labs
FROM rust:1.83 AS manifests
WORKDIR /w
COPY --parents ./crates/*/Cargo.toml ./Cargo.toml /w/
COPY --parents crates/./core/src /v/
COPY --parents --exclude=**/target --exclude=*.md ./apps/**/src /w/
ADD --exclude=*.tmp --chown=1:2 data /data/
COPY --exclude=a --exclude=b . .
FROM scratch
COPY --from=manifests --parents /w/./crates /
COPY --from=manifests --exclude=x --link /w/z /z
