//! The config of the image that a file makes, and what it inherits.

use crate::world::check;

#[test]
fn an_image_has_what_its_file_says() {
    check(&[
        (
            "image only",
            r"
FROM alpine
",
            r#"
linux/amd64 by ""
Cmd: ["sh"]
Env: ["PATH=/bin"]
by: base
"#,
        ),
        (
            "image only",
            r"
FROM scratch
",
            r#"
linux/amd64 by ""
Env: ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
WorkingDir: "/"
"#,
        ),
        (
            "image only",
            r"
FROM alpine
ENV A=b PATH=/x C=
ENV A=c
",
            r#"
linux/amd64 by ""
Cmd: ["sh"]
Env: ["PATH=/x","A=c","C="]
by: base
by: ENV A=b PATH=/x C= (no layer)
by: ENV A=c (no layer)
"#,
        ),
        (
            "image only",
            r#"
FROM alpine
LABEL a=b "c d"="e f"
LABEL a=z
"#,
            r#"
linux/amd64 by ""
Cmd: ["sh"]
Env: ["PATH=/bin"]
Labels: {"a":"z","c d":"e f"}
by: base
by: LABEL a=b c d=e f (no layer)
by: LABEL a=z (no layer)
"#,
        ),
        (
            "image only label:a=option",
            r"
FROM alpine
LABEL a=file b=file
",
            r#"
linux/amd64 by ""
Cmd: ["sh"]
Env: ["PATH=/bin"]
Labels: {"a":"option","b":"file"}
by: base
by: LABEL a=file b=file (no layer)
"#,
        ),
        (
            "image only",
            r"
FROM alpine
CMD echo $A
",
            r#"
linux/amd64 by ""
ArgsEscaped: true
Cmd: ["/bin/sh","-c","echo $A"]
Env: ["PATH=/bin"]
by: base
by: CMD ["/bin/sh" "-c" "echo $A"] (no layer)
"#,
        ),
        (
            "image only",
            r#"
FROM alpine
CMD ["a", "b"]
"#,
            r#"
linux/amd64 by ""
ArgsEscaped: true
Cmd: ["a","b"]
Env: ["PATH=/bin"]
by: base
by: CMD ["a" "b"] (no layer)
"#,
        ),
        (
            "image only",
            r"
FROM alpine
CMD []
",
            r#"
linux/amd64 by ""
ArgsEscaped: true
Env: ["PATH=/bin"]
by: base
by: CMD [] (no layer)
"#,
        ),
        (
            "image only",
            r#"
FROM alpine
ENTRYPOINT ["e"]
CMD ["c"]
"#,
            r#"
linux/amd64 by ""
ArgsEscaped: true
Cmd: ["c"]
Entrypoint: ["e"]
Env: ["PATH=/bin"]
by: base
by: ENTRYPOINT ["e"] (no layer)
by: CMD ["c"] (no layer)
"#,
        ),
        (
            "image only",
            r#"
FROM alpine
CMD ["c"]
ENTRYPOINT ["e"]
"#,
            r#"
linux/amd64 by ""
ArgsEscaped: true
Cmd: ["c"]
Entrypoint: ["e"]
Env: ["PATH=/bin"]
by: base
by: CMD ["c"] (no layer)
by: ENTRYPOINT ["e"] (no layer)
"#,
        ),
        (
            "image only",
            r"
FROM alpine
ENTRYPOINT e f
",
            r#"
linux/amd64 by ""
Entrypoint: ["/bin/sh","-c","e f"]
Env: ["PATH=/bin"]
by: base
by: ENTRYPOINT ["/bin/sh" "-c" "e f"] (no layer)
"#,
        ),
        (
            "image only",
            r#"
FROM alpine
SHELL ["/bin/bash", "-c"]
CMD x
ENTRYPOINT y
"#,
            r#"
linux/amd64 by ""
ArgsEscaped: true
Cmd: ["/bin/bash","-c","x"]
Entrypoint: ["/bin/bash","-c","y"]
Env: ["PATH=/bin"]
Shell: ["/bin/bash","-c"]
by: base
by: SHELL [/bin/bash -c] (no layer)
by: CMD ["/bin/bash" "-c" "x"] (no layer)
by: ENTRYPOINT ["/bin/bash" "-c" "y"] (no layer)
"#,
        ),
        (
            "image only",
            r"
FROM alpine
USER u:g
WORKDIR /a/../b
WORKDIR c
",
            r#"
linux/amd64 by ""
Cmd: ["sh"]
Env: ["PATH=/bin"]
User: "u:g"
WorkingDir: "/b/c"
by: base
by: USER u:g (no layer)
by: WORKDIR /a/../b
by: WORKDIR /b/c
"#,
        ),
        (
            "image only",
            r#"
FROM alpine
VOLUME /a /b
VOLUME ["/c d"]
"#,
            r#"
linux/amd64 by ""
Cmd: ["sh"]
Env: ["PATH=/bin"]
Volumes: {"/a":{},"/b":{},"/c d":{}}
by: base
by: VOLUME [/a /b] (no layer)
by: VOLUME [/c d] (no layer)
"#,
        ),
        (
            "image only",
            r"
FROM alpine
MAINTAINER me <me@host>
",
            r#"
linux/amd64 by "me <me@host>"
Cmd: ["sh"]
Env: ["PATH=/bin"]
by: base
by: MAINTAINER me <me@host> (no layer)
"#,
        ),
        (
            "image only",
            r"
FROM alpine
RUN x
COPY a /b
ADD c /d
WORKDIR /w
COPY <<E /e
E
",
            r#"
linux/amd64 by ""
Cmd: ["sh"]
Env: ["PATH=/bin"]
WorkingDir: "/w"
by: base
by: RUN /bin/sh -c x # buildkit
by: COPY a /b # buildkit
by: ADD c /d # buildkit
by: WORKDIR /w
by: COPY <<E /e # buildkit
"#,
        ),
    ]);
}

