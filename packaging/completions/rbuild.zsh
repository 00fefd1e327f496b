#compdef rbuild

autoload -U is-at-least

_rbuild() {
    typeset -A opt_args
    typeset -a _arguments_options
    local ret=1

    if is-at-least 5.2; then
        _arguments_options=(-s -S -C)
    else
        _arguments_options=(-s -C)
    fi

    local context curcontext="$curcontext" state line
    _arguments "${_arguments_options[@]}" : \
'--addr=[Address of a daemon\: unix\:///path or tcp\://host\:port]:ADDRESS:_default' \
'--tlscacert=[Authority that the daemon'\''s certificate comes from]:FILE:_files' \
'--tlscert=[Certificate of this client]:FILE:_files' \
'--tlskey=[Key of that certificate]:FILE:_files' \
'(--tlscacert --tlscert --tlskey)--tlsdir=[Folder with ca.pem, cert.pem and key.pem (or ca.crt, tls.crt and tls.key)]:DIR:_files' \
'--tlsservername=[Name in the daemon'\''s certificate, if it is not the host'\''s]:NAME:_default' \
'--debug[Log what this program does]' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
'-V[Print version]' \
'--version[Print version]' \
":: :_rbuild_commands" \
"*::: :->rbuild" \
&& ret=0
    case $state in
    (rbuild)
        words=($line[1] "${words[@]}")
        (( CURRENT += 1 ))
        curcontext="${curcontext%:*:*}:rbuild-command-$line[1]:"
        case $line[1] in
            (build)
