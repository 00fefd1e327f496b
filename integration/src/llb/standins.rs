//! Images that have a config and name a layer that nobody fetches, under the names that people build on.

use std::path::Path;

use serde_json::{Value, json};

use crate::mirror::Mirror;
use crate::process::Error;

const CREATED: &str = "2024-05-01T00:00:00Z";
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// One manifest of this machine's architecture, or an index of several.
const ONE: &[&str] = &[""];
const MANY: &[&str] = &["linux/amd64", "linux/arm64", "linux/arm/v7"];
const WINDOWS: &[&str] = &["windows/amd64"];

type Image = (
    &'static str,
    &'static [&'static str],
    &'static [&'static str],
    fn() -> Value,
);

/// Repository, tags, platforms, config.
const IMAGES: &[Image] = &[
    (
        "library/busybox",
        &["latest", "1.36", "musl"],
        MANY,
        || json!({"Env": [PATH], "Cmd": ["sh"]}),
    ),
    (
        "library/alpine",
        &["latest", "3.20", "edge"],
        MANY,
        || json!({"Env": [PATH], "Cmd": ["/bin/sh"], "WorkingDir": "/"}),
    ),
    (
        "library/debian",
        &["latest", "bookworm", "bookworm-slim", "bullseye-slim"],
        MANY,
        || json!({"Env": [PATH], "Cmd": ["bash"]}),
    ),
    (
        "library/ubuntu",
        &["latest", "22.04", "24.04"],
        MANY,
        || json!({"Env": [PATH], "Cmd": ["/bin/bash"], "Labels": {"org.opencontainers.image.ref.name": "ubuntu"}}),
    ),
    (
        "library/buildpack-deps",
        &["bookworm"],
        MANY,
        || json!({"Env": [PATH], "Cmd": ["bash"]}),
    ),
    (
        "library/node",
        &["latest", "22", "22-alpine", "20-bookworm-slim"],
        MANY,
        || {
            json!({
                "Env": [PATH, "NODE_VERSION=22.11.0", "YARN_VERSION=1.22.22"],
                "Entrypoint": ["docker-entrypoint.sh"],
                "Cmd": ["node"],
            })
        },
    ),
    (
        "library/golang",
        &["latest", "1.23", "1.23-alpine"],
        MANY,
        || {
            json!({
                "Env": ["PATH=/go/bin:/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "GOLANG_VERSION=1.23.4", "GOTOOLCHAIN=local", "GOPATH=/go"],
                "Cmd": ["bash"],
                "WorkingDir": "/go",
            })
        },
    ),
    (
        "library/rust",
        &["latest", "1.83", "1.83-slim", "1-alpine"],
        MANY,
        || {
            json!({
                "Env": ["PATH=/usr/local/cargo/bin:/usr/local/bin:/usr/bin:/bin", "RUSTUP_HOME=/usr/local/rustup", "CARGO_HOME=/usr/local/cargo", "RUST_VERSION=1.83.0"],
                "Cmd": ["bash"],
            })
        },
    ),
    (
        "library/python",
        &["latest", "3.12", "3.12-slim", "3.12-alpine"],
        MANY,
        || {
            json!({
                "Env": [PATH, "LANG=C.UTF-8", "PYTHON_VERSION=3.12.7", "GPG_KEY=7169605F62C751356D054A26A821E680E5FA6305"],
                "Cmd": ["python3"],
            })
        },
    ),
    ("library/ruby", &["3.3-slim", "3.3-alpine"], MANY, || {
        json!({
            "Env": ["PATH=/usr/local/bundle/bin:/usr/local/bin:/usr/bin:/bin", "LANG=C.UTF-8", "GEM_HOME=/usr/local/bundle", "BUNDLE_SILENCE_ROOT_WARNING=1"],
            "Cmd": ["irb"],
        })
    }),
    (
        "library/php",
        &["8.3-cli", "8.3-apache", "8.3-fpm-alpine"],
        MANY,
        || {
            json!({
                "Env": [PATH, "PHP_INI_DIR=/usr/local/etc/php", "PHP_CFLAGS=-fstack-protector-strong -fpic -fpie -O2"],
                "Entrypoint": ["docker-php-entrypoint"],
                "Cmd": ["php", "-a"],
                "WorkingDir": "/var/www/html",
                "ExposedPorts": {"9000/tcp": {}},
                "StopSignal": "SIGQUIT",
            })
        },
    ),
    (
        "library/composer",
        &["2"],
        MANY,
        || json!({"Env": [PATH, "COMPOSER_HOME=/tmp"], "Entrypoint": ["/docker-entrypoint.sh"], "Cmd": ["composer"], "WorkingDir": "/app"}),
    ),
    (
        "library/eclipse-temurin",
        &["21-jdk", "21-jre-alpine", "17-jre"],
        MANY,
        || {
            json!({
                "Env": ["JAVA_HOME=/opt/java/openjdk", "PATH=/opt/java/openjdk/bin:/usr/local/bin:/usr/bin:/bin", "LANG=en_US.UTF-8"],
                "Entrypoint": ["/__cacert_entrypoint.sh"],
                "Cmd": ["jshell"],
            })
        },
    ),
    (
        "library/maven",
        &["3.9-eclipse-temurin-21"],
        MANY,
        || json!({"Env": [PATH, "MAVEN_HOME=/usr/share/maven", "MAVEN_CONFIG=/root/.m2"], "Entrypoint": ["/usr/local/bin/mvn-entrypoint.sh"], "Cmd": ["mvn"]}),
    ),
    (
        "library/gradle",
        &["8-jdk21"],
        ONE,
        || json!({"Env": [PATH, "GRADLE_HOME=/opt/gradle"], "Cmd": ["gradle"], "Volumes": {"/home/gradle/.gradle": {}}, "WorkingDir": "/home/gradle"}),
    ),
    (
        "library/nginx",
        &["latest", "alpine", "1.27-alpine"],
        MANY,
        || {
            json!({
                "Env": [PATH, "NGINX_VERSION=1.27.2", "NJS_VERSION=0.8.6"],
                "Entrypoint": ["/docker-entrypoint.sh"],
                "Cmd": ["nginx", "-g", "daemon off;"],
                "ExposedPorts": {"80/tcp": {}},
                "Labels": {"maintainer": "somebody <somebody@example.com>"},
                "StopSignal": "SIGQUIT",
            })
        },
    ),
    (
        "library/httpd",
        &["2.4-alpine"],
        MANY,
        || json!({"Env": [PATH, "HTTPD_PREFIX=/usr/local/apache2"], "Cmd": ["httpd-foreground"], "WorkingDir": "/usr/local/apache2", "ExposedPorts": {"80/tcp": {}}, "StopSignal": "SIGWINCH"}),
    ),
    ("library/postgres", &["16", "16-alpine"], MANY, || {
        json!({
            "Env": [PATH, "PGDATA=/var/lib/postgresql/data", "PG_MAJOR=16"],
            "Entrypoint": ["docker-entrypoint.sh"],
            "Cmd": ["postgres"],
            "ExposedPorts": {"5432/tcp": {}},
            "Volumes": {"/var/lib/postgresql/data": {}},
            "StopSignal": "SIGINT",
        })
    }),
    (
        "library/redis",
        &["7-alpine"],
        MANY,
        || json!({"Env": [PATH, "REDIS_VERSION=7.4.1"], "Entrypoint": ["docker-entrypoint.sh"], "Cmd": ["redis-server"], "WorkingDir": "/data", "Volumes": {"/data": {}}, "ExposedPorts": {"6379/tcp": {}}}),
    ),
    (
        "library/elixir",
        &["1.17-alpine"],
        ONE,
        || json!({"Env": [PATH, "LANG=C.UTF-8"], "Cmd": ["iex"]}),
    ),
    (
        "library/hello-world",
        &["latest"],
        ONE,
        || json!({"Cmd": ["/hello"], "Env": [PATH]}),
    ),
    (
        "library/docker",
        &["27-cli"],
        MANY,
        || json!({"Env": [PATH, "DOCKER_VERSION=27.3.1"], "Entrypoint": ["docker-entrypoint.sh"], "Cmd": ["sh"]}),
    ),
    ("library/bare", &["latest"], ONE, || json!({})),
    ("library/healthy", &["latest"], MANY, || {
        json!({
            "Env": [PATH, "EMPTY=", "SPACED=two words"],
            "User": "1000:1000",
            "WorkingDir": "/srv/app",
            "Healthcheck": {"Test": ["CMD", "curl", "-f", "http://localhost/"], "Interval": 30_000_000_000_u64, "Retries": 3},
            "Shell": ["/bin/bash", "-eo", "pipefail", "-c"],
            "Labels": {"a": "1", "b": "two"},
            "ArgsEscaped": true,
        })
    }),
    (
        "nvidia/cuda",
        &["12.4.1-devel-ubuntu22.04", "12.4.1-runtime-ubuntu22.04"],
        &["linux/amd64", "linux/arm64"],
        || {
            json!({
                "Env": ["PATH=/usr/local/nvidia/bin:/usr/local/cuda/bin:/usr/local/bin:/usr/bin:/bin", "NVIDIA_VISIBLE_DEVICES=all", "LD_LIBRARY_PATH=/usr/local/nvidia/lib:/usr/local/nvidia/lib64"],
                "Entrypoint": ["/opt/nvidia/nvidia_entrypoint.sh"],
            })
        },
    ),
    ("tonistiigi/xx", &["1.5.0"], MANY, || json!({"Env": [PATH]})),
    (
        "distroless/static-debian12",
        &["latest", "nonroot"],
        MANY,
        || json!({"Env": [PATH, "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt"], "User": "65532", "WorkingDir": "/home/nonroot"}),
    ),
    (
        "dotnet/sdk",
        &["8.0"],
        MANY,
        || json!({"Env": [PATH, "DOTNET_VERSION=8.0.11"], "Cmd": ["bash"]}),
    ),
    (
        "dotnet/aspnet",
        &["8.0"],
        MANY,
        || json!({"Env": [PATH, "ASPNETCORE_HTTP_PORTS=8080", "APP_UID=1654"]}),
    ),
    (
        "astral-sh/uv",
        &["0.5"],
        MANY,
        || json!({"Entrypoint": ["/uv"], "WorkingDir": "/io"}),
    ),
    (
        "windows/nanoserver",
        &["ltsc2022"],
        WINDOWS,
        || json!({"Env": ["PATH=C:\\Windows\\system32;C:\\Windows"], "Cmd": ["c:\\windows\\system32\\cmd.exe"], "User": "ContainerUser"}),
    ),
    ("onbuild/node", &["latest"], MANY, || {
        json!({
            "Env": [PATH],
            "WorkingDir": "/usr/src/app",
            "Cmd": ["npm", "start"],
            "OnBuild": ["ARG NODE_ENV", "ENV NODE_ENV $NODE_ENV", "COPY package.json /usr/src/app/", "RUN npm install && npm cache clean --force", "COPY . /usr/src/app"],
        })
    }),
    ("onbuild/python", &["latest"], MANY, || {
        json!({
            "Env": [PATH], "OnBuild": ["COPY requirements.txt /app/", "RUN --mount=type=cache,target=/root/.cache/pip pip install -r /app/requirements.txt"],
        })
    }),
    (
        "onbuild/from",
        &["latest"],
        MANY,
        || json!({"Env": [PATH], "OnBuild": ["COPY --from=alpine:3.20 /etc/alpine-release /release", "RUN --mount=from=busybox:latest,target=/b ls /b"]}),
    ),
    (
        "onbuild/stage",
        &["latest"],
        MANY,
        || json!({"Env": [PATH], "OnBuild": ["COPY --from=assets /out /in"]}),
    ),
    (
        "onbuild/config",
        &["latest"],
        MANY,
        || json!({"Env": [PATH], "OnBuild": ["USER app", "WORKDIR sub", "LABEL built=yes", "EXPOSE 81", "ENTRYPOINT [\"run\"]"]}),
    ),
    (
        "onbuild/bad",
        &["latest"],
        ONE,
        || json!({"Env": [PATH], "OnBuild": ["FROM alpine"]}),
    ),
    (
        "onbuild/unknown",
        &["latest"],
        ONE,
        || json!({"Env": [PATH], "OnBuild": ["RUNN x"]}),
    ),
];

/// Writes all of them into the storage of a registry in `folder`.
pub(super) fn make(folder: &Path) -> Result<(), Error> {
    let mirror = Mirror::new(&folder.join("data"));
    for (repository, tags, platforms, config) in IMAGES {
        let mut manifests = Vec::new();
        for platform in *platforms {
            let bytes = manifest(&mirror, repository, platform, &config())?;
            if platform.is_empty() {
                name(&mirror, repository, tags, &bytes)?;
                continue;
            }
            let digest = mirror.tag(repository, &platform.replace('/', "-"), &bytes)?;
            manifests.push(json!({
                "mediaType": oci::media_type::OCI_MANIFEST,
                "digest": digest.as_str(),
                "size": bytes.len(),
                "platform": described(platform),
            }));
        }
        if !manifests.is_empty() {
            let index = json!({
                "schemaVersion": 2,
                "mediaType": "application/vnd.oci.image.index.v1+json",
                "manifests": manifests,
            });
            name(&mirror, repository, tags, &gostd::json::to_vec(&index))?;
        }
    }
    Ok(())
}

fn name(mirror: &Mirror, repository: &str, tags: &[&str], bytes: &[u8]) -> Result<(), Error> {
    for tag in tags {
        mirror.tag(repository, tag, bytes)?;
    }
    Ok(())
}

/// The fields of a platform, as configs and indexes have them.
fn described(platform: &str) -> Value {
    let mut parts = platform.split('/');
    let mut fields = json!({"os": parts.next(), "architecture": parts.next()});
    if let (Some(variant), Some(fields)) = (parts.next(), fields.as_object_mut()) {
        fields.insert("variant".to_owned(), variant.into());
    }
    if platform.starts_with("windows")
        && let Some(fields) = fields.as_object_mut()
    {
        fields.insert("os.version".to_owned(), "10.0.20348.2849".into());
    }
    fields
}

fn manifest(
    mirror: &Mirror,
    repository: &str,
    platform: &str,
    config: &Value,
) -> Result<Vec<u8>, Error> {
    // Nobody fetches a layer, so none is there. Only two images have nothing at all.
    let layers = if matches!(repository, "library/bare" | "library/hello-world") {
        Vec::new()
    } else {
        let digest = oci::Digest::sha256(format!("{repository} {platform}").as_bytes());
        vec![oci::Descriptor::new(
            "application/vnd.oci.image.layer.v1.tar",
            digest,
            1024,
        )]
    };
    let host = format!("linux/{}", oci::Platform::host().architecture);
    let mut whole = described(if platform.is_empty() { &host } else { platform });
    if let Some(whole) = whole.as_object_mut() {
        let ids: Vec<&str> = layers.iter().map(|layer| layer.digest.as_str()).collect();
        let history =
            json!([{"created": CREATED, "created_by": "base", "empty_layer": layers.is_empty()}]);
        whole.insert("created".to_owned(), CREATED.into());
        whole.insert("config".to_owned(), config.clone());
        whole.insert(
            "rootfs".to_owned(),
            json!({"type": "layers", "diff_ids": ids}),
        );
        whole.insert("history".to_owned(), history);
    }
    let config = mirror.put(
        repository,
        oci::media_type::OCI_CONFIG,
        &gostd::json::to_vec(&whole),
    )?;
    Ok(gostd::json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": oci::media_type::OCI_MANIFEST,
        "config": config,
        "layers": layers,
    })))
}
