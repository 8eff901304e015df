//! Much at once, and unharmed: files by `kubectl cp` both ways, bytes through its port-forward and
//! through our own websocket of a port, each compared by its SHA-256.
//!
//! It is NOT where ports and copies are tested in their cases (`kubectl.rs`, `terminals.rs`), nor
//! how fast they are (`benches/streams.rs`). `BINNACLE_TRANSFER_MIB=100` takes that much.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use crate::cluster::{self, Cluster};
use crate::gateway::{self, Gateway, Options};
use crate::people;

/// More than all buffers on the way together, and some seconds of a build that is not optimized.
const MIB: usize = 16;
/// Bytes of one message to a port; we take up to 256 KiB.
const MESSAGE: usize = 128 << 10;
/// Until a transfer is given up; never how long it should take.
const DEADLINE: Duration = Duration::from_secs(300);

/// What is sent: the same in each run, and nowhere the same again.
static CONTENT: LazyLock<Bytes> = LazyLock::new(|| {
    let wanted = std::env::var("BINNACLE_TRANSFER_MIB").ok();
    let wanted = wanted.map_or(MIB, |text| text.parse().expect("a number of MiB"));
    let mut content = Vec::with_capacity(wanted << 20);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    while content.len() < wanted << 20 {
        // Xorshift: no two blocks are alike, so that none can be lost, doubled or moved unseen.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        content.extend_from_slice(&state.to_le_bytes());
    }
    content.into()
});

/// SHA-256 in hexadecimal digits, as `sha256sum` prints it.
struct Sum(Context);

impl Sum {
    fn new() -> Sum {
        Sum(Context::new(&SHA256))
    }

    fn of(data: &[u8]) -> String {
        let mut sum = Sum::new();
        sum.0.update(data);
        sum.end()
    }

    fn end(self) -> String {
        let mut text = String::new();
        for byte in self.0.finish().as_ref() {
            write!(text, "{byte:02x}").unwrap();
        }
        text
    }
}

/// Where all that is said is said again, until the runtime of the test ends.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.into_split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    address
}

/// A namespace with a pod `web` that runs and whose ports all are an echo.
async fn web(cluster: &Cluster, prefix: &str) -> String {
    let namespace = cluster.namespace(prefix).await;
    let address = echo().await.to_string();
    let annotations = json!({"test.binnacle/port-forward-to": address});
    let main = json!({"name": "main", "image": "example.invalid/main"});
    let object = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "web", "annotations": annotations}, "spec": {"containers": [main]},
    });
    let pods = format!("/api/v1/namespaces/{namespace}/pods");
    people::create(cluster, &pods, object).await;
    let pod = format!("{pods}/web");
    let running = || async {
        let (_, _, body) = cluster.get(cluster.token("admin"), &pod).await;
        let pod: Value = serde_json::from_slice(&body).unwrap();
        pod["status"]["containerStatuses"][0]["state"]["running"].is_object()
    };
    Cluster::eventually("the pod runs", running).await;
    namespace
}

