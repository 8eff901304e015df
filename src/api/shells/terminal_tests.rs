//! The parts of a session that need no cluster: text in pieces, sizes, what is asked for, words.

use super::*;

#[test]
fn characters_that_come_in_pieces_are_shown_whole() {
    let text = "aé€😀z";
    for size in 1..=text.len() {
        let mut utf8 = Utf8::default();
        let mut seen = String::new();
        for piece in text.as_bytes().chunks(size) {
            seen.push_str(&utf8.feed(piece));
        }
        assert_eq!((seen.as_str(), utf8.end().as_str()), (text, ""), "in pieces of {size}");
    }
}

#[test]
fn what_is_no_utf_8_is_replaced_and_what_may_become_one_waits() {
    let mut utf8 = Utf8::default();
    assert_eq!(utf8.feed(b"a\xffb\xc3"), "a\u{fffd}b");
    assert_eq!(utf8.feed(b""), "");
    assert_eq!(utf8.feed(b"\xa9"), "é");
    assert_eq!(utf8.feed(b"\xf0\x9f"), "");
    assert_eq!(utf8.feed(b"x"), "\u{fffd}x");
    assert_eq!(utf8.feed(b"\xe2\x82"), "");
    assert_eq!(utf8.end(), "\u{fffd}");
    assert_eq!(utf8.end(), "");
    let noise = vec![0xff; 10_000];
    assert_eq!(utf8.feed(&noise).chars().count(), 10_000);
}

#[test]
fn a_size_is_what_a_screen_may_have() {
    for (columns, rows, good) in [
        (80, 24, true),
        (1, 1, true),
        (1000, 1000, true),
        (0, 24, false),
        (80, 0, false),
        (1001, 24, false),
        (80, u16::MAX, false),
    ] {
        assert_eq!(is_size(columns, rows), good, "{columns}×{rows}");
    }
}

fn session(verb: Verb) -> Session {
    Session {
        namespace: "shop".into(),
        pod: "web/../x".into(),
        container: "main".into(),
        command: vec!["sh".into(), "-c".into(), "a b&c".into()],
        tty: false,
        stdin: true,
        verb,
        transport: "test",
    }
}

#[test]
fn what_is_asked_for_is_encoded_and_a_terminal_has_one_output() {
    let exec = session(Verb::Exec);
    assert_eq!(exec.path(), "/api/v1/namespaces/shop/pods/web%2F..%2Fx/exec");
    let streams = "stdout=true&stdin=true&stderr=true&tty=false";
    assert_eq!(
        exec.query(),
        format!("container=main&command=sh&command=-c&command=a+b%26c&{streams}")
    );
    let attach = Session { tty: true, container: "".into(), ..session(Verb::Attach) };
    assert_eq!(attach.query(), "stdout=true&stdin=true&stderr=false&tty=true");
    assert_eq!(session(Verb::Forward(8080)).query(), "ports=8080");
    assert_eq!(session(Verb::Forward(8080)).right().subresource, "portforward");
}

#[test]
fn whoever_loses_the_right_is_told_which_way() {
    let locale = Locale::EN;
    let why = || Failure::status(http::StatusCode::TOO_MANY_REQUESTS, b"so");
    let all = [Lost::Unauthorized, Lost::Denied(None), Lost::Unconfirmed(why())];
    let told = all.map(|lost| i18n::message(locale, words(&lost), &[("time", "10 s")]));
    assert!(told.iter().all(|text| !text.starts_with("error-")), "{told:?}");
    assert!(told[0] != told[1] && told[1] != told[2] && told[0] != told[2], "{told:?}");
    assert_eq!(words(&Lost::Denied(Some(why()))), words(&Lost::Denied(None)));
}
