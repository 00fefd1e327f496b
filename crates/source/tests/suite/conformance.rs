//! What every source must do, run against every one: images, OCI layouts, blobs, URLs, git, folders of the client.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use futures::FutureExt as _;
use oci::{Descriptor, Digest, media_type};
use parking_lot::Mutex;
use registry::Config;
use source::blob::BlobSource;
use source::git::HostGit;
use source::http::HttpSource;
use source::image::ImageSource;
use source::local::LocalSource;
use source::oci_layout::OciLayoutSource;
use source::{Context, Source, SourceInstance};
use testkit::registry::{FakeRegistry, Request, Response};

use crate::client::{Client, World, attrs, write};

/// One implementation, with something to read.
struct Subject {
    name: &'static str,
    source: Arc<dyn Source>,
    scheme: &'static str,
    reference: String,
    attrs: BTreeMap<String, String>,
    ctx: Context,
    /// Changes the content at its origin, and returns the reference to the new one.
    change: Box<dyn Fn() -> String>,
    /// How often the origin was asked; `None` where there is no network to ask over.
    requests: Option<Box<dyn Fn() -> usize>>,
    /// Whether the key is known from the identifier alone.
    key_without_origin: bool,
    /// A reference to what is not there, and the part of it that an error must name.
    missing: (String, String),
}

impl Subject {
    fn instance(&self, reference: &str) -> Arc<dyn SourceInstance> {
        self.source
            .resolve(self.scheme, reference, &self.attrs, None)
            .unwrap()
    }

    fn request_count(&self) -> usize {
        self.requests.as_ref().map_or(0, |requests| requests())
    }
}

/// What a registry or a web server has, by the last part of a path.
type Documents = Arc<Mutex<BTreeMap<String, (String, Vec<u8>)>>>;

async fn serve(documents: &Documents) -> FakeRegistry {
    let documents = Arc::clone(documents);
    FakeRegistry::start(move |request: &Request| {
        let name = request.target.rsplit('/').next().unwrap_or_default();
        match documents.lock().get(name) {
            None => Response::new(404),
            Some((kind, bytes)) => Response::new(200)
                .header("Content-Type", kind)
                .header("Docker-Content-Digest", Digest::sha256(bytes).to_string())
                .body(bytes.clone()),
        }
    })
    .await
}

/// An image of one layer: its documents by digest, and the digest of the manifest.
fn image(text: &str) -> (Vec<(String, String, Vec<u8>)>, Digest) {
    let layer = Descriptor::of_bytes(media_type::OCI_LAYER, text.as_bytes());
    let host = oci::Platform::host();
    let config = format!(
        r#"{{"os":"{}","architecture":"{}","rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#,
        host.os, host.architecture, layer.digest
    );
    let config_desc = Descriptor::of_bytes(media_type::OCI_CONFIG, config.as_bytes());
    let json = |desc: &Descriptor| String::from_utf8(gostd::json::to_vec(desc)).unwrap();
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","config":{},"layers":[{}]}}"#,
        media_type::OCI_MANIFEST,
        json(&config_desc),
        json(&layer)
    );
    let root = Digest::sha256(&manifest);
    let documents = [
        (media_type::OCI_LAYER, text.as_bytes().to_vec()),
        (media_type::OCI_CONFIG, config.into_bytes()),
        (media_type::OCI_MANIFEST, manifest.into_bytes()),
    ];
    let documents_by_name =
        documents.map(|(kind, bytes)| (Digest::sha256(&bytes).to_string(), kind.to_owned(), bytes));
    (documents_by_name.into(), root)
}

fn put(documents: &Documents, text: &str) -> Digest {
    let (documents_by_name, root) = image(text);
    let mut documents = documents.lock();
    for (name, kind, bytes) in documents_by_name {
        if name == root.as_str() {
            documents.insert("v1".into(), (kind.clone(), bytes.clone()));
        }
        documents.insert(name, (kind, bytes));
    }
    root
}

