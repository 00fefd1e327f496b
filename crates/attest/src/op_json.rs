//! Ops as provenance has them: as Go's `encoding/json` writes the generated structs, fields in the order of their messages, none
//! that is empty.
//!
//! Error details carry ops as well, in protobuf's own JSON; `control::protojson` writes that and says how the two differ.

use base64::Engine as _;
use llb::pb;
use oci::address::redact_text;
use serde::ser::{Serialize, SerializeMap, Serializer};

pub(crate) fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// A value whose objects keep their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Json {
    Object(Vec<(String, Json)>),
    List(Vec<Json>),
    Text(String),
    Number(i64),
    Bool(bool),
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Object(fields) => {
                let mut map = to.serialize_map(Some(fields.len()))?;
                for (key, value) in fields {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
            Self::List(items) => to.collect_seq(items),
            // DIFFERS: the reference writes down what addresses have of credentials.
            Self::Text(text) => to.serialize_str(&redact_text(text)),
            Self::Number(number) => to.serialize_i64(*number),
            Self::Bool(value) => to.serialize_bool(*value),
        }
    }
}

/// Builds an object without its empty fields.
#[derive(Default)]
struct Object(Vec<(String, Json)>);

impl Object {
    fn put(mut self, key: &str, value: Option<Json>) -> Self {
        if let Some(value) = value {
            self.0.push((key.to_owned(), value));
        }
        self
    }

    fn text(self, key: &str, value: &str) -> Self {
        self.put(
            key,
            (!value.is_empty()).then(|| Json::Text(value.to_owned())),
        )
    }

    fn int(self, key: &str, value: impl Into<i64>) -> Self {
        let value = value.into();
        self.put(key, (value != 0).then_some(Json::Number(value)))
    }

    fn flag(self, key: &str, value: bool) -> Self {
        self.put(key, value.then_some(Json::Bool(true)))
    }

    fn bytes(self, key: &str, value: &[u8]) -> Self {
        self.text(
            key,
            &base64::engine::general_purpose::STANDARD.encode(value),
        )
    }

    fn list<T>(self, key: &str, values: &[T], each: impl Fn(&T) -> Json) -> Self {
        let list = (!values.is_empty()).then(|| Json::List(values.iter().map(each).collect()));
        self.put(key, list)
    }

    fn texts(self, key: &str, values: &[String]) -> Self {
        self.list(key, values, |v| Json::Text(v.clone()))
    }

    fn end(self) -> Json {
        Json::Object(self.0)
    }
}

fn object() -> Object {
    Object::default()
}

/// An op without its inputs, which stand beside it in the step.
pub(crate) fn op(op: &pb::Op) -> Json {
    let (name, value) = match &op.op {
        Some(pb::op::Op::Exec(op)) => ("exec", exec(op)),
        Some(pb::op::Op::Source(op)) => ("source", source(op)),
        Some(pb::op::Op::File(op)) => ("file", object().list("actions", &op.actions, action).end()),
        Some(pb::op::Op::Build(op)) => ("build", build(op)),
        Some(pb::op::Op::Merge(op)) => {
            let input = |i: &pb::MergeInput| object().int("input", i.input).end();
            ("merge", object().list("inputs", &op.inputs, input).end())
        }
        Some(pb::op::Op::Diff(op)) => {
            let lower = op
                .lower
                .as_ref()
                .map(|l| object().int("input", l.input).end());
            let upper = op
                .upper
                .as_ref()
                .map(|u| object().int("input", u.input).end());
            (
                "diff",
                object().put("lower", lower).put("upper", upper).end(),
            )
        }
        Some(pb::op::Op::Passthrough(op)) => {
            let outputs = |o: &i64| Json::Number(*o);
            let value = object()
                .text("id", &op.id)
                .list("outputs", &op.outputs, outputs);
            ("passthrough", value.end())
        }
        None => ("", Json::Bool(false)),
    };
    let is_known = !name.is_empty();
    object()
        .put(
            "Op",
            Some(object().put(name, is_known.then_some(value)).end()),
        )
        .put("platform", op.platform.as_ref().map(platform))
        .put(
            "constraints",
            op.constraints
                .as_ref()
                .map(|c| object().texts("filter", &c.filter).end()),
        )
        .end()
}

fn platform(p: &pb::Platform) -> Json {
    object()
        .text("Architecture", &p.architecture)
        .text("OS", &p.os)
        .text("Variant", &p.variant)
        .text("OSVersion", &p.os_version)
        .texts("OSFeatures", &p.os_features)
        .end()
}

