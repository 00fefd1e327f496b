//! Blobs that are written to a client's content store and read from it, where the store does not do what it should.

use ::session::BlobWrite;
use bytes::Bytes;
use proto::content::{
    AbortRequest, DeleteContentRequest, Info, InfoRequest, InfoResponse, ListContentRequest,
    ListContentResponse, ListStatusesRequest, ListStatusesResponse, ReadContentRequest,
    ReadContentResponse, StatusRequest, StatusResponse, UpdateRequest, UpdateResponse, WriteAction,
    WriteContentRequest, WriteContentResponse,
};
use services::content::content_server::{Content, ContentServer};

use super::*;

/// A content store that answers by the name in the header of the call.
#[derive(Clone)]
struct Stores {
    /// Each write as action, offset and number of bytes.
    writes: mpsc::Sender<(i32, i64, usize)>,
}

fn store_of<T>(request: &Request<T>) -> String {
    let name = request.metadata().get(header::CONTENT_STORE);
    name.and_then(|v| v.to_str().ok())
        .unwrap_or_default()
        .into()
}

fn unused<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("not in these tests"))
}

type Out<T> = BoxStream<'static, Result<T, Status>>;

#[tonic::async_trait]
impl Content for Stores {
    async fn info(&self, request: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        let store = store_of(&request);
        let mut info = Info {
            digest: request.into_inner().digest,
            size: 3,
            ..Default::default()
        };
        match store.as_str() {
            "negative" => info.size = -3,
            "nameless" => info.digest = "../x".into(),
            "empty" => return Ok(Response::new(InfoResponse { info: None })),
            _ => {}
        }
        Ok(Response::new(InfoResponse { info: Some(info) }))
    }

    type ReadStream = Out<ReadContentResponse>;
    async fn read(
        &self,
        request: Request<ReadContentRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        let request = request.into_inner();
        let data = Bytes::from(format!("{}+{}", request.offset, request.size));
        let piece = ReadContentResponse { offset: 0, data };
        let broken = Err(Status::data_loss("the disk is gone"));
        Ok(Response::new(
            futures::stream::iter([Ok(piece), broken]).boxed(),
        ))
    }

    type WriteStream = Out<WriteContentResponse>;
    async fn write(
        &self,
        request: Request<Streaming<WriteContentRequest>>,
    ) -> Result<Response<Self::WriteStream>, Status> {
        let store = store_of(&request);
        if store == "full" {
            return Err(Status::already_exists("it is there"));
        }
        let writes = self.writes.clone();
        let answers = request.into_inner().then(move |message| {
            let (store, writes) = (store.clone(), writes.clone());
            async move {
                let message = message?;
                let _ = writes
                    .send((message.action, message.offset, message.data.len()))
                    .await;
                let action = WriteAction::try_from(message.action);
                let offset = match (store.as_str(), action) {
                    ("begun", Ok(WriteAction::Stat)) => 4,
                    ("backwards", Ok(WriteAction::Stat)) => -1,
                    ("exists", Ok(WriteAction::Write)) => {
                        return Err(Status::already_exists("somebody else was faster"));
                    }
                    ("broken", Ok(WriteAction::Commit)) => {
                        return Err(Status::internal("no room for the name"));
                    }
                    _ => message.offset,
                };
                Ok(WriteContentResponse {
                    offset,
                    ..Default::default()
                })
            }
        });
        Ok(Response::new(answers.boxed()))
    }

    type ListStream = Out<ListContentResponse>;
    async fn list(
        &self,
        _: Request<ListContentRequest>,
    ) -> Result<Response<Self::ListStream>, Status> {
        unused()
    }
    async fn update(&self, _: Request<UpdateRequest>) -> Result<Response<UpdateResponse>, Status> {
        unused()
    }
    async fn delete(&self, _: Request<DeleteContentRequest>) -> Result<Response<()>, Status> {
        unused()
    }
    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        unused()
    }
    async fn list_statuses(
        &self,
        _: Request<ListStatusesRequest>,
    ) -> Result<Response<ListStatusesResponse>, Status> {
        unused()
    }
    async fn abort(&self, _: Request<AbortRequest>) -> Result<Response<()>, Status> {
        unused()
    }
}

