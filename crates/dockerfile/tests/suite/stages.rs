//! Stages: which are lowered, what they copy from and how their steps are called.

use crate::world::check;

#[test]
fn a_file_becomes_its_steps() {
    check(&[
        (
            "",
            r"
FROM alpine
",
            r"
0: docker-image://docker.io/library/alpine:latest for linux/amd64
   # [1/1] FROM docker.io/library/alpine:latest
",
        ),
        (
            "",
            r"
FROM scratch
",
            r"
(scratch)
",
        ),
        (
            "",
            r"
FROM alpine:3 AS base
RUN one
RUN two
",
            r#"
0: docker-image://docker.io/library/alpine:3 for linux/amd64
   # [1/3] FROM docker.io/library/alpine:3
1: exec ["/bin/sh", "-c", "one"] in / env=PATH=/bin for linux/amd64 <- 0
   # [2/3] RUN one
2: exec ["/bin/sh", "-c", "two"] in / env=PATH=/bin for linux/amd64 <- 1
   # [3/3] RUN two
"#,
        ),
        (
            "",
            r"
FROM alpine@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
RUN one
",
            r#"
0: docker-image://docker.io/library/alpine@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 for linux/amd64
   # [1/2] FROM docker.io/library/alpine@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
1: exec ["/bin/sh", "-c", "one"] in / env=PATH=/bin for linux/amd64 <- 0
   # [2/2] RUN one
"#,
        ),
        (
            "",
            r"
FROM scratch
COPY a /a
",
            r#"
0: local://context local.followpaths=["a"] local.unique=
   # [internal] load build context
1: copy /a to /a follow contents wildcard [-1,0] <- 0
   # [1/1] COPY a /a
"#,
        ),
    ]);
}

#[test]
fn stages_that_the_target_does_not_need_are_left_out() {
    check(&[
        (
            "",
            r"
FROM alpine AS unused
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
            "target=first",
            r"
FROM alpine AS first
RUN one
FROM first
RUN two
",
            r#"
0: docker-image://docker.io/library/alpine:latest for linux/amd64
   # [first 1/2] FROM docker.io/library/alpine:latest
1: exec ["/bin/sh", "-c", "one"] in / env=PATH=/bin for linux/amd64 <- 0
   # [first 2/2] RUN one
"#,
        ),
        (
            "target=0",
            r"
FROM alpine
RUN one
FROM busybox
RUN two
",
            r#"
error: target stage "0" could not be found []
"#,
        ),
        (
            "target=FIRST",
            r"
FROM alpine AS First
RUN one
",
            r#"
0: docker-image://docker.io/library/alpine:latest for linux/amd64
   # [1/2] FROM docker.io/library/alpine:latest
1: exec ["/bin/sh", "-c", "one"] in / env=PATH=/bin for linux/amd64 <- 0
   # [2/2] RUN one
"#,
        ),
        (
            "target=fist",
            r"
FROM alpine AS first
RUN one
",
            r#"
error: target stage "fist" could not be found (did you mean first?) []
"#,
        ),
        (
            "target=9",
            r"
FROM alpine
",
            r#"
error: target stage "9" could not be found []
"#,
        ),
        (
            "all",
            r"
FROM alpine AS unused
RUN ${x:?is needed}
FROM alpine
",
            r"
0: docker-image://docker.io/library/alpine:latest for linux/amd64
   # [stage-1 1/1] FROM docker.io/library/alpine:latest
",
        ),
    ]);
}

