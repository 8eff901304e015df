//! Of listeners, what needs no connection; `tests/it/listeners.rs` has all that does.

use super::*;

#[test]
fn a_head_is_measured_as_it_stands_on_the_wire() {
    let request =
        Request::get("https://host/pods?namespace=a").header("accept", "*/*").body(()).unwrap();
    let wire = "GET/pods?namespace=aaccept: */*\r\n";
    assert_eq!(head_bytes(&request), wire.len());
}

#[test]
fn a_request_calls_us_by_one_name_but_before_http_1_1_by_none() {
    let is_fit = |version: Version, hosts: &[&str]| {
        let mut request = Request::get("/livez").version(version);
        for host in hosts {
            request = request.header(HOST, *host);
        }
        is_called_once(&request.body(()).unwrap())
    };
    for version in [Version::HTTP_10, Version::HTTP_11, Version::HTTP_2] {
        assert!(is_fit(version, &["a"]), "{version:?}");
        assert!(!is_fit(version, &["a", "a"]), "{version:?}");
        assert_eq!(is_fit(version, &[]), version != Version::HTTP_11, "{version:?}");
    }
    assert!(is_fit(Version::HTTP_11, &[""]), "an address without a name has an empty one");
}

#[test]
fn hypers_own_bound_is_above_ours_and_never_below_its_minimum() {
    let mut server = Server::default();
    assert!(server.hard_header_bytes() > 100_000, "100 kB get a 431");
    server.limits.header_bytes = 10;
    assert_eq!(server.hard_header_bytes(), MIN_BUFFER);
}

#[test]
fn only_errors_of_one_client_are_passed_over() {
    assert!(only_this_one(&io::ErrorKind::ConnectionAborted.into()));
    let no_files = io::Error::from_raw_os_error(24);
    assert!(!only_this_one(&no_files));
}

#[test]
fn whoever_is_in_front_of_us_lets_go_of_an_idle_connection_before_we_do() {
    let Limits { keep, header_time, .. } = Limits::default();
    assert!(keep > Duration::from_secs(600), "Google's load balancers, fixed");
    // What has asked nothing yet is no connection that a proxy keeps.
    assert!(header_time < Duration::from_secs(60));
}