fn source(op: &pb::SourceOp) -> Json {
    // The session id of this build is no property of the source.
    let attrs: Vec<(String, Json)> = op
        .attrs
        .iter()
        .filter(|(key, _)| !["local.session", "local.unique"].contains(&key.as_str()))
        .map(|(key, value)| (key.clone(), Json::Text(value.clone())))
        .collect();
    object()
        .text("identifier", &op.identifier)
        .put("attrs", (!attrs.is_empty()).then_some(Json::Object(attrs)))
        .end()
}

fn build(op: &pb::BuildOp) -> Json {
    let inputs: Vec<(String, Json)> = op
        .inputs
        .iter()
        .map(|(name, i)| (name.clone(), object().int("input", i.input).end()))
        .collect();
    let def = |d: &pb::Definition| {
        let raw =
            |bytes: &Vec<u8>| Json::Text(base64::engine::general_purpose::STANDARD.encode(bytes));
        object().list("def", &d.def, raw).end()
    };
    object()
        .int("builder", op.builder)
        .put(
            "inputs",
            (!inputs.is_empty()).then_some(Json::Object(inputs)),
        )
        .put("def", op.def.as_ref().map(def))
        .end()
}

fn exec(op: &pb::ExecOp) -> Json {
    let secret = |s: &pb::SecretEnv| {
        object()
            .text("ID", &s.id)
            .text("name", &s.name)
            .flag("optional", s.optional)
            .end()
    };
    let device = |d: &pb::CdiDevice| {
        object()
            .text("name", &d.name)
            .flag("optional", d.optional)
            .end()
    };
    object()
        .put("meta", op.meta.as_ref().map(meta))
        .list("mounts", &op.mounts, mount)
        .int("network", op.network)
        .int("security", op.security)
        .list("secretenv", &op.secretenv, secret)
        .list("cdiDevices", &op.cdi_devices, device)
        .end()
}

fn meta(m: &pb::Meta) -> Json {
    let proxy = |p: &pb::ProxyEnv| {
        object()
            .text("http_proxy", &p.http_proxy)
            .text("https_proxy", &p.https_proxy)
            .text("ftp_proxy", &p.ftp_proxy)
            .text("no_proxy", &p.no_proxy)
            .text("all_proxy", &p.all_proxy)
            .end()
    };
    let host = |h: &pb::HostIp| object().text("Host", &h.host).text("IP", &h.ip).end();
    let limit = |u: &pb::Ulimit| {
        object()
            .text("Name", &u.name)
            .int("Soft", u.soft)
            .int("Hard", u.hard)
            .end()
    };
    object()
        .texts("args", &m.args)
        .texts("env", &m.env)
        .text("cwd", &m.cwd)
        .text("user", &m.user)
        .put("proxy_env", m.proxy_env.as_ref().map(proxy))
        .list("extraHosts", &m.extra_hosts, host)
        .text("hostname", &m.hostname)
        .list("ulimit", &m.ulimit, limit)
        .text("cgroupParent", &m.cgroup_parent)
        .flag("removeMountStubsRecursive", m.remove_mount_stubs_recursive)
        .list("validExitCodes", &m.valid_exit_codes, |c| {
            Json::Number((*c).into())
        })
        .end()
}

fn mount(m: &pb::Mount) -> Json {
    let tmpfs = |t: &pb::TmpfsOpt| object().int("size", t.size).end();
    let cache = |c: &pb::CacheOpt| object().text("ID", &c.id).int("sharing", c.sharing).end();
    let secret = |s: &pb::SecretOpt| {
        object()
            .text("ID", &s.id)
            .int("uid", s.uid)
            .int("gid", s.gid)
            .int("mode", s.mode)
            .flag("optional", s.optional)
            .end()
    };
    let agent = |s: &pb::SshOpt| {
        object()
            .text("ID", &s.id)
            .int("uid", s.uid)
            .int("gid", s.gid)
            .int("mode", s.mode)
            .flag("optional", s.optional)
            .end()
    };
    object()
        .int("input", m.input)
        .text("selector", &m.selector)
        .text("dest", &m.dest)
        .int("output", m.output)
        .flag("readonly", m.readonly)
        .int("mountType", m.mount_type)
        .put("TmpfsOpt", m.tmpfs_opt.as_ref().map(tmpfs))
        .put("cacheOpt", m.cache_opt.as_ref().map(cache))
        .put("secretOpt", m.secret_opt.as_ref().map(secret))
        .put("SSHOpt", m.ssh_opt.as_ref().map(agent))
        .text("resultID", &m.result_id)
        .int("contentCache", m.content_cache)
        .end()
}

