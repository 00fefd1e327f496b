//! Variables: ARG, ENV and build arguments, and where each is replaced.

use crate::world::check;

#[test]
fn arguments_reach_steps_and_words() {
    check(&[
        (
            "alpine",
            r"
ARG A=1
RUN echo $A
WORKDIR /$A
",
            r#"
1: exec ["/bin/sh", "-c", "echo $A"] in / env=PATH=/bin,A=1 for linux/amd64 <- 0
   # [2/3] RUN echo 1
2: mkdir /1 755 [0,-1] <- 1
   # [3/3] WORKDIR /1
"#,
        ),
        (
            "alpine arg:A=2",
            r"
ARG A=1
RUN echo
COPY $A /$A
",
            r#"
1: exec ["/bin/sh", "-c", "echo"] in / env=PATH=/bin,A=2 for linux/amd64 <- 0
   # [2/3] RUN echo
2: local://context local.followpaths=["2"] local.unique=
   # [internal] load build context
3: copy /2 to /2 follow contents wildcard [0,1] <- 1 2
   # [3/3] COPY 2 /2
"#,
        ),
        (
            "alpine arg:A=2",
            r"
RUN echo
",
            r#"
1: exec ["/bin/sh", "-c", "echo"] in / env=PATH=/bin for linux/amd64 <- 0
   # [2/2] RUN echo
"#,
        ),
        (
            "alpine",
            r"
ARG A
RUN echo
",
            r#"
1: exec ["/bin/sh", "-c", "echo"] in / env=PATH=/bin for linux/amd64 <- 0
   # [2/2] RUN echo
"#,
        ),
        (
            "alpine arg:A=",
            r"
ARG A=1
RUN echo
",
            r#"
1: exec ["/bin/sh", "-c", "echo"] in / env=PATH=/bin,A= for linux/amd64 <- 0
   # [2/2] RUN echo
"#,
        ),
        (
            "alpine",
            r"
ARG A=1 B=$A-2
RUN echo
",
            r#"
1: exec ["/bin/sh", "-c", "echo"] in / env=PATH=/bin,A=1,B=1-2 for linux/amd64 <- 0
   # [2/2] RUN echo
"#,
        ),
        (
            "alpine",
            r"
ENV A=env
ARG A=arg
RUN echo
",
            r#"
1: exec ["/bin/sh", "-c", "echo"] in / env=PATH=/bin,A=arg for linux/amd64 <- 0
   # [2/2] RUN echo
"#,
        ),
        (
            "alpine",
            r"
ARG A=arg
ENV A=env
RUN echo
",
            r#"
1: exec ["/bin/sh", "-c", "echo"] in / env=PATH=/bin,A=env for linux/amd64 <- 0
   # [2/2] RUN echo
"#,
        ),
        (
            "alpine",
            r"
ARG A=arg
ENV A=$A-env
RUN echo
",
            r#"
1: exec ["/bin/sh", "-c", "echo"] in / env=PATH=/bin,A=arg-env for linux/amd64 <- 0
   # [2/2] RUN echo
"#,
        ),
    ]);
}

