//! Connections are kept, and what is asked over them comes once, whole, and does not wait for itself.

use std::future::Future;
use std::sync::atomic::AtomicUsize;

use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::super::{CONNECTING, connector};
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
    // Each connection answers once and ends without a word of it.
    let (pool, accepted) = served(|tcp| repeat(tcp, OK, 1)).await;
    for turn in 1..5 {
        assert_eq!(whole(&pool, get()).await, "ok");
        assert_eq!(accepted.load(Ordering::SeqCst), turn);
        // Long enough for its end to be known here; the request finds it either way, but a server that ends
        // while it is written to is another matter.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_new_connection_that_ends_at_once_is_no_reason_to_ask_again() {
    let (pool, accepted) = served(|tcp| async { drop(tcp) }).await;
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
