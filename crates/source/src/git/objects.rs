//! The commit and the tag that a reference names, as git stores them, and their signatures.

use std::sync::Arc;

use signature::ExpiryJudgedAt;
use signature::git::{GitObject, ObjectError, ObjectKind};

use crate::context::Context;
use crate::error::SourceError;
use crate::git::GitInstance;
use crate::git::error::GitRefusal;
use crate::git::resolve::ResolvedRef;
use crate::signed::{is_true, policy};

/// The signature that the attributes `git.sig.*` demand. The two flags about tags are attributes of their own, and both
/// may be set: then the tag is needed and not looked at.
#[derive(Debug, Clone)]
pub(crate) struct RequiredGitSignature {
    /// Armored OpenPGP keys, or a line of `authorized_keys`.
    public_keys: String,
    expiry: ExpiryJudgedAt,
    /// `git.sig.requiresignedtag`: the commit's signature is not enough.
    needs_signed_tag: bool,
    /// `git.sig.ignoresignedtag`: the tag's signature does not count.
    ignores_tag: bool,
}

impl RequiredGitSignature {
    /// Reads the attribute `git.sig.<name>`. Any such attribute demands a signature.
    pub(crate) fn set(verify: &mut Option<Self>, name: &str, value: &str) {
        let verify = verify.get_or_insert(Self {
            public_keys: String::new(),
            expiry: ExpiryJudgedAt::Signing,
            needs_signed_tag: false,
            ignores_tag: false,
        });
        match name {
            "pubkey" => value.clone_into(&mut verify.public_keys),
            "rejectexpired" if is_true(value) => verify.expiry = ExpiryJudgedAt::Now,
            "requiresignedtag" => verify.needs_signed_tag = is_true(value),
            "ignoresignedtag" => verify.ignores_tag = is_true(value),
            // Others are dropped in silence, as with BuildKit.
            _ => {}
        }
    }

    /// Checks the signature of the tag, if there is one and it counts; else that of the commit.
    fn check(&self, objects: &RefObjects) -> Result<(), SourceError> {
        let policy = policy(self.expiry);
        let mut unconfirmed = None;
        if let Some(tag) = objects.tag.as_ref().filter(|_| !self.ignores_tag) {
            let parsed = parse(ObjectKind::Tag, tag)?;
            match parsed.verify(self.public_keys.as_bytes(), &policy) {
                Ok(()) => return Ok(()),
                Err(error) => unconfirmed = Some(error),
            }
        }
        if self.needs_signed_tag {
            return Err(unconfirmed.map_or(SourceError::NoSignedTag, SourceError::from));
        }
        let parsed = parse(ObjectKind::Commit, &objects.commit)?;
        parsed.verify(self.public_keys.as_bytes(), &policy)?;
        Ok(())
    }
}

fn parse(kind: ObjectKind, object: &RawObject) -> Result<GitObject, SourceError> {
    GitObject::parse(kind, &object.content, &object.id).map_err(|source| {
        let doing = if matches!(source, ObjectError::Id { .. }) {
            format!("{kind} object checksum verification failed")
        } else {
            format!("failed to parse git {kind} object")
        };
        SourceError::GitObject { doing, source }
    })
}

/// An object, as `git cat-file` gives it.
#[derive(Debug, Clone)]
pub(crate) struct RawObject {
    pub(crate) id: String,
    pub(crate) content: Vec<u8>,
}

/// The objects that a reference names.
#[derive(Debug, Clone)]
pub(crate) struct RefObjects {
    pub(crate) commit: RawObject,
    /// An annotated tag that points at the commit.
    pub(crate) tag: Option<RawObject>,
}

impl GitInstance {
    /// Fetches the objects, once.
    pub(crate) async fn objects(
        &self,
        ctx: &Context,
        resolved: &ResolvedRef,
    ) -> Result<&Arc<RefObjects>, SourceError> {
        let objects = self
            .objects
            .get_or_try_init(|| self.read_objects(ctx, resolved));
        objects.await
    }

