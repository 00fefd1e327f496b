//! RUN: forms, mounts, networks and what the options of a build add.

use crate::world::check;

#[test]
fn a_command_line_is_run_by_the_shell_unless_it_is_a_list() {
    check(&[
        (
            "alpine",
            r"
RUN echo one && echo two
",
            r#"
1: exec ["/bin/sh", "-c", "echo one && echo two"] in / env=PATH=/bin for linux/amd64 <- 0
   # [2/2] RUN echo one && echo two
"#,
        ),
        (
            "alpine",
            r#"
RUN ["echo", "$A", "b c"]
"#,
            r#"
1: exec ["echo", "$A", "b c"] in / env=PATH=/bin for linux/amd64 <- 0
   # [2/2] RUN ["echo", "$A", "b c"]
"#,
        ),
        (
            "alpine",
            r#"
SHELL ["/bin/bash", "-ec"]
RUN echo one
"#,
            r#"
1: exec ["/bin/bash", "-ec", "echo one"] in / env=PATH=/bin for linux/amd64 <- 0
   # [2/2] RUN echo one
"#,
        ),
        (
            "",
            r"
FROM full
RUN echo one
",
            r#"
0: docker-image://docker.io/library/full:latest for linux/amd64
   # [1/2] FROM docker.io/library/full:latest
1: exec ["/bin/bash", "-c", "echo one"] in /srv user=app env=PATH=/bin for linux/amd64 <- 0
   # [2/2] RUN echo one
"#,
        ),
        (
            "alpine",
            r"
RUN echo \
  # comment
  two
",
            r#"
1: exec ["/bin/sh", "-c", "echo   two"] in / env=PATH=/bin for linux/amd64 <- 0
   # [2/2] RUN echo   two
"#,
        ),
    ]);
}

#[test]
fn a_heredoc_is_a_script_or_a_file_of_its_step() {
    check(&[
        (
            "alpine",
            r"
RUN <<EOF
echo one
echo two
EOF
",
            r#"
1: exec ["/bin/sh", "-c", "echo one\necho two\n"] in / env=PATH=/bin for linux/amd64 <- 0
   # [2/2] RUN <<EOF (echo one...)
"#,
        ),
        (
            "",
            r"
FROM alpine
RUN <<EOF
#!/usr/bin/env python
print(1)
EOF
",
            r##"
0: docker-image://docker.io/library/alpine:latest for linux/amd64
   # [1/2] FROM docker.io/library/alpine:latest
1: mkfile /EOF 755 "#!/usr/bin/env python\nprint(1)\n" [-1,-1]
   # [internal] preparing inline document
2: exec ["/bin/sh", "-c", "/dev/pipes/EOF"] in / env=PATH=/bin mount=bind:/dev/pipes/:input1/:ro for linux/amd64 <- 0 1
   # [2/2] RUN <<EOF (#!/usr/bin/env python...)
"##,
        ),
        (
            "",
            r"
FROM alpine
RUN <<EOF bash -x
echo one
EOF
",
            r#"
0: docker-image://docker.io/library/alpine:latest for linux/amd64
   # [1/2] FROM docker.io/library/alpine:latest
1: exec ["/bin/sh", "-c", "<<EOF bash -x\necho one\nEOF"] in / env=PATH=/bin for linux/amd64 <- 0
   # [2/2] RUN <<EOF bash -x
"#,
        ),
        (
            "",
            "FROM alpine\nRUN <<-EOF\n\techo one\n\tEOF\n",
            r#"
0: docker-image://docker.io/library/alpine:latest for linux/amd64
   # [1/2] FROM docker.io/library/alpine:latest
1: exec ["/bin/sh", "-c", "echo one\n"] in / env=PATH=/bin for linux/amd64 <- 0
   # [2/2] RUN <<-EOF (echo one)
"#,
        ),
        (
            "alpine",
            r"
RUN cat <<A - <<B
a
A
b
B
",
            r#"
1: exec ["/bin/sh", "-c", "cat <<A - <<B\na\nA\nb\nB"] in / env=PATH=/bin for linux/amd64 <- 0
   # [2/2] RUN cat <<A - <<B
"#,
        ),
        (
            "alpine",
            r#"
SHELL ["bash"]
RUN <<EOF
echo one
EOF
"#,
            r#"
1: exec ["bash", "echo one\n"] in / env=PATH=/bin for linux/amd64 <- 0
   # [2/2] RUN <<EOF (echo one)
"#,
        ),
    ]);
}

