//! `FileSend`: results come to us, as bytes or as a tree.
//!
//! The method is declared with byte messages, but speaks file-sync packets when the target is a folder; so the codec is chosen
//! by the exporter's number before the first message is read.

use session::wire;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use futures::stream::{BoxStream, StreamExt};
use proto::filesync::BytesMessage;
use proto::fsutil::Packet;
use services::codec::Codec;
use session::diffcopy::compare::Compare;
use session::diffcopy::{CallSide, MapStat, ReceiveOptions, Root, receive};
use session::{TransferShare, header};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::codegen::http;
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::{Request, Response, Status, Streaming};

use crate::attach::filesync::packets;
use crate::attach::{FileTarget, FolderTarget, Target};

/// The targets.
#[derive(Debug, Clone)]
pub(crate) struct FileSend {
    targets: Arc<BTreeMap<usize, Target>>,
    owner: Option<(u32, u32)>,
    share: Arc<TransferShare>,
}

impl FileSend {
    pub(crate) fn new(targets: BTreeMap<usize, Target>, owner: Option<(u32, u32)>) -> Self {
        Self {
            targets: Arc::new(targets),
            owner,
            share: TransferShare::of_client(),
        }
    }

    fn target(&self, headers: &http::HeaderMap) -> Option<Target> {
        let id = match headers.get(header::EXPORTER_ID) {
            Some(value) => value.to_str().ok()?.parse().ok()?,
            // Old daemons know a single exporter.
            None => 0,
        };
        self.targets.get(&id).cloned()
    }
}

impl NamedService for FileSend {
    const NAME: &'static str = "moby.filesync.v1.FileSend";
}

impl tower::Service<http::Request<Body>> for FileSend {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let target = self.target(request.headers());
        let is_known_method = request.uri().path() == session::method::FILE_SEND;
        let (owner, share) = (self.owner, Arc::clone(&self.share));
        Box::pin(async move {
            let limit = Some(proto::MAX_MESSAGE);
            Ok(match target {
                _ if !is_known_method => Status::unimplemented("unknown method").into_http(),
                Some(Target::Folder(folder)) => {
                    let taker = TakeTree {
                        folder,
                        owner,
                        share,
                    };
                    tree(taker, request).await
                }
                Some(Target::Bytes(target)) => {
                    Grpc::new(Codec::<BytesMessage, BytesMessage>::default())
                        .apply_max_message_size_config(limit, None)
                        .streaming(TakeBytes { target }, request)
                        .await
                }
                None => Status::not_found("no target for this exporter").into_http(),
            })
        })
    }
}

async fn tree(taker: TakeTree, request: http::Request<Body>) -> http::Response<Body> {
    Grpc::new(Codec::<Packet, Packet>::default())
        .apply_max_message_size_config(Some(proto::MAX_MESSAGE), None)
        .streaming(taker, request)
        .await
}

type Answer<T> = Result<Response<BoxStream<'static, Result<T, Status>>>, Status>;

struct TakeTree {
    folder: FolderTarget,
    owner: Option<(u32, u32)>,
    share: Arc<TransferShare>,
}

/// What is changed of the files that come: they are ours, and no file gets rights on this machine unless the user wants that.
// DIFFERS: the reference's client writes device files and set-user-id bits as they come.
fn map(folder: &FolderTarget, owner: Option<(u32, u32)>) -> MapStat {
    let left_out = (!folder.special).then(|| folder.left_out.clone());
    Arc::new(move |stat| {
        if let Some((uid, gid)) = owner {
            stat.uid = uid;
            stat.gid = gid;
        }
        left_out.as_ref().is_none_or(|l| l.take_from(stat))
    })
}

impl StreamingService<Packet> for TakeTree {
    type Response = Packet;
    type ResponseStream = BoxStream<'static, Result<Packet, Status>>;
    type Future = BoxFuture<'static, Answer<Packet>>;

