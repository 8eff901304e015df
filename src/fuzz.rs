//! What a fuzzer feeds: any bytes, to what reads clients' frames, the API server's frames, logs,
//! and charts with their indexes and versions.
//! Each function panics where one of its promises is broken.
//!
//! Only in tests and under `cfg(fuzzing)`, never in the product. Seeds and targets are in `fuzz/`.

use std::io::{self, Read};
use std::iter::once;

use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzEncoder;
use serde_json::{Value, json};
use tar::{EntryType, Header};

use crate::api::logs::lines::{Selection, lines, parameter, select};
use crate::api::logs::stream::{Line, Mark, Reader};
use crate::api::shells::frames::{self as frames, Close, Command, Place, Transport};
use crate::charts::catalogue::{Builder, Catalogue, Version};
use crate::charts::{archive, index, versions};
use crate::upstream::channel::{self, Exit, Output};

/// What browsers are known to lose, some of each range.
const LOST: [char; 5] = ['\u{200c}', '\u{2028}', '\u{2060}', '\u{feff}', '\u{ffff}'];
/// Columns or rows of the widest terminal that a message may ask for.
const CELLS: u16 = 1000;
/// Characters of an end's message.
const WORDS: usize = 2_048;
/// Which of the channel protocols is that of a port, and how many there are.
const PORT: (u8, u8) = (2, 3);
/// A log is repeated so often at most, and up to so many bytes: a line that is too long is made of
/// a seed that is not.
const REPEATED: (usize, usize) = (64, 256 << 10);
/// Bytes kept of a line; where they are no UTF-8, each becomes three.
const LINE: usize = 3 * (64 << 10);
/// Bytes of the longest version and of the longest range.
const VERSION: usize = 256;
const RANGE: usize = 1024;
/// Versions that are held against a range.
const VERSIONS: usize = 16;
/// What begins an entry's line where an archive is written as text.
const ENTRY: &[u8; 4] = b"=== ";
/// Bytes of a tar's block.
const BLOCK: usize = 512;