#[test]
fn arguments_before_the_first_stage_are_for_from_lines() {
    check(&[
        (
            "",
            r"
ARG TAG=3
FROM alpine:$TAG
RUN echo $TAG
",
            r#"
0: docker-image://docker.io/library/alpine:3 for linux/amd64
   # [1/2] FROM docker.io/library/alpine:3
1: exec ["/bin/sh", "-c", "echo $TAG"] in / env=PATH=/bin for linux/amd64 <- 0
   # [2/2] RUN echo $TAG
"#,
        ),
        (
            "",
            r"
ARG TAG=3
FROM alpine:$TAG
ARG TAG
RUN echo
",
            r#"
0: docker-image://docker.io/library/alpine:3 for linux/amd64
   # [1/2] FROM docker.io/library/alpine:3
1: exec ["/bin/sh", "-c", "echo"] in / env=PATH=/bin,TAG=3 for linux/amd64 <- 0
   # [2/2] RUN echo
"#,
        ),
        (
            "",
            r"
ARG TAG=3
FROM alpine:$TAG
ARG TAG=4
RUN echo
",
            r#"
0: docker-image://docker.io/library/alpine:3 for linux/amd64
   # [1/2] FROM docker.io/library/alpine:3
1: exec ["/bin/sh", "-c", "echo"] in / env=PATH=/bin,TAG=4 for linux/amd64 <- 0
   # [2/2] RUN echo
"#,
        ),
        (
            "arg:TAG=5",
            r"
ARG TAG=3
FROM alpine:$TAG
ARG TAG
RUN echo
",
            r#"
0: docker-image://docker.io/library/alpine:5 for linux/amd64
   # [1/2] FROM docker.io/library/alpine:5
1: exec ["/bin/sh", "-c", "echo"] in / env=PATH=/bin,TAG=5 for linux/amd64 <- 0
   # [2/2] RUN echo
"#,
        ),
        (
            "",
            r"
ARG A=b
ARG NAME=al${A:+p}ine
FROM $NAME
",
            r"
0: docker-image://docker.io/library/alpine:latest for linux/amd64
   # [1/1] FROM docker.io/library/alpine:latest
",
        ),
        (
            "",
            r"
ARG BASE=one
FROM alpine AS one
RUN one
FROM busybox AS two
RUN two
FROM $BASE
",
            r#"
0: docker-image://docker.io/library/alpine:latest for linux/amd64
   # [one 1/2] FROM docker.io/library/alpine:latest
1: exec ["/bin/sh", "-c", "one"] in / env=PATH=/bin for linux/amd64 <- 0
   # [one 2/2] RUN one
"#,
        ),
    ]);
}

#[test]
fn arguments_of_one_stage_are_not_those_of_another() {
    check(&[
        (
            "",
            r"
FROM alpine AS a
ARG A=1
RUN one
FROM alpine
RUN two
",
            r#"
0: docker-image://docker.io/library/alpine:latest for linux/amd64
   # [stage-1 1/2] FROM docker.io/library/alpine:latest
1: exec ["/bin/sh", "-c", "two"] in / env=PATH=/bin for linux/amd64 <- 0
   # [stage-1 2/2] RUN two
"#,
        ),
        (
            "",
            r"
FROM alpine AS a
ARG A=1
ENV E=$A
RUN one
FROM a
RUN two
",
            r#"
0: docker-image://docker.io/library/alpine:latest for linux/amd64
   # [a 1/2] FROM docker.io/library/alpine:latest
1: exec ["/bin/sh", "-c", "one"] in / env=PATH=/bin,A=1,E=1 for linux/amd64 <- 0
   # [a 2/2] RUN one
2: exec ["/bin/sh", "-c", "two"] in / env=A=1,PATH=/bin,E=1 for linux/amd64 <- 1
   # [stage-1 1/1] RUN two
"#,
        ),
    ]);
}

