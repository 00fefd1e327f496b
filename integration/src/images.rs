//! Stand-ins for the images that the suites and the examples take from a registry, made of Debian's packages.
//!
//! The same packages give the same bytes: files are dated [`CREATED`], packed in order and compressed without a date.

mod debian;
mod rootfs;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use oci::{Descriptor, Digest};
use serde_json::{Value, json};

use crate::mirror::Mirror;
use crate::paths;
use crate::process::{Error, at, is_root, run as run_command};

/// When the images say they were made; in the past, as those of a registry are.
const CREATED: &str = "2024-05-01T00:00:00Z";
const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
const DOCKER_FOREIGN_LAYER: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// One image to make: its names and how.
struct Image {
    repository: &'static str,
    tags: &'static [&'static str],
    make: fn(&Maker, &str) -> Result<Vec<u8>, Error>,
}

const IMAGES: &[Image] = &[
    Image {
        repository: "library/busybox",
        tags: &["latest", "stable-musl", "musl", "1.36"],
        make: busybox,
    },
    Image {
        repository: "library/alpine",
        tags: &["latest"],
        make: alpine,
    },
    Image {
        repository: "tonistiigi/test",
        tags: &["nolayers"],
        make: no_layers,
    },
    Image {
        repository: "cpuguy83/buildkit-foreign",
        tags: &["latest"],
        make: foreign,
    },
    Image {
        repository: "tonistiigi/hellofs",
        tags: &["latest"],
        make: hellofs,
    },
    Image {
        repository: "docker/dockerfile-upstream",
        tags: &["1.18.0", "master"],
        make: dockerfile,
    },
    Image {
        repository: "docker/dockerfile",
        tags: &["1"],
        make: dockerfile,
    },
    Image {
        repository: "library/debian",
        tags: &["bookworm-slim"],
        make: debian_slim,
    },
    Image {
        repository: "amd64/debian",
        tags: &["bullseye-20230109-slim"],
        make: debian_slim,
    },
    Image {
        repository: "library/python",
        tags: &["3.11-slim"],
        make: python,
    },
    Image {
        repository: "rbuild/fetchers",
        tags: &["1"],
        make: fetchers,
    },
];

/// Where images are made and put.
struct Maker {
    mirror: Mirror,
    work: PathBuf,
}

/// A packed layer: its blob and the digest of what is in it.
struct Layer {
    blob: Descriptor,
    diff_id: Digest,
}

/// Makes the images that are not there.
pub(crate) fn run() -> Result<(), Error> {
    let maker = Maker {
        mirror: Mirror::new(&paths::mirror().join("data")),
        work: paths::cache().join("images/.work"),
    };
    fs::create_dir_all(&maker.work).map_err(at("making", &maker.work))?;
    for image in IMAGES {
        let missing: Vec<&str> = image
            .tags
            .iter()
            .copied()
            .filter(|tag| !maker.mirror.has(image.repository, tag))
            .collect();
        if missing.is_empty() {
            continue;
        }
        if !is_root() {
            return Err(Error::Missing {
                what: image.repository.to_owned(),
                remedy: "run `rbuild-integration images` as root: files in images belong to several users".to_owned(),
            });
        }
        let manifest = (image.make)(&maker, image.repository)?;
        for tag in missing {
            let digest = maker.mirror.tag(image.repository, tag, &manifest)?;
            println!("{}:{tag} {digest}", image.repository);
        }
    }
    println!("images are in {}", paths::mirror().display());
    Ok(())
}

impl Maker {
    /// Returns an empty folder for a root file system.
    fn fresh(&self, name: &str) -> Result<PathBuf, Error> {
        let dir = self.work.join(name);
        if dir.exists() {
            fs::remove_dir_all(&dir).map_err(at("emptying", &dir))?;
        }
        fs::create_dir_all(&dir).map_err(at("making", &dir))?;
        Ok(dir)
    }

    /// Packs all that is in `root` as a layer of `repository`.
    fn pack(&self, repository: &str, root: &Path, media_type: &str) -> Result<Layer, Error> {
        let tar = self.work.join(format!("layer-{}.tar", std::process::id()));
        let mut names: Vec<_> = fs::read_dir(root)
            .and_then(|entries| {
                entries
                    .map(|e| e.map(|e| e.file_name()))
                    .collect::<Result<Vec<_>, _>>()
            })
            .map_err(at("reading", root))?;
        names.sort();
        run_command(
            Command::new("tar")
                .args([
                    "--sort=name",
                    "--numeric-owner",
                    "--format=pax",
                    "--pax-option=delete=atime,delete=ctime",
                ])
                .arg(format!("--mtime={CREATED}"))
                .arg("-C")
                .arg(root)
                .arg("-cf")
                .arg(&tar)
                .arg("--")
                .args(&names),
        )?;
        let file = fs::File::open(&tar).map_err(at("opening", &tar))?;
        let (diff_id, _) = oci::Digester::of_reader(file).map_err(at("reading", &tar))?;
        run_command(Command::new("gzip").args(["-n", "-6", "-f"]).arg(&tar))?;
        let blob = self
            .mirror
            .put_file(repository, media_type, &tar.with_extension("tar.gz"))?;
        Ok(Layer { blob, diff_id })
    }

    /// Writes an OCI image's config and returns its manifest.
    fn oci(&self, repository: &str, layers: &[Layer], config: &Value) -> Result<Vec<u8>, Error> {
        let config = image_config(layers, config);
        let config = self.mirror.put(
            repository,
            oci::media_type::OCI_CONFIG,
            &gostd::json::to_vec(&config),
        )?;
        Ok(manifest(oci::media_type::OCI_MANIFEST, &config, layers))
    }

