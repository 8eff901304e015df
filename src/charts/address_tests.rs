//! Addresses, names that mean several of them or change, and the gap.

use super::*;

fn policy(allowed: &[&str]) -> Policy {
    let allowed: Vec<String> = allowed.iter().map(|text| (*text).to_owned()).collect();
    Policy::new(&allowed).unwrap()
}

fn at(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), port)
}

#[test]
fn addresses_within_networks_and_of_clouds_are_not_public() {
    for ip in [
        "127.0.0.1",
        "127.8.8.8",
        "0.0.0.0",
        "10.1.2.3",
        "172.31.255.255",
        "192.168.0.1",
        "169.254.169.254",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        "198.19.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::ffff:10.0.0.1",
        "::ffff:169.254.169.254",
        "fe80::1",
        "fd00:ec2::254",
        "ff02::1",
        "2001::1",
        "2001:db8::1",
        "2002:a00:1::",
        "64:ff9b::10.0.0.1",
        "64:ff9b:1::1",
    ] {
        assert!(!is_public(ip.parse().unwrap()), "{ip}");
    }
    for ip in [
        "1.1.1.1",
        "172.32.0.1",
        "100.128.0.1",
        "168.63.129.17",
        "2606:4700:4700::1111",
        "2001:4860:4860::8888",
        "::ffff:1.1.1.1",
        "64:ff9b::1.1.1.1",
    ] {
        assert!(is_public(ip.parse().unwrap()), "{ip}");
    }
}

#[test]
fn a_private_address_is_reached_under_the_name_and_port_that_are_allowed() {
    let policy = policy(&["Registry.Corp:5000", "http://10.0.0.9:80", "[fd00::1]:443"]);
    assert!(policy.check(true, "registry.corp", at("10.0.0.7", 5000)).is_ok());
    assert!(policy.check(true, "REGISTRY.corp.", at("10.0.0.7", 5000)).is_ok());
    assert!(policy.check(true, "[fd00::1]", at("fd00::1", 443)).is_ok());
    for (host, port) in [("registry.corp", 5001), ("other.corp", 5000), ("10.0.0.7", 5000)] {
        let refused = policy.check(true, host, at("10.0.0.7", port)).unwrap_err();
        assert!(matches!(refused, Refused::Private { .. }), "{refused}");
        assert!(!refused.to_string().contains("is 10."), "{refused}");
    }
}

#[test]
fn without_tls_only_what_is_private_and_allowed_so_is_reached() {
    let corp = policy(&["http://registry.corp:5000", "secure.corp:443"]);
    assert!(corp.check(false, "registry.corp", at("10.0.0.7", 5000)).is_ok());
    for (host, ip, port) in [
        ("registry.corp", "1.1.1.1", 5000),
        ("secure.corp", "10.0.0.7", 443),
        ("public.example", "1.1.1.1", 80),
    ] {
        let refused = corp.check(false, host, at(ip, port)).unwrap_err();
        assert!(matches!(refused, Refused::Plain { .. }), "{refused}");
    }
    assert_eq!(corp.scheme("registry.corp", Some(5000)), "http");
    assert_eq!(corp.scheme("registry.corp", None), "https");
    assert_eq!(corp.scheme("secure.corp", Some(443)), "https");
    let policy = policy(&["127.0.0.1:5000", "https://localhost:5000"]);
    assert_eq!(policy.scheme("127.0.0.1", Some(5000)), "http");
    assert_eq!(policy.scheme("localhost", Some(5000)), "https");
}

#[test]
fn the_demo_reaches_this_machine_and_nothing_else_that_is_private() {
    let policy = Policy::default().with_loopback();
    assert!(policy.check(false, "localhost", at("127.0.0.1", 5000)).is_ok());
    assert!(policy.check(false, "localhost", at("::1", 5000)).is_ok());
    assert!(policy.check(true, "meta", at("169.254.169.254", 443)).is_err());
    assert_eq!(policy.scheme("localhost", Some(5000)), "http");
    assert_eq!(policy.scheme("[::1]", None), "http");
    assert_eq!(policy.scheme("registry.example", None), "https");
}

