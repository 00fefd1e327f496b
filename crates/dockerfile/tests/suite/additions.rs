//! ADD and the other forms of COPY: archives, addresses, repositories, heredocs, and which paths are asked for.

use crate::world::check;

#[test]
fn heredocs_are_files() {
    check(&[
        (
            "alpine",
            r"
COPY <<a <<b /d/
1
a
2
b
",
            r#"
1: mkfile /a 644 "1\n" [-1,-1]
   # [internal] preparing inline document
2: mkfile /b 644 "2\n" [-1,-1]
   # [internal] preparing inline document
3: copy /a to /d/ [0,1]; copy /b to /d/ [3,2] <- 0 1 2
   # [2/2] COPY <<a <<b /d/
"#,
        ),
        (
            "",
            "FROM alpine\nCOPY --chmod=755 --chown=1:1 <<-run.sh /usr/bin/run\n\t#!/bin/sh\n\trun.sh\n",
            r##"
0: docker-image://docker.io/library/alpine:latest for linux/amd64
   # [1/2] FROM docker.io/library/alpine:latest
1: mkfile /run.sh 644 "#!/bin/sh\n" [-1,-1]
   # [internal] preparing inline document
2: copy /run.sh to /usr/bin/run owner=1:1 mode=755 [0,1] <- 0 1
   # [2/2] COPY --chmod=755 --chown=1:1 <<-run.sh /usr/bin/run
"##,
        ),
        (
            "alpine",
            r"
COPY x <<y z /d/
text
y
",
            r#"
1: local://context local.followpaths=["x","z"] local.unique=
   # [internal] load build context
2: mkfile /y 644 "text\n" [-1,-1]
   # [internal] preparing inline document
3: copy /x to /d/ follow contents wildcard [0,1]; copy /z to /d/ follow contents wildcard [3,1]; copy /y to /d/ [4,2] <- 0 1 2
   # [2/2] COPY x <<y z /d/
"#,
        ),
        (
            "alpine",
            r"
ADD <<EOF /f
EOF
",
            r#"
1: mkfile /EOF 644 "" [-1,-1]
   # [internal] preparing inline document
2: copy /EOF to /f [0,1] <- 0 1
   # [2/2] ADD <<EOF /f
"#,
        ),
    ]);
}

#[test]
fn archives_and_addresses_can_be_added() {
    check(&[
        (
            "alpine",
            r"
ADD a.tar /
",
            r#"
1: local://context local.followpaths=["a.tar"] local.unique=
   # [internal] load build context
2: copy /a.tar to / follow contents unpack wildcard [0,1] <- 0 1
   # [2/2] ADD a.tar /
"#,
        ),
        (
            "alpine",
            r"
ADD --unpack=false a.tar /
",
            r#"
1: local://context local.followpaths=["a.tar"] local.unique=
   # [internal] load build context
2: copy /a.tar to / follow contents wildcard [0,1] <- 0 1
   # [2/2] ADD --unpack=false a.tar /
"#,
        ),
        (
            "",
            r"
FROM alpine
ADD https://h/dir/file.tar?x=1 /d/
",
            r"
0: docker-image://docker.io/library/alpine:latest for linux/amd64
   # [1/2] FROM docker.io/library/alpine:latest
1: https://h/dir/file.tar?x=1 http.filename=file.tar
   # [2/2] ADD https://h/dir/file.tar?x=1 /d/
2: copy /file.tar to /d/ [0,1] <- 0 1
   # [2/2] ADD https://h/dir/file.tar?x=1 /d/
",
        ),
        (
            "",
            r"
FROM alpine
ADD --unpack https://h/file.tar /d/
",
            r"
0: docker-image://docker.io/library/alpine:latest for linux/amd64
   # [1/2] FROM docker.io/library/alpine:latest
1: https://h/file.tar http.filename=file.tar
   # [2/2] ADD --unpack https://h/file.tar /d/
2: copy /file.tar to /d/ unpack [0,1] <- 0 1
   # [2/2] ADD --unpack https://h/file.tar /d/
",
        ),
        (
            "",
            r"
FROM alpine
ADD https://h/ /d/
",
            r"
0: docker-image://docker.io/library/alpine:latest for linux/amd64
   # [1/2] FROM docker.io/library/alpine:latest
1: https://h/ http.filename=__unnamed__
   # [2/2] ADD https://h/ /d/
2: copy /__unnamed__ to /d/ [0,1] <- 0 1
   # [2/2] ADD https://h/ /d/
",
        ),
        (
            "",
            r"
FROM alpine
ADD https://h/a%20b /d/
",
            r"
0: docker-image://docker.io/library/alpine:latest for linux/amd64
   # [1/2] FROM docker.io/library/alpine:latest
1: https://h/a%20b http.filename=a b
   # [2/2] ADD https://h/a%20b /d/
2: copy /a b to /d/ [0,1] <- 0 1
   # [2/2] ADD https://h/a%20b /d/
",
        ),
        (
            "",
            r"
FROM alpine
ADD --checksum=sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 https://h/f /d
",
            r"
0: docker-image://docker.io/library/alpine:latest for linux/amd64
   # [1/2] FROM docker.io/library/alpine:latest
1: https://h/f http.checksum=sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 http.filename=f
   # [2/2] ADD --checksum=sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 https://h/f /d
2: copy /f to /d [0,1] <- 0 1
   # [2/2] ADD --checksum=sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 https://h/f /d
",
        ),
        (
            "",
            r"
FROM alpine
ADD --checksum=x https://h/f /d
",
            r"
error: invalid checksum digest format [2]
",
        ),
        (
            "",
            r"
FROM alpine
ADD --checksum=x a /d
",
            r"
error: checksum requires HTTP(S) or Git sources [2]
",
        ),
        (
            "",
            r"
FROM alpine
ADD --checksum=x https://h/f https://h/g /d/
",
            r"
error: checksum can't be specified for multiple sources [2]
",
        ),
        (
            "",
            r"
FROM alpine
COPY https://h/f /d
",
            r"
error: source can't be a URL for COPY [2]
",
        ),
        (
            "",
            r"
FROM alpine
COPY --chown=1 https://h/f.git /d
",
            r"
error: source can't be a git ref for COPY [2]
",
        ),
    ]);
}

