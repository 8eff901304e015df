//! One accepted connection, plain or TLS, with the seat it holds: dropping it frees the place, also when
//! it has become a tunnel that somebody else reads. No HTTP here, but one answer for those who
//! speak it to the wrong port, and what is left of a body that nobody read.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Sleep, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::Counts;

/// First byte of a TLS handshake record (RFC 8446 §5.1).
const TLS_HANDSHAKE: u8 = 0x16;

/// What a client gets that speaks plain HTTP to a TLS port. HTTP/1.0, so that every client stops there.
const SPEAK_HTTPS: &[u8] = b"HTTP/1.0 400 Bad Request\r\n\
    Content-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n\
    This port speaks HTTPS: use an https:// address.\n";

/// How long, and how much, of a misdirected request is read after the answer: closing with
/// bytes unread would reset the connection, and the client would not see the answer.
const REST_TIME: Duration = Duration::from_secs(1);
const REST_BYTES: u64 = 64 * 1024;

/// The same for a body that was refused before it was read, a chart's of 30 MB perhaps: twice the
/// largest that any route takes, for as long as a proxy on the same network needs to send it.
const BODY_TIME: Duration = Duration::from_secs(5);
const BODY_BYTES: usize = 64 << 20;
/// Of it, at a time.
const PIECE: usize = 16 << 10;

/// A client that vanished (a laptop that sleeps) sends no end, and an idle shell or followed log asks it
/// nothing: after this silence the kernel asks, this often, this many times; then the place is free.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_COUNT: u32 = 3;

/// A connection as hyper reads and writes it.
pub(super) struct Stream {
    side: Side,
    asked: Arc<Asked>,
    /// Once our side is closed.
    rest: Option<Rest>,
    _seat: Seat,
}

/// What has come on a connection.
#[derive(Default)]
pub(super) struct Asked {
    requests: AtomicU64,
    /// The last one had a body, in HTTP/1.
    body: AtomicBool,
}

impl Asked {
    pub(super) fn note(&self, has_body: bool) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.body.store(has_body, Ordering::Relaxed);
    }

    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }
}

/// What a client still sends when our answer has gone.
struct Rest {
    bytes: usize,
    time: Pin<Box<Sleep>>,
}

impl Rest {
    /// Reads until the client has closed its side, or has had its time and bytes.
    fn poll(&mut self, tcp: &mut TcpStream, cx: &mut Context<'_>) -> Poll<()> {
        let mut piece = [0; PIECE];
        while self.bytes > 0 {
            let mut buf = ReadBuf::new(&mut piece);
            match Pin::new(&mut *tcp).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => {
                    self.bytes = self.bytes.saturating_sub(buf.filled().len());
                }
                Poll::Ready(_) => break,
                Poll::Pending => return self.time.as_mut().poll(cx),
            }
        }
        Poll::Ready(())
    }
}

