//! Reading a watch: newline-framed JSON events from a streaming body, whole ones only.
//!
//! It knows nothing of stores; `reflector` decides what an event means.

use std::error::Error;
use std::time::Duration;
use std::{io, iter};

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::Request;
use http_body_util::BodyExt as _;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::reflector::jittered;
use crate::upstream::{Answer, Cluster, Failure, Identity, UpstreamError};

/// After this long at most the API server ends a watch (less by up to half at random, so that not all
/// are opened again at once); it is begun again from where it was. In a quiet kind bookmarks may be
/// minutes apart (they wait for etcd's progress, by default of 10 minutes): a watch ends in good order
/// before its silence is taken for death.
const LASTING: Duration = Duration::from_secs(60);
/// Silence for longer than this is a dead connection.
pub(super) const SILENCE: Duration = Duration::from_secs(90);
/// How long the head of a watch's answer may take, and the whole of one that refuses.
const HEAD: Duration = Duration::from_secs(if cfg!(test) { 5 } else { 30 });
/// No object is larger in etcd than 1.5 MiB; JSON may be several times that.
const EVENT_BYTES: usize = 16 << 20;

/// One event; `object` borrows from its line.
#[derive(Deserialize)]
pub(super) struct Event<'a> {
    #[serde(rename = "type")]
    pub what: What,
    #[serde(borrow)]
    pub object: &'a RawValue,
}

#[derive(Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum What {
    Added,
    Modified,
    Deleted,
    Bookmark,
    Error,
}

/// An open watch.
pub(super) struct Watch {
    body: Answer,
    buffer: BytesMut,
    /// Bytes of the buffer known to hold no line end.
    searched: usize,
}

impl Watch {
    /// Opens a watch of a collection from a resource version on.
    pub async fn open(
        cluster: &Cluster,
        who: Identity<'_>,
        collection: &str,
        accept: &str,
        version: &str,
    ) -> Result<Self, Failure> {
        let seconds = jittered(LASTING).as_secs();
        let path = format!(
            "{collection}?watch=1&allowWatchBookmarks=true&timeoutSeconds={seconds}&resourceVersion={version}"
        );
        let request = Request::get(path)
            .header(http::header::ACCEPT, accept)
            .body(Body::empty())
            .map_err(|error| UpstreamError::Setup(error.to_string()))?;
        let opening = async {
            let response = cluster.send(who, request).await?;
            let status = response.status();
            if status.is_success() {
                return Ok(response.into_body());
            }
            let (head, body) = response.into_parts();
            let body = http_body_util::Limited::new(body, 1 << 20).collect().await;
            let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
            Err(Failure::status(status, &body).after(&head.headers))
        };
        let late = Err(Failure::Upstream(UpstreamError::Timeout));
        let body = tokio::time::timeout(HEAD, opening).await.unwrap_or(late)?;
        Ok(Self { body, buffer: BytesMut::new(), searched: 0 })
    }

    /// The next event's line; `None` when the API server has ended the watch in good order.
    pub async fn line(&mut self) -> Result<Option<Bytes>, UpstreamError> {
        loop {
            if let Some(at) = self.buffer.iter().skip(self.searched).position(|byte| *byte == b'\n')
            {
                let line = self.buffer.split_to(self.searched + at + 1).freeze();
                self.searched = 0;
                return Ok(Some(line));
            }
            self.searched = self.buffer.len();
            if self.searched > EVENT_BYTES {
                return Err(UpstreamError::Broken("an event of a watch is too large".into()));
            }
            let frame = tokio::time::timeout(SILENCE, self.body.frame())
                .await
                .map_err(|_| UpstreamError::Timeout)?;
            match frame {
                None => return Ok(None),
                Some(Err(error)) if is_silence(&error) => return Err(UpstreamError::Timeout),
                Some(Err(error)) => return Err(UpstreamError::Broken(error.to_string())),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
            }
        }
    }
}

/// Whether the kernel has given up an end that answered no probe (`upstream`'s keepalive): before
/// `SILENCE` is over, and no less silent.
fn is_silence(error: &(dyn Error + 'static)) -> bool {
    use io::ErrorKind::{HostUnreachable, NetworkUnreachable, TimedOut};
    let causes = iter::successors(Some(error), |&error| error.source());
    let mut kinds =
        causes.filter_map(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind);
    kinds.any(|kind| matches!(kind, TimedOut | HostUnreachable | NetworkUnreachable))
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind::{ConnectionReset, HostUnreachable, NetworkUnreachable, TimedOut};

    use futures::{StreamExt as _, stream};
    use hyper_util::rt::TokioIo;
    use tokio::io::AsyncReadExt as _;
    use tokio_util::io::StreamReader;

    use super::*;

    /// How a watch ends whose connection fails like this after its answer's first line.
    async fn ended(kind: io::ErrorKind) -> UpstreamError {
        let (ours, mut theirs) = tokio::io::duplex(1 << 10);
        let answer = async move {
            theirs.read_u8().await?;
            Ok::<_, io::Error>(Bytes::from_static(b"HTTP/1.1 200 OK\r\n\r\n{}\n"))
        };
        let failed = stream::iter([Err(io::Error::from(kind))]);
        let answer = StreamReader::new(stream::once(answer).chain(failed).boxed());
        let connection = TokioIo::new(tokio::io::join(answer, ours));
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(connection).await.unwrap();
        tokio::spawn(connection);
        let response = sender.send_request(Request::new(Body::empty())).await.unwrap();
        let body = response.into_body().into();
        let mut watch = Watch { body, buffer: BytesMut::new(), searched: 0 };
        assert_eq!(watch.line().await.unwrap().unwrap(), "{}\n");
        watch.line().await.unwrap_err()
    }

    #[tokio::test]
    async fn an_end_that_the_kernel_gives_up_was_silent_and_one_that_resets_was_not() {
        for kind in [TimedOut, HostUnreachable, NetworkUnreachable] {
            let error = ended(kind).await;
            assert!(matches!(error, UpstreamError::Timeout), "{kind}: {error}");
        }
        let error = ended(ConnectionReset).await;
        assert!(matches!(error, UpstreamError::Broken(_)), "{error}");
    }
}
