//! Where a browser sees us, which is where a cookie of ours has its place and a redirect leads:
//! under our base path, and under the prefix that a proxy in front takes off and tells of.
//!
//! It names no cookie, and sets neither cookies nor redirects.

use http::HeaderMap;

use crate::api::Gateway;

/// Longest `X-Forwarded-Prefix` that is believed.
const LONGEST_PREFIX: usize = 200;

/// `below`, with its leading slash, as the browser sees it.
pub fn cookie_path(request: &HeaderMap, base_path: &str, below: &str) -> String {
    let sane = |text: &&str| {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_.~%".contains(&byte);
        // Two slashes would name another host, where a redirect leads.
        let is_path = text.starts_with('/') && !text.starts_with("//");
        is_path && text.len() <= LONGEST_PREFIX && text.bytes().all(known)
    };
    let prefix = request.get("x-forwarded-prefix").and_then(|value| value.to_str().ok());
    let prefix = prefix.filter(sane).unwrap_or_default().trim_end_matches('/');
    // A proxy may tell of a prefix that it leaves on.
    let prefix = if prefix == base_path { "" } else { prefix };
    format!("{prefix}{base_path}{below}")
}

impl Gateway {
    /// Where who sent these headers finds what we have at `below`.
    pub(crate) fn seen_at(&self, request: &HeaderMap, below: &str) -> String {
        cookie_path(request, &self.base_path, below)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn a_cookie_goes_where_the_browser_sees_us() {
        let at = |prefix: &'static str, base: &str| {
            let prefix =
                [("x-forwarded-prefix".parse().unwrap(), HeaderValue::from_static(prefix))];
            cookie_path(&prefix.into_iter().collect(), base, "/api/sockjs")
        };
        assert_eq!(cookie_path(&HeaderMap::new(), "", "/settings"), "/settings");
        assert_eq!(cookie_path(&HeaderMap::new(), "/base", "/"), "/base/");
        assert_eq!(at("/outer/", ""), "/outer/api/sockjs");
        assert_eq!(at("/outer", "/base"), "/outer/base/api/sockjs");
        assert_eq!(at("/base", "/base"), "/base/api/sockjs");
        for odd in ["outer", "/a; Domain=example.org", "/a,b", "", "//evil.example", "/\\a"] {
            assert_eq!(at(odd, ""), "/api/sockjs", "{odd}");
        }
    }
}
