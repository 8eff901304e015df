//! Lines out of bytes, places in a log and the queue, without a kubelet.

use super::*;

fn line(second: u32, nanos: u32, text: &str) -> String {
    format!("2026-01-02T03:04:{second:02}.{nanos:09}Z {text}\n")
}

/// What a reader makes of these chunks.
fn read(reader: &mut Reader, chunks: &[&[u8]]) -> Vec<Line> {
    let mut lines = Vec::new();
    for chunk in chunks {
        let mut chunk = *chunk;
        while let Some(line) = reader.next(&mut chunk) {
            lines.push(line);
        }
        assert!(chunk.is_empty(), "the whole chunk is used");
    }
    lines
}

fn texts(lines: &[Line]) -> Vec<&str> {
    lines.iter().map(|line| line.text.as_str()).collect()
}

#[test]
fn lines_and_letters_are_whole_however_the_bytes_are_cut() {
    let log = [line(1, 5, "größe 𝄞"), line(2, 0, ""), line(3, 0, "a  b\r")].concat();
    for size in 1..=log.len() {
        let chunks: Vec<&[u8]> = log.as_bytes().chunks(size).collect();
        let lines = read(&mut Reader::default(), &chunks);
        assert_eq!(texts(&lines), ["größe 𝄞", "", "a  b\r"], "chunks of {size}");
        assert_eq!(lines[0].stamp, "2026-01-02T03:04:01.000000005Z");
        assert_eq!(lines[0].mark.unwrap().to_string(), "2026-01-02T03:04:01.000000005Z#1");
    }
}

#[test]
fn what_is_no_letter_is_shown_as_such_and_what_has_no_time_is_a_word_of_its_own() {
    let mut reader = Reader::default();
    let log = b"2026-01-02T03:04:05Z a\xffb\n\nfailed to watch file \"x\": too many\n";
    let lines = read(&mut reader, &[&log[..], b"2026 nonsense\n"]);
    let all = ["a\u{fffd}b", "failed to watch file \"x\": too many", "2026 nonsense"];
    assert_eq!(texts(&lines), all);
    assert_eq!(lines[1].at, None);
    assert_eq!(lines[1].mark, lines[0].mark, "it is as far as the line before");
}

#[test]
fn a_line_that_is_too_long_is_cut_between_letters_and_says_so() {
    let mut reader = Reader::default();
    let stamp = "2026-01-02T03:04:05Z ";
    let text = "ä".repeat(LONGEST);
    let lines = read(&mut reader, &[stamp.as_bytes(), text.as_bytes(), b"\n", b"short"]);
    let [long] = lines.as_slice() else { panic!("{} lines", lines.len()) };
    assert!(long.text.len() + stamp.len() <= LONGEST && long.text.chars().all(|c| c == 'ä'));
    assert_eq!(long.text.len() as u64 + long.cut, text.len() as u64);
    assert!(reader.part.capacity() <= 2 * LONGEST, "what is left out is not held");
    let short = reader.rest().unwrap();
    assert_eq!((short.text.as_str(), short.cut), ("short", 0));
    assert_eq!(reader.rest(), None);
}

#[test]
fn a_log_that_is_opened_anew_goes_on_without_doubled_or_lost_lines() {
    // Two of one time, and one that comes late but within the second.
    let all = [
        line(1, 0, "before the second"),
        line(2, 5, "a"),
        line(2, 9, "b"),
        line(2, 9, "c"),
        line(2, 7, "late"),
        line(1, 8, "later still"),
        line(2, 9, "d"),
        line(3, 0, "e"),
    ];
    let log = all.concat();
    let whole = read(&mut Reader::default(), &[log.as_bytes()]);
    for (index, last) in whole.iter().enumerate() {
        let mark: Mark = last.mark.unwrap().to_string().parse().unwrap();
        // What the kubelet gives from that second on.
        let since: String = whole
            .iter()
            .zip(&all)
            .filter(|(line, _)| line.at.unwrap() >= mark.second())
            .map(|(_, raw)| raw.as_str())
            .collect();
        let read_on = read(&mut Reader::new(Some(mark)), &[since.as_bytes()]);
        let expected: Vec<&str> = whole[index + 1..]
            .iter()
            .filter(|line| line.at.unwrap() >= mark.second())
            .map(|line| line.text.as_str())
            .collect();
        assert_eq!(texts(&read_on), expected, "behind {}", last.text);
    }
}

