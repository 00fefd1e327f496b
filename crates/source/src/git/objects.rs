//! The commit and the tag that a reference names, as git keeps them, and whether somebody signed them.

use std::sync::Arc;

use signature::ExpiryJudgedAt;
use signature::git::{GitObject, ObjectError, ObjectKind};

use crate::context::Context;
use crate::error::{SourceError, cause};
use crate::git::GitInstance;
use crate::git::resolve::Resolved;
use crate::signed::{is_true, policy};

/// What has to be signed, and by whom.
#[derive(Debug, Clone)]
pub(crate) struct RequiredGitSignature {
    /// Armored OpenPGP keys, or a line of `authorized_keys`.
    public_keys: String,
    expiry: ExpiryJudgedAt,
    /// The commit's signature is not enough.
    needs_signed_tag: bool,
    /// The tag's signature does not matter.
    ignores_tag: bool,
}

impl RequiredGitSignature {
    /// Takes an attribute with a name that begins with `git.sig.`. Any of them demands a signature.
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

    /// Checks the signature of the tag, if there is one and it matters; else that of the commit.
    fn check(&self, objects: &Objects) -> Result<(), SourceError> {
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

fn parse(kind: ObjectKind, object: &Object) -> Result<GitObject, SourceError> {
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
pub(crate) struct Object {
    pub(crate) id: String,
    pub(crate) content: Vec<u8>,
}

/// The objects that a reference names.
#[derive(Debug, Clone)]
pub(crate) struct Objects {
    pub(crate) commit: Object,
    /// An annotated tag that points at the commit.
    pub(crate) tag: Option<Object>,
}

impl GitInstance {
    /// Fetches the objects, once.
    pub(crate) async fn objects(
        &self,
        ctx: &Context,
        resolved: &Resolved,
    ) -> Result<&Arc<Objects>, SourceError> {
        let objects = self
            .objects
            .get_or_try_init(|| self.read_objects(ctx, resolved));
        objects.await
    }

    async fn read_objects(
        &self,
        ctx: &Context,
        resolved: &Resolved,
    ) -> Result<Arc<Objects>, SourceError> {
        let repository = self.fetch(ctx, resolved, &resolved.object).await?;
        let git = &repository.git;
        let doing = format!("failed to read objects of {}", self.id.shown());
        let id = resolved.object.clone();
        // Who gave a commit by its name may have given that of a tag.
        let kind = git.run(&doing, &["cat-file", "-t", &id]).await?;
        let read = async |kind: &str, id: String| {
            let content = git.read(&doing, &["cat-file", kind, &id]).await?;
            Ok::<_, SourceError>(Object { id, content })
        };
        let objects = match kind.trim() {
            "commit" => Objects {
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
                    let reason = format!(
                        "the remote says that tag {id} points at {claimed}, and it points at {commit}"
                    );
                    return Err(SourceError::GitAnswer {
                        source: cause(reason),
                    });
                }
                Objects {
                    tag: Some(read("tag", id).await?),
                    commit: read("commit", commit).await?,
                }
            }
            other => {
                let reason = format!("expected commit or tag object, got {other}");
                return Err(SourceError::GitAnswer {
                    source: cause(reason),
                });
            }
        };
        Ok(Arc::new(objects))
    }

    /// Checks the signatures that are demanded. They are no part of the key: who demands one asks before he has the key.
    pub(crate) async fn check_signature(
        &self,
        ctx: &Context,
        resolved: &Resolved,
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
    use super::{Object, Objects, RequiredGitSignature};

    fn recorded(name: &str) -> Vec<u8> {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../signature/tests/data")
            .join(name);
        std::fs::read(path).unwrap()
    }

    fn text(name: &str) -> String {
        String::from_utf8(recorded(name)).unwrap()
    }

    fn object(name: &str) -> Object {
        let ids = text("git/ids");
        let start = format!("{name} ");
        let line = ids.lines().find(|line| line.starts_with(&start)).unwrap();
        Object {
            id: line.rsplit(' ').next().unwrap().to_owned(),
            content: recorded(&format!("git/{name}")),
        }
    }

    fn objects(commit: &str, tag: Option<&str>) -> Objects {
        Objects {
            commit: object(commit),
            tag: tag.map(object),
        }
    }

    fn said(list: &[(&str, &str)], objects: &Objects) -> String {
        let mut verify = None;
        for (name, value) in list {
            RequiredGitSignature::set(&mut verify, name, value);
        }
        let checked = verify.unwrap().check(objects);
        checked.map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[test]
    fn a_tags_signature_or_that_of_its_commit_is_enough_unless_one_is_demanded() {
        let (gpg, ssh) = (
            &text("openpgp/rsa2048.pub")[..],
            &text("ssh/ed25519.pub")[..],
        );
        let (other_gpg, other_ssh) = (&text("openpgp/ed25519.pub")[..], &text("ssh/other.pub")[..]);
        let need = ("requiresignedtag", "true");
        let ignore = ("ignoresignedtag", "true");
        let no_armor = "failed to read armored public key: no armored data found";
        for format in ["sha1", "sha256"] {
            let of = |commit: &str, tag: Option<&str>| {
                let tag = tag.map(|tag| format!("{format}-tag-{tag}"));
                objects(&format!("{format}-{commit}"), tag.as_deref())
            };
            let (commit, unsigned) = (of("gpg", None), of("unsigned", None));
            let (by_gpg, by_ssh) = (of("gpg", Some("gpg")), of("gpg", Some("ssh")));
            let plain = of("gpg", Some("unsigned"));
            for (objects, key, more, end) in [
                (&commit, gpg, None, ""),
                (&commit, gpg, Some(("rejectexpired", "true")), ""),
                (&of("ssh", None), ssh, None, ""),
                (
                    &commit,
                    other_gpg,
                    None,
                    "openpgp: signature made by unknown entity",
                ),
                (&commit, ssh, None, no_armor),
                (&commit, "", None, no_armor),
                (&unsigned, gpg, None, "git object is not signed"),
                (&by_gpg, gpg, Some(need), ""),
                (&by_ssh, ssh, Some(need), ""),
                (&by_ssh, gpg, None, ""),
                (&by_ssh, gpg, Some(("requiresignedtag", "1")), ""),
                (&plain, gpg, None, ""),
                (&plain, gpg, Some(need), "git object is not signed"),
                (
                    &commit,
                    gpg,
                    Some(need),
                    "signed tag required but no signed tag found",
                ),
                (&by_ssh, other_ssh, Some(need), "public key does not match"),
                (
                    &by_ssh,
                    gpg,
                    Some(need),
                    "ssh: no key found; last parsing error for ignored line: Invalid padding",
                ),
                (&by_ssh, ssh, Some(ignore), no_armor),
                (&by_ssh, gpg, Some(ignore), ""),
                (&by_gpg, gpg, Some(("unknown", "true")), ""),
            ] {
                let mut list = vec![("pubkey", key)];
                list.extend(more);
                let said = said(&list, objects);
                assert_eq!(said.is_empty(), end.is_empty(), "{list:?}: {said}");
                assert!(said.ends_with(end), "{list:?}: {said}");
            }
            // Both demands at once: the tag is not looked at, and needed.
            let both = [("pubkey", ssh), need, ignore];
            let said_of = said(&both, &by_ssh);
            assert_eq!(said_of, "signed tag required but no signed tag found");
            // Any of the attributes demands a signature, whatever its value.
            let said_of = said(&[("rejectexpired", "false")], &unsigned);
            assert_eq!(said_of, "git object is not signed");
        }
    }

    #[test]
    fn objects_that_are_others_are_refused_before_their_signatures_matter() {
        let gpg = &text("openpgp/rsa2048.pub")[..];
        let good = objects("sha1-gpg", Some("sha1-tag-gpg"));
        let said_of = |change: &dyn Fn(&mut Objects), more: (&str, &str)| {
            let mut objects = good.clone();
            change(&mut objects);
            said(&[("pubkey", gpg), more], &objects)
        };
        let (all, commit) = (("", ""), ("ignoresignedtag", "true"));
        assert_eq!(said_of(&|_| {}, all), "");
        for (answer, start) in [
            (
                said_of(&|o| o.commit.content.push(b'\n'), commit),
                "commit object checksum verification failed: checksum mismatch: expected ",
            ),
            (
                said_of(&|o| o.tag.as_mut().unwrap().content.push(b'\n'), all),
                "tag object checksum verification failed: checksum mismatch: expected ",
            ),
            (
                said_of(&|o| o.commit.content.clear(), commit),
                "failed to parse git commit object: invalid commit object: missing tree header",
            ),
            (
                said_of(&|o| o.tag.as_mut().unwrap().content.clear(), all),
                "failed to parse git tag object: invalid tag object: missing object header",
            ),
            (
                said_of(&|o| o.commit.id.clear(), commit),
                "failed to parse git commit object: unsupported sha length 0",
            ),
        ] {
            assert!(answer.starts_with(start), "{answer}");
        }
    }
}
