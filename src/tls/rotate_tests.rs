//! What is told and counted of a certificate in given files: one that is refused, and one outside of
//! its time.

use std::fs::{self, File};
use std::path::Path;

use jiff::SignedDuration;
use tracing::subscriber::set_default;

use super::*;

const EXPIRED: &str = "the certificate that is served has expired";
const EARLY: &str = "the certificate that is served is not valid yet";
const KEEPING: &str = "keeping the certificate that is served";

fn days(days: i64) -> SignedDuration {
    SignedDuration::from_hours(24 * days)
}

/// A new pair that was made this many days after now; it is good for 397.
fn put(folder: &Path, after: i64) {
    let wanted = Wanted { names: vec!["localhost".to_owned()] };
    let made = authority::found(&wanted, Timestamp::now() + days(after)).unwrap();
    fs::write(folder.join("crt"), made.leaf).unwrap();
    fs::write(folder.join("key"), made.key).unwrap();
}

async fn open(folder: &Path) -> Keeper {
    let source = Source::Files { cert: folder.join("crt"), key: folder.join("key") };
    Keeper::open(source, Wanted { names: Vec::new() }).await.unwrap()
}

#[tokio::test]
async fn what_lasts_is_told_and_counted_once_and_a_certificate_outside_of_its_time_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let log = folder.join("log");
    let logged = tracing_subscriber::fmt().with_writer(Arc::new(File::create(&log).unwrap()));
    let _logged = set_default(logged.finish());
    let told = || {
        let log = fs::read_to_string(&log).unwrap();
        [EXPIRED, EARLY, KEEPING].map(|words| log.matches(words).count())
    };
    let now = Timestamp::now();
    put(folder, 0);
    let keeper = open(folder).await;
    let seen = async |now: Timestamp| {
        keeper.check(now).await;
        keeper.check(now).await;
        (keeper.reloads(), keeper.failures(), told())
    };
    assert_eq!(seen(now).await, (0, 0, [0, 0, 0]));
    assert_eq!(seen(now + days(398)).await, (0, 1, [1, 0, 0]), "while it is served");
    put(folder, -500);
    assert_eq!(seen(now).await, (1, 2, [2, 0, 0]));
    put(folder, -600);
    assert_eq!(seen(now).await, (2, 3, [3, 0, 0]), "each of them");
    put(folder, 10);
    assert_eq!(seen(now).await, (3, 4, [3, 1, 0]));
    assert_eq!(seen(now + days(11)).await, (3, 4, [3, 1, 0]), "its time has come");
    fs::write(folder.join("key"), "half a ke").unwrap();
    assert_eq!(seen(now + days(11)).await, (3, 5, [3, 1, 1]));
    put(folder, 0);
    assert_eq!(seen(now).await, (4, 5, [3, 1, 1]));

    for (after, words) in [(-500, [4, 1, 1]), (10, [4, 2, 1])] {
        put(folder, after);
        assert_eq!((open(folder).await.failures(), told()), (1, words), "at start");
    }
}
