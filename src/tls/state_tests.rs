//! The state directory: kept over restarts, shared by processes, never overwritten when damaged.

use std::fs::Permissions;
use std::sync::Arc;

use jiff::SignedDuration;

use super::*;

fn now() -> Timestamp {
    "2026-01-10T12:00:00Z".parse().unwrap()
}

fn wanted(names: &[&str]) -> Wanted {
    Wanted { names: names.iter().map(|name| (*name).to_owned()).collect() }
}

fn open(dir: &Path) -> Result<Loaded, TlsError> {
    load(dir, &wanted(&["localhost"]), true, now())
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_restart_keeps_the_certificate() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("state");
    let first = open(&dir).unwrap();
    let second = open(&dir).unwrap();
    assert_eq!(first.key.cert, second.key.cert);
    assert_eq!(first.ca_pem, Some(read_ca(&dir).unwrap()));
    assert_eq!(first.ca_pem, second.ca_pem);
}

#[test]
fn keys_and_directory_are_the_owners_alone_and_nothing_temporary_stays() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("deep/state");
    open(&dir).unwrap();
    assert_eq!(mode(&dir), 0o700);
    assert_eq!(mode(&dir.join(CA_KEY)), 0o600);
    assert_eq!(mode(&dir.join(TLS_KEY)), 0o600);
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 4);
}

#[test]
fn a_key_that_others_may_read_is_told_at_a_start_and_not_at_each_look() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("state");
    open(&dir).unwrap();
    for key in [CA_KEY, TLS_KEY] {
        std::fs::set_permissions(dir.join(key), Permissions::from_mode(0o644)).unwrap();
    }
    let told = |at_start| {
        let log = home.path().join("log");
        let file = Arc::new(File::create(&log).unwrap());
        let logged = tracing_subscriber::fmt().with_writer(file).finish();
        tracing::subscriber::with_default(logged, || {
            load(&dir, &wanted(&["localhost"]), at_start, now()).unwrap();
        });
        std::fs::read_to_string(&log).unwrap().matches("other users may read").count()
    };
    assert_eq!([true, false, true].map(told), [2, 0, 2]);
}

#[test]
fn processes_that_start_at_once_end_with_the_same_certificate() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path();
    let barrier = std::sync::Barrier::new(8);
    std::thread::scope(|scope| {
        let starts: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    barrier.wait();
                    open(dir).unwrap()
                })
            })
            .collect();
        let opened: Vec<_> = starts.into_iter().map(|s| s.join().unwrap()).collect();
        for one in &opened {
            assert_eq!(one.key.cert, opened[0].key.cert);
            assert_eq!(one.ca_pem, opened[0].ca_pem);
        }
    });
}

#[test]
fn damaged_files_are_an_error_that_names_them_and_stay_as_they_are() {
    for name in [CA_CRT, CA_KEY, TLS_CRT, TLS_KEY] {
        let home = tempfile::tempdir().unwrap();
        open(home.path()).unwrap();
        std::fs::write(home.path().join(name), "rubbish").unwrap();
        let told = open(home.path()).err().unwrap().to_string();
        assert!(told.contains(home.path().to_str().unwrap()), "{told}");
        assert!(told.contains("remove"), "{told}");
        let left = std::fs::read_to_string(home.path().join(name)).unwrap();
        assert_eq!(left, "rubbish");
    }
}

#[test]
fn a_certificate_without_its_key_is_not_replaced() {
    for (certificate, key) in [(CA_CRT, CA_KEY), (TLS_CRT, TLS_KEY)] {
        let home = tempfile::tempdir().unwrap();
        open(home.path()).unwrap();
        let before = std::fs::read(home.path().join(certificate)).unwrap();
        std::fs::remove_file(home.path().join(key)).unwrap();
        let told = open(home.path()).err().unwrap().to_string();
        assert!(told.contains(key), "{told}");
        assert_eq!(std::fs::read(home.path().join(certificate)).unwrap(), before);
        assert!(!home.path().join(key).exists());
    }
}

#[test]
fn a_start_that_was_cut_off_after_any_step_is_completed() {
    for left in 1..4 {
        let home = tempfile::tempdir().unwrap();
        open(home.path()).unwrap();
        for name in [CA_KEY, CA_CRT, TLS_KEY, TLS_CRT].iter().skip(left) {
            std::fs::remove_file(home.path().join(name)).unwrap();
        }
        open(home.path()).unwrap();
        open(home.path()).unwrap();
    }
}

#[test]
fn a_new_name_makes_a_new_leaf_of_the_same_authority() {
    let home = tempfile::tempdir().unwrap();
    let first = open(home.path()).unwrap();
    let more = wanted(&["localhost", "dash.example.com"]);
    let later = load(home.path(), &more, false, now()).unwrap();
    assert_eq!(first.key.cert, later.key.cert, "names count at start only");
    let second = load(home.path(), &more, true, now()).unwrap();
    assert_ne!(first.key.cert, second.key.cert);
    assert_eq!(first.ca_pem, second.ca_pem);
    assert_eq!(authority::names_in(second.leaf()), more.names);
}

#[test]
fn a_running_process_renews_a_leaf_that_is_due_and_keeps_the_authority() {
    let home = tempfile::tempdir().unwrap();
    let first = open(home.path()).unwrap();
    let wanted = wanted(&["localhost"]);
    let due = now() + SignedDuration::from_hours(24 * 300);
    let second = load(home.path(), &wanted, false, due).unwrap();
    assert!(second.not_after > first.not_after);
    assert_eq!(first.ca_pem, second.ca_pem);
    let third = load(home.path(), &wanted, false, due).unwrap();
    assert_eq!(second.key.cert, third.key.cert);
}

#[test]
fn a_foreign_certificate_in_our_place_is_left_alone() {
    let home = tempfile::tempdir().unwrap();
    open(home.path()).unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(home.path().join(TLS_CRT), made.cert.pem()).unwrap();
    std::fs::write(home.path().join(TLS_KEY), made.signing_key.serialize_pem()).unwrap();
    let told = open(home.path()).err().unwrap().to_string();
    assert!(told.contains("--tls-cert"), "{told}");
    let left = std::fs::read_to_string(home.path().join(TLS_CRT)).unwrap();
    assert_eq!(left, made.cert.pem());
}

#[test]
fn files_that_vanish_while_running_are_told_and_not_made_anew() {
    let home = tempfile::tempdir().unwrap();
    open(home.path()).unwrap();
    std::fs::remove_file(home.path().join(CA_CRT)).unwrap();
    let told = load(home.path(), &wanted(&["localhost"]), false, now());
    assert!(told.err().unwrap().to_string().contains("gone"));
    assert!(!home.path().join(CA_CRT).exists());
}

#[test]
fn the_cause_of_a_file_that_cannot_be_read_is_told_once() {
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join(CA_CRT)).unwrap();
    let error = anyhow::Error::from(open(home.path()).err().unwrap());
    let told = format!("{error:#}");
    assert!(told.contains(home.path().to_str().unwrap()), "{told}");
    assert_eq!(told.matches("os error").count(), 1, "{told}");
}
