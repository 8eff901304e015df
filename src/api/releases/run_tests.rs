//! What an operation is in the end, and who is asked again.

use super::*;
use crate::helm::act;
use crate::helm::record::Status;
use crate::helm::words::Verb;

fn ended(code: Option<i32>, why: Why) -> Result<Ended, Problem> {
    Ok(Ended { code, stdout: Vec::new(), stderr: "Error: it does not".into(), why })
}

#[test]
fn an_operation_is_what_its_child_and_who_ended_it_say() {
    let back = act::rollback(b"{}").unwrap();
    let of = |ended, denial| judged(&back, ended, denial);
    let state = |code, why| of(ended(code, why), None).state;
    assert_eq!(state(Some(0), Why::Itself), State::Succeeded);
    assert_eq!(state(Some(1), Why::Itself), State::Failed);
    assert_eq!(state(Some(1), Why::Cancelled), State::Cancelled);
    assert_eq!(state(None, Why::TimedOut), State::Failed);
    assert_eq!(of(ended(Some(0), Why::Itself), Some("no".into())).error, None);
    let unborn = of(Err(problem("engine", "no place")), None);
    assert_eq!((unborn.state, unborn.exit_code), (State::Failed, None));
    let error = unborn.error.unwrap();
    assert_eq!((error.class.as_str(), error.detail.as_str()), ("engine", "no place"));
}

#[test]
fn what_helm_does_not_say_of_a_denial_the_door_has_heard() {
    let back = act::rollback(b"{}").unwrap();
    let error = judged(&back, ended(Some(1), Why::Itself), Some("you may not".into())).error;
    let error = error.unwrap();
    assert_eq!(error.class, "forbidden");
    assert!(error.detail.ends_with("it does not: you may not"), "{}", error.detail);
}

#[test]
fn of_a_release_without_a_lock_no_last_operation_is_told() {
    let stuck = Stuck {
        standing: Standing::Elsewhere,
        since: None,
        revision: 1,
        status: Status::PendingInstall,
        remedy: Verb::Uninstall,
        rollback_to: None,
    };
    for locale in Locale::all() {
        let told = told(locale, &stuck, None);
        let message = told["message"].as_str().unwrap();
        let said = ["pending-install", "helm"].map(|word| message.contains(word));
        assert_eq!((said, message.contains(['(', '（'])), ([true, true], false), "{message}");
        assert_eq!((&told["state"], &told["remedy"]), (&json!("elsewhere"), &json!("uninstall")));
    }
}

#[test]
fn a_run_has_time_for_each_of_the_waits_that_helm_counts_for_itself() {
    let body = br#"{"timeout": "10s"}"#;
    let time = |act: Act| (time_of(&act) - BESIDE).as_secs();
    assert_eq!(time(act::rollback(body).unwrap()), 200, "each hook may take 10 s");
    assert_eq!(time(act::test(body).unwrap()), 200, "each pod of a test may take 10 s");
    let upgrade = |back: bool| {
        let chart = json!({ "archive": "Y2hhcnQ=" });
        let body = json!({ "chart": chart, "timeout": "10s", "rollbackOnFailure": back });
        time(act::upgrade(body.to_string().as_bytes()).unwrap())
    };
    assert_eq!([upgrade(false), upgrade(true)], [200, 400], "and those of the way back as well");
}

#[test]
fn what_the_api_server_would_say_again_is_not_asked_again() {
    let said = |code: u16| Failure::status(StatusCode::from_u16(code).unwrap(), b"");
    for code in [403, 404, 422] {
        assert!(is_final(&said(code)), "{code}");
    }
    for code in [401, 409, 429, 500, 503] {
        assert!(!is_final(&said(code)), "{code}");
    }
}

#[test]
fn what_was_protected_meanwhile_is_forbidden_in_the_words_of_the_protection() {
    let back = act::rollback(b"{}").unwrap();
    let refused = judged(&back, Err(problem("forbidden", "it is protected")), None);
    assert_eq!((refused.state, refused.exit_code), (State::Failed, None));
    assert_eq!(refused.error, Some(problem("forbidden", "it is protected")));
}
