//! Definitions as text that people can read and compare.

use std::fmt::Write as _;

use llb::pb;
use llb::pb::file_action::Action;
use llb::pb::op::Op;
use llb::pb::user_opt::User;

/// One line for each op, with what decides its digest, and below it what it is called. Inputs are numbers of lines.
pub(crate) fn definition(definition: &pb::Definition) -> String {
    if definition.def.is_empty() {
        return "(scratch)\n".to_owned();
    }
    let graph = llb::Graph::load(definition).expect("the definition is well formed");
    let mut out = String::new();
    for (at, node) in graph.nodes.iter().enumerate() {
        let _ = write!(out, "{at}: {}", op(&node.op));
        if let Some(platform) = &node.op.platform {
            let _ = write!(out, " for {}/{}", platform.os, platform.architecture);
            if !platform.variant.is_empty() {
                let _ = write!(out, "/{}", platform.variant);
            }
        }
        let inputs = node.inputs.iter().map(|input| match input.output {
            0 => input.node.to_string(),
            output => format!("{}.{output}", input.node),
        });
        let inputs: Vec<String> = inputs.collect();
        if !inputs.is_empty() {
            let _ = write!(out, " <- {}", inputs.join(" "));
        }
        out.push('\n');
        if !node.name.is_empty() {
            let _ = writeln!(out, "   # {}", node.name);
        }
        if node.metadata.ignore_cache {
            out.push_str("   # without cache\n");
        }
        if let Some(group) = &node.metadata.progress_group {
            let weak = if group.weak { ", weak" } else { "" };
            let _ = writeln!(out, "   # group: {}{weak}", group.name);
        }
    }
    out
}

fn op(op: &pb::Op) -> String {
    match &op.op {
        Some(Op::Source(source)) => {
            let attrs = source
                .attrs
                .iter()
                .map(|(key, value)| format!(" {key}={value}"));
            format!("{}{}", source.identifier, attrs.collect::<String>())
        }
        Some(Op::Exec(exec)) => self::exec(exec),
        Some(Op::File(file)) => {
            let actions: Vec<String> = file.actions.iter().map(action).collect();
            actions.join("; ")
        }
        Some(Op::Merge(merge)) => {
            let inputs = merge.inputs.iter().map(|input| format!(" {}", input.input));
            format!("merge{}", inputs.collect::<String>())
        }
        Some(Op::Diff(_)) => "diff".to_owned(),
        Some(Op::Build(_)) => "build".to_owned(),
        Some(Op::Passthrough(_)) => "passthrough".to_owned(),
        None => "result".to_owned(),
    }
}

fn exec(exec: &pb::ExecOp) -> String {
    let meta = exec.meta.clone().unwrap_or_default();
    let mut out = format!("exec {:?} in {}", meta.args, meta.cwd);
    let mut field = |name: &str, value: String| {
        if !value.is_empty() {
            let _ = write!(out, " {name}={value}");
        }
    };
    field("user", meta.user);
    field("env", meta.env.join(","));
    field("hostname", meta.hostname);
    field("cgroup", meta.cgroup_parent);
    let hosts = meta
        .extra_hosts
        .iter()
        .map(|host| format!("{}:{}", host.host, host.ip));
    field("hosts", hosts.collect::<Vec<_>>().join(","));
    let limits = meta
        .ulimit
        .iter()
        .map(|l| format!("{}:{}:{}", l.name, l.soft, l.hard));
    field("ulimits", limits.collect::<Vec<_>>().join(","));
    if let Some(proxy) = meta.proxy_env {
        field("http_proxy", proxy.http_proxy);
        field("no_proxy", proxy.no_proxy);
    }
    match exec.network() {
        pb::NetMode::Unset => {}
        network @ (pb::NetMode::Host | pb::NetMode::None) => {
            field("network", network.as_str_name().to_lowercase())
        }
    }
    match exec.security() {
        pb::SecurityMode::Sandbox => {}
        security @ pb::SecurityMode::Insecure => {
            field("security", security.as_str_name().to_lowercase())
        }
    }
    for secret in &exec.secretenv {
        field(
            "secret",
            format!("{}:{}:{}", secret.id, secret.name, secret.optional),
        );
    }
    for device in &exec.cdi_devices {
        field("device", format!("{}:{}", device.name, device.optional));
    }
    for mount in exec.mounts.iter().filter(|mount| mount.dest != "/") {
        field("mount", self::mount(mount));
    }
    out
}

