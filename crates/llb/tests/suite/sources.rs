//! Every attribute of every source, and what each refuses.

use std::collections::BTreeMap;

use llb::pb;
use llb::source_id::{
    BlobSource, FileAttrs, GitSource, GitVerify, HttpSource, ImageSource, LocalSource,
    OciLayoutSource, SourceId,
};
use oci::{Digest, Platform};

/// Attributes of a source op, and what becomes of them.
type Attributes<'a> = &'a [(&'a str, &'a str)];
type Outcome = Result<SourceId, String>;

fn parse(identifier: &str, attrs: &[(&str, &str)]) -> Result<SourceId, String> {
    let attrs: BTreeMap<String, String> = attrs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    let op = pb::SourceOp {
        identifier: identifier.into(),
        attrs,
    };
    SourceId::parse(&op, None).map_err(|e| e.to_string())
}

fn digest() -> Digest {
    Digest::sha256(b"x")
}

fn image() -> ImageSource {
    ImageSource {
        locator: "docker.io/library/a".into(),
        object: "1".into(),
        platform: None,
        resolve_mode: "default".into(),
        record_type: "regular".into(),
        layer_limit: None,
        checksum: None,
    }
}

#[test]
fn images_are_read_with_all_that_is_asked_of_them() {
    let id = "docker-image://docker.io/library/a:1";
    let of = |change: fn(&mut ImageSource)| {
        let mut image = image();
        change(&mut image);
        Ok(SourceId::Image(image))
    };
    let sum = digest();
    let checksum = [("image.checksum", sum.as_str())];
    let cases: Vec<(Attributes<'_>, Outcome)> = vec![
        (&[], of(|_| {})),
        (&[("image.resolvemode", "")], of(|_| {})),
        (
            &[("image.resolvemode", "pull")],
            of(|i| i.resolve_mode = "pull".into()),
        ),
        (
            &[("image.resolvemode", "never")],
            Err("invalid resolvemode: never".into()),
        ),
        (
            &[("image.recordtype", "frontend")],
            of(|i| i.record_type = "frontend".into()),
        ),
        (
            &[("image.recordtype", "x")],
            Err("invalid record type x".into()),
        ),
        (
            &[("image.layerlimit", "3")],
            of(|i| i.layer_limit = Some(3)),
        ),
        (
            &[("image.layerlimit", "0")],
            Err("invalid layer limit 0".into()),
        ),
        (
            &[("image.layerlimit", "-1")],
            Err("invalid layer limit -1".into()),
        ),
        (&checksum, of(|i| i.checksum = Some(digest()))),
        (
            &[("image.checksum", "sha256:1")],
            Err("invalid image checksum sha256:1".into()),
        ),
        (&[("image.unknown", "x")], of(|_| {})),
    ];
    for (attrs, want) in cases {
        assert_eq!(parse(id, attrs), want, "{attrs:?}");
    }
    let platform = pb::Platform {
        os: "linux".into(),
        architecture: "arm64".into(),
        ..pb::Platform::default()
    };
    let op = pb::SourceOp {
        identifier: id.into(),
        ..pb::SourceOp::default()
    };
    let Ok(SourceId::Image(image)) = SourceId::parse(&op, Some(&platform)) else {
        panic!("it is an image")
    };
    assert_eq!(image.platform, Some(Platform::new("linux", "arm64", "")));
}

