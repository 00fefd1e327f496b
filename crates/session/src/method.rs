//! Names of what a client may serve, as it lists them when it connects.

/// Reads trees of the client.
pub const FILE_SYNC: &str = "/moby.filesync.v1.FileSync/DiffCopy";
/// Takes exported files and trees.
pub const FILE_SEND: &str = "/moby.filesync.v1.FileSend/DiffCopy";
/// Names and passwords of registries.
pub const CREDENTIALS: &str = "/moby.filesync.v1.Auth/Credentials";
/// Secrets by id.
pub const SECRET: &str = "/moby.buildkit.secrets.v1.Secrets/GetSecret";
/// Whether an ssh agent is there.
pub const SSH_CHECK: &str = "/moby.sshforward.v1.SSH/CheckAgent";
/// A connection to an ssh agent.
pub const SSH_FORWARD: &str = "/moby.sshforward.v1.SSH/ForwardAgent";
/// A stream handed over once.
pub const UPLOAD: &str = "/moby.upload.v1.Upload/Pull";
/// Size and labels of a blob of the client.
pub const CONTENT_INFO: &str = "/containerd.services.content.v1.Content/Info";
/// Bytes of a blob of the client.
pub const CONTENT_READ: &str = "/containerd.services.content.v1.Content/Read";
/// Writes a blob at the client.
pub const CONTENT_WRITE: &str = "/containerd.services.content.v1.Content/Write";
/// Exporters that the client adds.
pub const FIND_EXPORTERS: &str = "/moby.exporter.v1.Exporter/FindExporters";
/// Tells the client that its exporters are done.
pub const FINALIZE_EXPORT: &str = "/moby.exporter.v1.Exporter/FinalizeExport";
/// Source policy decided by the client.
pub const CHECK_POLICY: &str =
    "/moby.buildkit.v1.sourcepolicy.policysession.PolicyVerifier/CheckPolicy";