#[test]
fn mounts_are_sorted_and_have_their_defaults() {
    check(&[
        (
            "",
            r"
FROM alpine
RUN --mount=type=cache,target=/b --mount=type=cache,target=/a one
",
            r#"
0: docker-image://docker.io/library/alpine:latest for linux/amd64
   # [stage-0 1/2] FROM docker.io/library/alpine:latest
1: exec ["/bin/sh", "-c", "one"] in / env=PATH=/bin mount=cache:/a:id=//a:shared mount=cache:/b:id=//b:shared for linux/amd64 <- 0
   # [stage-0 2/2] RUN --mount=type=cache,target=/b --mount=type=cache,target=/a one
"#,
        ),
        (
            "",
            r"
FROM alpine
RUN --mount=type=cache,target=/c,id=x,sharing=locked,mode=0750,uid=1,gid=2 one
",
            r#"
0: docker-image://docker.io/library/alpine:latest for linux/amd64
   # [stage-0 1/2] FROM docker.io/library/alpine:latest
1: mkdir /cache 750 owner=1:2 [-1,-1]
   # [internal] setting cache mount permissions
2: exec ["/bin/sh", "-c", "one"] in / env=PATH=/bin mount=cache:/c:input1/cache:id=/x:locked for linux/amd64 <- 0 1
   # [stage-0 2/2] RUN --mount=type=cache,target=/c,id=x,sharing=locked,mode=0750,uid=1,gid=2 one
"#,
        ),
        (
            "namespace=ns",
            r"
FROM alpine
RUN --mount=type=cache,target=/c,sharing=private,ro one
",
            r#"
0: docker-image://docker.io/library/alpine:latest for linux/amd64
   # [stage-0 1/2] FROM docker.io/library/alpine:latest
1: exec ["/bin/sh", "-c", "one"] in / env=PATH=/bin mount=cache:/c:ro:id=ns//c:private for linux/amd64 <- 0
   # [stage-0 2/2] RUN --mount=type=cache,target=/c,sharing=private,ro one
"#,
        ),
        (
            "",
            r"
FROM alpine AS base
FROM alpine
RUN --mount=type=cache,target=/c,from=base,source=/x one
",
            r#"
0: docker-image://docker.io/library/alpine:latest for linux/amd64
   # [base 1/1] FROM docker.io/library/alpine:latest
1: exec ["/bin/sh", "-c", "one"] in / env=PATH=/bin mount=cache:/c:input0/x:id=//c:shared for linux/amd64 <- 0
   # [stage-1 2/2] RUN --mount=type=cache,target=/c,from=base,source=/x one
"#,
        ),
        (
            "",
            r"
FROM alpine
RUN --mount=target=/ctx one
RUN --mount=source=sub,target=/ctx,rw two
",
            r#"
0: docker-image://docker.io/library/alpine:latest for linux/amd64
   # [stage-0 1/3] FROM docker.io/library/alpine:latest
1: local://context local.unique=
   # [internal] load build context
2: exec ["/bin/sh", "-c", "one"] in / env=PATH=/bin mount=bind:/ctx:input1:ro for linux/amd64 <- 0 1
   # [stage-0 2/3] RUN --mount=target=/ctx one
3: exec ["/bin/sh", "-c", "two"] in / env=PATH=/bin mount=bind:/ctx:input1/sub for linux/amd64 <- 2 1
   # [stage-0 3/3] RUN --mount=source=sub,target=/ctx,rw two
"#,
        ),
        (
            "",
            r"
FROM alpine
RUN --mount=type=tmpfs,target=/t --mount=type=tmpfs,target=/u,size=1m one
",
            r#"
0: docker-image://docker.io/library/alpine:latest for linux/amd64
   # [stage-0 1/2] FROM docker.io/library/alpine:latest
1: exec ["/bin/sh", "-c", "one"] in / env=PATH=/bin mount=tmpfs:/t:size=0 mount=tmpfs:/u:size=1048576 for linux/amd64 <- 0
   # [stage-0 2/2] RUN --mount=type=tmpfs,target=/t --mount=type=tmpfs,target=/u,size=1m one
"#,
        ),
        (
            "",
            r"
FROM alpine
RUN --mount=type=secret,id=s one
RUN --mount=type=secret,id=s,target=/x,required,mode=0440,uid=1,gid=2 two
",
            r#"
0: docker-image://docker.io/library/alpine:latest for linux/amd64
   # [stage-0 1/3] FROM docker.io/library/alpine:latest
1: exec ["/bin/sh", "-c", "one"] in / env=PATH=/bin mount=secret:/run/secrets/s:id=s:0:0:400:optional=true for linux/amd64 <- 0
   # [stage-0 2/3] RUN --mount=type=secret,id=s one
2: exec ["/bin/sh", "-c", "two"] in / env=PATH=/bin mount=secret:/x:id=s:1:2:440:optional=false for linux/amd64 <- 1
   # [stage-0 3/3] RUN --mount=type=secret,id=s,target=/x,required,mode=0440,uid=1,gid=2 two
"#,
        ),
        (
            "",
            r"
FROM alpine
RUN --mount=type=secret,id=s,env=TOKEN one
RUN --mount=type=secret,src=a/b two
RUN --mount=type=secret,target=rel three
",
            r#"
0: docker-image://docker.io/library/alpine:latest for linux/amd64
   # [stage-0 1/4] FROM docker.io/library/alpine:latest
1: exec ["/bin/sh", "-c", "one"] in / env=PATH=/bin secret=s:TOKEN:true for linux/amd64 <- 0
   # [stage-0 2/4] RUN --mount=type=secret,id=s,env=TOKEN one
2: exec ["/bin/sh", "-c", "two"] in / env=PATH=/bin mount=secret:/run/secrets/b:id=a/b:0:0:400:optional=true for linux/amd64 <- 1
   # [stage-0 3/4] RUN --mount=type=secret,src=a/b two
3: exec ["/bin/sh", "-c", "three"] in / env=PATH=/bin mount=secret:rel:id=rel:0:0:400:optional=true for linux/amd64 <- 2
   # [stage-0 4/4] RUN --mount=type=secret,target=rel three
"#,
        ),
        (
            "",
            r"
FROM alpine
RUN --mount=type=ssh one
RUN --mount=type=ssh,id=key,target=/s,required,uid=5 two
",
            r#"
0: docker-image://docker.io/library/alpine:latest for linux/amd64
   # [stage-0 1/3] FROM docker.io/library/alpine:latest
1: exec ["/bin/sh", "-c", "one"] in / env=PATH=/bin,SSH_AUTH_SOCK=/run/buildkit/ssh_agent.0 mount=ssh:/run/buildkit/ssh_agent.0:id=:0:0:600:optional=true for linux/amd64 <- 0
   # [stage-0 2/3] RUN --mount=type=ssh one
2: exec ["/bin/sh", "-c", "two"] in / env=PATH=/bin,SSH_AUTH_SOCK=/s mount=ssh:/s:id=key:5:0:600:optional=false for linux/amd64 <- 1
   # [stage-0 3/3] RUN --mount=type=ssh,id=key,target=/s,required,uid=5 two
"#,
        ),
        (
            "",
            r"
FROM alpine
WORKDIR /w
RUN --mount=type=cache,target=rel one
",
            r#"
0: docker-image://docker.io/library/alpine:latest for linux/amd64
   # [stage-0 1/3] FROM docker.io/library/alpine:latest
1: mkdir /w 755 [0,-1] <- 0
   # [stage-0 2/3] WORKDIR /w
2: exec ["/bin/sh", "-c", "one"] in /w env=PATH=/bin mount=cache:/w/rel:id=/rel:shared for linux/amd64 <- 1
   # [stage-0 3/3] RUN --mount=type=cache,target=rel one
"#,
        ),
    ]);
}

