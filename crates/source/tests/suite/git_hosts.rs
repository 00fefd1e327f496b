//! Which host gets which credentials, and what git's arguments are.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use source::git::{GitCall, GitConfig, GitOutput, GitRunner, GitSource, HostGit};
use source::{Context, ResolvedSources, Source, SourceInstance};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::client::{Client, World, attrs, files, listed, write};
use crate::git::git;

const CANARY: &str = "CANARY-token";

/// Runs git and writes down how it was called.
#[derive(Debug, Default)]
pub(crate) struct Recording(Mutex<Vec<Vec<String>>>);

#[async_trait]
impl GitRunner for Recording {
    async fn run(
        &self,
        call: GitCall,
        stdout: GitOutput,
        stderr: GitOutput,
    ) -> std::io::Result<i32> {
        let args = call.args.iter().map(|a| a.to_string_lossy().into_owned());
        self.0.lock().push(args.collect());
        HostGit.run(call, stdout, stderr).await
    }
}

pub(crate) fn source(world: &World, runner: Arc<dyn GitRunner>) -> GitSource {
    let config = GitConfig {
        runner,
        path: std::env::var_os("PATH").unwrap(),
        proxy_env: Vec::new(),
        scratch: world.dir.path().join("scratch"),
    };
    GitSource::new(world.store.clone(), config, None)
}

/// One request: its path, and the authorization it had.
pub(crate) type Seen = Arc<Mutex<Vec<(String, Option<String>)>>>;

/// Serves a folder; what begins with `/from/` is sent to `to` instead.
pub(crate) async fn serve(folder: PathBuf, to: Option<String>) -> (String, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let requests = Seen::default();
    let request_log = Arc::clone(&requests);
    task::spawn("server", async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut chunk = vec![0; 4096];
                match stream.read(&mut chunk).await {
                    Ok(n) if n > 0 => head.extend_from_slice(&chunk[..n]),
                    _ => break,
                }
            }
            let head = String::from_utf8_lossy(&head).into_owned();
            let Some(path) = head.split(' ').nth(1) else {
                continue;
            };
            let auth = head
                .lines()
                .find(|line| line.to_lowercase().starts_with("authorization:"));
            request_log.lock()
                .push((path.to_owned(), auth.map(str::to_owned)));
            let bare = path.split('?').next().unwrap().trim_start_matches('/');
            let answer = match (bare.strip_prefix("from/"), &to) {
                (Some(rest), Some(to)) => format!(
                    "HTTP/1.1 301 X\r\nLocation: {to}/{rest}?service=git-upload-pack\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                )
                .into_bytes(),
                _ => match std::fs::read(folder.join(bare)) {
                    Ok(bytes) => {
                        let head = format!(
                            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                            bytes.len()
                        );
                        [head.into_bytes(), bytes].concat()
                    }
                    Err(_) => {
                        b"HTTP/1.1 404 X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec()
                    }
                },
            };
            let _sent = stream.write_all(&answer).await;
        }
    })
    .detach();
    (host, requests)
}

/// A repository as plain files, which a server needs to know nothing about.
pub(crate) fn plain_repository(world: &World) -> PathBuf {
    let work = world.folder("work");
    git(&work, &["init", "-q"]);
    write(work.join("a.txt"), "one");
    git(&work, &["add", "-A"]);
    git(&work, &["commit", "-qm", "first"]);
    let served = world.folder("served");
    let bare = served.join("r.git");
    git(
        &work,
        &["clone", "-q", "--bare", ".", &bare.to_string_lossy()],
    );
    git(&bare, &["update-server-info"]);
    served
}

fn resolve(
    source: &GitSource,
    remote: &str,
    further_attrs: &[(&str, &str)],
) -> Arc<dyn SourceInstance> {
    let mut list = vec![
        ("git.fullurl", remote),
        ("git.authtokensecret", "GIT_AUTH_TOKEN"),
        ("git.authheadersecret", "GIT_AUTH_HEADER"),
    ];
    list.retain(|(name, _)| {
        further_attrs
            .iter()
            .all(|(further_name, _)| further_name != name)
    });
    list.extend_from_slice(further_attrs);
    let reference = remote.split_once("://").unwrap().1;
    source
        .resolve("git", reference, &attrs(&list), None)
        .unwrap()
}

