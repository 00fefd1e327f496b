//! git in a container: the programs and certificates of the host to read, the folders of one call to write, and the network
//! where a remote has to be reached.
//!
//! | what git sees                                   | of the host                                                          |
//! |-------------------------------------------------|----------------------------------------------------------------------|
//! | programs, libraries                             | `/usr`, `/bin`, `/lib*`, `/sbin`, `/nix/store`, git's own prefix; read only |
//! | certificates, name resolution                   | the files and folders in [`READ_ONLY`]; read only                    |
//! | its repositories, known hosts, the agent's socket | what the call names                                                |
//! | everything else                                 | nothing: an empty root that goes with the call                       |
//!
//! It runs as steps do: in namespaces of its own for processes, mounts, IPC and host name, with the seccomp filter and the capabilities
//! of a confined step, and cannot see or signal anything of the host. It has the host's network while it reaches a remote,
//! and none otherwise.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use executor::{
    ContainerSpec, Entitlements, Executor, Mount, MountSource, NetworkMode, Output, ProcessIo,
    ProcessSpec, SecurityMode,
};
use source::git::{GitCall, GitOutput, GitRunner, SHELL};
use sys::mount::{Attrs, new_mount};

/// Places of the host that git and ssh read; those that are not there are left out.
const READ_ONLY: [&str; 24] = [
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/nix/store",
    "/etc/alternatives",
    "/etc/ca-certificates",
    "/etc/crypto-policies",
    "/etc/gai.conf",
    "/etc/gnutls",
    "/etc/host.conf",
    "/etc/hosts",
    "/etc/ld.so.cache",
    "/etc/nsswitch.conf",
    "/etc/pki/ca-trust",
    "/etc/pki/tls/certs",
    "/etc/protocols",
    "/etc/resolv.conf",
    "/etc/services",
    "/etc/ssl/cert.pem",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
];

/// ssh does not run for a user without a name.
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n";
const GROUP: &str = "root:x:0:\n";

/// The empty root holds mount points only.
const ROOT_SIZE: &str = "1m";
/// Bytes of the tmpfs for temporary files of git and ssh.
const TMP_SIZE: u64 = 64 << 20;

/// Runs git in containers of an executor.
#[derive(Debug)]
pub(crate) struct ContainedGit {
    executor: Arc<dyn Executor>,
    /// The folder of git's installation, if it is not one of [`READ_ONLY`].
    prefix: Option<PathBuf>,
}

impl ContainedGit {
    /// Runs git as it is found in `path`.
    pub(crate) fn new(executor: Arc<dyn Executor>, path: &OsString) -> Self {
        Self {
            executor,
            prefix: prefix(path),
        }
    }
}

/// The folder of git's installation (its `bin` lies in it), unless it is one of [`READ_ONLY`].
fn prefix(path: &OsString) -> Option<PathBuf> {
    let is_there = |dir: &PathBuf| dir.is_absolute() && dir.join("git").is_file();
    let bin = std::env::split_paths(path).find(is_there)?;
    if READ_ONLY.iter().any(|dir| bin.starts_with(dir)) {
        return None;
    }
    let prefix = bin.parent().filter(|prefix| *prefix != Path::new("/"))?;
    Some(prefix.to_owned())
}

fn mount(path: &Path, readonly: bool) -> io::Result<Mount> {
    let dest = path
        .to_str()
        .ok_or_else(|| io::Error::other(format!("{} is not UTF-8", path.display())))?;
    Ok(Mount {
        dest: dest.to_owned(),
        source: MountSource::Place(sys::path::open_host_path(path)?),
        selector: String::new(),
        readonly,
    })
}

fn text(value: OsString) -> io::Result<String> {
    value
        .into_string()
        // The dropped error holds the text itself, which may be secret.
        .map_err(|_| io::Error::other("an argument or a variable of git is not UTF-8"))
}

