//! The table of preconditions.

use super::{Facts, Finding};
use crate::rootless::Entered;

/// One precondition.
#[derive(Debug)]
pub struct Check {
    /// The name of the precondition in the report.
    pub name: &'static str,
    /// Returns the finding; `None` where the precondition does not apply.
    pub judge: fn(&Facts) -> Option<Finding>,
}

/// All checks; a precondition comes before those that depend on it.
pub const CHECKS: &[Check] = &[
    Check {
        name: "kernel",
        judge: kernel,
    },
    Check {
        name: "root",
        judge: root,
    },
    Check {
        name: "subordinate ids",
        judge: subordinate_ids,
    },
    Check {
        name: "newuidmap, newgidmap",
        judge: helpers,
    },
    Check {
        name: "namespaces of steps",
        judge: namespaces,
    },
    Check {
        name: "overlay",
        judge: overlay,
    },
    Check {
        name: "proc of steps",
        judge: proc,
    },
    Check {
        name: "users of steps",
        judge: users_of_steps,
    },
    Check {
        name: "control groups",
        judge: control_groups,
    },
    Check {
        name: "bridge network",
        judge: bridge,
    },
    Check {
        name: "tun device",
        judge: tun,
    },
    Check {
        name: "git",
        judge: git,
    },
    Check {
        name: "other platforms",
        judge: platforms,
    },
    Check {
        name: "disk",
        judge: disk,
    },
];

/// The first kernel with overlay mounts in user namespaces that keep their marks in users' attributes.
const USERXATTR: (u32, u32) = (5, 11);
/// The first kernel with `mount_setattr`, which every mount needs.
const MOUNT_SETATTR: (u32, u32) = (5, 12);
/// The first kernel that maps the ids of the mounts that steps get.
const MAPPED_MOUNTS: (u32, u32) = (6, 15);
/// Less free space than this, in bytes, is little for images.
const LITTLE_SPACE: u64 = 5 << 30;