fn images(world: &World) -> ImageSource {
    ImageSource::new(world.store.clone(), registry::Client::new(Config::new("t")))
}

async fn image_subject(world: &World) -> Subject {
    let documents = Documents::default();
    put(&documents, "first");
    let fake = Arc::new(serve(&documents).await);
    let reference = format!("{}/a/b:v1", fake.host);
    let (host, counted) = (fake.host.clone(), Arc::clone(&fake));
    Subject {
        name: "image",
        source: Arc::new(images(world)),
        scheme: "docker-image",
        reference: reference.clone(),
        attrs: attrs(&[]),
        ctx: world.alone(),
        change: Box::new(move || {
            put(&documents, "second");
            reference.clone()
        }),
        requests: Some(Box::new(move || counted.lines().len())),
        key_without_origin: false,
        missing: (format!("{host}/a/b:none"), format!("{host}/a/b:none")),
    }
}

async fn pinned_image_subject(world: &World) -> Subject {
    let documents = Documents::default();
    let root = put(&documents, "first");
    let fake = Arc::new(serve(&documents).await);
    let (host, counted) = (fake.host.clone(), Arc::clone(&fake));
    let none = Digest::sha256("none");
    Subject {
        name: "pinned image",
        source: Arc::new(images(world)),
        scheme: "docker-image",
        reference: format!("{host}/a/b@{root}"),
        attrs: attrs(&[]),
        ctx: world.alone(),
        change: Box::new({
            let host = host.clone();
            move || format!("{host}/a/b@{}", put(&documents, "second"))
        }),
        requests: Some(Box::new(move || counted.lines().len())),
        key_without_origin: false,
        missing: (format!("{host}/a/b@{none}"), format!("{host}/a/b@{none}")),
    }
}

async fn blob_subject(world: &World) -> Subject {
    let documents = Documents::default();
    let blob = |documents: &Documents, text: &str| {
        let digest = Digest::sha256(text);
        let kind = "application/octet-stream".to_owned();
        documents
            .lock()
            .insert(digest.to_string(), (kind, text.into()));
        digest
    };
    let first = blob(&documents, "first");
    let fake = Arc::new(serve(&documents).await);
    let (host, counted) = (fake.host.clone(), Arc::clone(&fake));
    let none = Digest::sha256("none");
    Subject {
        name: "blob",
        source: Arc::new(BlobSource::new(world.store.clone(), images(world))),
        scheme: "docker-image+blob",
        reference: format!("{host}/a/b@{first}"),
        attrs: attrs(&[("http.filename", "file")]),
        ctx: world.alone(),
        change: Box::new({
            let host = host.clone();
            move || format!("{host}/a/b@{}", blob(&documents, "second"))
        }),
        requests: Some(Box::new(move || counted.lines().len())),
        key_without_origin: true,
        missing: (format!("{host}/a/b@{none}"), none.to_string()),
    }
}

async fn http_subject(world: &World) -> Subject {
    let documents = Documents::default();
    let page = |documents: &Documents, text: &str| {
        documents
            .lock()
            .insert("page".into(), ("text/plain".into(), text.into()));
    };
    page(&documents, "first");
    let fake = Arc::new(serve(&documents).await);
    let (host, counted) = (fake.host.clone(), Arc::clone(&fake));
    let reference = format!("{host}/dir/page");
    Subject {
        name: "http",
        source: Arc::new(HttpSource::new(world.store.clone(), "t").unwrap()),
        scheme: "http",
        reference: reference.clone(),
        attrs: attrs(&[]),
        ctx: world.alone(),
        change: Box::new(move || {
            page(&documents, "second");
            reference.clone()
        }),
        requests: Some(Box::new(move || counted.lines().len())),
        key_without_origin: false,
        missing: (format!("{host}/none"), "404".into()),
    }
}