    fn call(&mut self, request: Request<Streaming<Packet>>) -> Self::Future {
        let (folder, owner, share) = (self.folder.clone(), self.owner, Arc::clone(&self.share));
        Box::pin(async move {
            let path = &folder.path;
            let failed = |e: &dyn std::fmt::Display| {
                Status::unknown(format!("failed to write to {}: {e}", path.display()))
            };
            std::fs::create_dir_all(path).map_err(|e| failed(&e))?;
            let root = Root::open(path).map_err(|e| failed(&e))?;
            let options = ReceiveOptions {
                name: format!("cannot write to {}", path.display()),
                side: CallSide::Callee,
                share,
                merge: !folder.mirror,
                // A file that only looks like the one in the folder is not that one.
                compare: Compare::Nothing,
                map: Some(map(&folder, owner)),
                ..ReceiveOptions::default()
            };
            let (stream, from_us) = packets(request.into_inner());
            let taking = task::spawn("take tree", receive(stream, root, options));
            let end = futures::stream::once(taking).filter_map(|taken| async move {
                taken.err().map(|e| Err(Status::unknown(e.to_string())))
            });
            let answers = ReceiverStream::new(from_us).map(|p| Ok(wire::to_wire(p)));
            Ok(Response::new(answers.chain(end).boxed()))
        })
    }
}

struct TakeBytes {
    target: FileTarget,
}

impl StreamingService<BytesMessage> for TakeBytes {
    type Response = BytesMessage;
    type ResponseStream = BoxStream<'static, Result<BytesMessage, Status>>;
    type Future = BoxFuture<'static, Answer<BytesMessage>>;

    fn call(&mut self, request: Request<Streaming<BytesMessage>>) -> Self::Future {
        let target = self.target.clone();
        Box::pin(async move {
            let taking = task::spawn("take file", async move {
                take(&target, request.into_inner()).await
            });
            let end = futures::stream::once(taking)
                .filter_map(|taken| async move { taken.err().map(Err) });
            Ok(Response::new(end.boxed()))
        })
    }
}

fn io_failed(what: &str) -> impl Fn(std::io::Error) -> Status + '_ {
    move |e| Status::unknown(format!("{what}: {e}"))
}

async fn take(target: &FileTarget, from: Streaming<BytesMessage>) -> Result<(), Status> {
    match target {
        FileTarget::Stdout => copy(from, &mut tokio::io::stdout(), "stdout").await,
        FileTarget::File(path) => take_file(path, from).await,
        FileTarget::Program(argv) => take_program(argv, from).await,
    }
}

async fn copy(
    mut from: Streaming<BytesMessage>,
    to: &mut (impl AsyncWrite + Unpin),
    what: &str,
) -> Result<(), Status> {
    while let Some(message) = from.message().await? {
        to.write_all(&message.data).await.map_err(io_failed(what))?;
    }
    to.flush().await.map_err(io_failed(what))
}

// Written beside the target and renamed at the end, so that a failed build leaves the old file alone.
async fn take_file(path: &Path, from: Streaming<BytesMessage>) -> Result<(), Status> {
    let what = format!("failed to write {}", path.display());
    let special = std::fs::metadata(path).is_ok_and(|m| !m.is_file());
    if special {
        let mut file = tokio::fs::OpenOptions::new()
            .write(true)
            .open(path)
            .await
            .map_err(io_failed(&what))?;
        return copy(from, &mut file, &what).await;
    }
    let (file, part) = beside(path).map_err(io_failed(&what))?.into_parts();
    let file = tokio::fs::File::from_std(file);
    let mut file = tokio::io::BufWriter::with_capacity(1 << 20, file);
    copy(from, &mut file, &what).await?;
    drop(file);
    part.persist(path).map_err(|e| io_failed(&what)(e.error))
}

/// A new file beside the target, of a name that nobody can know before: what lies there is neither followed nor written.
fn beside(path: &Path) -> std::io::Result<tempfile::NamedTempFile> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
    let parent = parent.unwrap_or_else(|| Path::new("."));
    std::fs::create_dir_all(parent)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".");
    tempfile::Builder::new()
        .prefix(&name)
        .suffix(".part")
        .permissions(std::fs::Permissions::from_mode(0o666))
        .tempfile_in(parent)
}