enum Side {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Counts the connection for as long as it lives.
struct Seat {
    counts: Arc<Counts>,
    /// None on a spare seat, which becomes no tunnel: it is free when the connection's task has ended.
    _permit: Option<OwnedSemaphorePermit>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.counts.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Stream {
    /// Takes the seat, and does the handshake where the listener speaks TLS. `None` when the client
    /// went away without a word, or spoke plain HTTP to TLS and has been told.
    pub(super) async fn open(
        tcp: TcpStream,
        tls: Option<TlsAcceptor>,
        permit: Option<OwnedSemaphorePermit>,
        counts: Arc<Counts>,
        asked: Arc<Asked>,
    ) -> io::Result<Option<Stream>> {
        counts.open.fetch_add(1, Ordering::Relaxed);
        let seat = Seat { counts, _permit: permit };
        if let Err(e) = keep_alive(&tcp) {
            tracing::debug!("cannot set SO_KEEPALIVE: {e}");
        }
        let side = match tls {
            None => Side::Plain(tcp),
            Some(tls) => {
                let mut first = [0];
                match tcp.peek(&mut first).await? {
                    0 => return Ok(None),
                    // Every HTTP method begins so, and no TLS record.
                    _ if first[0].is_ascii_uppercase() => {
                        tell(tcp).await?;
                        return Ok(None);
                    }
                    _ if first[0] != TLS_HANDSHAKE => {
                        return Err(io::Error::other("this is not TLS"));
                    }
                    _ => Side::Tls(Box::new(tls.accept(tcp).await?)),
                }
            }
        };
        Ok(Some(Stream { side, asked, rest: None, _seat: seat }))
    }

    /// Whether ALPN chose HTTP/2. On a plain port it is never spoken: proxies that end TLS in front of us
    /// use HTTP/1.1, and guessing the version would delay the first request.
    pub(super) fn is_http2(&self) -> bool {
        match &self.side {
            Side::Plain(_) => false,
            Side::Tls(tls) => tls.get_ref().1.alpn_protocol() == Some(b"h2"),
        }
    }
}

fn keep_alive(tcp: &TcpStream) -> io::Result<()> {
    sockopt::set_socket_keepalive(tcp, true)?;
    sockopt::set_tcp_keepidle(tcp, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(tcp, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(tcp, KEEPALIVE_COUNT)?;
    Ok(())
}

async fn tell(mut tcp: TcpStream) -> io::Result<()> {
    tcp.write_all(SPEAK_HTTPS).await?;
    tcp.shutdown().await?;
    let mut rest = tcp.take(REST_BYTES);
    let mut nowhere = tokio::io::sink();
    let _ = timeout(REST_TIME, tokio::io::copy(&mut rest, &mut nowhere)).await;
    Ok(())
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.get_mut().side {
            Side::Plain(io) => Pin::new(io).poll_read(cx, buf),
            Side::Tls(io) => Pin::new(io).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().side {
            Side::Plain(io) => Pin::new(io).poll_write(cx, buf),
            Side::Tls(io) => Pin::new(io).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().side {
            Side::Plain(io) => Pin::new(io).poll_write_vectored(cx, bufs),
            Side::Tls(io) => Pin::new(io).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.side {
            Side::Plain(io) => io.is_write_vectored(),
            Side::Tls(io) => io.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().side {
            Side::Plain(io) => Pin::new(io).poll_flush(cx),
            Side::Tls(io) => Pin::new(io).poll_flush(cx),
        }
    }

    /// Where the last request had a body, which may not have been read whole, what still comes of it is
    /// read for a while (RFC 9112, 9.6): a close with bytes unread would reset the connection, and
    /// the client, or a proxy between, would not see our answer.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let stream = self.get_mut();
        if stream.rest.is_none() {
            ready!(match &mut stream.side {
                Side::Plain(io) => Pin::new(io).poll_shutdown(cx),
                Side::Tls(io) => Pin::new(io).poll_shutdown(cx),
            })?;
            if !stream.asked.body.load(Ordering::Relaxed) {
                return Poll::Ready(Ok(()));
            }
        }
        let begin = || Rest { bytes: BODY_BYTES, time: Box::pin(sleep(BODY_TIME)) };
        let rest = stream.rest.get_or_insert_with(begin);
        let tcp = match &mut stream.side {
            Side::Plain(io) => io,
            Side::Tls(io) => io.get_mut().0,
        };
        rest.poll(tcp, cx).map(Ok)
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_client_that_vanished_is_found_out_by_the_kernel() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (_client, (tcp, _)) = (client.unwrap(), accepted.unwrap());
        let opened =
            Stream::open(tcp, None, None, Arc::default(), Arc::default()).await.unwrap().unwrap();
        let Side::Plain(tcp) = &opened.side else { panic!("it has no TLS") };
        assert!(sockopt::socket_keepalive(tcp).unwrap());
        assert_eq!(sockopt::tcp_keepidle(tcp).unwrap(), KEEPALIVE_IDLE);
        assert_eq!(sockopt::tcp_keepintvl(tcp).unwrap(), KEEPALIVE_INTERVAL);
        assert_eq!(sockopt::tcp_keepcnt(tcp).unwrap(), KEEPALIVE_COUNT);
    }
}