/// `kubectl` through us.
fn kubectl(cluster: &Cluster, gateway: &Gateway, namespace: &str, args: &[&str]) -> Command {
    let mut command = Command::from(cluster.kubectl_command("admin"));
    command.env("KUBECONFIG", gateway.kubeconfig("admin")).args(["--namespace", namespace]);
    command.args(args).kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs a command to its good end; what it printed.
async fn done(mut command: Command) -> String {
    let output = tokio::time::timeout(DEADLINE, command.output()).await;
    let output = output.unwrap_or_else(|_| panic!("no end of {command:?}")).unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {words}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn a_file_copied_into_a_pod_and_out_of_it_stays_what_it_is() {
    let cluster = cluster::shared().await;
    let namespace = web(cluster, "transfer-cp").await;
    let gateway = gateway::start(Options::default()).await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("there"), &CONTENT[..]).unwrap();
    let sum = Sum::of(&CONTENT);

    let mut there = kubectl(cluster, &gateway, &namespace, &["cp", "there", "web:copied"]);
    there.current_dir(folder.path());
    done(there).await;
    let args = ["exec", "web", "--", "sha256sum", "copied"];
    let printed = done(kubectl(cluster, &gateway, &namespace, &args)).await;
    assert_eq!(printed.split_whitespace().next(), Some(sum.as_str()), "on its way into the pod");

    let mut back = kubectl(cluster, &gateway, &namespace, &["cp", "web:copied", "back"]);
    back.current_dir(folder.path());
    done(back).await;
    let back = std::fs::read(folder.path().join("back")).unwrap();
    assert_eq!((back.len(), Sum::of(&back)), (CONTENT.len(), sum), "on its way back");
    gateway.stop().await;
}

/// Says it all to an echo and hears it again at the same time; the sum of what was heard.
async fn there_and_back(stream: TcpStream) -> String {
    let (mut from, mut to) = stream.into_split();
    let writing = async { to.write_all(&CONTENT).await.unwrap() };
    let reading = async {
        let (mut sum, mut left) = (Sum::new(), CONTENT.len());
        let mut buffer = vec![0; 64 << 10];
        while left > 0 {
            let most = left.min(buffer.len());
            let read = from.read(&mut buffer[..most]).await.unwrap();
            assert!(read > 0, "it ended when {left} bytes were still to come");
            sum.0.update(&buffer[..read]);
            left -= read;
        }
        sum.end()
    };
    let both = async { tokio::join!(writing, reading).1 };
    tokio::time::timeout(DEADLINE, both).await.expect("all comes back")
}

#[tokio::test]
async fn what_goes_through_kubectls_port_forward_comes_back_as_it_was() {
    let cluster = cluster::shared().await;
    let namespace = web(cluster, "transfer-forward").await;
    let gateway = gateway::start(Options::default()).await;
    for websockets in ["true", "false"] {
        let args = ["port-forward", "pod/web", ":8080", "--address=127.0.0.1"];
        let mut command = kubectl(cluster, &gateway, &namespace, &args);
        let mut child = command.env("KUBECTL_PORT_FORWARD_WEBSOCKETS", websockets).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = tokio::time::timeout(DEADLINE, lines.next_line()).await.unwrap().unwrap();
        let line = line.expect("kubectl says where it listens");
        let mut words = line.split_whitespace();
        let address = words.find(|word| word.starts_with("127.0.0.1:")).unwrap();
        let sum = there_and_back(TcpStream::connect(address).await.unwrap()).await;
        assert_eq!(sum, Sum::of(&CONTENT), "websockets: {websockets}");
        child.kill().await.unwrap();
    }
    gateway.stop().await;
}

#[tokio::test]
async fn what_goes_through_our_websocket_of_a_port_comes_back_as_it_was() {
    let cluster = cluster::shared().await;
    let namespace = web(cluster, "transfer-port").await;
    let gateway = gateway::start(Options::default()).await;
    let tcp = TcpStream::connect(gateway.address).await.unwrap();
    let name = ServerName::try_from(gateway.address.ip().to_string()).unwrap();
    let tls = TlsConnector::from(Arc::new(gateway.tls())).connect(name, tcp).await.unwrap();
    let path = format!("/api/v1/pod/{namespace}/web/portforward/8080");
    let url = format!("wss://{}{path}", gateway.address);
    let mut request = url.into_client_request().unwrap();
    let bearer = format!("Bearer {}", cluster.token("admin"));
    request.headers_mut().insert("authorization", bearer.parse().unwrap());
    let (socket, _) = tokio_tungstenite::client_async(request, tls).await.unwrap();
    let (mut sink, mut source) = socket.split();
    let writing = async {
        for at in (0..CONTENT.len()).step_by(MESSAGE) {
            let end = CONTENT.len().min(at + MESSAGE);
            sink.send(Message::Binary(CONTENT.slice(at..end))).await.unwrap();
        }
    };
    let reading = async {
        let (mut sum, mut left) = (Sum::new(), CONTENT.len());
        while left > 0 {
            let next = source.next().await.expect("it goes on").unwrap();
            if let Message::Close(frame) = &next {
                panic!("{left} bytes were still to come: {frame:?}");
            }
            if let Message::Binary(data) = next {
                sum.0.update(&data);
                left = left.checked_sub(data.len()).expect("no more than was said");
            }
        }
        sum.end()
    };
    let both = async { tokio::join!(writing, reading).1 };
    let sum = tokio::time::timeout(DEADLINE, both).await.expect("all comes back");
    assert_eq!(sum, Sum::of(&CONTENT));
    sink.send(Message::Close(None)).await.unwrap();
    gateway.stop().await;
}
