//! One project, four clients, the same layers.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::daemon::{Built, Daemon, Setting};
use super::image::Image;
use super::rig::{Ran, Rig, Trouble, Verdict, ensure, failed, program};
use super::{Case, On};
use crate::process::{at, output};

pub(super) const CASES: &[Case] = &[
    Case {
        sentence: "rbuild, rbuild over mTLS, buildctl and buildx make the same layers",
        on: On::Both,
        run: same_layers,
    },
    Case {
        sentence: "a client without a certificate is turned away",
        on: On::Both,
        run: no_certificate,
    },
];

/// Every step gives the same bytes whenever it runs, so that each client can build anew.
const PROJECT: &[(&str, &str)] = &[
    (
        "Dockerfile",
        "FROM busybox AS builder\n\
         WORKDIR /src\n\
         COPY words.txt .\n\
         RUN --mount=type=cache,target=/cache mkdir -p /out/proc /out/sys && tr a-z A-Z < words.txt > /out/app \\\n \
          && chmod 755 /out/app && touch -d @1700000000 /out/app /out/proc /out/sys\n\
         FROM builder AS test\n\
         RUN exit 9\n\
         FROM busybox AS runtime\n\
         COPY --from=builder /out/ /\n\
         COPY words.txt /words\n\
         RUN echo made > /made && ln -s made /link && touch -h -d @1700000000 /made /link\n\
         ENV MODE=production\n\
         EXPOSE 8080\n\
         CMD [\"/app\"]\n",
    ),
    ("words.txt", "some words\n"),
    (".dockerignore", "# nothing else\n*\n!words.txt\n"),
];

fn same_layers(rig: &Rig<'_>) -> Verdict {
    let context = rig.context("project", PROJECT)?;
    let words = context.join("words.txt");
    output(
        Command::new("touch")
            .args(["-d", "@1600000000"])
            .arg(&words),
    )?;
    let keys = Keys::make(rig)?;
    let port = free_port()?;
    let daemon = Daemon::with(rig, keys.setting(port))?;
    let address = format!("tcp://127.0.0.1:{port}");

    let mut images: Vec<(&str, Image)> = Vec::new();
    let mut keep = |name: &'static str, ran: Ran| -> Verdict {
        ran.success(name)?;
        images.push((
            name,
            Image::open(rig, &rig.dir.join(format!("{name}.tar")), name)?,
        ));
        daemon.buildctl(&["prune", "--all"])?.success("prune")?;
        Ok(())
    };
    let output_to = |name: &str| {
        format!(
            "type=oci,dest={}",
            rig.dir.join(format!("{name}.tar")).display()
        )
    };

    if !rig.lab.reference {
        let config = rig.dir.join("daemon.toml");
        let mut embedded = Command::new(&rig.lab.rbuild);
        embedded
            .env("RBUILD_ROOT", rig.dir.join("embedded"))
            .env("BUILDKITD_CONFIG", config)
            .env("PATH", super::rig::path_of_system_programs())
            .env_remove("RBUILD_HOST")
            .env_remove("BUILDKIT_HOST")
            .args([
                "build",
                "--progress",
                "plain",
                "--target",
                "runtime",
                "-o",
                &output_to("embedded"),
            ])
            .arg(&context);
        keep("embedded", rig.run(&mut embedded)?)?;
    }
    let mut remote = Command::new(&rig.lab.rbuild);
    remote
        .args(["--addr", &address])
        .args(keys.flags())
        .args([
            "build",
            "--progress",
            "plain",
            "--target",
            "runtime",
            "-o",
            &output_to("remote"),
        ])
        .arg(&context);
    keep("remote", rig.run(&mut remote)?)?;

    let mut buildctl = Command::new(rig.lab.buildctl());
    buildctl
        .args(["--addr", &address])
        .args(keys.flags())
        .args([
            "build",
            "--frontend",
            "dockerfile.v0",
            "--opt",
            "target=runtime",
            "--output",
            &output_to("buildctl"),
        ])
        .args(["--local", &format!("context={}", context.display())])
        .args(["--local", &format!("dockerfile={}", context.display())]);
    keep("buildctl", rig.run(&mut buildctl)?)?;

    let buildx = |args: &[&str]| {
        let mut command = Command::new(rig.lab.buildx());
        command
            .env("BUILDX_CONFIG", rig.dir.join("buildx"))
            .args(args);
        command
    };
    let options = format!(
        "cacert={},cert={},key={}",
        keys.ca.display(),
        keys.client.display(),
        keys.client_key.display()
    );
    let create = [
        "create",
        "--name",
        "cases",
        "--driver",
        "remote",
        "--driver-opt",
        &options,
        &address,
    ];
    rig.run(&mut buildx(&create))?.success("buildx create")?;
    let mut build = buildx(&[
        "build",
        "--builder",
        "cases",
        "--progress",
        "plain",
        "--target",
        "runtime",
        "-o",
    ]);
    build.arg(output_to("buildx")).arg(&context);
    keep("buildx", rig.run(&mut build)?)?;

    let Some((first_name, first)) = images.first() else {
        return failed("no image was made");
    };
    // One layer of the base, two of COPY, one of RUN.
    ensure(first.layers.len() == 4, || {
        format!("{first_name} made {:?}", first.layers)
    })?;
    for (name, image) in &images {
        ensure(image.diff_ids == first.diff_ids, || {
            format!(
                "diff ids of {first_name}: {:#?}\nof {name}: {:#?}",
                first.diff_ids, image.diff_ids
            )
        })?;
        ensure(image.layers == first.layers, || {
            format!(
                "blobs of {first_name}: {:#?}\nof {name}: {:#?}",
                first.layers, image.layers
            )
        })?;
        let command = image
            .config
            .pointer("/config/Cmd/0")
            .and_then(|value| value.as_str());
        ensure(command == Some("/app"), || {
            format!("{name} has {}", image.config)
        })?;
    }
    Ok(())
}

