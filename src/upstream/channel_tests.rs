//! What frames say, how an end is read, and who counts as gone.

use std::pin::pin;

use super::*;

fn exit(status: &str) -> (Option<i32>, String) {
    let Exit { code, message } = Exit::of(status.as_bytes());
    (code, message)
}

#[test]
fn an_end_is_read_from_the_status() {
    assert_eq!(exit(r#"{"metadata":{},"status":"Success"}"#), (Some(0), String::new()));
    let failed = r#"{"status":"Failure","message":"command terminated","reason":
        "NonZeroExitCode","details":{"causes":[{"reason":"X"},{"reason":"ExitCode",
        "message":"137"}]}}"#;
    assert_eq!(exit(failed), (Some(137), "command terminated".into()));
    let internal = r#"{"status":"Failure","message":"no such container","reason":
        "InternalError","details":{"causes":[{"message":"no such container"}]},"code":500}"#;
    assert_eq!(exit(internal), (None, "no such container".into()));
}

#[test]
fn an_odd_status_has_no_code_and_is_repeated_in_part() {
    assert_eq!(exit("plain words"), (None, "plain words".into()));
    assert_eq!(exit(r#"{"status":"Failure","details":null}"#), (None, String::new()));
    let odd = r#"{"status":"Failure","reason":"NonZeroExitCode",
        "details":{"causes":[{"reason":"ExitCode","message":"many"}]}}"#;
    assert_eq!(exit(odd), (None, String::new()));
    assert_eq!(exit(&"x".repeat(10_000)).1.len(), WORDS);
}

fn read(frames: &mut Frames, frame: &[u8]) -> Option<Output> {
    frames.read(&Bytes::copy_from_slice(frame))
}

fn data(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

#[test]
fn a_processs_frames_are_told_apart_by_their_channel() {
    let mut frames = Frames { speech: Speech::V5, greeted: [false; 2] };
    assert_eq!(read(&mut frames, b"\x01out"), Some(Output::Stdout(data("out"))));
    assert_eq!(read(&mut frames, b"\x02err"), Some(Output::Stderr(data("err"))));
    let end = Exit { code: Some(0), message: String::new() };
    assert_eq!(read(&mut frames, b"\x03{\"status\":\"Success\"}"), Some(Output::End(end)));
    for nothing in [&b""[..], b"\x01", b"\x03", b"\x00echo", b"\x09x", b"\xff\x01"] {
        assert_eq!(read(&mut frames, nothing), None, "{nothing:?}");
    }
    assert!(frames.closed(None).is_err());
}

#[test]
fn a_ports_channels_each_begin_with_its_number() {
    let mut frames = Frames { speech: Speech::Port, greeted: [false; 2] };
    assert_eq!(read(&mut frames, b"\x00\x50\x00"), None);
    assert_eq!(read(&mut frames, b"\x01\x50\x00"), None);
    assert_eq!(read(&mut frames, b"\x00hello"), Some(Output::Stdout(data("hello"))));
    let end = Exit { code: None, message: "refused".into() };
    assert_eq!(read(&mut frames, b"\x01refused"), Some(Output::End(end)));
    assert_eq!(frames.closed(None).unwrap(), Output::End(Exit::default()));
    let closed = |code| frames.closed(Some(CloseFrame { code, reason: "gone".into() }));
    assert_eq!(closed(CloseCode::Normal).unwrap(), Output::End(Exit::default()));
    for bad in [CloseCode::Away, CloseCode::Abnormal, CloseCode::Error] {
        assert!(closed(bad).unwrap_err().to_string().contains("gone"), "{bad}");
    }
}

#[test]
fn who_says_nothing_is_gone_unless_we_do_not_listen_or_the_process_takes_nothing() {
    let gone = |pulse: &Pulse| (0..=SILENT).any(|_| pulse.is_gone());
    let pulse = Pulse::default();
    assert!((0..SILENT).all(|_| !pulse.is_gone()));
    assert!(pulse.is_gone());
    pulse.deaf.store(true, Ordering::Relaxed);
    assert!(!gone(&pulse));
    pulse.listen();
    assert!(gone(&pulse));
    pulse.pressed.store(HELD_UP, Ordering::Relaxed);
    assert!(!gone(&pulse));
    pulse.heard();
    assert!(gone(&pulse));
}

#[tokio::test]
async fn the_last_words_may_take_their_time_on_the_way_to_who_reads_them() {
    let silence = Duration::from_millis(20);
    let pulse = Pulse::default();
    pulse.deaf.store(true, Ordering::Relaxed);
    let mut ended = pin!(pulse.falls_silent(silence));
    assert!(timeout(10 * silence, &mut ended).await.is_err(), "nobody listens yet");
    pulse.listen();
    timeout(Duration::from_secs(60), ended).await.unwrap();
}
