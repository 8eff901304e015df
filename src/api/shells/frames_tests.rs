//! Frames, messages and addresses as text.

use super::*;

fn texts(all: &[&str]) -> Vec<String> {
    all.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn frames_are_those_of_the_protocol() {
    assert_eq!(array(&texts(&["x"])), r#"a["x"]"#);
    assert_eq!(array(&texts(&["a\"b", "\n"])), r#"a["a\"b","\n"]"#);
    assert_eq!(Close::new(3000, "Go away!").frame(), r#"c[3000,"Go away!"]"#);
    assert_eq!(array(&texts(&["é 漢 \u{2028}\u{fffe}"])), r#"a["é 漢 \u2028\ufffe"]"#);
}

#[test]
fn whatever_is_sent_is_what_json_reads() {
    let all: String = (0..0x1_1000).filter_map(char::from_u32).collect();
    let frame = array(std::slice::from_ref(&all));
    let read: Vec<String> = serde_json::from_str(&frame[1..]).unwrap();
    assert_eq!(read, [all]);
}

#[test]
fn a_clients_frame_is_an_array_of_strings_or_one_of_them() {
    assert_eq!(messages(br#"["a","b"]"#), Ok(texts(&["a", "b"])));
    assert_eq!(messages(br#" "a" "#), Ok(texts(&["a"])));
    assert_eq!(messages(b"[]"), Ok(Vec::new()));
    assert_eq!(messages(br#"["\ud83d\ude00"]"#), Ok(texts(&["\u{1f600}"])));
    for empty in ["", " ", "\n"] {
        assert_eq!(messages(empty.as_bytes()), Err(BadFrame::Empty));
    }
    let many = format!("[{}]", vec!["\"\""; MOST_MESSAGES + 1].join(","));
    let deep = "[".repeat(10_000);
    let half = r#"["\ud83d"]"#;
    let broken =
        [r#"["a"#, "[1]", r#"["a",null]"#, "{}", "null", half, "x", many.as_str(), deep.as_str()];
    for broken in broken {
        assert_eq!(messages(broken.as_bytes()), Err(BadFrame::Broken), "{broken:.40}");
    }
    assert_eq!(messages(b"[\"\xff\"]"), Err(BadFrame::Broken));
}

#[test]
fn a_long_paste_is_taken_apart_and_nothing_else_may_be_so_long() {
    let typed = |text: &str| json!({ "Op": "stdin", "Data": text }).to_string();
    // Characters of one to four bytes, and such as are six as JSON.
    let texts = ["x".repeat(LARGEST_BODY), "é漢😀\n".repeat(50_000), "\u{1b}".repeat(100_000)];
    for text in texts {
        let parts = short(vec![typed("first"), typed(&text), typed("last")]).unwrap();
        assert!(parts.iter().all(|part| part.len() <= LARGEST), "{}", parts.len());
        let all = parts.iter().map(|part| match command(part) {
            Ok(Command::Stdin(data)) => data,
            other => panic!("{other:?}"),
        });
        assert!(all.collect::<String>() == format!("first{text}last"));
    }
    let padded = format!(r#"{{"Op":"resize","Cols":80,"Rows":24{}}}"#, " ".repeat(LARGEST));
    assert!(command(&padded).is_ok());
    let long = "x".repeat(LARGEST);
    let bind = json!({ "Op": "bind", "SessionID": long }).to_string();
    for other in [padded, bind, format!("[{long}]")] {
        assert_eq!(short(vec![typed("first"), other]), None);
    }
}

#[test]
fn messages_are_the_contracts_in_any_case() {
    let bind = Ok(Command::Bind("id".into()));
    assert_eq!(command(r#"{"Op":"bind","SessionID":"id"}"#), bind);
    assert_eq!(command(r#"{"op":"bind","sessionid":"id","Data":null,"Rows":0}"#), bind);
    let typed = r#"{"Op":"stdin","Data":"ls\r","Cols":80,"Rows":24}"#;
    assert_eq!(command(typed), Ok(Command::Stdin("ls\r".into())));
    assert_eq!(command(r#"{"Op":"stdin"}"#), Ok(Command::Nothing));
    let size = r#"{"Op":"resize","Cols":80,"Rows":24}"#;
    assert_eq!(command(size), Ok(Command::Resize { columns: 80, rows: 24 }));
}

#[test]
fn a_size_is_one_that_a_terminal_can_have() {
    let resize = |columns: &str, rows: &str| {
        command(&format!(r#"{{"Op":"resize","Cols":{columns},"Rows":{rows}}}"#)).unwrap()
    };
    assert_eq!(resize("0", "24"), Command::Nothing);
    assert_eq!(resize("80", "0"), Command::Nothing);
    for odd in ["1000000000", "1001", "-1", "1.5", "18446744073709551616", "1e30"] {
        assert_eq!(resize(odd, "24"), Command::OddSize, "{odd}");
        assert_eq!(resize("80", odd), Command::OddSize, "{odd}");
    }
    assert_eq!(resize("1000", "1"), Command::Resize { columns: 1000, rows: 1 });
}

#[test]
fn what_is_no_message_is_told_apart() {
    for (text, wrong) in [
        ("", BadMessage::NoObject),
        ("[]", BadMessage::NoObject),
        ("\"bind\"", BadMessage::NoObject),
        ("{}", BadMessage::UnknownOp),
        (r#"{"Op":"BIND"}"#, BadMessage::UnknownOp),
        (r#"{"Op":"toast"}"#, BadMessage::UnknownOp),
        (r#"{"Op":7}"#, BadMessage::WrongType),
        (r#"{"Op":"bind","SessionID":{}}"#, BadMessage::WrongType),
        (r#"{"Op":"stdin","Data":[]}"#, BadMessage::WrongType),
        (r#"{"Op":"resize","Rows":"24"}"#, BadMessage::WrongType),
    ] {
        assert_eq!(command(text), Err(wrong), "{text}");
    }
}

#[test]
fn what_the_server_says_has_all_five_fields() {
    let said: Value = serde_json::from_str(&stdout("hi")).unwrap();
    assert_eq!(said, json!({"Op": "stdout", "Data": "hi", "SessionID": "", "Rows": 0, "Cols": 0}));
    let said: Value = serde_json::from_str(&toast("hi")).unwrap();
    assert_eq!(said["Op"], "toast");
}

#[test]
fn addresses_have_a_server_a_session_and_a_transport() {
    let session = |transport| Some(Place::Session { server: "000", session: "a-b_1", transport });
    assert_eq!(place("/000/a-b_1/websocket"), session(Transport::Websocket));
    assert_eq!(place("/000/a-b_1/xhr"), session(Transport::Xhr));
    assert_eq!(place("/000/a-b_1/xhr_send"), session(Transport::XhrSend));
    assert_eq!(place("/000/a-b_1/xhr_streaming"), session(Transport::XhrStreaming));
    assert_eq!(place(""), Some(Place::Greeting));
    assert_eq!(place("/info"), Some(Place::Info));
    assert_eq!(place("/websocket"), Some(Place::RawWebsocket));
    let long = format!("/000/{}/xhr", "a".repeat(65));
    let odd = "x // /a /a.html /a/a /a./a/xhr /a/a./xhr /./a/xhr /a/a/jsonp /a/a/xhr/ /a/a/xhr/b \
               //a/xhr /a//xhr /a/é/xhr /a/a;b/xhr";
    for nowhere in odd.split(' ').chain([long.as_str()]) {
        assert_eq!(place(nowhere), None, "{nowhere}");
    }
}
