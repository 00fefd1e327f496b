//! What this daemon's LLB and its gateway understand, for the answers to `ListWorkers`, `Info` and `Ping`.
//!
//! The ids are the wire's, one odd spelling (`soruce.http.uidgid`) included. A client that finds an id missing either
//! works around it or refuses with a clear error, so an id is listed when ops carrying it are understood.

/// Capabilities of LLB, sorted.
pub const LLB: &[&str] = &[
    "cache.azblob",
    "cache.gha",
    "constraints",
    "diffop",
    "exec.cgroup",
    "exec.meta.base",
    "exec.meta.cdi",
    "exec.meta.cgroup.parent",
    "exec.meta.linux.resources",
    "exec.meta.network",
    "exec.meta.network.proxy",
    "exec.meta.proxyenv",
    "exec.meta.security",
    "exec.meta.setsdefaultpath",
    "exec.meta.ulimit",
    "exec.mount.bind",
    "exec.mount.bind.readwrite-nooutput",
    "exec.mount.cache",
    "exec.mount.cache.content",
    "exec.mount.cache.sharing",
    "exec.mount.secret",
    "exec.mount.selector",
    "exec.mount.ssh",
    "exec.mount.tmpfs",
    "exec.mount.tmpfs.size",
    "exec.secretenv",
    "exec.validexitcode",
    "exporter.image.annotations",
    "exporter.image.attestations",
    "exporter.multiple",
    "exporter.session",
    "exporter.sourcedateepoch",
    "file.base",
    "file.copy.alwaysreplaceexistingdestpaths",
    "file.copy.includeexcludepatterns",
    "file.copy.requiredpaths",
    "file.rm.nofollowsymlink",
    "file.rm.wildcard",
    "file.symlink.create",
    "gc.freespacefilter",
    "history.filter",
    "mergeop",
    "meta.description",
    "meta.exportcache",
    "meta.ignorecache",
    "passthroughop",
    "platform",
    "soruce.http.uidgid",
    "source.buildop.llbfilename",
    "source.git",
    "source.git.bundle",
    "source.git.checkoutbundle",
    "source.git.checksum",
    "source.git.fetchbycommit",
    "source.git.fullurl",
    "source.git.httpauth",
    "source.git.keepgitdir",
    "source.git.knownsshhosts",
    "source.git.mountsshsock",
    "source.git.mtime",
    "source.git.signatureverify",
    "source.git.skipsubmodules",
    "source.git.subdir",
    "source.http",
    "source.http.auth",
    "source.http.checksum",
    "source.http.header",
    "source.http.perm",
    "source.http.signatureverify",
    "source.image",
    "source.image.checksum",
    "source.image.layerlimit",
    "source.image.resolvemode",
    "source.imageblob",
    "source.local",
    "source.local.differ",
    "source.local.excludepatterns",
    "source.local.followpaths",
    "source.local.includepatterns",
    "source.local.metadatatransfer",
    "source.local.sessionid",
    "source.local.sharedkeyhint",
    "source.local.unique",
    "source.ocilayout",
    "source.policy",
    "source.policy.session",
];

/// Capabilities of the gateway (LLBBridge), sorted.
pub const GATEWAY: &[&str] = &[
    "frontend.caps",
    "frontend.inputs",
    "gateway.evaluate",
    "gateway.exec",
    "gateway.exec.extrahosts",
    "gateway.exec.filesystem",
    "gateway.exec.secretenv",
    "gateway.exec.signals",
    "gateway.solve.evaluate",
    "gateway.solve.metadata",
    "gateway.warnings",
    "importcaches",
    "proto.refarray",
    "readdir",
    "readfile",
    "reference.attestations",
    "reference.output",
    "resolveimage",
    "resolveimage.resolvemode",
    "return",
    "returnmap",
    "solve.base",
    "solve.inlinereturn",
    "source.metaresolver",
    "source.metaresolver.http.checksumrequest",
    "source.metaresolver.image.attestations",
    "statfile",
];

/// Capabilities of the Dockerfile frontend that a client may demand with `frontend.caps`.
pub const FRONTEND: &[&str] = &[
    "moby.buildkit.frontend.contexts",
    "moby.buildkit.frontend.contexts.zstd",
    "moby.buildkit.frontend.gitquerystring",
    "moby.buildkit.frontend.inputs",
    "moby.buildkit.frontend.subrequests",
];

/// Whether LLB capability `id` is understood.
pub fn supports_llb(id: &str) -> bool {
    LLB.binary_search(&id).is_ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn lists_are_sorted_for_the_search() {
        assert!(
            super::LLB.is_sorted() && super::GATEWAY.is_sorted() && super::FRONTEND.is_sorted()
        );
        assert!(super::supports_llb("exec.meta.base") && !super::supports_llb("no.such"));
    }
}