    /// Writes a Docker schema 2 image's config and returns its manifest.
    fn docker(&self, repository: &str, layers: &[Layer], config: &Value) -> Result<Vec<u8>, Error> {
        let config = image_config(layers, config);
        let config = self.mirror.put(
            repository,
            oci::media_type::DOCKER_CONFIG,
            &gostd::json::to_vec(&config),
        )?;
        Ok(manifest(oci::media_type::DOCKER_MANIFEST, &config, layers))
    }
}

fn image_config(layers: &[Layer], config: &Value) -> Value {
    let history: Vec<Value> = layers
        .iter()
        .map(|_| json!({"created": CREATED, "created_by": "rbuild-integration images"}))
        .collect();
    json!({
        "created": CREATED,
        "architecture": oci::Platform::host().architecture,
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": layers.iter().map(|l| l.diff_id.as_str()).collect::<Vec<_>>()},
        "history": history,
    })
}

fn manifest(media_type: &str, config: &Descriptor, layers: &[Layer]) -> Vec<u8> {
    gostd::json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": config,
        "layers": layers.iter().map(|l| &l.blob).collect::<Vec<_>>(),
    }))
}

fn busybox(maker: &Maker, repository: &str) -> Result<Vec<u8>, Error> {
    let root = maker.fresh("busybox")?;
    rootfs::busybox(&root)?;
    let layer = maker.pack(repository, &root, OCI_LAYER)?;
    maker.oci(repository, &[layer], &json!({"Env": [PATH], "Cmd": ["sh"]}))
}

fn alpine(maker: &Maker, repository: &str) -> Result<Vec<u8>, Error> {
    let root = maker.fresh("alpine")?;
    rootfs::busybox(&root)?;
    rootfs::alpine(&root)?;
    let layer = maker.pack(repository, &root, OCI_LAYER)?;
    maker.oci(
        repository,
        &[layer],
        &json!({"Env": [PATH], "Cmd": ["/bin/sh"], "WorkingDir": "/"}),
    )
}

fn no_layers(maker: &Maker, repository: &str) -> Result<Vec<u8>, Error> {
    maker.docker(repository, &[], &json!({"Env": [PATH]}))
}

fn foreign(maker: &Maker, repository: &str) -> Result<Vec<u8>, Error> {
    let root = maker.fresh("foreign")?;
    rootfs::file(&root.join("foreign"), "the first layer\n", 0o644)?;
    let mut first = maker.pack(repository, &root, DOCKER_FOREIGN_LAYER)?;
    // No one fetches from there as long as the registry has the blob itself.
    first.blob.urls = vec![format!(
        "https://foreign.invalid/blobs/{}",
        first.blob.digest
    )];
    let root = maker.fresh("foreign")?;
    rootfs::file(&root.join("ordinary"), "the second layer\n", 0o644)?;
    let second = maker.pack(repository, &root, DOCKER_LAYER)?;
    maker.docker(
        repository,
        &[first, second],
        &json!({"Env": [PATH], "Cmd": ["sh"]}),
    )
}

fn hellofs(maker: &Maker, repository: &str) -> Result<Vec<u8>, Error> {
    let root = maker.fresh("hellofs")?;
    rootfs::file(&root.join("hellofs"), "#!/bin/sh\necho hello\n", 0o755)?;
    let layer = maker.pack(repository, &root, OCI_LAYER)?;
    maker.oci(
        repository,
        &[layer],
        &json!({"Env": [PATH], "Entrypoint": ["/hellofs"]}),
    )
}

fn dockerfile(maker: &Maker, repository: &str) -> Result<Vec<u8>, Error> {
    let program = paths::Module::find()?.tools().join("dockerfile-frontend");
    if !program.is_file() {
        return Err(Error::Missing {
            what: "dockerfile-frontend".to_owned(),
            remedy: "run `rbuild-integration setup`".to_owned(),
        });
    }
    let root = maker.fresh("dockerfile")?;
    rootfs::folder(&root.join("bin"), 0o755)?;
    let target = root.join("bin/dockerfile-frontend");
    fs::copy(&program, &target).map_err(at("copying", &program))?;
    let layer = maker.pack(repository, &root, OCI_LAYER)?;
    maker.oci(repository, &[layer], &json!({
        "Env": [PATH],
        "Entrypoint": ["/bin/dockerfile-frontend"],
        "Labels": {
            "moby.buildkit.frontend.network.none": "true",
            "moby.buildkit.frontend.caps":
                "moby.buildkit.frontend.inputs,moby.buildkit.frontend.subrequests,moby.buildkit.frontend.contexts",
        },
    }))
}

fn debian_slim(maker: &Maker, repository: &str) -> Result<Vec<u8>, Error> {
    let root = debian::base(&maker.work)?;
    let layer = maker.pack(repository, &root, OCI_LAYER)?;
    maker.oci(
        repository,
        &[layer],
        &json!({"Env": [PATH], "Cmd": ["bash"]}),
    )
}

fn python(maker: &Maker, repository: &str) -> Result<Vec<u8>, Error> {
    let root = debian::python(&maker.work)?;
    let layer = maker.pack(repository, &root, OCI_LAYER)?;
    maker.oci(
        repository,
        &[layer],
        &json!({"Env": [PATH, "LANG=C.UTF-8"], "Cmd": ["python3"]}),
    )
}

fn fetchers(maker: &Maker, repository: &str) -> Result<Vec<u8>, Error> {
    let root = debian::fetchers(&maker.work)?;
    let layer = maker.pack(repository, &root, OCI_LAYER)?;
    maker.oci(
        repository,
        &[layer],
        &json!({"Env": [PATH, "HOME=/root"], "Cmd": ["bash"]}),
    )
}
