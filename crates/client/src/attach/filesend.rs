//! `FileSend`: results come to us, as bytes or as a tree.
//!
//! The method is declared with byte messages, but speaks file-sync packets when the target is a folder; so the codec is chosen
//! by the exporter's number before the first message is read.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use futures::stream::{BoxStream, StreamExt};
use proto::filesync::BytesMessage;
use proto::fsutil::Packet;
use session::diffcopy::{ReceiveOptions, Root, receive};
use session::header;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::codegen::http;
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::attach::filesync::packets;
use crate::attach::{FileTarget, Target};
use crate::packet;

/// The targets.
#[derive(Debug, Clone)]
pub(crate) struct FileSend {
    targets: Arc<BTreeMap<usize, Target>>,
    owner: Option<(u32, u32)>,
}

impl FileSend {
    pub(crate) fn new(targets: BTreeMap<usize, Target>, owner: Option<(u32, u32)>) -> Self {
        Self {
            targets: Arc::new(targets),
            owner,
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
        let known = request.uri().path() == session::method::FILE_SEND;
        let owner = self.owner;
        Box::pin(async move {
            let limit = Some(proto::MAX_MESSAGE);
            Ok(match target {
                _ if !known => Status::unimplemented("unknown method").into_http(),
                Some(Target::Folder(folder)) => {
                    let merge = true;
                    tree(
                        TakeTree {
                            folder,
                            owner,
                            merge,
                        },
                        request,
                    )
                    .await
                }
                Some(Target::Mirror(folder)) => {
                    let merge = false;
                    tree(
                        TakeTree {
                            folder,
                            owner,
                            merge,
                        },
                        request,
                    )
                    .await
                }
                Some(Target::Bytes(target)) => {
                    Grpc::new(ProstCodec::<BytesMessage, BytesMessage>::default())
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
    Grpc::new(ProstCodec::<Packet, Packet>::default())
        .apply_max_message_size_config(Some(proto::MAX_MESSAGE), None)
        .streaming(taker, request)
        .await
}

type Answer<T> = Result<Response<BoxStream<'static, Result<T, Status>>>, Status>;

struct TakeTree {
    folder: PathBuf,
    owner: Option<(u32, u32)>,
    merge: bool,
}

impl StreamingService<Packet> for TakeTree {
    type Response = Packet;
    type ResponseStream = BoxStream<'static, Result<Packet, Status>>;
    type Future = BoxFuture<'static, Answer<Packet>>;

    fn call(&mut self, request: Request<Streaming<Packet>>) -> Self::Future {
        let (folder, owner, merge) = (self.folder.clone(), self.owner, self.merge);
        Box::pin(async move {
            let failed = |e: &dyn std::fmt::Display| {
                Status::unknown(format!("failed to write to {}: {e}", folder.display()))
            };
            std::fs::create_dir_all(&folder).map_err(|e| failed(&e))?;
            let root = Root::open(&folder).map_err(|e| failed(&e))?;
            let options = ReceiveOptions {
                merge,
                map: owner.map(|(uid, gid)| {
                    let map: session::diffcopy::MapStat = Arc::new(move |stat| {
                        stat.uid = uid;
                        stat.gid = gid;
                        true
                    });
                    map
                }),
                ..ReceiveOptions::default()
            };
            let (stream, from_us) = packets(request.into_inner());
            let taking = task::spawn("take tree", receive(stream, root, options));
            let end = futures::stream::once(taking).filter_map(|done| async move {
                done.err().map(|e| Err(Status::unknown(e.to_string())))
            });
            let answers = ReceiverStream::new(from_us).map(|p| Ok(packet::to_wire(p)));
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
            let end =
                futures::stream::once(taking).filter_map(|done| async move { done.err().map(Err) });
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
    if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        std::fs::create_dir_all(parent).map_err(io_failed(&what))?;
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.part", std::process::id()));
    let part = RemoveOnDrop(path.with_file_name(name));
    let file = tokio::fs::File::create(&part.0)
        .await
        .map_err(io_failed(&what))?;
    let mut file = tokio::io::BufWriter::with_capacity(1 << 20, file);
    copy(from, &mut file, &what).await?;
    drop(file);
    std::fs::rename(&part.0, path).map_err(io_failed(&what))
}

struct RemoveOnDrop(PathBuf);

impl Drop for RemoveOnDrop {
    fn drop(&mut self) {
        // Gone already when it was renamed.
        let _gone = std::fs::remove_file(&self.0);
    }
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
    // What it says matters more than that it stopped reading.
    let said = String::from_utf8_lossy(&ended.stderr);
    let said = said.trim();
    Err(Status::unknown(if said.is_empty() {
        format!("{}: {}", argv.join(" "), ended.status)
    } else {
        format!("{}: {said}", argv.join(" "))
    }))
}
