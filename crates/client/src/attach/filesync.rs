//! `FileSync`: the daemon reads folders that were named.

use session::wire;
use std::collections::BTreeMap;
use std::sync::Arc;

use futures::stream::{BoxStream, StreamExt};
use proto::fsutil;
use services::filesync::file_sync_server;
use session::diffcopy::{CallSide, Filter, FilteredTree, Root, SendOptions, follow_links, send};
use session::stream::PACKETS_IN_FLIGHT;
use session::{PacketStream, TransferShare, header};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use crate::attach::Folder;

/// The folders.
#[derive(Debug)]
pub(crate) struct FileSync {
    folders: BTreeMap<String, Folder>,
    share: Arc<TransferShare>,
}

impl FileSync {
    pub(crate) fn new(folders: BTreeMap<String, Folder>) -> Self {
        Self {
            folders,
            share: TransferShare::of_client(),
        }
    }
}

/// What of a folder is sent: what the daemon asks for, or the files that were named.
fn filter(folder: &Folder, root: &Root, metadata: &MetadataMap) -> Result<Filter, Status> {
    if folder.only.is_empty() {
        return Ok(Filter {
            include: list(metadata, header::INCLUDE),
            exclude: list(metadata, header::EXCLUDE),
            follow: list(metadata, header::FOLLOW),
        });
    }
    let failed = |e| Status::unknown(format!("cannot follow links: {e}"));
    // A link to the folder itself is no reason to send all of it.
    let targets = follow_links(root, &folder.only).map_err(failed)?;
    Ok(Filter {
        include: targets.unwrap_or_else(|| folder.only.clone()),
        ..Filter::default()
    })
}

/// All values of a header, with the escapes taken out.
fn list(metadata: &MetadataMap, key: &str) -> Vec<String> {
    let encoded = metadata
        .get(format!("{key}-encoded"))
        .and_then(|v| v.to_str().ok())
        .is_some_and(gostd::strconv::is_true);
    metadata
        .get_all(key)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .map(|v| header::decode(v, encoded))
        .collect()
}

/// The call's two streams as the driver of file sync wants them.
pub(crate) fn packets(
    incoming: Streaming<fsutil::Packet>,
) -> (PacketStream, mpsc::Receiver<session::Packet>) {
    let (outgoing, from_us) = mpsc::channel(PACKETS_IN_FLIGHT);
    let incoming = incoming
        .map(|p| {
            p.map_err(|status| session::CallError::Status {
                code: i32::from(status.code()),
                message: status.message().to_owned(),
                details: bytes::Bytes::new(),
            })
            .and_then(wire::from_wire)
        })
        .boxed();
    (PacketStream { incoming, outgoing }, from_us)
}

#[tonic::async_trait]
impl file_sync_server::FileSync for FileSync {
    type DiffCopyStream = BoxStream<'static, Result<fsutil::Packet, Status>>;

    async fn diff_copy(
        &self,
        request: Request<Streaming<fsutil::Packet>>,
    ) -> Result<Response<Self::DiffCopyStream>, Status> {
        let metadata = request.metadata();
        let name = list(metadata, header::DIR_NAME)
            .into_iter()
            .next()
            .unwrap_or_default();
        let folder = self
            .folders
            .get(&name)
            .ok_or_else(|| Status::not_found(format!("no access allowed to dir {name:?}")))?;
        let root = Root::open(&folder.path).map_err(|e| match e.is_not_found() {
            true => Status::not_found(e.to_string()),
            // Not found means that there is nothing: whoever hears it goes on without an ignore file.
            false => Status::unknown(e.to_string()),
        })?;
        let filter = filter(folder, &root, metadata)?;
        // Only asked for by daemons that take the marks out again: elsewhere they would be part of the files.
        let change_marks = metadata.contains_key(header::CHANGE_MARKS);
        let tree = FilteredTree {
            root,
            filter,
            // Owners of this machine mean nothing in an image.
            map: Some(Arc::new(|stat| {
                stat.uid = 0;
                stat.gid = 0;
                true
            })),
            change_marks,
        };
        let options = SendOptions {
            name,
            side: CallSide::Callee,
            share: Arc::clone(&self.share),
            progress: None,
        };
        let (stream, from_us) = packets(request.into_inner());
        let sending = task::spawn("send folder", send(stream, Arc::new(tree), options));
        let end = futures::stream::once(sending).filter_map(|sent| async move {
            sent.err().map(|e| Err(Status::unknown(e.to_string())))
        });
        Ok(Response::new(
            ReceiverStream::new(from_us)
                .map(|p| Ok(wire::to_wire(p)))
                .chain(end)
                .boxed(),
        ))
    }

    type TarStreamStream = BoxStream<'static, Result<fsutil::Packet, Status>>;