#[test]
fn references_are_split_and_nothing_is_filled_in() {
    let sum = digest();
    let pinned = format!("@{sum}");
    let both = format!("1{pinned}");
    for (reference, locator, object, has_digest) in [
        (
            "r.example:5000/a/b:1".to_owned(),
            "r.example:5000/a/b",
            "1",
            false,
        ),
        (
            format!("r.example/a@{sum}"),
            "r.example/a",
            pinned.as_str(),
            true,
        ),
        (
            format!("r.example/a:1@{sum}"),
            "r.example/a",
            both.as_str(),
            true,
        ),
        ("r.example//a/./b:1".to_owned(), "r.example/a/b", "1", false),
    ] {
        for scheme in ["docker-image", "oci-layout"] {
            let id = parse(&format!("{scheme}://{reference}"), &[]).unwrap();
            let (found, whole, of_digest) = match id {
                SourceId::Image(image) => (
                    (image.locator.clone(), image.object.clone()),
                    image.reference(),
                    image.digest(),
                ),
                SourceId::OciLayout(image) => (
                    (image.locator.clone(), image.object.clone()),
                    image.reference(),
                    image.digest(),
                ),
                other @ (SourceId::Blob(_)
                | SourceId::Git(_)
                | SourceId::Local(_)
                | SourceId::Http(_)) => panic!("{other:?}"),
            };
            assert_eq!(
                found,
                (locator.to_owned(), object.to_owned()),
                "{reference}"
            );
            let separator = if object.starts_with('@') { "" } else { ":" };
            assert_eq!(whole, format!("{locator}{separator}{object}"));
            assert_eq!(of_digest, has_digest.then(digest), "{reference}");
        }
    }
    for (reference, want) in [
        ("r.example/a", "object required"),
        ("r.example/a:", "object required"),
        ("r.example", "object required"),
        ("", "invalid reference \"\""),
        ("/a:1", "invalid reference \"/a:1\""),
        ("u@r.example/a:1", "invalid reference \"u@r.example/a:1\""),
        (
            "r.example/a/../b:1",
            "invalid reference \"r.example/a/../b:1\"",
        ),
        (
            "https://r.example/a:1",
            "invalid reference \"https://r.example/a:1\"",
        ),
    ] {
        assert_eq!(
            parse(&format!("docker-image://{reference}"), &[]).unwrap_err(),
            want
        );
    }
    assert_eq!(
        parse("nothing", &[]).unwrap_err(),
        "failed to parse nothing: invalid"
    );
    assert_eq!(
        parse("ftp://x", &[]).unwrap_err(),
        "unknown scheme ftp: not found"
    );
}

#[test]
fn layouts_and_blobs_have_a_session_a_store_and_a_file() {
    let layout = parse(
        "oci-layout://x/y:1",
        &[
            ("oci.session", "s"),
            ("oci.store", "t"),
            ("oci.layerlimit", "2"),
        ],
    );
    assert_eq!(
        layout,
        Ok(SourceId::OciLayout(OciLayoutSource {
            locator: "x/y".into(),
            object: "1".into(),
            platform: None,
            session_id: "s".into(),
            store_id: "t".into(),
            layer_limit: Some(2),
        }))
    );
    let sum = digest();
    let attrs = [
        ("oci.session", "s"),
        ("oci.store", "t"),
        ("http.filename", "f"),
        ("http.perm", "0644"),
        ("http.uid", "0x10"),
        ("http.gid", "7"),
    ];
    for (scheme, oci_layout) in [("docker-image+blob", false), ("oci-layout+blob", true)] {
        let blob = parse(&format!("{scheme}://x/y@{sum}"), &attrs);
        assert_eq!(
            blob,
            Ok(SourceId::Blob(BlobSource {
                oci_layout,
                locator: "x/y".into(),
                digest: digest(),
                session_id: "s".into(),
                store_id: "t".into(),
                file: FileAttrs {
                    filename: "f".into(),
                    perm: 0o644,
                    uid: 16,
                    gid: 7,
                },
            }))
        );
        let tagged = parse(&format!("{scheme}://x/y:1"), &[]).unwrap_err();
        assert_eq!(tagged, "invalid reference \"x/y:1\"");
    }
    for value in ["", "x", "08", "0x", "1.5"] {
        let error = parse("https://x", &[("http.perm", value)]).unwrap_err();
        assert_eq!(error, format!("invalid http.perm {value}"));
    }
}

