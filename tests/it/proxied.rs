//! A cluster that is reached through the proxy of its kubeconfig: a gateway in this process, a proxy
//! that knows where the API server is, and a name for it that nobody else knows.
//!
//! The API server is the demo: what is proven is the way to it.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use binnacle::app;
use binnacle::config;
use binnacle::demo::{Demo, DemoOptions};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use crate::certificate::trusting;
use crate::lifecycle::{POLL, bearer, get, in_time};

const NAME: &str = "cluster.invalid:6443";

/// What was said to the proxy: the heads of all requests.
type Heads = Arc<Mutex<Vec<String>>>;

/// One connection: a CONNECT, then bytes both ways.
async fn carry(mut client: TcpStream, to: SocketAddr, heads: Heads) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await?);
    }
    heads.lock().unwrap().push(String::from_utf8_lossy(&head).into_owned());
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
    let mut server = TcpStream::connect(to).await?;
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}

#[tokio::test]
async fn everything_goes_through_the_proxy_of_the_kubeconfig() {
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let demo = Demo::start(DemoOptions { listen, pods: 0, simulate: false }).await.unwrap();
    let proxy = TcpListener::bind(listen).await.unwrap();
    let (address, to, heads) = (proxy.local_addr().unwrap(), demo.addr(), Heads::default());
    let told = heads.clone();
    tokio::spawn(async move {
        while let Ok((client, _)) = proxy.accept().await {
            tokio::spawn(carry(client, to, told.clone()));
        }
    });
    let there = format!("http://{NAME}\n    proxy-url: http://me:pass%40word@{address}");
    let folder = tempfile::tempdir().unwrap();
    let (path, state) = (folder.path().join("kubeconfig.yaml"), folder.path().join("state"));
    std::fs::write(&path, demo.kubeconfig().replace(&demo.url(), &there)).unwrap();
    let args = [
        ["binnacle", "serve"],
        ["--listen", "127.0.0.1:0"],
        ["--kubeconfig", path.to_str().unwrap()],
        ["--state-dir", state.to_str().unwrap()],
    ];
    let args = args.concat().into_iter().map(OsString::from);
    let Ok(config::Command::Serve(config)) = config::parse(args) else {
        panic!("the arguments are good");
    };
    let running = app::start(config).await.unwrap();
    let tls = trusting(running.ca_pem.as_deref().unwrap());
    let ask = async |path: &str| {
        let url = format!("https://{}{path}", running.https);
        get(&tls, &url, &bearer("demo-admin-token")).await.unwrap()
    };
    let listed = async {
        loop {
            let answer = ask("/api/v1/pod").await;
            if answer.status == 200 && answer.header("binnacle-source") == "cache" {
                return answer;
            }
            tokio::time::sleep(POLL).await;
        }
    };
    assert!(in_time("pods from the cache", listed).await.pods() > 0);
    let passed = ask("/clusters/demo/api/v1/namespaces").await;
    assert_eq!(passed.status, 200, "{}", passed.text());
    let heads = heads.lock().unwrap();
    assert!(heads.len() > 1);
    for head in heads.iter() {
        assert!(head.starts_with(&format!("CONNECT {NAME} HTTP/1.1\r\n")), "{head}");
        // me:pass@word; and no token, which only the API server may see.
        assert!(head.contains("Basic bWU6cGFzc0B3b3Jk"), "{head}");
        assert!(!head.contains("demo-admin-token"), "{head}");
    }
}
