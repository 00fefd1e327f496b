//! gRPC methods that clients may serve, which they list when they connect.

/// Reads trees of the client.
pub const FILE_SYNC: &str = "/moby.filesync.v1.FileSync/DiffCopy";
/// Takes exported files and trees.
pub const FILE_SEND: &str = "/moby.filesync.v1.FileSend/DiffCopy";
/// Returns logins for registries.
pub const CREDENTIALS: &str = "/moby.filesync.v1.Auth/Credentials";
/// Returns a secret by its id.
pub const SECRET: &str = "/moby.buildkit.secrets.v1.Secrets/GetSecret";
/// Checks whether an SSH agent exists.
pub const SSH_CHECK: &str = "/moby.sshforward.v1.SSH/CheckAgent";
/// Connects to an SSH agent.
pub const SSH_FORWARD: &str = "/moby.sshforward.v1.SSH/ForwardAgent";
/// Reads a stream that the client prepared, once.
pub const UPLOAD: &str = "/moby.upload.v1.Upload/Pull";
/// Returns size and labels of a client's blob.
pub const CONTENT_INFO: &str = "/containerd.services.content.v1.Content/Info";
/// Reads a client's blob.
pub const CONTENT_READ: &str = "/containerd.services.content.v1.Content/Read";
/// Writes a blob into a client's store.
pub const CONTENT_WRITE: &str = "/containerd.services.content.v1.Content/Write";
/// Returns exporters that the client adds.
pub const FIND_EXPORTERS: &str = "/moby.exporter.v1.Exporter/FindExporters";
/// Reports the results of the client's exporters.
pub const FINALIZE_EXPORT: &str = "/moby.exporter.v1.Exporter/FinalizeExport";
/// Decides on a source.
pub const CHECK_POLICY: &str =
    "/moby.buildkit.v1.sourcepolicy.policysession.PolicyVerifier/CheckPolicy";
