FROM rust:1.83-slim AS build
ARG APP=server
WORKDIR /src
RUN --mount=type=bind,source=src,target=src \
    --mount=type=bind,source=Cargo.toml,target=Cargo.toml,readonly \
    --mount=type=bind,source=Cargo.lock,target=Cargo.lock,ro=true \
    --mount=type=cache,target=/src/target/,id=target-$APP,sharing=private \
    --mount=type=cache,target=/usr/local/cargo/git/db,sharing=shared,mode=0755,uid=1000,gid=1000 \
    --mount=type=cache,target=/usr/local/cargo/registry/,from=rust:1.83-slim,source=/usr/local/cargo \
    --mount=type=tmpfs,target=/tmp,size=512m \
    cargo build --locked --release && cp target/release/$APP /bin/server
FROM alpine:3.20 AS final
ARG UID=10001
RUN adduser --disabled-password --gecos "" --home "/nonexistent" --shell "/sbin/nologin" --no-create-home --uid "${UID}" appuser
USER appuser
COPY --from=build /bin/server /bin/
EXPOSE 8000/udp 9000-9002
CMD ["/bin/server"]