fn of_build(ctx: &Context, session: &str, context: &str) -> Context {
    Context {
        resolved_sources: vec![ResolvedSources::of(session, context)],
        ..ctx.clone()
    }
}

/// The secret's name, the build's session and context, further attributes, and whether the host gets the secret.
type TokenCase<'a> = (String, &'a str, &'a str, &'a [(&'a str, &'a str)], bool);

#[tokio::test]
async fn a_token_goes_to_its_own_host_only() {
    let _first = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let Some(mut world) = World::new() else {
        return;
    };
    let served = plain_repository(&world);
    let (host, requests) = serve(served, None).await;
    let (evil, _) = serve(world.folder("nothing"), None).await;
    let at_host = |name: &str| format!("{name}.{host}");
    let here = format!("http://{host}/ctx.git");
    let named_secret = [("git.authtokensecret", "MINE")];
    let cases: Vec<TokenCase<'_>> = vec![
        ("GIT_AUTH_TOKEN".into(), "s", "", &[], false),
        ("GIT_AUTH_TOKEN".into(), "s", ".", &[], false),
        ("GIT_AUTH_TOKEN".into(), "s", &here, &[], true),
        (
            "GIT_AUTH_TOKEN".into(),
            "s",
            "https://github.com/a/b",
            &[],
            false,
        ),
        (
            "GIT_AUTH_TOKEN".into(),
            "s",
            "http://127.0.0.1:1/a",
            &[],
            false,
        ),
        ("GIT_AUTH_TOKEN".into(), "another", &here, &[], false),
        ("GIT_AUTH_HEADER".into(), "s", ".", &[], false),
        ("GIT_AUTH_HEADER".into(), "s", &here, &[], true),
        (at_host("GIT_AUTH_TOKEN"), "s", ".", &[], true),
        (at_host("GIT_AUTH_HEADER"), "s", ".", &[], true),
        (format!("GIT_AUTH_TOKEN.{evil}"), "s", ".", &[], false),
        ("MINE".into(), "s", ".", &named_secret, true),
    ];
    for (at, (secret, session, context, further_attrs, gets_secret)) in
        cases.into_iter().enumerate()
    {
        let mut client = Client::new(&format!("s{at}"), "/nowhere");
        client.secrets.insert(secret.clone(), CANARY.into());
        let ctx = world.connect(client);
        let session = if session == "s" {
            format!("s{at}")
        } else {
            session.into()
        };
        let ctx = of_build(&ctx, &session, context);
        let recording = Arc::new(Recording::default());
        let source = source(&world, Arc::<Recording>::clone(&recording));
        requests.lock().clear();
        let file = resolve(&source, &format!("http://{host}/r.git"), further_attrs);
        file.cache_key(&ctx, 0).await.unwrap();
        let case = format!("{secret} {context} {:?}", requests.lock());
        assert!(!requests.lock().is_empty(), "{case}");
        let had_secret = requests.lock().iter().any(|(_, auth)| auth.is_some());
        assert_eq!(had_secret, gets_secret, "{case}");
        // What cannot be had is explained, once it is known that the token is for elsewhere.
        if !gets_secret && secret == "GIT_AUTH_TOKEN" && session != "another" {
            let file = resolve(
                &source,
                &format!("http://{host}/private.git"),
                further_attrs,
            );
            let error = file.cache_key(&ctx, 0).await.unwrap_err().to_string();
            assert!(
                error.contains(&format!("give it as `GIT_AUTH_TOKEN.{host}`")),
                "{error}"
            );
        }
        for args in recording.0.lock().iter() {
            let line = args.join(" ");
            assert!(
                !line.contains(CANARY) && !line.contains("uthorization"),
                "{line}"
            );
        }
    }
}

