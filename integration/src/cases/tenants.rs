//! Clients of one daemon that are tenants: what one did is not there for another.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::daemon::{Built, Daemon, Setting};
use super::rig::{Rig, Trouble, Verdict, ensure, program};
use super::{Case, On};
use crate::process::at;

pub(super) const CASES: &[Case] = &[Case {
    sentence: "clients with two certificates share no step, cache mount, image, record or build",
    on: On::Ours("the reference has no tenants"),
    run: two_certificates,
}];

/// Files of an authority, a server and two clients.
struct Certificates(PathBuf);

impl Certificates {
    fn make(rig: &Rig<'_>) -> Result<Self, Trouble> {
        let dir = rig.folder("certificates")?;
        let script = "set -e\n\
            openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=authority -keyout ca-key.pem -out ca.pem\n\
            for name in server one two; do\n\
            openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=$name -keyout $name-key.pem -out $name.csr\n\
            printf 'subjectAltName=IP:127.0.0.1\\nextendedKeyUsage=serverAuth,clientAuth' > ext\n\
            openssl x509 -req -in $name.csr -CA ca.pem -CAkey ca-key.pem -CAcreateserial -days 2 -extfile ext -out $name.pem\n\
            done\n";
        program("openssl")?;
        let ran = rig.run(Command::new("sh").args(["-c", script]).current_dir(&dir))?;
        ensure(ran.ok(), || ran.tail())?;
        Ok(Self(dir))
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

/// A client with a certificate.
struct Client<'a> {
    rig: &'a Rig<'a>,
    certificates: &'a Certificates,
    name: &'static str,
    port: u16,
}

impl Client<'_> {
    fn buildctl(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.rig.lab.buildctl());
        command
            .arg("--addr")
            .arg(format!("tcp://127.0.0.1:{}", self.port))
            .arg("--tlscacert")
            .arg(self.certificates.file("ca.pem"))
            .arg("--tlscert")
            .arg(self.certificates.file(&format!("{}.pem", self.name)))
            .arg("--tlskey")
            .arg(self.certificates.file(&format!("{}-key.pem", self.name)))
            .args(args);
        command
    }

    fn build(&self, context: &Path) -> Result<Built, Trouble> {
        let context = context.display();
        let ran = self.rig.run(&mut self.buildctl(&[
            "build",
            "--frontend=dockerfile.v0",
            "--progress=rawjson",
            &format!("--local=context={context}"),
            &format!("--local=dockerfile={context}"),
        ]))?;
        Built::of(ran).success(&format!("the build of client {}", self.name))
    }

    /// What a command prints that must work.
    fn asks(&self, args: &[&str]) -> Result<String, Trouble> {
        let ran = self.rig.run(&mut self.buildctl(args))?;
        Ok(ran.success(&format!("client {}: {args:?}", self.name))?.out)
    }
}

fn two_certificates(rig: &Rig<'_>) -> Verdict {
    let certificates = Certificates::make(rig)?;
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| socket.local_addr());
    let port = free.map_err(at("listening", &rig.dir))?.port();
    let mut setting = Setting::default();
    for (flag, value) in [
        ("--isolation", "client".to_owned()),
        ("--addr", format!("tcp://127.0.0.1:{port}")),
        ("--tlscacert", certificates.file("ca.pem")),
        ("--tlscert", certificates.file("server.pem")),
        ("--tlskey", certificates.file("server-key.pem")),
    ] {
        setting.args.extend([flag.to_owned(), value]);
    }
    let mut daemon = Daemon::with(rig, setting)?;
    let client = |name| Client {
        rig,
        certificates: &certificates,
        name,
        port,
    };
    let (one, two) = (client("one"), client("two"));
    let text = "FROM busybox\nRUN --mount=type=cache,target=/shared echo \"the mount has: $(cat /shared/mark)\"; echo mark > /shared/mark\n\
                RUN head -c 8 /dev/urandom | sha256sum\n";
    let context = rig.context("project", &[("Dockerfile", text)])?;

    let first = one.build(&context)?;
    ensure(first.progress.logs.contains("the mount has: \n"), || {
        first.tail()
    })?;
    let records = one.asks(&["debug", "histories", "--format={{.Record.Ref}}"])?;
    let record = records.lines().next().unwrap_or_default().to_owned();
    ensure(!record.is_empty(), || {
        "client one has no record of its build".to_owned()
    })?;
    let used = one.asks(&["du", "--format={{len .}}"])?;
    ensure(used.trim() != "0", || format!("client one uses {used:?}"))?;

    // The second client knows the first one's records and builds, and meets nothing of them.
    let used = two.asks(&["du", "--format={{len .}}"])?;
    ensure(used.trim() == "0", || {
        format!("client two sees {used} records that client one uses")
    })?;
    let histories = two.asks(&["debug", "histories", "--format={{.Record.Ref}}"])?;
    ensure(!histories.contains(&record), || {
        format!("client two sees {histories}")
    })?;
    let logs = rig.run(&mut two.buildctl(&["debug", "logs", &record]))?;
    ensure(!logs.ok() && !logs.out.contains("the mount has"), || {
        format!("client two reads the log of client one: {}", logs.out)
    })?;
    let other = two.build(&context)?;
    ensure(other.progress.logs.contains("the mount has: \n"), || {
        format!(
            "client two has client one's mount or step: {}",
            other.tail()
        )
    })?;

    // Each goes on with what is its own, after a restart too.
    daemon.restart(false)?;
    for client in [&one, &two] {
        let again = client.build(&context)?;
        ensure(!again.progress.logs.contains("the mount has"), || {
            format!("client {} lost its steps: {}", client.name, again.tail())
        })?;
    }
    two.asks(&["prune", "--all"])?;
    let again = one.build(&context)?;
    ensure(!again.progress.logs.contains("the mount has"), || {
        format!("client two pruned what is client one's: {}", again.tail())
    })?;

    // Without a certificate there is no tenant, and users of the socket are others again.
    let stranger = rig.run(
        Command::new(rig.lab.buildctl())
            .args(["--addr", &format!("tcp://127.0.0.1:{port}")])
            .args(["--tlscacert", &certificates.file("ca.pem")])
            .args(["debug", "workers"]),
    )?;
    ensure(!stranger.ok(), || {
        "a client without certificate is served".to_owned()
    })?;
    let local = daemon.buildctl(&["debug", "histories", "--format={{.Record.Ref}}"])?;
    ensure(!local.out.contains(&record), || {
        "a user of the socket sees client one".to_owned()
    })?;
    daemon.goes_on()
}
