//! Metadata of resolved sources as messages of the gateway and of policy sessions.

use engine::api::frontend::bridge::{AttestationChain, HttpChecksum, SourceMeta};
use proto::gateway as wire;

fn attestation_chain(chain: AttestationChain) -> wire::AttestationChain {
    let blob = |(desc, data): (oci::Descriptor, bytes::Bytes)| wire::Blob {
        descriptor: Some(wire::Descriptor {
            media_type: desc.media_type,
            digest: desc.digest.to_string(),
            size: desc.size,
            annotations: desc.annotations.into_iter().collect(),
        }),
        data: data.into(),
    };
    let text = |digest: Option<oci::Digest>| digest.map_or_else(String::new, |d| d.to_string());
    wire::AttestationChain {
        root: chain.root.to_string(),
        image_manifest: chain.image_manifest.to_string(),
        attestation_manifest: text(chain.attestation_manifest),
        signature_manifests: chain
            .signature_manifests
            .iter()
            .map(ToString::to_string)
            .collect(),
        blobs: chain
            .blobs
            .into_iter()
            .map(|(digest, descriptor_and_bytes)| (digest, blob(descriptor_and_bytes)))
            .collect(),
    }
}

/// The digest of a download that a client asks for; the error is the number of an unknown algorithm.
pub(crate) fn http_checksum(
    request: Option<wire::ResolveSourceHttpRequest>,
) -> Result<Option<HttpChecksum>, i32> {
    use wire::checksum_request::ChecksumAlgo;
    let Some(request) = request.and_then(|r| r.checksum_request) else {
        return Ok(None);
    };
    let algorithm = match ChecksumAlgo::try_from(request.algo) {
        Ok(ChecksumAlgo::Sha256) => "sha256",
        Ok(ChecksumAlgo::Sha384) => "sha384",
        Ok(ChecksumAlgo::Sha512) => "sha512",
        Err(_) => return Err(request.algo),
    };
    Ok(Some(HttpChecksum {
        algorithm: algorithm.into(),
        suffix: request.suffix.into(),
    }))
}

/// The metadata of a resolved source as a message.
pub(crate) fn source_meta(meta: SourceMeta) -> wire::ResolveSourceMetaResponse {
    wire::ResolveSourceMetaResponse {
        source: Some(meta.op),
        image: meta.image.map(|i| wire::ResolveSourceImageResponse {
            digest: i.digest.to_string(),
            config: i.config.to_vec(),
            attestation_chain: i.attestations.map(attestation_chain),
        }),
        git: meta.git.map(|g| wire::ResolveSourceGitResponse {
            checksum: g.checksum,
            r#ref: g.reference,
            commit_checksum: g.commit_checksum,
            commit_object: g.commit_object.to_vec(),
            tag_object: g.tag_object.to_vec(),
        }),
        http: meta.http.map(|h| wire::ResolveSourceHttpResponse {
            checksum: h.digest.to_string(),
            filename: h.filename,
            last_modified: h
                .last_modified
                .map(|seconds| prost_types::Timestamp { seconds, nanos: 0 }),
            checksum_response: h.checksum.map(|(digest, suffix)| wire::ChecksumResponse {
                digest,
                suffix: suffix.into(),
            }),
        }),
    }
}
