//! How connections to the API server are made: straight, or through the proxy that the kubeconfig's
//! `proxy-url` or the environment names. Where there is one, nothing goes past it.
//!
//! TLS is laid over it by the caller: a proxy sees addresses and bytes, no tokens.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::future::BoxFuture;
use futures::{FutureExt as _, TryFutureExt as _};
use http::{HeaderValue, Uri};
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::proxy::{SocksV5, Tunnel};
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use percent_encoding::percent_decode_str;
use tokio::io::{AsyncRead, AsyncWrite, BufReader, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tower::{BoxError, Service, ServiceExt as _};

use super::UpstreamError;

/// Two records of TLS (RFC 8446, 5.2) at a read: rustls itself asks for 4 KiB each time, which for
/// large answers is most of the system calls.
const READ: usize = 33 << 10;

#[derive(Clone)]
pub(super) enum Dial {
    Straight(HttpConnector),
    /// `CONNECT` (RFC 9110, 9.3.6).
    Http(Tunnel<HttpConnector>),
    /// SOCKS 5 (RFC 1928); the proxy finds the name.
    Socks(SocksV5<HttpConnector>),
}

impl Dial {
    /// `proxy` is `http://[user:password@]host:port` or `socks5://…`.
    pub fn new(tcp: HttpConnector, proxy: Option<&Uri>) -> Result<Self, UpstreamError> {
        let Some(proxy) = proxy else { return Ok(Self::Straight(tcp)) };
        let (name, word) = user(proxy);
        match proxy.scheme_str() {
            Some("http") if name.is_empty() => Ok(Self::Http(Tunnel::new(proxy.clone(), tcp))),
            Some("http") => {
                let basic = format!("Basic {}", STANDARD.encode(format!("{name}:{word}")));
                let value = HeaderValue::from_str(&basic)
                    .map_err(|error| UpstreamError::Setup(error.to_string()))?;
                Ok(Self::Http(Tunnel::new(proxy.clone(), tcp).with_auth(value)))
            }
            Some("socks5") => {
                let socks = SocksV5::new(proxy.clone(), tcp);
                Ok(Self::Socks(if name.is_empty() { socks } else { socks.with_auth(name, word) }))
            }
            other => Err(UpstreamError::Setup(format!(
                "the proxy of the cluster begins with {:?}; http:// and socks5:// are spoken here",
                other.unwrap_or_default()
            ))),
        }
    }
}

/// Name and password in a proxy's address.
fn user(proxy: &Uri) -> (String, String) {
    let authority = proxy.authority().map(|authority| authority.as_str()).unwrap_or_default();
    let (user, _) = authority.rsplit_once('@').unwrap_or_default();
    let (name, word) = user.split_once(':').unwrap_or((user, ""));
    let plain = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    (plain(name), plain(word))
}

impl Service<Uri> for Dial {
    type Response = TokioIo<Line>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let line = |tcp: TokioIo<TcpStream>| TokioIo::new(Line::new(tcp.into_inner()));
        match self.clone() {
            Self::Straight(tcp) => tcp.oneshot(to).map_ok(line).map_err(Into::into).boxed(),
            Self::Http(proxy) => proxy.oneshot(to).map_ok(line).map_err(Into::into).boxed(),
            Self::Socks(proxy) => proxy.oneshot(to).map_ok(line).map_err(Into::into).boxed(),
        }
    }
}

/// Connections that have so long to be made as a whole: name, TCP, the proxy's word, TLS. Else a
/// port that takes connections and says nothing, as that of a load balancer with nobody behind it,
/// would keep whoever waits without a time of his own, and each that was begun would stay: the
/// pool goes on with one when its request has taken another.
#[derive(Clone)]
pub(super) struct InTime {
    pub(super) connector: HttpsConnector<Dial>,
    pub(super) time: Duration,
}

impl Service<Uri> for InTime {
    type Response = MaybeHttpsStream<TokioIo<Line>>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.connector.poll_ready(context)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let (made, time) = (self.connector.call(to), self.time);
        let late = move |_| {
            let words = format!("no connection was made within {time:?}");
            Err(io::Error::new(io::ErrorKind::TimedOut, words).into())
        };
        async move { timeout(time, made).await.unwrap_or_else(late) }.boxed()
    }
}

/// A connection, read in large pieces and written to as it comes.
pub(super) struct Line(BufReader<TcpStream>);

impl Line {
    fn new(tcp: TcpStream) -> Self {
        Self(BufReader::with_capacity(READ, tcp))
    }

    fn reader(self: Pin<&mut Self>) -> Pin<&mut BufReader<TcpStream>> {
        Pin::new(&mut self.get_mut().0)
    }
}

impl Connection for Line {
    /// Without the addresses that hyper-util would else put into each answer: nobody asks for them.
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Line {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.reader().poll_read(context, into)
    }
}

impl AsyncWrite for Line {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.reader().poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.reader().poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.reader().poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.reader().poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_taken_by_its_scheme_and_others_are_refused_by_name() {
        let dial = |text: &str| Dial::new(HttpConnector::new(), Some(&text.parse().unwrap()));
        assert!(matches!(dial("http://127.0.0.1:3128"), Ok(Dial::Http(_))));
        assert!(matches!(dial("http://me:a%40b@127.0.0.1:3128"), Ok(Dial::Http(_))));
        assert!(matches!(dial("socks5://127.0.0.1:1080"), Ok(Dial::Socks(_))));
        let refused = dial("https://127.0.0.1:3128").err().unwrap().to_string();
        assert!(refused.contains("https") && refused.contains("socks5://"), "{refused}");
        assert!(matches!(Dial::new(HttpConnector::new(), None), Ok(Dial::Straight(_))));
        let credentials = user(&"http://me:a%40b%3A@proxy:3128".parse().unwrap());
        assert_eq!(credentials, ("me".to_owned(), "a@b:".to_owned()));
    }
}