#[test]
fn a_predefined_argument_is_no_part_of_a_step() {
    check(&[
        (
            "alpine arg:HTTP_PROXY=http://p arg:NO_PROXY=x",
            r"
RUN echo
",
            r#"
1: exec ["/bin/sh", "-c", "echo"] in / env=PATH=/bin http_proxy=http://p no_proxy=x for linux/amd64 <- 0
   # [2/2] RUN echo
"#,
        ),
        (
            "alpine arg:HTTP_PROXY=http://p",
            r"
ARG HTTP_PROXY
RUN echo
",
            r#"
1: exec ["/bin/sh", "-c", "echo"] in / env=PATH=/bin,HTTP_PROXY=http://p http_proxy=http://p for linux/amd64 <- 0
   # [2/2] RUN echo
"#,
        ),
        (
            "alpine arg:SOURCE_DATE_EPOCH=5 image",
            r"
ARG SOURCE_DATE_EPOCH
RUN echo
",
            r#"
1: exec ["/bin/sh", "-c", "echo"] in / env=PATH=/bin,SOURCE_DATE_EPOCH=5 for linux/amd64 <- 0
   # [2/2] RUN echo
linux/amd64 by ""
Cmd: ["sh"]
Env: ["PATH=/bin"]
by: base
by: ARG SOURCE_DATE_EPOCH=5 (no layer)
by: RUN |1 SOURCE_DATE_EPOCH=5 /bin/sh -c echo # buildkit
"#,
        ),
        (
            "arg:SOURCE_DATE_EPOCH=soon",
            r"
FROM alpine
",
            r"
error: invalid SOURCE_DATE_EPOCH: soon []
",
        ),
        (
            "arg:SOURCE_DATE_EPOCH=context",
            r"
FROM alpine
ARG SOURCE_DATE_EPOCH
RUN echo
",
            r#"
0: docker-image://docker.io/library/alpine:latest for linux/amd64
   # [1/2] FROM docker.io/library/alpine:latest
1: exec ["/bin/sh", "-c", "echo"] in / env=PATH=/bin,SOURCE_DATE_EPOCH=1700000000 for linux/amd64 <- 0
   # [2/2] RUN echo
"#,
        ),
        (
            "arg:SOURCE_DATE_EPOCH=src",
            r"
FROM scratch AS src
ADD https://h/x.tar /
FROM alpine
ARG SOURCE_DATE_EPOCH
RUN echo
",
            r#"
0: docker-image://docker.io/library/alpine:latest for linux/amd64
   # [stage-1 1/2] FROM docker.io/library/alpine:latest
1: exec ["/bin/sh", "-c", "echo"] in / env=PATH=/bin,SOURCE_DATE_EPOCH=1700000000 for linux/amd64 <- 0
   # [stage-1 2/2] RUN echo
"#,
        ),
        (
            "arg:SOURCE_DATE_EPOCH=src",
            r"
FROM alpine AS src
ADD https://h/x.tar /
FROM alpine
",
            r"
error: SOURCE_DATE_EPOCH stage must use FROM scratch [1]
",
        ),
        (
            "arg:SOURCE_DATE_EPOCH=src",
            r"
FROM scratch AS src
ADD x /
FROM alpine
",
            r"
error: SOURCE_DATE_EPOCH stage source must be a single HTTP(S) or Git ADD [1]
",
        ),
        (
            "arg:SOURCE_DATE_EPOCH=src",
            r"
FROM scratch AS src
ADD https://h/x /
ADD https://h/y /
FROM alpine
",
            r"
error: SOURCE_DATE_EPOCH stage must contain exactly one remote ADD [1]
",
        ),
        (
            "arg:SOURCE_DATE_EPOCH=src",
            r"
FROM scratch AS src
ADD https://h/x /
RUN y
FROM alpine
",
            r"
error: SOURCE_DATE_EPOCH stage does not meet source-only requirements: unsupported RUN instruction [1]
",
        ),
        (
            "arg:SOURCE_DATE_EPOCH=src",
            r"
FROM scratch AS src
FROM alpine
",
            r"
error: SOURCE_DATE_EPOCH stage must contain exactly one remote ADD [1]
",
        ),
        (
            "arg:SOURCE_DATE_EPOCH=src",
            r"
FROM scratch AS src
ADD https://h/x https://h/y /
FROM alpine
",
            r"
error: SOURCE_DATE_EPOCH stage must contain exactly one remote ADD source [1]
",
        ),
    ]);
}