#[test]
fn a_stage_starts_from_another_or_copies_from_it() {
    check(&[
        (
            "",
            r"
FROM alpine AS a
RUN one
FROM a AS b
RUN two
FROM b
RUN three
",
            r#"
0: docker-image://docker.io/library/alpine:latest for linux/amd64
   # [a 1/2] FROM docker.io/library/alpine:latest
1: exec ["/bin/sh", "-c", "one"] in / env=PATH=/bin for linux/amd64 <- 0
   # [a 2/2] RUN one
2: exec ["/bin/sh", "-c", "two"] in / env=PATH=/bin for linux/amd64 <- 1
   # [b 1/1] RUN two
3: exec ["/bin/sh", "-c", "three"] in / env=PATH=/bin for linux/amd64 <- 2
   # [stage-2 1/1] RUN three
"#,
        ),
        (
            "",
            r"
FROM alpine AS a
RUN one
FROM scratch
COPY --from=a /x /y
",
            r#"
0: docker-image://docker.io/library/alpine:latest for linux/amd64
   # [a 1/2] FROM docker.io/library/alpine:latest
1: exec ["/bin/sh", "-c", "one"] in / env=PATH=/bin for linux/amd64 <- 0
   # [a 2/2] RUN one
2: copy /x to /y follow contents wildcard [-1,0] <- 1
   # [stage-1 1/1] COPY --from=a /x /y
"#,
        ),
        (
            "",
            r"
FROM alpine AS a
RUN one
FROM scratch
COPY --from=0 /x /y
COPY --from=a /z /z
",
            r#"
0: docker-image://docker.io/library/alpine:latest for linux/amd64
   # [a 1/2] FROM docker.io/library/alpine:latest
1: exec ["/bin/sh", "-c", "one"] in / env=PATH=/bin for linux/amd64 <- 0
   # [a 2/2] RUN one
2: copy /x to /y follow contents wildcard [-1,0] <- 1
   # [stage-1 1/2] COPY --from=0 /x /y
3: copy /z to /z follow contents wildcard [0,1] <- 2 1
   # [stage-1 2/2] COPY --from=a /z /z
"#,
        ),
        (
            "",
            r"
FROM alpine
COPY --from=busybox:1 /bin/sh /sh
",
            r"
0: docker-image://docker.io/library/alpine:latest for linux/amd64
   # [stage-0 1/2] FROM docker.io/library/alpine:latest
1: docker-image://docker.io/library/busybox:1 for linux/amd64
   # FROM docker.io/library/busybox:1
2: copy /bin/sh to /sh follow contents wildcard [0,1] <- 0 1
   # [stage-0 2/2] COPY --from=busybox:1 /bin/sh /sh
",
        ),
        (
            "",
            r"
FROM alpine AS a
FROM alpine AS b
RUN --mount=from=a,target=/a one
",
            r#"
0: docker-image://docker.io/library/alpine:latest for linux/amd64
   # [a 1/1] FROM docker.io/library/alpine:latest
1: exec ["/bin/sh", "-c", "one"] in / env=PATH=/bin mount=bind:/a:input0:ro for linux/amd64 <- 0
   # [b 2/2] RUN --mount=from=a,target=/a one
"#,
        ),
    ]);
}

#[test]
fn stages_cannot_need_themselves_or_what_comes_later() {
    check(&[
        (
            "",
            r"
FROM alpine AS a
COPY --from=b /x /x
FROM alpine AS b
FROM a
",
            r#"
error: cannot copy from stage "b", it needs to be defined before current stage "a" [2]
"#,
        ),
        (
            "",
            r"
FROM alpine AS a
RUN --mount=from=b,target=/b x
FROM alpine AS b
FROM a
",
            r#"
error: cannot mount from stage "b" to "/b", stage needs to be defined before current command [2]
"#,
        ),
        (
            "",
            r"
FROM alpine AS a
COPY --from=a /x /x
",
            r"
error: circular dependency detected on stage: a [2]
",
        ),
        (
            "",
            r"
FROM alpine
COPY --from=5 /x /x
",
            r"
error: invalid stage index 5 []
",
        ),
        (
            "",
            r"
FROM alpine AS a
COPY --from=b /x /x
FROM a AS b
COPY --from=a /y /y
",
            r"
error: circular dependency detected on stage: a [2, 4]
",
        ),
        (
            "",
            r"
FROM alpine
COPY --from=$x /x /x
",
            r"
error: variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope as a workaround []
",
        ),
    ]);
}

