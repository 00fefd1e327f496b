# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_rbuild_global_optspecs
    string join \n addr= tlscacert= tlscert= tlskey= tlsdir= tlsservername= debug h/help V/version
end

function __fish_rbuild_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_rbuild_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_rbuild_using_subcommand
    set -l cmd (__fish_rbuild_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c rbuild -n "__fish_rbuild_needs_command" -l addr -d 'Address of a daemon: unix:///path or tcp://host:port' -r
complete -c rbuild -n "__fish_rbuild_needs_command" -l tlscacert -d 'Authority that the daemon\'s certificate comes from' -r -F
complete -c rbuild -n "__fish_rbuild_needs_command" -l tlscert -d 'Certificate of this client' -r -F
complete -c rbuild -n "__fish_rbuild_needs_command" -l tlskey -d 'Key of that certificate' -r -F
complete -c rbuild -n "__fish_rbuild_needs_command" -l tlsdir -d 'Folder with ca.pem, cert.pem and key.pem (or ca.crt, tls.crt and tls.key)' -r -F
complete -c rbuild -n "__fish_rbuild_needs_command" -l tlsservername -d 'Name in the daemon\'s certificate, if it is not the host\'s' -r
complete -c rbuild -n "__fish_rbuild_needs_command" -l debug -d 'Log what this program does'
complete -c rbuild -n "__fish_rbuild_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c rbuild -n "__fish_rbuild_needs_command" -s V -l version -d 'Print version'
complete -c rbuild -n "__fish_rbuild_needs_command" -f -a "build" -d 'Build an image from a Dockerfile'
complete -c rbuild -n "__fish_rbuild_needs_command" -f -a "b" -d 'Build an image from a Dockerfile'
complete -c rbuild -n "__fish_rbuild_needs_command" -f -a "du" -d 'Show what is kept on disk'
complete -c rbuild -n "__fish_rbuild_needs_command" -f -a "prune" -d 'Remove what nothing uses'
complete -c rbuild -n "__fish_rbuild_needs_command" -f -a "debug" -d 'Ask a daemon about itself'
complete -c rbuild -n "__fish_rbuild_needs_command" -f -a "doctor" -d 'Say what this host lacks for builds, what mends it, and what is used instead'
complete -c rbuild -n "__fish_rbuild_needs_command" -f -a "dial-stdio" -d 'Connect standard input and output to the daemon\'s socket'
complete -c rbuild -n "__fish_rbuild_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c rbuild -n "__fish_rbuild_using_subcommand build" -s f -l file -d 'Dockerfile (default PATH/Dockerfile; - for standard input)' -r
complete -c rbuild -n "__fish_rbuild_using_subcommand build" -l target -d 'Stage to build' -r
complete -c rbuild -n "__fish_rbuild_using_subcommand build" -s t -l tag -d 'Name of the image, name[:tag]' -r
complete -c rbuild -n "__fish_rbuild_using_subcommand build" -l build-arg -d 'Value of an ARG; without =value it is taken from the environment' -r
complete -c rbuild -n "__fish_rbuild_using_subcommand build" -l build-context -d 'More contexts: a folder, URL, docker-image://, oci-layout:// or target' -r
complete -c rbuild -n "__fish_rbuild_using_subcommand build" -l platform -d 'Platforms to build for' -r
complete -c rbuild -n "__fish_rbuild_using_subcommand build" -l no-cache-filter -d 'Run the steps of these stages again' -r
complete -c rbuild -n "__fish_rbuild_using_subcommand build" -l cache-from -d 'Where cached steps may come from: a reference or type=…' -r
complete -c rbuild -n "__fish_rbuild_using_subcommand build" -l cache-to -d 'Where cached steps go: a reference or type=…' -r
complete -c rbuild -n "__fish_rbuild_using_subcommand build" -l secret -d 'Secret for RUN --mount=type=secret: id=ID[,src=FILE|,env=NAME]' -r
complete -c rbuild -n "__fish_rbuild_using_subcommand build" -l ssh -d 'Agent for RUN --mount=type=ssh: default|ID[=SOCKET]' -r
complete -c rbuild -n "__fish_rbuild_using_subcommand build" -s o -l output -d 'What to do with the result' -r
complete -c rbuild -n "__fish_rbuild_using_subcommand build" -l progress -d 'How progress is shown' -r -f -a "auto\t'As the terminal allows'
tty\t'A view that is redrawn'
plain\t'Lines'
rawjson\t'JSON, a line for each change'
quiet\t'Errors only'"
complete -c rbuild -n "__fish_rbuild_using_subcommand build" -l metadata-file -d 'Write what the build says about its result to this file' -r -F
complete -c rbuild -n "__fish_rbuild_using_subcommand build" -l iidfile -d 'Write the image\'s id to this file' -r -F
complete -c rbuild -n "__fish_rbuild_using_subcommand build" -l label -d 'Label of the image' -r
complete -c rbuild -n "__fish_rbuild_using_subcommand build" -l annotation -d 'Annotation of the image' -r
complete -c rbuild -n "__fish_rbuild_using_subcommand build" -l network -d 'Network of RUN steps: default, none or host' -r
complete -c rbuild -n "__fish_rbuild_using_subcommand build" -l allow -d 'What steps may do: network.host, security.insecure' -r
complete -c rbuild -n "__fish_rbuild_using_subcommand build" -l service -d 'Container that runs beside the build, for its steps: daemons refuse it so far' -r
complete -c rbuild -n "__fish_rbuild_using_subcommand build" -l add-host -d 'More lines of /etc/hosts' -r
complete -c rbuild -n "__fish_rbuild_using_subcommand build" -l shm-size -d 'Size of /dev/shm' -r
complete -c rbuild -n "__fish_rbuild_using_subcommand build" -l ulimit -d 'Limits of RUN steps: name=soft[:hard]' -r
complete -c rbuild -n "__fish_rbuild_using_subcommand build" -l cgroup-parent -d 'Parent cgroup of RUN steps' -r
complete -c rbuild -n "__fish_rbuild_using_subcommand build" -l provenance -d 'Provenance attestation: true, false or mode=min|max' -r
complete -c rbuild -n "__fish_rbuild_using_subcommand build" -l sbom -d 'SBOM attestation: true, false or generator=IMAGE' -r
complete -c rbuild -n "__fish_rbuild_using_subcommand build" -l call -d 'What to ask of the Dockerfile in the place of a build: build, check, outline or targets' -r
complete -c rbuild -n "__fish_rbuild_using_subcommand build" -l opt -d 'Option of the frontend' -r
complete -c rbuild -n "__fish_rbuild_using_subcommand build" -l builder -d 'Accepted for docker\'s sake' -r
complete -c rbuild -n "__fish_rbuild_using_subcommand build" -l rm -d 'Accepted for docker\'s sake' -r
complete -c rbuild -n "__fish_rbuild_using_subcommand build" -l addr -d 'Address of a daemon: unix:///path or tcp://host:port' -r
complete -c rbuild -n "__fish_rbuild_using_subcommand build" -l tlscacert -d 'Authority that the daemon\'s certificate comes from' -r -F
complete -c rbuild -n "__fish_rbuild_using_subcommand build" -l tlscert -d 'Certificate of this client' -r -F
complete -c rbuild -n "__fish_rbuild_using_subcommand build" -l tlskey -d 'Key of that certificate' -r -F
complete -c rbuild -n "__fish_rbuild_using_subcommand build" -l tlsdir -d 'Folder with ca.pem, cert.pem and key.pem (or ca.crt, tls.crt and tls.key)' -r -F
complete -c rbuild -n "__fish_rbuild_using_subcommand build" -l tlsservername -d 'Name in the daemon\'s certificate, if it is not the host\'s' -r
complete -c rbuild -n "__fish_rbuild_using_subcommand build" -l no-cache -d 'Run every step again'
complete -c rbuild -n "__fish_rbuild_using_subcommand build" -s q -l quiet -d 'Only print the image\'s id'
complete -c rbuild -n "__fish_rbuild_using_subcommand build" -l push -d 'Send the image to its registry'
complete -c rbuild -n "__fish_rbuild_using_subcommand build" -l load -d 'Give the image to docker'
complete -c rbuild -n "__fish_rbuild_using_subcommand build" -l pull -d 'Always ask registries for newer base images'
complete -c rbuild -n "__fish_rbuild_using_subcommand build" -l check -d 'Check the Dockerfile (--call=check)'
complete -c rbuild -n "__fish_rbuild_using_subcommand build" -l force-rm -d 'Accepted for docker\'s sake'
complete -c rbuild -n "__fish_rbuild_using_subcommand build" -l debug -d 'Log what this program does'
complete -c rbuild -n "__fish_rbuild_using_subcommand build" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c rbuild -n "__fish_rbuild_using_subcommand b" -s f -l file -d 'Dockerfile (default PATH/Dockerfile; - for standard input)' -r
complete -c rbuild -n "__fish_rbuild_using_subcommand b" -l target -d 'Stage to build' -r
complete -c rbuild -n "__fish_rbuild_using_subcommand b" -s t -l tag -d 'Name of the image, name[:tag]' -r
complete -c rbuild -n "__fish_rbuild_using_subcommand b" -l build-arg -d 'Value of an ARG; without =value it is taken from the environment' -r
complete -c rbuild -n "__fish_rbuild_using_subcommand b" -l build-context -d 'More contexts: a folder, URL, docker-image://, oci-layout:// or target' -r
complete -c rbuild -n "__fish_rbuild_using_subcommand b" -l platform -d 'Platforms to build for' -r
complete -c rbuild -n "__fish_rbuild_using_subcommand b" -l no-cache-filter -d 'Run the steps of these stages again' -r
complete -c rbuild -n "__fish_rbuild_using_subcommand b" -l cache-from -d 'Where cached steps may come from: a reference or type=…' -r
complete -c rbuild -n "__fish_rbuild_using_subcommand b" -l cache-to -d 'Where cached steps go: a reference or type=…' -r
complete -c rbuild -n "__fish_rbuild_using_subcommand b" -l secret -d 'Secret for RUN --mount=type=secret: id=ID[,src=FILE|,env=NAME]' -r
complete -c rbuild -n "__fish_rbuild_using_subcommand b" -l ssh -d 'Agent for RUN --mount=type=ssh: default|ID[=SOCKET]' -r
complete -c rbuild -n "__fish_rbuild_using_subcommand b" -s o -l output -d 'What to do with the result' -r
complete -c rbuild -n "__fish_rbuild_using_subcommand b" -l progress -d 'How progress is shown' -r -f -a "auto\t'As the terminal allows'
tty\t'A view that is redrawn'
plain\t'Lines'
rawjson\t'JSON, a line for each change'
quiet\t'Errors only'"
complete -c rbuild -n "__fish_rbuild_using_subcommand b" -l metadata-file -d 'Write what the build says about its result to this file' -r -F
complete -c rbuild -n "__fish_rbuild_using_subcommand b" -l iidfile -d 'Write the image\'s id to this file' -r -F
complete -c rbuild -n "__fish_rbuild_using_subcommand b" -l label -d 'Label of the image' -r
complete -c rbuild -n "__fish_rbuild_using_subcommand b" -l annotation -d 'Annotation of the image' -r
complete -c rbuild -n "__fish_rbuild_using_subcommand b" -l network -d 'Network of RUN steps: default, none or host' -r
complete -c rbuild -n "__fish_rbuild_using_subcommand b" -l allow -d 'What steps may do: network.host, security.insecure' -r
complete -c rbuild -n "__fish_rbuild_using_subcommand b" -l service -d 'Container that runs beside the build, for its steps: daemons refuse it so far' -r
complete -c rbuild -n "__fish_rbuild_using_subcommand b" -l add-host -d 'More lines of /etc/hosts' -r
complete -c rbuild -n "__fish_rbuild_using_subcommand b" -l shm-size -d 'Size of /dev/shm' -r
complete -c rbuild -n "__fish_rbuild_using_subcommand b" -l ulimit -d 'Limits of RUN steps: name=soft[:hard]' -r
complete -c rbuild -n "__fish_rbuild_using_subcommand b" -l cgroup-parent -d 'Parent cgroup of RUN steps' -r
complete -c rbuild -n "__fish_rbuild_using_subcommand b" -l provenance -d 'Provenance attestation: true, false or mode=min|max' -r
complete -c rbuild -n "__fish_rbuild_using_subcommand b" -l sbom -d 'SBOM attestation: true, false or generator=IMAGE' -r
complete -c rbuild -n "__fish_rbuild_using_subcommand b" -l call -d 'What to ask of the Dockerfile in the place of a build: build, check, outline or targets' -r
complete -c rbuild -n "__fish_rbuild_using_subcommand b" -l opt -d 'Option of the frontend' -r
complete -c rbuild -n "__fish_rbuild_using_subcommand b" -l builder -d 'Accepted for docker\'s sake' -r
complete -c rbuild -n "__fish_rbuild_using_subcommand b" -l rm -d 'Accepted for docker\'s sake' -r
complete -c rbuild -n "__fish_rbuild_using_subcommand b" -l addr -d 'Address of a daemon: unix:///path or tcp://host:port' -r
complete -c rbuild -n "__fish_rbuild_using_subcommand b" -l tlscacert -d 'Authority that the daemon\'s certificate comes from' -r -F
complete -c rbuild -n "__fish_rbuild_using_subcommand b" -l tlscert -d 'Certificate of this client' -r -F
complete -c rbuild -n "__fish_rbuild_using_subcommand b" -l tlskey -d 'Key of that certificate' -r -F
complete -c rbuild -n "__fish_rbuild_using_subcommand b" -l tlsdir -d 'Folder with ca.pem, cert.pem and key.pem (or ca.crt, tls.crt and tls.key)' -r -F
complete -c rbuild -n "__fish_rbuild_using_subcommand b" -l tlsservername -d 'Name in the daemon\'s certificate, if it is not the host\'s' -r
complete -c rbuild -n "__fish_rbuild_using_subcommand b" -l no-cache -d 'Run every step again'
complete -c rbuild -n "__fish_rbuild_using_subcommand b" -s q -l quiet -d 'Only print the image\'s id'
complete -c rbuild -n "__fish_rbuild_using_subcommand b" -l push -d 'Send the image to its registry'
complete -c rbuild -n "__fish_rbuild_using_subcommand b" -l load -d 'Give the image to docker'
complete -c rbuild -n "__fish_rbuild_using_subcommand b" -l pull -d 'Always ask registries for newer base images'
complete -c rbuild -n "__fish_rbuild_using_subcommand b" -l check -d 'Check the Dockerfile (--call=check)'
complete -c rbuild -n "__fish_rbuild_using_subcommand b" -l force-rm -d 'Accepted for docker\'s sake'
complete -c rbuild -n "__fish_rbuild_using_subcommand b" -l debug -d 'Log what this program does'
complete -c rbuild -n "__fish_rbuild_using_subcommand b" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c rbuild -n "__fish_rbuild_using_subcommand du" -s f -l filter -d 'Only records for which this holds (type==regular, id~=…, unused-for=…)' -r
complete -c rbuild -n "__fish_rbuild_using_subcommand du" -l addr -d 'Address of a daemon: unix:///path or tcp://host:port' -r
complete -c rbuild -n "__fish_rbuild_using_subcommand du" -l tlscacert -d 'Authority that the daemon\'s certificate comes from' -r -F
complete -c rbuild -n "__fish_rbuild_using_subcommand du" -l tlscert -d 'Certificate of this client' -r -F
complete -c rbuild -n "__fish_rbuild_using_subcommand du" -l tlskey -d 'Key of that certificate' -r -F
complete -c rbuild -n "__fish_rbuild_using_subcommand du" -l tlsdir -d 'Folder with ca.pem, cert.pem and key.pem (or ca.crt, tls.crt and tls.key)' -r -F
complete -c rbuild -n "__fish_rbuild_using_subcommand du" -l tlsservername -d 'Name in the daemon\'s certificate, if it is not the host\'s' -r
complete -c rbuild -n "__fish_rbuild_using_subcommand du" -s v -l verbose -d 'Show everything about each record'
complete -c rbuild -n "__fish_rbuild_using_subcommand du" -l debug -d 'Log what this program does'
complete -c rbuild -n "__fish_rbuild_using_subcommand du" -s h -l help -d 'Print help'
complete -c rbuild -n "__fish_rbuild_using_subcommand prune" -s f -l filter -d 'Only records for which this holds' -r
complete -c rbuild -n "__fish_rbuild_using_subcommand prune" -l keep-duration -d 'Keep what was used within this time (12h, 7d)' -r
complete -c rbuild -n "__fish_rbuild_using_subcommand prune" -l reserved-space -l keep-storage -d 'Keep this many megabytes' -r
complete -c rbuild -n "__fish_rbuild_using_subcommand prune" -l max-used-space -d 'Stop when no more than this many megabytes are used' -r
complete -c rbuild -n "__fish_rbuild_using_subcommand prune" -l min-free-space -d 'Stop when this many megabytes are free' -r
complete -c rbuild -n "__fish_rbuild_using_subcommand prune" -l addr -d 'Address of a daemon: unix:///path or tcp://host:port' -r
complete -c rbuild -n "__fish_rbuild_using_subcommand prune" -l tlscacert -d 'Authority that the daemon\'s certificate comes from' -r -F
complete -c rbuild -n "__fish_rbuild_using_subcommand prune" -l tlscert -d 'Certificate of this client' -r -F
complete -c rbuild -n "__fish_rbuild_using_subcommand prune" -l tlskey -d 'Key of that certificate' -r -F
complete -c rbuild -n "__fish_rbuild_using_subcommand prune" -l tlsdir -d 'Folder with ca.pem, cert.pem and key.pem (or ca.crt, tls.crt and tls.key)' -r -F
complete -c rbuild -n "__fish_rbuild_using_subcommand prune" -l tlsservername -d 'Name in the daemon\'s certificate, if it is not the host\'s' -r
complete -c rbuild -n "__fish_rbuild_using_subcommand prune" -l all -d 'Also what is internal or used by frontends'
complete -c rbuild -n "__fish_rbuild_using_subcommand prune" -s v -l verbose -d 'Show everything about each record'
complete -c rbuild -n "__fish_rbuild_using_subcommand prune" -l debug -d 'Log what this program does'
complete -c rbuild -n "__fish_rbuild_using_subcommand prune" -s h -l help -d 'Print help'
complete -c rbuild -n "__fish_rbuild_using_subcommand debug; and not __fish_seen_subcommand_from workers info fsck help" -l addr -d 'Address of a daemon: unix:///path or tcp://host:port' -r
complete -c rbuild -n "__fish_rbuild_using_subcommand debug; and not __fish_seen_subcommand_from workers info fsck help" -l tlscacert -d 'Authority that the daemon\'s certificate comes from' -r -F
complete -c rbuild -n "__fish_rbuild_using_subcommand debug; and not __fish_seen_subcommand_from workers info fsck help" -l tlscert -d 'Certificate of this client' -r -F
complete -c rbuild -n "__fish_rbuild_using_subcommand debug; and not __fish_seen_subcommand_from workers info fsck help" -l tlskey -d 'Key of that certificate' -r -F
complete -c rbuild -n "__fish_rbuild_using_subcommand debug; and not __fish_seen_subcommand_from workers info fsck help" -l tlsdir -d 'Folder with ca.pem, cert.pem and key.pem (or ca.crt, tls.crt and tls.key)' -r -F
complete -c rbuild -n "__fish_rbuild_using_subcommand debug; and not __fish_seen_subcommand_from workers info fsck help" -l tlsservername -d 'Name in the daemon\'s certificate, if it is not the host\'s' -r
complete -c rbuild -n "__fish_rbuild_using_subcommand debug; and not __fish_seen_subcommand_from workers info fsck help" -l debug -d 'Log what this program does'
complete -c rbuild -n "__fish_rbuild_using_subcommand debug; and not __fish_seen_subcommand_from workers info fsck help" -s h -l help -d 'Print help'
complete -c rbuild -n "__fish_rbuild_using_subcommand debug; and not __fish_seen_subcommand_from workers info fsck help" -f -a "workers" -d 'List the workers'
complete -c rbuild -n "__fish_rbuild_using_subcommand debug; and not __fish_seen_subcommand_from workers info fsck help" -f -a "info" -d 'Show the version'
complete -c rbuild -n "__fish_rbuild_using_subcommand debug; and not __fish_seen_subcommand_from workers info fsck help" -f -a "fsck" -d 'Check the state directory of a daemon that does not run'
complete -c rbuild -n "__fish_rbuild_using_subcommand debug; and not __fish_seen_subcommand_from workers info fsck help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c rbuild -n "__fish_rbuild_using_subcommand debug; and __fish_seen_subcommand_from workers" -l addr -d 'Address of a daemon: unix:///path or tcp://host:port' -r
complete -c rbuild -n "__fish_rbuild_using_subcommand debug; and __fish_seen_subcommand_from workers" -l tlscacert -d 'Authority that the daemon\'s certificate comes from' -r -F
complete -c rbuild -n "__fish_rbuild_using_subcommand debug; and __fish_seen_subcommand_from workers" -l tlscert -d 'Certificate of this client' -r -F
complete -c rbuild -n "__fish_rbuild_using_subcommand debug; and __fish_seen_subcommand_from workers" -l tlskey -d 'Key of that certificate' -r -F
complete -c rbuild -n "__fish_rbuild_using_subcommand debug; and __fish_seen_subcommand_from workers" -l tlsdir -d 'Folder with ca.pem, cert.pem and key.pem (or ca.crt, tls.crt and tls.key)' -r -F
complete -c rbuild -n "__fish_rbuild_using_subcommand debug; and __fish_seen_subcommand_from workers" -l tlsservername -d 'Name in the daemon\'s certificate, if it is not the host\'s' -r
complete -c rbuild -n "__fish_rbuild_using_subcommand debug; and __fish_seen_subcommand_from workers" -s v -l verbose -d 'Show everything'
complete -c rbuild -n "__fish_rbuild_using_subcommand debug; and __fish_seen_subcommand_from workers" -l debug -d 'Log what this program does'
complete -c rbuild -n "__fish_rbuild_using_subcommand debug; and __fish_seen_subcommand_from workers" -s h -l help -d 'Print help'
complete -c rbuild -n "__fish_rbuild_using_subcommand debug; and __fish_seen_subcommand_from info" -l addr -d 'Address of a daemon: unix:///path or tcp://host:port' -r
complete -c rbuild -n "__fish_rbuild_using_subcommand debug; and __fish_seen_subcommand_from info" -l tlscacert -d 'Authority that the daemon\'s certificate comes from' -r -F
complete -c rbuild -n "__fish_rbuild_using_subcommand debug; and __fish_seen_subcommand_from info" -l tlscert -d 'Certificate of this client' -r -F
complete -c rbuild -n "__fish_rbuild_using_subcommand debug; and __fish_seen_subcommand_from info" -l tlskey -d 'Key of that certificate' -r -F
complete -c rbuild -n "__fish_rbuild_using_subcommand debug; and __fish_seen_subcommand_from info" -l tlsdir -d 'Folder with ca.pem, cert.pem and key.pem (or ca.crt, tls.crt and tls.key)' -r -F
complete -c rbuild -n "__fish_rbuild_using_subcommand debug; and __fish_seen_subcommand_from info" -l tlsservername -d 'Name in the daemon\'s certificate, if it is not the host\'s' -r
complete -c rbuild -n "__fish_rbuild_using_subcommand debug; and __fish_seen_subcommand_from info" -l debug -d 'Log what this program does'
complete -c rbuild -n "__fish_rbuild_using_subcommand debug; and __fish_seen_subcommand_from info" -s h -l help -d 'Print help'
complete -c rbuild -n "__fish_rbuild_using_subcommand debug; and __fish_seen_subcommand_from fsck" -l root -d 'The state directory' -r -F
complete -c rbuild -n "__fish_rbuild_using_subcommand debug; and __fish_seen_subcommand_from fsck" -l addr -d 'Address of a daemon: unix:///path or tcp://host:port' -r
complete -c rbuild -n "__fish_rbuild_using_subcommand debug; and __fish_seen_subcommand_from fsck" -l tlscacert -d 'Authority that the daemon\'s certificate comes from' -r -F
complete -c rbuild -n "__fish_rbuild_using_subcommand debug; and __fish_seen_subcommand_from fsck" -l tlscert -d 'Certificate of this client' -r -F
complete -c rbuild -n "__fish_rbuild_using_subcommand debug; and __fish_seen_subcommand_from fsck" -l tlskey -d 'Key of that certificate' -r -F
complete -c rbuild -n "__fish_rbuild_using_subcommand debug; and __fish_seen_subcommand_from fsck" -l tlsdir -d 'Folder with ca.pem, cert.pem and key.pem (or ca.crt, tls.crt and tls.key)' -r -F
complete -c rbuild -n "__fish_rbuild_using_subcommand debug; and __fish_seen_subcommand_from fsck" -l tlsservername -d 'Name in the daemon\'s certificate, if it is not the host\'s' -r
complete -c rbuild -n "__fish_rbuild_using_subcommand debug; and __fish_seen_subcommand_from fsck" -l deep -d 'Read every blob and compare its digest'
complete -c rbuild -n "__fish_rbuild_using_subcommand debug; and __fish_seen_subcommand_from fsck" -l debug -d 'Log what this program does'
complete -c rbuild -n "__fish_rbuild_using_subcommand debug; and __fish_seen_subcommand_from fsck" -s h -l help -d 'Print help'
complete -c rbuild -n "__fish_rbuild_using_subcommand debug; and __fish_seen_subcommand_from help" -f -a "workers" -d 'List the workers'
complete -c rbuild -n "__fish_rbuild_using_subcommand debug; and __fish_seen_subcommand_from help" -f -a "info" -d 'Show the version'
complete -c rbuild -n "__fish_rbuild_using_subcommand debug; and __fish_seen_subcommand_from help" -f -a "fsck" -d 'Check the state directory of a daemon that does not run'
complete -c rbuild -n "__fish_rbuild_using_subcommand debug; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c rbuild -n "__fish_rbuild_using_subcommand doctor" -l root -d 'The state directory; the one that a daemon would use when not given' -r -F
complete -c rbuild -n "__fish_rbuild_using_subcommand doctor" -l addr -d 'Address of a daemon: unix:///path or tcp://host:port' -r
complete -c rbuild -n "__fish_rbuild_using_subcommand doctor" -l tlscacert -d 'Authority that the daemon\'s certificate comes from' -r -F
complete -c rbuild -n "__fish_rbuild_using_subcommand doctor" -l tlscert -d 'Certificate of this client' -r -F
complete -c rbuild -n "__fish_rbuild_using_subcommand doctor" -l tlskey -d 'Key of that certificate' -r -F
complete -c rbuild -n "__fish_rbuild_using_subcommand doctor" -l tlsdir -d 'Folder with ca.pem, cert.pem and key.pem (or ca.crt, tls.crt and tls.key)' -r -F
complete -c rbuild -n "__fish_rbuild_using_subcommand doctor" -l tlsservername -d 'Name in the daemon\'s certificate, if it is not the host\'s' -r
complete -c rbuild -n "__fish_rbuild_using_subcommand doctor" -l debug -d 'Log what this program does'
complete -c rbuild -n "__fish_rbuild_using_subcommand doctor" -s h -l help -d 'Print help'
complete -c rbuild -n "__fish_rbuild_using_subcommand dial-stdio" -l addr -d 'Address of a daemon: unix:///path or tcp://host:port' -r
complete -c rbuild -n "__fish_rbuild_using_subcommand dial-stdio" -l tlscacert -d 'Authority that the daemon\'s certificate comes from' -r -F
complete -c rbuild -n "__fish_rbuild_using_subcommand dial-stdio" -l tlscert -d 'Certificate of this client' -r -F
complete -c rbuild -n "__fish_rbuild_using_subcommand dial-stdio" -l tlskey -d 'Key of that certificate' -r -F
complete -c rbuild -n "__fish_rbuild_using_subcommand dial-stdio" -l tlsdir -d 'Folder with ca.pem, cert.pem and key.pem (or ca.crt, tls.crt and tls.key)' -r -F
complete -c rbuild -n "__fish_rbuild_using_subcommand dial-stdio" -l tlsservername -d 'Name in the daemon\'s certificate, if it is not the host\'s' -r
complete -c rbuild -n "__fish_rbuild_using_subcommand dial-stdio" -l debug -d 'Log what this program does'
complete -c rbuild -n "__fish_rbuild_using_subcommand dial-stdio" -s h -l help -d 'Print help'
complete -c rbuild -n "__fish_rbuild_using_subcommand help; and not __fish_seen_subcommand_from build du prune debug doctor dial-stdio help" -f -a "build" -d 'Build an image from a Dockerfile'
complete -c rbuild -n "__fish_rbuild_using_subcommand help; and not __fish_seen_subcommand_from build du prune debug doctor dial-stdio help" -f -a "du" -d 'Show what is kept on disk'
complete -c rbuild -n "__fish_rbuild_using_subcommand help; and not __fish_seen_subcommand_from build du prune debug doctor dial-stdio help" -f -a "prune" -d 'Remove what nothing uses'
complete -c rbuild -n "__fish_rbuild_using_subcommand help; and not __fish_seen_subcommand_from build du prune debug doctor dial-stdio help" -f -a "debug" -d 'Ask a daemon about itself'
complete -c rbuild -n "__fish_rbuild_using_subcommand help; and not __fish_seen_subcommand_from build du prune debug doctor dial-stdio help" -f -a "doctor" -d 'Say what this host lacks for builds, what mends it, and what is used instead'
complete -c rbuild -n "__fish_rbuild_using_subcommand help; and not __fish_seen_subcommand_from build du prune debug doctor dial-stdio help" -f -a "dial-stdio" -d 'Connect standard input and output to the daemon\'s socket'
complete -c rbuild -n "__fish_rbuild_using_subcommand help; and not __fish_seen_subcommand_from build du prune debug doctor dial-stdio help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c rbuild -n "__fish_rbuild_using_subcommand help; and __fish_seen_subcommand_from debug" -f -a "workers" -d 'List the workers'
complete -c rbuild -n "__fish_rbuild_using_subcommand help; and __fish_seen_subcommand_from debug" -f -a "info" -d 'Show the version'
complete -c rbuild -n "__fish_rbuild_using_subcommand help; and __fish_seen_subcommand_from debug" -f -a "fsck" -d 'Check the state directory of a daemon that does not run'