_arguments "${_arguments_options[@]}" : \
'-f+[Dockerfile (default PATH/Dockerfile; - for standard input)]:FILE:_default' \
'--file=[Dockerfile (default PATH/Dockerfile; - for standard input)]:FILE:_default' \
'--target=[Stage to build]:STAGE:_default' \
'*-t+[Name of the image, name\[\:tag\]]:NAME:_default' \
'*--tag=[Name of the image, name\[\:tag\]]:NAME:_default' \
'*--build-arg=[Value of an ARG; without =value it is taken from the environment]:KEY[=VALUE]:_default' \
'*--build-context=[More contexts\: a folder, URL, docker-image\://, oci-layout\:// or target]:NAME=SOURCE:_default' \
'*--platform=[Platforms to build for]:OS/ARCH:_default' \
'*--no-cache-filter=[Run the steps of these stages again]:STAGE:_default' \
'*--cache-from=[Where cached steps may come from\: a reference or type=…]:SPEC:_default' \
'*--cache-to=[Where cached steps go\: a reference or type=…]:SPEC:_default' \
'*--secret=[Secret for RUN --mount=type=secret\: id=ID\[,src=FILE|,env=NAME\]]:SPEC:_default' \
'*--ssh=[Agent for RUN --mount=type=ssh\: default|ID\[=SOCKET\]]:SPEC:_default' \
'*-o+[What to do with the result]:SPEC:_default' \
'*--output=[What to do with the result]:SPEC:_default' \
'--progress=[How progress is shown]:MODE:((auto\:"As the terminal allows"
tty\:"A view that is redrawn"
plain\:"Lines"
rawjson\:"JSON, a line for each change"
quiet\:"Errors only"))' \
'--metadata-file=[Write what the build says about its result to this file]:FILE:_files' \
'--iidfile=[Write the image'\''s id to this file]:FILE:_files' \
'*--label=[Label of the image]:KEY=VALUE:_default' \
'*--annotation=[Annotation of the image]:KEY=VALUE:_default' \
'--network=[Network of RUN steps\: default, none or host]:MODE:_default' \
'*--allow=[What steps may do\: network.host, security.insecure]:NAME:_default' \
'*--service=[Container that runs beside the build, for its steps\: daemons refuse it so far]:NAME=IMAGE:_default' \
'*--add-host=[More lines of /etc/hosts]:HOST:IP:_default' \
'--shm-size=[Size of /dev/shm]:BYTES:_default' \
'*--ulimit=[Limits of RUN steps\: name=soft\[\:hard\]]:SPEC:_default' \
'--cgroup-parent=[Parent cgroup of RUN steps]:PATH:_default' \
'--provenance=[Provenance attestation\: true, false or mode=min|max]::SPEC:_default' \
'--sbom=[SBOM attestation\: true, false or generator=IMAGE]::SPEC:_default' \
'--call=[What to ask of the Dockerfile in the place of a build\: build, check, outline or targets]:METHOD:_default' \
'*--opt=[Option of the frontend]:KEY=VALUE:_default' \
'--builder=[Accepted for docker'\''s sake]:BUILDER:_default' \
'--rm=[Accepted for docker'\''s sake]::RM:_default' \
'--addr=[Address of a daemon\: unix\:///path or tcp\://host\:port]:ADDRESS:_default' \
'--tlscacert=[Authority that the daemon'\''s certificate comes from]:FILE:_files' \
'--tlscert=[Certificate of this client]:FILE:_files' \
'--tlskey=[Key of that certificate]:FILE:_files' \
'(--tlscacert --tlscert --tlskey)--tlsdir=[Folder with ca.pem, cert.pem and key.pem (or ca.crt, tls.crt and tls.key)]:DIR:_files' \
'--tlsservername=[Name in the daemon'\''s certificate, if it is not the host'\''s]:NAME:_default' \
'--no-cache[Run every step again]' \
'-q[Only print the image'\''s id]' \
'--quiet[Only print the image'\''s id]' \
'--push[Send the image to its registry]' \
'--load[Give the image to docker]' \
'--pull[Always ask registries for newer base images]' \
'(--call)--check[Check the Dockerfile (--call=check)]' \
'--force-rm[Accepted for docker'\''s sake]' \
'--debug[Log what this program does]' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
'::context -- Folder, git or http URL, or - for a tar or a Dockerfile on standard input:_default' \
&& ret=0
;;
(b)
_arguments "${_arguments_options[@]}" : \
'-f+[Dockerfile (default PATH/Dockerfile; - for standard input)]:FILE:_default' \
'--file=[Dockerfile (default PATH/Dockerfile; - for standard input)]:FILE:_default' \
'--target=[Stage to build]:STAGE:_default' \
'*-t+[Name of the image, name\[\:tag\]]:NAME:_default' \
'*--tag=[Name of the image, name\[\:tag\]]:NAME:_default' \
'*--build-arg=[Value of an ARG; without =value it is taken from the environment]:KEY[=VALUE]:_default' \
'*--build-context=[More contexts\: a folder, URL, docker-image\://, oci-layout\:// or target]:NAME=SOURCE:_default' \
'*--platform=[Platforms to build for]:OS/ARCH:_default' \
'*--no-cache-filter=[Run the steps of these stages again]:STAGE:_default' \
'*--cache-from=[Where cached steps may come from\: a reference or type=…]:SPEC:_default' \
'*--cache-to=[Where cached steps go\: a reference or type=…]:SPEC:_default' \
'*--secret=[Secret for RUN --mount=type=secret\: id=ID\[,src=FILE|,env=NAME\]]:SPEC:_default' \
'*--ssh=[Agent for RUN --mount=type=ssh\: default|ID\[=SOCKET\]]:SPEC:_default' \
'*-o+[What to do with the result]:SPEC:_default' \
'*--output=[What to do with the result]:SPEC:_default' \
'--progress=[How progress is shown]:MODE:((auto\:"As the terminal allows"
tty\:"A view that is redrawn"
plain\:"Lines"
rawjson\:"JSON, a line for each change"
quiet\:"Errors only"))' \
'--metadata-file=[Write what the build says about its result to this file]:FILE:_files' \
'--iidfile=[Write the image'\''s id to this file]:FILE:_files' \
'*--label=[Label of the image]:KEY=VALUE:_default' \
'*--annotation=[Annotation of the image]:KEY=VALUE:_default' \
'--network=[Network of RUN steps\: default, none or host]:MODE:_default' \
'*--allow=[What steps may do\: network.host, security.insecure]:NAME:_default' \
'*--service=[Container that runs beside the build, for its steps\: daemons refuse it so far]:NAME=IMAGE:_default' \
'*--add-host=[More lines of /etc/hosts]:HOST:IP:_default' \
'--shm-size=[Size of /dev/shm]:BYTES:_default' \
'*--ulimit=[Limits of RUN steps\: name=soft\[\:hard\]]:SPEC:_default' \
'--cgroup-parent=[Parent cgroup of RUN steps]:PATH:_default' \
'--provenance=[Provenance attestation\: true, false or mode=min|max]::SPEC:_default' \
'--sbom=[SBOM attestation\: true, false or generator=IMAGE]::SPEC:_default' \
'--call=[What to ask of the Dockerfile in the place of a build\: build, check, outline or targets]:METHOD:_default' \
'*--opt=[Option of the frontend]:KEY=VALUE:_default' \
'--builder=[Accepted for docker'\''s sake]:BUILDER:_default' \
'--rm=[Accepted for docker'\''s sake]::RM:_default' \
'--addr=[Address of a daemon\: unix\:///path or tcp\://host\:port]:ADDRESS:_default' \
'--tlscacert=[Authority that the daemon'\''s certificate comes from]:FILE:_files' \
'--tlscert=[Certificate of this client]:FILE:_files' \
'--tlskey=[Key of that certificate]:FILE:_files' \
'(--tlscacert --tlscert --tlskey)--tlsdir=[Folder with ca.pem, cert.pem and key.pem (or ca.crt, tls.crt and tls.key)]:DIR:_files' \
'--tlsservername=[Name in the daemon'\''s certificate, if it is not the host'\''s]:NAME:_default' \
'--no-cache[Run every step again]' \
'-q[Only print the image'\''s id]' \
'--quiet[Only print the image'\''s id]' \
'--push[Send the image to its registry]' \
'--load[Give the image to docker]' \
'--pull[Always ask registries for newer base images]' \
'(--call)--check[Check the Dockerfile (--call=check)]' \
'--force-rm[Accepted for docker'\''s sake]' \
'--debug[Log what this program does]' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
'::context -- Folder, git or http URL, or - for a tar or a Dockerfile on standard input:_default' \
&& ret=0
;;
(du)
_arguments "${_arguments_options[@]}" : \
'*-f+[Only records for which this holds (type==regular, id~=…, unused-for=…)]:FILTER:_default' \
'*--filter=[Only records for which this holds (type==regular, id~=…, unused-for=…)]:FILTER:_default' \
'--addr=[Address of a daemon\: unix\:///path or tcp\://host\:port]:ADDRESS:_default' \
'--tlscacert=[Authority that the daemon'\''s certificate comes from]:FILE:_files' \
'--tlscert=[Certificate of this client]:FILE:_files' \
'--tlskey=[Key of that certificate]:FILE:_files' \
'(--tlscacert --tlscert --tlskey)--tlsdir=[Folder with ca.pem, cert.pem and key.pem (or ca.crt, tls.crt and tls.key)]:DIR:_files' \
'--tlsservername=[Name in the daemon'\''s certificate, if it is not the host'\''s]:NAME:_default' \
'-v[Show everything about each record]' \
'--verbose[Show everything about each record]' \
'--debug[Log what this program does]' \
'-h[Print help]' \
'--help[Print help]' \
&& ret=0
;;
(prune)
_arguments "${_arguments_options[@]}" : \
'*-f+[Only records for which this holds]:FILTER:_default' \
'*--filter=[Only records for which this holds]:FILTER:_default' \
'--keep-duration=[Keep what was used within this time (12h, 7d)]:TIME:_default' \
'--reserved-space=[Keep this many megabytes]:MB:_default' \
'--keep-storage=[Keep this many megabytes]:MB:_default' \
'--max-used-space=[Stop when no more than this many megabytes are used]:MB:_default' \
'--min-free-space=[Stop when this many megabytes are free]:MB:_default' \
'--addr=[Address of a daemon\: unix\:///path or tcp\://host\:port]:ADDRESS:_default' \
'--tlscacert=[Authority that the daemon'\''s certificate comes from]:FILE:_files' \
'--tlscert=[Certificate of this client]:FILE:_files' \
'--tlskey=[Key of that certificate]:FILE:_files' \
'(--tlscacert --tlscert --tlskey)--tlsdir=[Folder with ca.pem, cert.pem and key.pem (or ca.crt, tls.crt and tls.key)]:DIR:_files' \
'--tlsservername=[Name in the daemon'\''s certificate, if it is not the host'\''s]:NAME:_default' \
'--all[Also what is internal or used by frontends]' \
'-v[Show everything about each record]' \
'--verbose[Show everything about each record]' \
'--debug[Log what this program does]' \
'-h[Print help]' \
'--help[Print help]' \
&& ret=0
;;
(debug)
_arguments "${_arguments_options[@]}" : \
'--addr=[Address of a daemon\: unix\:///path or tcp\://host\:port]:ADDRESS:_default' \
'--tlscacert=[Authority that the daemon'\''s certificate comes from]:FILE:_files' \
'--tlscert=[Certificate of this client]:FILE:_files' \
'--tlskey=[Key of that certificate]:FILE:_files' \
'(--tlscacert --tlscert --tlskey)--tlsdir=[Folder with ca.pem, cert.pem and key.pem (or ca.crt, tls.crt and tls.key)]:DIR:_files' \
'--tlsservername=[Name in the daemon'\''s certificate, if it is not the host'\''s]:NAME:_default' \
'--debug[Log what this program does]' \
'-h[Print help]' \
'--help[Print help]' \
":: :_rbuild__subcmd__debug_commands" \
"*::: :->debug" \
&& ret=0

    case $state in
    (debug)
        words=($line[1] "${words[@]}")
        (( CURRENT += 1 ))
        curcontext="${curcontext%:*:*}:rbuild-debug-command-$line[1]:"
        case $line[1] in
            (workers)