#[test]
fn mounts_can_be_wrong() {
    check(&[
        (
            "",
            r"
FROM alpine
RUN --mount=type=cache,target=/ one
",
            r#"
error: invalid mount target "/" [2]
"#,
        ),
        (
            "",
            r"
FROM alpine
RUN --mount=type=bind,target=/ one
",
            r#"
error: invalid mount target "/" [2]
"#,
        ),
        (
            "",
            r"
FROM alpine
RUN --mount=type=ssh,source=x one
",
            r"
error: ssh does not support source [2]
",
        ),
        (
            "",
            r"
FROM alpine
RUN --mount=type=cache one
",
            r#"
error: invalid mount target "/" [2]
"#,
        ),
        (
            "",
            r"
FROM alpine
RUN --mount=type=bind,from=gone,target=/x one
",
            r"
error: gone: there is no such image []
",
        ),
        (
            "",
            r"
FROM alpine
RUN --mount=type=secret one
",
            r"
error: invalid secret mount. one of source, target required [2]
",
        ),
        (
            "",
            r"
FROM alpine
RUN --mount=type=bind,source=x one
",
            r#"
error: invalid mount target "/" [2]
"#,
        ),
    ]);
}

#[test]
fn networks_rights_and_devices_are_those_of_the_step() {
    check(&[
        (
            "",
            r"
FROM alpine
RUN --network=none one
RUN --network=host two
RUN --network=default three
",
            r#"
0: docker-image://docker.io/library/alpine:latest for linux/amd64
   # [1/4] FROM docker.io/library/alpine:latest
1: exec ["/bin/sh", "-c", "one"] in / env=PATH=/bin network=none for linux/amd64 <- 0
   # [2/4] RUN --network=none one
2: exec ["/bin/sh", "-c", "two"] in / env=PATH=/bin network=host for linux/amd64 <- 1
   # [3/4] RUN --network=host two
3: exec ["/bin/sh", "-c", "three"] in / env=PATH=/bin for linux/amd64 <- 2
   # [4/4] RUN --network=default three
"#,
        ),
        (
            "alpine network=host",
            r"
RUN one
RUN --network=none two
",
            r#"
1: exec ["/bin/sh", "-c", "one"] in / env=PATH=/bin network=host for linux/amd64 <- 0
   # [2/3] RUN one
2: exec ["/bin/sh", "-c", "two"] in / env=PATH=/bin network=none for linux/amd64 <- 1
   # [3/3] RUN --network=none two
"#,
        ),
        (
            "alpine",
            r"
RUN --security=insecure one
RUN --security=sandbox two
",
            r#"
1: exec ["/bin/sh", "-c", "one"] in / env=PATH=/bin security=insecure for linux/amd64 <- 0
   # [2/3] RUN --security=insecure one
2: exec ["/bin/sh", "-c", "two"] in / env=PATH=/bin for linux/amd64 <- 1
   # [3/3] RUN --security=sandbox two
"#,
        ),
        (
            "alpine",
            r"
RUN --device=vendor.com/gpu=all --device=name=v.com/x=1,required one
",
            r#"
1: exec ["/bin/sh", "-c", "one"] in / env=PATH=/bin device=vendor.com/gpu=all:true device=v.com/x=1:false for linux/amd64 <- 0
   # [2/2] RUN --device=vendor.com/gpu=all --device=name=v.com/x=1,required one
"#,
        ),
    ]);
}

