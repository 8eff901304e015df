//! Upgraded connections: who asks for one, the bearer token that browsers put among their
//! subprotocols, and the bytes both ways after a 101 until one side ends.
//!
//! Frames are not parsed. Rights are not asked for here: that is done before anything is sent.

use std::pin::pin;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderValue, Method, Request, Version, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What the API server speaks. Others (h2c above all) are not passed on as upgrades.
const PROTOCOLS: [&str; 2] = ["websocket", "SPDY/3.1"];
/// k8s.io/apiserver/pkg/authentication/request/websocket/protocol.go
const TOKEN_PREFIX: &str = "base64url.bearer.authorization.k8s.io.";
/// How long one direction may go on after the other has ended: enough for what is under way, not
/// for ever, since a peer that is gone may never say so.
const HALF_OPEN: Duration = Duration::from_secs(60);
/// Bytes of one direction that are on their way through us.
const BUFFER: usize = 8 << 10;

/// The tunnels of this process; clones are one and the same.
#[derive(Clone, Default)]
pub struct Tunnels {
    tasks: TaskTracker,
    ended: CancellationToken,
}

impl Tunnels {
    /// Tunnels that are open now.
    pub fn count(&self) -> usize {
        self.tasks.len()
    }

    /// Ends all tunnels, later ones too, and returns when the last is gone.
    pub async fn end(&self) {
        self.ended.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Copies between the two ends of an upgrade that has just been agreed on.
    pub(super) fn join(&self, client: OnUpgrade, server: OnUpgrade) {
        let ended = self.ended.clone();
        self.tasks.spawn(async move {
            let copying = async {
                match tokio::try_join!(client, server) {
                    Ok((client, server)) => {
                        copy_both(TokioIo::new(client), TokioIo::new(server)).await;
                    }
                    Err(error) => tracing::debug!(%error, "an upgrade was agreed on, not made"),
                }
            };
            tokio::select! {
                () = ended.cancelled() => {}
                () = copying => {}
            }
        });
    }
}

/// Until both directions have ended, or one has and the other had its time.
async fn copy_both<C, S>(client: C, server: S)
where
    C: AsyncRead + AsyncWrite,
    S: AsyncRead + AsyncWrite,
{
    let (client_reader, client_writer) = tokio::io::split(client);
    let (server_reader, server_writer) = tokio::io::split(server);
    let mut up = pin!(copy(client_reader, server_writer));
    let mut down = pin!(copy(server_reader, client_writer));
    let (first, rest) = tokio::select! {
        ended = &mut up => (ended, timeout(HALF_OPEN, down).await),
        ended = &mut down => (ended, timeout(HALF_OPEN, up).await),
    };
    for ended in [Ok(first), rest] {
        if let Ok(Err(error)) = ended {
            tracing::debug!(%error, "a tunnel broke");
        }
    }
}

/// One direction; its end is passed on behind all that came before it, even where it is an error.
/// Who takes nothing more has ended this direction alone: what he said before is still on its way.
async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
) -> std::io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    let end = loop {
        let count = match from.read(&mut buffer).await {
            Ok(0) => break Ok(()),
            Ok(count) => count,
            Err(error) => break Err(error),
        };
        to.write_all(buffer.get(..count).unwrap_or_default()).await?;
        to.flush().await?;
    };
    to.shutdown().await.and(end)
}

/// The protocol that a request wants to be upgraded to, if it is one of those that we carry.
/// HTTP/2 has no such upgrade, HTTP/1.0 neither.
pub fn wanted_upgrade<B>(request: &Request<B>) -> Option<&HeaderValue> {
    if request.version() != Version::HTTP_11 {
        return None;
    }
    let mut tokens = request
        .headers()
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|list| list.split(','));
    if !tokens.any(|token| token.trim().eq_ignore_ascii_case("upgrade")) {
        return None;
    }
    let mut values = request.headers().get_all(header::UPGRADE).iter();
    let value = values.next().filter(|_| values.next().is_none())?;
    let known = |name: &&str| value.as_bytes().eq_ignore_ascii_case(name.as_bytes());
    PROTOCOLS.iter().any(known).then_some(value)
}

/// The bearer token among the subprotocols of a WebSocket request. As the API server has it: only
/// one, UTF-8, and beside another protocol that can be echoed.
pub fn subprotocol_token(method: &Method, headers: &HeaderMap) -> Option<String> {
    let websocket = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"websocket");
    // Over HTTP/2 it is a CONNECT, and has no such header (RFC 8441, 5).
    if *method != Method::CONNECT && !headers.get(header::UPGRADE).is_some_and(websocket) {
        return None;
    }
    let (tokens, others): (Vec<_>, Vec<_>) =
        subprotocols(headers).into_iter().partition(|name| name.starts_with(TOKEN_PREFIX));
    let [token] = tokens.as_slice() else { return None };
    if others.is_empty() {
        return None;
    }
    let encoded = token.strip_prefix(TOKEN_PREFIX)?;
    let token = String::from_utf8(URL_SAFE_NO_PAD.decode(encoded).ok()?).ok()?;
    (!token.is_empty()).then_some(token)
}

/// Takes tokens out of the subprotocols: they are credentials, and must not be echoed.
pub(super) fn remove_subprotocol_tokens(headers: &mut HeaderMap) {
    let names = subprotocols(headers);
    if !names.iter().any(|name| name.starts_with(TOKEN_PREFIX)) {
        return;
    }
    let kept: Vec<_> = names.into_iter().filter(|name| !name.starts_with(TOKEN_PREFIX)).collect();
    headers.remove(header::SEC_WEBSOCKET_PROTOCOL);
    if let Ok(value) = HeaderValue::from_str(&kept.join(", "))
        && !kept.is_empty()
    {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, value);
    }
}

