//! Windows of logs: known ones, and random ones against a model that is slow and plain.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const FAR: i64 = 2_000_000_000;

/// A log of lines with these times (the last digit), their content their number from 0 on.
fn log(times: &[u8]) -> String {
    let numbered = times.iter().enumerate();
    numbered.map(|(index, time)| format!("2026-01-02T03:04:0{time}Z line {index}\n")).collect()
}

fn wanted(timestamp: &str, line_num: i64, from: i64, to: i64, at: Position) -> Selection {
    Selection {
        reference_point: LineId { timestamp: timestamp.into(), line_num },
        offset_from: from,
        offset_to: to,
        log_file_position: at,
    }
}

/// The numbers of the lines in a window.
fn numbers(window: &Window<'_, '_>) -> Vec<usize> {
    let number = |line: &Line<'_>| {
        let text = std::str::from_utf8(line.content).unwrap();
        text.strip_prefix("line ").unwrap().parse().unwrap()
    };
    window.lines.iter().map(number).collect()
}

fn shown(raw: &[u8]) -> Value {
    serde_json::to_value(lines(raw)).unwrap()
}

#[test]
fn a_line_is_a_time_and_what_is_behind_the_first_blank() {
    let raw = b"2026-01-02T03:04:05.6Z a b\n\n2026-01-02T03:04:05.7Z \n7 x\n";
    assert_eq!(
        shown(raw),
        json!([
            {"timestamp": "2026-01-02T03:04:05.6Z", "content": "a b"},
            {"timestamp": "2026-01-02T03:04:05.7Z", "content": ""},
            {"timestamp": "7", "content": "x"},
        ])
    );
}

#[test]
fn a_line_without_a_time_is_of_time_zero() {
    for text in ["is waiting", "2026-01-02T03:04:05Z", " 7 x", "x 7", "\r", "\u{1b}[31mred"] {
        assert_eq!(shown(text.as_bytes()), json!([{"timestamp": "0", "content": text}]));
    }
}

#[test]
fn what_is_no_utf_8_is_shown_as_far_as_it_is() {
    let line = shown(b"7\xff \xfeab\xc3\nx\xff y");
    assert_eq!(line[0], json!({"timestamp": "7\u{fffd}", "content": "\u{fffd}ab\u{fffd}"}));
    assert_eq!(line[1], json!({"timestamp": "0", "content": "x\u{fffd} y"}));
}

#[test]
fn an_empty_log_has_no_window() {
    for raw in ["", "\n\n"] {
        let lines = lines(raw.as_bytes());
        assert!(lines.is_empty());
        for timestamp in ["", NEWEST, OLDEST, "0", "2026"] {
            let window = select(&lines, &wanted(timestamp, 1, -5, 5, Position::End));
            assert!(window.lines.is_empty() && !window.is_last);
            assert_eq!(window.selection, Selection::default());
            assert_eq!(window.dates(), ["", ""]);
        }
    }
}

#[test]
fn a_query_without_two_offsets_asks_for_the_newest_hundred() {
    let newest = wanted("", 0, -99, 1, Position::End);
    for query in [
        "",
        "offsetFrom=1",
        "offsetFrom=a&offsetTo=2",
        "offsetFrom=1.5&offsetTo=2&logFilePosition=beginning",
        "offsetFrom=1&offsetTo=99999999999999999999",
    ] {
        assert_eq!(Selection::of(query), newest, "{query}");
    }
    let log = log(&[7; 250]);
    let lines = lines(log.as_bytes());
    assert_eq!(numbers(&select(&lines, &newest)), (150..250).collect::<Vec<_>>());
}

#[test]
fn a_query_names_the_line_the_offsets_and_the_end() {
    let query = "logFilePosition=beginning&referenceTimestamp=2026-01-02T03%3A04%3A05%2B01%3A00\
                 &referenceLineNum=-3&offsetFrom=-2000000100&offsetTo=-2000000000&offsetTo=7";
    let time = "2026-01-02T03:04:05+01:00";
    assert_eq!(Selection::of(query), wanted(time, -3, -FAR - 100, -FAR, Position::Beginning));
    let odd = Selection::of("offsetFrom=0&offsetTo=5&referenceLineNum=x&logFilePosition=middle");
    assert_eq!(odd, wanted("", 0, 0, 5, Position::Neither));
    let shown = serde_json::to_value(odd).unwrap();
    let point = json!({"timestamp": "", "lineNum": 0});
    assert_eq!(
        shown,
        json!({"referencePoint": point, "offsetFrom": 0, "offsetTo": 5, "logFilePosition": ""})
    );
}