fn layout_subject(world: &mut World) -> Subject {
    let dir = world.folder("layout");
    let write_image = |dir: &PathBuf, text: &str| {
        let (documents, root) = image(text);
        for (name, _, bytes) in documents {
            let file = dir.join(name.trim_start_matches("sha256:"));
            std::fs::write(file, bytes).unwrap();
        }
        root
    };
    let root = write_image(&dir, "first");
    let ctx = world.connect(Client::new("layouts", &dir));
    let none = Digest::sha256("none");
    Subject {
        name: "oci-layout",
        source: Arc::new(OciLayoutSource::new(world.store.clone())),
        scheme: "oci-layout",
        reference: format!("not/real@{root}"),
        attrs: attrs(&[("oci.session", "layouts"), ("oci.store", "layout")]),
        ctx,
        change: Box::new(move || format!("not/real@{}", write_image(&dir, "second"))),
        requests: None,
        key_without_origin: false,
        missing: (format!("not/real@{none}"), none.to_string()),
    }
}

fn local_subject(world: &mut World) -> Subject {
    let dir = world.folder("context");
    write(dir.join("file"), "first");
    let ctx = world.connect(Client::new("folders", &dir));
    Subject {
        name: "local",
        source: Arc::new(LocalSource::new(world.store.clone())),
        scheme: "local",
        reference: "context".into(),
        attrs: attrs(&[("local.session", "folders")]),
        ctx,
        change: Box::new(move || {
            write(dir.join("file"), "second, longer");
            "context".into()
        }),
        requests: None,
        // The key names the session and the options; what is in the folder is found when it is read.
        key_without_origin: true,
        missing: (String::new(), String::new()),
    }
}

async fn git_subject(world: &World) -> Subject {
    let served = crate::git_hosts::plain_repository(world);
    let (host, requests) = crate::git_hosts::serve(served, None).await;
    let work = world.dir.path().join("work");
    let bare = world.dir.path().join("served/r.git");
    let remote = format!("http://{host}/r.git");
    let reference = format!("{host}/r.git#main");
    Subject {
        name: "git",
        source: Arc::new(crate::git_hosts::source(world, Arc::new(HostGit))),
        scheme: "git",
        reference: reference.clone(),
        attrs: attrs(&[("git.fullurl", &remote)]),
        ctx: world.alone(),
        change: Box::new(move || {
            write(work.join("a.txt"), "two");
            crate::git::git(&work, &["commit", "-qam", "second"]);
            crate::git::git(&work, &["push", "-q", &bare.to_string_lossy(), "HEAD:main"]);
            crate::git::git(&bare, &["update-server-info"]);
            reference.clone()
        }),
        requests: Some(Box::new(move || requests.lock().len())),
        key_without_origin: false,
        missing: (
            format!("{host}/r.git#none"),
            "repository does not contain ref none".into(),
        ),
    }
}

async fn subjects(world: &mut World) -> Vec<Subject> {
    let mut out = vec![layout_subject(world), local_subject(world)];
    out.push(image_subject(world).await);
    out.push(pinned_image_subject(world).await);
    out.push(blob_subject(world).await);
    out.push(http_subject(world).await);
    if testkit::skip::git().is_ok() {
        out.push(git_subject(world).await);
    }
    out
}

