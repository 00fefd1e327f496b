//! Steps on the proxy network.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::daemon::{Daemon, Setting};
use super::rig::{Rig, Trouble, Verdict, ensure};
use super::{Case, On};
use crate::process::{at, need, run};

pub(super) const CASES: &[Case] = &[
    Case {
        sentence: "pip, apt and programs of Python install from mirrors over TLS by the proxy network, and nothing of its certificate stays in the image",
        on: On::Ours("the reference's steps do not find its certificate (moby/buildkit#7186)"),
        run: package_managers,
    },
    Case {
        sentence: "npm, cargo, git, curl and programs of node fetch from mirrors over TLS by the proxy network",
        on: On::Ours("the reference's steps do not find its certificate (moby/buildkit#7186)"),
        run: fetchers,
    },
    Case {
        sentence: "programs of Java fetch from a mirror over TLS by the proxy network",
        on: On::Ours("the reference's steps do not find its certificate (moby/buildkit#7186)"),
        run: java,
    },
    Case {
        sentence: "a step on the proxy network reaches nothing but its proxy, and by it no host that is not allowed and no metadata service",
        on: On::Ours("the reference has no list of allowed hosts"),
        run: attacks,
    },
];

/// What a mirror is called, by its own proxy alone; npm takes no certificate of an address through a proxy.
const NAME: &str = "mirror.test";

/// Serves the files of a folder until dropped.
struct Mirror {
    child: Child,
    address: String,
    /// The URL of a proxy to it, which connects for [`NAME`] and for nothing else.
    proxy: String,
    certificate: PathBuf,
}