_arguments "${_arguments_options[@]}" : \
'--addr=[Address of a daemon\: unix\:///path or tcp\://host\:port]:ADDRESS:_default' \
'--tlscacert=[Authority that the daemon'\''s certificate comes from]:FILE:_files' \
'--tlscert=[Certificate of this client]:FILE:_files' \
'--tlskey=[Key of that certificate]:FILE:_files' \
'(--tlscacert --tlscert --tlskey)--tlsdir=[Folder with ca.pem, cert.pem and key.pem (or ca.crt, tls.crt and tls.key)]:DIR:_files' \
'--tlsservername=[Name in the daemon'\''s certificate, if it is not the host'\''s]:NAME:_default' \
'-v[Show everything]' \
'--verbose[Show everything]' \
'--debug[Log what this program does]' \
'-h[Print help]' \
'--help[Print help]' \
&& ret=0
;;
(info)
_arguments "${_arguments_options[@]}" : \
'--addr=[Address of a daemon\: unix\:///path or tcp\://host\:port]:ADDRESS:_default' \
'--tlscacert=[Authority that the daemon'\''s certificate comes from]:FILE:_files' \
'--tlscert=[Certificate of this client]:FILE:_files' \
'--tlskey=[Key of that certificate]:FILE:_files' \
'(--tlscacert --tlscert --tlskey)--tlsdir=[Folder with ca.pem, cert.pem and key.pem (or ca.crt, tls.crt and tls.key)]:DIR:_files' \
'--tlsservername=[Name in the daemon'\''s certificate, if it is not the host'\''s]:NAME:_default' \
'--debug[Log what this program does]' \
'-h[Print help]' \
'--help[Print help]' \
&& ret=0
;;
(fsck)
_arguments "${_arguments_options[@]}" : \
'--root=[The state directory]:DIR:_files' \
'--addr=[Address of a daemon\: unix\:///path or tcp\://host\:port]:ADDRESS:_default' \
'--tlscacert=[Authority that the daemon'\''s certificate comes from]:FILE:_files' \
'--tlscert=[Certificate of this client]:FILE:_files' \
'--tlskey=[Key of that certificate]:FILE:_files' \
'(--tlscacert --tlscert --tlskey)--tlsdir=[Folder with ca.pem, cert.pem and key.pem (or ca.crt, tls.crt and tls.key)]:DIR:_files' \
'--tlsservername=[Name in the daemon'\''s certificate, if it is not the host'\''s]:NAME:_default' \
'--deep[Read every blob and compare its digest]' \
'--debug[Log what this program does]' \
'-h[Print help]' \
'--help[Print help]' \
&& ret=0
;;
(help)
_arguments "${_arguments_options[@]}" : \
":: :_rbuild__subcmd__debug__subcmd__help_commands" \
"*::: :->help" \
&& ret=0

    case $state in
    (help)
        words=($line[1] "${words[@]}")
        (( CURRENT += 1 ))
        curcontext="${curcontext%:*:*}:rbuild-debug-help-command-$line[1]:"
        case $line[1] in
            (workers)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(info)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(fsck)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(help)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
        esac
    ;;