#[tokio::test]
async fn a_redirect_takes_no_token_to_another_host() {
    let _first = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let Some(mut world) = World::new() else {
        return;
    };
    let served = plain_repository(&world);
    let (evil, stolen) = serve(served.clone(), None).await;
    let (host, _) = serve(served.clone(), Some(format!("http://{evil}"))).await;
    let (same, requests) = serve(served, Some(String::new())).await;
    let mut client = Client::new("s", "/nowhere");
    for host in [&host, &same] {
        client
            .secrets
            .insert(format!("GIT_AUTH_TOKEN.{host}"), CANARY.into());
    }
    let ctx = world.connect(client);
    let source = source(&world, Arc::new(HostGit));
    let credentials = ["", "user:CANARY-pass@"];
    for user in credentials {
        let file = resolve(&source, &format!("http://{user}{host}/from/r.git"), &[]);
        let error = file.cache_key(&ctx, 0).await.unwrap_err().to_string();
        assert!(
            error.contains(&format!("http://{host} redirects to http://{evil}")),
            "{error}"
        );
        assert!(!error.contains("CANARY"), "{error}");
        assert!(stolen.lock().is_empty(), "{:?}", stolen.lock());
        // On the same host it is followed, and the token goes along.
        let file = resolve(&source, &format!("http://{user}{same}/from/r.git"), &[]);
        file.cache_key(&ctx, 0).await.unwrap();
        let checkout = file.snapshot(&ctx).await.unwrap().unwrap();
        assert_eq!(files(&checkout), listed(&[("a.txt", "one")]));
        assert!(
            requests
                .lock()
                .iter()
                .any(|(path, auth)| path.starts_with("/r.git/") && auth.is_some())
        );
    }
    // Without credentials a redirect is what it is for anybody.
    let (open, _) = serve(world.folder("none"), Some(format!("http://{evil}"))).await;
    let file = resolve(&source, &format!("http://{open}/from/r.git"), &[]);
    file.cache_key(&ctx, 0).await.unwrap();
    assert!(stolen.lock().iter().all(|(_, auth)| auth.is_none()));
}

#[tokio::test]
async fn credentials_of_an_address_are_in_no_argument_description_file_or_error() {
    let _first = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let Some(world) = World::new() else { return };
    let served = plain_repository(&world);
    let (host, requests) = serve(served, None).await;
    let recording = Arc::new(Recording::default());
    let source = source(&world, Arc::<Recording>::clone(&recording));
    let ctx = world.alone();
    let remote = format!("http://CANARY-user:CANARY-pass@{host}/r.git");
    let file = resolve(&source, &remote, &[("git.keepgitdir", "true")]);
    file.cache_key(&ctx, 0).await.unwrap();
    let checkout = file.snapshot(&ctx).await.unwrap().unwrap();
    assert!(
        requests.lock().iter().all(|(_, auth)| auth
            .as_ref()
            .is_some_and(|a| a.ends_with("Q0FOQVJZLXVzZXI6Q0FOQVJZLXBhc3M="))),
        "{:?}",
        requests.lock()
    );
    for args in recording.0.lock().iter() {
        assert!(!args.join(" ").contains("CANARY"), "{args:?}");
    }
    let absent = resolve(&source, &remote.replace("/r.git", "/none.git"), &[]);
    let error = absent.cache_key(&ctx, 0).await.unwrap_err();
    assert!(!format!("{error} {error:?}").contains("CANARY"), "{error}");
    drop(checkout);
    let mut places = vec![world.dir.path().to_owned()];
    while let Some(place) = places.pop() {
        for entry in std::fs::read_dir(&place).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.is_symlink() {
                places.push(path);
            } else if let Ok(bytes) = std::fs::read(&path) {
                let has = bytes.windows(6).any(|w| w == b"CANARY");
                assert!(!has, "{}", path.display());
            }
        }
    }
}