#[test]
fn repositories_are_read_with_all_that_is_asked_of_them() {
    let of = |change: fn(&mut GitSource)| {
        let mut git = GitSource {
            remote: "https://example.com/a.git".into(),
            ..GitSource::default()
        };
        change(&mut git);
        Ok(SourceId::Git(git))
    };
    let cases: Vec<(&str, Attributes<'_>, Outcome)> = vec![
        ("", &[], of(|_| {})),
        ("#main", &[], of(|g| g.reference = "main".into())),
        (
            "#main:sub",
            &[],
            of(|g| {
                g.reference = "main".into();
                g.subdir = "sub".into();
            }),
        ),
        (
            "#-upload-pack=x",
            &[],
            Err("invalid git ref \"-upload-pack=x\"".into()),
        ),
        (
            "",
            &[("git.fullurl", "ssh://git@EXAMPLE.com/a")],
            of(|g| g.remote = "ssh://git@EXAMPLE.com/a".into()),
        ),
        (
            "",
            &[("git.fullurl", "https://example.com/b.git")],
            Err("git.fullurl does not match source identifier".into()),
        ),
        (
            "",
            &[("git.fullurl", "https://other.com/a.git")],
            Err("git.fullurl does not match source identifier".into()),
        ),
        (
            "",
            &[("git.checksum", "abc")],
            of(|g| g.checksum = "abc".into()),
        ),
        (
            "",
            &[("git.keepgitdir", "true")],
            of(|g| g.keep_git_dir = true),
        ),
        ("", &[("git.keepgitdir", "1")], of(|_| {})),
        (
            "",
            &[("git.authtokensecret", "t"), ("git.authheadersecret", "h")],
            of(|g| {
                g.auth_token_secret = "t".into();
                g.auth_header_secret = "h".into();
            }),
        ),
        (
            "",
            &[("git.mountsshsock", "default"), ("git.knownsshhosts", "k")],
            of(|g| {
                g.mount_ssh_sock = "default".into();
                g.known_ssh_hosts = "k".into();
            }),
        ),
        (
            "",
            &[
                ("git.skipsubmodules", "true"),
                ("git.advice", "true"),
                ("git.fetchbycommit", "true"),
                ("git.mtime", "commit"),
            ],
            of(|g| {
                g.skip_submodules = true;
                g.advice = true;
                g.fetch_by_commit = true;
                g.mtime = "commit".into();
            }),
        ),
        (
            "",
            &[("git.bundle", "b")],
            Err("git.bundle requires git.checksum to be set".into()),
        ),
        (
            "",
            &[
                ("git.bundle", "b"),
                ("git.checksum", "c"),
                ("oci.session", "s"),
                ("oci.store", "t"),
            ],
            of(|g| {
                g.bundle = "b".into();
                g.checksum = "c".into();
                g.bundle_session_id = "s".into();
                g.bundle_store_id = "t".into();
            }),
        ),
        (
            "",
            &[("git.checkoutbundle", "true")],
            of(|g| g.checkout_bundle = true),
        ),
        (
            "",
            &[("git.checkoutbundle", "true"), ("git.keepgitdir", "true")],
            Err("git.checkoutbundle is incompatible with git.keepgitdir".into()),
        ),
        (
            "#main:sub",
            &[("git.checkoutbundle", "true")],
            Err("git.checkoutbundle is incompatible with git.subdir".into()),
        ),
        (
            "",
            &[("git.sig.pubkey", "k"), ("git.sig.rejectexpired", "true")],
            of(|g| {
                g.verify = Some(GitVerify {
                    pub_key: "k".into(),
                    reject_expired: true,
                    ..GitVerify::default()
                });
            }),
        ),
        (
            "",
            &[
                ("git.sig.requiresignedtag", "true"),
                ("git.sig.ignoresignedtag", "true"),
            ],
            of(|g| {
                g.verify = Some(GitVerify {
                    require_signed_tag: true,
                    ignore_signed_tag: true,
                    ..GitVerify::default()
                });
            }),
        ),
    ];
    for (suffix, attrs, want) in cases {
        let id = format!("git://example.com/a.git{suffix}");
        assert_eq!(parse(&id, attrs), want, "{suffix} {attrs:?}");
    }
}