fn no_certificate(rig: &Rig<'_>) -> Verdict {
    let keys = Keys::make(rig)?;
    let port = free_port()?;
    let daemon = Daemon::with(rig, keys.setting(port))?;
    let address = format!("tcp://localhost:{port}");
    let workers = |flags: &[String]| {
        rig.run(
            Command::new(rig.lab.buildctl())
                .args(["--timeout", "5", "--addr", &address])
                .args(flags)
                .args(["debug", "workers"]),
        )
    };
    workers(&keys.flags())?.success("a client with a certificate")?;
    let ca_only = ["--tlscacert".to_owned(), keys.ca.display().to_string()];
    for (who, flags) in [
        ("without a certificate", &ca_only[..]),
        ("without TLS", &[]),
    ] {
        let ran = workers(flags)?;
        ensure(!ran.ok(), || {
            format!("a client {who} was served: {}", ran.out)
        })?;
    }
    // A certificate of another authority.
    let strangers = Keys::make_in(rig, "strangers")?;
    let ran = workers(
        &[
            ca_only.to_vec(),
            vec![
                "--tlscert".to_owned(),
                strangers.client.display().to_string(),
            ],
            vec![
                "--tlskey".to_owned(),
                strangers.client_key.display().to_string(),
            ],
        ]
        .concat(),
    )?;
    ensure(!ran.ok(), || format!("a stranger was served: {}", ran.out))?;
    let built = Built::of(daemon.buildctl(&["debug", "workers"])?);
    built.success("the unix socket")?;
    Ok(())
}

fn free_port() -> Result<u16, Trouble> {
    let bound =
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
    Ok(bound
        .map_err(at("listening", Path::new("127.0.0.1")))?
        .port())
}

/// Certificates of an authority, a daemon and a client.
struct Keys {
    ca: PathBuf,
    server: PathBuf,
    server_key: PathBuf,
    client: PathBuf,
    client_key: PathBuf,
}

impl Keys {
    fn make(rig: &Rig<'_>) -> Result<Self, Trouble> {
        Self::make_in(rig, "keys")
    }

    fn make_in(rig: &Rig<'_>, folder: &str) -> Result<Self, Trouble> {
        let dir = rig.context(
            folder,
            &[
                (
                    "server.ext",
                    "subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\n",
                ),
                ("client.ext", "extendedKeyUsage=clientAuth\n"),
            ],
        )?;
        let openssl = |args: &[&str]| -> Result<(), Trouble> {
            output(program("openssl")?.current_dir(&dir).args(args))?;
            Ok(())
        };
        let key = [
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
        ];
        let ca = [
            "-x509",
            "-days",
            "2",
            "-subj",
            "/CN=cases",
            "-keyout",
            "ca.key",
            "-out",
            "ca.pem",
        ];
        openssl(&[&["req"], &key[..], &ca[..]].concat())?;
        for who in ["server", "client"] {
            let (private, request) = (format!("{who}.key"), format!("{who}.csr"));
            let subject = format!("/CN={who}");
            let ask = ["-subj", &subject, "-keyout", &private, "-out", &request];
            openssl(&[&["req"], &key[..], &ask[..]].concat())?;
            let (signed, extension) = (format!("{who}.pem"), format!("{who}.ext"));
            openssl(&[
                "x509",
                "-req",
                "-days",
                "2",
                "-in",
                &request,
                "-CA",
                "ca.pem",
                "-CAkey",
                "ca.key",
                "-CAcreateserial",
                "-extfile",
                &extension,
                "-out",
                &signed,
            ])?;
        }
        Ok(Self {
            ca: dir.join("ca.pem"),
            server: dir.join("server.pem"),
            server_key: dir.join("server.key"),
            client: dir.join("client.pem"),
            client_key: dir.join("client.key"),
        })
    }

    /// A daemon that listens on `port` too, for clients of this authority.
    fn setting(&self, port: u16) -> Setting {
        let file = |path: &PathBuf| path.display().to_string();
        Setting {
            args: vec![
                "--addr".to_owned(),
                format!("tcp://127.0.0.1:{port}"),
                "--tlscacert".to_owned(),
                file(&self.ca),
                "--tlscert".to_owned(),
                file(&self.server),
                "--tlskey".to_owned(),
                file(&self.server_key),
            ],
            ..Setting::default()
        }
    }

    /// What `rbuild` and `buildctl` are told.
    fn flags(&self) -> Vec<String> {
        let file = |path: &PathBuf| path.display().to_string();
        vec![
            "--tlscacert".to_owned(),
            file(&self.ca),
            "--tlscert".to_owned(),
            file(&self.client),
            "--tlskey".to_owned(),
            file(&self.client_key),
        ]
    }
}
