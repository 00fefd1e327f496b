//! Bases of stages: platforms, triggers, and what is wrong with a base.

use crate::world::check;

#[test]
fn a_base_image_can_be_wrong_in_many_ways() {
    check(&[
        (
            "",
            r"
FROM gone
",
            r"
error: gone: there is no such image [1]
",
        ),
        (
            "",
            r"
FROM Alpine
",
            r#"
error: failed to parse stage name "Alpine": invalid reference format: repository name (library/Alpine) must be lowercase [1]
"#,
        ),
        (
            "",
            r"
FROM $x
",
            r"
error: base name ($x) should not be blank [1]
",
        ),
        (
            "",
            r"
ARG x=
FROM ${x}
",
            r"
error: base name (${x}) should not be blank [2]
",
        ),
        (
            "",
            r"
ARG VERSION=3
FROM alpine:$VERSIO
",
            r#"
error: failed to parse stage name "alpine:": invalid reference format [2]
"#,
        ),
        (
            "",
            r"
FROM --platform= alpine
",
            r"
0: docker-image://docker.io/library/alpine:latest for linux/amd64
   # [1/1] FROM docker.io/library/alpine:latest
",
        ),
        (
            "",
            r"
FROM --platform=$NOPE alpine
",
            r"
error: empty platform value from expression $NOPE [1]
",
        ),
        (
            "",
            r"
FROM --platform=a/b/c/d alpine
",
            r#"
error: failed to parse platform a/b/c/d: "a/b/c/d": cannot parse platform specifier: invalid argument [1, 1]
"#,
        ),
        (
            "",
            r"
FROM --platform=linux/ppc alpine
",
            r"
0: docker-image://docker.io/library/alpine:latest for linux/ppc
   # [1/1] FROM docker.io/library/alpine:latest
",
        ),
        (
            "",
            r"
ARG x
",
            r"
error: dockerfile contains no stages to build []
",
        ),
        (
            "",
            r"
FROM a b
",
            r"
error: dockerfile parse error on line 1: FROM requires either one or three arguments [1]
",
        ),
        (
            "",
            r"
FROM alpin
FROM alpine
COPY --from=gone2 a b
",
            r"
error: gone2: there is no such image [3]
",
        ),
    ]);
}

#[test]
fn platforms_of_stages_are_those_that_are_asked_for() {
    check(&[
        (
            "platform=linux/arm64",
            r"
FROM alpine
RUN one
",
            r#"
0: docker-image://docker.io/library/alpine:latest for linux/arm64
   # [1/2] FROM docker.io/library/alpine:latest
1: exec ["/bin/sh", "-c", "one"] in / env=PATH=/bin for linux/arm64 <- 0
   # [2/2] RUN one
"#,
        ),
        (
            "platform=linux/arm64",
            r"
FROM --platform=$BUILDPLATFORM alpine AS b
RUN one
FROM alpine
COPY --from=b /x /x
",
            r#"
0: docker-image://docker.io/library/alpine:latest for linux/arm64
   # [stage-1 1/2] FROM docker.io/library/alpine:latest
1: docker-image://docker.io/library/alpine:latest for linux/amd64
   # [b 1/2] FROM docker.io/library/alpine:latest
2: exec ["/bin/sh", "-c", "one"] in / env=PATH=/bin for linux/amd64 <- 1
   # [b 2/2] RUN one
3: copy /x to /x follow contents wildcard [0,1] <- 0 2
   # [stage-1 2/2] COPY --from=b /x /x
"#,
        ),
        (
            "platform=linux/arm64 multi",
            r"
FROM --platform=$BUILDPLATFORM alpine AS b
RUN one
FROM alpine
RUN two
",
            r#"
0: docker-image://docker.io/library/alpine:latest for linux/arm64
   # [linux/arm64 stage-1 1/2] FROM docker.io/library/alpine:latest
1: exec ["/bin/sh", "-c", "two"] in / env=PATH=/bin for linux/arm64 <- 0
   # [linux/arm64 stage-1 2/2] RUN two
"#,
        ),
        (
            "platform=linux/arm/v7",
            r"
FROM alpine
ARG TARGETPLATFORM
ARG TARGETVARIANT
ARG TARGETARCH
RUN one
",
            r#"
0: docker-image://docker.io/library/alpine:latest for linux/arm/v7
   # [1/2] FROM docker.io/library/alpine:latest
1: exec ["/bin/sh", "-c", "one"] in / env=PATH=/bin,TARGETPLATFORM=linux/arm/v7,TARGETVARIANT=v7,TARGETARCH=arm for linux/arm/v7 <- 0
   # [2/2] RUN one
"#,
        ),
        (
            "platform=linux/arm64",
            r"
FROM --platform=linux/386 alpine
ARG BUILDPLATFORM
ARG TARGETOS
RUN one
",
            r#"
0: docker-image://docker.io/library/alpine:latest for linux/386
   # [1/2] FROM docker.io/library/alpine:latest
1: exec ["/bin/sh", "-c", "one"] in / env=PATH=/bin,BUILDPLATFORM=linux/amd64,TARGETOS=linux for linux/386 <- 0
   # [2/2] RUN one
"#,
        ),
        (
            "platform=linux/arm64 arg:TARGETARCH=mine",
            r"
FROM alpine
ARG TARGETARCH
RUN one
",
            r#"
0: docker-image://docker.io/library/alpine:latest for linux/arm64
   # [1/2] FROM docker.io/library/alpine:latest
1: exec ["/bin/sh", "-c", "one"] in / env=PATH=/bin,TARGETARCH=mine for linux/arm64 <- 0
   # [2/2] RUN one
"#,
        ),
    ]);
}