#[tokio::test]
async fn what_strangers_name_is_no_option_of_git() {
    let Some(world) = World::new() else { return };
    let source = source(&world, Arc::new(HostGit));
    for (reference, list) in [
        ("h.example/r#--upload-pack=/tmp/evil", vec![]),
        ("h.example/r#-x", vec![]),
        ("h.example/r#a b", vec![]),
        ("h.example/r#a^{tree}", vec![]),
        ("h.example/r#*", vec![]),
        ("-oProxyCommand=x/r", vec![]),
        ("h.example/r", vec![("git.fullurl", "ext::sh -c x")]),
        ("h.example/r", vec![("git.fullurl", "file:///etc")]),
        (
            "h.example/r",
            vec![("git.fullurl", "ssh://-oProxyCommand=x/r")],
        ),
    ] {
        let resolved = source.resolve("git", reference, &attrs(&list), None);
        assert!(resolved.is_err(), "{reference} {list:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_remote_that_says_nothing_ends_in_an_error_with_its_name() {
    let Some(world) = World::new() else { return };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap();
    let source = source(&world, Arc::new(HostGit));
    for scheme in ["git", "http"] {
        let file = resolve(&source, &format!("{scheme}://{host}/r"), &[]);
        let error = file.cache_key(&world.alone(), 0).await.unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains(&format!("{host} said nothing for 120s"))
                || error.contains(&format!("{host} was not done within 120s")),
            "{error}"
        );
    }
    drop(listener);
}

/// A repository in which a branch and a tag have one name, and its commits: first, the tag's; second, the branch's.
fn twins(path: &Path) -> [String; 2] {
    git(path, &["init", "-q"]);
    write(path.join("a.txt"), "tag");
    git(path, &["add", "-A"]);
    git(path, &["commit", "-qm", "first"]);
    git(path, &["tag", "v1"]);
    let first_commit = git(path, &["rev-parse", "HEAD"]);
    git(path, &["checkout", "-qb", "v1"]);
    write(path.join("a.txt"), "branch");
    git(path, &["commit", "-qam", "second"]);
    [first_commit, git(path, &["rev-parse", "HEAD"])]
}

#[tokio::test]
async fn a_branch_and_a_tag_of_one_name_are_told_apart_and_short_commits_are_found() {
    let Some(world) = World::new() else { return };
    let repos = world.folder("repos");
    let repo = world.folder("repos/r");
    let [first_commit, second_commit] = twins(&repo);
    let server = crate::git::daemon(&repos);
    let source = source(&world, Arc::new(HostGit));
    let remote = format!("git://{}/r", server.address);
    for (fragment, commit, content) in [
        ("v1", &first_commit, "tag"),
        ("refs/heads/v1", &second_commit, "branch"),
        ("refs/tags/v1", &first_commit, "tag"),
        ("heads/v1", &second_commit, "branch"),
        (&first_commit[..8], &first_commit, "tag"),
        (&second_commit[..7], &second_commit, "branch"),
        (&second_commit, &second_commit, "branch"),
    ] {
        for keeps_git_dir in [false, true] {
            let reference = format!("{}/r#{fragment}", server.address);
            let keep_git_dir = keeps_git_dir.to_string();
            let list = attrs(&[("git.fullurl", &remote), ("git.keepgitdir", &keep_git_dir)]);
            let file = source.resolve("git", &reference, &list, None).unwrap();
            let ctx = world.alone();
            let key = file.cache_key(&ctx, 0).await.unwrap();
            assert_eq!(&key.pin, commit, "{fragment}");
            let checkout = file.snapshot(&ctx).await.unwrap().unwrap();
            let content_of = checkout.root().unwrap().read("a.txt", 100).unwrap();
            assert_eq!(content_of, content.as_bytes(), "{fragment} {keeps_git_dir}");
            if !keeps_git_dir {
                continue;
            }
            let names: Vec<_> = ["heads/v1", "tags/v1"]
                .into_iter()
                .filter(|name| {
                    let path = format!(".git/refs/{name}");
                    checkout.root().unwrap().lstat_opt(&path).unwrap().is_some()
                })
                .collect();
            assert!(names.len() <= 1, "{fragment}: {names:?}");
            let head = checkout.root().unwrap().read(".git/HEAD", 100).unwrap();
            assert_eq!(
                String::from_utf8(head).unwrap().trim(),
                commit.as_str(),
                "{fragment}"
            );
        }
    }
    let file = resolve(&source, &format!("{remote}#abcdef12"), &[]);
    let error = file.cache_key(&world.alone(), 0).await.unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("repository does not contain ref abcdef12"),
        "{error}"
    );
}

#[tokio::test]
async fn a_short_commit_is_not_looked_for_on_a_server_of_plain_files() {
    let Some(world) = World::new() else { return };
    let repo = world.folder("repos/r");
    let [first_commit, _] = twins(&repo);
    git(&repo, &["update-server-info"]);
    let (host, _seen) = serve(world.dir.path().join("repos"), None).await;
    let source = source(&world, Arc::new(HostGit));
    let short = &first_commit[..8];
    let file = resolve(&source, &format!("http://{host}/r/.git#{short}"), &[]);
    let error = file.cache_key(&world.alone(), 0).await.unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with(&format!("repository does not contain ref {short}")),
        "{error}"
    );
}
