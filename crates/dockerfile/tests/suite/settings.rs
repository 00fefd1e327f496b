//! Settings of an image that have rules of their own: ports, signals, health, and Windows.

use crate::world::check;

#[test]
fn ports_are_normalised() {
    check(&[
        (
            "image only warnings",
            r"
FROM alpine
EXPOSE 80 443/tcp 53/UDP
",
            r#"
linux/amd64 by ""
Cmd: ["sh"]
Env: ["PATH=/bin"]
ExposedPorts: {"443/tcp":{},"53/udp":{},"80/tcp":{}}
by: base
by: EXPOSE [443/tcp 53/udp 80/tcp] (no layer)
ExposeProtoCasing: Defined protocol '53/UDP' in EXPOSE instruction should be lowercase (line 2)
"#,
        ),
        (
            "image only warnings",
            r"
FROM alpine
EXPOSE 7000-7002/udp
",
            r#"
linux/amd64 by ""
Cmd: ["sh"]
Env: ["PATH=/bin"]
ExposedPorts: {"7000/udp":{},"7001/udp":{},"7002/udp":{}}
by: base
by: EXPOSE [7000/udp 7001/udp 7002/udp] (no layer)
"#,
        ),
        (
            "image only warnings",
            r"
FROM alpine
EXPOSE 127.0.0.1:80:8080 5000:6000
",
            r#"
linux/amd64 by ""
Cmd: ["sh"]
Env: ["PATH=/bin"]
ExposedPorts: {"6000/tcp":{},"8080/tcp":{}}
by: base
by: EXPOSE [8080/tcp 6000/tcp] (no layer)
ExposeInvalidFormat: EXPOSE instruction should not define an IP address or host-port mapping, found '127.0.0.1:80:8080' (line 2)
ExposeInvalidFormat: EXPOSE instruction should not define an IP address or host-port mapping, found '5000:6000' (line 2)
"#,
        ),
        (
            "image only warnings",
            r#"
FROM alpine
ARG P="80 90"
EXPOSE $P
"#,
            r#"
linux/amd64 by ""
Cmd: ["sh"]
Env: ["PATH=/bin"]
ExposedPorts: {"80/tcp":{},"90/tcp":{}}
by: base
by: ARG P=80 90 (no layer)
by: EXPOSE [80/tcp 90/tcp] (no layer)
"#,
        ),
        (
            "",
            r"
FROM alpine
EXPOSE x
",
            r"
error: invalid containerPort: x [2]
",
        ),
        (
            "",
            r"
FROM alpine
EXPOSE 80/x
",
            r#"
error: invalid port: "80/x": invalid proto: x [2]
"#,
        ),
        (
            "",
            r"
FROM alpine
EXPOSE 65536
",
            r"
error: invalid containerPort: 65536 [2]
",
        ),
        (
            "",
            r"
FROM alpine
EXPOSE 9-1
",
            r"
error: invalid containerPort: 9-1 [2]
",
        ),
        (
            "",
            r"
FROM alpine
EXPOSE /tcp
",
            r#"
error: invalid port: "/tcp": no port specified [2]
"#,
        ),
        (
            "",
            r"
FROM alpine
EXPOSE 1-3:1-2
",
            r"
error: invalid ranges specified for container and host Ports: 1-2 and 1-3 [2]
",
        ),
    ]);
}

#[test]
fn signals_are_known_by_name_and_number() {
    check(&[
        (
            "image only",
            r"
FROM alpine
STOPSIGNAL SIGKILL
",
            r#"
linux/amd64 by ""
Cmd: ["sh"]
Env: ["PATH=/bin"]
StopSignal: "SIGKILL"
by: base
by: STOPSIGNAL SIGKILL (no layer)
"#,
        ),
        (
            "image only",
            r"
FROM alpine
STOPSIGNAL kill
",
            r#"
linux/amd64 by ""
Cmd: ["sh"]
Env: ["PATH=/bin"]
StopSignal: "kill"
by: base
by: STOPSIGNAL kill (no layer)
"#,
        ),
        (
            "image only",
            r"
FROM alpine
STOPSIGNAL 9
",
            r#"
linux/amd64 by ""
Cmd: ["sh"]
Env: ["PATH=/bin"]
StopSignal: "9"
by: base
by: STOPSIGNAL 9 (no layer)
"#,
        ),
        (
            "image only",
            r"
FROM alpine
STOPSIGNAL SIGRTMIN+3
",
            r#"
linux/amd64 by ""
Cmd: ["sh"]
Env: ["PATH=/bin"]
StopSignal: "SIGRTMIN+3"
by: base
by: STOPSIGNAL SIGRTMIN+3 (no layer)
"#,
        ),
        (
            "image only",
            r"
FROM alpine
STOPSIGNAL RTMAX
",
            r#"
linux/amd64 by ""
Cmd: ["sh"]
Env: ["PATH=/bin"]
StopSignal: "RTMAX"
by: base
by: STOPSIGNAL RTMAX (no layer)
"#,
        ),
        (
            "",
            r"
FROM alpine
STOPSIGNAL nope
",
            r"
error: invalid signal: nope [2]
",
        ),
        (
            "",
            r"
FROM alpine
STOPSIGNAL 0
",
            r"
error: invalid signal: 0 [2]
",
        ),
        (
            "",
            r"
FROM alpine
STOPSIGNAL -1
",
            r"
0: docker-image://docker.io/library/alpine:latest for linux/amd64
   # [1/1] FROM docker.io/library/alpine:latest
",
        ),
        (
            "image only arg:S=TERM",
            r"
FROM alpine
ARG S=KILL
STOPSIGNAL $S
",
            r#"
linux/amd64 by ""
Cmd: ["sh"]
Env: ["PATH=/bin"]
StopSignal: "TERM"
by: base
by: ARG S=TERM (no layer)
by: STOPSIGNAL TERM (no layer)
"#,
        ),
    ]);
}