impl Drop for Mirror {
    fn drop(&mut self) {
        let _gone_already = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// The address of this machine that a packet to the outside would have; no packet is sent.
fn own_address() -> Result<String, Trouble> {
    let failed = |error: std::io::Error| Trouble::Skipped(format!("no address: {error}"));
    let socket = UdpSocket::bind(("0.0.0.0", 0)).map_err(failed)?;
    socket.connect(("192.0.2.1", 80)).map_err(failed)?;
    Ok(socket.local_addr().map_err(failed)?.ip().to_string())
}

impl Mirror {
    fn start(rig: &Rig<'_>, files: &Path) -> Result<Self, Trouble> {
        let host = own_address()?;
        let (certificate, key) = (rig.dir.join("mirror.pem"), rig.dir.join("mirror.key"));
        run(Command::new(need("openssl")?)
            .args(["req", "-x509", "-nodes", "-days", "2", "-newkey", "ec"])
            .args(["-pkeyopt", "ec_paramgen_curve:P-256", "-subj", "/CN=mirror"])
            .args(["-addext", "basicConstraints=critical,CA:FALSE", "-addext"])
            .arg(format!("subjectAltName=IP:{host},DNS:{NAME}"))
            .arg("-keyout")
            .arg(&key)
            .arg("-out")
            .arg(&certificate)
            .stderr(Stdio::null()))?;
        let script = rig.dir.join("mirror.py");
        fs::write(&script, include_str!("proxy/mirror.py")).map_err(at("writing", &script))?;
        let mut child = Command::new(need("python3")?)
            .arg(&script)
            .args([files, &certificate, &key])
            .stdout(Stdio::piped())
            .spawn()
            .map_err(at("starting", &script))?;
        let mut ports = String::new();
        if let Some(output) = child.stdout.take() {
            let mut output = BufReader::new(output);
            output
                .read_line(&mut ports)
                .map_err(at("reading the ports of", &script))?;
        }
        let (port, proxy) = ports.trim().split_once(' ').unwrap_or_default();
        Ok(Self {
            child,
            address: format!("{host}:{port}"),
            proxy: format!("http://{host}:{proxy}"),
            certificate,
        })
    }

    /// A daemon that trusts it, with all steps on the proxy network.
    fn daemon<'a>(&self, rig: &'a Rig<'a>, more: &[(&str, &str)]) -> Result<Daemon<'a>, Trouble> {
        let certificate = self.certificate.display().to_string();
        Daemon::with(
            rig,
            Setting {
                args: vec!["--proxy-network".to_owned()],
                env: [("SSL_CERT_FILE", certificate.as_str())]
                    .iter()
                    .chain(more)
                    .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                    .collect(),
                ..Setting::default()
            },
        )
    }
}

/// A wheel and an index that has it, and the empty repository of a distribution.
fn mirrored(rig: &Rig<'_>) -> Result<PathBuf, Trouble> {
    let files = rig.folder("mirror")?;
    let script = rig.dir.join("files.py");
    let text = r#"
import os, sys, zipfile
root = sys.argv[1]
index = os.path.join(root, "simple", "rbuild-probe")
os.makedirs(index)
name = "rbuild_probe-1.0-py3-none-any.whl"
with zipfile.ZipFile(os.path.join(index, name), "w") as wheel:
    wheel.writestr("rbuild_probe.py", "print('PROBE RUNS')\n")
    info = "rbuild_probe-1.0.dist-info/"
    wheel.writestr(info + "METADATA", "Metadata-Version: 2.1\nName: rbuild-probe\nVersion: 1.0\n")
    wheel.writestr(info + "WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    wheel.writestr(info + "RECORD", "")
with open(os.path.join(index, "index.html"), "w") as page:
    page.write('<a href="%s">%s</a>' % (name, name))
packages = os.path.join(root, "debian")
os.makedirs(packages)
open(os.path.join(packages, "Packages"), "w").close()
with open(os.path.join(packages, "Release"), "w") as release:
    release.write("Suite: probe\nSHA256:\n e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 0 Packages\n")
with open(os.path.join(root, "text"), "w") as text:
    text.write("TEXT OF THE MIRROR\n")
"#;
    fs::write(&script, text).map_err(at("writing", &script))?;
    run(Command::new(need("python3")?).arg(&script).arg(&files))?;
    Ok(files)
}

fn package_managers(rig: &Rig<'_>) -> Verdict {
    let mirror = Mirror::start(rig, &mirrored(rig)?)?;
    let at_mirror = &mirror.address;
    let daemon = mirror.daemon(rig, &[])?;
    let text = format!(
        "FROM python:3.11-slim AS all\n\
         RUN sha256sum /etc/ssl/certs/ca-certificates.crt > /before; grep -q 'buildkit proxy CA' /etc/ssl/certs/ca-certificates.crt && echo SHOWN\n\
         RUN python3 -c \"import urllib.request as u; print(u.urlopen('https://{at_mirror}/text').read().decode())\"\n\
         RUN pip install --index-url https://{at_mirror}/simple/ rbuild-probe && python3 -m rbuild_probe\n\
         RUN echo 'deb [trusted=yes] https://{at_mirror}/debian ./' > /etc/apt/sources.list && rm -rf /etc/apt/sources.list.d && apt-get update && echo APT WORKS\n\
         # Upgrading the package makes the bundle anew, and what comes after it still works.\n\
         RUN update-ca-certificates --fresh && pip download --no-deps -d /tmp --index-url https://{at_mirror}/simple/ rbuild-probe && apt-get update && echo STILL WORKS\n\
         RUN --network=none sh -c '! grep -r \"buildkit proxy CA\" /etc /usr/share/ca-certificates && ! env | grep -i _proxy= && ! test -e /dev/buildkit-proxy-ca.pem && echo CLEAN'\n"
    );
    let context = rig.context("project", &[("Dockerfile", &text)])?;
    let built = daemon.build(&context, &["--no-cache"])?;
    ensure(built.ok(), || format!("the build fails: {}", built.tail()))?;
    let logs = &built.progress.logs;
    for needed in [
        "SHOWN",
        "TEXT OF THE MIRROR",
        "PROBE RUNS",
        "APT WORKS",
        "STILL WORKS",
        "CLEAN",
        "proxy network requests:\n- GET https://",
        "/simple/rbuild-probe/ -> 200",
        "/debian/./Release -> 200",
    ] {
        ensure(logs.contains(needed), || format!("no {needed:?} in {logs}"))?;
    }
    Ok(())
}

fn fetchers(rig: &Rig<'_>) -> Verdict {
    let files = mirrored(rig)?;
    let mirror = Mirror::start(rig, &files)?;
    let at_mirror = NAME;
    let script = rig.dir.join("registries.py");
    fs::write(&script, include_str!("proxy/registries.py")).map_err(at("writing", &script))?;
    run(Command::new(need("python3")?)
        .arg(&script)
        .arg(&files)
        .arg(at_mirror))?;
    let daemon = mirror.daemon(rig, &[("HTTPS_PROXY", &mirror.proxy)])?;
    let source = format!(
        "[source.crates-io]\nreplace-with = \"mirror\"\n[source.mirror]\nregistry = \"sparse+https://{at_mirror}/cargo/\"\n"
    );
    // Each on a stage of its own, so that they run at the same time.
    let text = format!(
        "FROM rbuild/fetchers:1 AS base\n\
         FROM base AS curl\n\
         RUN curl -fsS https://{at_mirror}/text > /out\n\
         FROM base AS git\n\
         RUN git clone -q https://{at_mirror}/git/probe.git /probe && cp /probe/probe /out\n\
         FROM base AS node\n\
         RUN --mount=target=/context node /context/fetch.js https://{at_mirror}/text | sed 's/^/NODE: /' > /out\n\
         FROM base AS npm\n\
         WORKDIR /project\n\
         RUN npm install --fetch-retries 0 --no-audit --no-fund --no-update-notifier --registry https://{at_mirror}/npm/ rbuild-probe && node -p \"require('rbuild-probe')\" > /out\n\
         FROM base AS cargo\n\
         WORKDIR /project\n\
         COPY crate .\n\
         RUN cargo vendor -q --respect-source-config /vendor && cp /vendor/rbuild-probe/src/lib.rs /out\n\
         FROM base\n\
         RUN --mount=from=curl,target=/1 --mount=from=git,target=/2 --mount=from=node,target=/3 --mount=from=npm,target=/4 --mount=from=cargo,target=/5 cat /[1-5]/out\n\
         RUN --network=none sh -c '! grep -rl \"buildkit proxy CA\" /etc /root /usr/share/ca-certificates && ! env | grep -i _proxy= && echo CLEAN'\n"
    );
    let context = rig.context(
        "project",
        &[
            ("Dockerfile", &text),
            ("fetch.js", include_str!("proxy/fetch.js")),
            (
                "crate/Cargo.toml",
                "[package]\nname = \"user\"\nversion = \"0.0.0\"\n[dependencies]\nrbuild-probe = \"1\"\n",
            ),
            ("crate/src/lib.rs", ""),
            ("crate/.cargo/config.toml", &source),
        ],
    )?;
    let built = daemon.build(&context, &["--no-cache"])?;
    ensure(built.ok(), || format!("the build fails: {}", built.tail()))?;
    let logs = &built.progress.logs;
    for needed in [
        "\nTEXT OF THE MIRROR",
        "PROBE OF GIT",
        "NODE: TEXT OF THE MIRROR",
        "PROBE OF NPM",
        "PROBE OF CARGO",
        "CLEAN",
        "/npm/rbuild-probe -> 200",
        "/cargo/rb/ui/rbuild-probe -> 200",
        "/git/probe.git/info/refs?service=git-upload-pack -> 200",
    ] {
        ensure(logs.contains(needed), || format!("no {needed:?} in {logs}"))?;
    }
    Ok(())
}

fn java(rig: &Rig<'_>) -> Verdict {
    let (jlink, javac) = (need("jlink")?, need("javac")?);
    let mirror = Mirror::start(rig, &mirrored(rig)?)?;
    let daemon = mirror.daemon(rig, &[])?;
    let text = format!(
        "FROM python:3.11-slim\n\
         RUN --mount=target=/context /context/java/bin/java -cp /context Fetch https://{}/text\n\
         RUN --network=none sh -c 'test -z \"$JAVA_TOOL_OPTIONS\" && ! test -e /dev/buildkit-proxy-ca.jks && echo CLEAN'\n",
        mirror.address
    );
    let program = include_str!("proxy/Fetch.java");
    let context = rig.context("project", &[("Dockerfile", &text), ("Fetch.java", program)])?;
    run(Command::new(javac)
        .arg(context.join("Fetch.java"))
        .arg("-d")
        .arg(&context))?;
    run(Command::new(jlink)
        .args(["--add-modules", "java.net.http,jdk.crypto.ec"])
        .args(["--strip-debug", "--no-header-files", "--no-man-pages"])
        .arg("--output")
        .arg(context.join("java")))?;
    let built = daemon.build(&context, &["--no-cache"])?;
    ensure(built.ok(), || format!("the build fails: {}", built.tail()))?;
    let logs = &built.progress.logs;
    for needed in [
        "STREAM: TEXT OF THE MIRROR",
        "CLIENT: TEXT OF THE MIRROR",
        "CLEAN",
    ] {
        ensure(logs.contains(needed), || format!("no {needed:?} in {logs}"))?;
    }
    Ok(())
}

fn attacks(rig: &Rig<'_>) -> Verdict {
    let mirror = Mirror::start(rig, &mirrored(rig)?)?;
    let (host, port) = mirror.address.rsplit_once(':').unwrap_or_default();
    let tables = format!("proxyNetworkAllow = [\"{host}\", \"169.254.0.0/16\"]\n");
    let config = Setting {
        args: vec!["--proxy-network".to_owned()],
        env: vec![(
            "SSL_CERT_FILE".to_owned(),
            mirror.certificate.display().to_string(),
        )],
        first: tables,
        ..Setting::default()
    };
    let daemon = Daemon::with(rig, config)?;
    let text = format!(
        "FROM busybox\n\
         RUN ip -o -4 addr show | sed 's/^/LINK /'; ip route | sed 's/^/ROUTE /'; \\\n \
           for a in {host} 127.0.0.1 10.89.0.1 169.254.169.254 1.1.1.1; do echo TRIED; nc -w 2 $a {port} </dev/null && echo REACHED; done; \\\n \
           env -u HTTP_PROXY -u http_proxy wget -T 2 -O- http://{host}:{port}/ && echo REACHED; \\\n \
           wget -O- http://other.example/secret && echo REACHED; \\\n \
           wget -O- http://169.254.169.254/latest/ && echo REACHED; \\\n \
           env NO_PROXY= no_proxy= wget -O- http://localhost:{port}/ && echo REACHED; true\n"
    );
    let context = rig.context("project", &[("Dockerfile", &text)])?;
    let built = daemon.build(&context, &["--no-cache"])?;
    ensure(built.ok(), || format!("the build fails: {}", built.tail()))?;
    let logs = &built.progress.logs;
    ensure(!logs.contains("REACHED") && logs.contains("TRIED"), || {
        format!("a step reaches more than its proxy: {logs}")
    })?;
    ensure(!logs.contains("ROUTE default"), || {
        format!("there is a way out: {logs}")
    })?;
    for needed in [
        "- GET http://other.example/secret -> 403 (other.example is not in the allow-list",
        "- GET http://169.254.169.254/latest/ -> 502 (169.254.169.254 is",
        "/ -> 403 (localhost",
    ] {
        ensure(logs.contains(needed), || format!("no {needed:?} in {logs}"))?;
    }
    Ok(())
}
