//! Tests of `caller`: who counts as whom.

use std::net::SocketAddr;

use http::{HeaderName, HeaderValue};

use super::*;

const LOCAL: &str = "local-secret";

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs
        .iter()
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()))
        .collect()
}

fn peer(address: &str) -> Option<Peer> {
    Some(Peer(address.parse::<SocketAddr>().unwrap()))
}

fn person() -> Callers {
    Callers { local_token: Some(LOCAL.into()), ..Callers::default() }
}

fn demo() -> Callers {
    Callers { demo_admin: Some("demo-admin-token".into()), ..Callers::default() }
}

fn find(
    callers: &Callers,
    method: Method,
    headers: &HeaderMap,
    peer: Option<Peer>,
) -> Result<User, ApiError> {
    callers.user(&Asked { method: &method, uri: &Uri::from_static("/"), headers, peer })
}

fn status(callers: &Callers, pairs: &[(&'static str, &str)], from: &str) -> u16 {
    match find(callers, Method::GET, &headers(pairs), peer(from)) {
        Ok(_) => 200,
        Err(error) => error.status.as_u16(),
    }
}

#[test]
fn without_credentials_nobody_is_anybody_even_on_this_machine() {
    assert_eq!(status(&person(), &[("host", "127.0.0.1:8443")], "127.0.0.1:1"), 401);
    assert_eq!(status(&Callers::default(), &[], "127.0.0.1:1"), 401);
}

#[test]
fn the_local_token_stands_for_the_kubeconfigs_user_and_another_token_for_itself() {
    let by = |token: &str| {
        let headers = headers(&[("authorization", &format!("Bearer {token}"))]);
        find(&person(), Method::GET, &headers, None).unwrap().fingerprint()
    };
    let kubeconfig = User::kubeconfig(&HeaderMap::new()).fingerprint();
    assert_eq!(by(LOCAL), kubeconfig);
    assert_ne!(by("other"), kubeconfig);
}

#[test]
fn other_schemes_empty_and_doubled_headers_are_refused() {
    for value in ["Basic YTpi", "Bearer", "Bearer  ", "token"] {
        assert_eq!(status(&person(), &[("authorization", value)], "127.0.0.1:1"), 401, "{value}");
    }
    let twice = [("authorization", "Bearer a"), ("authorization", "Bearer b")];
    let mut doubled = HeaderMap::new();
    for (name, value) in twice {
        doubled.append(name, HeaderValue::from_static(value));
    }
    assert!(find(&person(), Method::GET, &doubled, None).is_err());
}

#[test]
fn the_cookie_counts_only_from_our_own_pages_under_a_loopback_name() {
    let cookie = format!("a=b; {COOKIE}={}", cookie_for(LOCAL));
    let ok = [("cookie", cookie.as_str()), ("host", "localhost:8443")];
    assert_eq!(status(&person(), &ok, "127.0.0.1:1"), 200);
    let rebound = [("cookie", cookie.as_str()), ("host", "evil.example:8443")];
    assert_eq!(status(&person(), &rebound, "127.0.0.1:1"), 403);
    let foreign =
        [("cookie", cookie.as_str()), ("host", "localhost:8443"), ("sec-fetch-site", "cross-site")];
    assert_eq!(status(&person(), &foreign, "127.0.0.1:1"), 403);
    let wrong = [("cookie", "binnacle-token=x"), ("host", "localhost")];
    assert_eq!(status(&person(), &wrong, "127.0.0.1:1"), 401);
}

#[test]
fn writes_with_the_cookie_need_our_own_origin() {
    let cookie = format!("{COOKIE}={}", cookie_for(LOCAL));
    let with = |origin: &str| {
        let headers =
            headers(&[("cookie", cookie.as_str()), ("host", "localhost:8443"), ("origin", origin)]);
        find(&person(), Method::POST, &headers, None).is_ok()
    };
    assert!(with("https://localhost:8443"));
    assert!(!with("https://evil.example"));
    assert!(!with("null"));
}

#[test]
fn the_demo_admits_this_machine_without_credentials_but_no_rebound_name_or_other_machine() {
    assert_eq!(status(&demo(), &[("host", "127.0.0.1:8443")], "127.0.0.1:1"), 200);
    assert_eq!(status(&demo(), &[("host", "[::1]:8443")], "[::1]:1"), 200);
    assert_eq!(status(&demo(), &[("host", "evil.example")], "127.0.0.1:1"), 403);
    assert_eq!(status(&demo(), &[("host", "127.0.0.1:8443")], "192.0.2.7:1"), 401);
}

#[test]
fn impersonation_without_the_one_user_it_needs_is_a_bad_request() {
    let token = ("authorization", "Bearer x");
    let by = |more: &[(&'static str, &str)]| {
        status(&person(), &[&[token][..], more].concat(), "127.0.0.1:1")
    };
    assert_eq!(by(&[("impersonate-group", "system:masters")]), 400);
    assert_eq!(by(&[("impersonate-user", "")]), 400, "the API server would overlook it");
    assert_eq!(by(&[("impersonate-user", "a"), ("impersonate-user", "b")]), 400);
    assert_eq!(by(&[("impersonate-user", "a"), ("impersonate-group", "b")]), 200);
}

#[test]
fn the_sign_in_link_sets_a_strict_cookie_and_drops_the_token_from_the_address() {
    let uri: Uri = format!("/?token={LOCAL}").parse().unwrap();
    let response = person().sign_in(&uri, "/x/").unwrap();
    assert_eq!(response.headers()["location"], "/x/");
    let cookie = response.headers()["set-cookie"].to_str().unwrap();
    assert!(cookie.contains("SameSite=Strict") && cookie.contains("HttpOnly"), "{cookie}");
    assert!(cookie.contains("; Path=/x/;"), "{cookie}");
    let wrong: Uri = "/?token=nope".parse().unwrap();
    assert_eq!(person().sign_in(&wrong, "/").unwrap().status(), 401);
    assert!(person().sign_in(&"/".parse().unwrap(), "/").is_none());
}

#[test]
fn over_http_2_the_name_is_taken_from_the_address() {
    let ask = |uri: &'static str, origin: &str| {
        let cookie = format!("{COOKIE}={}", cookie_for(LOCAL));
        let headers = headers(&[("cookie", cookie.as_str()), ("origin", origin)]);
        let (method, uri) = (Method::POST, Uri::from_static(uri));
        let asked = Asked { method: &method, uri: &uri, headers: &headers, peer: None };
        person().user(&asked).map_err(|error| error.status.as_u16()).map(|_| ())
    };
    assert_eq!(ask("https://localhost:8443/", "https://localhost:8443"), Ok(()));
    assert_eq!(ask("https://evil.example:8443/", "https://evil.example:8443"), Err(403));
    assert_eq!(ask("/", "https://localhost:8443"), Err(403), "no name at all");
}

#[test]
fn over_http_2_a_websocket_brings_its_token_by_connect() {
    let list = "base64url.bearer.authorization.k8s.io.dG9rZW4, v5.channel.k8s.io";
    let headers = headers(&[("sec-websocket-protocol", list)]);
    assert!(find(&person(), Method::CONNECT, &headers, None).is_ok());
    assert!(find(&person(), Method::GET, &headers, None).is_err());
}

#[test]
fn a_token_among_subprotocols_has_nothing_behind_it_either() {
    for (token, is_one) in [("token", true), ("token x", false), ("token\tx", false)] {
        let encoded = URL_SAFE_NO_PAD.encode(token);
        let list = format!("base64url.bearer.authorization.k8s.io.{encoded}, v5.channel.k8s.io");
        let headers = headers(&[("sec-websocket-protocol", list.as_str())]);
        let found = find(&person(), Method::CONNECT, &headers, None);
        assert_eq!(found.is_ok(), is_one, "{token:?}");
    }
}

/// What a request with an `Authorization` comes to, whoever has set it.
fn lent(method: Method, more: &[(&'static str, &str)]) -> u16 {
    let own = [("authorization", "Bearer a"), ("host", "dash.example")];
    let headers = headers(&[&own[..], more].concat());
    find(&Callers::default(), method, &headers, None).map_or_else(|e| e.status.as_u16(), |_| 200)
}

#[test]
fn an_authorization_that_no_script_can_have_set_is_good_for_our_own_pages_alone() {
    let (ours, theirs) = ("https://dash.example", "https://evil.example");
    let upgrade = ("upgrade", "websocket");
    for (origin, status) in
        [(ours, 200), (theirs, 403), ("https://dash.example:8443", 403), ("null", 403)]
    {
        let origin = ("origin", origin);
        assert_eq!(lent(Method::GET, &[upgrade, origin]), status, "{origin:?}");
        assert_eq!(lent(Method::CONNECT, &[origin]), status, "{origin:?}");
        assert_eq!(lent(Method::POST, &[origin]), status, "{origin:?}");
        for content in ["text/plain;charset=UTF-8", "Multipart/Form-Data; boundary=x", "text/ping"]
        {
            let content = ("content-type", content);
            assert_eq!(lent(Method::POST, &[origin, content]), status, "{content:?} {origin:?}");
        }
    }
    let theirs = ("origin", theirs);
    for site in ["same-site", "cross-site"] {
        // Even where a proxy tells of a name that fits.
        let told =
            [upgrade, theirs, ("sec-fetch-site", site), ("x-forwarded-host", "evil.example")];
        assert_eq!(lent(Method::GET, &told), 403, "{site}");
    }
    assert_eq!(lent(Method::GET, &[upgrade, theirs, ("sec-fetch-site", "same-origin")]), 200);
}

#[test]
fn links_clients_without_pages_and_what_needs_a_preflight_are_taken_by_their_authorization() {
    // kubectl, curl.
    assert_eq!(lent(Method::GET, &[("upgrade", "websocket")]), 200);
    assert_eq!(lent(Method::POST, &[]), 200);
    // A link from elsewhere, or the way back from where one signs in.
    let link = [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")];
    assert_eq!(lent(Method::GET, &link), 200);
    // Who answered the preflight has answered for it. It was not us.
    let theirs = ("origin", "https://other.example");
    assert_eq!(lent(Method::GET, &[theirs]), 200);
    assert_eq!(lent(Method::DELETE, &[theirs]), 200);
    for content in ["application/json", "application/apply-patch+yaml", "text", "text/html"] {
        assert_eq!(lent(Method::POST, &[theirs, ("content-type", content)]), 200, "{content}");
    }
}

#[test]
fn frontends_that_somebody_has_named_may_open_websockets_with_their_users_tokens() {
    let trusted = vec!["https://headlamp.example".to_owned()];
    let callers = Callers { trusted, ..Callers::default() };
    let is_taken = |origin: &'static str| {
        let own = [("host", "api:8000"), ("upgrade", "websocket"), ("authorization", "Bearer a")];
        let headers = headers(&[&own[..], &[("origin", origin)]].concat());
        let (method, uri) = (Method::GET, Uri::from_static("/"));
        callers.user(&Asked { method: &method, uri: &uri, headers: &headers, peer: None }).is_ok()
    };
    assert!(is_taken("https://headlamp.example"));
    // It writes the address of its cluster in place of an origin where it asks for all its pages.
    assert!(is_taken("https://api:8000/clusters/main"));
    for other in ["http://headlamp.example", "https://headlamp.example:8443", "https://a.example"] {
        assert!(!is_taken(other), "{other}");
    }
}

#[test]
fn the_usual_port_may_be_said_or_left_out() {
    for (host, origin, taken) in [
        ("dash.example:443", "https://dash.example", true),
        ("dash.example", "https://dash.example:443", true),
        ("dash.example:80", "http://dash.example", true),
        ("dash.example:443", "http://dash.example", false),
        ("dash.example:80", "https://dash.example", false),
    ] {
        let headers = headers(&[("host", host), ("origin", origin)]);
        let (method, uri) = (Method::POST, Uri::from_static("/"));
        let asked = Asked { method: &method, uri: &uri, headers: &headers, peer: None };
        assert_eq!(refuse_cross_site(&asked).is_ok(), taken, "{host} {origin}");
    }
}

#[test]
fn our_own_page_is_known_behind_a_proxy_that_calls_us_by_another_name() {
    let is_ours = |more: &[(&'static str, &str)]| {
        let own = [("host", "api:8000"), ("origin", "https://localhost:8443")];
        let headers = headers(&[&own[..], more].concat());
        let (method, uri) = (Method::POST, Uri::from_static("/"));
        let asked = Asked { method: &method, uri: &uri, headers: &headers, peer: None };
        refuse_cross_site(&asked).is_ok()
    };
    let (name, port) = (("x-forwarded-host", "localhost"), ("x-forwarded-port", "8443"));
    assert!(is_ours(&[("sec-fetch-site", "same-origin")]));
    assert!(is_ours(&[("x-forwarded-host", "localhost:8443")]));
    assert!(is_ours(&[name, port]));
    assert!(is_ours(&[("x-forwarded-host", "a.example, localhost:8443")]));
    assert!(is_ours(&[name, ("x-forwarded-port", "443,8443")]));
    assert!(is_ours(&[("sec-fetch-site", "none"), name, port]));
    assert!(!is_ours(&[]));
    assert!(!is_ours(&[name]), "another port is another page");
    assert!(!is_ours(&[name, ("x-forwarded-port", "443")]));
    assert!(!is_ours(&[("x-forwarded-host", ""), port]));
    assert!(!is_ours(&[("x-forwarded-host", "evil.example, , local"), port]));
    for site in ["cross-site", "same-site"] {
        assert!(!is_ours(&[("x-forwarded-host", "localhost:8443"), ("sec-fetch-site", site)]));
    }
}

#[test]
fn what_a_proxy_tells_makes_no_rebound_name_ours() {
    let cookie = format!("{COOKIE}={}", cookie_for(LOCAL));
    let pairs = [
        ("cookie", cookie.as_str()),
        ("host", "evil.example"),
        ("x-forwarded-host", "localhost"),
        ("sec-fetch-site", "same-origin"),
    ];
    assert_eq!(status(&person(), &pairs, "127.0.0.1:1"), 403);
}
