//! What the small tree of the tests has no program for: this test binary is run in the step.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

use super::*;

/// Makes the spec's process this binary, in the given role, with what it needs of the host.
pub(super) fn make(spec: &mut ContainerSpec, role: &str) {
    let args = ["/probe", "probe::probe", "--exact", "--nocapture"];
    spec.process.args = args.map(str::to_owned).to_vec();
    spec.process.env.push(format!("RBUILD_PROBE={role}"));
    for name in ["lib", "lib64", "usr"] {
        let host = Path::new("/").join(name);
        if host.exists() {
            spec.mounts.push(at(&format!("/{name}"), place(host)));
        }
    }
    let program = std::env::current_exe().unwrap();
    spec.mounts.push(at("/probe", place(program)));
}

/// What a step runs; by itself it does nothing.
#[test]
fn probe() {
    match std::env::var("RBUILD_PROBE").as_deref() {
        Ok("connect") => connect(),
        Ok("attributes") => attributes(),
        Ok("network") => supervised::network(),
        Ok("flood") => supervised::flood(),
        Ok("agent") => {
            UnixStream::connect("/agent").unwrap();
            println!("connected");
        }
        _ => {}
    }
}

fn connect() {
    let connect = |name: &str| {
        let address = SocketAddr::from_abstract_name(name).unwrap();
        match UnixStream::connect_addr(&address) {
            Ok(_) => "reached",
            Err(_) => "refused",
        }
    };
    let address = SocketAddr::from_abstract_name("rbuild-own").unwrap();
    let _listener = UnixListener::bind_addr(&address).unwrap();
    println!(
        "host {}, own {}",
        connect(&std::env::var("RBUILD_SOCKET").unwrap()),
        connect("rbuild-own")
    );
}

/// `cap_net_raw=ep` as `setcap` writes it: version 2 and little endian.
pub(super) const CAPABILITY: [u8; 20] = [
    1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
];

/// Sets what only system calls set: file capabilities, an access list with ids, an attribute of a user.
fn attributes() {
    let open = |name: &str| std::fs::File::open(name).unwrap();
    std::fs::write("/tmp/capable", "x").unwrap();
    sys::xattr::set(open("/tmp/capable"), "security.capability", &CAPABILITY).unwrap();
    let value = sys::xattr::get(open("/tmp/capable"), "security.capability").unwrap();
    assert_eq!(value.unwrap(), CAPABILITY, "read back in the step");
    sys::xattr::set(open("/tmp/capable"), "user.note", b"note").unwrap();
    // Of the lower layer: copied up with what it has.
    std::fs::OpenOptions::new()
        .append(true)
        .open("/lower-acl")
        .unwrap();
    let value = sys::xattr::get(open("/lower-acl"), "security.capability").unwrap();
    assert_eq!(value.unwrap(), CAPABILITY, "of the layer below");
    std::fs::write("/tmp/listed", "x").unwrap();
    sys::xattr::set(
        open("/tmp/listed"),
        "system.posix_acl_access",
        &access_list(1000),
    )
    .unwrap();
    let value = sys::xattr::get(open("/tmp/listed"), "system.posix_acl_access").unwrap();
    assert_eq!(value.unwrap(), access_list(1000));
    println!("attributes set");
}

/// `user::rw-,user:ID:r--,group::r--,mask::r--,other::---` as the kernel takes it.
pub(super) fn access_list(user: u32) -> Vec<u8> {
    let entries: [(u16, u16, u32); 5] = [
        (1, 6, u32::MAX),
        (2, 4, user),
        (4, 4, u32::MAX),
        (0x10, 4, u32::MAX),
        (0x20, 0, u32::MAX),
    ];
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}