#[test]
fn beyond_an_air_gap_are_all_but_hosts_of_repositories_and_those_that_are_allowed() {
    let at = |text: &str| Url::parse(text).unwrap();
    let open = policy(&[]);
    assert!(!open.has_air_gap() && open.crosses(&at("https://any.example")).is_ok());
    let gapped = policy(&["files.corp:8443"]).with_loopback().with_air_gap();
    let base = at("https://Charts.example/stable/");
    let trial = at("http://127.0.0.1:5000/");
    let of_trial = gapped.of(&trial);
    // Clones know what there is later.
    gapped.know([&base].into_iter());
    for (policy, others) in [(&gapped, false), (&of_trial, true)] {
        assert!(policy.crosses(&at("https://charts.example:443/other")).is_ok());
        assert!(policy.crosses(&at("https://charts.example./")).is_ok());
        assert!(policy.crosses(&at("https://files.corp:8443/a.tgz")).is_ok());
        assert_eq!(policy.crosses(&trial).is_ok(), others);
        for beyond in [
            "https://charts.example:8443/",
            "http://charts.example/",
            "https://files.corp/",
            "https://other.example/",
            "http://127.0.0.1:5001/",
        ] {
            let refused = policy.crosses(&at(beyond)).unwrap_err().to_string();
            assert!(refused.contains("--charts-air-gapped"), "{refused}");
        }
    }
    gapped.know(std::iter::empty());
    assert!(of_trial.crosses(&base).is_err());
}

#[test]
fn an_entry_that_names_no_address_is_refused_with_what_one_looks_like() {
    let odd = ["", "host", "host:", "host:0", "host:+80", "host:70000", "a b:1", "u@h:1"];
    for text in odd.into_iter().chain(["ftp://host:1", "http://host"]) {
        let refused = Policy::new(&[text.to_owned()]).unwrap_err().to_string();
        assert!(refused.contains("host:port"), "{refused}");
    }
}

#[tokio::test]
async fn a_name_that_means_this_machine_is_refused_when_it_is_connected_to() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    for host in ["localhost", "127.0.0.1", "127.1", "[::ffff:127.0.0.1]"] {
        let to: Uri = format!("https://{host}:{port}/").parse().unwrap();
        let error = connect(&Policy::default(), &to, look_up).await.map(|_| ()).unwrap_err();
        assert!(error.downcast_ref::<Refused>().is_some(), "{host}: {error}");
    }
    let allowed = policy(&[&format!("http://127.0.0.1:{port}")]);
    let to: Uri = format!("http://127.0.0.1:{port}/").parse().unwrap();
    assert!(connect(&allowed, &to, look_up).await.is_ok());
}

#[test]
fn of_a_name_that_means_several_addresses_those_are_reached_that_may_be() {
    let policy = Policy::default();
    let (one, other) = (at("1.1.1.1", 443), at("2606:4700:4700::1111", 443));
    for ip in ["10.0.0.7", "127.0.0.1", "169.254.169.254", "fd00::7", "64:ff9b::10.0.0.7"] {
        let inside = at(ip, 443);
        for found in [[inside, one, other], [one, inside, other], [one, other, inside]] {
            let reached = policy.reach(true, "web.example", &found);
            assert_eq!(reached.unwrap(), [one, other], "{ip}");
        }
        let refused = policy.reach(true, "web.example", &[inside]).unwrap_err();
        assert!(matches!(refused, Refused::Private { .. }), "{refused}");
        let refused = policy.reach(false, "web.example", &[one, inside]).unwrap_err();
        assert!(!refused.to_string().contains(ip), "{refused}");
        // Those that may not be reached take no places from those that may.
        let many = [[inside; 9], [one; 9]].concat();
        assert_eq!(policy.reach(true, "web.example", &many).unwrap(), [one; ADDRESSES]);
    }
    assert_eq!(policy.reach(true, "web.example", &[]), Ok(Vec::new()));
}