    async fn read_objects(
        &self,
        ctx: &Context,
        resolved: &ResolvedRef,
    ) -> Result<Arc<RefObjects>, SourceError> {
        let repository = self.fetch(ctx, resolved, &resolved.object).await?;
        let git = &repository.git;
        let doing = format!("failed to read objects of {}", self.id.display_remote());
        let id = resolved.object.clone();
        // The user may have given the name of a tag object in place of a commit.
        let kind = git.run(&doing, &["cat-file", "-t", &id]).await?;
        let read = async |kind: &str, id: String| {
            let content = git.read(&doing, &["cat-file", kind, &id]).await?;
            Ok::<_, SourceError>(RawObject { id, content })
        };
        let objects = match kind.trim() {
            "commit" => RefObjects {
                commit: read("commit", id).await?,
                tag: None,
            },
            "tag" => {
                let peeled = format!("{id}^{{commit}}");
                let commit = git.run(&doing, &["rev-parse", &peeled]).await?;
                let commit = commit.trim().to_owned();
                // DIFFERS: BuildKit believes the remote, which can name a signed commit beside a tag of another and have its tree
                // checked out.
                if let Some(claimed) = resolved
                    .commit
                    .as_ref()
                    .filter(|claimed| **claimed != commit)
                {
                    let claimed = claimed.clone();
                    return Err(GitRefusal::TagElsewhere {
                        tag: id,
                        claimed,
                        commit,
                    }
                    .into());
                }
                RefObjects {
                    tag: Some(read("tag", id).await?),
                    commit: read("commit", commit).await?,
                }
            }
            kind => {
                let kind = kind.to_owned();
                return Err(GitRefusal::ObjectKind { kind }.into());
            }
        };
        Ok(Arc::new(objects))
    }

    /// Checks the demanded signatures. They are not in the key, so this runs before the key is given out.
    pub(crate) async fn check_signature(
        &self,
        ctx: &Context,
        resolved: &ResolvedRef,
    ) -> Result<(), SourceError> {
        let Some(verify) = self.id.verify.clone() else {
            return Ok(());
        };
        let objects = Arc::clone(self.objects(ctx, resolved).await?);
        task::blocking("signature", move || verify.check(&objects)).await
    }
}

#[cfg(test)]
mod tests {
    use super::{RawObject, RefObjects, RequiredGitSignature};

    fn recorded(name: &str) -> Vec<u8> {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../signature/tests/data")
            .join(name);
        std::fs::read(path).unwrap()
    }

    fn text(name: &str) -> String {
        String::from_utf8(recorded(name)).unwrap()
    }

    fn object(name: &str) -> RawObject {
        let ids = text("git/ids");
        let start = format!("{name} ");
        let line = ids.lines().find(|line| line.starts_with(&start)).unwrap();
        RawObject {
            id: line.rsplit(' ').next().unwrap().to_owned(),
            content: recorded(&format!("git/{name}")),
        }
    }

    fn objects(commit: &str, tag: Option<&str>) -> RefObjects {
        RefObjects {
            commit: object(commit),
            tag: tag.map(object),
        }
    }

