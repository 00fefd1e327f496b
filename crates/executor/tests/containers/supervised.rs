//! What a step in a user namespace has done by its supervisor, and everything else that Dockerfiles do: the same as without.

use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::FileTypeExt;

use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType, ipproto};

use super::users::{IDS, ids_of, mapping_launcher, spec_for, tar_of};
use super::*;

/// Scripts for the small tree; the last word is the user.
const SMALL: [(&str, &str, &str); 9] = [
    (
        "nodes of every kind, with umask, modes and folders that pass on their group",
        "umask 027; mknod /tmp/c c 1 3; mknod -m 666 /dev/n c 1 3; mkdir /s; busybox chgrp 50 /s; busybox chmod 2775 /s; \
         mknod /s/b b 7 1; cd /s; mknod rel c 5 1; mknod ../up c 5 1; mknod big b 4095 1048575; mknod -m 640 odd c 259 70000; mknod f p; \
         stat -c '%n %a %u:%g %t:%T %F' /tmp/c /dev/n /s/b rel /up big odd f",
        "",
    ),
    (
        "what the kernel refuses, in its order",
        "mkdir /d; for name in /none/x /tmp /tmp/ / . .. '' /bin/sh/x /d/../bin/sh /proc/x /sys/x /etc/hosts $(busybox printf '%0300d' 1); do \
         mknod \"$name\" c 1 3; echo $?; done; ln -s /nowhere /d/dangling; mknod /d/dangling c 1 3; mknod /d/slash/ c 1 3; \
         ln -s loop /d/loop; mknod /d/loop/x c 1 3; mknod /d/white c 0 0; mknod /ro/x c 1 3; ls -la /d | wc -l",
        "",
    ),
    (
        "links are followed inside the root of the caller",
        "mkdir -p /jail/bin /jail/sub; busybox cp /bin/busybox /jail/bin/; ln -s / /jail/out; ln -s ../../../../../ /jail/up; ln -s sub /jail/in; \
         j() { chroot /jail /bin/busybox mknod $1 c 1 3; echo $1 $?; }; j /a; j out/b; j up/c; j ../../d; j /in/e; j in/../../f; j /nowhere/g; \
         ls / /jail /jail/sub | grep -v up; stat -c '%t:%T %u:%g' /jail/a /jail/b /jail/c /jail/d /jail/sub/e /jail/f",
        "",
    ),
    (
        "mounts of every kind hold nodes, and hold them as without",
        "for d in /cache /scratch /dev /dev/shm /tmp; do mknod $d/node c 1 5; echo $?; stat -c '%a %u:%g %t:%T' $d/node; \
         head -c 2 $d/node 2>/dev/null | wc -c; done",
        "",
    ),
    (
        "the control group decides who opens a node",
        "mknod /zero c 1 5; head -c 3 /zero | wc -c; mknod /kmsg c 1 11; head -c 1 /kmsg; echo $?; mknod /disk b 7 0; head -c 1 /disk; echo $?; \
         mknod /null c 1 3; echo x > /null; test -s /null; echo $?",
        "",
    ),
    (
        "debootstrap's question whether nodes work here",
        "mkdir /target; mknod /target/test-dev-null c 1 3 && echo test > /target/test-dev-null && rm -f /target/test-dev-null; echo $?; \
         mkdir /target/dev; for n in null:1:3 zero:1:5 full:1:7 random:1:8 urandom:1:9 tty:5:0; do IFS=:; set -- $n; unset IFS; \
         mknod -m 666 /target/dev/$1 c $2 $3; done; ls -l /target/dev | busybox awk '{print $1,$3,$4,$5,$6,$10}'",
        "",
    ),
    (
        "users without capabilities make no nodes and no raw sockets",
        "mknod /tmp/x c 1 3; echo $?; mknod /tmp/p p; echo $?; busybox ping -c 1 -W 1 127.0.0.1 > /dev/null; echo $?; \
         busybox nc -l -p 81 -s 127.0.0.78 < /dev/null; echo $?",
        "build",
    ),
    (
        "programs that are set-user-id, or dropped what they had",
        "busybox cp /bin/busybox /suid; busybox chmod 4755 /suid; busybox su build -s /bin/sh -c '/suid id -u; /suid mknod /tmp/s c 1 3; echo $?; \
         mknod /tmp/n c 1 3; echo $?'; stat -c '%u:%g %t' /tmp/s",
        "",
    ),
    (
        "signals do not break a node off",
        "busybox timeout 5 sh -c 'i=0; trap : USR1; (while :; do kill -USR1 $$ 2>/dev/null || exit; done) & \
         while [ $i -lt 20 ]; do mknod /tmp/n$i c 1 3 || echo failed; i=$((i+1)); done; kill $!'; ls /tmp | wc -l",
        "",
    ),
];