#[test]
fn triggers_of_a_base_run_first() {
    check(&[
        (
            "",
            r"
FROM onbuild
RUN own
",
            r#"
0: docker-image://docker.io/library/onbuild:latest for linux/amd64
   # [1/2] FROM docker.io/library/onbuild:latest
1: exec ["/bin/sh", "-c", "trigger"] in / env=PATH=/bin for linux/amd64 <- 0
   # [2/5] ONBUILD RUN trigger
2: docker-image://docker.io/library/tools:latest for linux/amd64
   # FROM docker.io/library/tools:latest
3: copy /x to /y follow contents wildcard [0,1] <- 1 2
   # [3/5] ONBUILD COPY --from=tools /x /y
4: exec ["/bin/sh", "-c", "own"] in / env=PATH=/bin,ON=build for linux/amd64 <- 3
   # [4/5] RUN own
"#,
        ),
        (
            "context:tools=busybox",
            r"
FROM onbuild AS x
RUN own
",
            r#"
0: docker-image://docker.io/library/onbuild:latest for linux/amd64
   # [1/2] FROM docker.io/library/onbuild:latest
1: exec ["/bin/sh", "-c", "trigger"] in / env=PATH=/bin for linux/amd64 <- 0
   # [2/5] ONBUILD RUN trigger
2: docker-image://docker.io/library/busybox:latest for linux/amd64
   # context tools
3: copy /x to /y follow contents wildcard [0,1] <- 1 2
   # [3/5] ONBUILD COPY --from=tools /x /y
4: exec ["/bin/sh", "-c", "own"] in / env=PATH=/bin,ON=build for linux/amd64 <- 3
   # [4/5] RUN own
"#,
        ),
        (
            "",
            r"
FROM alpine AS tools
RUN t
FROM onbuild
RUN own
",
            r#"
0: docker-image://docker.io/library/onbuild:latest for linux/amd64
   # [stage-1 1/2] FROM docker.io/library/onbuild:latest
1: exec ["/bin/sh", "-c", "trigger"] in / env=PATH=/bin for linux/amd64 <- 0
   # [stage-1 2/5] ONBUILD RUN trigger
2: docker-image://docker.io/library/alpine:latest for linux/amd64
   # [tools 1/2] FROM docker.io/library/alpine:latest
3: exec ["/bin/sh", "-c", "t"] in / env=PATH=/bin for linux/amd64 <- 2
   # [tools 2/2] RUN t
4: copy /x to /y follow contents wildcard [0,1] <- 1 3
   # [stage-1 3/5] ONBUILD COPY --from=tools /x /y
5: exec ["/bin/sh", "-c", "own"] in / env=PATH=/bin,ON=build for linux/amd64 <- 4
   # [stage-1 4/5] RUN own
"#,
        ),
        (
            "",
            r"
FROM alpine AS base
ONBUILD RUN trigger
ONBUILD ENV A=b
FROM base
RUN own
",
            r#"
0: docker-image://docker.io/library/alpine:latest for linux/amd64
   # [base 1/1] FROM docker.io/library/alpine:latest
1: exec ["/bin/sh", "-c", "trigger"] in / env=PATH=/bin for linux/amd64 <- 0
   # [stage-1 1/3] ONBUILD RUN trigger
2: exec ["/bin/sh", "-c", "own"] in / env=PATH=/bin,A=b for linux/amd64 <- 1
   # [stage-1 2/3] RUN own
"#,
        ),
        (
            "image only",
            r"
FROM alpine
ONBUILD RUN x
ONBUILD COPY a b
ONBUILD ADD --chown=1 a b
",
            r#"
linux/amd64 by ""
Cmd: ["sh"]
Env: ["PATH=/bin"]
OnBuild: ["RUN x","COPY a b","ADD --chown=1 a b"]
by: base
"#,
        ),
        (
            "",
            r"
FROM alpine AS a
ONBUILD RUN x && \
  y
FROM a
",
            r#"
0: docker-image://docker.io/library/alpine:latest for linux/amd64
   # [a 1/1] FROM docker.io/library/alpine:latest
1: exec ["/bin/sh", "-c", "x &&   y"] in / env=PATH=/bin for linux/amd64 <- 0
   # [stage-1 1/1] ONBUILD RUN x &&   y
"#,
        ),
    ]);
}