#[test]
fn folders_are_read_with_all_that_is_asked_of_them() {
    let of = |change: fn(&mut LocalSource)| {
        let mut local = LocalSource {
            name: "context".into(),
            ..LocalSource::default()
        };
        change(&mut local);
        Ok(SourceId::Local(local))
    };
    let cases: Vec<(Attributes<'_>, Outcome)> = vec![
        (&[], of(|_| {})),
        (&[("local.session", "s")], of(|l| l.session_id = "s".into())),
        (
            &[("local.session", "prefix:s")],
            of(|l| {
                l.name = "prefix-context".into();
                l.session_id = "s".into();
            }),
        ),
        (
            &[("local.includepattern", r#"["a","b"]"#)],
            of(|l| l.include = vec!["a".into(), "b".into()]),
        ),
        (
            &[("local.excludepatterns", r#"["*.log"]"#)],
            of(|l| l.exclude = vec!["*.log".into()]),
        ),
        (&[("local.followpaths", "null")], of(|_| {})),
        (
            &[("local.followpaths", "a")],
            Err("invalid local.followpaths a".into()),
        ),
        (
            &[("local.includepattern", "[1]")],
            Err("invalid local.includepattern [1]".into()),
        ),
        (
            &[("local.sharedkeyhint", "k")],
            of(|l| l.shared_key_hint = "k".into()),
        ),
        (&[("local.differ", "none")], of(|l| l.differ_none = true)),
        (&[("local.differ", "metadata")], of(|_| {})),
        (
            &[
                ("local.metadatatransfer", "T"),
                ("local.metadatatransferexclude", r#"["x"]"#),
            ],
            of(|l| {
                l.metadata_only = true;
                l.metadata_exceptions = vec!["x".into()];
            }),
        ),
        (&[("local.metadatatransfer", "False")], of(|_| {})),
        (
            &[("local.metadatatransfer", "yes")],
            Err("invalid value for local.metadatatransfer yes".into()),
        ),
    ];
    for (attrs, want) in cases {
        assert_eq!(parse("local://context", attrs), want, "{attrs:?}");
    }
}

#[test]
fn files_from_the_web_are_read_with_all_that_is_asked_of_them() {
    let of = |change: fn(&mut HttpSource)| {
        let mut http = HttpSource {
            url: "https://x/y?z".into(),
            ..HttpSource::default()
        };
        change(&mut http);
        Ok(SourceId::Http(http))
    };
    let sum = digest();
    let checksum = [("http.checksum", sum.as_str())];
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let cases: Vec<(Attributes<'_>, Outcome)> = vec![
        (&[], of(|_| {})),
        (&checksum, of(|h| h.checksum = Some(digest()))),
        (
            &[("http.checksum", "x")],
            Err("invalid http checksum x".into()),
        ),
        (
            &[("http.authheadersecret", "s")],
            of(|h| h.auth_header_secret = "s".into()),
        ),
        (
            &[("http.sig.pubkey", "k")],
            Err("http signature verification requires both pubkey and signature".into()),
        ),
        (
            &[("http.sig.signature", "s")],
            Err("http signature verification requires both pubkey and signature".into()),
        ),
        (
            &[("http.sig.pubkey", "k"), ("http.sig.signature", "s")],
            of(|h| h.signature = Some(("k".into(), "s".into()))),
        ),
        (
            &[("http.filename", "f"), ("http.uid", "1")],
            of(|h| {
                h.file.filename = "f".into();
                h.file.uid = 1;
            }),
        ),
    ];
    for (attrs, want) in cases {
        assert_eq!(parse("https://x/y?z", attrs), want, "{attrs:?}");
    }
    let sent = parse(
        "http://x",
        &[
            ("http.header.user-agent", "u"),
            ("http.header.accept", "a"),
            ("http.header.cookie", "c"),
        ],
    );
    let Ok(SourceId::Http(sent)) = sent else {
        panic!("{sent:?}")
    };
    assert_eq!(
        sent.headers,
        [header("Accept", "a"), header("User-Agent", "u")]
    );
}