#[test]
fn repositories_can_be_added() {
    check(&[
        (
            "",
            r"
FROM alpine
ADD https://h/a/b.git#v1:sub /d
",
            r"
0: docker-image://docker.io/library/alpine:latest for linux/amd64
   # [1/2] FROM docker.io/library/alpine:latest
1: git://h/a/b.git#v1:sub git.authheadersecret=GIT_AUTH_HEADER git.authtokensecret=GIT_AUTH_TOKEN git.fullurl=https://h/a/b.git
   # [2/2] ADD https://h/a/b.git#v1:sub /d
2: copy / to /d [0,1] <- 0 1
   # [2/2] ADD https://h/a/b.git#v1:sub /d
",
        ),
        (
            "",
            r"
FROM alpine
ADD --keep-git-dir https://h/a/b.git /d
",
            r"
0: docker-image://docker.io/library/alpine:latest for linux/amd64
   # [1/2] FROM docker.io/library/alpine:latest
1: git://h/a/b.git git.authheadersecret=GIT_AUTH_HEADER git.authtokensecret=GIT_AUTH_TOKEN git.fullurl=https://h/a/b.git git.keepgitdir=true
   # [2/2] ADD --keep-git-dir https://h/a/b.git /d
2: copy / to /d [0,1] <- 0 1
   # [2/2] ADD --keep-git-dir https://h/a/b.git /d
",
        ),
        (
            "",
            r"
FROM alpine
ADD git@h:a/b.git /d
",
            r"
0: docker-image://docker.io/library/alpine:latest for linux/amd64
   # [1/2] FROM docker.io/library/alpine:latest
1: git://h/a/b.git git.authheadersecret=GIT_AUTH_HEADER git.authtokensecret=GIT_AUTH_TOKEN git.fullurl=git@h:a/b.git git.mountsshsock=default
   # [2/2] ADD git@h:a/b.git /d
2: copy / to /d [0,1] <- 0 1
   # [2/2] ADD git@h:a/b.git /d
",
        ),
        (
            "",
            r"
FROM alpine
ADD https://h/a/b.git?tag=v1&submodules=false&checksum=abc /d
",
            r"
0: docker-image://docker.io/library/alpine:latest for linux/amd64
   # [1/2] FROM docker.io/library/alpine:latest
1: git://h/a/b.git#refs/tags/v1 git.authheadersecret=GIT_AUTH_HEADER git.authtokensecret=GIT_AUTH_TOKEN git.checksum=abc git.fullurl=https://h/a/b.git git.skipsubmodules=true
   # [2/2] ADD https://h/a/b.git?tag=v1&submodules=false&checksum=abc /d
2: copy / to /d [0,1] <- 0 1
   # [2/2] ADD https://h/a/b.git?tag=v1&submodules=false&checksum=abc /d
",
        ),
        (
            "",
            r"
FROM alpine
ADD --keep-git-dir=false https://h/a/b.git?keep-git-dir=1 /d
",
            r"
error: inconsistent keep-git-dir configuration [2]
",
        ),
        (
            "",
            r"
FROM alpine
ADD --checksum=abc https://h/a/b.git?checksum=def /d
",
            r#"
error: checksum mismatch "abc" != "def" [2]
"#,
        ),
        (
            "",
            r"
FROM alpine
ADD https://h/a/b.git?nope=1 /d
",
            r#"
error: unexpected query "nope" [2]
"#,
        ),
        (
            "",
            r"
FROM alpine
ADD --checksum=abcdef0123456789abcdef0123456789abcdef01 https://h/a/b.git /d
",
            r"
0: docker-image://docker.io/library/alpine:latest for linux/amd64
   # [1/2] FROM docker.io/library/alpine:latest
1: git://h/a/b.git git.authheadersecret=GIT_AUTH_HEADER git.authtokensecret=GIT_AUTH_TOKEN git.checksum=abcdef0123456789abcdef0123456789abcdef01 git.fullurl=https://h/a/b.git
   # [2/2] ADD --checksum=abcdef0123456789abcdef0123456789abcdef01 https://h/a/b.git /d
2: copy / to /d [0,1] <- 0 1
   # [2/2] ADD --checksum=abcdef0123456789abcdef0123456789abcdef01 https://h/a/b.git /d
",
        ),
        (
            "",
            r"
FROM alpine
ADD github.com/a/b /d
",
            r#"
0: docker-image://docker.io/library/alpine:latest for linux/amd64
   # [1/2] FROM docker.io/library/alpine:latest
1: local://context local.followpaths=["github.com/a/b"] local.unique=
   # [internal] load build context
2: copy /github.com/a/b to /d follow contents unpack wildcard [0,1] <- 0 1
   # [2/2] ADD github.com/a/b /d
"#,
        ),
    ]);
}