/// Runs one thing without a user namespace and with one, each over a tree of its own; gives codes, outputs and layers.
async fn both_ways(
    make: impl Fn(&Tree, Option<&Arc<IdMapping>>) -> ContainerSpec,
) -> Option<[(u32, String, Vec<u8>); 2]> {
    let first = Tree::new()?;
    let (plain, mapping) = (launcher(), mapping_launcher());
    let ids = ids_of(&mapping, &first)?;
    let mut results = Vec::new();
    for ids in [None, Some(&ids)] {
        let tree = Tree::new().unwrap();
        for name in ["cache", "fixed"] {
            std::fs::create_dir(tree.path(name)).unwrap();
        }
        let launcher = if ids.is_some() { &mapping } else { &plain };
        let (status, output) = run(launcher, make(&tree, ids)).await.unwrap();
        results.push((status.code, output, tar_of(&tree.path("upper"))));
    }
    results.try_into().ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_supervised_step_says_and_writes_what_one_without_a_user_namespace_does() {
    for (what, script, user) in SMALL {
        let results = both_ways(|tree, ids| {
            let mut spec = spec_for(tree, &format!("exec 2>&1; {script}"), ids);
            spec.process.user = user.into();
            spec.mounts = vec![
                at("/cache", place(tree.path("cache"))),
                at("/scratch", MountSource::Tmpfs { size: None }),
                Mount {
                    readonly: true,
                    ..at("/ro", place(tree.path("fixed")))
                },
            ];
            spec
        });
        let Some([plain, mapped]) = results.await else {
            return;
        };
        assert_eq!(plain.0, mapped.0, "{what}: {} {}", plain.1, mapped.1);
        assert_eq!(plain.1, mapped.1, "{what}");
        assert!(plain.2 == mapped.2, "{what}: the layers differ");
    }
}

/// Scripts for programs of this machine. Where one is missing both say so.
const PROGRAMS: [(&str, &str); 14] = [
    (
        "users are added, and become themselves",
        "useradd -m -u 1234 alice; id alice; su alice -c 'id; umask; touch ~/x; stat -c %U:%g ~/x; test -r /etc/shadow; echo $?'; \
         su - alice -c 'pwd; cat /proc/self/uid_map > /dev/null'; userdel -r alice; echo $?",
    ),
    (
        "adduser, groups and passwords",
        "addgroup --system things; adduser --system --ingroup things --home /var/lib/thing thing; stat -c %U:%G /var/lib/thing; \
         usermod -p x thing; echo $?; chage -l thing | head -1; gpasswd -a thing audio; id thing; deluser thing; echo $?",
    ),
    (
        "packages are built and installed",
        "mkdir -p /b/DEBIAN /b/opt/own; printf 'Package: own\\nVersion: 1\\nArchitecture: all\\nMaintainer: x <x@x>\\nDescription: x\\n' > /b/DEBIAN/control; \
         printf '#!/bin/sh\\nset -e\\nchown 100:33 /opt/own/f\\nchmod 4750 /opt/own/f\\nmknod /opt/own/null c 1 3\\n' > /b/DEBIAN/postinst; chmod 755 /b/DEBIAN/postinst; \
         echo x > /b/opt/own/f; chown 7:8 /b/opt/own; dpkg-deb -b /b /b.deb > /dev/null; dpkg -i /b.deb > /dev/null; echo $?; \
         stat -c '%u:%g %a %t:%T' /opt/own /opt/own/f /opt/own/null; dpkg -P own > /dev/null; echo $?; ls /opt; rm -f /b.deb /var/log/dpkg.log /var/lib/dpkg/*-old",
    ),
    (
        "apt works as its own user",
        "apt-get -o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts=/dev/null update > /dev/null 2>&1; echo $?; \
         mkdir -p /x/partial; chown _apt /x/partial; setpriv --reuid=_apt --regid=65534 --clear-groups sh -c 'id -un; touch /x/partial/y'; \
         stat -c %U:%g /x/partial/y; rm -rf /var/lib/apt /var/cache/apt",
    ),
    (
        "archives keep owners, modes, links and devices",
        "mkdir -p /a/d; cd /a; echo x > d/f; chown 100000:200000 d/f; chmod 6755 d/f; echo y > d/far; chown 4026531838:4026531838 d/far; mknod d/dev b 8 0; \
         mkfifo d/p; ln d/f d/hard; ln -s f d/soft; chown -h 3:4 d/soft; tar cpf /a.tar d; mkdir /e; cd /e; tar xpf /a.tar --same-owner; echo $?; \
         stat -c '%n %u:%g %a %h %F %t:%T' d/*; tar tvf /a.tar | cut -c1-30; rm /a.tar",
    ),
    (
        "devices are copied",
        "cp -a /dev/null /dev/zero /; stat -c '%a %u:%g %t:%T' /null /zero; cp -a /dev/shm /copied; rm -rf /copied; echo $?",
    ),
    (
        "capabilities of files are set, read and used",
        "cp /bin/sleep /capable; setcap cap_net_raw,cap_net_bind_service+ep /capable; getcap /capable; cp --preserve=all /capable /kept; getcap /kept; \
         setpriv --reuid=1000 --regid=1000 --clear-groups /capable 5 & until grep -q capable /proc/$!/comm; do :; done; grep CapEff /proc/$!/status; kill $!; setcap -r /kept; getcap /kept; echo end",
    ),
    (
        "set-user-id and set-group-id programs",
        "cp /usr/bin/id /sid; chown 33:50 /sid; chmod 6755 /sid; setpriv --reuid=1000 --regid=1000 --clear-groups /sid; chown 0:0 /sid; chmod 4755 /sid; \
         setpriv --reuid=1000 --regid=1000 --clear-groups /sid -u; setpriv --reuid=1000 --regid=1000 --clear-groups --no-new-privs /sid -u",
    ),
    (
        "no step gets a namespace, a mount or a module",
        "unshare -U true; echo $?; unshare -m true; echo $?; unshare -r id; echo $?; mount -t tmpfs x /mnt; echo $?; mount --bind /etc /mnt; echo $?; \
         umount /proc; echo $?; nsenter -t 1 -m true; echo $?; chroot / true; echo $?; date -s 2001-01-01 > /dev/null; echo $?; hostname other; echo $?; \
         ip link add d0 type dummy; echo $?; dmesg > /dev/null; echo $?; sysctl -w kernel.panic=1 > /dev/null; echo $?; nice -n -5 true; echo $?",
    ),
    (
        "owners out of the usual",
        "touch /f; for o in 65534 65535 65536 100000 999999999 4026531838; do chown $o:$o /f; echo $?; stat -c %u:%g /f; done; \
         install -o 12345 -g 54321 -m 2710 /f /g; stat -c '%u:%g %a' /g; chgrp 4242 /g; find / -xdev -maxdepth 1 -gid 4242; \
         setpriv --reuid=70000 --regid=70001 --clear-groups id",
    ),
    (
        "access lists, attributes and flags",
        "touch /f; setfacl -m u:1234:r,g:100000:rw /f; getfacl -np /f; setfattr -n user.x -v y /f; getfattr -d /f; setfattr -n trusted.x -v y /f; echo $?; \
         setfattr -n security.x -v y /f; echo $?; chattr +i /f; echo $?",
    ),
    (
        "what is written over what is mounted",
        "echo '10.0.0.1 x' >> /etc/hosts; echo $?; echo >> /etc/resolv.conf; echo $?; rm /etc/hosts; echo $?; stat -c '%u:%g %a' /etc/hosts /etc/resolv.conf; \
         cat /secret; stat -c '%u:%g %a' /secret; echo x > /secret; echo $?; mkfifo /tmp/p; touch /dev/shm/x; stat -c %u:%g /dev/shm/x; echo o > /dev/stdout",
    ),
    (
        "processes look at each other",
        "sleep 5 & until grep -q sleep /proc/$!/comm; do :; done; readlink /proc/$!/exe | wc -l; tr '\\0' ' ' < /proc/$!/cmdline; echo; ls /proc/$!/fd | wc -l; readlink /proc/1/cwd; kill $!; \
         wait $!; echo $?; grep -c . /proc/self/maps > /dev/null; set -- /proc/[0-9]*; echo $#; echo 500 > /proc/self/oom_score_adj; echo $?; \
         echo -500 > /proc/self/oom_score_adj; echo $?; strace -o /dev/null true; echo $?",
    ),
    (
        "the network of the host",
        "ping -c 1 -W 2 127.0.0.1 > /dev/null; echo $?; setpriv --reuid=1000 --regid=1000 --clear-groups ping -c 1 -W 2 127.0.0.1 > /dev/null; echo $?; \
         ss -ltn > /dev/null; echo $?; ip -br link | wc -l; cat /proc/sys/net/ipv4/ip_unprivileged_port_start",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn programs_of_this_machine_do_the_same_in_a_user_namespace_and_write_the_same_layers() {
    let Some(small) = Tree::new() else { return };
    let (plain, mapping) = (launcher(), mapping_launcher());
    let Some(ids) = ids_of(&mapping, &small) else {
        return;
    };
    let mut differ = Vec::new();
    for (what, script) in PROGRAMS {
        let mut results = Vec::new();
        for ids in [None, Some(&ids)] {
            // In memory, for an upper directory cannot lie within the lower one.
            let Some(tree) = Tree::new_in("/dev/shm") else {
                return;
            };
            let host = sys::path::open_dir(Path::new("/")).unwrap();
            let root = tree.mount_over(&host, ids.map(AsRef::as_ref));
            let mut spec = ContainerSpec::new(
                Access::SANDBOX,
                root,
                process(&["/bin/bash", "-c", &format!("cd /; exec 2>&1; {script}")]),
            );
            spec.process.env = vec![
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into(),
                "SOURCE_DATE_EPOCH=1".into(),
            ];
            spec.mounts = vec![
                at("/tmp", MountSource::Tmpfs { size: None }),
                at(
                    "/secret",
                    MountSource::File {
                        contents: b"hush\n".to_vec(),
                        mode: 0o400,
                        uid: 12,
                        gid: 13,
                    },
                ),
            ];
            spec.ids = ids.cloned();
            let launcher = if ids.is_some() { &mapping } else { &plain };
            let (status, output) = run(launcher, spec).await.unwrap();
            results.push((status.code, output, tar_of(&tree.path("upper"))));
        }
        let (mapped, plain) = (results.pop().unwrap(), results.pop().unwrap());
        println!("--- {what}: {}\n{}", plain.0, plain.1);
        if (plain.0, &plain.1) != (mapped.0, &mapped.1) {
            differ.push(format!("{what}: {} {}", mapped.0, mapped.1));
        }
        if plain.2 != mapped.2 {
            differ.push(format!("{what}: the layers differ"));
        }
    }
    assert!(differ.is_empty(), "{}", differ.join("\n"));
}

/// What the probe does in a step: sockets of every kind and addresses, with what comes of them.
pub(super) fn network() {
    let raw = |kind| SocketType::from_raw(kind);
    let protocol = |number: u32| std::num::NonZeroU32::new(number).map(Protocol::from_raw);
    let kinds = [
        (
            "icmp",
            AddressFamily::INET,
            SocketType::RAW,
            Some(ipproto::ICMP),
        ),
        ("raw", AddressFamily::INET, SocketType::RAW, protocol(255)),
        ("icmp6", AddressFamily::INET6, SocketType::RAW, protocol(58)),
        (
            "raw without a protocol",
            AddressFamily::INET,
            SocketType::RAW,
            None,
        ),
        (
            "packet",
            AddressFamily::PACKET,
            SocketType::RAW,
            protocol(0x300),
        ),
        (
            "cooked packet",
            AddressFamily::PACKET,
            SocketType::DGRAM,
            None,
        ),
        ("packet of no type", AddressFamily::PACKET, raw(9), None),
        ("tcp", AddressFamily::INET, SocketType::STREAM, None),
        ("netlink", AddressFamily::NETLINK, SocketType::RAW, None),
        ("unix", AddressFamily::UNIX, SocketType::SEQPACKET, None),
    ];
    for (what, family, kind, protocol) in kinds {
        for flags in [
            SocketFlags::empty(),
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        ] {
            match rustix::net::socket_with(family, kind, flags, protocol) {
                Ok(fd) => println!(
                    "{what}: {:?} {:?} {:?}",
                    rustix::io::fcntl_getfd(&fd).unwrap(),
                    rustix::fs::fcntl_getfl(&fd).unwrap(),
                    rustix::fs::fstat(&fd).map(|stat| (stat.st_uid, stat.st_gid)),
                ),
                Err(error) => println!("{what}: {error}"),
            }
        }
    }
    let outcome = |result: Result<String, std::io::Error>| match result {
        Ok(text) => text,
        Err(error) => error.to_string(),
    };
    for address in [
        "127.0.0.77:81",
        "127.0.0.77:1023",
        "[::1]:82",
        "127.0.0.77:0",
        "127.0.0.77:34567",
        "192.0.2.1:83",
    ] {
        let tcp = TcpListener::bind(address);
        let again = TcpListener::bind(address).map(|_| "bound twice".to_owned());
        let again = if address.ends_with(":0") {
            Ok(String::new())
        } else {
            again
        };
        println!(
            "tcp {address}: {} {}",
            outcome(tcp.map(|_| "bound".into())),
            outcome(again)
        );
        println!(
            "udp {address}: {}",
            outcome(UdpSocket::bind(address).map(|_| "bound".into()))
        );
    }
    let file = std::fs::File::open("/").unwrap();
    let low = [
        2u16.to_ne_bytes(),
        80u16.to_be_bytes(),
        [127, 0],
        [0, 77],
        [0; 2],
        [0; 2],
        [0; 2],
        [0; 2],
    ]
    .concat();
    println!(
        "bind of a folder: {:?}",
        sys::socket::bind(&file, &low).map_err(|e| e.raw_os_error())
    );
    let tcp = sys::socket::open(2, 1, 0).unwrap();
    for (what, address) in [
        ("short", &low[..15]),
        ("long", &[&low[..], &[0; 200]].concat()),
        ("whole", &low),
        ("again", &low),
    ] {
        println!(
            "{what} address: {:?}",
            sys::socket::bind(&tcp, address).map_err(|e| e.raw_os_error())
        );
    }
    let unix = sys::socket::open(1, 1, 0).unwrap();
    println!(
        "unix: {:?}",
        sys::socket::bind(&unix, &low).map_err(|e| e.raw_os_error())
    );
    let path = [&1u16.to_ne_bytes()[..], b"/tmp/listening-here"].concat();
    println!(
        "unix path: {:?}",
        sys::socket::bind(&unix, &path).map_err(|e| e.raw_os_error())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_of_a_step_in_a_user_namespace_are_those_it_has_without() {
    for (mode, user) in [
        (NetworkMode::Sandbox, "root"),
        (NetworkMode::Sandbox, "build"),
        (NetworkMode::None, "root"),
        (NetworkMode::None, "build"),
    ] {
        let results = both_ways(|tree, ids| {
            let mut spec = spec_for(tree, "", ids);
            probe::make(&mut spec, "network");
            spec.process.user = user.into();
            spec.access = Entitlements::default()
                .access(mode, SecurityMode::Sandbox)
                .unwrap();
            spec
        });
        let Some([plain, mapped]) = results.await else {
            return;
        };
        // How long the test took stands at the end.
        let [plain, mapped] = [plain, mapped].map(|(_, output, _)| {
            let (output, _) = output.rsplit_once("test result").unwrap();
            output.to_owned()
        });
        assert_eq!(plain, mapped, "{mode} {user}");
        let bound = plain.contains("tcp 127.0.0.77:81: bound");
        // A network of its own has no interface that is up, but addresses of it can be bound.
        assert_eq!(bound, user == "root", "{plain}");
        assert!(plain.contains("icmp: "), "{plain}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_supervisor_follows_no_link_of_procfs_and_writes_to_no_folder_of_the_hosts_owners() {
    let Some(tree) = Tree::new() else { return };
    let launcher = mapping_launcher();
    let Some(ids) = ids_of(&launcher, &tree) else {
        return;
    };
    let host = tempfile::tempdir().unwrap();
    let folder = |name: &str, owner, mode| {
        let path = host.path().join(name);
        std::fs::create_dir(&path).unwrap();
        std::os::unix::fs::chown(&path, Some(owner), Some(owner)).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
    };
    std::fs::set_permissions(host.path(), PermissionsExt::from_mode(0o755)).unwrap();
    folder("roots", 0, 0o755);
    folder("somebodys", 1000, 0o755);
    folder("own", IDS.base, 0o755);
    folder("everybodys", 0, 0o777);
    // DIFFERS: without a user namespace links of procfs are followed.
    let script = "for name in /proc/self/root/tmp/a /proc/1/root/tmp/b /proc/1/cwd/tmp/c /proc/self/fd/0/d /host/roots/x /host/somebodys/x \
                  /host/own/x /host/everybodys/x; do mknod $name c 1 3 2>&1 | busybox sed 's/.*: //'; done; ls /tmp | wc -l";
    let mut spec = spec_for(&tree, script, Some(&ids));
    // A folder of the host whose ids are not mapped.
    let place = mount::open_tree_clone(sys::path::open_dir(host.path()).unwrap(), false).unwrap();
    spec.mounts = vec![at("/host", MountSource::Mount(place))];
    let output = text(&launcher, spec).await;
    assert_eq!(
        output,
        "No such file or directory\nToo many levels of symbolic links\nToo many levels of symbolic links\nNo such file or directory\n\
         Permission denied\nPermission denied\n0\n"
    );
    for (name, made) in [
        ("roots", false),
        ("somebodys", false),
        ("own", true),
        ("everybodys", true),
    ] {
        let node = std::fs::symlink_metadata(host.path().join(name).join("x"));
        assert_eq!(
            node.is_ok_and(|node| node.file_type().is_char_device()),
            made,
            "{name}"
        );
    }
}

/// What the probe does in a step: asks without end, from several threads.
pub(super) fn flood() {
    let ask = || {
        let socket = sys::socket::open(2, 1, 0).unwrap();
        loop {
            drop(sys::socket::bind(&socket, &[0; 16]));
        }
    };
    for _ in 0..8 {
        std::thread::spawn(ask);
    }
    println!("flooding");
    loop {
        std::thread::park();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_asks_without_end_keeps_no_other_step_from_being_answered_and_ends_with_its_supervisor()
 {
    let Some(tree) = Tree::new() else { return };
    let launcher = mapping_launcher();
    let Some(ids) = ids_of(&launcher, &tree) else {
        return;
    };
    let mut spec = spec_for(&tree, "", Some(&ids));
    probe::make(&mut spec, "flood");
    let (flooding, mut is_flooding) = mpsc::channel(1);
    let io = ProcessIo {
        stdout: Output::sink(move |chunk: bytes::Bytes| {
            if String::from_utf8_lossy(&chunk).contains("flooding") {
                let _ = flooding.try_send(());
            }
        }),
        ..ProcessIo::default()
    };
    let running = tokio::task::spawn({
        let launcher = Arc::clone(&launcher);
        async move { launcher.run(spec, io, None).await }
    });
    is_flooding.recv().await.unwrap();
    for round in 0..5 {
        let second_tree = Tree::new().unwrap();
        let script =
            "i=0; while [ $i -lt 20 ]; do mknod /tmp/n$i c 1 3 || exit 1; i=$((i+1)); done";
        let (status, output) = run(&launcher, spec_for(&second_tree, script, Some(&ids)))
            .await
            .unwrap();
        assert_eq!(status.code, 0, "{round}: {output}");
    }
    running.abort();
    drop(running.await);
    // The launcher has no children but the one that asks here, when that is told of its end.
    let second_tree = Tree::new().unwrap();
    let script = "mknod /n c 1 3";
    assert_eq!(
        run(&launcher, spec_for(&second_tree, script, Some(&ids)))
            .await
            .unwrap()
            .0
            .code,
        0
    );
    let launcher_id = launcher.process_id().unwrap();
    let children =
        std::fs::read_to_string(format!("/proc/{launcher_id}/task/{launcher_id}/children"));
    let children_left: Vec<String> = children
        .unwrap()
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    for child in &children_left {
        // One that was killed may not have been waited for yet.
        let stat = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
        assert!(stat.is_empty() || stat.contains(") Z "), "{stat}");
    }
}