async fn key(instance: &Arc<dyn SourceInstance>, ctx: &Context) -> String {
    instance.cache_key(ctx, 0).await.unwrap().key
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_the_same_for_the_same_content_and_another_for_other_content() {
    let Some(mut world) = World::new() else {
        return;
    };
    for subject in subjects(&mut world).await {
        let name = subject.name;
        let instance = subject.instance(&subject.reference);
        let first_key = key(&instance, &subject.ctx).await;
        assert_eq!(
            key(&instance, &subject.ctx).await,
            first_key,
            "{name}: of one instance"
        );
        let second_instance = subject.instance(&subject.reference);
        assert_eq!(
            key(&second_instance, &subject.ctx).await,
            first_key,
            "{name}: of two instances"
        );
        let changed = (subject.change)();
        let changed_instance = subject.instance(&changed);
        if name == "local" {
            assert_eq!(
                key(&changed_instance, &subject.ctx).await,
                first_key,
                "{name}: the content is found when it is read"
            );
        } else {
            assert_ne!(
                key(&changed_instance, &subject.ctx).await,
                first_key,
                "{name}: after a change"
            );
        }
        // What an instance has said stays what it says: its snapshot must be of the same content.
        assert_eq!(
            key(&instance, &subject.ctx).await,
            first_key,
            "{name}: after a change elsewhere"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_the_identifier_gives_costs_no_request_and_a_known_digest_only_one_round() {
    let Some(mut world) = World::new() else {
        return;
    };
    for subject in subjects(&mut world).await {
        let name = subject.name;
        key(&subject.instance(&subject.reference), &subject.ctx).await;
        if subject.key_without_origin {
            assert_eq!(subject.request_count(), 0, "{name}");
        }
        if name == "pinned image" {
            let before = subject.request_count();
            assert!(before > 0, "{name}: the first time the repository is asked");
            key(&subject.instance(&subject.reference), &subject.ctx).await;
            assert_eq!(
                subject.request_count(),
                before,
                "{name}: what it has shown it has shown"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_of_one_key_are_equal_and_a_second_one_costs_no_second_download() {
    let Some(mut world) = World::new() else {
        return;
    };
    for subject in subjects(&mut world).await {
        let name = subject.name;
        // Layers of the images here are no archives: they stay lazy and are not looked into.
        let instance = subject.instance(&subject.reference);
        key(&instance, &subject.ctx).await;
        let first_snapshot = instance.snapshot(&subject.ctx).await.unwrap().unwrap();
        let request_count = subject.request_count();
        let second_snapshot = instance.snapshot(&subject.ctx).await.unwrap().unwrap();
        assert_eq!(
            first_snapshot.chain().len(),
            second_snapshot.chain().len(),
            "{name}"
        );
        if !["blob"].contains(&name) {
            assert_eq!(
                subject.request_count(),
                request_count,
                "{name}: the same instance"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_an_error_that_names_it_and_can_be_there_later() {
    let Some(mut world) = World::new() else {
        return;
    };
    for subject in subjects(&mut world).await {
        let (name, (reference, named_part)) = (subject.name, &subject.missing);
        if reference.is_empty() {
            continue;
        }
        let instance = subject.instance(reference);
        let error = match instance.cache_key(&subject.ctx, 0).await {
            Err(error) => error,
            Ok(_) => instance.snapshot(&subject.ctx).await.unwrap_err(),
        };
        assert!(
            error.to_string().contains(named_part.as_str()),
            "{name}: {error}"
        );
        assert_eq!(
            oci::error::chain(&error),
            error.to_string(),
            "{name}: no cause is said twice"
        );
        // A failure is not remembered: the good one still works.
        key(&subject.instance(&subject.reference), &subject.ctx).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_is_dropped_leaves_nothing_that_a_later_one_would_notice() {
    let Some(mut world) = World::new() else {
        return;
    };
    for subject in subjects(&mut world).await {
        let name = subject.name;
        let instance = subject.instance(&subject.reference);
        drop(instance.cache_key(&subject.ctx, 0).now_or_never());
        let first_key = key(&instance, &subject.ctx).await;
        drop(instance.snapshot(&subject.ctx).now_or_never());
        assert!(
            instance.snapshot(&subject.ctx).await.unwrap().is_some(),
            "{name}"
        );
        assert_eq!(key(&instance, &subject.ctx).await, first_key, "{name}");
    }
}

/// A source, a scheme, a reference and attributes, and how the refusal begins.
type Refused<'a> = (
    &'a dyn Source,
    &'a str,
    &'a str,
    &'a [(&'a str, &'a str)],
    &'a str,
);

#[tokio::test(flavor = "multi_thread")]
async fn identifiers_that_make_no_sense_are_refused_before_anybody_is_asked() {
    let Some(world) = World::new() else { return };
    let images = images(&world);
    let http = HttpSource::new(world.store.clone(), "t").unwrap();
    let local = LocalSource::new(world.store.clone());
    let blobs = BlobSource::new(world.store.clone(), images.clone());
    let layouts = OciLayoutSource::new(world.store.clone());
    let digest = Digest::sha256("x");
    let pinned = format!("h.example/a@{digest}");
    let cases: Vec<Refused<'_>> = vec![
        (
            &images,
            "docker-image",
            "busybox",
            &[],
            "busybox: object required",
        ),
        (
            &images,
            "docker-image",
            "h.example/a",
            &[],
            "h.example/a: object required",
        ),
        (
            &images,
            "docker-image",
            "h.example/../a:v1",
            &[],
            "h.example/../a:v1: invalid reference",
        ),
        (
            &images,
            "docker-image",
            "h.example/a:v1",
            &[("image.resolvemode", "x")],
            "invalid resolvemode: x",
        ),
        (
            &images,
            "docker-image",
            "h.example/a:v1",
            &[("image.recordtype", "x")],
            "invalid record type x",
        ),
        (
            &images,
            "docker-image",
            "h.example/a:v1",
            &[("image.layerlimit", "0")],
            "invalid layer limit 0",
        ),
        (
            &images,
            "docker-image",
            "h.example/a:v1",
            &[("image.layerlimit", "-1")],
            "invalid layer limit -1",
        ),
        (
            &images,
            "docker-image",
            "h.example/a:v1",
            &[("image.checksum", "x")],
            "invalid image checksum x: ",
        ),
        (
            &layouts,
            "oci-layout",
            "a/b@sha256:x",
            &[],
            "invalid digest of reference sha256:x: ",
        ),
        (
            &layouts,
            "oci-layout",
            "a/b:v1",
            &[("oci.layerlimit", "x")],
            "invalid layer limit x",
        ),
        (&blobs, "oci-layout+blob", &pinned, &[], ""),
        (&blobs, "docker-image+blob", "h.example/a:v1", &[], ""),
        (
            &http,
            "http",
            "h.example/a",
            &[("http.checksum", "x")],
            "invalid http checksum x: ",
        ),
        (
            &http,
            "http",
            "h.example/a",
            &[("http.perm", "9z")],
            "strconv.ParseInt: parsing \"9z\": invalid syntax",
        ),
        (
            &http,
            "http",
            "h.example/a",
            &[("http.uid", "")],
            "strconv.ParseInt: parsing \"\": invalid syntax",
        ),
        (
            &http,
            "http",
            "h.example/a",
            &[("http.sig.pubkey", "x")],
            "http signature verification requires both pubkey and signature",
        ),
        (
            &local,
            "local",
            "c",
            &[("local.includepattern", "x")],
            "local.includepattern: expected value",
        ),
        (
            &local,
            "local",
            "c",
            &[("local.followpaths", "{}")],
            "local.followpaths: invalid type: map",
        ),
    ];
    for (source, scheme, reference, list, words) in cases {
        let result = source.resolve(scheme, reference, &attrs(list), None);
        if words.is_empty() {
            // Whether it can be read is decided with the attributes that say where.
            continue;
        }
        let error = result.map(drop).unwrap_err();
        assert!(
            error.to_string().starts_with(words),
            "{scheme}://{reference} {list:?}: {error}"
        );
        assert!(
            matches!(
                error.kind(),
                oci::ErrorKind::Invalid | oci::ErrorKind::Unsupported
            ),
            "{error}"
        );
    }
}

#[test]
fn a_scheme_that_nobody_reads_is_named() {
    let sources = source::Sources::new();
    for (identifier, words) in [
        ("nothing", "failed to parse nothing: invalid"),
        ("ftp://h.example/a", "unknown scheme ftp: not found"),
        ("://x", "unknown scheme : not found"),
    ] {
        let error = sources
            .resolve(identifier, &BTreeMap::new(), None)
            .map(drop)
            .unwrap_err();
        assert_eq!(error.to_string(), words);
    }
}