/// A client's frame, and the same bytes as a message and as the rest of an address.
pub fn sockjs_frames(data: &[u8]) {
    if let Ok(messages) = frames::messages(data) {
        let bytes: usize = messages.iter().map(String::len).sum();
        assert!(bytes <= data.len(), "{bytes} bytes of messages in {} of a frame", data.len());
        reads_the_same(&messages);
        for message in &messages {
            obeys(message);
        }
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    obeys(text);
    reads_the_same(&[frames::stdout(text), frames::toast(text), text.to_owned()]);
    let close = Close::new(3000, text).frame();
    let read = serde_json::from_str::<Value>(close.strip_prefix('c').unwrap_or_default());
    assert_eq!(read.ok(), Some(json!([3000, text])));
    let Some(Place::Session { server, session, transport }) = frames::place(text) else { return };
    let transport = match transport {
        Transport::Websocket => "websocket",
        Transport::XhrStreaming => "xhr_streaming",
        Transport::Xhr => "xhr",
        Transport::XhrSend => "xhr_send",
    };
    assert_eq!(text, format!("/{server}/{session}/{transport}"));
    assert!(server.len() <= 64 && session.len() <= 64, "{text}");
}

fn reads_the_same(messages: &[String]) {
    let frame = frames::array(messages);
    assert!(!frame.contains(LOST), "{frame}");
    let read = frames::messages(frame.as_bytes().get(1..).unwrap_or_default());
    assert_eq!(read.as_deref(), Ok(messages));
}

/// A message's command has sizes within limits, and said again it is the same.
fn obeys(message: &str) {
    let Ok(command) = frames::command(message) else { return };
    let told = match &command {
        Command::Bind(id) => json!({ "Op": "bind", "SessionID": id }),
        Command::Stdin(data) => {
            assert!(!data.is_empty() && data.len() <= message.len(), "{message}");
            json!({ "Op": "stdin", "Data": data })
        }
        Command::Resize { columns, rows } => {
            let is_size = |cells: &u16| (1..=CELLS).contains(cells);
            assert!(is_size(columns) && is_size(rows), "{message}");
            json!({ "Op": "resize", "Cols": columns, "Rows": rows })
        }
        Command::OddSize | Command::Nothing => return,
    };
    assert_eq!(frames::command(&told.to_string()), Ok(command));
}

/// A byte for the protocol, then frames, each behind a byte with its length; 255 is all that is
/// left.
pub fn channel_frames(data: &[u8]) {
    let Some((protocol, mut rest)) = data.split_first() else { return };
    let mut sent = Vec::new();
    while let Some((length, more)) = rest.split_first() {
        let length = if *length == u8::MAX { more.len() } else { usize::from(*length) };
        let (frame, after) = more.split_at(length.min(more.len()));
        sent.push(Bytes::copy_from_slice(frame));
        rest = after;
    }
    let said = channel::said(*protocol, &sent);
    assert_eq!(said.len(), sent.len());
    for (said, frame) in said.into_iter().zip(&sent) {
        let Some(said) = said else { continue };
        match &said {
            Output::Stdout(data) | Output::Stderr(data) => {
                assert!(!data.is_empty() && frame.get(1..) == Some(&data[..]), "{frame:?}");
            }
            Output::End(exit) => assert!(exit.message.chars().count() <= WORDS, "{frame:?}"),
        }
        let greetings = [Bytes::from_static(b"\x00\x50\x00"), Bytes::from_static(b"\x01\x50\x00")];
        let again = greetings.into_iter().chain([frame_of(&said, *protocol)]);
        let again: Vec<Bytes> = again.collect();
        assert_eq!(channel::said(*protocol, &again).pop(), Some(Some(said)));
    }
}

/// As servers write it.
fn frame_of(said: &Output, protocol: u8) -> Bytes {
    let is_port = protocol % PORT.1 == PORT.0;
    let (number, data) = match said {
        Output::Stdout(data) => (u8::from(!is_port), data.to_vec()),
        Output::Stderr(data) => (2, data.to_vec()),
        Output::End(exit) if is_port => (1, exit.message.clone().into_bytes()),
        Output::End(Exit { code: None, message }) => {
            (3, json!({ "status": "Failure", "message": message }).to_string().into_bytes())
        }
        Output::End(Exit { code: Some(code), message }) => {
            let causes = json!([{ "reason": "ExitCode", "message": code.to_string() }]);
            let status = json!({
                "status": "Failure", "reason": "NonZeroExitCode", "message": message,
                "details": { "causes": causes },
            });
            (3, status.to_string().into_bytes())
        }
    };
    once(number).chain(data).collect()
}

/// A query on the first line, as the log routes have it, and a log behind it; its parameter `times`
/// says how often the log is repeated.
pub fn log_lines(data: &[u8]) {
    let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let (query, log) = data.split_at(end);
    let query = String::from_utf8_lossy(query);
    let log = log.get(1..).unwrap_or_default();
    let times = parameter(&query, "times").and_then(|times| times.parse::<usize>().ok());
    let most = REPEATED.0.min(REPEATED.1 / log.len().max(1));
    let log = log.repeat(times.unwrap_or(1).min(most));
    pages(&query, &log);
    follows(&query, &log);
}

/// A log as a page of lines, which names itself so that it is found again.
fn pages(query: &str, log: &[u8]) {
    let all = lines(log);
    assert!(all.len() <= log.len());
    let middle = log.len() / 2;
    let feed = log[middle..].iter().position(|byte| *byte == b'\n');
    let (head, tail) = log.split_at(feed.map_or(log.len(), |feed| middle + feed + 1));
    let mut parts = lines(head);
    parts.extend(lines(tail));
    assert!(parts == all, "cut behind a line it has other lines");
    let shown = serde_json::to_value(&all).unwrap_or_default();
    let shown = shown.as_array().map(Vec::as_slice).unwrap_or_default();
    let times: Vec<&str> = shown.iter().filter_map(|line| line["timestamp"].as_str()).collect();
    assert_eq!(times.len(), all.len());
    let window = select(&all, &Selection::of(query));
    assert!(window.lines.len() <= all.len());
    let is_text = !times.iter().any(|time| time.contains(char::REPLACEMENT_CHARACTER));
    if times.is_sorted() && is_text && !window.lines.is_empty() {
        let again = select(&all, &window.selection);
        assert!(again.lines == window.lines, "{:?} names other lines", window.selection);
        assert_eq!(again.dates(), window.dates());
    }
}

/// A log as it is followed: in any pieces the same lines, and from any of them on the rest.
fn follows(query: &str, log: &[u8]) {
    let from = parameter(query, "from").and_then(|place| place.parse::<Mark>().ok());
    if let Some(place) = from {
        assert_eq!(place.to_string().parse::<Mark>(), Ok(place));
    }
    let whole = read(from, log, |_| log.len());
    for line in &whole {
        assert!(line.stamp.len() + line.text.len() <= LINE && line.cut <= log.len() as u64);
    }
    let bytes: usize = whole.iter().map(|line| line.stamp.len() + line.text.len()).sum();
    assert!(bytes <= 3 * log.len(), "{bytes} bytes of lines of {} bytes", log.len());
    assert!(read(from, log, |_| 1) == whole, "byte by byte it has other lines");
    let pieces = |at: usize| 1 + usize::from(log[at]) * 7 % 97;
    assert!(read(from, log, pieces) == whole, "in pieces it has other lines");
    let in_order = whole.is_sorted_by_key(|line| line.at);
    let in_order = in_order && whole.iter().all(|line| line.at.is_some());
    let middle = whole.len() / 2;
    if let (true, None, Some(line)) = (in_order, from, whole.get(middle)) {
        let rest = read(line.mark, log, pieces);
        assert!(rest == whole[middle + 1..], "from {:?} on it has other lines", line.mark);
    }
}

/// The lines of a log that comes in pieces of these lengths.
fn read(from: Option<Mark>, log: &[u8], length: impl Fn(usize) -> usize) -> Vec<Line> {
    let (mut reader, mut lines, mut at) = (Reader::new(from), Vec::new(), 0);
    while at < log.len() {
        let end = (at + length(at)).min(log.len());
        let mut piece = &log[at..end];
        while let Some(line) = reader.next(&mut piece) {
            lines.push(line);
        }
        at = end;
    }
    lines.extend(reader.rest());
    lines
}

/// A repository's index, as YAML or JSON.
pub fn chart_index(data: &[u8]) {
    let whole = catalogue_of(data);
    assert!(catalogue_of(Slow(data)) == whole, "byte by byte it is another index");
    let Some((catalogue, summary)) = whole else { return };
    assert!(catalogue.versions() <= summary.versions && summary.versions <= data.len());
    assert_eq!(summary.skipped == 0, summary.reason.is_none());
    assert!(catalogue.charts.is_sorted_by(|one, other| one.name < other.name));
    for chart in &catalogue.charts {
        let orders = chart.versions.iter().map(|one| versions::order(&one.version));
        let orders: Vec<_> = orders.collect();
        assert!(!orders.is_empty() && orders.iter().all(Option::is_some), "{}", chart.name);
        assert!(orders.is_sorted_by(|one, other| one >= other), "{}", chart.name);
        assert!(chart.versions.iter().all(|one| chart.version(&one.version) == Some(one)));
    }
    let written = serde_json::to_string(&catalogue).unwrap_or_default();
    assert_eq!(serde_json::from_str::<Catalogue>(&written).ok(), Some(catalogue));
}

fn catalogue_of(reader: impl Read) -> Option<(Catalogue, index::Summary)> {
    let mut builder = Builder::new();
    let summary = index::read(reader, &mut builder).ok()?;
    Some((builder.finish_counted().0, summary))
}

/// Gives one byte at a time.
struct Slow<'d>(&'d [u8]);