#[test]
fn health_is_asked_for_as_the_file_says() {
    check(&[
        (
            "image only",
            r"
FROM alpine
HEALTHCHECK CMD curl x
",
            r#"
linux/amd64 by ""
Cmd: ["sh"]
Env: ["PATH=/bin"]
Healthcheck: {"Test":["CMD-SHELL","curl x"]}
by: base
by: HEALTHCHECK {Test:[CMD-SHELL curl x] Interval:0s Timeout:0s StartPeriod:0s StartInterval:0s Retries:0} (no layer)
"#,
        ),
        (
            "image only",
            r#"
FROM alpine
HEALTHCHECK --interval=1m30s --timeout=2s --start-period=3s --start-interval=4s --retries=5 CMD ["a", "b"]
"#,
            r#"
linux/amd64 by ""
Cmd: ["sh"]
Env: ["PATH=/bin"]
Healthcheck: {"Interval":90000000000,"Retries":5,"StartInterval":4000000000,"StartPeriod":3000000000,"Test":["CMD","a","b"],"Timeout":2000000000}
by: base
by: HEALTHCHECK {Test:[CMD a b] Interval:1m30s Timeout:2s StartPeriod:3s StartInterval:4s Retries:5} (no layer)
"#,
        ),
        (
            "image only",
            r"
FROM alpine
HEALTHCHECK NONE
",
            r#"
linux/amd64 by ""
Cmd: ["sh"]
Env: ["PATH=/bin"]
Healthcheck: {"Test":["NONE"]}
by: base
by: HEALTHCHECK {Test:[NONE] Interval:0s Timeout:0s StartPeriod:0s StartInterval:0s Retries:0} (no layer)
"#,
        ),
        (
            "image only",
            r"
FROM alpine
HEALTHCHECK CMD a
HEALTHCHECK NONE
",
            r#"
linux/amd64 by ""
Cmd: ["sh"]
Env: ["PATH=/bin"]
Healthcheck: {"Test":["NONE"]}
by: base
by: HEALTHCHECK {Test:[CMD-SHELL a] Interval:0s Timeout:0s StartPeriod:0s StartInterval:0s Retries:0} (no layer)
by: HEALTHCHECK {Test:[NONE] Interval:0s Timeout:0s StartPeriod:0s StartInterval:0s Retries:0} (no layer)
"#,
        ),
    ]);
}

#[test]
fn windows_has_rules_of_its_own() {
    check(&[
        (
            "image only platform=windows/amd64",
            r"
FROM windows
WORKDIR C:\\app
CMD x y
",
            r#"
windows/amd64 by ""
ArgsEscaped: true
Cmd: ["cmd","/S","/C","x y"]
Env: ["PATH=C:\\Windows"]
WorkingDir: "\\app"
by: base
by: WORKDIR /app
by: CMD ["cmd" "/S" "/C" "x y"] (no layer)
"#,
        ),
        (
            "platform=windows/amd64",
            r"
FROM windows
WORKDIR /app
RUN dir
COPY a C:/b
",
            r#"
0: docker-image://docker.io/library/windows:latest for windows/amd64
   # [1/4] FROM docker.io/library/windows:latest
1: mkdir /app 755 [0,-1] <- 0
   # [2/4] WORKDIR /app
2: exec ["cmd", "/S", "/C", "dir"] in /app env=PATH=C:\Windows for windows/amd64 <- 1
   # [3/4] RUN dir
3: local://context local.followpaths=["a"] local.unique=
   # [internal] load build context
4: copy /a to /b follow contents wildcard [0,1] <- 2 3
   # [4/4] COPY a C:/b
"#,
        ),
        (
            "platform=windows/amd64",
            r"
# escape=`
FROM windows
WORKDIR D:\x
",
            r"
error: normalizing workdir: normalizing working directory: removing drive letter: The specified path is not on the system drive (C:) [3]
",
        ),
        (
            "platform=windows/amd64",
            r"
# escape=`
FROM windows
COPY a \\host\share\
",
            r"
error: removing drive letter: UNC paths are not supported [3]
",
        ),
        (
            "platform=windows/amd64",
            r"
FROM windows
STOPSIGNAL 9
",
            r"
0: docker-image://docker.io/library/windows:latest for windows/amd64
   # [1/1] FROM docker.io/library/windows:latest
",
        ),
        (
            "platform=windows/amd64",
            r"
FROM windows
RUN --mount=type=secret,id=x one
",
            r"
error: secret target is required on Windows, e.g. --mount=type=secret,id=x,target=C:/path/to/secret [2]
",
        ),
        (
            "platform=windows/amd64",
            r"
# escape=`
FROM windows
WORKDIR C:
",
            r#"
error: normalizing workdir: normalizing working directory: removing drive letter: No relative path specified in "C:" [3]
"#,
        ),
    ]);
}
