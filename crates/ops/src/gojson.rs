//! The JSON that BuildKit hashes for an op: Go's `encoding/json` of the protobuf structs, every field with
//! `omitempty`, in the order of the Go struct.
//!
//! The field names and their order are facts of `solver/pb/ops.pb.go` (v0.34.2). A field that is added upstream
//! changes nothing here as long as it is empty, because empty fields are not written.
//!
//! The inputs that the exec key leaves out, and why, are listed in [`crate::exec::key`].

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use llb::pb;
use serde::Serialize;
use serde::ser::SerializeMap;

/// The base64 text in which Go writes a `[]byte`.
pub(crate) fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

fn empty<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

macro_rules! mirror {
    ($(#[$doc:meta])* $name:ident<$from:ty> { $($field:ident: $ty:ty = $json:literal, |$v:ident| $expr:expr;)* }) => {
        $(#[$doc])*
        #[derive(Serialize)]
        pub(crate) struct $name<'a> {
            $(#[serde(rename = $json, skip_serializing_if = "empty_field")] $field: $ty,)*
            #[serde(skip)]
            life: std::marker::PhantomData<&'a ()>,
        }
        impl<'a> From<&'a $from> for $name<'a> {
            fn from(value: &'a $from) -> Self {
                Self { $($field: { let $v = value; $expr },)* life: std::marker::PhantomData }
            }
        }
    };
}

/// Values that `omitempty` leaves out.
trait OmitEmpty {
    fn is_omitted(&self) -> bool;
}
fn empty_field<T: OmitEmpty>(value: &T) -> bool {
    value.is_omitted()
}
impl OmitEmpty for &str {
    fn is_omitted(&self) -> bool {
        self.is_empty()
    }
}
impl OmitEmpty for String {
    fn is_omitted(&self) -> bool {
        self.is_empty()
    }
}
impl OmitEmpty for bool {
    fn is_omitted(&self) -> bool {
        empty(self)
    }
}
impl OmitEmpty for i32 {
    fn is_omitted(&self) -> bool {
        empty(self)
    }
}
impl OmitEmpty for u32 {
    fn is_omitted(&self) -> bool {
        empty(self)
    }
}
impl OmitEmpty for i64 {
    fn is_omitted(&self) -> bool {
        empty(self)
    }
}
impl<T> OmitEmpty for Option<T> {
    fn is_omitted(&self) -> bool {
        self.is_none()
    }
}
impl<T> OmitEmpty for Vec<T> {
    fn is_omitted(&self) -> bool {
        self.is_empty()
    }
}
impl<T> OmitEmpty for &[T] {
    fn is_omitted(&self) -> bool {
        self.is_empty()
    }
}
fn all<'a, T, U: From<&'a T>>(items: &'a [T]) -> Vec<U> {
    items.iter().map(U::from).collect()
}

mirror! {
    /// `pb.ExecOp`.
    ExecOp<pb::ExecOp> {
        meta: Option<Meta<'a>> = "meta", |v| v.meta.as_ref().map(Meta::from);
        mounts: Vec<Mount<'a>> = "mounts", |v| all(&v.mounts);
        network: i32 = "network", |v| v.network;
        security: i32 = "security", |v| v.security;
        secretenv: Vec<SecretEnv<'a>> = "secretenv", |v| all(&v.secretenv);
        cdi_devices: Vec<CdiDevice<'a>> = "cdiDevices", |v| all(&v.cdi_devices);
    }
}
mirror! {
    /// `pb.Meta`.
    Meta<pb::Meta> {
        args: &'a [String] = "args", |v| &v.args;
        env: &'a [String] = "env", |v| &v.env;
        cwd: &'a str = "cwd", |v| &v.cwd;
        user: &'a str = "user", |v| &v.user;
        extra_hosts: Vec<HostIp<'a>> = "extraHosts", |v| all(&v.extra_hosts);
        hostname: &'a str = "hostname", |v| &v.hostname;
        ulimit: Vec<Ulimit<'a>> = "ulimit", |v| all(&v.ulimit);
        cgroup_parent: &'a str = "cgroupParent", |v| &v.cgroup_parent;
        remove_mount_stubs_recursive: bool = "removeMountStubsRecursive", |v| v.remove_mount_stubs_recursive;
        valid_exit_codes: &'a [i32] = "validExitCodes", |v| &v.valid_exit_codes;
    }
}
mirror! {
    /// `pb.HostIP` without the address, which differs from run to run and is not in the key.
    HostIp<pb::HostIp> {
        host: &'a str = "Host", |v| &v.host;
    }
}
mirror! {
    /// `pb.Ulimit`.
    Ulimit<pb::Ulimit> {
        name: &'a str = "Name", |v| &v.name;
        soft: i64 = "Soft", |v| v.soft;
        hard: i64 = "Hard", |v| v.hard;
    }
}
mirror! {
    /// `pb.SecretEnv`.
    SecretEnv<pb::SecretEnv> {
        id: &'a str = "ID", |v| &v.id;
        name: &'a str = "name", |v| &v.name;
        optional: bool = "optional", |v| v.optional;
    }
}
mirror! {
    /// `pb.CDIDevice`.
    CdiDevice<pb::CdiDevice> {
        name: &'a str = "name", |v| &v.name;
        optional: bool = "optional", |v| v.optional;
    }
}
mirror! {
    /// `pb.Mount`.
    Mount<pb::Mount> {
        input: i64 = "input", |v| v.input;
        selector: &'a str = "selector", |v| &v.selector;
        dest: &'a str = "dest", |v| &v.dest;
        output: i64 = "output", |v| v.output;
        readonly: bool = "readonly", |v| v.readonly;
        mount_type: i32 = "mountType", |v| v.mount_type;
        tmpfs_opt: Option<TmpfsOpt<'a>> = "TmpfsOpt", |v| v.tmpfs_opt.as_ref().map(TmpfsOpt::from);
        cache_opt: Option<CacheOpt<'a>> = "cacheOpt", |v| v.cache_opt.as_ref().map(CacheOpt::from);
        secret_opt: Option<SecretOpt<'a>> = "secretOpt", |v| v.secret_opt.as_ref().map(SecretOpt::from);
        ssh_opt: Option<SshOpt<'a>> = "SSHOpt", |v| v.ssh_opt.as_ref().map(SshOpt::from);
        result_id: &'a str = "resultID", |v| &v.result_id;
        content_cache: i32 = "contentCache", |v| v.content_cache;
    }
}
mirror! {
    /// `pb.TmpfsOpt`.
    TmpfsOpt<pb::TmpfsOpt> {
        size: i64 = "size", |v| v.size;
    }
}
mirror! {
    /// `pb.CacheOpt`.
    CacheOpt<pb::CacheOpt> {
        id: &'a str = "ID", |v| &v.id;
        sharing: i32 = "sharing", |v| v.sharing;
    }
}
mirror! {
    /// `pb.SecretOpt`.
    SecretOpt<pb::SecretOpt> {
        id: &'a str = "ID", |v| &v.id;
        uid: u32 = "uid", |v| v.uid;
        gid: u32 = "gid", |v| v.gid;
        mode: u32 = "mode", |v| v.mode;
        optional: bool = "optional", |v| v.optional;
    }
}
mirror! {
    /// `pb.SSHOpt`.
    SshOpt<pb::SshOpt> {
        id: &'a str = "ID", |v| &v.id;
        uid: u32 = "uid", |v| v.uid;
        gid: u32 = "gid", |v| v.gid;
        mode: u32 = "mode", |v| v.mode;
        optional: bool = "optional", |v| v.optional;
    }
}
mirror! {
    /// `pb.FileActionCopy`.
    Copy<pb::FileActionCopy> {
        src: &'a str = "src", |v| &v.src;
        dest: &'a str = "dest", |v| &v.dest;
        owner: Option<Chown<'a>> = "owner", |v| v.owner.as_ref().map(Chown::from);
        mode: i32 = "mode", |v| v.mode;
        follow_symlink: bool = "followSymlink", |v| v.follow_symlink;
        dir_copy_contents: bool = "dirCopyContents", |v| v.dir_copy_contents;
        unpack: bool = "attemptUnpackDockerCompatibility", |v| v.attempt_unpack_docker_compatibility;
        create_dest_path: bool = "createDestPath", |v| v.create_dest_path;
        allow_wildcard: bool = "allowWildcard", |v| v.allow_wildcard;
        allow_empty_wildcard: bool = "allowEmptyWildcard", |v| v.allow_empty_wildcard;
        timestamp: i64 = "timestamp", |v| v.timestamp;
        include_patterns: &'a [String] = "include_patterns", |v| &v.include_patterns;
        exclude_patterns: &'a [String] = "exclude_patterns", |v| &v.exclude_patterns;
        replace: bool = "alwaysReplaceExistingDestPaths", |v| v.always_replace_existing_dest_paths;
        mode_str: &'a str = "modeStr", |v| &v.mode_str;
        required_paths: &'a [String] = "required_paths", |v| &v.required_paths;
    }
}
mirror! {
    /// `pb.FileActionMkFile`.
    MkFile<pb::FileActionMkFile> {
        path: &'a str = "path", |v| &v.path;
        mode: i32 = "mode", |v| v.mode;
        data: String = "data", |v| base64(&v.data);
        owner: Option<Chown<'a>> = "owner", |v| v.owner.as_ref().map(Chown::from);
        timestamp: i64 = "timestamp", |v| v.timestamp;
    }
}
mirror! {
    /// `pb.FileActionSymlink`.
    Symlink<pb::FileActionSymlink> {
        oldpath: &'a str = "oldpath", |v| &v.oldpath;
        newpath: &'a str = "newpath", |v| &v.newpath;
        owner: Option<Chown<'a>> = "owner", |v| v.owner.as_ref().map(Chown::from);
        timestamp: i64 = "timestamp", |v| v.timestamp;
    }
}
mirror! {
    /// `pb.FileActionMkDir`.
    MkDir<pb::FileActionMkDir> {
        path: &'a str = "path", |v| &v.path;
        mode: i32 = "mode", |v| v.mode;
        make_parents: bool = "makeParents", |v| v.make_parents;
        owner: Option<Chown<'a>> = "owner", |v| v.owner.as_ref().map(Chown::from);
        timestamp: i64 = "timestamp", |v| v.timestamp;
    }
}
mirror! {
    /// `pb.FileActionRm`.
    Rm<pb::FileActionRm> {
        path: &'a str = "path", |v| &v.path;
        allow_not_found: bool = "allowNotFound", |v| v.allow_not_found;
        allow_wildcard: bool = "allowWildcard", |v| v.allow_wildcard;
    }
}
mirror! {
    /// `pb.ChownOpt`.
    Chown<pb::ChownOpt> {
        user: Option<User<'a>> = "user", |v| v.user.as_ref().map(User);
        group: Option<User<'a>> = "group", |v| v.group.as_ref().map(User);
    }
}
mirror! {
    /// `pb.NamedUserOpt`.
    NamedUser<pb::NamedUserOpt> {
        name: &'a str = "name", |v| &v.name;
        input: i64 = "input", |v| v.input;
    }
}
mirror! {
    /// `pb.MergeOp`.
    MergeOp<pb::MergeOp> {
        inputs: Vec<Input> = "inputs", |v| v.inputs.iter().map(|i| Input { input: i.input }).collect();
    }
}
mirror! {
    /// `pb.DiffOp`.
    DiffOp<pb::DiffOp> {
        lower: Option<Input> = "lower", |v| v.lower.as_ref().map(|i| Input { input: i.input });
        upper: Option<Input> = "upper", |v| v.upper.as_ref().map(|i| Input { input: i.input });
    }
}
/// An input index, written `{}` for the first input.
#[derive(Serialize)]
pub(crate) struct Input {
    #[serde(skip_serializing_if = "empty_field")]
    input: i64,
}

/// `pb.UserOpt`, which upstream writes by hand: `{"User":{"byName":…}}` or `{"User":{"byId":…}}`.
pub(crate) struct User<'a>(&'a pb::UserOpt);

impl Serialize for User<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Inner<'a> {
            #[serde(rename = "byName", skip_serializing_if = "empty_field")]
            by_name: Option<NamedUser<'a>>,
            #[serde(rename = "byId", skip_serializing_if = "empty_field")]
            by_id: u32,
        }
        let inner = match &self.0.user {
            Some(pb::user_opt::User::ByName(name)) => Inner {
                by_name: Some(NamedUser::from(name)),
                by_id: 0,
            },
            Some(pb::user_opt::User::ById(id)) => Inner {
                by_name: None,
                by_id: *id,
            },
            None => Inner {
                by_name: None,
                by_id: 0,
            },
        };
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry("User", &inner)?;
        map.end()
    }
}