impl Read for Slow<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let most = into.len().min(1);
        self.0.read(&mut into[..most])
    }
}

/// A chart's archive: as it is, and as what is packed. That is a tar, or text out of which one is
/// made with sound checksums: lines such as `=== 0 web/Chart.yaml`, with an entry's type and path,
/// and its content below.
pub fn chart_archive(data: &[u8]) {
    holds_a_chart(data);
    let tar = if data.starts_with(ENTRY) { tar_of(data) } else { data.to_vec() };
    let mut packed = Vec::new();
    let zipped = GzEncoder::new(tar.as_slice(), Compression::none()).read_to_end(&mut packed);
    assert!(zipped.is_ok());
    holds_a_chart(&packed);
}

fn holds_a_chart(packed: &[u8]) {
    let Ok(chart) = archive::inspect(&Bytes::copy_from_slice(packed)) else { return };
    assert!(chart.metadata.is_object() && chart.digest.len() == 64);
    for path in chart.templates.iter().chain(&chart.crds).chain([&chart.name]) {
        let leads_in = |part: &str| !matches!(part, "" | "." | "..");
        assert!(path.split('/').all(leads_in), "{path:?}");
        assert!(!path.contains(|c: char| c == '\\' || c.is_control()), "{path:?}");
    }
    assert!(!chart.name.contains('/'), "{}", chart.name);
    assert!(chart.templates.iter().all(|path| path.starts_with("templates/")));
    assert!(chart.crds.iter().all(|path| path.starts_with("crds/")));
}

