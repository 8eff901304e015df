//! Connections are kept, and what is asked over them comes once, whole, and does not wait for itself.

use std::future::Future;
use std::sync::atomic::AtomicUsize;

use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;

use super::super::{CONNECTING, connector, pool};
use super::*;

/// Until a test gives up waiting; never how long anything should take.
const DEADLINE: Duration = Duration::from_secs(60);

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A server with one answerer for each connection, and how many there were.
async fn served<F>(answerer: impl Fn(TcpStream) -> F + Send + 'static) -> (Pool, Arc<AtomicUsize>)
where
    F: Future<Output = ()> + Send + 'static,
{
    kept(IDLE_TIME, answerer).await
}

async fn kept<F>(
    keep: Duration,
    answerer: impl Fn(TcpStream) -> F + Send + 'static,
) -> (Pool, Arc<AtomicUsize>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server: Uri = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let accepted = Arc::<AtomicUsize>::default();
    let count = accepted.clone();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(answerer(tcp));
        }
    });
    let connector = connector(&kube::Config::new(server.clone())).unwrap();
    (Pool::keeping(InTime { connector, time: CONNECTING }, server, keep), accepted)
}

/// The next request's head; `None` once the other end is closed.
async fn head(tcp: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(tcp.read_u8().await.ok()?);
    }
    Some(String::from_utf8(head).unwrap())
}

/// Answers each request with the same, as often as it may.
async fn repeat(mut tcp: TcpStream, answer: &[u8], times: usize) {
    for _ in 0..times {
        if head(&mut tcp).await.is_none() || tcp.write_all(answer).await.is_err() {
            return;
        }
    }
}

/// To a cluster behind a proxy, which is where `proxy` leads.
fn through(proxy: &Pool, time: Duration) -> Pool {
    let mut config = kube::Config::new("http://cluster.example".parse().unwrap());
    config.proxy_url = Some(proxy.0.server.clone());
    pool(&config, time).unwrap()
}

fn get() -> Request<Body> {
    Request::get("/x").header("host", "x").body(Body::empty()).unwrap()
}

async fn whole(pool: &Pool, request: Request<Body>) -> String {
    let answer = timeout(DEADLINE, pool.send(request)).await.expect("an answer").unwrap();
    let body = timeout(DEADLINE, answer.into_body().collect()).await.expect("an end").unwrap();
    String::from_utf8(body.to_bytes().to_vec()).unwrap()
}

#[tokio::test]
async fn one_request_after_the_other_takes_one_connection() {
    let chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    let empty = b"HTTP/1.1 204 No Content\r\n\r\n";
    for answer in [OK, chunked, empty] {
        let (pool, accepted) = served(move |tcp| repeat(tcp, answer, usize::MAX)).await;
        let wanted = if answer == empty { "" } else { "ok" };
        for _ in 0..5 {
            assert_eq!(whole(&pool, get()).await, wanted);
        }
        // Of an answer that nobody reads the rest is there, and skipped.
        for _ in 0..5 {
            drop(timeout(DEADLINE, pool.send(get())).await.expect("an answer").unwrap());
        }
        assert_eq!(accepted.load(Ordering::SeqCst), 1, "{}", String::from_utf8_lossy(answer));
    }
}

#[tokio::test]
async fn requests_at_once_have_connections_of_their_own_and_some_are_kept() {
    let (pool, accepted) = served(|tcp| repeat(tcp, OK, usize::MAX)).await;
    let all = IDLE_CONNECTIONS + 6;
    let answers: Vec<_> = futures::future::join_all((0..all).map(|_| pool.send(get()))).await;
    assert_eq!(accepted.load(Ordering::SeqCst), all);
    for answer in answers {
        answer.unwrap().into_body().collect().await.unwrap();
    }
    assert_eq!(pool.0.idle().links.len(), IDLE_CONNECTIONS);
}