fn mount(mount: &pb::Mount) -> String {
    let kind = mount.mount_type().as_str_name().to_lowercase();
    let mut out = format!("{kind}:{}", mount.dest);
    if mount.input >= 0 {
        let _ = write!(out, ":input{}{}", mount.input, mount.selector);
    }
    if mount.readonly {
        out.push_str(":ro");
    }
    if let Some(cache) = &mount.cache_opt {
        let sharing = cache.sharing().as_str_name().to_lowercase();
        let _ = write!(out, ":id={}:{sharing}", cache.id);
    }
    if let Some(tmpfs) = &mount.tmpfs_opt {
        let _ = write!(out, ":size={}", tmpfs.size);
    }
    if let Some(secret) = &mount.secret_opt {
        let owner = format!("{}:{}:{:o}", secret.uid, secret.gid, secret.mode);
        let _ = write!(
            out,
            ":id={}:{owner}:optional={}",
            secret.id, secret.optional
        );
    }
    if let Some(ssh) = &mount.ssh_opt {
        let owner = format!("{}:{}:{:o}", ssh.uid, ssh.gid, ssh.mode);
        let _ = write!(out, ":id={}:{owner}:optional={}", ssh.id, ssh.optional);
    }
    out
}

fn owner(owner: &Option<pb::ChownOpt>) -> String {
    let user = |user: &Option<pb::UserOpt>| match user.as_ref().and_then(|user| user.user.clone()) {
        Some(User::ByName(named)) => format!("{}@{}", named.name, named.input),
        Some(User::ById(id)) => id.to_string(),
        None => String::new(),
    };
    owner.as_ref().map_or_else(String::new, |owner| {
        format!(" owner={}:{}", user(&owner.user), user(&owner.group))
    })
}

fn action(action: &pb::FileAction) -> String {
    let mut out = match &action.action {
        Some(Action::Copy(copy)) => {
            let mut out = format!("copy {} to {}{}", copy.src, copy.dest, owner(&copy.owner));
            for (name, on) in [
                ("follow", copy.follow_symlink),
                ("contents", copy.dir_copy_contents),
                ("unpack", copy.attempt_unpack_docker_compatibility),
                ("wildcard", copy.allow_wildcard),
                ("replace", copy.always_replace_existing_dest_paths),
            ] {
                if on {
                    let _ = write!(out, " {name}");
                }
            }
            if copy.mode >= 0 {
                let _ = write!(out, " mode={:o}", copy.mode);
            }
            for (name, list) in [
                ("include", &copy.include_patterns),
                ("exclude", &copy.exclude_patterns),
                ("required", &copy.required_paths),
            ] {
                if !list.is_empty() {
                    let _ = write!(out, " {name}={}", list.join(","));
                }
            }
            if !copy.mode_str.is_empty() {
                let _ = write!(out, " mode={}", copy.mode_str);
            }
            out
        }
        Some(Action::Mkfile(file)) => {
            let text = String::from_utf8_lossy(&file.data);
            format!(
                "mkfile {} {:o} {text:?}{}",
                file.path,
                file.mode,
                owner(&file.owner)
            )
        }
        Some(Action::Mkdir(dir)) => {
            format!("mkdir {} {:o}{}", dir.path, dir.mode, owner(&dir.owner))
        }
        Some(Action::Rm(rm)) => format!("rm {}", rm.path),
        Some(Action::Symlink(link)) => format!("symlink {} {}", link.oldpath, link.newpath),
        None => "nothing".to_owned(),
    };
    let _ = write!(out, " [{},{}]", action.input, action.secondary_input);
    out
}
