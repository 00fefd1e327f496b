use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use source::Source;
use source::git::{GitConfig, GitSource, HostGit};

use crate::client::{World, attrs, files, listed, write};

pub(crate) fn git(dir: &Path, args: &[&str]) -> String {
    let out = Command::new("git")
        .args([
            "-c",
            "user.name=t",
            "-c",
            "user.email=t@t",
            "-c",
            "init.defaultBranch=main",
        ])
        .args(args)
        .current_dir(dir)
        .env("GIT_COMMITTER_DATE", "2001-09-09T01:46:40Z")
        .output()
        .unwrap();
    assert!(
        out.status.success(),
        "git {args:?}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

pub(crate) struct Daemon {
    child: Child,
    pub(crate) address: String,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }
}

pub(crate) fn daemon(base: &Path) -> Daemon {
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let exec = git(base, &["--exec-path"]);
    let child = Command::new(Path::new(&exec).join("git-daemon"))
        .args([
            "--export-all",
            "--reuseaddr",
            "--listen=127.0.0.1",
            &format!("--port={port}"),
        ])
        .arg(format!("--base-path={}", base.display()))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let address = format!("127.0.0.1:{port}");
    let deadline = task::clock::monotonic() + Duration::from_secs(20);
    while TcpStream::connect(&address).is_err() {
        assert!(
            task::clock::monotonic() < deadline,
            "git daemon does not listen"
        );
        std::thread::yield_now();
    }
    Daemon { child, address }
}

#[tokio::test]
async fn a_repository_is_checked_out_by_branch_tag_commit_and_folder() {
    let Some(world) = World::new() else { return };
    let repos = world.folder("repos");
    let repo = world.folder("repos/r");
    git(&repo, &["init", "-q"]);
    write(repo.join("a.txt"), "one");
    write(repo.join("sub/deep/b.txt"), "two");
    std::os::unix::fs::symlink("/etc", repo.join("link")).unwrap();
    git(&repo, &["add", "-A"]);
    git(&repo, &["commit", "-qm", "first"]);
    let first_commit = git(&repo, &["rev-parse", "HEAD"]);
    git(&repo, &["tag", "-a", "v1", "-m", "tag"]);
    let server = daemon(&repos);
    let config = GitConfig {
        runner: std::sync::Arc::new(HostGit),
        path: std::env::var_os("PATH").unwrap(),
        proxy_env: Vec::new(),
        scratch: world.dir.path().join("scratch"),
    };
    let source = GitSource::new(world.store.clone(), config, None);
    let ctx = world.alone();
    let remote = format!("git://{}/r", server.address);
    let resolve = |fragment: &str, list: &[(&str, &str)]| {
        let mut list = list.to_vec();
        list.push(("git.fullurl", &remote));
        source
            .resolve(
                "git",
                &format!("{}/r{fragment}", server.address),
                &attrs(&list),
                None,
            )
            .unwrap()
    };

    let head = resolve("", &[]);
    let key = head.cache_key(&ctx, 0).await.unwrap();
    assert_eq!(
        (key.key.as_str(), key.pin.as_str()),
        (first_commit.as_str(), first_commit.as_str())
    );
    let checkout = head.snapshot(&ctx).await.unwrap().unwrap();
    assert_eq!(
        files(&checkout),
        listed(&[("a.txt", "one"), ("sub/deep/b.txt", "two")])
    );

    let tag = resolve("#v1", &[]);
    let tag_key = tag.cache_key(&ctx, 0).await.unwrap();
    assert_eq!(
        tag_key.key, first_commit,
        "a tag's key is the commit it points at"
    );
    assert_ne!(tag_key.pin, first_commit);
    assert_eq!(
        tag.snapshot(&ctx).await.unwrap().unwrap().id(),
        checkout.id(),
        "the same checkout is not made twice"
    );

    let folder = resolve(
        &format!("#{first_commit}:sub/deep"),
        &[("git.mtime", "commit")],
    );
    assert_eq!(
        folder.cache_key(&ctx, 0).await.unwrap().key,
        format!("{first_commit}:sub/deep(mtime=commit)")
    );
    let deep = folder.snapshot(&ctx).await.unwrap().unwrap();
    assert_eq!(files(&deep), listed(&[("b.txt", "two")]));
    assert_eq!(
        deep.root().unwrap().lstat("b.txt").unwrap().mtime,
        1_000_000_000_000_000_000
    );

    let escape = resolve("#main:link", &[]);
    let error = escape.snapshot(&ctx).await.unwrap_err().to_string();
    assert!(error.contains("contains non-directory"), "{error}");

    let with_git_dir = resolve("#main", &[("git.keepgitdir", "true")]);
    assert_eq!(
        with_git_dir.cache_key(&ctx, 0).await.unwrap().key,
        format!("{first_commit}.git#refs/heads/main")
    );
    let with_git_dir = with_git_dir.snapshot(&ctx).await.unwrap().unwrap();
    let config = String::from_utf8(
        with_git_dir
            .root()
            .unwrap()
            .read(".git/config", 1 << 16)
            .unwrap(),
    )
    .unwrap();
    assert!(config.contains(&remote), "{config}");
    assert!(
        with_git_dir
            .root()
            .unwrap()
            .lstat_opt(".git/FETCH_HEAD")
            .unwrap()
            .is_none()
    );

    write(repo.join("a.txt"), "changed");
    git(&repo, &["commit", "-qam", "second"]);
    let moved = resolve("#main", &[]);
    assert_eq!(
        moved.cache_key(&ctx, 0).await.unwrap().pin,
        git(&repo, &["rev-parse", "HEAD"])
    );
    assert_eq!(
        files(&moved.snapshot(&ctx).await.unwrap().unwrap())[0].1,
        "changed"
    );

    let mismatching = resolve("#main", &[("git.checksum", &first_commit)]);
    let error = mismatching
        .cache_key(&ctx, 0)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with(&format!("expected checksum to match {first_commit}, got ")),
        "{error}"
    );
    let absent = resolve("#nope", &[]);
    assert!(
        absent
            .cache_key(&ctx, 0)
            .await
            .unwrap_err()
            .to_string()
            .starts_with("repository does not contain ref nope")
    );
    let left: Vec<_> = std::fs::read_dir(world.dir.path().join("scratch"))
        .unwrap()
        .collect();
    assert!(left.is_empty(), "mounts are gone: {left:?}");
}