#[test]
fn words_are_replaced_where_the_reference_replaces_them() {
    check(&[
        (
            "alpine",
            r#"
ENV A=x B="y z"
COPY --chown=$A:$A ${A}1 "$B" '$A' /$A/
"#,
            r#"
1: local://context local.followpaths=["$A","x1","y z"] local.unique=
   # [internal] load build context
2: copy /x1 to /x/ owner=x@0:x@0 follow contents wildcard [0,1]; copy /y z to /x/ owner=x@0:x@0 follow contents wildcard [2,1]; copy /$A to /x/ owner=x@0:x@0 follow contents wildcard [3,1] <- 0 1
   # [2/2] COPY --chown=x:x x1 y z $A /x/
"#,
        ),
        (
            "",
            r"
FROM alpine
ENV A=x
RUN --mount=type=cache,target=/$A,id=$A echo $A '$A'
",
            r#"
0: docker-image://docker.io/library/alpine:latest for linux/amd64
   # [stage-0 1/2] FROM docker.io/library/alpine:latest
1: exec ["/bin/sh", "-c", "echo $A '$A'"] in / env=PATH=/bin,A=x mount=cache:/x:id=/x:shared for linux/amd64 <- 0
   # [stage-0 2/2] RUN --mount=type=cache,target=/x,id=x echo x '$A'
"#,
        ),
        (
            "",
            r"
FROM alpine
ENV A=x
USER $A
WORKDIR $A/${A:-y}
RUN pwd
",
            r#"
0: docker-image://docker.io/library/alpine:latest for linux/amd64
   # [1/3] FROM docker.io/library/alpine:latest
1: mkdir /x/x 755 owner=x@0: [0,-1] <- 0
   # [2/3] WORKDIR x/x
2: exec ["/bin/sh", "-c", "pwd"] in /x/x user=x env=PATH=/bin,A=x for linux/amd64 <- 1
   # [3/3] RUN pwd
"#,
        ),
        (
            "alpine",
            r"
ENV A=x
ENV A=y B=$A
RUN env
",
            r#"
1: exec ["/bin/sh", "-c", "env"] in / env=PATH=/bin,A=y,B=x for linux/amd64 <- 0
   # [2/2] RUN env
"#,
        ),
        (
            "alpine",
            r"
ENV A=x
COPY <<EOF /f
$A \$A
EOF
",
            r#"
1: mkfile /EOF 644 "x $A\n" [-1,-1]
   # [internal] preparing inline document
2: copy /EOF to /f [0,1] <- 0 1
   # [2/2] COPY <<EOF /f
"#,
        ),
        (
            "alpine",
            r"
ENV A=x
COPY <<'EOF' /f
$A
EOF
",
            r#"
1: mkfile /EOF 644 "$A\n" [-1,-1]
   # [internal] preparing inline document
2: copy /EOF to /f [0,1] <- 0 1
   # [2/2] COPY <<EOF /f
"#,
        ),
        (
            "alpine",
            r"
ENV P=/a:/b
COPY x /${P##*/}
RUN ${P%%:*}
",
            r#"
1: local://context local.followpaths=["x"] local.unique=
   # [internal] load build context
2: copy /x to /b follow contents wildcard [0,1] <- 0 1
   # [2/3] COPY x /b
3: exec ["/bin/sh", "-c", "${P%%:*}"] in / env=PATH=/bin,P=/a:/b for linux/amd64 <- 2
   # [3/3] RUN /a
"#,
        ),
        (
            "",
            r"
FROM alpine
COPY ${x:?is not set} /y
",
            r#"
error: failed to process "${x:?is": syntax error: missing '}' [2]
"#,
        ),
        (
            "",
            r"
FROM alpine
COPY ${x /y
",
            r#"
error: failed to process "${x": unsupported modifier (�) in substitution [2]
"#,
        ),
        (
            "",
            r"
FROM alpine
ENV A='x
",
            r#"
error: failed to process "'x": unexpected end of statement while looking for matching single-quote [2]
"#,
        ),
        (
            "",
            r"
FROM alpine
WORKDIR ${A:?}
",
            r#"
error: failed to process "${A:?}": A: is not allowed to be unset [2]
"#,
        ),
    ]);
}