esac
;;
        esac
    ;;
esac
;;
(doctor)
_arguments "${_arguments_options[@]}" : \
'--root=[The state directory; the one that a daemon would use when not given]:DIR:_files' \
'--addr=[Address of a daemon\: unix\:///path or tcp\://host\:port]:ADDRESS:_default' \
'--tlscacert=[Authority that the daemon'\''s certificate comes from]:FILE:_files' \
'--tlscert=[Certificate of this client]:FILE:_files' \
'--tlskey=[Key of that certificate]:FILE:_files' \
'(--tlscacert --tlscert --tlskey)--tlsdir=[Folder with ca.pem, cert.pem and key.pem (or ca.crt, tls.crt and tls.key)]:DIR:_files' \
'--tlsservername=[Name in the daemon'\''s certificate, if it is not the host'\''s]:NAME:_default' \
'--debug[Log what this program does]' \
'-h[Print help]' \
'--help[Print help]' \
&& ret=0
;;
(dial-stdio)
_arguments "${_arguments_options[@]}" : \
'--addr=[Address of a daemon\: unix\:///path or tcp\://host\:port]:ADDRESS:_default' \
'--tlscacert=[Authority that the daemon'\''s certificate comes from]:FILE:_files' \
'--tlscert=[Certificate of this client]:FILE:_files' \
'--tlskey=[Key of that certificate]:FILE:_files' \
'(--tlscacert --tlscert --tlskey)--tlsdir=[Folder with ca.pem, cert.pem and key.pem (or ca.crt, tls.crt and tls.key)]:DIR:_files' \
'--tlsservername=[Name in the daemon'\''s certificate, if it is not the host'\''s]:NAME:_default' \
'--debug[Log what this program does]' \
'-h[Print help]' \
'--help[Print help]' \
&& ret=0
;;
(help)
_arguments "${_arguments_options[@]}" : \
":: :_rbuild__subcmd__help_commands" \
"*::: :->help" \
&& ret=0

    case $state in
    (help)
        words=($line[1] "${words[@]}")
        (( CURRENT += 1 ))
        curcontext="${curcontext%:*:*}:rbuild-help-command-$line[1]:"
        case $line[1] in
            (build)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(du)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(prune)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(debug)