fn action(a: &pb::FileAction) -> Json {
    let number = |n: i64| Some(Json::Number(n));
    // DIFFERS: the reference leaves symlinks out.
    let (name, value) = match &a.action {
        Some(pb::file_action::Action::Copy(c)) => ("copy", copy(c)),
        Some(pb::file_action::Action::Mkfile(f)) => (
            "mkfile",
            object()
                .text("path", &f.path)
                .int("mode", f.mode)
                .bytes("data", &f.data)
                .put("owner", f.owner.as_ref().map(owner))
                .int("timestamp", f.timestamp)
                .end(),
        ),
        Some(pb::file_action::Action::Mkdir(d)) => (
            "mkdir",
            object()
                .text("path", &d.path)
                .int("mode", d.mode)
                .flag("makeParents", d.make_parents)
                .put("owner", d.owner.as_ref().map(owner))
                .int("timestamp", d.timestamp)
                .end(),
        ),
        Some(pb::file_action::Action::Rm(r)) => (
            "rm",
            object()
                .text("path", &r.path)
                .flag("allowNotFound", r.allow_not_found)
                .flag("allowWildcard", r.allow_wildcard)
                .end(),
        ),
        Some(pb::file_action::Action::Symlink(s)) => (
            "symlink",
            object()
                .text("oldpath", &s.oldpath)
                .text("newpath", &s.newpath)
                .put("owner", s.owner.as_ref().map(owner))
                .int("timestamp", s.timestamp)
                .end(),
        ),
        None => ("", Json::Bool(false)),
    };
    let is_known = !name.is_empty();
    object()
        .put("input", number(a.input))
        .put("secondaryInput", number(a.secondary_input))
        .put("output", number(a.output))
        .put(
            "Action",
            Some(object().put(name, is_known.then_some(value)).end()),
        )
        .end()
}

fn copy(c: &pb::FileActionCopy) -> Json {
    object()
        .text("src", &c.src)
        .text("dest", &c.dest)
        .put("owner", c.owner.as_ref().map(owner))
        .int("mode", c.mode)
        .flag("followSymlink", c.follow_symlink)
        .flag("dirCopyContents", c.dir_copy_contents)
        .flag(
            "attemptUnpackDockerCompatibility",
            c.attempt_unpack_docker_compatibility,
        )
        .flag("createDestPath", c.create_dest_path)
        .flag("allowWildcard", c.allow_wildcard)
        .flag("allowEmptyWildcard", c.allow_empty_wildcard)
        .int("timestamp", c.timestamp)
        .texts("include_patterns", &c.include_patterns)
        .texts("exclude_patterns", &c.exclude_patterns)
        .flag(
            "alwaysReplaceExistingDestPaths",
            c.always_replace_existing_dest_paths,
        )
        .text("modeStr", &c.mode_str)
        .texts("required_paths", &c.required_paths)
        .end()
}

fn owner(o: &pb::ChownOpt) -> Json {
    let user = |u: &pb::UserOpt| {
        let user_json = match &u.user {
            Some(pb::user_opt::User::ByName(name)) => object().put(
                "byName",
                Some(
                    object()
                        .text("name", &name.name)
                        .int("input", name.input)
                        .end(),
                ),
            ),
            Some(pb::user_opt::User::ById(id)) => object().int("byId", *id),
            None => object(),
        };
        object().put("User", Some(user_json.end())).end()
    };
    object()
        .put("user", o.user.as_ref().map(user))
        .put("group", o.group.as_ref().map(user))
        .end()
}

/// The places of a step in its files.
pub(crate) fn locations(all: &pb::Locations) -> Json {
    let position = |p: &pb::Position| {
        object()
            .int("line", p.line)
            .int("character", p.character)
            .end()
    };
    let range = |r: &pb::Range| {
        object()
            .put("start", r.start.as_ref().map(position))
            .put("end", r.end.as_ref().map(position))
            .end()
    };
    let location = |l: &pb::Location| {
        object()
            .int("sourceIndex", l.source_index)
            .list("ranges", &l.ranges, range)
            .end()
    };
    object().list("locations", &all.locations, location).end()
}
