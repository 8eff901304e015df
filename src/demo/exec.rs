//! A shell too small to be one, behind the channel protocol of `pods/exec` over WebSocket:
//! echo, ls, hostname, cat, exit N.
//!
//! SPDY and the protocols before v4 are not spoken.

use std::sync::Arc;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::header::{
    CONNECTION, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, UPGRADE,
};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::ask::{Ask, Resource};
use super::kinds::POD;
use super::read;
use super::reply::{Fail, Reply};
use super::server::Shared;

/// The protocols spoken, the best first.
const PROTOCOLS: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;
const CLOSE: u8 = 255;

/// The longest line a person may type.
const LINE: usize = 4_096;

/// What a terminal sends for Backspace (either), Ctrl-C and Ctrl-D.
const ERASE: [u8; 2] = [0x7f, 0x08];
const INTERRUPT: u8 = 0x03;
const END: u8 = 0x04;

pub(super) fn answer(
    shared: &Arc<Shared>,
    ask: &Ask,
    path: &Resource,
    mut request: Request<Incoming>,
) -> Result<Reply, Fail> {
    read::find(&shared.store, &POD, path)?;
    let header = |name: HeaderName| request.headers().get(name).and_then(|it| it.to_str().ok());
    match header(UPGRADE) {
        Some(kind) if kind.eq_ignore_ascii_case("websocket") => {}
        Some(_) => return Err(Fail::unsupported("exec over SPDY; use WebSocket")),
        None => return Err(Fail::bad_request("Upgrade request required")),
    }
    let key = header(SEC_WEBSOCKET_KEY).map(|key| derive_accept_key(key.as_bytes()));
    let key = key.and_then(|key| HeaderValue::from_str(&key).ok());
    let key = key.ok_or_else(|| Fail::bad_request("Sec-WebSocket-Key is missing"))?;
    let offered = header(SEC_WEBSOCKET_PROTOCOL).unwrap_or_default();
    let offers = |name: &str| offered.split(',').any(|offer| offer.trim() == name);
    let protocol = PROTOCOLS.into_iter().find(|name| offers(name));
    let protocol =
        protocol.ok_or_else(|| Fail::unsupported("exec protocols other than v5 and v4"))?;
    let words: Vec<String> = ask.query.all("command").map(str::to_owned).collect();
    if words.is_empty() {
        return Err(Fail::bad_request("you must specify at least one command for the container"));
    }
    let shell = Shell { pod: path.name.clone(), words, tty: ask.query.flag("tty") };
    tokio::spawn(run(Arc::clone(shared), hyper::upgrade::on(&mut request), shell));
    let mut reply = Response::new(Empty::<Bytes>::new().boxed_unsync());
    *reply.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = reply.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, key);
    headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    Ok(reply)
}

async fn run(shared: Arc<Shared>, upgrade: OnUpgrade, shell: Shell) {
    let Ok(upgraded) = upgrade.await else { return };
    let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
    tokio::select! {
        // A client that went away needs no answer.
        _ = shell.serve(socket) => {}
        () = shared.stop.cancelled() => {}
        () = shared.faults.until_down() => {}
    }
}

/// The client is gone; why does not matter.
struct Gone;

impl From<Error> for Gone {
    fn from(_: Error) -> Gone {
        Gone
    }
}

type Socket = WebSocketStream<TokioIo<Upgraded>>;

struct Shell {
    pod: String,
    words: Vec<String>,
    tty: bool,
}

/// What one command says, and the exit code that ends the session, if it does.
struct Said {
    out: String,
    err: String,
    exit: Option<u8>,
}

impl Shell {
    async fn serve(self, mut socket: Socket) -> Result<(), Gone> {
        let words: Vec<&str> = self.words.iter().map(String::as_str).collect();
        let code = match words.as_slice() {
            ["sh" | "bash" | "/bin/sh" | "/bin/bash"] => self.interactive(&mut socket).await?,
            ["sh" | "bash" | "/bin/sh" | "/bin/bash", "-c", script, ..] => {
                let mut code = 0;
                for command in script.split([';', '\n']) {
                    let command: Vec<&str> = command.split_whitespace().collect();
                    let said = self.command(&command);
                    self.say(&mut socket, &said).await?;
                    code = said.exit.unwrap_or(0);
                    if command.first() == Some(&"exit") {
                        break;
                    }
                }
                code
            }
            ["cat"] => self.cat(&mut socket).await?,
            command => {
                let said = self.command(command);
                self.say(&mut socket, &said).await?;
                said.exit.unwrap_or(0)
            }
        };
        send(&mut socket, STATUS, status(code).to_string().as_bytes()).await?;
        // kubectl takes an end without a code for a broken one.
        let end = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        socket.close(Some(end)).await?;
        Ok(())
    }

