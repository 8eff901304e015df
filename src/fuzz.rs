//! What a fuzzer feeds: any bytes, to what reads clients' frames, the API server's frames and logs.
//! Each function panics where one of its promises is broken.
//!
//! Only in tests and under `cfg(fuzzing)`, never in the product. Seeds and targets are in `fuzz/`.

use std::iter::once;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::api::log_lines::{Selection, lines, parameter, select};
use crate::api::log_stream::{Line, Mark, Reader};
use crate::api::sockjs_frames::{self as frames, Close, Command, Place, Transport};
use crate::upstream::channel::{self, Exit, Output};

/// What browsers are known to lose, some of each range.
const LOST: [char; 5] = ['\u{200c}', '\u{2028}', '\u{2060}', '\u{feff}', '\u{ffff}'];
/// Columns or rows of the widest terminal that a message may ask for.
const CELLS: u16 = 4096;
/// Characters of an end's message.
const WORDS: usize = 2_048;
/// Which of the channel protocols is that of a port, and how many there are.
const PORT: (u8, u8) = (2, 3);
/// A log is repeated so often at most, and up to so many bytes: a line that is too long is made of
/// a seed that is not.
const REPEATED: (usize, usize) = (64, 256 << 10);
/// Bytes kept of a line; where they are no UTF-8, each becomes three.
const LINE: usize = 3 * (64 << 10);

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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};
    use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

    use super::*;

    /// Without `BINNACLE_FUZZ_SECONDS`: some seconds of a build that is not optimized.
    const CHANGED: usize = 4_000;
    /// Changes of one input, at most.
    const CHANGES: usize = 8;
    const LONGEST: usize = 8 << 10;
    /// What single bytes seldom hit upon.
    const TOKENS: [&[u8]; 24] = [
        b"\n",
        b"\r\n",
        b"\0",
        b"\xff",
        b"\xc3",
        b"\xf0\x9f\x98\x80",
        b"\xe2\x80\xa8",
        b"\xed\xa0\x80",
        b"[",
        b"]",
        b"\"",
        b"\\ud83d",
        b"\\u0000",
        b"{\"Op\":\"stdin\"",
        b"\"Cols\":",
        b"4097",
        b"1e9",
        b"-1",
        b"\x03{\"status\":\"Failure\"",
        b"2026-01-02T03:04:05Z ",
        b"&offsetFrom=",
        b"&times=64",
        b"&from=2026-01-02T03:04:05Z#1",
        b"/websocket",
    ];

    type Target = fn(&[u8]);

    /// An input under way; it is told when its target panics.
    struct Input<'i>(&'i str, &'i [u8]);

    impl Drop for Input<'_> {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("{}: the input was b\"{}\"", self.0, self.1.escape_ascii());
            }
        }
    }

    fn feed(name: &str, target: Target, data: &[u8]) {
        let _input = Input(name, data);
        target(data);
    }

    fn seeds(name: &str) -> Vec<Vec<u8>> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
        let files = fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path());
        let mut files: Vec<PathBuf> = files.collect();
        files.sort();
        assert!(files.len() >= 20, "{}: {} seeds", folder.display(), files.len());
        files.iter().map(|file| fs::read(file).unwrap()).collect()
    }

    /// Xorshift (Marsaglia 2003): it need not be good, it must be the same everywhere.
    struct Dice(u64);

    impl Dice {
        /// Below `sides`, which is not zero.
        fn roll(&mut self, sides: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 >> 16) as usize % sides
        }

        fn change(&mut self, data: &mut Vec<u8>, other: &[u8]) {
            let at = self.roll(data.len() + 1);
            let end = (at + self.roll(16)).min(data.len());
            let part = data[at..end].to_vec();
            match self.roll(7) {
                0 if at < data.len() => data[at] ^= 1 << self.roll(8),
                1 if at < data.len() => data[at] = self.roll(256) as u8,
                2 => drop(data.drain(at..end)),
                3 => drop(data.splice(at..at, part)),
                4 => drop(data.splice(at..end, TOKENS[self.roll(TOKENS.len())].iter().copied())),
                5 => {
                    let from = self.roll(other.len() + 1);
                    drop(data.splice(at..end, other[from..].iter().copied()));
                }
                _ => drop(data.splice(at..at, TOKENS[self.roll(TOKENS.len())].iter().copied())),
            }
            data.truncate(LONGEST);
        }
    }

    /// The seeds as they are, and changed by chance.
    fn run(name: &str, target: Target) {
        let seeds = seeds(name);
        for seed in &seeds {
            feed(name, target, seed);
        }
        let wanted = std::env::var("BINNACLE_FUZZ_SECONDS").ok();
        let wanted = wanted.map(|text| Duration::from_secs(text.parse().expect("whole seconds")));
        let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
        let mut dice = Dice(wanted.map_or(0x9e37_79b9_7f4a_7c15, |_| clock | 1));
        let (begun, mut fed) = (Instant::now(), 0);
        while wanted.map_or(fed < CHANGED, |time| begun.elapsed() < time) {
            let mut data = seeds[dice.roll(seeds.len())].clone();
            for _ in 0..=dice.roll(CHANGES) {
                let other = dice.roll(seeds.len());
                dice.change(&mut data, &seeds[other]);
            }
            feed(name, target, &data);
            fed += 1;
        }
    }

    #[test]
    fn no_bytes_of_a_browser_break_sockjs() {
        run("sockjs_frames", sockjs_frames);
    }

    #[test]
    fn no_frames_of_an_api_server_break_a_channel() {
        run("channel_frames", channel_frames);
    }

    #[test]
    fn no_log_breaks_its_lines_however_it_comes() {
        run("log_lines", log_lines);
    }
}
