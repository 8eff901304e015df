//! A cluster that is reached through the proxy of its kubeconfig: a gateway in this process, a proxy
//! that knows where the API server is, and a name for it that nobody else knows. With those of the
//! environment, the binary.
//!
//! The API server is the demo: what is proven is the way to it.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use binnacle::app;
use binnacle::config;
use binnacle::demo::{Demo, DemoOptions};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use crate::certificate::trusting;
use crate::lifecycle::{POLL, bearer, get, in_time};
use crate::spawned::{Spoken, command};

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

/// A proxy that takes everybody to one place, and what was said to it.
async fn proxy(to: SocketAddr) -> (SocketAddr, Heads) {
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, heads) = (proxy.local_addr().unwrap(), Heads::default());
    let told = heads.clone();
    tokio::spawn(async move {
        while let Ok((client, _)) = proxy.accept().await {
            tokio::spawn(carry(client, to, told.clone()));
        }
    });
    (address, heads)
}

#[tokio::test]
async fn everything_goes_through_the_proxy_of_the_kubeconfig() {
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let demo = Demo::start(DemoOptions { listen, pods: 0, simulate: false }).await.unwrap();
    let (address, heads) = proxy(demo.addr()).await;
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

/// The binary with a kubeconfig of this server, and these settings of the environment for its way.
fn behind(folder: &Path, server: &str, proxy: SocketAddr, exceptions: &str) -> Spoken {
    let path = folder.join("kubeconfig.yaml");
    let kubeconfig = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: far\n\
         clusters:\n- name: far\n  cluster:\n    server: {server}\n\
         contexts:\n- name: far\n  context:\n    cluster: far\n    user: me\n\
         users:\n- name: me\n  user:\n    token: mine\n"
    );
    std::fs::write(&path, kubeconfig).unwrap();
    let mut command = command(folder);
    command.env_remove("https_proxy").env_remove("no_proxy");
    command.env("HTTPS_PROXY", format!("http://{proxy}")).env("NO_PROXY", exceptions);
    Spoken::start(command, folder, &["--kubeconfig", path.to_str().unwrap()])
}

#[tokio::test]
async fn the_environments_exceptions_are_for_the_api_server_and_not_for_the_proxy() {
    // Both proxies are at 127.0.0.1. Nobody answers behind them.
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = nobody.local_addr().unwrap();
    let (elsewhere, unasked) = proxy(to).await;
    let (own, to_own) = proxy(to).await;
    let (general, to_general) = proxy(to).await;
    for (server, environment, exceptions, heads) in [
        (format!("https://{NAME}"), general, "127.0.0.1,a.example,", to_general),
        (format!("http://{NAME}\n    proxy-url: http://{own}"), elsewhere, "*", to_own),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let _binary = behind(folder.path(), &server, environment, exceptions);
        let asked = async {
            while heads.lock().unwrap().is_empty() {
                tokio::time::sleep(POLL).await;
            }
        };
        in_time(&format!("the proxy is asked for {server}"), asked).await;
        let heads = heads.lock().unwrap();
        assert!(heads[0].starts_with(&format!("CONNECT {NAME} HTTP/1.1\r\n")), "{heads:?}");
    }
    assert!(unasked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn the_environments_proxy_is_not_asked_for_an_api_server_of_this_machine() {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let there = server.local_addr().unwrap();
    let (proxy, heads) = proxy(there).await;
    let folder = tempfile::tempdir().unwrap();
    let _binary = behind(folder.path(), &format!("https://{there}"), proxy, "a.example");
    in_time("the API server is asked", server.accept()).await.unwrap();
    assert!(heads.lock().unwrap().is_empty());
}
