//! Headers and close frames. The transports are tested over real connections.

use super::*;

fn asking(method: Method, pairs: &[(&'static str, &'static str)]) -> Request {
    let mut request = Request::new(Body::empty());
    *request.method_mut() = method;
    for (name, value) in pairs {
        request.headers_mut().append(*name, HeaderValue::from_static(value));
    }
    request
}

#[test]
fn only_pages_of_our_own_get_cors_headers() {
    let allowed = |origin: &'static str| {
        let pairs = [("host", "board.example:8443"), ("origin", origin)];
        let request = asking(Method::GET, &pairs);
        let response = info(own_origin(&Asked::of(&request))).unwrap();
        assert_eq!(response.headers()[header::CACHE_CONTROL], UNCACHED);
        assert_eq!(response.headers()[header::VARY], "Origin");
        let headers = response.headers();
        assert_eq!(
            headers.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN),
            headers.contains_key(header::ACCESS_CONTROL_ALLOW_CREDENTIALS)
        );
        headers.get(header::ACCESS_CONTROL_ALLOW_ORIGIN).cloned()
    };
    let ours = "https://board.example:8443";
    assert_eq!(allowed(ours).unwrap(), ours);
    for foreign in ["https://evil.example", "https://board.example", "null", "", "*"] {
        assert_eq!(allowed(foreign), None, "{foreign}");
    }
}

#[test]
fn preflights_are_good_for_a_year() {
    let pairs = [
        ("host", "board.example"),
        ("origin", "https://board.example"),
        ("access-control-request-headers", "x-a, x-b"),
    ];
    let request = asking(Method::OPTIONS, &pairs);
    let origin = own_origin(&Asked::of(&request));
    let response = preflight(&request, &Method::POST, origin);
    assert_eq!(response.status(), StatusCode::NO_CONTENT);
    for (name, value) in [
        (header::CACHE_CONTROL, CACHED),
        (header::EXPIRES, EXPIRES),
        (header::ACCESS_CONTROL_MAX_AGE, YEAR),
        (header::ACCESS_CONTROL_ALLOW_METHODS, "OPTIONS, POST"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "x-a, x-b"),
    ] {
        assert_eq!(response.headers()[&name], value, "{name}");
    }
    let response = preflight(&request, &Method::POST, None);
    assert!(!response.headers().contains_key(header::ACCESS_CONTROL_ALLOW_HEADERS));
}

#[test]
fn a_raw_websocket_is_closed_with_a_code_and_a_reason_that_it_can_carry() {
    let raw = |code: u16, reason: &str| close_frame(&Close::new(code, reason), false);
    let exited = raw(1, "Process exited");
    assert_eq!((exited.code, exited.reason.as_str()), (CloseCode::Normal, "Process exited"));
    assert_eq!(u16::from(raw(2, "no").code), RAW_FAILED);
    assert_eq!(u16::from(raw(3000, "Go away!").code), 3000);
    let long = "漢".repeat(100);
    let reason = raw(2, &long).reason;
    assert!(reason.as_str().len() <= 123 && long.starts_with(reason.as_str()));
    let framed = close_frame(&Close::new(2, "told before"), true);
    assert_eq!((framed.code, framed.reason.as_str()), (CloseCode::Normal, ""));
}