#[test]
fn a_named_context_replaces_a_stage_or_an_image() {
    check(&[
        (
            "context:alpine=busybox:9",
            r"
FROM alpine
RUN one
",
            r#"
0: docker-image://docker.io/library/busybox:9 for linux/amd64
   # context alpine
1: exec ["/bin/sh", "-c", "one"] in / env=PATH=/bin for linux/amd64 <- 0
   # [1/2] RUN one
"#,
        ),
        (
            "context:base=local",
            r"
FROM alpine AS base
RUN one
FROM scratch
COPY --from=base /x /y
",
            r#"
0: local://base local.followpaths=["x"] local.unique=
   # context base
1: copy /x to /y follow contents wildcard [-1,0] <- 0
   # [stage-1 1/1] COPY --from=base /x /y
"#,
        ),
        (
            "context:files=local",
            r"
FROM scratch
COPY --from=files a b /c/
",
            r#"
0: local://files local.followpaths=["a","b"] local.unique=
   # context files
1: copy /a to /c/ follow contents wildcard [-1,0]; copy /b to /c/ follow contents wildcard [1,0] <- 0
   # [stage-0 1/1] COPY --from=files a b /c/
"#,
        ),
        (
            "context:files=local",
            r"
FROM alpine
RUN --mount=from=files,source=sub,target=/f one
",
            r#"
0: docker-image://docker.io/library/alpine:latest for linux/amd64
   # [stage-0 1/2] FROM docker.io/library/alpine:latest
1: local://files local.followpaths=["sub"] local.unique=
   # context files
2: exec ["/bin/sh", "-c", "one"] in / env=PATH=/bin mount=bind:/f:input1/sub:ro for linux/amd64 <- 0 1
   # [stage-0 2/2] RUN --mount=from=files,source=sub,target=/f one
"#,
        ),
        (
            "context:base=busybox",
            r"
FROM alpine AS base
RUN one
FROM base
RUN two
",
            r#"
0: docker-image://docker.io/library/busybox:latest for linux/amd64
   # context base
1: exec ["/bin/sh", "-c", "two"] in / env=PATH=/bin for linux/amd64 <- 0
   # [stage-1 1/1] RUN two
"#,
        ),
    ]);
}

#[test]
fn steps_can_be_built_without_cache() {
    check(&[
        (
            "fresh=b",
            r"
FROM alpine AS a
RUN one
FROM a AS b
RUN two
COPY x /x
",
            r#"
0: docker-image://docker.io/library/alpine:latest for linux/amd64
   # [a 1/2] FROM docker.io/library/alpine:latest
1: exec ["/bin/sh", "-c", "one"] in / env=PATH=/bin for linux/amd64 <- 0
   # [a 2/2] RUN one
2: exec ["/bin/sh", "-c", "two"] in / env=PATH=/bin for linux/amd64 <- 1
   # [b 1/2] RUN two
   # without cache
3: local://context local.followpaths=["x"] local.unique=
   # [internal] load build context
4: copy /x to /x follow contents wildcard [0,1] <- 2 3
   # [b 2/2] COPY x /x
   # without cache
"#,
        ),
        (
            "fresh=a",
            r"
FROM alpine AS a
RUN one
FROM a AS b
RUN two
",
            r#"
0: docker-image://docker.io/library/alpine:latest for linux/amd64
   # [a 1/2] FROM docker.io/library/alpine:latest
1: exec ["/bin/sh", "-c", "one"] in / env=PATH=/bin for linux/amd64 <- 0
   # [a 2/2] RUN one
   # without cache
2: exec ["/bin/sh", "-c", "two"] in / env=PATH=/bin for linux/amd64 <- 1
   # [b 1/1] RUN two
"#,
        ),
    ]);
}