#[tokio::test]
async fn what_a_kept_connection_did_not_take_any_more_goes_over_another_one() {
    let end = Arc::<Notify>::default();
    let told = end.clone();
    // Each answers once, and ends when it is told to.
    let (pool, accepted) = served(move |mut tcp| {
        let told = told.clone();
        async move {
            head(&mut tcp).await.expect("a request");
            tcp.write_all(OK).await.unwrap();
            told.notified().await;
        }
    })
    .await;
    for turn in 1..5 {
        assert_eq!(whole(&pool, get()).await, "ok");
        assert_eq!(accepted.load(Ordering::SeqCst), turn);
        assert_eq!(pool.0.idle().links.len(), 1, "it is kept");
        end.notify_one();
        // On one thread the server ends before this does.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn of_an_answer_that_is_read_in_part_nobody_else_reads_the_rest() {
    const LENGTH: usize = 1 << 20;
    let (pool, accepted) = served(|mut tcp| async move {
        let line = format!("HTTP/1.1 200 OK\r\ncontent-length: {LENGTH}\r\n\r\n");
        while let Some(head) = head(&mut tcp).await {
            let answer = if head.contains("/long") { line.as_bytes() } else { OK };
            tcp.write_all(answer).await.unwrap();
            if head.contains("/long") {
                // The rest looks like an answer to whoever asks next.
                tcp.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nothers").await.unwrap();
            }
        }
    })
    .await;
    for turn in 1..5 {
        let long = Request::get("/long").header("host", "x").body(Body::empty()).unwrap();
        let answer = timeout(DEADLINE, pool.send(long)).await.expect("an answer").unwrap();
        let mut body = answer.into_body();
        if turn % 2 == 0 {
            timeout(DEADLINE, body.frame()).await.expect("a piece").unwrap().unwrap();
        }
        drop(body);
        assert_eq!(whole(&pool, get()).await, "ok");
        // Each time but the first the one that answered last was there.
        assert_eq!(accepted.load(Ordering::SeqCst), turn + 1);
    }
}

#[tokio::test]
async fn a_connection_is_kept_after_an_answer_without_a_body_and_not_where_it_says_close() {
    let upgrade = "HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno";
    let head_alone = "HTTP/1.1 200 OK\r\ncontent-length: 2000\r\n\r\n";
    let not_modified = "HTTP/1.1 304 Not Modified\r\netag: x\r\n\r\n";
    let closing = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok";
    let old = "HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok";
    for (method, answer, body, connections) in [
        ("HEAD", head_alone, "", 1),
        ("GET", not_modified, "", 1),
        ("GET", upgrade, "no", 1),
        ("GET", closing, "ok", 3),
        ("GET", old, "ok", 3),
    ] {
        let (pool, accepted) = served(move |tcp| repeat(tcp, answer.as_bytes(), 3)).await;
        for _ in 0..3 {
            let request = Request::builder().method(method).uri("/x").header("host", "x");
            let request = match answer == upgrade {
                true => request.header("connection", "upgrade").header("upgrade", "websocket"),
                false => request,
            };
            assert_eq!(whole(&pool, request.body(Body::empty()).unwrap()).await, body);
        }
        assert_eq!(accepted.load(Ordering::SeqCst), connections, "{answer}");
    }
}

#[tokio::test]
async fn an_upload_goes_on_when_its_answer_has_no_body_and_came_early() {
    const LENGTH: usize = 8 << 20;
    let (all, mut arrived) = mpsc::unbounded_channel();
    let (pool, accepted) = served(move |mut tcp| {
        let all = all.clone();
        async move {
            let Some(head) = head(&mut tcp).await else { return };
            if head.starts_with("GET") {
                tcp.write_all(OK).await.unwrap();
                return;
            }
            let early = b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 0\r\n\r\n";
            tcp.write_all(early).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
            tcp.read_exact(&mut vec![0; LENGTH]).await.unwrap();
            let _ = all.send(());
        }
    })
    .await;
    let body = Body::from(vec![b'x'; LENGTH]);
    let request = Request::put("/x").header("host", "x").body(body).unwrap();
    let answer = timeout(DEADLINE, pool.send(request)).await.expect("an answer").unwrap();
    assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
    drop(answer);
    assert_eq!(whole(&pool, get()).await, "ok");
    assert_eq!(accepted.load(Ordering::SeqCst), 2);
    timeout(DEADLINE, arrived.recv()).await.expect("all of it arrives").unwrap();
}

#[tokio::test]
async fn a_new_connection_that_has_ended_already_is_no_reason_to_ask_again() {
    // The end is there before anything is written.
    let (proxy, accepted) = served(|mut tcp| async move {
        head(&mut tcp).await.expect("CONNECT");
        tcp.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    })
    .await;
    let pool = through(&proxy, CONNECTING);
    let lost = timeout(DEADLINE, pool.send(get())).await.expect("an end").err().unwrap();
    assert!(matches!(lost, Lost::Asking(_)), "{lost}");
    assert_eq!(accepted.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn whoever_leaves_before_the_answer_takes_the_connection_with_him() {
    let (gone, mut heard) = mpsc::unbounded_channel();
    let (pool, _) = served(move |mut tcp| {
        let gone = gone.clone();
        async move {
            head(&mut tcp).await.expect("a request");
            let _ = gone.send("asked");
            assert!(head(&mut tcp).await.is_none());
            let _ = gone.send("gone");
        }
    })
    .await;
    let asking = tokio::spawn(async move { pool.send(get()).await.map(drop) });
    assert_eq!(timeout(DEADLINE, heard.recv()).await.unwrap(), Some("asked"));
    asking.abort();
    assert_eq!(timeout(DEADLINE, heard.recv()).await.unwrap(), Some("gone"));
}

#[tokio::test]
async fn an_answer_that_nobody_reads_yet_does_not_hold_up_what_is_being_sent() {
    const PIECE: usize = 64 << 10;
    const PIECES: usize = 64;
    let (all, mut sent) = mpsc::unbounded_channel();
    let (pool, _) = served(move |mut tcp| {
        let all = all.clone();
        async move {
            head(&mut tcp).await.expect("a request");
            tcp.write_all(b"HTTP/1.1 200 OK\r\n\r\nfirst").await.unwrap();
            let mut body = vec![0; PIECE * PIECES];
            tcp.read_exact(&mut body).await.unwrap();
            let _ = all.send(());
            tcp.write_all(b"last").await.unwrap();
        }
    })
    .await;
    let (to, from) = futures::channel::mpsc::unbounded::<std::io::Result<Vec<u8>>>();
    let request = Request::put("/x")
        .header("host", "x")
        .header("content-length", PIECE * PIECES)
        .body(Body::from_stream(from))
        .unwrap();
    let answer = timeout(DEADLINE, pool.send(request)).await.expect("an answer").unwrap();
    for _ in 0..PIECES {
        to.unbounded_send(Ok(vec![b'x'; PIECE])).unwrap();
    }
    drop(to);
    timeout(DEADLINE, sent.recv()).await.expect("all of it arrives").unwrap();
    let body = timeout(DEADLINE, answer.into_body().collect()).await.expect("an end").unwrap();
    assert_eq!(body.to_bytes(), "firstlast");
}

#[tokio::test]
async fn a_large_answer_comes_whole_to_a_reader_in_another_task_and_leaves_the_connection() {
    const LENGTH: usize = 20 << 20;
    let (pool, accepted) = served(|mut tcp| async move {
        let bytes: Vec<u8> = (0..LENGTH).map(|at| (at % 251) as u8).collect();
        while head(&mut tcp).await.is_some() {
            let line = format!("HTTP/1.1 200 OK\r\ncontent-length: {LENGTH}\r\n\r\n");
            tcp.write_all(line.as_bytes()).await.unwrap();
            tcp.write_all(&bytes).await.unwrap();
        }
    })
    .await;
    for _ in 0..3 {
        let answer = timeout(DEADLINE, pool.send(get())).await.expect("an answer").unwrap();
        let mut body = answer.into_body();
        let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
        let rest = tokio::spawn(async move { body.collect().await.unwrap().to_bytes() });
        let rest = timeout(DEADLINE, rest).await.expect("an end").unwrap();
        assert_eq!(first.len() + rest.len(), LENGTH);
        let mut bytes = first.iter().chain(&rest).enumerate();
        assert!(bytes.all(|(at, byte)| *byte == (at % 251) as u8));
    }
    assert_eq!(accepted.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn idle_connections_are_closed_after_a_while() {
    let (closed, mut heard) = mpsc::unbounded_channel();
    let (pool, accepted) = kept(Duration::from_millis(50), move |tcp| {
        let closed = closed.clone();
        async move {
            repeat(tcp, OK, usize::MAX).await;
            let _ = closed.send(());
        }
    })
    .await;
    for turn in 1..=2 {
        assert_eq!(whole(&pool, get()).await, "ok");
        timeout(DEADLINE, heard.recv()).await.expect("it is closed").unwrap();
        assert!(pool.0.idle().links.is_empty());
        assert_eq!(accepted.load(Ordering::SeqCst), turn);
    }
}

#[test]
fn an_address_without_a_scheme_is_one_of_https() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    for (address, server) in [
        ("10.0.0.1:6443", "https://10.0.0.1:6443/"),
        ("http://10.0.0.1/prefix", "http://10.0.0.1/"),
        ("https://cluster.example/k/", "https://cluster.example/"),
    ] {
        let config = kube::Config::new(address.parse().unwrap());
        assert_eq!(pool(&config, CONNECTING).unwrap().0.server.to_string(), server);
    }
}

#[tokio::test]
async fn who_waits_for_a_connection_takes_one_that_comes_back_before_it() {
    let turn = AtomicUsize::default();
    let proxy = async move |mut tcp: TcpStream| {
        head(&mut tcp).await.expect("CONNECT");
        // The second is never let through.
        if turn.fetch_add(1, Ordering::SeqCst) == 0 {
            tcp.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            return repeat(tcp, OK, usize::MAX).await;
        }
        std::future::pending().await
    };
    let proxy = Arc::new(proxy);
    let (proxied, accepted) = served(move |tcp| {
        let proxy = proxy.clone();
        async move { proxy(tcp).await }
    })
    .await;
    let pool = through(&proxied, DEADLINE * 2);
    let first = timeout(DEADLINE, pool.send(get())).await.expect("an answer").unwrap();
    let second = tokio::spawn(async move { whole(&pool, get()).await });
    while accepted.load(Ordering::SeqCst) < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(first.into_body().collect().await.unwrap().to_bytes(), "ok");
    assert_eq!(timeout(DEADLINE, second).await.expect("an answer").unwrap(), "ok");
}

/// Says how long it is, and not that a piece was the last.
struct Counted(Option<Bytes>);

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        Poll::Ready(self.0.take().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        false
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_ref().map_or(0, Bytes::len) as u64)
    }
}

#[tokio::test]
async fn bodies_of_requests_leave_the_connection_however_they_say_their_end() {
    let (pool, accepted) = served(|mut tcp| async move {
        while let Some(head) = head(&mut tcp).await {
            assert!(head.contains("content-length: 4\r\n"), "{head}");
            tcp.read_exact(&mut [0; 4]).await.unwrap();
            tcp.write_all(OK).await.unwrap();
        }
    })
    .await;
    for body in [Body::from("body"), Body::new(Counted(Some("body".into()))), Body::from("last")] {
        let request = Request::post("/x").header("host", "x").body(body).unwrap();
        assert_eq!(whole(&pool, request).await, "ok");
    }
    assert_eq!(accepted.load(Ordering::SeqCst), 1);
}
