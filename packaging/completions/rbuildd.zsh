#compdef rbuildd

autoload -U is-at-least

_rbuildd() {
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
'--config=[Path to the configuration file (TOML, buildkitd'\''s keys)]:FILE:_files' \
'--root=[State directory]:DIR:_files' \
'*--addr=[Listening address\: unix\:///path, tcp\://host\:port or fd\:// (socket activation); may be given several times]:ADDRESS:_default' \
'--log-format=[Log format\: text (default) or json]:FORMAT:_default' \
'--log-level=[Log level\: trace, debug, info (default), warn or error]:LEVEL:_default' \
'--group=[Group (name or gid) that owns the unix sockets]:GROUP:_default' \
'--debugaddr=[Address of the debugging listener with metrics and health\: host\:port or unix\:///path]:ADDRESS:_default' \
'--drain-timeout=[How long builds that run may go on after SIGTERM, such as 30s or 5m (default 8s); further ones are refused meanwhile]:DURATION:_default' \
'--tlscert=[Certificate for TCP listeners; needs --tlskey]:FILE:_files' \
'--tlskey=[Key of the certificate]:FILE:_files' \
'--tlscacert=[Authority that clients'\'' certificates must come from\: this makes TLS mutual]:FILE:_files' \
'--isolation=[What clients share\: none (everything, as with BuildKit) or client (nothing\: each certificate and each user of a socket has a state of its own)]:MODE:_default' \
'*--allow-insecure-entitlement=[Entitlement that clients may ask for\: network.host, security.insecure or device; may be given several times]:NAME:_default' \
'--proxy-network=[Steps of all builds reach the network by a proxy only, which tells of their requests]::BOOL:(true false)' \
'--otel-socket-path=[Socket on which spans of programs in build steps are taken; without it steps have one below the state directory where spans are sent to a collector]:PATH:_default' \
'--cdi-disabled=[No step gets a device (default false)]::BOOL:(true false)' \
'*--cdi-spec-dir=[Folder of CDI files, which describe devices; may be given several times]:DIR:_default' \
'--save-cache-debug=[Accepted for buildkitd'\''s sake, without effect]::BOOL:(true false)' \
'--rootless=[Accepted for buildkitd'\''s sake\: a daemon finds out by itself whether it has root]::BOOL:(true false)' \
'--oci-worker=[Whether the worker is on\: true (default), false or auto]::BOOL:_default' \
'*--oci-worker-labels=[Label of the worker, key=value; may be given several times]:LABEL:_default' \
'--oci-worker-snapshotter=[How snapshots are made\: auto (default; overlayfs, else native), overlayfs or native (whole copies)]:NAME:_default' \
'*--oci-worker-platform=[Platform that the worker builds for; may be given several times]:PLATFORM:_default' \
'--oci-worker-net=[Network of build steps\: auto, bridge, cni, host or none]:MODE:_default' \
'--oci-cni-config-path=[Configuration of the CNI network, a .conf, .json or .conflist file]:FILE:_default' \
'--oci-cni-binary-dir=[Folder of CNI'\''s programs]:DIR:_default' \
'--oci-cni-pool-size=[Networks that are always prepared for steps by CNI or behind the bridge (default 2)]:COUNT:_default' \
'--oci-worker-binary=[OCI runtime (runc, crun) to run steps with in the place of the built-in launcher]:PROGRAM:_default' \
'--oci-worker-user-namespaces=[Whether steps get a user namespace\: off, auto (default) or on]:MODE:_default' \
'--oci-max-parallelism=[Steps that may run at the same time; 0 or absent\: no limit]:N:_default' \
'--oci-worker-gc=[Whether garbage is collected by itself (default true)]::BOOL:(true false)' \
'--oci-worker-gc-keepstorage=[Space that garbage collection keeps\: Reserved\[,Free\[,Maximum\]\] in MB or percent]:AMOUNTS:_default' \
'--containerd-worker=[Accepted for buildkitd'\''s sake\: there is no containerd worker]::BOOL:_default' \
'--debug[Log what decisions are made of; same as level \`debug\`]' \
'--trace[Log every event; same as level \`trace\`]' \
'--allow-insecure-debugaddr[Show metrics and health on a debugging address that others than this machine can reach]' \
'--allow-insecure-loopback[Listen on loopback addresses without client certificates, although build steps on the host'\''s network can use them then]' \
'--oci-worker-no-process-sandbox[Show steps the host'\''s processes (read, without effect so far)]' \
'-h[Print help (see more with '\''--help'\'')]' \
'--help[Print help (see more with '\''--help'\'')]' \
'-V[Print version]' \
'--version[Print version]' \
&& ret=0
}

(( $+functions[_rbuildd_commands] )) ||
_rbuildd_commands() {
    local commands; commands=()
    _describe -t commands 'rbuildd commands' commands "$@"
}

if [ "$funcstack[1]" = "_rbuildd" ]; then
    _rbuildd "$@"
else
    compdef _rbuildd rbuildd
fi