#[test]
fn options_of_a_build_reach_every_step() {
    check(&[
        (
            "alpine hostname=h cgroup=/c host:a=1.2.3.4 host:b=::1 ulimit:nofile=10",
            r"
RUN one
",
            r#"
1: exec ["/bin/sh", "-c", "one"] in / env=PATH=/bin hostname=h cgroup=/c hosts=a:1.2.3.4,b:::1 ulimits=nofile:10:10 for linux/amd64 <- 0
   # [2/2] RUN one
"#,
        ),
        (
            "shm=1048576",
            r"
FROM alpine
RUN one
RUN --mount=type=tmpfs,target=/dev/shm two
",
            r#"
0: docker-image://docker.io/library/alpine:latest for linux/amd64
   # [stage-0 1/3] FROM docker.io/library/alpine:latest
1: exec ["/bin/sh", "-c", "one"] in / env=PATH=/bin mount=tmpfs:/dev/shm:size=1048576 for linux/amd64 <- 0
   # [stage-0 2/3] RUN one
2: exec ["/bin/sh", "-c", "two"] in / env=PATH=/bin mount=tmpfs:/dev/shm:size=0 mount=tmpfs:/dev/shm:size=1048576 for linux/amd64 <- 1
   # [stage-0 3/3] RUN --mount=type=tmpfs,target=/dev/shm two
"#,
        ),
    ]);
}