/// The container of a call. Blocks.
fn spec(call: GitCall, prefix: Option<&Path>) -> io::Result<ContainerSpec> {
    let granted = Entitlements {
        network_host: true,
        ..Entitlements::default()
    };
    let network = if call.network {
        NetworkMode::Host
    } else {
        NetworkMode::None
    };
    let access = granted
        .access(network, SecurityMode::Sandbox)
        .map_err(io::Error::other)?;
    let attrs = Attrs {
        nosuid: true,
        ..Attrs::default()
    };
    let root = new_mount(c"tmpfs", &[("size", ROOT_SIZE), ("mode", "0755")], attrs)?;
    let mut args: Vec<String> = SHELL.iter().map(|arg| (*arg).to_owned()).collect();
    for arg in call.args {
        args.push(text(arg)?);
    }
    let mut env = Vec::with_capacity(call.env.len());
    for (name, value) in call.env {
        env.push(format!("{}={}", text(name)?, text(value)?));
    }
    let process = ProcessSpec {
        args,
        env,
        cwd: text(call.dir.into_os_string())?,
        ..ProcessSpec::default()
    };
    let mut spec = ContainerSpec::new(access, root, process);
    let read_only = READ_ONLY.iter().map(Path::new).chain(prefix);
    for path in read_only {
        match mount(path, true) {
            Ok(mount) => spec.mounts.push(mount),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    for (dest, contents) in [("/etc/passwd", PASSWD), ("/etc/group", GROUP)] {
        spec.mounts.push(Mount {
            dest: dest.to_owned(),
            source: MountSource::File {
                contents: contents.into(),
                mode: 0o644,
                uid: 0,
                gid: 0,
            },
            selector: String::new(),
            readonly: true,
        });
    }
    spec.mounts.push(Mount {
        dest: "/tmp".to_owned(),
        source: MountSource::Tmpfs {
            size: Some(TMP_SIZE),
        },
        selector: String::new(),
        readonly: false,
    });
    for folder in &call.folders {
        spec.mounts.push(mount(folder, false)?);
    }
    for file in &call.files {
        spec.mounts.push(mount(file, true)?);
    }
    Ok(spec)
}

#[async_trait]
impl GitRunner for ContainedGit {
    async fn run(&self, call: GitCall, stdout: GitOutput, stderr: GitOutput) -> io::Result<i32> {
        let prefix = self.prefix.clone();
        let spec = task::blocking("git container", move || spec(call, prefix.as_deref())).await?;
        let io = ProcessIo {
            stdout: Output::sink(stdout),
            stderr: Output::sink(stderr),
            ..ProcessIo::default()
        };
        let exit = self
            .executor
            .run(spec, io, None)
            .await
            .map_err(io::Error::other)?;
        Ok(i32::try_from(exit.code).unwrap_or(i32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use executor::launcher::{Config, Launcher};
    use parking_lot::Mutex;

    use super::*;

    sys::before_main!(executor::launcher::dispatch);

    /// Runs a shell script in the place of a git command, as a helper that a repository talked git into would.
    async fn run(script: &str, call: GitCall) -> (i32, String) {
        let path: OsString = "/usr/local/bin:/usr/bin:/bin".into();
        let launcher = Arc::new(Launcher::new(Config::host_network()));
        let git = ContainedGit::new(launcher, &path);
        let output = Arc::<Mutex<Vec<u8>>>::default();
        let to = |output: &Arc<Mutex<Vec<u8>>>| -> GitOutput {
            let output = Arc::clone(output);
            Box::new(move |chunk| output.lock().extend_from_slice(&chunk))
        };
        let alias = format!("alias.attack=!{script}");
        let call = GitCall {
            args: vec!["-c".into(), alias.into(), "attack".into()],
            env: vec![
                ("PATH".into(), path),
                ("GIT_CONFIG_NOSYSTEM".into(), "1".into()),
                ("HOME".into(), "/dev/null".into()),
            ],
            ..call
        };
        let code = git.run(call, to(&output), to(&output)).await.unwrap();
        let text = String::from_utf8(output.lock().clone()).unwrap();
        (code, text)
    }

    #[tokio::test]
    async fn git_sees_its_programs_and_its_folders_and_nothing_else_of_the_host() {
        if !rustix::process::geteuid().is_root() || !Path::new("/usr/bin/git").exists() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in ["repo", "other"] {
            std::fs::create_dir(at(name)).unwrap();
        }
        for name in ["other/secret", "known_hosts"] {
            std::fs::write(at(name), "CANARY").unwrap();
        }
        let _agent = UnixListener::bind(at("agent")).unwrap();
        let call = GitCall {
            dir: at("repo"),
            folders: vec![at("repo")],
            files: vec![at("known_hosts"), at("agent")],
            ..GitCall::default()
        };
        let (other, known, agent) = (at("other/secret"), at("known_hosts"), at("agent"));
        let (other, known, agent) = (other.display(), known.display(), agent.display());
        for (script, want) in [
            ("pwd && touch made && umask".to_owned(), Some("0022")),
            (format!("cat {known}"), Some("CANARY")),
            (format!("test -S {agent}"), Some("")),
            (format!("sh -c 'echo x > {known}'"), None),
            (format!("cat {other}"), None),
            ("cat /etc/shadow".into(), None),
            ("ls /root/.ssh".into(), None),
            ("ls /home".into(), None),
            ("ls /var/lib".into(), None),
            ("ls /run".into(), None),
            ("ls /proc/1/root/var".into(), None),
            ("touch /usr/x".into(), None),
            ("touch /etc/resolv.conf/../../usr/bin/x".into(), None),
            ("mount -t tmpfs x /mnt".into(), None),
            (
                "sh -c 'test $(ls -d /proc/[0-9]* | wc -l) -lt 10'".into(),
                Some(""),
            ),
            // Nothing but loopback where no remote is to be reached.
            (
                "sh -c 'test $(grep -c : /proc/net/dev) = 1'".into(),
                Some(""),
            ),
        ] {
            let (code, text) = run(&script, call.clone()).await;
            match want {
                Some(want) => {
                    assert_eq!(code, 0, "{script}: {text}");
                    assert!(text.contains(want), "{script}: {text}");
                }
                None => assert_ne!(code, 0, "{script}: {text}"),
            }
        }
        assert!(at("repo/made").exists());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 4);
    }

    /// Runs git as a user does, for what the test needs.
    fn by_hand(dir: &Path, args: &[&str]) -> String {
        let output = std::process::Command::new("git")
            .args(["-c", "user.name=t", "-c", "user.email=t@t"])
            .args([
                "-c",
                "init.defaultBranch=main",
                "-c",
                "protocol.file.allow=always",
            ])
            .args(args)
            .current_dir(dir)
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "git {args:?}: {errors}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Serves repositories until it is dropped.
    struct Served {
        server: std::process::Child,
        address: String,
    }

    impl Served {
        fn new(repositories: &Path) -> Self {
            let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let port = free.local_addr().unwrap().port();
            drop(free);
            let program = Path::new(&by_hand(repositories, &["--exec-path"])).join("git-daemon");
            let server = std::process::Command::new(program)
                .args(["--export-all", "--reuseaddr", "--listen=127.0.0.1"])
                .arg(format!("--port={port}"))
                .arg(format!("--base-path={}", repositories.display()))
                .stdout(std::process::Stdio::null())
                .stderr(std::process::Stdio::null())
                .spawn()
                .unwrap();
            let address = format!("127.0.0.1:{port}");
            let start = task::clock::monotonic();
            while std::net::TcpStream::connect(&address).is_err() {
                assert!(start.elapsed().as_secs() < 20, "git-daemon does not listen");
                std::thread::yield_now();
            }
            Self { server, address }
        }
    }

    impl Drop for Served {
        fn drop(&mut self) {
            let _killed = self.server.kill();
            let _reaped = self.server.wait();
        }
    }

    #[tokio::test]
    async fn every_kind_of_checkout_works_in_the_container() {
        use source::Source as _;
        if !rustix::process::geteuid().is_root() || !Path::new("/usr/bin/git").exists() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let repositories = dir.path().join("repositories");
        for name in ["part", "whole"] {
            std::fs::create_dir_all(repositories.join(name).join("folder")).unwrap();
            std::fs::write(repositories.join(name).join("folder/file"), name).unwrap();
            by_hand(&repositories.join(name), &["init", "-q"]);
        }
        let (part, whole) = (repositories.join("part"), repositories.join("whole"));
        by_hand(&part, &["add", "-A"]);
        by_hand(&part, &["commit", "-qm", "part"]);
        by_hand(&whole, &["submodule", "add", "-q", "../part", "part"]);
        by_hand(
            &whole,
            &[
                "config",
                "-f",
                ".gitmodules",
                "submodule.part.url",
                "../part",
            ],
        );
        by_hand(&whole, &["add", "-A"]);
        by_hand(&whole, &["commit", "-qm", "whole"]);
        by_hand(&whole, &["tag", "-am", "tag", "v1"]);
        let commit = by_hand(&whole, &["rev-parse", "HEAD"]);
        let served = Served::new(&repositories);

        let path: OsString = "/usr/local/bin:/usr/bin:/bin".into();
        let launcher = Arc::new(Launcher::new(Config::host_network()));
        let store = store::Store::open(store::Config::new(dir.path().join("state"))).unwrap();
        let config = source::git::GitConfig {
            runner: Arc::new(ContainedGit::new(launcher, &path)),
            path,
            proxy_env: Vec::new(),
            scratch: dir.path().join("scratch"),
        };
        let git = source::git::GitSource::new(store, config, None);
        let remote = format!("git://{}/whole", served.address);
        let files = ["folder/file", "part/folder/file"];
        let keep_git_dir = ("git.keepgitdir", "true");
        for (fragment, attribute, want) in [
            ("", None, &files[..]),
            (
                "#main",
                Some(keep_git_dir),
                &["folder/file", "part/folder/file", ".git/config"],
            ),
            ("#v1", Some(keep_git_dir), &[".git/refs/tags/v1"]),
            ("#v1", Some(("git.mtime", "commit")), &files),
            (&format!("#{commit}"), None, &files),
            (&format!("#{}", &commit[..7]), None, &files),
            ("#main:folder", None, &["file"]),
            (
                "#main",
                Some(("git.skipsubmodules", "true")),
                &["folder/file"],
            ),
            ("#main", Some(("git.checkoutbundle", "true")), &["bundle"]),
        ] {
            let mut attrs = vec![("git.fullurl".to_owned(), remote.clone())];
            attrs.extend(attribute.map(|(k, v)| (k.to_owned(), v.to_owned())));
            let reference = format!("{}/whole{fragment}", served.address);
            let attrs = attrs.into_iter().collect();
            let source = git.resolve("git", &reference, &attrs, None).unwrap();
            let ctx = source::Context::new(session::Group::none(), progress::Writer::null());
            let snapshot = source.snapshot(&ctx).await.unwrap().unwrap();
            for path in want {
                let owner = snapshot.root().unwrap().lstat_opt(path).unwrap();
                let owner = owner.map(|meta| (meta.uid, meta.gid));
                assert_eq!(owner, Some((0, 0)), "{fragment} {attribute:?} {path}");
            }
        }
        let leftovers = std::fs::read_dir(dir.path().join("scratch"))
            .unwrap()
            .count();
        assert_eq!(leftovers, 0);
    }

    #[test]
    fn a_git_of_its_own_prefix_is_found_there() {
        let dir = tempfile::tempdir().unwrap();
        let bin = dir.path().join("tools/bin");
        std::fs::create_dir_all(&bin).unwrap();
        std::fs::write(bin.join("git"), "").unwrap();
        let path = |dirs: &[&Path]| std::env::join_paths(dirs).unwrap();
        assert_eq!(
            prefix(&path(&[Path::new("/nowhere"), &bin])),
            Some(dir.path().join("tools"))
        );
        assert_eq!(prefix(&path(&[Path::new("bin")])), None);
    }
}
