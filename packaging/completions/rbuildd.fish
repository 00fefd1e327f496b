complete -c rbuildd -l config -d 'Path to the configuration file (TOML, buildkitd\'s keys)' -r -F
complete -c rbuildd -l root -d 'State directory' -r -F
complete -c rbuildd -l addr -d 'Listening address: unix:///path, tcp://host:port or fd:// (socket activation); may be given several times' -r
complete -c rbuildd -l log-format -d 'Log format: text (default) or json' -r
complete -c rbuildd -l log-level -d 'Log level: trace, debug, info (default), warn or error' -r
complete -c rbuildd -l group -d 'Group (name or gid) that owns the unix sockets' -r
complete -c rbuildd -l debugaddr -d 'Address of the debugging listener with metrics and health: host:port or unix:///path' -r
complete -c rbuildd -l drain-timeout -d 'How long builds that run may go on after SIGTERM, such as 30s or 5m (default 8s); further ones are refused meanwhile' -r
complete -c rbuildd -l tlscert -d 'Certificate for TCP listeners; needs --tlskey' -r -F
complete -c rbuildd -l tlskey -d 'Key of the certificate' -r -F
complete -c rbuildd -l tlscacert -d 'Authority that clients\' certificates must come from: this makes TLS mutual' -r -F
complete -c rbuildd -l isolation -d 'What clients share: none (everything, as with BuildKit) or client (nothing: each certificate and each user of a socket has a state of its own)' -r
complete -c rbuildd -l allow-insecure-entitlement -d 'Entitlement that clients may ask for: network.host, security.insecure or device; may be given several times' -r
complete -c rbuildd -l proxy-network -d 'Steps of all builds reach the network by a proxy only, which tells of their requests' -r -f -a "true\t''
false\t''"
complete -c rbuildd -l otel-socket-path -d 'Socket on which spans of programs in build steps are taken; without it steps have one below the state directory where spans are sent to a collector' -r
complete -c rbuildd -l cdi-disabled -d 'No step gets a device (default false)' -r -f -a "true\t''
false\t''"
complete -c rbuildd -l cdi-spec-dir -d 'Folder of CDI files, which describe devices; may be given several times' -r
complete -c rbuildd -l save-cache-debug -d 'Accepted for buildkitd\'s sake, without effect' -r -f -a "true\t''
false\t''"
complete -c rbuildd -l rootless -d 'Accepted for buildkitd\'s sake: a daemon finds out by itself whether it has root' -r -f -a "true\t''
false\t''"
complete -c rbuildd -l oci-worker -d 'Whether the worker is on: true (default), false or auto' -r
complete -c rbuildd -l oci-worker-labels -d 'Label of the worker, key=value; may be given several times' -r
complete -c rbuildd -l oci-worker-snapshotter -d 'How snapshots are made: auto (default; overlayfs, else native), overlayfs or native (whole copies)' -r
complete -c rbuildd -l oci-worker-platform -d 'Platform that the worker builds for; may be given several times' -r
complete -c rbuildd -l oci-worker-net -d 'Network of build steps: auto, bridge, cni, host or none' -r
complete -c rbuildd -l oci-cni-config-path -d 'Configuration of the CNI network, a .conf, .json or .conflist file' -r
complete -c rbuildd -l oci-cni-binary-dir -d 'Folder of CNI\'s programs' -r
complete -c rbuildd -l oci-cni-pool-size -d 'Networks that are always prepared for steps by CNI or behind the bridge (default 2)' -r
complete -c rbuildd -l oci-worker-binary -d 'OCI runtime (runc, crun) to run steps with in the place of the built-in launcher' -r
complete -c rbuildd -l oci-worker-user-namespaces -d 'Whether steps get a user namespace: off, auto (default) or on' -r
complete -c rbuildd -l oci-max-parallelism -d 'Steps that may run at the same time; 0 or absent: no limit' -r
complete -c rbuildd -l oci-worker-gc -d 'Whether garbage is collected by itself (default true)' -r -f -a "true\t''
false\t''"
complete -c rbuildd -l oci-worker-gc-keepstorage -d 'Space that garbage collection keeps: Reserved[,Free[,Maximum]] in MB or percent' -r
complete -c rbuildd -l containerd-worker -d 'Accepted for buildkitd\'s sake: there is no containerd worker' -r
complete -c rbuildd -l debug -d 'Log what decisions are made of; same as level `debug`'
complete -c rbuildd -l trace -d 'Log every event; same as level `trace`'
complete -c rbuildd -l allow-insecure-debugaddr -d 'Show metrics and health on a debugging address that others than this machine can reach'
complete -c rbuildd -l allow-insecure-loopback -d 'Listen on loopback addresses without client certificates, although build steps on the host\'s network can use them then'
complete -c rbuildd -l oci-worker-no-process-sandbox -d 'Show steps the host\'s processes (read, without effect so far)'
complete -c rbuildd -s h -l help -d 'Print help (see more with \'--help\')'
complete -c rbuildd -s V -l version -d 'Print version'
