//! Sources that have to be signed. Keys and signed objects are those that are recorded for the crate signature.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use oci::ErrorKind;
use source::context::Context;
use source::error::SourceError;
use source::git::{GitConfig, GitSource, HostGit};
use source::http::HttpSource;
use source::{Facts, Source};

use crate::client::{World, attrs, files, listed};
use crate::git::{Daemon, daemon, git};
use crate::http::serve;

fn recorded(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../signature/tests/data")
        .join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn key(name: &str) -> String {
    String::from_utf8(recorded(name)).unwrap()
}

fn id(format: &str, name: &str) -> String {
    let start = format!("{format}-{name} ");
    let ids = key("git/ids");
    let line = ids.lines().find(|line| line.starts_with(&start)).unwrap();
    line.rsplit(' ').next().unwrap().to_owned()
}

/// A bare repository of the recorded objects, with the references and what they point at through tags, as the server tells it.
fn repository(dir: &Path, format: &str, references: &[(&str, &str, Option<&str>)]) {
    git(
        dir,
        &[
            "init",
            "-q",
            "--bare",
            &format!("--object-format={format}"),
            ".",
        ],
    );
    git(dir, &["hash-object", "-w", "-t", "tree", "/dev/null"]);
    for line in key("git/ids").lines() {
        let words: Vec<_> = line.split(' ').collect();
        if !words[0].starts_with(&format!("{format}-")) {
            continue;
        }
        let mut child = Command::new("git")
            .args([
                "hash-object",
                "-w",
                "--literally",
                "--stdin",
                "-t",
                words[1],
            ])
            .current_dir(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin
            .write_all(&recorded(&format!("git/{}", words[0])))
            .unwrap();
        drop(stdin);
        assert!(child.wait().unwrap().success());
    }
    let mut packed = "# pack-refs with: peeled fully-peeled sorted \n".to_owned();
    for (reference, name, peeled) in references {
        packed += &format!("{} {reference}\n", id(format, name));
        if let Some(peeled) = peeled {
            packed += &format!("^{}\n", id(format, peeled));
        }
    }
    std::fs::write(dir.join("packed-refs"), packed).unwrap();
}

struct Repository {
    world: World,
    source: GitSource,
    server: Daemon,
}

impl Repository {
    fn new(format: &str, references: &[(&str, &str, Option<&str>)]) -> Option<Self> {
        let world = World::new()?;
        let repos = world.folder("repos");
        repository(&world.folder("repos/r"), format, references);
        let config = GitConfig {
            runner: Arc::new(HostGit),
            path: std::env::var_os("PATH").unwrap(),
            proxy_env: Vec::new(),
            scratch: world.dir.path().join("scratch"),
        };
        let source = GitSource::new(world.store.clone(), config, None);
        let server = daemon(&repos);
        Some(Self {
            world,
            source,
            server,
        })
    }

    fn instance(&self, reference: &str, list: &[(&str, &str)]) -> Arc<dyn source::SourceInstance> {
        let remote = format!("git://{}/r", self.server.address);
        let mut list = list.to_vec();
        list.push(("git.fullurl", &remote));
        let address = format!("{}/r#{reference}", self.server.address);
        let attrs = attrs(&list);
        self.source.resolve("git", &address, &attrs, None).unwrap()
    }

    /// The answer to a request for the key, which has to be that to one for facts.
    async fn verdict(&self, reference: &str, list: &[(&str, &str)]) -> String {
        let ctx = self.world.alone();
        let verdict = |error: Option<SourceError>| {
            error.map_or_else(String::new, |error| {
                assert_ne!(error.kind(), ErrorKind::Unsupported, "{error}");
                error.to_string()
            })
        };
        let instance = self.instance(reference, list);
        let key_verdict = verdict(instance.cache_key(&ctx, 0).await.err());
        let instance = self.instance(reference, list);
        let facts_verdict = verdict(instance.facts(&ctx, false).await.err());
        assert_eq!(key_verdict, facts_verdict, "{reference} {list:?}");
        key_verdict
    }
}

const REFERENCES: &[(&str, &str, Option<&str>)] = &[
    ("refs/heads/main", "gpg", None),
    ("refs/heads/side", "ssh", None),
    ("refs/heads/unsigned", "unsigned", None),
    ("refs/tags/by-gpg", "tag-gpg", Some("gpg")),
    ("refs/tags/by-ssh", "tag-ssh", Some("gpg")),
    ("refs/tags/plain", "tag-unsigned", Some("gpg")),
];

#[tokio::test]
async fn commits_and_tags_have_to_be_signed_where_keys_are_given() {
    let tag = ("git.sig.requiresignedtag", "true");
    for format in ["sha1", "sha256"] {
        let Some(repository) = Repository::new(format, REFERENCES) else {
            return;
        };
        for (reference, key_file, attribute, end) in [
            ("main", "openpgp/rsa2048.pub", None, ""),
            ("by-ssh", "ssh/ed25519.pub", Some(tag), ""),
            (
                "unsigned",
                "ssh/ed25519.pub",
                None,
                "git object is not signed",
            ),
        ] {
            let key = key(key_file);
            let mut list = vec![("git.sig.pubkey", key.as_str())];
            list.extend(attribute);
            let verdict = repository.verdict(reference, &list).await;
            assert_eq!(verdict, end, "{format} {reference}");
        }
    }
}

#[tokio::test]
async fn the_key_is_the_same_with_and_without_a_signature_and_facts_have_both_objects() {
    let Some(repository) = Repository::new("sha1", REFERENCES) else {
        return;
    };
    let gpg = key("openpgp/rsa2048.pub");
    let ctx: Context = repository.world.alone();
    let list = [("git.sig.pubkey", gpg.as_str())];
    for reference in ["by-gpg", "main", &id("sha1", "gpg")] {
        let plain = repository.instance(reference, &[]);
        let plain = plain.cache_key(&ctx, 0).await.unwrap();
        let signed = repository.instance(reference, &list);
        let signed_key = signed.cache_key(&ctx, 0).await.unwrap();
        assert_eq!((plain.key, plain.pin), (signed_key.key, signed_key.pin));
    }
    let facts = repository.instance("by-gpg", &list).facts(&ctx, true).await;
    let Facts::Git {
        commit_object,
        tag_object,
        ..
    } = facts.unwrap()
    else {
        panic!("facts of git");
    };
    assert_eq!(commit_object, recorded("git/sha1-gpg"));
    assert_eq!(tag_object, recorded("git/sha1-tag-gpg"));
    // A tag by its own name, which looks like that of a commit.
    let tag = &id("sha1", "tag-ssh");
    let ssh = key("ssh/ed25519.pub");
    let demands = [
        ("git.sig.pubkey", ssh.as_str()),
        ("git.sig.requiresignedtag", "true"),
    ];
    assert_eq!(repository.verdict(tag, &demands).await, "");
    let facts = repository
        .instance(tag, &[])
        .facts(&ctx, true)
        .await
        .unwrap();
    let Facts::Git { commit, .. } = facts else {
        panic!("facts of git");
    };
    assert_eq!(commit, id("sha1", "gpg"));
}

#[tokio::test]
async fn a_remote_cannot_show_a_signed_commit_and_give_another() {
    // The tag that nobody signed points at the first commit; the server says that it points at one that somebody signed.
    let references = [
        ("refs/heads/side", "ssh", None),
        ("refs/tags/forged", "tag-unsigned", Some("ssh")),
    ];
    let Some(repository) = Repository::new("sha1", &references) else {
        return;
    };
    let ssh = key("ssh/ed25519.pub");
    let verdict = repository
        .verdict("forged", &[("git.sig.pubkey", ssh.as_str())])
        .await;
    assert!(
        verdict.starts_with("the remote says that tag "),
        "{verdict}"
    );
}

#[tokio::test]
async fn downloads_have_to_be_signed_where_keys_are_given() {
    let Some(world) = World::new() else { return };
    let message = String::from_utf8(recorded("message")).unwrap();
    let (body, gets) = (
        Arc::new(parking_lot::Mutex::new(message.clone())),
        Arc::default(),
    );
    let host = serve(Arc::clone(&body), Arc::clone(&gets), Arc::default()).await;
    let source = HttpSource::new(world.store.clone(), "test").unwrap();
    let ctx = world.alone();
    let (ring, other_key) = (key("openpgp/rsa2048.pub"), key("openpgp/ed25519.pub"));
    let two_keys = format!("{other_key}\n{ring}");
    let good = key("openpgp/rsa2048-SHA256.asc");
    let sha1 = key("openpgp/rsa2048-SHA1.asc");
    let checksum = oci::Digest::sha256(&message).to_string();
    let instance = |path: &str, list: &[(&str, &str)]| {
        source.resolve("http", &format!("{host}/{path}"), &attrs(list), None)
    };
    for (ring, signature, end) in [
        (&ring, &good, ""),
        (&two_keys, &good, ""),
        (
            &other_key,
            &good,
            "openpgp: signature made by unknown entity",
        ),
        (&ring, &sha1, "rejecting weak/unknown hash: SHA-1"),
        (&ring, &ring, "non signature packet found"),
    ] {
        for checksum in [None, Some(("http.checksum", checksum.as_str()))] {
            let mut list = vec![
                ("http.sig.pubkey", ring.as_str()),
                ("http.sig.signature", signature),
            ];
            list.extend(checksum);
            let plain: Vec<_> = checksum.into_iter().collect();
            let signed = instance("a", &list).unwrap();
            let key = signed.cache_key(&ctx, 0).await;
            let facts = instance("a", &list).unwrap().facts(&ctx, false).await;
            if end.is_empty() {
                let plain = instance("a", &plain).unwrap().cache_key(&ctx, 0).await;
                assert_eq!(key.unwrap().key, plain.unwrap().key);
                facts.unwrap();
                let snapshot = signed.snapshot(&ctx).await.unwrap().unwrap();
                assert_eq!(files(&snapshot), listed(&[("x.txt", &message)]));
            } else {
                let (key, facts) = (key.unwrap_err(), facts.unwrap_err());
                assert_eq!(key.to_string(), facts.to_string());
                let verdict = key.to_string();
                assert!(
                    verdict.starts_with("failed to verify pgp signature: "),
                    "{verdict}"
                );
                assert!(verdict.ends_with(end), "{verdict}");
                assert_eq!(key.kind(), ErrorKind::Denied);
            }
        }
    }
    // The same signature is none of another file.
    "something else".clone_into(&mut body.lock());
    let list = [
        ("http.sig.pubkey", ring.as_str()),
        ("http.sig.signature", &good),
    ];
    let verdict = instance("b", &list).unwrap().cache_key(&ctx, 0).await;
    let verdict = verdict.unwrap_err().to_string();
    assert!(verdict.ends_with("RSA verification failure"), "{verdict}");
    for list in [&list[..1], &list[1..]] {
        let error = instance("a", list).unwrap_err();
        assert_eq!(
            error.to_string(),
            "http signature verification requires both pubkey and signature"
        );
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
}