_arguments "${_arguments_options[@]}" : \
":: :_rbuild__subcmd__help__subcmd__debug_commands" \
"*::: :->debug" \
&& ret=0

    case $state in
    (debug)
        words=($line[1] "${words[@]}")
        (( CURRENT += 1 ))
        curcontext="${curcontext%:*:*}:rbuild-help-debug-command-$line[1]:"
        case $line[1] in
            (workers)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(info)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(fsck)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
        esac
    ;;
esac
;;
(doctor)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(dial-stdio)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
(help)
_arguments "${_arguments_options[@]}" : \
&& ret=0
;;
        esac
    ;;
esac
;;
        esac
    ;;
esac
}

(( $+functions[_rbuild_commands] )) ||
_rbuild_commands() {
    local commands; commands=(
'build:Build an image from a Dockerfile' \
'b:Build an image from a Dockerfile' \
'du:Show what is kept on disk' \
'prune:Remove what nothing uses' \
'debug:Ask a daemon about itself' \
'doctor:Say what this host lacks for builds, what mends it, and what is used instead' \
'dial-stdio:Connect standard input and output to the daemon'\''s socket' \
'help:Print this message or the help of the given subcommand(s)' \
    )
    _describe -t commands 'rbuild commands' commands "$@"
}
(( $+functions[_rbuild__subcmd__build_commands] )) ||
_rbuild__subcmd__build_commands() {
    local commands; commands=()
    _describe -t commands 'rbuild build commands' commands "$@"
}
(( $+functions[_rbuild__subcmd__debug_commands] )) ||
_rbuild__subcmd__debug_commands() {
    local commands; commands=(
'workers:List the workers' \
'info:Show the version' \
'fsck:Check the state directory of a daemon that does not run' \
'help:Print this message or the help of the given subcommand(s)' \
    )
    _describe -t commands 'rbuild debug commands' commands "$@"
}
(( $+functions[_rbuild__subcmd__debug__subcmd__fsck_commands] )) ||
_rbuild__subcmd__debug__subcmd__fsck_commands() {
    local commands; commands=()
    _describe -t commands 'rbuild debug fsck commands' commands "$@"
}
(( $+functions[_rbuild__subcmd__debug__subcmd__help_commands] )) ||
_rbuild__subcmd__debug__subcmd__help_commands() {
    local commands; commands=(
'workers:List the workers' \
'info:Show the version' \
'fsck:Check the state directory of a daemon that does not run' \
'help:Print this message or the help of the given subcommand(s)' \
    )
    _describe -t commands 'rbuild debug help commands' commands "$@"
}
(( $+functions[_rbuild__subcmd__debug__subcmd__help__subcmd__fsck_commands] )) ||
_rbuild__subcmd__debug__subcmd__help__subcmd__fsck_commands() {
    local commands; commands=()
    _describe -t commands 'rbuild debug help fsck commands' commands "$@"
}
(( $+functions[_rbuild__subcmd__debug__subcmd__help__subcmd__help_commands] )) ||
_rbuild__subcmd__debug__subcmd__help__subcmd__help_commands() {
    local commands; commands=()
    _describe -t commands 'rbuild debug help help commands' commands "$@"
}
(( $+functions[_rbuild__subcmd__debug__subcmd__help__subcmd__info_commands] )) ||
_rbuild__subcmd__debug__subcmd__help__subcmd__info_commands() {
    local commands; commands=()
    _describe -t commands 'rbuild debug help info commands' commands "$@"
}
(( $+functions[_rbuild__subcmd__debug__subcmd__help__subcmd__workers_commands] )) ||
_rbuild__subcmd__debug__subcmd__help__subcmd__workers_commands() {
    local commands; commands=()
    _describe -t commands 'rbuild debug help workers commands' commands "$@"
}
(( $+functions[_rbuild__subcmd__debug__subcmd__info_commands] )) ||
_rbuild__subcmd__debug__subcmd__info_commands() {
    local commands; commands=()
    _describe -t commands 'rbuild debug info commands' commands "$@"
}
(( $+functions[_rbuild__subcmd__debug__subcmd__workers_commands] )) ||
_rbuild__subcmd__debug__subcmd__workers_commands() {
    local commands; commands=()
    _describe -t commands 'rbuild debug workers commands' commands "$@"
}
(( $+functions[_rbuild__subcmd__dial-stdio_commands] )) ||
_rbuild__subcmd__dial-stdio_commands() {
    local commands; commands=()
    _describe -t commands 'rbuild dial-stdio commands' commands "$@"
}
(( $+functions[_rbuild__subcmd__doctor_commands] )) ||
_rbuild__subcmd__doctor_commands() {
    local commands; commands=()
    _describe -t commands 'rbuild doctor commands' commands "$@"
}
(( $+functions[_rbuild__subcmd__du_commands] )) ||
_rbuild__subcmd__du_commands() {
    local commands; commands=()
    _describe -t commands 'rbuild du commands' commands "$@"
}
(( $+functions[_rbuild__subcmd__help_commands] )) ||
_rbuild__subcmd__help_commands() {
    local commands; commands=(
'build:Build an image from a Dockerfile' \
'du:Show what is kept on disk' \
'prune:Remove what nothing uses' \
'debug:Ask a daemon about itself' \
'doctor:Say what this host lacks for builds, what mends it, and what is used instead' \
'dial-stdio:Connect standard input and output to the daemon'\''s socket' \
'help:Print this message or the help of the given subcommand(s)' \
    )
    _describe -t commands 'rbuild help commands' commands "$@"
}
(( $+functions[_rbuild__subcmd__help__subcmd__build_commands] )) ||
_rbuild__subcmd__help__subcmd__build_commands() {
    local commands; commands=()
    _describe -t commands 'rbuild help build commands' commands "$@"
}
(( $+functions[_rbuild__subcmd__help__subcmd__debug_commands] )) ||
_rbuild__subcmd__help__subcmd__debug_commands() {
    local commands; commands=(
'workers:List the workers' \
'info:Show the version' \
'fsck:Check the state directory of a daemon that does not run' \
    )
    _describe -t commands 'rbuild help debug commands' commands "$@"
}
(( $+functions[_rbuild__subcmd__help__subcmd__debug__subcmd__fsck_commands] )) ||
_rbuild__subcmd__help__subcmd__debug__subcmd__fsck_commands() {
    local commands; commands=()
    _describe -t commands 'rbuild help debug fsck commands' commands "$@"
}
(( $+functions[_rbuild__subcmd__help__subcmd__debug__subcmd__info_commands] )) ||
_rbuild__subcmd__help__subcmd__debug__subcmd__info_commands() {
    local commands; commands=()
    _describe -t commands 'rbuild help debug info commands' commands "$@"
}
(( $+functions[_rbuild__subcmd__help__subcmd__debug__subcmd__workers_commands] )) ||
_rbuild__subcmd__help__subcmd__debug__subcmd__workers_commands() {
    local commands; commands=()
    _describe -t commands 'rbuild help debug workers commands' commands "$@"
}
(( $+functions[_rbuild__subcmd__help__subcmd__dial-stdio_commands] )) ||
_rbuild__subcmd__help__subcmd__dial-stdio_commands() {
    local commands; commands=()
    _describe -t commands 'rbuild help dial-stdio commands' commands "$@"
}
(( $+functions[_rbuild__subcmd__help__subcmd__doctor_commands] )) ||
_rbuild__subcmd__help__subcmd__doctor_commands() {
    local commands; commands=()
    _describe -t commands 'rbuild help doctor commands' commands "$@"
}
(( $+functions[_rbuild__subcmd__help__subcmd__du_commands] )) ||
_rbuild__subcmd__help__subcmd__du_commands() {
    local commands; commands=()
    _describe -t commands 'rbuild help du commands' commands "$@"
}
(( $+functions[_rbuild__subcmd__help__subcmd__help_commands] )) ||
_rbuild__subcmd__help__subcmd__help_commands() {
    local commands; commands=()
    _describe -t commands 'rbuild help help commands' commands "$@"
}
(( $+functions[_rbuild__subcmd__help__subcmd__prune_commands] )) ||
_rbuild__subcmd__help__subcmd__prune_commands() {
    local commands; commands=()
    _describe -t commands 'rbuild help prune commands' commands "$@"
}
(( $+functions[_rbuild__subcmd__prune_commands] )) ||
_rbuild__subcmd__prune_commands() {
    local commands; commands=()
    _describe -t commands 'rbuild prune commands' commands "$@"
}

if [ "$funcstack[1]" = "_rbuild" ]; then
    _rbuild "$@"
else
    compdef _rbuild rbuild
fi