    async fn tar_stream(
        &self,
        _request: Request<Streaming<fsutil::Packet>>,
    ) -> Result<Response<Self::TarStreamStream>, Status> {
        Err(Status::unimplemented("method TarStream not implemented"))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use fsutil::packet::PacketType;
    use services::filesync::file_sync_client::FileSyncClient;
    use services::filesync::file_sync_server::FileSyncServer;
    use tonic::transport::{Channel, Endpoint, Server};

    use super::*;

    type TestResult = Result<(), Box<dyn std::error::Error>>;

    async fn serve(
        folders: BTreeMap<String, Folder>,
    ) -> Result<FileSyncClient<Channel>, tonic::transport::Error> {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let incoming = futures::stream::once(async { Ok::<_, std::io::Error>(ours) })
            .chain(futures::stream::pending());
        let server = Server::builder().add_service(FileSyncServer::new(FileSync::new(folders)));
        task::spawn("server", server.serve_with_incoming(incoming)).detach();
        let mut theirs = Some(theirs);
        let channel = Endpoint::from_static("http://x")
            .connect_with_connector(tower::service_fn(move |_| {
                let io = theirs.take().map(hyper_util::rt::TokioIo::new);
                async move { io.ok_or_else(|| std::io::Error::other("once")) }
            }))
            .await?;
        Ok(FileSyncClient::new(channel))
    }

    /// Lists a folder as the reference's receiver does: its half stays open until the answer has ended.
    async fn listed(
        client: &mut FileSyncClient<Channel>,
        headers: &[(&'static str, &str)],
    ) -> Result<Vec<(String, bool)>, Status> {
        let (to, packets) = mpsc::channel(8);
        let mut call = Request::new(ReceiverStream::new(packets));
        for (key, value) in headers {
            let value = value.parse().map_err(|_| Status::internal("header"))?;
            call.metadata_mut().append(*key, value);
        }
        let mut answer = client.diff_copy(call).await?.into_inner();
        let mut names = Vec::new();
        while let Some(packet) = answer.message().await? {
            match packet.stat {
                Some(stat) => names.push((
                    String::from_utf8_lossy(&stat.path).into_owned(),
                    !stat.xattrs.is_empty(),
                )),
                None if packet.r#type() == PacketType::PacketStat => {
                    let mut fin = fsutil::Packet::default();
                    fin.set_type(PacketType::PacketFin);
                    let _sent = to.send(fin).await;
                }
                None => {}
            }
        }
        drop(to);
        Ok(names)
    }

    #[tokio::test]
    async fn the_answer_ends_after_fin_while_the_daemon_keeps_its_half_open() -> TestResult {
        let dir = tempfile::tempdir()?;
        std::fs::write(dir.path().join("f"), "x")?;
        let folders = BTreeMap::from([("context".to_owned(), dir.path().to_owned().into())]);
        let mut client = serve(folders).await?;
        let ended = listed(&mut client, &[(header::DIR_NAME, "context")]);
        let names = tokio::time::timeout(Duration::from_secs(30), ended).await??;
        assert_eq!(names, [("f".to_owned(), false)], "nobody asked for marks");
        let with_marks = [(header::DIR_NAME, "context"), (header::CHANGE_MARKS, "1")];
        let names = listed(&mut client, &with_marks).await?;
        assert_eq!(names, [("f".to_owned(), true)]);
        Ok(())
    }

    #[tokio::test]
    async fn only_what_was_named_is_sent_whatever_is_asked_for() -> TestResult {
        let dir = tempfile::tempdir()?;
        let home = dir.path().join("home");
        std::fs::create_dir(&home)?;
        std::fs::write(dir.path().join("outside"), "x")?;
        for name in ["Dockerfile", "secret", "real"] {
            std::fs::write(home.join(name), "x")?;
        }
        std::os::unix::fs::symlink("real", home.join("Dockerfile.dockerignore"))?;
        std::os::unix::fs::symlink("..", home.join("up"))?;
        let only = |names: &[&str]| Folder {
            path: home.clone(),
            only: names.iter().map(|n| (*n).to_owned()).collect(),
        };
        let folders = BTreeMap::from([
            (
                "dockerfile".to_owned(),
                only(&["Dockerfile", "Dockerfile.dockerignore"]),
            ),
            ("loop".to_owned(), only(&["up"])),
            ("all".to_owned(), home.clone().into()),
        ]);
        let mut client = serve(folders).await?;
        let dockerfiles = &["Dockerfile", "Dockerfile.dockerignore", "real"][..];
        let all = &[
            "Dockerfile",
            "Dockerfile.dockerignore",
            "real",
            "secret",
            "up",
        ][..];
        type Headers<'a> = &'a [(&'static str, &'a str)];
        let attacks: [(Headers<'_>, Option<&[&str]>); 9] = [
            (&[(header::DIR_NAME, "dockerfile")], Some(dockerfiles)),
            (
                &[(header::DIR_NAME, "dockerfile"), (header::INCLUDE, "**")],
                Some(dockerfiles),
            ),
            (
                &[(header::DIR_NAME, "dockerfile"), (header::FOLLOW, "secret")],
                Some(dockerfiles),
            ),
            (
                &[(header::DIR_NAME, "loop"), (header::INCLUDE, "**")],
                Some(&["up"]),
            ),
            (
                &[(header::DIR_NAME, "all"), (header::FOLLOW, "../outside")],
                Some(&[]),
            ),
            (
                &[(header::DIR_NAME, "all"), (header::FOLLOW, "up/outside")],
                Some(&["up"]),
            ),
            (
                &[(header::DIR_NAME, "all"), (header::INCLUDE, "**")],
                Some(all),
            ),
            (&[(header::DIR_NAME, "/etc")], None),
            (&[(header::DIR_NAME, "../home")], None),
        ];
        for (headers, want) in attacks {
            let names = listed(&mut client, headers).await;
            let names = names
                .ok()
                .map(|names| names.into_iter().map(|n| n.0).collect::<Vec<_>>());
            let want = want.map(|names| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>());
            assert_eq!(names, want, "{headers:?}");
        }
        Ok(())
    }
}