async fn take_program(argv: &[String], from: Streaming<BytesMessage>) -> Result<(), Status> {
    let Some((program, args)) = argv.split_first() else {
        return Err(Status::invalid_argument("no program"));
    };
    let mut child = tokio::process::Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(io_failed(program))?;
    let stdin = child.stdin.take();
    let fed = task::spawn("feed program", async move {
        match stdin {
            Some(mut stdin) => copy(from, &mut stdin, "standard input").await,
            None => Ok(()),
        }
    });
    // Its standard error is read all the while: a program that cannot write there would not end.
    let (fed, ended) = tokio::join!(fed, child.wait_with_output());
    let ended = ended.map_err(io_failed(program))?;
    if ended.status.success() {
        return fed;
    }
    // Its error is reported before the broken pipe.
    let stderr = String::from_utf8_lossy(&ended.stderr);
    let stderr = stderr.trim();
    Err(Status::unknown(if stderr.is_empty() {
        format!("{}: {}", argv.join(" "), ended.status)
    } else {
        format!("{}: {stderr}", argv.join(" "))
    }))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{FileTypeExt as _, symlink};

    use session::diffcopy::Stat;
    use session::diffcopy::stat::{
        MODE_CHAR_DEVICE, MODE_DEVICE, MODE_DIR, MODE_SETGID, MODE_SETUID, MODE_SYMLINK,
    };
    use session::{Packet as P, PacketStream};

    use super::*;
    use crate::attach::LeftOutFiles;

    type TestResult = Result<(), Box<dyn std::error::Error>>;

    fn stat(path: &str, mode: u32, link: &str) -> Stat {
        Stat {
            path: path.into(),
            mode,
            linkname: link.into(),
            ..Stat::default()
        }
    }

    // What a daemon sends into a folder: the list, then every file with the text "sent".
    async fn sent_into(folder: &FolderTarget, list: Vec<Stat>) -> Result<(), String> {
        let (mut daemon, client) = PacketStream::pair();
        let options = ReceiveOptions {
            side: CallSide::Callee,
            merge: !folder.mirror,
            compare: Compare::Nothing,
            map: Some(map(folder, None)),
            ..ReceiveOptions::default()
        };
        let root = Root::open(&folder.path).map_err(|e| e.to_string())?;
        let sending = async move {
            for stat in list {
                let size = if stat.is_file() { 4 } else { 0 };
                let stat = Box::new(Stat { size, ..stat });
                let _gone = daemon.outgoing.send(P::Stat(Some(stat))).await;
            }
            let _gone = daemon.outgoing.send(P::Stat(None)).await;
            while let Some(Ok(packet)) = daemon.incoming.next().await {
                match packet {
                    P::Req(id) => {
                        for bytes in ["sent", ""] {
                            let bytes = bytes.into();
                            let _gone = daemon.outgoing.send(P::Data { id, bytes }).await;
                        }
                    }
                    P::Fin => {
                        let _gone = daemon.outgoing.send(P::Fin).await;
                    }
                    P::Stat(_) | P::Data { .. } | P::Err(_) => break,
                }
            }
        };
        let (done, ()) = tokio::join!(receive(client, root, options), sending);
        done.map(|_| ()).map_err(|e| e.to_string())
    }

    #[tokio::test]
    async fn files_of_a_daemon_get_no_rights_on_this_machine_unless_asked_for() -> TestResult {
        use std::os::unix::fs::MetadataExt as _;
        let dir = tempfile::tempdir()?;
        let list = || {
            let mut capable = stat("d-cap", 0o755, "");
            capable
                .xattrs
                .insert("security.capability".into(), vec![1; 20]);
            capable.xattrs.insert("user.kept".into(), b"x".to_vec());
            vec![
                stat("a-null", MODE_DEVICE | MODE_CHAR_DEVICE | 0o666, ""),
                stat("b-again", MODE_DEVICE | MODE_CHAR_DEVICE | 0o666, "a-null"),
                stat("c-su", MODE_SETUID | MODE_SETGID | 0o755, ""),
                capable,
                stat("e-group", MODE_DIR | MODE_SETGID | 0o755, ""),
            ]
        };
        let folder = FolderTarget {
            path: dir.path().to_owned(),
            ..FolderTarget::default()
        };
        sent_into(&folder, list()).await?;
        let mode = |name: &str| fs::metadata(dir.path().join(name)).map(|m| m.mode() & 0o7777);
        assert!(mode("a-null").is_err() && mode("b-again").is_err());
        assert_eq!((mode("c-su")?, mode("e-group")?), (0o755, 0o2755));
        let attributes = Root::open(dir.path())?.dir("/")?.xattrs("d-cap".as_ref())?;
        assert!(
            !attributes.contains_key("security.capability"),
            "{attributes:?}"
        );
        let left_out = LeftOutFiles {
            devices: 2,
            privileged: 2,
            first: Some("a-null".into()),
        };
        assert_eq!(folder.left_out.files(), left_out);

        // Only root may make devices, with the user's leave.
        let with_special = FolderTarget {
            special: true,
            ..folder.clone()
        };
        let sent = sent_into(&with_special, list()).await;
        if sent.is_ok() {
            let device = fs::metadata(dir.path().join("a-null"))?;
            assert!(device.file_type().is_char_device());
            assert_eq!(mode("c-su")?, 0o6755);
        } else {
            assert!(sent.is_err_and(|e| e.contains("a-null")));
        }
        Ok(())
    }

    #[tokio::test]
    async fn a_file_that_looks_like_the_one_that_is_there_takes_its_place() -> TestResult {
        let dir = tempfile::tempdir()?;
        fs::create_dir(dir.path().join("d"))?;
        for mirror in [false, true] {
            for (name, text) in [("file", "old!"), ("gone", "old!"), ("d/kept", "kept")] {
                fs::write(dir.path().join(name), text)?;
                let file = fs::File::open(dir.path().join(name))?;
                file.set_modified(std::time::UNIX_EPOCH)?;
            }
            let folder = FolderTarget {
                path: dir.path().to_owned(),
                mirror,
                ..FolderTarget::default()
            };
            use std::os::unix::fs::MetadataExt as _;
            let there = fs::metadata(dir.path().join("file"))?;
            let like = Stat {
                uid: there.uid(),
                gid: there.gid(),
                ..stat("file", there.mode() & 0o777, "")
            };
            sent_into(&folder, vec![stat("d", MODE_DIR | 0o755, ""), like]).await?;
            assert_eq!(fs::read_to_string(dir.path().join("file"))?, "sent");
            assert_eq!(dir.path().join("gone").exists(), !mirror);
            assert_eq!(dir.path().join("d/kept").exists(), !mirror);
        }
        Ok(())
    }

    #[tokio::test]
    async fn nothing_is_written_outside_the_folder_through_any_link() -> TestResult {
        let all = tempfile::tempdir()?;
        let (inside, outside) = (all.path().join("in"), all.path().join("out"));
        fs::create_dir_all(inside.join("real"))?;
        fs::create_dir(&outside)?;
        fs::write(outside.join("file"), "kept")?;
        // Links that are there before, to a folder and to a file.
        symlink("../out", inside.join("dir"))?;
        symlink("../out/file", inside.join("file"))?;
        symlink(&outside, inside.join("real/up"))?;
        for mirror in [false, true] {
            let folder = FolderTarget {
                path: inside.clone(),
                mirror,
                ..FolderTarget::default()
            };
            let attacks = [
                vec![
                    stat("dir", MODE_DIR | 0o755, ""),
                    stat("dir/file", 0o644, ""),
                ],
                vec![stat("file", 0o644, "")],
                vec![stat("dir/file", 0o644, "")],
                vec![
                    stat("planted", MODE_SYMLINK | 0o777, "../out"),
                    stat("planted/file", 0o644, ""),
                ],
                vec![
                    stat("real", MODE_DIR | 0o755, ""),
                    stat("real/up", MODE_DIR | 0o755, ""),
                    stat("real/up/file", 0o644, ""),
                ],
                vec![
                    stat("x", MODE_SYMLINK | 0o777, "../out/file"),
                    stat("y", 0o644, "x"),
                ],
                vec![stat("../out/file", 0o644, "")],
            ];
            for list in attacks {
                let what = format!("{list:?}");
                let _refused_or_inside = sent_into(&folder, list).await;
                assert_eq!(fs::read_to_string(outside.join("file"))?, "kept", "{what}");
                assert_eq!(fs::read_dir(&outside)?.count(), 1, "{what}");
                fs::create_dir_all(inside.join("real"))?;
                for (link, target) in [
                    ("dir", "../out"),
                    ("file", "../out/file"),
                    ("real/up", "../../out"),
                ] {
                    let link = inside.join(link);
                    if link.is_dir() && !link.is_symlink() {
                        fs::remove_dir_all(&link)?;
                    }
                    let _there = fs::remove_file(&link);
                    symlink(target, &link)?;
                }
            }
        }
        Ok(())
    }

    #[test]
    fn the_file_beside_the_target_is_a_new_one() -> TestResult {
        let dir = tempfile::tempdir()?;
        let target = dir.path().join("image.tar");
        let victim = dir.path().join("victim");
        fs::write(&victim, "kept")?;
        for name in [
            format!("image.tar.{}.part", std::process::id()),
            "image.tar.part".into(),
        ] {
            symlink(&victim, dir.path().join(name))?;
        }
        let parts: Vec<_> = (0..2).map(|_| beside(&target)).collect::<Result<_, _>>()?;
        for mut part in parts {
            assert!(part.path().symlink_metadata()?.is_file());
            std::io::Write::write_all(&mut part, b"sent")?;
            part.persist(&target)?;
        }
        assert_eq!(fs::read_to_string(&victim)?, "kept");
        assert_eq!(fs::read_to_string(&target)?, "sent");
        Ok(())
    }
}