#[test]
fn only_the_paths_that_are_used_are_asked_for() {
    check(&[
        (
            "",
            r"
FROM alpine
COPY a b /c/
RUN --mount=source=d,target=/d one
ADD e /f
",
            r#"
0: docker-image://docker.io/library/alpine:latest for linux/amd64
   # [stage-0 1/4] FROM docker.io/library/alpine:latest
1: local://context local.followpaths=["a","b","d","e"] local.unique=
   # [internal] load build context
2: copy /a to /c/ follow contents wildcard [0,1]; copy /b to /c/ follow contents wildcard [2,1] <- 0 1
   # [stage-0 2/4] COPY a b /c/
3: exec ["/bin/sh", "-c", "one"] in / env=PATH=/bin mount=bind:/d:input1/d:ro for linux/amd64 <- 2 1
   # [stage-0 3/4] RUN --mount=source=d,target=/d one
4: copy /e to /f follow contents unpack wildcard [0,1] <- 3 1
   # [stage-0 4/4] ADD e /f
"#,
        ),
        (
            "",
            r"
FROM alpine
COPY . /
COPY a /b
",
            r"
0: docker-image://docker.io/library/alpine:latest for linux/amd64
   # [1/3] FROM docker.io/library/alpine:latest
1: local://context local.unique=
   # [internal] load build context
2: copy / to / follow contents wildcard [0,1] <- 0 1
   # [2/3] COPY . /
3: copy /a to /b follow contents wildcard [0,1] <- 2 1
   # [3/3] COPY a /b
",
        ),
        (
            "",
            r"
FROM alpine AS unused
COPY z /z
FROM alpine
COPY a /b
",
            r#"
0: docker-image://docker.io/library/alpine:latest for linux/amd64
   # [stage-1 1/2] FROM docker.io/library/alpine:latest
1: local://context local.followpaths=["a"] local.unique=
   # [internal] load build context
2: copy /a to /b follow contents wildcard [0,1] <- 0 1
   # [stage-1 2/2] COPY a /b
"#,
        ),
    ]);
}