#[test]
fn offsets_far_beyond_the_log_are_its_ends() {
    let log = log(&[1, 2, 3, 4, 5]);
    let lines = lines(log.as_bytes());
    for (timestamp, from, to, at, is_last, found) in [
        (NEWEST, FAR, FAR + 2, Position::End, false, vec![3, 4]),
        (NEWEST, FAR, FAR + 2, Position::Beginning, true, vec![3, 4]),
        (OLDEST, -FAR - 2, -FAR, Position::Beginning, false, vec![0, 1]),
        (OLDEST, -FAR - 2, -FAR, Position::End, true, vec![0, 1]),
        (NEWEST, -FAR, FAR, Position::End, true, vec![0, 1, 2, 3, 4]),
        (NEWEST, i64::MIN, i64::MAX, Position::Neither, true, vec![0, 1, 2, 3, 4]),
        (OLDEST, i64::MAX - 1, i64::MAX, Position::Neither, false, vec![4]),
        (OLDEST, i64::MIN, i64::MIN + 1, Position::Neither, false, vec![0]),
        (NEWEST, 3, 3, Position::End, false, vec![]),
        (NEWEST, 3, 1, Position::End, false, vec![]),
    ] {
        let window = select(&lines, &wanted(timestamp, 0, from, to, at));
        assert_eq!((numbers(&window), window.is_last), (found, is_last), "{timestamp} {from} {to}");
    }
}

#[test]
fn lines_of_one_time_are_counted_from_either_end() {
    let log = log(&[1, 5, 5, 5, 9]);
    let lines = lines(log.as_bytes());
    let at = |line_num| {
        let time = "2026-01-02T03:04:05Z";
        numbers(&select(&lines, &wanted(time, line_num, 0, 1, Position::End)))
    };
    for (line_num, found) in [(1, 1), (3, 3), (-1, 3), (-3, 1)] {
        assert_eq!(at(line_num), [found]);
    }
    for line_num in [0, 4, -4, i64::MIN, i64::MAX] {
        assert!(at(line_num).is_empty(), "{line_num}");
    }
    let gone = wanted("2026-01-02T03:04:07Z", 1, 0, 1, Position::End);
    assert!(select(&lines, &gone).lines.is_empty());
}

#[test]
fn the_answer_counts_from_the_middle_line() {
    // The middle line is of the newest time, which may get more lines: counted from the first.
    let log_of = log(&[1, 5, 5, 5, 5]);
    let lines_of = lines(log_of.as_bytes());
    let window = select(&lines_of, &wanted(OLDEST, 0, 0, 3, Position::Beginning));
    assert_eq!(window.selection, wanted("2026-01-02T03:04:05Z", 2, -2, 1, Position::Beginning));
    // Here it is not: counted from the last.
    let log_of = log(&[5, 5, 5, 5, 9]);
    let lines_of = lines(log_of.as_bytes());
    let window = select(&lines_of, &wanted(NEWEST, 0, -1, 1, Position::End));
    assert_eq!(window.selection, wanted("2026-01-02T03:04:05Z", -2, 1, 3, Position::End));
    assert_eq!(window.dates(), ["2026-01-02T03:04:05Z", "2026-01-02T03:04:09Z"]);
}

#[test]
fn a_line_out_of_order_is_found() {
    let log = log(&[4, 2, 3, 1, 5]);
    let lines = lines(log.as_bytes());
    let window = select(&lines, &wanted("2026-01-02T03:04:02Z", 1, 0, 2, Position::End));
    assert_eq!(numbers(&window), [1, 2]);
}

/// The same said otherwise: the index to count from by a list of all candidates, and the window
/// as the one of its size, within the log, that is nearest to the wanted place.
fn model(times: &[u8], wanted: &Selection) -> (Vec<usize>, bool) {
    let len = times.len() as i128;
    let time = |time: &u8| format!("2026-01-02T03:04:0{time}Z");
    let point = &wanted.reference_point;
    let mut of_time: Vec<usize> =
        (0..times.len()).filter(|index| time(&times[*index]) == point.timestamp).collect();
    if point.line_num < 0 {
        of_time.reverse();
    }
    let nth = usize::try_from(point.line_num.unsigned_abs()).unwrap().checked_sub(1);
    let reference = match point.timestamp.as_str() {
        "" | NEWEST => times.len().checked_sub(1),
        OLDEST => (!times.is_empty()).then_some(0),
        _ => nth.and_then(|nth| of_time.get(nth).copied()),
    };
    let (from, to) = (i128::from(wanted.offset_from), i128::from(wanted.offset_to));
    let Some(reference) = reference.filter(|_| from < to) else { return (Vec::new(), false) };
    let (start, end) = (reference as i128 + from, reference as i128 + to);
    let is_last = match wanted.log_file_position {
        _ if to - from > len => true,
        Position::Beginning => end > len,
        Position::End => start < 0 && end <= len,
        Position::Neither => false,
    };
    let size = (to - from).min(len);
    let start = start.clamp(0, len - size);
    ((start as usize..(start + size) as usize).collect(), is_last)
}