#[test]
fn an_image_inherits_what_its_file_does_not_change() {
    check(&[
        (
            "image only",
            r"
FROM full
",
            r#"
linux/amd64 by ""
Cmd: ["sh"]
Entrypoint: ["/init"]
Env: ["PATH=/bin"]
ExposedPorts: {"80/tcp":{}}
Healthcheck: {"Test":["CMD","old"]}
Labels: {"from":"base"}
Shell: ["/bin/bash","-c"]
StopSignal: "SIGINT"
User: "app"
Volumes: {"/data":{}}
WorkingDir: "/srv"
by: base
"#,
        ),
        (
            "image only",
            r#"
FROM full
CMD ["c"]
"#,
            r#"
linux/amd64 by ""
ArgsEscaped: true
Cmd: ["c"]
Entrypoint: ["/init"]
Env: ["PATH=/bin"]
ExposedPorts: {"80/tcp":{}}
Healthcheck: {"Test":["CMD","old"]}
Labels: {"from":"base"}
Shell: ["/bin/bash","-c"]
StopSignal: "SIGINT"
User: "app"
Volumes: {"/data":{}}
WorkingDir: "/srv"
by: base
by: CMD ["c"] (no layer)
"#,
        ),
        (
            "image only",
            r"
FROM full
ENTRYPOINT []
",
            r#"
linux/amd64 by ""
Env: ["PATH=/bin"]
ExposedPorts: {"80/tcp":{}}
Healthcheck: {"Test":["CMD","old"]}
Labels: {"from":"base"}
Shell: ["/bin/bash","-c"]
StopSignal: "SIGINT"
User: "app"
Volumes: {"/data":{}}
WorkingDir: "/srv"
by: base
by: ENTRYPOINT [] (no layer)
"#,
        ),
        (
            "image only",
            r#"
FROM full
ENTRYPOINT ["e"]
"#,
            r#"
linux/amd64 by ""
Entrypoint: ["e"]
Env: ["PATH=/bin"]
ExposedPorts: {"80/tcp":{}}
Healthcheck: {"Test":["CMD","old"]}
Labels: {"from":"base"}
Shell: ["/bin/bash","-c"]
StopSignal: "SIGINT"
User: "app"
Volumes: {"/data":{}}
WorkingDir: "/srv"
by: base
by: ENTRYPOINT ["e"] (no layer)
"#,
        ),
        (
            "image only",
            r"
FROM full
LABEL from=me x=y
EXPOSE 90
VOLUME /more
USER root
WORKDIR sub
STOPSIGNAL 9
",
            r#"
linux/amd64 by ""
Cmd: ["sh"]
Entrypoint: ["/init"]
Env: ["PATH=/bin"]
ExposedPorts: {"80/tcp":{},"90/tcp":{}}
Healthcheck: {"Test":["CMD","old"]}
Labels: {"from":"me","x":"y"}
Shell: ["/bin/bash","-c"]
StopSignal: "9"
User: "root"
Volumes: {"/data":{},"/more":{}}
WorkingDir: "/srv/sub"
by: base
by: LABEL from=me x=y (no layer)
by: EXPOSE [90/tcp] (no layer)
by: VOLUME [/more] (no layer)
by: USER root (no layer)
by: WORKDIR /srv/sub
by: STOPSIGNAL 9 (no layer)
"#,
        ),
        (
            "image only",
            r"
FROM full
HEALTHCHECK NONE
",
            r#"
linux/amd64 by ""
Cmd: ["sh"]
Entrypoint: ["/init"]
Env: ["PATH=/bin"]
ExposedPorts: {"80/tcp":{}}
Healthcheck: {"Test":["NONE"]}
Labels: {"from":"base"}
Shell: ["/bin/bash","-c"]
StopSignal: "SIGINT"
User: "app"
Volumes: {"/data":{}}
WorkingDir: "/srv"
by: base
by: HEALTHCHECK {Test:[NONE] Interval:0s Timeout:0s StartPeriod:0s StartInterval:0s Retries:0} (no layer)
"#,
        ),
        (
            "image only",
            r"
FROM full AS a
ENV X=y
FROM a
ENV Z=$X
",
            r#"
linux/amd64 by ""
Cmd: ["sh"]
Entrypoint: ["/init"]
Env: ["PATH=/bin","X=y","Z=y"]
ExposedPorts: {"80/tcp":{}}
Healthcheck: {"Test":["CMD","old"]}
Labels: {"from":"base"}
Shell: ["/bin/bash","-c"]
StopSignal: "SIGINT"
User: "app"
Volumes: {"/data":{}}
WorkingDir: "/srv"
by: base
by: ENV X=y (no layer)
by: ENV Z=y (no layer)
"#,
        ),
        (
            "image only",
            r#"
FROM alpine AS a
ENTRYPOINT ["e"]
CMD ["c"]
FROM a
"#,
            r#"
linux/amd64 by ""
ArgsEscaped: true
Cmd: ["c"]
Entrypoint: ["e"]
Env: ["PATH=/bin"]
by: base
by: ENTRYPOINT ["e"] (no layer)
by: CMD ["c"] (no layer)
"#,
        ),
        (
            "image only",
            r#"
FROM alpine AS a
CMD ["c"]
FROM a
ENTRYPOINT ["e"]
"#,
            r#"
linux/amd64 by ""
ArgsEscaped: true
Entrypoint: ["e"]
Env: ["PATH=/bin"]
by: base
by: CMD ["c"] (no layer)
by: ENTRYPOINT ["e"] (no layer)
"#,
        ),
    ]);
}
