//! COPY: sources, destinations, owners, modes and layers of their own.

use crate::world::check;

#[test]
fn sources_go_to_their_destination() {
    check(&[
        (
            "alpine",
            r"
COPY a /b
",
            r#"
1: local://context local.followpaths=["a"] local.unique=
   # [internal] load build context
2: copy /a to /b follow contents wildcard [0,1] <- 0 1
   # [2/2] COPY a /b
"#,
        ),
        (
            "alpine",
            r"
COPY a b /c/
",
            r#"
1: local://context local.followpaths=["a","b"] local.unique=
   # [internal] load build context
2: copy /a to /c/ follow contents wildcard [0,1]; copy /b to /c/ follow contents wildcard [2,1] <- 0 1
   # [2/2] COPY a b /c/
"#,
        ),
        (
            "alpine",
            r"
COPY a b
",
            r#"
1: local://context local.followpaths=["a"] local.unique=
   # [internal] load build context
2: copy /a to /b follow contents wildcard [0,1] <- 0 1
   # [2/2] COPY a b
"#,
        ),
        (
            "alpine",
            r"
WORKDIR /w
COPY a .
COPY b ./c/
COPY c ../d
",
            r#"
1: mkdir /w 755 [0,-1] <- 0
   # [2/5] WORKDIR /w
2: local://context local.followpaths=["a","b","c"] local.unique=
   # [internal] load build context
3: copy /a to /w/ follow contents wildcard [0,1] <- 1 2
   # [3/5] COPY a .
4: copy /b to /w/c/ follow contents wildcard [0,1] <- 3 2
   # [4/5] COPY b ./c/
5: copy /c to /d follow contents wildcard [0,1] <- 4 2
   # [5/5] COPY c ../d
"#,
        ),
        (
            "",
            r"
FROM alpine
COPY . /
",
            r"
0: docker-image://docker.io/library/alpine:latest for linux/amd64
   # [1/2] FROM docker.io/library/alpine:latest
1: local://context local.unique=
   # [internal] load build context
2: copy / to / follow contents wildcard [0,1] <- 0 1
   # [2/2] COPY . /
",
        ),
        (
            "",
            r"
FROM alpine
COPY ../../a /b
",
            r#"
0: docker-image://docker.io/library/alpine:latest for linux/amd64
   # [1/2] FROM docker.io/library/alpine:latest
1: local://context local.followpaths=["a"] local.unique=
   # [internal] load build context
2: copy /a to /b follow contents wildcard [0,1] <- 0 1
   # [2/2] COPY ../../a /b
"#,
        ),
        (
            "alpine",
            r"
COPY *.txt [a-z] /d/
",
            r#"
1: local://context local.followpaths=["*.txt","[a-z]"] local.unique=
   # [internal] load build context
2: copy /*.txt to /d/ follow contents wildcard [0,1]; copy /[a-z] to /d/ follow contents wildcard [2,1] <- 0 1
   # [2/2] COPY *.txt [a-z] /d/
"#,
        ),
        (
            "alpine",
            r#"
COPY ["a b", "/c d"]
"#,
            r#"
1: local://context local.followpaths=["a b"] local.unique=
   # [internal] load build context
2: copy /a b to /c d follow contents wildcard [0,1] <- 0 1
   # [2/2] COPY [a b, /c d]
"#,
        ),
        (
            "alpine",
            r"
COPY --exclude=*.log --exclude=x a /b/
",
            r#"
1: local://context local.followpaths=["a"] local.unique=
   # [internal] load build context
2: copy /a to /b/ follow contents wildcard exclude=*.log,x [0,1] <- 0 1
   # [2/2] COPY --exclude=*.log --exclude=x a /b/
"#,
        ),
    ]);
}

#[test]
fn owners_and_modes_are_read() {
    check(&[
        (
            "alpine",
            r"
COPY --chown=1 a /b
COPY --chown=1:2 a /b
",
            r#"
1: local://context local.followpaths=["a"] local.unique=
   # [internal] load build context
2: copy /a to /b owner=1: follow contents wildcard [0,1] <- 0 1
   # [2/3] COPY --chown=1 a /b
3: copy /a to /b owner=1:2 follow contents wildcard [0,1] <- 2 1
   # [3/3] COPY --chown=1:2 a /b
"#,
        ),
        (
            "alpine",
            r"
COPY --chown=app a /b
COPY --chown=app:grp a /b
COPY --chown=:grp a /b
",
            r#"
1: local://context local.followpaths=["a"] local.unique=
   # [internal] load build context
2: copy /a to /b owner=app@0: follow contents wildcard [0,1] <- 0 1
   # [2/4] COPY --chown=app a /b
3: copy /a to /b owner=app@0:grp@0 follow contents wildcard [0,1] <- 2 1
   # [3/4] COPY --chown=app:grp a /b
4: copy /a to /b owner=0:grp@0 follow contents wildcard [0,1] <- 3 1
   # [4/4] COPY --chown=:grp a /b
"#,
        ),
        (
            "alpine",
            r"
COPY --chmod=755 a /b
COPY --chmod=u+x,g=rX a /b
COPY --chmod=0 a /b
",
            r#"
1: local://context local.followpaths=["a"] local.unique=
   # [internal] load build context
2: copy /a to /b follow contents wildcard mode=755 [0,1] <- 0 1
   # [2/4] COPY --chmod=755 a /b
3: copy /a to /b follow contents wildcard mode=0 mode=u+x,g=rX [0,1] <- 2 1
   # [3/4] COPY --chmod=u+x,g=rX a /b
4: copy /a to /b follow contents wildcard mode=0 [0,1] <- 3 1
   # [4/4] COPY --chmod=0 a /b
"#,
        ),
        (
            "",
            r"
FROM alpine
COPY --chmod=8 a /b
",
            r"
error: invalid chmod parameter: '8'. it should be octal string and between 0 and 07777 [2]
",
        ),
        (
            "",
            r"
FROM alpine
COPY --chmod=10000 a /b
",
            r"
error: invalid chmod parameter: '10000'. it should be octal string and between 0 and 07777 [2]
",
        ),
        (
            "",
            r"
FROM alpine
COPY --chmod=x a /b
",
            r"
error: invalid syntax [2]
",
        ),
        (
            "",
            r"
FROM alpine
COPY --chown= --chmod= a /b
",
            r#"
0: docker-image://docker.io/library/alpine:latest for linux/amd64
   # [1/2] FROM docker.io/library/alpine:latest
1: local://context local.followpaths=["a"] local.unique=
   # [internal] load build context
2: copy /a to /b follow contents wildcard [0,1] <- 0 1
   # [2/2] COPY --chown= --chmod= a /b
"#,
        ),
    ]);
}

#[test]
fn a_linked_copy_is_a_layer_of_its_own() {
    check(&[
        (
            "alpine",
            r"
COPY --link a /b
",
            r#"
1: local://context local.followpaths=["a"] local.unique=
   # [internal] load build context
2: copy /a to /b follow contents wildcard [-1,0] <- 1
   # [2/2] COPY --link a /b
   # group: [2/2] COPY --link a /b, weak
3: merge 0 1 <- 0 2
   # [2/2] LINK COPY --link a /b
   # group: [2/2] COPY --link a /b
"#,
        ),
        (
            "alpine",
            r"
COPY --link --chown=1:2 a /b
RUN one
",
            r#"
1: local://context local.followpaths=["a"] local.unique=
   # [internal] load build context
2: copy /a to /b owner=1:2 follow contents wildcard [-1,0] <- 1
   # [2/3] COPY --link --chown=1:2 a /b
   # group: [2/3] COPY --link --chown=1:2 a /b, weak
3: merge 0 1 <- 0 2
   # [2/3] LINK COPY --link --chown=1:2 a /b
   # group: [2/3] COPY --link --chown=1:2 a /b
4: exec ["/bin/sh", "-c", "one"] in / env=PATH=/bin for linux/amd64 <- 3
   # [3/3] RUN one
"#,
        ),
        (
            "",
            r"
FROM alpine
COPY --link --chown=app a /b
",
            r"
error: --chown=app: user and group names can't be resolved when used with --link, use numeric uid[:gid] instead [2]
",
        ),
        (
            "",
            r"
FROM alpine
COPY --link --chmod=755 a /b
",
            r#"
0: docker-image://docker.io/library/alpine:latest for linux/amd64
   # [1/2] FROM docker.io/library/alpine:latest
1: local://context local.followpaths=["a"] local.unique=
   # [internal] load build context
2: copy /a to /b follow contents wildcard mode=755 [0,1] <- 0 1
   # [2/2] COPY --link --chmod=755 a /b
"#,
        ),
        (
            "",
            r"
FROM alpine AS a
FROM alpine
COPY --link --from=a /x /y
",
            r"
0: docker-image://docker.io/library/alpine:latest for linux/amd64
   # [a 1/1] FROM docker.io/library/alpine:latest
1: copy /x to /y follow contents wildcard [-1,0] <- 0
   # [stage-1 2/2] COPY --link --from=a /x /y
   # group: [stage-1 2/2] COPY --link --from=a /x /y, weak
2: merge 0 1 <- 0 1
   # [stage-1 2/2] LINK COPY --link --from=a /x /y
   # group: [stage-1 2/2] COPY --link --from=a /x /y
",
        ),
    ]);
}

#[test]
fn parents_are_kept_when_asked_for() {
    check(&[
        (
            "alpine",
            r"
COPY --parents a/b/c /d/
",
            r#"
1: local://context local.followpaths=["a/b/c"] local.unique=
   # [internal] load build context
2: copy / to /d/ follow contents wildcard include=a/b/c required=/a/b/c [0,1] <- 0 1
   # [2/2] COPY --parents a/b/c /d/
"#,
        ),
        (
            "alpine",
            r"
COPY --parents a/./b/c /d/
",
            r#"
1: local://context local.followpaths=["a/b/c"] local.unique=
   # [internal] load build context
2: copy /a to /d/ follow contents wildcard include=b/c required=/a/b/c [0,1] <- 0 1
   # [2/2] COPY --parents a/./b/c /d/
"#,
        ),
        (
            "alpine",
            r"
COPY --parents **/*.txt /d/
",
            r#"
1: local://context local.followpaths=["**/*.txt"] local.unique=
   # [internal] load build context
2: copy / to /d/ follow contents wildcard include=**/*.txt [0,1] <- 0 1
   # [2/2] COPY --parents **/*.txt /d/
"#,
        ),
    ]);
}