fn offset() -> impl Strategy<Value = i64> {
    prop_oneof![
        8 => -25i64..25,
        1 => -FAR - 100..-FAR + 100,
        1 => FAR - 100..FAR + 100,
        1 => Just(i64::MIN),
        1 => Just(i64::MAX),
    ]
}

fn point() -> impl Strategy<Value = LineId> {
    let time = prop_oneof![
        Just(String::new()),
        Just(NEWEST.to_owned()),
        Just(OLDEST.to_owned()),
        (0u8..7).prop_map(|time| format!("2026-01-02T03:04:0{time}Z")),
        (0u8..7).prop_map(|time| format!("2026-01-02T03:04:0{time}Z")),
        "[0-9a-z]{0,4}",
    ];
    let line_num = prop_oneof![8 => -6i64..7, 1 => Just(i64::MIN), 1 => Just(i64::MAX)];
    (time, line_num).prop_map(|(timestamp, line_num)| LineId { timestamp, line_num })
}

fn selection() -> impl Strategy<Value = Selection> {
    let at = prop_oneof![Just(Position::Beginning), Just(Position::End), Just(Position::Neither)];
    (point(), offset(), offset(), at).prop_map(|(point, from, to, at)| Selection {
        reference_point: point,
        offset_from: from,
        offset_to: to,
        log_file_position: at,
    })
}

/// Times in order, many of them the same.
fn times() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(0u8..7, 0..25).prop_map(|mut times| {
        times.sort_unstable();
        times
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn every_window_is_that_of_the_model(times in times(), wanted in selection()) {
        let log = log(&times);
        let lines = lines(log.as_bytes());
        let window = select(&lines, &wanted);
        prop_assert_eq!((numbers(&window), window.is_last), model(&times, &wanted));
    }

    /// What an answer says of itself names the same lines again, also when the log has grown.
    #[test]
    fn an_answers_own_selection_stays_on_its_lines(
        times in times(), more in 0usize..10, wanted in selection(),
    ) {
        let before = log(&times);
        let mut grown = times.clone();
        grown.extend((0..more).map(|more| 6 + (more as u8) / 4));
        let after = log(&grown);
        let (before, after) = (lines(before.as_bytes()), lines(after.as_bytes()));
        let window = select(&before, &wanted);
        if !window.lines.is_empty() {
            let again = select(&after, &window.selection);
            prop_assert_eq!(numbers(&again), numbers(&window));
        }
    }

    /// Turning pages as a web page does shows every line once, and stops at the end.
    #[test]
    fn pages_one_after_another_are_the_whole_log(
        times in times(), size in 1usize..6, forwards in any::<bool>(),
    ) {
        let times = &times[..times.len() / size * size];
        let (log, size) = (log(times), size as i64);
        let lines = lines(log.as_bytes());
        let (first, step) = if forwards {
            (wanted(OLDEST, 0, -FAR - size, -FAR, Position::Beginning), size)
        } else {
            (wanted(NEWEST, 0, FAR, FAR + size, Position::End), -size)
        };
        let mut next = first;
        let mut seen: Vec<Vec<usize>> = Vec::new();
        loop {
            let page = select(&lines, &next);
            let found = numbers(&page);
            if found.is_empty() || seen.last() == Some(&found) {
                break;
            }
            seen.push(found);
            next = page.selection;
            next.offset_from += step;
            next.offset_to += step;
        }
        if !forwards {
            seen.reverse();
        }
        prop_assert_eq!(seen.concat(), (0..times.len()).collect::<Vec<_>>());
    }

    #[test]
    fn no_bytes_and_no_selection_can_do_harm(raw in any::<Vec<u8>>(), wanted in selection()) {
        let lines = lines(&raw);
        let window = select(&lines, &wanted);
        prop_assert!(window.lines.len() <= lines.len());
        prop_assert!(serde_json::to_string(window.lines).is_ok());
    }
}