    fn command(&self, words: &[&str]) -> Said {
        let said = |out: String| Said { out, err: String::new(), exit: None };
        match words {
            [] => said(String::new()),
            ["echo", rest @ ..] => said(format!("{}\n", rest.join(" "))),
            ["ls", ..] => said("bin\ndev\netc\nproc\ntmp\nusr\nvar\n".to_owned()),
            ["pwd"] => said("/\n".to_owned()),
            ["hostname"] => said(format!("{}\n", self.pod)),
            ["exit"] => Said { exit: Some(0), ..said(String::new()) },
            ["exit", code, ..] => {
                Said { exit: Some(code.parse().unwrap_or(2)), ..said(String::new()) }
            }
            [other, ..] => Said {
                out: String::new(),
                err: format!(
                    "sh: {other}: not found (the demo knows echo, ls, pwd, hostname, \
                              cat and exit)\n"
                ),
                exit: Some(127),
            },
        }
    }

    async fn say(&self, socket: &mut Socket, said: &Said) -> Result<(), Gone> {
        let on_terminal = |text: &str| {
            if self.tty { text.replace('\n', "\r\n") } else { text.to_owned() }
        };
        if !said.out.is_empty() {
            send(socket, STDOUT, on_terminal(&said.out).as_bytes()).await?;
        }
        if !said.err.is_empty() {
            // A terminal has one stream.
            let channel = if self.tty { STDOUT } else { STDERR };
            send(socket, channel, on_terminal(&said.err).as_bytes()).await?;
        }
        Ok(())
    }

    /// Reads lines until `exit` or the end of the input.
    async fn interactive(&self, socket: &mut Socket) -> Result<u8, Gone> {
        let mut line = Vec::new();
        let prompt = if self.tty { "/ # " } else { "" };
        send(socket, STDOUT, prompt.as_bytes()).await?;
        while let Some(input) = input(socket).await? {
            for byte in input {
                if self.tty && byte == END && line.is_empty() {
                    return Ok(0);
                }
                if !matches!(byte, b'\r' | b'\n') {
                    if !self.tty {
                        take(&mut line, byte);
                    } else if let Some(shown) = typed(&mut line, byte, prompt) {
                        send(socket, STDOUT, &shown).await?;
                    }
                    continue;
                }
                if self.tty {
                    send(socket, STDOUT, b"\r\n").await?;
                }
                let text = String::from_utf8_lossy(&std::mem::take(&mut line)).into_owned();
                let words: Vec<&str> = text.split_whitespace().collect();
                let said = self.command(&words);
                self.say(socket, &said).await?;
                if words.first() == Some(&"exit") {
                    return Ok(said.exit.unwrap_or(0));
                }
                send(socket, STDOUT, prompt.as_bytes()).await?;
            }
        }
        Ok(0)
    }

    async fn cat(&self, socket: &mut Socket) -> Result<u8, Gone> {
        while let Some(input) = input(socket).await? {
            send(socket, STDOUT, &input).await?;
        }
        Ok(0)
    }
}

/// Whether there was room for it.
fn take(line: &mut Vec<u8>, byte: u8) -> bool {
    let fits = line.len() < LINE;
    if fits {
        line.push(byte);
    }
    fits
}

/// Takes what was typed into the line; what a terminal shows of it.
fn typed(line: &mut Vec<u8>, byte: u8, prompt: &str) -> Option<Vec<u8>> {
    if byte == INTERRUPT {
        line.clear();
        return Some(format!("^C\r\n{prompt}").into_bytes());
    }
    if ERASE.contains(&byte) {
        let some = !line.is_empty();
        // All bytes of a letter: but the first, those of UTF-8 are of this range.
        while line.pop().is_some_and(|byte| (0x80..0xc0).contains(&byte)) {}
        return some.then(|| b"\x08 \x08".to_vec());
    }
    (byte != END && take(line, byte)).then(|| vec![byte])
}

async fn send(socket: &mut Socket, channel: u8, bytes: &[u8]) -> Result<(), Gone> {
    let mut frame = Vec::with_capacity(bytes.len() + 1);
    frame.push(channel);
    frame.extend_from_slice(bytes);
    socket.send(Message::Binary(frame.into())).await?;
    Ok(())
}

/// The next of the standard input; none at its end (v5), or when the client is gone.
async fn input(socket: &mut Socket) -> Result<Option<Vec<u8>>, Gone> {
    while let Some(message) = socket.next().await {
        let Message::Binary(frame) = message? else { continue };
        match &*frame {
            [STDIN, input @ ..] => return Ok(Some(input.to_vec())),
            [CLOSE, STDIN] => return Ok(None),
            // Sizes of the terminal, and what else there may be.
            _ => {}
        }
    }
    Ok(None)
}

/// The `metav1.Status` that ends a session.
fn status(code: u8) -> Value {
    if code == 0 {
        return json!({ "metadata": {}, "status": "Success" });
    }
    json!({
        "metadata": {},
        "status": "Failure",
        "message": format!("command terminated with non-zero exit code: exit status {code}"),
        "reason": "NonZeroExitCode",
        "details": { "causes": [{ "reason": "ExitCode", "message": code.to_string() }] },
    })
}