#[test]
fn a_break_within_a_line_leaves_no_half_of_it() {
    let mut reader = Reader::default();
    let (one, two) = (line(1, 0, "one"), line(1, 1, "two"));
    let half = &two.as_bytes()[..two.len() - 2];
    assert_eq!(texts(&read(&mut reader, &[one.as_bytes(), half])), ["one"]);
    reader.again();
    assert_eq!(texts(&read(&mut reader, &[one.as_bytes(), two.as_bytes()])), ["two"]);
    assert_eq!(reader.place().unwrap().lines, 1);
}

#[test]
fn a_place_whose_line_was_rotated_away_hides_nothing() {
    let mark = Mark { at: "2026-01-02T03:04:01.5Z".parse().unwrap(), lines: 3 };
    let log = [line(2, 0, "x"), line(3, 0, "y")].concat();
    assert_eq!(texts(&read(&mut Reader::new(Some(mark)), &[log.as_bytes()])), ["x", "y"]);
}

#[test]
fn a_time_alone_is_behind_all_of_its_lines_and_nonsense_is_no_place() {
    let mark: Mark = "2026-01-02T03:04:02Z".parse().unwrap();
    let log = [line(1, 0, "a"), line(2, 0, "b"), line(2, 0, "c"), line(2, 1, "d")].concat();
    assert_eq!(texts(&read(&mut Reader::new(Some(mark)), &[log.as_bytes()])), ["d"]);
    for text in ["", "#1", "yesterday#1", "2026-01-02T03:04:02Z#0", "2026-01-02T03:04:02Z#x"] {
        assert_eq!(text.parse::<Mark>(), Err(()), "{text}");
    }
}

fn entry(text: &str) -> Entry {
    Entry { json: format!("{text:?}"), id: Some(text.to_owned()) }
}