fn tar_of(text: &[u8]) -> Vec<u8> {
    let mut entries: Vec<(&[u8], Vec<u8>)> = Vec::new();
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        if let Some(head) = line.strip_prefix(ENTRY) {
            entries.push((head, Vec::new()));
        } else if let Some((_, content)) = entries.last_mut() {
            content.extend_from_slice(line);
        }
    }
    let mut tar = Vec::new();
    for (head, content) in entries {
        let head = head.strip_suffix(b"\n").unwrap_or(head);
        let mut header = Header::new_gnu();
        let path = head.get(2..).unwrap_or_default();
        for (to, from) in header.as_old_mut().name.iter_mut().zip(path) {
            *to = *from;
        }
        header.set_entry_type(EntryType::new(head.first().copied().unwrap_or_default()));
        header.set_size(content.len() as u64);
        header.set_cksum();
        tar.extend_from_slice(header.as_bytes());
        tar.extend_from_slice(&content);
        tar.resize(tar.len().next_multiple_of(BLOCK), 0);
    }
    tar.resize(tar.len() + 2 * BLOCK, 0);
    tar
}

/// A range of versions on the first line, and a version on each line after it.
pub fn chart_ranges(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut lines = text.lines();
    let range = lines.next().unwrap_or_default();
    let known = lines.take(VERSIONS).filter_map(|line| Some((versions::order(line)?, line)));
    let mut known: Vec<(semver::Version, &str)> = known.collect();
    known.sort_by(|(one, _), (other, _)| other.cmp(one));
    if let Some((than, _)) = known.first() {
        divides(than, &known);
    }
    let version = |line: &str| Version { version: line.into(), ..Version::default() };
    let all: Vec<Version> = known.iter().map(|(_, line)| version(line)).collect();
    let found = versions::newest(&all, range).map(|found| found.version.as_str());
    let Ok(parsed) = versions::Range::parse(range) else {
        assert!(found.is_none_or(|found| found == range.trim()), "{range:?}: {found:?}");
        return;
    };
    assert!(range.len() <= RANGE);
    assert!(found.is_none_or(|found| found == range.trim() || parsed.contains(found)), "{range:?}");
    let twice = format!("{range} || {range}");
    if !range.trim().is_empty() && twice.len() <= RANGE {
        let twice = versions::Range::parse(&twice);
        for (_, line) in &known {
            let again = twice.as_ref().ok().map(|twice| twice.contains(line));
            assert_eq!(again, Some(parsed.contains(line)), "{range:?} and {line:?}");
        }
    }
}

/// A version written again is the same one, and of all others each is on one side of it.
fn divides(than: &semver::Version, known: &[(semver::Version, &str)]) {
    let than_text = than.to_string();
    // Parts that were missing make it longer.
    if than_text.len() > VERSION {
        return;
    }
    assert_eq!(versions::order(&than_text).as_ref(), Some(than));
    let compared = known.iter().filter(|(one, _)| one.pre.is_empty() || !than.pre.is_empty());
    let compared: Vec<&str> = compared.map(|(_, line)| *line).collect();
    for (one, other) in [("=", "!="), (">=", "<"), (">", "<=")] {
        let sides = [one, other].map(|sign| versions::Range::parse(&format!("{sign}{than_text}")));
        assert!(sides.iter().all(Result::is_ok), "{than_text} makes no range: {sides:?}");
        let [Ok(one), Ok(other)] = &sides else { return };
        for line in &compared {
            assert_ne!(one.contains(line), other.contains(line), "{than_text} and {line}");
        }
    }
}

#[cfg(test)]
mod tests;