fn subprotocols(headers: &HeaderMap) -> Vec<String> {
    let values = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
    let mut names = Vec::new();
    for value in values {
        let text = String::from_utf8_lossy(value.as_bytes());
        names.extend(text.split(',').map(|name| name.trim().to_owned()));
    }
    names.retain(|name| !name.is_empty());
    names
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use tokio::io::ReadBuf;

    use super::*;

    fn request(version: Version, pairs: &[(&'static str, &'static str)]) -> Request<()> {
        let mut request = Request::new(());
        *request.version_mut() = version;
        for &(name, value) in pairs {
            request.headers_mut().append(name, HeaderValue::from_static(value));
        }
        request
    }

    #[test]
    fn an_upgrade_is_asked_for_by_both_headers_over_http_1_1() {
        let asks = |version, pairs: &[(&'static str, &'static str)]| {
            wanted_upgrade(&request(version, pairs)).is_some()
        };
        let both = [("connection", "keep-alive, UPGRADE"), ("upgrade", "WebSocket")];
        assert!(asks(Version::HTTP_11, &both));
        assert!(!asks(Version::HTTP_2, &both));
        assert!(!asks(Version::HTTP_10, &both));
        assert!(asks(Version::HTTP_11, &[("connection", "Upgrade"), ("upgrade", "spdy/3.1")]));
        assert!(!asks(Version::HTTP_11, &[("connection", "Upgrade"), ("upgrade", "h2c")]));
        assert!(!asks(Version::HTTP_11, &[("connection", "upgraded"), ("upgrade", "websocket")]));
        assert!(!asks(Version::HTTP_11, &[("upgrade", "websocket")]));
        assert!(!asks(Version::HTTP_11, &[("connection", "upgrade")]));
        let twice = [("connection", "upgrade"), ("upgrade", "websocket"), ("upgrade", "x")];
        assert!(!asks(Version::HTTP_11, &twice));
    }

    // "token" is dG9rZW4 in base64url without padding.
    const TOKEN: &str = "base64url.bearer.authorization.k8s.io.dG9rZW4";

    fn offering(lists: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        for list in lists {
            let value = HeaderValue::from_str(list).unwrap();
            headers.append(header::SEC_WEBSOCKET_PROTOCOL, value);
        }
        headers
    }

    #[test]
    fn a_token_counts_beside_another_protocol_and_alone_or_twice_it_does_not() {
        let v5 = "v5.channel.k8s.io";
        let found = |lists: &[&str]| subprotocol_token(&Method::GET, &offering(lists));
        assert_eq!(found(&[&format!("{TOKEN}, {v5}")]).as_deref(), Some("token"));
        assert_eq!(found(&[v5, TOKEN]).as_deref(), Some("token"));
        assert_eq!(found(&[TOKEN]), None);
        assert_eq!(found(&[TOKEN, TOKEN, v5]), None);
        assert_eq!(found(&[v5]), None);
        let broken = format!("{TOKEN_PREFIX}!!, {v5}");
        assert_eq!(found(&[&broken]), None);
        let mut plain = offering(&[TOKEN, v5]);
        plain.remove(header::UPGRADE);
        assert_eq!(subprotocol_token(&Method::GET, &plain), None);
        assert_eq!(subprotocol_token(&Method::CONNECT, &plain).as_deref(), Some("token"));
    }

    #[test]
    fn what_is_forwarded_has_the_other_protocols_in_their_order_and_no_token() {
        let mut headers = offering(&["v5.channel.k8s.io", &format!("{TOKEN},v4.channel.k8s.io")]);
        remove_subprotocol_tokens(&mut headers);
        let left: Vec<_> = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().collect();
        assert_eq!(left, ["v5.channel.k8s.io, v4.channel.k8s.io"]);
        let mut untouched = offering(&["a,b", "c"]);
        remove_subprotocol_tokens(&mut untouched);
        assert_eq!(untouched.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().count(), 2);
    }

    #[tokio::test]
    async fn without_tunnels_the_end_is_there_at_once() {
        let tunnels = Tunnels::default();
        tunnels.end().await;
        assert_eq!(tunnels.count(), 0);
    }

    #[tokio::test]
    async fn the_end_of_one_direction_is_passed_on_while_the_other_goes_on() {
        let (mut near, far) = tokio::io::duplex(64);
        let (target, mut seen) = tokio::io::duplex(64);
        let copying = tokio::spawn(async move { copy(far, target).await });
        near.write_all(b"hello").await.unwrap();
        near.shutdown().await.unwrap();
        let mut text = String::new();
        seen.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "hello");
        copying.await.unwrap().unwrap();
    }

    /// The end that a connection has after its last bytes: it takes nothing, and then it breaks.
    struct Broken;

    impl AsyncRead for Broken {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
        }
    }

    impl AsyncWrite for Broken {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn a_servers_last_words_reach_a_client_who_still_talks_or_is_slow() {
        for said in ["ping", ""] {
            // So little that they do not go through at once.
            let (mut client, far) = tokio::io::duplex(4);
            let server = tokio::io::join(b"status".as_slice().chain(Broken), Broken);
            let copying = tokio::spawn(copy_both(far, server));
            client.write_all(said.as_bytes()).await.unwrap();
            let mut heard = String::new();
            client.read_to_string(&mut heard).await.unwrap();
            assert_eq!(heard, "status", "after {said:?}");
            drop(client);
            copying.await.unwrap();
        }
    }
}