#[test]
fn lines_are_told_together_when_there_are_many_or_the_first_has_waited() {
    let (mut waiting, now) = (Waiting::default(), Instant::now());
    assert_eq!(waiting.next(now), Err(None));
    waiting.push(entry("a"), now);
    waiting.push(entry("b"), now + BATCH.1 / 2);
    assert_eq!(waiting.next(now), Err(Some(now + BATCH.1)));
    let news = waiting.next(now + BATCH.1).unwrap();
    assert_eq!(news, News::Lines { id: Some("b".into()), data: r#"["a","b"]"#.into() });
    assert_eq!(waiting.next(now + BATCH.1), Err(None));
    for _ in 0..BATCH.0 + 1 {
        waiting.push(entry("c"), now);
    }
    assert!(matches!(waiting.next(now), Ok(News::Lines { .. })));
    assert!(waiting.next(now).is_err(), "the one that is left waits");
    waiting.end = Some(Reason::Completed.into());
    assert!(matches!(waiting.next(now), Ok(News::Lines { .. })), "for nothing more to come");
    assert_eq!(waiting.next(now), Ok(News::End(Reason::Completed.into())));
    assert_eq!((waiting.bytes.bytes(), waiting.next(now)), (0, Err(None)));
}

#[test]
fn a_slow_reader_gets_the_newest_lines_and_is_told_how_many_it_missed() {
    let (mut waiting, now) = (Waiting::default(), Instant::now());
    for number in 0..QUEUE.0 + 5 {
        waiting.push(entry(&number.to_string()), now);
    }
    assert_eq!(waiting.lines.len(), QUEUE.0);
    assert_eq!(waiting.next(now), Ok(News::Missed(5)));
    let Ok(News::Lines { data, .. }) = waiting.next(now) else { panic!("no lines") };
    assert!(data.starts_with(r#"["5","6""#), "{data}");
    for _ in 0..4 {
        waiting.push(Entry { json: "x".repeat(QUEUE.1 / 2), id: None }, now);
        assert!(waiting.bytes.bytes() <= QUEUE.1, "{:?}", waiting.bytes);
    }
}

#[test]
fn who_may_no_longer_read_a_log_gets_nothing_of_what_waits() {
    let now = Instant::now();
    for reason in [Reason::Denied, Reason::Unauthorized] {
        let mut waiting = Waiting::default();
        waiting.push(entry("a"), now);
        waiting.end(reason.into());
        assert_eq!(waiting.next(now), Ok(News::End(reason.into())));
        assert_eq!(waiting.bytes.bytes(), 0);
    }
}

/// Lines of 20 KB with a number each.
fn long(number: usize) -> Entry {
    Entry { json: format!("\"{number:03}{}\"", "x".repeat(20_000)), id: Some(number.to_string()) }
}

#[test]
fn an_event_ends_at_its_size_and_no_line_is_lost_or_moved() {
    let (mut waiting, now) = (Waiting::default(), Instant::now());
    let (mut lines, mut events) = (Vec::new(), 0);
    for number in 0..BATCH.0 {
        waiting.push(long(number), now);
        // As a reader that keeps up with it.
        while let Ok(News::Lines { id, data }) = waiting.next(now) {
            assert!(data.len() <= PIECE + long(0).json.len() + 2, "{} bytes", data.len());
            let all: Vec<String> = serde_json::from_str(&data).unwrap();
            lines.extend(all.iter().map(|line| line[..3].parse::<usize>().unwrap()));
            assert_eq!(id, lines.last().map(usize::to_string));
            events += 1;
        }
    }
    assert!(lines.iter().copied().eq(0..BATCH.0), "{lines:?}");
    assert_eq!(events, BATCH.0 / 4, "lines are told together");
    // A line longer than an event is one by itself.
    waiting.push(Entry { json: "x".repeat(2 * PIECE), id: None }, now);
    waiting.push(long(0), now);
    let Ok(News::Lines { data, .. }) = waiting.next(now) else { panic!("no lines") };
    assert_eq!(data.len(), 2 * PIECE + 2);
}

#[test]
fn readers_who_never_read_have_little_each_when_there_are_many_and_give_it_back() {
    static ALL: AtomicUsize = AtomicUsize::new(0);
    let waiting = || Waiting { bytes: Held { bytes: 0, all: &ALL }, ..Waiting::default() };
    let (mut readers, now) = (Vec::new(), Instant::now());
    for others in [0, IN_ALL] {
        ALL.fetch_add(others, Ordering::Relaxed);
        let mut reader = waiting();
        for number in 0..BATCH.0 {
            reader.push(long(number), now);
        }
        readers.push(reader);
        ALL.fetch_sub(others, Ordering::Relaxed);
    }
    let held: Vec<usize> = readers.iter().map(|reader| reader.bytes.bytes()).collect();
    assert!(held[0] > PIECE && held[0] <= QUEUE.1, "{held:?}");
    assert!(held[1] > 0 && held[1] <= PIECE, "{held:?}");
    assert_eq!(ALL.load(Ordering::Relaxed), held.iter().sum::<usize>());
    let Ok(News::Missed(missed)) = readers[1].next(now) else { panic!("nothing is missed") };
    assert_eq!(missed as usize + readers[1].lines.len(), BATCH.0);
    readers[0].end(Reason::Denied.into());
    assert_eq!(ALL.load(Ordering::Relaxed), held[1], "nobody gets it any more");
    drop(readers);
    assert_eq!(ALL.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_line_that_may_wait_waits_for_the_reader() {
    let queue = Queue::default();
    for _ in 0..QUEUE.0 {
        queue.put(entry("old"), true).await;
    }
    let told = async {
        queue.put(entry("last"), true).await;
        queue.end(Reason::Gone.into());
    };
    let read = async {
        let mut count = 0;
        loop {
            match queue.next().await {
                News::Lines { data, .. } => count += data.matches('"').count() / 2,
                News::End(end) => return (count, end.reason),
                other => panic!("{other:?}"),
            }
        }
    };
    let ((), (count, reason)) = tokio::join!(told, read);
    assert_eq!((count, reason), (QUEUE.0 + 1, Reason::Gone));
}
