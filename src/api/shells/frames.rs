//! SockJS's frames, the contract's terminal messages inside them, and SockJS's addresses.
//!
//! Pure, and so what a fuzzer feeds: nothing is read, sent or remembered here. Transports are
//! `sockjs`' part, what a message does is `shell`'s.

use std::fmt::Write as _;

use serde::Deserialize;
use serde_json::{Value, json};

use super::terminal::is_size;

/// Bytes of one frame: a long paste; more is no typing any more.
pub const LARGEST: usize = 64 << 10;
/// Bytes of one `xhr_send` body: the official client joins all that waited for the one before.
pub const LARGEST_BODY: usize = 1 << 20;
/// Messages in one frame: a client sends what it gathered during one request.
const MOST_MESSAGES: usize = 1024;
/// The longest server or session in an address; the official client's have 3 and 8 characters.
const LONGEST_PART: usize = 64;
/// Bytes of a part of a long paste: as JSON each may be six times as long (`\u001b`), and a part is
/// a message like others.
const PART: usize = LARGEST / 8;

pub const OPEN: &str = "o";
pub const HEARTBEAT: &str = "h";

/// How a session ends, as the client is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Close {
    pub code: u16,
    pub reason: String,
}

impl Close {
    pub fn new(code: u16, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into() }
    }

    /// `c[code,"reason"]`.
    pub fn frame(&self) -> String {
        format!("c[{},{}]", self.code, quoted(&self.reason))
    }
}

/// `a["…",…]`.
pub fn array(messages: &[String]) -> String {
    let quoted: Vec<String> = messages.iter().map(|message| quoted(message)).collect();
    format!("a[{}]", quoted.join(","))
}

/// JSON text without the characters that browsers are known to lose (SockJS 0.3.3 names them).
fn quoted(text: &str) -> String {
    let json = Value::from(text).to_string();
    if !json.chars().any(is_lost) {
        return json;
    }
    let mut safe = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if is_lost(c) {
            let _ = write!(safe, "\\u{:04x}", u32::from(c));
        } else {
            safe.push(c);
        }
    }
    safe
}

fn is_lost(c: char) -> bool {
    matches!(c,
        '\u{200c}'..='\u{200f}'
        | '\u{2028}'..='\u{202f}'
        | '\u{2060}'..='\u{206f}'
        | '\u{feff}'
        | '\u{fff0}'..='\u{ffff}')
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadFrame {
    /// Nothing at all: an error in a body, ignored on a websocket.
    Empty,
    /// Neither a JSON string nor an array of such, or too many of them.
    Broken,
}

/// The messages of a client's frame: `["…",…]`, or one string alone.
pub fn messages(frame: &[u8]) -> Result<Vec<String>, BadFrame> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Frame {
        Many(Vec<String>),
        One(String),
    }
    if frame.trim_ascii().is_empty() {
        return Err(BadFrame::Empty);
    }
    match serde_json::from_slice(frame) {
        Ok(Frame::Many(all)) if all.len() <= MOST_MESSAGES => Ok(all),
        Ok(Frame::One(one)) => Ok(vec![one]),
        Ok(Frame::Many(_)) | Err(_) => Err(BadFrame::Broken),
    }
}

/// Messages as short as a websocket's: a long paste is taken apart, so that no more of it than a
/// part lies in any queue. `None`: something else is so long.
pub fn short(messages: Vec<String>) -> Option<Vec<String>> {
    let mut all = Vec::with_capacity(messages.len());
    for message in messages {
        if message.len() <= LARGEST {
            all.push(message);
            continue;
        }
        let Ok(Command::Stdin(data)) = command(&message) else { return None };
        let mut rest = data.as_str();
        while !rest.is_empty() {
            let mut end = rest.len().min(PART);
            while !rest.is_char_boundary(end) {
                end -= 1;
            }
            let (part, left) = rest.split_at(end);
            all.push(json!({ "Op": "stdin", "Data": part }).to_string());
            rest = left;
        }
    }
    Some(all)
}