#[test]
fn directories_and_users_are_those_before_the_step() {
    check(&[
        (
            "",
            r"
FROM alpine
RUN one
WORKDIR /a
RUN two
WORKDIR b
RUN three
WORKDIR ../c
RUN four
",
            r#"
0: docker-image://docker.io/library/alpine:latest for linux/amd64
   # [1/8] FROM docker.io/library/alpine:latest
1: exec ["/bin/sh", "-c", "one"] in / env=PATH=/bin for linux/amd64 <- 0
   # [2/8] RUN one
2: mkdir /a 755 [0,-1] <- 1
   # [3/8] WORKDIR /a
3: exec ["/bin/sh", "-c", "two"] in /a env=PATH=/bin for linux/amd64 <- 2
   # [4/8] RUN two
4: mkdir /a/b 755 [0,-1] <- 3
   # [5/8] WORKDIR b
5: exec ["/bin/sh", "-c", "three"] in /a/b env=PATH=/bin for linux/amd64 <- 4
   # [6/8] RUN three
6: mkdir /a/c 755 [0,-1] <- 5
   # [7/8] WORKDIR ../c
7: exec ["/bin/sh", "-c", "four"] in /a/c env=PATH=/bin for linux/amd64 <- 6
   # [8/8] RUN four
"#,
        ),
        (
            "",
            r"
FROM full
RUN one
USER 1:2
RUN two
",
            r#"
0: docker-image://docker.io/library/full:latest for linux/amd64
   # [1/3] FROM docker.io/library/full:latest
1: exec ["/bin/bash", "-c", "one"] in /srv user=app env=PATH=/bin for linux/amd64 <- 0
   # [2/3] RUN one
2: exec ["/bin/bash", "-c", "two"] in /srv user=1:2 env=PATH=/bin for linux/amd64 <- 1
   # [3/3] RUN two
"#,
        ),
        (
            "alpine",
            r"
WORKDIR /
RUN one
",
            r#"
1: exec ["/bin/sh", "-c", "one"] in / env=PATH=/bin for linux/amd64 <- 0
   # [2/3] RUN one
"#,
        ),
        (
            "alpine",
            r#"
USER ""
RUN one
"#,
            r#"
1: exec ["/bin/sh", "-c", "one"] in / env=PATH=/bin for linux/amd64 <- 0
   # [2/2] RUN one
"#,
        ),
    ]);
}
