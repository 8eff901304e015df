//! Sessions without a network: who fetches, what waits meanwhile, and in which order it comes.

use std::pin::pin;
use std::sync::OnceLock;

use futures::FutureExt as _;
use serde_json::json;

use super::*;
use crate::i18n::Locale;

fn polling() -> (Arc<Polling>, mpsc::Receiver<String>) {
    let (users, bound) = (Vec::new(), OnceLock::new());
    let client = Client { users, locale: Locale::EN, transport: "test", bound };
    let (say, said) = mpsc::channel(1);
    (Arc::new(Polling::new(Arc::new(client), say)), said)
}

#[tokio::test]
async fn what_waits_comes_before_the_end_and_to_one_connection() {
    let (polling, _said) = polling();
    let (tell, told) = mpsc::channel(4);
    for text in ["1", "2"] {
        tell.send(Told::Message(text.to_owned())).await.unwrap();
    }
    tell.send(Told::Close(Close::new(1, "end"))).await.unwrap();
    let mut attached = Attached::to(polling.clone()).unwrap();
    assert!(Attached::to(polling.clone()).is_none());
    let carrying = async { polling.close(polling.carry(told).await) };
    let fetching = async {
        let mut all = Vec::new();
        loop {
            let (frame, is_last) = attached.frame().await;
            all.push(frame);
            if is_last {
                return all;
            }
        }
    };
    let ((), all) = tokio::join!(carrying, fetching);
    assert_eq!(all, [r#"a["1","2"]"#, r#"c[1,"end"]"#]);
    attached.finished = true;
    drop(attached);
    let again = Attached::to(polling).unwrap();
    assert_eq!(again.frame().await, (r#"c[1,"end"]"#.to_owned(), true));
}

#[tokio::test]
async fn what_nobody_reads_is_bounded_and_forgotten_at_the_end() {
    let (polling, mut said) = polling();
    let _attached = Attached::to(polling.clone()).unwrap();
    let (tell, told) = mpsc::channel(1);
    let half = || Told::Message("x".repeat(FRAME_LIMIT / 2));
    let carried = polling.clone();
    let carrying = tokio::spawn(async move { carried.carry(told).await });
    // Two wait, one is in hand, one in the queue.
    for _ in 0..4 {
        tell.send(half()).await.unwrap();
    }
    polling.until(|state| state.waits.len() == 2).await;
    assert!(tell.try_send(half()).is_err(), "whoever writes is held up");
    polling.close(interrupted());
    assert_eq!(polling.state.borrow().size(), 0);
    assert_eq!(said.recv().await, None, "nothing is taken any more");
    carrying.abort();
    let _ = carrying.await;
    assert!(tell.is_closed(), "whoever writes is let go");
}

#[tokio::test]
async fn a_long_paste_is_under_way_until_all_of_it_is_typed() {
    let (polling, mut said) = polling();
    let paste = json!({ "Op": "stdin", "Data": "x".repeat(LARGEST_BODY) }).to_string();
    let parts = frames::short(vec![paste]).unwrap();
    let count = parts.len();
    let mut pushing = pin!(push(&polling, parts, PASTE_TIME));
    assert_eq!(pushing.as_mut().now_or_never(), None, "nobody reads it yet");
    let typing = async {
        for _ in 0..count {
            assert!(said.recv().await.unwrap().len() <= LARGEST);
        }
    };
    tokio::join!(pushing, typing);
    assert_eq!(polling.state.borrow().close, None);
}

#[tokio::test]
async fn a_connection_that_is_cut_off_ends_its_session() {
    let (polling, _said) = polling();
    drop(Attached::to(polling.clone()).unwrap());
    polling.close(Close::new(1, "too late"));
    let (frame, is_last) = Attached::to(polling).unwrap().frame().await;
    assert_eq!((frame, is_last), (interrupted().frame(), true));
}

#[tokio::test]
async fn a_paste_that_is_taken_too_slowly_ends_its_session_and_not_without_a_word() {
    let (polling, mut said) = polling();
    let paste = json!({ "Op": "stdin", "Data": "x".repeat(LARGEST_BODY) }).to_string();
    let parts = frames::short(vec![paste]).unwrap();
    let typing = async {
        loop {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let _ = said.recv().await;
        }
    };
    tokio::select! {
        () = push(&polling, parts, Duration::from_millis(200)) => {}
        () = typing => {}
    }
    assert_eq!(polling.state.borrow().close.as_ref().map(|close| close.code), Some(2));
}