    fn verdict_of(list: &[(&str, &str)], objects: &RefObjects) -> String {
        let mut verify = None;
        for (name, value) in list {
            RequiredGitSignature::set(&mut verify, name, value);
        }
        let result = verify.unwrap().check(objects);
        result.map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[test]
    fn a_tags_signature_or_that_of_its_commit_is_enough_unless_one_is_demanded() {
        let (gpg, ssh) = (
            &text("openpgp/rsa2048.pub")[..],
            &text("ssh/ed25519.pub")[..],
        );
        let (other_gpg, other_ssh) = (&text("openpgp/ed25519.pub")[..], &text("ssh/other.pub")[..]);
        let require = ("requiresignedtag", "true");
        let ignore = ("ignoresignedtag", "true");
        let no_armor = "failed to read armored public key: no armored data found";
        for format in ["sha1", "sha256"] {
            let of_format = |commit: &str, tag: Option<&str>| {
                let tag = tag.map(|tag| format!("{format}-tag-{tag}"));
                objects(&format!("{format}-{commit}"), tag.as_deref())
            };
            let (commit, unsigned) = (of_format("gpg", None), of_format("unsigned", None));
            let (by_gpg, by_ssh) = (of_format("gpg", Some("gpg")), of_format("gpg", Some("ssh")));
            let plain = of_format("gpg", Some("unsigned"));
            for (objects, key, attribute, end) in [
                (&commit, gpg, None, ""),
                (&commit, gpg, Some(("rejectexpired", "true")), ""),
                (&of_format("ssh", None), ssh, None, ""),
                (
                    &commit,
                    other_gpg,
                    None,
                    "openpgp: signature made by unknown entity",
                ),
                (&commit, ssh, None, no_armor),
                (&commit, "", None, no_armor),
                (&unsigned, gpg, None, "git object is not signed"),
                (&by_gpg, gpg, Some(require), ""),
                (&by_ssh, ssh, Some(require), ""),
                (&by_ssh, gpg, None, ""),
                (&by_ssh, gpg, Some(("requiresignedtag", "1")), ""),
                (&plain, gpg, None, ""),
                (&plain, gpg, Some(require), "git object is not signed"),
                (
                    &commit,
                    gpg,
                    Some(require),
                    "signed tag required but no signed tag found",
                ),
                (
                    &by_ssh,
                    other_ssh,
                    Some(require),
                    "public key does not match",
                ),
                (
                    &by_ssh,
                    gpg,
                    Some(require),
                    "ssh: no key found; last parsing error for ignored line: Invalid padding",
                ),
                (&by_ssh, ssh, Some(ignore), no_armor),
                (&by_ssh, gpg, Some(ignore), ""),
                (&by_gpg, gpg, Some(("unknown", "true")), ""),
            ] {
                let mut list = vec![("pubkey", key)];
                list.extend(attribute);
                let verdict = verdict_of(&list, objects);
                assert_eq!(verdict.is_empty(), end.is_empty(), "{list:?}: {verdict}");
                assert!(verdict.ends_with(end), "{list:?}: {verdict}");
            }
            // Both demands at once: the tag is not looked at, and needed.
            let both = [("pubkey", ssh), require, ignore];
            let verdict_after = verdict_of(&both, &by_ssh);
            assert_eq!(verdict_after, "signed tag required but no signed tag found");
            // Any of the attributes demands a signature, whatever its value.
            let verdict_after = verdict_of(&[("rejectexpired", "false")], &unsigned);
            assert_eq!(verdict_after, "git object is not signed");
        }
    }

    #[test]
    fn objects_that_are_others_are_refused_before_their_signatures_matter() {
        let gpg = &text("openpgp/rsa2048.pub")[..];
        let good = objects("sha1-gpg", Some("sha1-tag-gpg"));
        let verdict_after = |change: &dyn Fn(&mut RefObjects), attribute: (&str, &str)| {
            let mut objects = good.clone();
            change(&mut objects);
            verdict_of(&[("pubkey", gpg), attribute], &objects)
        };
        let (none, commit) = (("", ""), ("ignoresignedtag", "true"));
        assert_eq!(verdict_after(&|_| {}, none), "");
        for (verdict, start) in [
            (
                verdict_after(&|o| o.commit.content.push(b'\n'), commit),
                "commit object checksum verification failed: checksum mismatch: expected ",
            ),
            (
                verdict_after(&|o| o.tag.as_mut().unwrap().content.push(b'\n'), none),
                "tag object checksum verification failed: checksum mismatch: expected ",
            ),
            (
                verdict_after(&|o| o.commit.content.clear(), commit),
                "failed to parse git commit object: invalid commit object: missing tree header",
            ),
            (
                verdict_after(&|o| o.tag.as_mut().unwrap().content.clear(), none),
                "failed to parse git tag object: invalid tag object: missing object header",
            ),
            (
                verdict_after(&|o| o.commit.id.clear(), commit),
                "failed to parse git commit object: unsupported sha length 0",
            ),
        ] {
            assert!(verdict.starts_with(start), "{verdict}");
        }
    }
}
