//! Ids and cookies: opened by whoever has the key, by nobody else, once a replica, in time,
//! unchanged.

use super::*;

const NOW: i64 = 1_795_231_205_799;

fn keys(seed: u8) -> Keys {
    Keys::new(&[seed; 32], &[seed + 1; 32], &[seed + 2; 32]).unwrap()
}

fn user(token: &str) -> User {
    User::bearer(token, &HeaderMap::new()).unwrap()
}

fn id(keys: &Keys, user: &User, now: i64) -> String {
    let names = ["atlas", "tiles-1", "main"].map(CompactString::from);
    let [namespace, pod, container] = &names;
    keys.ticket([namespace, pod, container], Some(Shell::Sh), (user, false), now).unwrap()
}

fn refused(keys: &Keys, id: &str, users: &[User], taken: &mut Taken, now: i64) -> Option<Refusal> {
    keys.take(id, users, taken, now).err().map(|(refusal, _)| refusal)
}

#[test]
fn an_id_opens_on_every_replica_with_the_key_for_its_caller() {
    let jane = user("jane");
    let id = id(&keys(1), &jane, NOW);
    let users = [user("joe"), jane.clone()];
    let (found, ticket) = keys(1).take(&id, &users, &mut Taken::default(), NOW).ok().unwrap();
    assert_eq!(found.fingerprint(), jane.fingerprint());
    let place = [&*ticket.namespace, &*ticket.pod, &*ticket.container];
    assert_eq!(place, ["atlas", "tiles-1", "main"]);
    assert_eq!(ticket.shell, Some(Shell::Sh));
    for word in ["atlas", "tiles", "jane"] {
        assert!(!id.contains(word), "{id}");
    }
}

#[test]
fn an_id_is_nobody_elses() {
    let id = id(&keys(1), &user("jane"), NOW);
    let mut impersonating = HeaderMap::new();
    impersonating.insert("impersonate-user", HeaderValue::from_static("joe"));
    let as_joe = User::bearer("jane", &impersonating).unwrap();
    let taken = &mut Taken::default();
    for users in [vec![], vec![user("joe")], vec![as_joe, user("jan")]] {
        assert_eq!(refused(&keys(1), &id, &users, taken, NOW), Some(Refusal::Stranger));
    }
    // Nobody has used it up.
    assert_eq!(refused(&keys(1), &id, &[user("jane")], taken, NOW), None);
}

#[test]
fn whom_we_could_give_no_cookie_is_told_so() {
    let names = ["atlas", "tiles-1", "main"].map(CompactString::from);
    let [namespace, pod, container] = &names;
    let jane = user("jane");
    let id = keys(1).ticket([namespace, pod, container], None, (&jane, true), NOW).unwrap();
    let taken = &mut Taken::default();
    for users in [vec![], vec![user("joe")]] {
        assert_eq!(refused(&keys(1), &id, &users, taken, NOW), Some(Refusal::TooLong));
    }
    assert_eq!(refused(&keys(1), &id, &[jane], taken, NOW), None, "it is as good as any");
    // One of names as long as they may be.
    let longest = [63, 253, 63].map(|length| CompactString::from("n".repeat(length)));
    let [namespace, pod, container] = &longest;
    let shell = Some(Shell::Powershell);
    assert!(keys(1).ticket([namespace, pod, container], shell, (&user("a"), true), NOW).is_ok());
}

#[test]
fn an_id_is_taken_once_by_each_replica() {
    let jane = [user("jane")];
    let (one, other) = (id(&keys(1), &jane[0], NOW), id(&keys(1), &jane[0], NOW));
    assert_ne!(one, other);
    let taken = &mut Taken::default();
    assert_eq!(refused(&keys(1), &one, &jane, taken, NOW), None);
    for later in [0, 1, LIFETIME] {
        let again = refused(&keys(1), &one, &jane, taken, NOW + later);
        assert_eq!(again, Some(Refusal::Taken), "{later}");
    }
    assert_eq!(refused(&keys(1), &other, &jane, taken, NOW), None);
    let elsewhere = &mut Taken::default();
    assert_eq!(refused(&keys(1), &one, &jane, elsewhere, NOW), None);
}

#[test]
fn an_id_is_good_for_a_minute_and_a_minute_early() {
    let jane = [user("jane")];
    for (now, expected) in [
        (NOW + LIFETIME, None),
        (NOW + LIFETIME + 1, Some(Refusal::Expired)),
        (NOW - AHEAD, None),
        (NOW - AHEAD - 1, Some(Refusal::Expired)),
        (i64::MIN, Some(Refusal::Expired)),
        (i64::MAX, Some(Refusal::Expired)),
    ] {
        let id = id(&keys(1), &jane[0], NOW);
        assert_eq!(refused(&keys(1), &id, &jane, &mut Taken::default(), now), expected, "{now}");
    }
}

