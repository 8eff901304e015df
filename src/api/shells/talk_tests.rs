//! How ends are told, and which of them mean that the container has no such shell.

use super::*;

fn end(code: Option<i32>, reason: &str) -> Close {
    closing(End { code, reason: reason.to_owned() }, Locale::EN)
}

#[test]
fn ends_are_told_in_the_contracts_words() {
    assert_eq!(end(Some(0), ""), Close::new(1, "Process exited"));
    assert_eq!(end(Some(3), "x"), Close::new(2, "command terminated with exit code 3"));
    let forbidden = "pods \"a\" is forbidden";
    assert_eq!(end(None, forbidden), Close::new(2, forbidden));
    assert!(!end(None, "").reason.is_empty());
}

fn outcome(code: Option<i32>, reason: &str, held: &str, is_started: bool) -> String {
    let end = End { code, reason: reason.to_owned() };
    match ended(end, held, is_started, Locale::EN) {
        Outcome::Gone => "gone".to_owned(),
        Outcome::Closed(close) => format!("closed {}", close.code),
        Outcome::Missing(words) => format!("missing {words}"),
        Outcome::Silent(close) => format!("silent {}", close.code),
    }
}

#[test]
fn an_end_before_anything_was_shown_may_have_lost_its_status() {
    let absent = "exec: \"sh\": executable file not found in $PATH";
    let missing = format!("missing {absent}");
    for (code, reason, held, is_started, expected) in [
        (Some(0), "", "", false, "silent 1"),
        (Some(0), "", "", true, "closed 1"),
        (Some(0), "", "exec failed", false, "closed 1"),
        (Some(3), "", "", false, "closed 2"),
        (None, "", "", false, "closed 2"),
        (Some(127), "", "exec failed", false, "missing exec failed"),
        (None, absent, "", false, missing.as_str()),
        (None, absent, "", true, "closed 2"),
    ] {
        let found = outcome(code, reason, held, is_started);
        assert_eq!(found, expected, "{code:?} {reason} {held} {is_started}");
    }
}

#[test]
fn runtimes_excuses_are_known_and_long_texts_are_none() {
    for excuse in [
        "exec: \"bash\": executable file not found in $PATH",
        "OCI runtime exec failed: exec failed: unable to start container process: exec: \"bash\": \
         stat /bin/bash: no such file or directory: unknown",
        "The system cannot find the file specified.",
    ] {
        assert!(is_excuse(excuse), "{excuse}");
    }
    let long = "no such file or directory".repeat(100);
    for other in ["", "pods \"a\" is forbidden", "container not found (\"main\")", &long] {
        assert!(!is_excuse(other), "{other}");
    }
}

#[test]
fn of_what_stands_in_the_terminal_only_the_runtimes_own_words_say_that_there_is_no_shell() {
    let runc = "OCI runtime exec failed: exec failed: unable to start container process: exec: \
                \"bash\": executable file not found in $PATH: unknown\r\n";
    let crun = "\u{1b}[31m2026-01-02T03:04:05.678901Z: executable file `bash` not found in $PATH: \
                No such file or directory\u{1b}[0m\r\n";
    for words in [runc, crun] {
        assert!(is_runtimes(words), "{words}");
        assert_eq!(outcome(Some(1), "", words, false), format!("missing {words}"));
    }
    for other in [
        "bash: foo: No such file or directory\r\n",
        "sh: 1: foo: not found in $PATH\r\n",
        "an executable file `bash`\r\n",
        "exec failed\r\n",
    ] {
        assert!(!is_runtimes(other), "{other}");
    }
}

#[test]
fn only_what_is_typed_and_sizes_reach_the_process() {
    let size = Command::Resize { columns: 80, rows: 24 };
    assert!(matches!(typed_by(&size), Some(Typed::Resize { columns: 80, rows: 24 })));
    let typed = typed_by(&Command::Stdin("é\r".into()));
    assert!(matches!(typed, Some(Typed::Bytes(bytes)) if &*bytes == "é\r".as_bytes()));
    for other in [Command::Bind("id".into()), Command::OddSize, Command::Nothing] {
        assert!(typed_by(&other).is_none(), "{other:?}");
    }
}