/// What a client's message asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    Bind(String),
    Stdin(String),
    Resize {
        columns: u16,
        rows: u16,
    },
    /// A terminal of a size that there is not.
    OddSize,
    /// Nothing typed, or the size of a terminal that is hidden: browsers report zero.
    Nothing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadMessage {
    #[error("a message must be a JSON object with Op, Data, SessionID, Rows and Cols")]
    NoObject,
    #[error("Op, Data and SessionID must be strings, Rows and Cols numbers")]
    WrongType,
    #[error("Op must be bind, stdin or resize")]
    UnknownOp,
}

/// The contract's `TerminalMessage`; the case of its keys does not count.
pub fn command(message: &str) -> Result<Command, BadMessage> {
    let Ok(Value::Object(fields)) = serde_json::from_str(message) else {
        return Err(BadMessage::NoObject);
    };
    let field = |name: &str| {
        let found = fields.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value).filter(|value| !value.is_null())
    };
    let text = |name: &str| match field(name) {
        None => Ok(""),
        Some(value) => value.as_str().ok_or(BadMessage::WrongType),
    };
    let number = |name: &str| match field(name) {
        None => Ok(0),
        Some(Value::Number(number)) => Ok(number.as_u64().unwrap_or(u64::MAX)),
        Some(_) => Err(BadMessage::WrongType),
    };
    match text("Op")? {
        "bind" => Ok(Command::Bind(text("SessionID")?.to_owned())),
        "stdin" => Ok(match text("Data")? {
            "" => Command::Nothing,
            data => Command::Stdin(data.to_owned()),
        }),
        "resize" => Ok(size(number("Cols")?, number("Rows")?)),
        _ => Err(BadMessage::UnknownOp),
    }
}

fn size(columns: u64, rows: u64) -> Command {
    if columns == 0 || rows == 0 {
        return Command::Nothing;
    }
    match (u16::try_from(columns), u16::try_from(rows)) {
        (Ok(columns), Ok(rows)) if is_size(columns, rows) => Command::Resize { columns, rows },
        _ => Command::OddSize,
    }
}

/// What the process writes.
pub fn stdout(data: &str) -> String {
    told("stdout", data)
}

/// What the frontend shows beside the terminal.
pub fn toast(text: &str) -> String {
    told("toast", text)
}

/// The contract has all five fields in each message.
fn told(op: &str, data: &str) -> String {
    json!({ "Op": op, "Data": data, "SessionID": "", "Rows": 0, "Cols": 0 }).to_string()
}

/// What an address below `/api/sockjs` names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place<'p> {
    Greeting,
    Info,
    /// A websocket without SockJS's frames.
    RawWebsocket,
    Session {
        /// Only for load balancers; it means nothing here.
        server: &'p str,
        session: &'p str,
        transport: Transport,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Websocket,
    XhrStreaming,
    Xhr,
    XhrSend,
}

/// `rest` is the path behind `/api/sockjs`; `None`: there is nothing, or none of our transports.
pub fn place(rest: &str) -> Option<Place<'_>> {
    match rest {
        "" | "/" => return Some(Place::Greeting),
        "/info" => return Some(Place::Info),
        "/websocket" => return Some(Place::RawWebsocket),
        _ => {}
    }
    let mut parts = rest.strip_prefix('/')?.split('/');
    let (server, session, transport) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || !is_part(server) || !is_part(session) {
        return None;
    }
    let transport = match transport {
        "websocket" => Transport::Websocket,
        "xhr_streaming" => Transport::XhrStreaming,
        "xhr" => Transport::Xhr,
        "xhr_send" => Transport::XhrSend,
        _ => return None,
    };
    Some(Place::Session { server, session, transport })
}

/// Safe in the path of a cookie, too.
fn is_part(text: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-_~%".contains(&byte);
    !text.is_empty() && text.len() <= LONGEST_PART && text.bytes().all(known)
}

#[cfg(test)]
#[path = "frames_tests.rs"]
mod tests;