#[test]
fn an_allowed_name_does_not_lead_to_where_clouds_give_out_keys() {
    let named = policy(&["http://registry.corp:80", "registry.corp:443"]);
    for ip in [
        "100.100.100.200",
        "168.63.129.16",
        "169.254.169.254",
        "169.254.170.2",
        "192.0.0.192",
        "fd00:42::42",
        "fd00:ec2::254",
        "fd20:ce::254",
        "fe80::a9fe:a9fe",
        "::ffff:169.254.169.254",
        "64:ff9b::169.254.169.254",
    ] {
        for (secure, port) in [(true, 443), (false, 80)] {
            let (keys, registry) = (at(ip, port), at("10.0.0.7", port));
            let reached = named.reach(secure, "registry.corp", &[keys, registry]);
            assert_eq!(reached.unwrap(), [registry], "{ip}");
            let refused = named.reach(secure, "registry.corp", &[keys]).unwrap_err();
            assert!(matches!(refused, Refused::Metadata { .. }), "{ip}: {refused}");
            for host in [ip, "other.corp"] {
                let refused = named.reach(secure, host, &[keys]).unwrap_err();
                assert!(matches!(refused, Refused::Private { .. }), "{host}: {refused}");
            }
        }
    }
    for near in ["100.100.100.201", "192.0.0.193", "fd00:ec3::254"] {
        assert!(named.check(true, "registry.corp", at(near, 443)).is_ok(), "{near}");
    }
    // Who allows the address itself means it.
    let meant = policy(&["http://169.254.169.254:80", "[fd00:ec2::254]:443"]);
    assert!(meant.check(false, "169.254.169.254", at("169.254.169.254", 80)).is_ok());
    assert!(meant.check(true, "[fd00:ec2::254]", at("fd00:ec2::254", 443)).is_ok());
}

#[tokio::test]
async fn a_name_is_looked_up_once_a_connection_and_may_mean_something_else_at_the_next() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let here = listener.local_addr().unwrap();
    // Loopback stands for what is public: this machine can be reached.
    let policy = Policy::default().with_loopback();
    let to: Uri = format!("http://rebinds.example:{}/", here.port()).parse().unwrap();
    let inside = ["10.0.0.7", "169.254.169.254", "fd00:ec2::254"].map(|ip| at(ip, here.port()));
    for (found, peer) in [
        (vec![here], Some(here)),
        (inside.to_vec(), None),
        (vec![inside[0], here, inside[1]], Some(here)),
        (Vec::new(), None),
    ] {
        let (mut asked, refused) = (Vec::new(), !found.is_empty());
        let answer = |host: String, port: u16| {
            asked.push((host, port));
            std::future::ready(Ok(found))
        };
        let connected = connect(&policy, &to, answer).await;
        match (connected, peer) {
            (Ok(stream), Some(peer)) => assert_eq!(stream.inner().peer_addr().unwrap(), peer),
            (Err(error), None) => assert_eq!(error.is::<Refused>(), refused, "{error}"),
            (connected, _) => panic!("{peer:?}: {:?}", connected.map(|_| ())),
        }
        assert_eq!(asked, [("rebinds.example".to_owned(), here.port())]);
    }
    // What may not be reached hears nothing of it.
    let connections = || std::iter::from_fn(|| listener.accept().ok()).count();
    assert_eq!(connections(), 2);
    let answer = |_, _| std::future::ready(Ok(vec![here]));
    let refused = connect(&Policy::default(), &to, answer).await.map(|_| ()).unwrap_err();
    assert!(refused.is::<Refused>(), "{refused}");
    assert_eq!(connections(), 0);
}
