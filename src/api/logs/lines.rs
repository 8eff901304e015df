//! A container's log as lines, and the window of them that a reader asks for.
//!
//! Pure: bytes in, lines out. Logs grow at their end and lose their beginning, so a window is named
//! by its distance to one line, and that line by its time and its place among lines of that time.
//! How much of a log is read, and from where, is `logs`' part.

use std::borrow::Cow;

use serde::ser::SerializeStruct as _;
use serde::{Serialize, Serializer};

/// Lines shown to who does not say which: the newest ones.
const DEFAULT_LINES: i64 = 100;
const NEWEST: &str = "newest";
const OLDEST: &str = "oldest";
/// The time of a line that carries none: a message instead of a log.
const NO_TIME: &[u8] = b"0";

/// One line, as bytes: a log may hold anything but a line feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'r> {
    timestamp: &'r [u8],
    content: &'r [u8],
}

/// Which lines: those from `offset_from` up to, and without, `offset_to`, counted from a line.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Selection {
    reference_point: LineId,
    offset_from: i64,
    offset_to: i64,
    pub log_file_position: Position,
}

/// A line by its time; of several of one time the `line_num`-th, from the last one when negative.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct LineId {
    /// Or [`NEWEST`], [`OLDEST`]; empty is the newest line.
    timestamp: String,
    line_num: i64,
}

/// Which end of a log too long to be read as a whole.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Position {
    Beginning,
    End,
    #[default]
    #[serde(rename = "")]
    Neither,
}

/// The lines that were asked for, named so that they stay the same while the log grows.
#[derive(Debug, Default)]
pub struct Window<'l, 'r> {
    pub lines: &'l [Line<'r>],
    pub selection: Selection,
    /// There is nothing beyond, at the end that was read.
    pub is_last: bool,
}

/// The lines of a log without the empty ones.
pub fn lines(raw: &[u8]) -> Vec<Line<'_>> {
    raw.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(Line::of).collect()
}

/// The first value of a query's parameter.
pub fn parameter<'q>(query: &'q str, name: &str) -> Option<Cow<'q, str>> {
    let mut pairs = url::form_urlencoded::parse(query.as_bytes());
    pairs.find(|(key, _)| key == name).map(|(_, value)| value)
}

impl<'r> Line<'r> {
    fn of(line: &'r [u8]) -> Self {
        let is_stamped = line.first().is_some_and(u8::is_ascii_digit);
        match line.iter().position(|byte| *byte == b' ') {
            Some(blank) if is_stamped => {
                Self { timestamp: &line[..blank], content: &line[blank + 1..] }
            }
            _ => Self { timestamp: NO_TIME, content: line },
        }
    }
}

impl Serialize for Line<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut line = serializer.serialize_struct("Line", 2)?;
        line.serialize_field("timestamp", &String::from_utf8_lossy(self.timestamp))?;
        line.serialize_field("content", &String::from_utf8_lossy(self.content))?;
        line.end()
    }
}

impl Selection {
    /// Of a request's query. Without two whole numbers as offsets it is the newest lines.
    pub fn of(query: &str) -> Self {
        let number = |name: &str| parameter(query, name)?.parse::<i64>().ok();
        let (Some(offset_from), Some(offset_to)) = (number("offsetFrom"), number("offsetTo"))
        else {
            return Self {
                offset_from: 1 - DEFAULT_LINES,
                offset_to: 1,
                log_file_position: Position::End,
                ..Self::default()
            };
        };
        let timestamp = parameter(query, "referenceTimestamp").unwrap_or_default().into_owned();
        let line_num = number("referenceLineNum").unwrap_or_default();
        let log_file_position = match parameter(query, "logFilePosition").as_deref() {
            Some("beginning") => Position::Beginning,
            Some("end") => Position::End,
            _ => Position::Neither,
        };
        let reference_point = LineId { timestamp, line_num };
        Self { reference_point, offset_from, offset_to, log_file_position }
    }
}

impl LineId {
    /// The line at `index`. The newest time may get more lines and an old one lose some, so lines
    /// are counted from the end of their time that stays.
    fn of(lines: &[Line<'_>], index: usize) -> Self {
        let (before, from) = lines.split_at(index.min(lines.len()));
        let [line, after @ ..] = from else { return Self::default() };
        let is_newest = lines.last().is_some_and(|newest| newest.timestamp == line.timestamp);
        let line_num = if is_newest {
            1 + count_of(before.iter().rev(), line.timestamp)
        } else {
            -1 - count_of(after.iter(), line.timestamp)
        };
        Self { timestamp: String::from_utf8_lossy(line.timestamp).into_owned(), line_num }
    }

    fn find(&self, lines: &[Line<'_>]) -> Option<usize> {
        let timestamp = match self.timestamp.as_str() {
            NEWEST | "" => return lines.len().checked_sub(1),
            OLDEST => return (!lines.is_empty()).then_some(0),
            timestamp => timestamp.as_bytes(),
        };
        // Not by halves: two streams in one log may be out of order.
        let first = lines.iter().position(|line| line.timestamp == timestamp)?;
        let count = count_of(lines[first..].iter(), timestamp);
        let nth = match self.line_num {
            from_behind @ ..0 => count.saturating_add(from_behind),
            from_first => from_first - 1,
        };
        (0..count).contains(&nth).then(|| first + nth as usize)
    }
}

/// How many lines in a row are of this time.
fn count_of<'l, 'r: 'l>(lines: impl Iterator<Item = &'l Line<'r>>, timestamp: &[u8]) -> i64 {
    lines.take_while(|line| line.timestamp == timestamp).count() as i64
}

/// The lines that `wanted` names. Where the log has too few of them on one side it is as many from
/// the other; nothing when the line to count from is gone.
pub fn select<'l, 'r>(lines: &'l [Line<'r>], wanted: &Selection) -> Window<'l, 'r> {
    // Any two offsets are allowed, and their sums and differences do not fit 64 bits.
    let size = i128::from(wanted.offset_to) - i128::from(wanted.offset_from);
    let Some(reference) = wanted.reference_point.find(lines).filter(|_| size > 0) else {
        return Window::default();
    };
    let log_file_position = wanted.log_file_position;
    let len = lines.len() as i128;
    let from = reference as i128 + i128::from(wanted.offset_from);
    let (from, to, is_last) = if size > len {
        (0, len, true)
    } else if from + size > len {
        (len - size, len, log_file_position == Position::Beginning)
    } else if from < 0 {
        (0, size, log_file_position == Position::End)
    } else {
        (from, from + size, false)
    };
    let middle = lines.len() / 2;
    let selection = Selection {
        reference_point: LineId::of(lines, middle),
        offset_from: (from - middle as i128) as i64,
        offset_to: (to - middle as i128) as i64,
        log_file_position,
    };
    Window { lines: &lines[from as usize..to as usize], selection, is_last }
}

impl Window<'_, '_> {
    /// Times of the first and the last line; empty without lines.
    pub fn dates(&self) -> [String; 2] {
        [self.lines.first(), self.lines.last()].map(|line| {
            let timestamp = line.map_or(&b""[..], |line| line.timestamp);
            String::from_utf8_lossy(timestamp).into_owned()
        })
    }
}

#[cfg(test)]
#[path = "lines_tests.rs"]
mod tests;