fn is_rootless(facts: &Facts) -> bool {
    facts.nested || facts.entered.is_some()
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn kernel(facts: &Facts) -> Option<Finding> {
    let observation = format!("Linux {}", facts.release);
    Some(match version(&facts.release) {
        Some(version) if version < MOUNT_SETATTR.max(USERXATTR) => Finding::fatal(
            observation,
            format!("a kernel from {}.{} on", MOUNT_SETATTR.0, MOUNT_SETATTR.1),
        ),
        _ => Finding::good(observation),
    })
}

fn root(facts: &Facts) -> Option<Finding> {
    let Some(entered) = &facts.entered else {
        return Some(Finding::good(if facts.nested {
            "root of a user namespace that somebody made"
        } else {
            "root of this machine"
        }));
    };
    let Err(error) = entered else {
        let observation = format!(
            "user {} ({}) is root of a user namespace",
            facts.name, facts.uid
        );
        return Some(Finding::good(observation));
    };
    let remedy = if facts.userns_clone.as_deref() == Some("0") {
        "sudo sysctl -w kernel.unprivileged_userns_clone=1".to_owned()
    } else if facts.max_userns.as_deref() == Some("0") {
        "sudo sysctl -w user.max_user_namespaces=28633".to_owned()
    } else if restricted(facts) {
        APPARMOR.to_owned()
    } else {
        "in a container: a seccomp profile that allows unshare and clone with CLONE_NEWUSER, e.g. --security-opt seccomp=unconfined".to_owned()
    };
    Some(Finding::fatal(error.clone(), remedy))
}

const APPARMOR: &str = "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or an AppArmor profile with `userns,` for this program";

fn restricted(facts: &Facts) -> bool {
    facts
        .apparmor_restricts
        .as_deref()
        .is_some_and(|word| word != "0")
}

fn subordinate_ids(facts: &Facts) -> Option<Finding> {
    if !is_rootless(facts) {
        return None;
    }
    if facts.ids >= 65536 {
        return Some(Finding::good(format!("{} ids", facts.ids)));
    }
    let why = match &facts.entered {
        Some(Ok(Entered::Alone { why })) => why.clone(),
        _ => format!("{} ids", facts.ids),
    };
    let instead = if facts.ids == 1 {
        "the user's own id: files of other owners in images become its own, and steps are told that changes of owners worked"
    } else {
        "images whose files belong to higher ids cannot be unpacked"
    };
    let remedy = format!(
        "echo '{}:100000:65536' | sudo tee -a /etc/subuid /etc/subgid (ids that nobody else has)",
        facts.name
    );
    Some(Finding::missing(why, instead, remedy))
}

fn helpers(facts: &Facts) -> Option<Finding> {
    facts.entered.as_ref()?;
    let usable = |helper: &super::Helper| helper.path.is_some() && helper.privileged;
    if facts.helpers.iter().all(usable) {
        return Some(Finding::good("can map ids"));
    }
    let [uid, _] = &facts.helpers;
    Some(match &uid.path {
        None => Finding::missing(
            "not installed",
            "the user's own id only",
            "sudo apt-get install uidmap (elsewhere: shadow, shadow-utils)",
        ),
        Some(path) => Finding::missing(
            format!(
                "{} is not set-user-ID and has no capability",
                path.display()
            ),
            "the user's own id only",
            "sudo chmod u+s $(which newuidmap newgidmap); in a container: not with no-new-privileges",
        ),
    })
}

fn namespaces(facts: &Facts) -> Option<Finding> {
    Some(match &facts.namespaces {
        Ok(()) => Finding::good("processes, mounts, IPC and host names of their own"),
        Err(error) => Finding::fatal(
            error.clone(),
            if restricted(facts) {
                APPARMOR
            } else {
                "in a container: --privileged, or user namespaces of pods (hostUsers: false) with privileged: true"
            },
        ),
    })
}

fn overlay(facts: &Facts) -> Option<Finding> {
    let place = facts.root.display();
    Some(match &facts.overlay {
        Ok(()) => Finding::good(format!("works in {place}")),
        Err(error) => Finding::missing(
            format!("{error} in {place}"),
            "whole copies (snapshotter native): slow, and each step takes the space of its whole tree while it runs",
            if is_rootless(facts) && restricted(facts) {
                APPARMOR.to_owned()
            } else {
                "a state directory (--root, RBUILD_ROOT) of this user's on ext4, xfs, btrfs or tmpfs; not on overlay itself, NFS or FUSE".to_owned()
            },
        ),
    })
}

fn proc(facts: &Facts) -> Option<Finding> {
    Some(match &facts.proc {
        Ok(()) => Finding::good("steps see their own processes"),
        Err(error) => Finding::missing(
            format!("a new proc is refused ({error}): parts of this one are covered"),
            "this proc, to read: steps see numbers of others' processes, and cannot look into them",
            "docker: --security-opt systempaths=unconfined; Kubernetes: procMount: Unmasked with hostUsers: false",
        ),
    })
}

fn users_of_steps(facts: &Facts) -> Option<Finding> {
    if is_rootless(facts) {
        return Some(Finding::good("inside of this user's ids"));
    }
    Some(match version(&facts.release) {
        Some(version) if version >= MAPPED_MOUNTS => Finding::good("a user namespace for steps"),
        _ => Finding::missing(
            format!("Linux {} maps no ids of mounts of steps", facts.release),
            "root of a step is root of this machine, confined",
            "Linux 6.15",
        ),
    })
}

fn control_groups(facts: &Facts) -> Option<Finding> {
    let groups = &facts.cgroups;
    let usable = if is_rootless(facts) {
        groups.delegated
    } else {
        groups.v2 || groups.v1
    };
    if usable {
        let list = groups.controllers.join(", ");
        return Some(Finding::good(if list.is_empty() {
            "usable".to_owned()
        } else {
            list
        }));
    }
    let instead = "steps have no limits of memory, processors and processes, and report no peak";
    Some(if !groups.v2 {
        Finding::missing(
            "no v2 hierarchy",
            instead,
            "boot with systemd.unified_cgroup_hierarchy=1",
        )
    } else {
        Finding::missing(
            "this process's group is not delegated",
            instead,
            "systemd-run --user --scope -p Delegate=yes, or a user unit with Delegate=yes",
        )
    })
}

fn bridge(facts: &Facts) -> Option<Finding> {
    let instead = "the host's network for steps (worker.oci.networkMode = \"host\" or \"none\")";
    if let Err(error) = &facts.nftables {
        let remedy = "sudo modprobe nf_tables bridge veth";
        return Some(Finding::missing(error.clone(), instead, remedy));
    }
    Some(match facts.carriers.first() {
        _ if facts.own_network => Finding::good("nftables answer"),
        Some(program) => Finding::good(format!(
            "{program} carries packets of a network of the daemon's own"
        )),
        None => Finding::missing(
            "the network is the host's, and neither pasta nor slirp4netns is installed",
            instead,
            "sudo apt-get install passt (or slirp4netns)",
        ),
    })
}

fn tun(facts: &Facts) -> Option<Finding> {
    if facts.own_network {
        return None;
    }
    Some(match &facts.tun {
        Ok(()) => Finding::good("can be opened"),
        Err(error) => Finding::missing(
            format!("/dev/net/tun: {error}"),
            "no bridge network; steps use the network that the daemon was started in",
            "sudo chmod 666 /dev/net/tun; in a container: --device /dev/net/tun",
        ),
    })
}

fn git(facts: &Facts) -> Option<Finding> {
    Some(if facts.git {
        Finding::good("installed")
    } else {
        Finding::missing(
            "not installed",
            "contexts and ADD of git repositories fail",
            "sudo apt-get install git",
        )
    })
}

fn platforms(facts: &Facts) -> Option<Finding> {
    Some(if facts.emulators.is_empty() {
        Finding::missing(
            "no emulator is registered",
            "steps of other machines than this one's fail",
            "sudo apt-get install qemu-user-static binfmt-support",
        )
    } else {
        Finding::good(facts.emulators.join(", "))
    })
}

fn disk(facts: &Facts) -> Option<Finding> {
    let free = facts.free?;
    let observation = format!("{} MB free in {}", free >> 20, facts.root.display());
    Some(if free >= LITTLE_SPACE {
        Finding::good(observation)
    } else {
        Finding::missing(
            observation,
            "builds until it is full",
            "rbuild prune, or another --root",
        )
    })
}

#[cfg(test)]
mod tests;