#[test]
fn an_id_that_was_changed_anywhere_is_forged() {
    let jane = [user("jane")];
    let id = id(&keys(1), &jane[0], NOW);
    let bytes = URL_SAFE_NO_PAD.decode(&id).unwrap();
    let taken = &mut Taken::default();
    for at in 0..bytes.len() {
        for bit in [1, 128] {
            let mut changed = bytes.clone();
            changed[at] ^= bit;
            let changed = URL_SAFE_NO_PAD.encode(changed);
            let found = refused(&keys(1), &changed, &jane, taken, NOW);
            assert_eq!(found, Some(Refusal::Forged), "byte {at}");
        }
    }
    let longer = format!("{id}AAAA");
    let (shorter, padded) = (&id[..id.len() - 4], format!("{id}="));
    let long = "A".repeat(LONGEST_ID + 1);
    let hex = "0f5a0a0e8e83ac0dc4a0e80aca63ba19";
    for forged in ["", "x", "é", &longer, shorter, &padded, &long, hex, "AAAAAAAAAAAAAAAA"] {
        let found = refused(&keys(1), forged, &jane, taken, NOW);
        assert_eq!(found, Some(Refusal::Forged), "{forged}");
    }
    assert_eq!(refused(&keys(9), &id, &jane, taken, NOW), Some(Refusal::Forged), "another key");
    assert_eq!(refused(&keys(1), &id, &jane, taken, NOW), None);
}

fn request(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(*name, HeaderValue::from_static(value));
    }
    headers
}

#[test]
fn a_cookie_brings_back_the_credentials_and_nothing_else() {
    let sent = request(&[
        ("authorization", "Bearer secret"),
        ("impersonate-user", "jane"),
        ("impersonate-group", "a"),
        ("impersonate-group", "b"),
        ("x-remote-user", "root"),
        ("cookie", "a=b"),
    ]);
    let value = keys(1).seal_credentials(&sent, NOW).unwrap();
    assert!(!value.contains("secret"), "{value}");
    let read = keys(1).open_credentials(&value, NOW + COOKIE_LIFETIME).unwrap();
    assert_eq!(read.len(), 4);
    assert_eq!(read[header::AUTHORIZATION], "Bearer secret");
    assert_eq!(read["impersonate-user"], "jane");
    let groups: Vec<_> = read.get_all("impersonate-group").iter().collect();
    assert_eq!(groups, ["a", "b"]);
}

#[test]
fn a_cookie_that_was_changed_or_is_old_or_of_another_key_is_none() {
    let sent = request(&[("authorization", "Bearer secret")]);
    let value = keys(1).seal_credentials(&sent, NOW).unwrap();
    let bytes = URL_SAFE_NO_PAD.decode(&value).unwrap();
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        let changed = URL_SAFE_NO_PAD.encode(changed);
        assert!(keys(1).open_credentials(&changed, NOW).is_none(), "byte {at}");
    }
    assert!(keys(1).open_credentials(&value, NOW + COOKIE_LIFETIME + 1).is_none());
    assert!(keys(2).open_credentials(&value, NOW).is_none());
    for wrong in ["", "x", "Bearer secret"] {
        assert!(keys(1).open_credentials(wrong, NOW).is_none(), "{wrong}");
    }
    // An id is no cookie, though both are sealed.
    let id = id(&keys(1), &user("jane"), NOW);
    assert!(keys(1).open_credentials(&id, NOW).is_none());
}

#[test]
fn without_an_authorization_or_with_too_long_a_one_there_is_no_cookie() {
    let nobody = request(&[("impersonate-user", "jane"), ("cookie", "binnacle-token=x")]);
    assert!(keys(1).seal_credentials(&nobody, NOW).is_none());
    let with = |length: usize| {
        let mut headers = HeaderMap::new();
        let value = format!("Bearer {}", "t".repeat(length));
        headers.insert(header::AUTHORIZATION, HeaderValue::from_str(&value).unwrap());
        keys(1).seal_credentials(&headers, NOW)
    };
    assert!(with(2700).is_some_and(|value| value.len() <= LONGEST_COOKIE));
    assert!(with(3000).is_none());
}

#[test]
fn what_was_taken_is_remembered_as_long_as_it_could_be_taken_again_and_in_bounds() {
    let mut taken = Taken::default();
    let nonce = |number: usize| {
        let mut nonce = [0; NONCE_LEN];
        nonce[..8].copy_from_slice(&number.to_be_bytes());
        nonce
    };
    assert_eq!(taken.take(nonce(0), NOW), Ok(()));
    for later in [1, LIFETIME, LIFETIME + AHEAD, LIFETIME + AHEAD + 1] {
        assert_eq!(taken.take(nonce(0), NOW + later), Err(Refusal::Taken), "{later}");
    }
    for number in 1..=MOST_TAKEN {
        assert_eq!(taken.take(nonce(number), NOW + LIFETIME + AHEAD + 1), Ok(()));
    }
    let more = nonce(MOST_TAKEN + 1);
    assert_eq!(taken.take(more, NOW + LIFETIME + AHEAD + 2), Err(Refusal::TooMany));
    assert_eq!(taken.take(more, NOW + 3 * (LIFETIME + AHEAD)), Ok(()));
}

#[test]
fn a_shell_is_one_of_the_contracts() {
    for shell in Shell::ALL {
        assert_eq!(Shell::parse(shell.command()), Some(shell));
    }
    for other in ["", "zsh", "BASH", "bash -c id"] {
        assert_eq!(Shell::parse(other), None, "{other}");
    }
}