/// A session with these stores, and the writes that reach them.
async fn stores() -> (
    task::Task<()>,
    Arc<dyn ::session::Session>,
    mpsc::Receiver<(i32, i64, usize)>,
) {
    let (channel, sessions, _) = daemon().await;
    let (writes, seen) = mpsc::channel(64);
    let server = Server::builder()
        .add_service(ContentServer::new(Stores { writes }))
        .add_service(HealthServer::new(HealthService::default()));
    let task = open_session(&channel, "s", &[], server).await;
    let session = sessions.wait("s", Duration::from_secs(5)).await.unwrap();
    (task, session, seen)
}

fn pieces(list: &[&'static [u8]]) -> ::session::ByteStream {
    let list: Vec<_> = list.iter().map(|b| Ok(Bytes::from_static(b))).collect();
    futures::stream::iter(list).boxed()
}

fn blob() -> BlobWrite {
    BlobWrite {
        digest: Digest::sha256(b"0123456789"),
        size: 10,
        labels: BTreeMap::new(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_is_written_from_where_an_earlier_upload_broke_off() {
    let (_task, session, mut writes) = stores().await;
    let (stat, write, commit) = (
        WriteAction::Stat.into(),
        WriteAction::Write.into(),
        WriteAction::Commit.into(),
    );
    for (store, want) in [
        (
            "new",
            vec![(stat, 0, 0), (write, 0, 3), (write, 3, 7), (commit, 10, 0)],
        ),
        ("begun", vec![(stat, 0, 0), (write, 4, 6), (commit, 10, 0)]),
    ] {
        let bytes = pieces(&[b"012", b"3456789"]);
        session.content_write(store, blob(), bytes).await.unwrap();
        for message in want {
            assert_eq!(writes.recv().await, Some(message), "{store}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_the_store_has_is_written_and_other_refusals_are_errors() {
    let (_task, session, _writes) = stores().await;
    for (store, error) in [
        ("full", None),
        ("exists", None),
        ("broken", Some("no room for the name")),
        ("backwards", Some("offset")),
        ("b\u{e4}d", Some("non-printable ASCII")),
        ("line\nbreak", Some("non-printable ASCII")),
    ] {
        let written = session
            .content_write(store, blob(), pieces(&[b"0123456789"]))
            .await;
        match error {
            None => written.unwrap(),
            Some(text) => {
                let error = written.unwrap_err().to_string();
                assert!(error.contains(text), "{store}: {error}");
            }
        }
    }
    let broken: ::session::ByteStream = futures::stream::iter([Err(CallError::Ended {
        id: "upstream".into(),
    })])
    .boxed();
    let written = session.content_write("new", blob(), broken).await;
    assert!(written.unwrap_err().to_string().contains("upstream"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_store_says_of_a_blob_is_checked() {
    let (_task, session, _writes) = stores().await;
    let digest = Digest::sha256(b"x");
    let info = session.content_info("good", &digest).await.unwrap();
    assert_eq!((info.digest, info.size), (digest.clone(), 3));
    for (store, text) in [
        ("negative", "negative size"),
        ("empty", "no info"),
        ("nameless", "invalid checksum digest format"),
    ] {
        let error = session.content_info(store, &digest).await.unwrap_err();
        let error = error.to_string();
        assert!(error.contains(text), "{store}: {error}");
    }
    let too_far = session.content_read("good", &digest, u64::MAX, 1).await;
    assert!(too_far.is_err());
    let mut bytes = session.content_read("good", &digest, 3, 4).await.unwrap();
    assert_eq!(bytes.next().await.unwrap().unwrap(), "3+4");
    let broken = bytes.next().await.unwrap().unwrap_err().to_string();
    assert!(broken.contains("the disk is gone"), "{broken}");
}
