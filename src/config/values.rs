//! One parser for each type of setting: text in, typed value or "what would be right" out.
//! NOT here: which setting it is and where it came from (`resolve` puts that in front of the message).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use rustls_pki_types::ServerName;
use unic_langid::LanguageIdentifier;

use crate::i18n::Locale;
use crate::telemetry::{self, LogFormat};

/// The longest time a setting may give: more is a slip of units (milliseconds written as seconds).
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
/// The shortest one where none at all would be a mistake.
const SHORTEST: Duration = Duration::from_secs(1);
/// A right that is checked more rarely is hardly checked.
const LONGEST_RECHECK: Duration = Duration::from_secs(600);
/// The largest body that we agree to hold in memory for one request.
const LARGEST_BODY: usize = 256 << 20;
/// As many pods as our biggest bench; more would only be a typing error.
const MOST_DEMO_PODS: usize = 1_000_000;
/// RFC 1123: the length of one label, which is also the longest namespace.
const LONGEST_LABEL: usize = 63;
/// RFC 1123: the length of a DNS subdomain, which is what a Secret's name is.
const LONGEST_SUBDOMAIN: usize = 253;

type Parsed<T> = Result<T, String>;

pub(super) fn address(text: &str) -> Parsed<SocketAddr> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    // The one name that needs no resolver, and the one that people type.
    let port = text.strip_prefix("localhost:").and_then(|port| port.parse().ok());
    port.map(|port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port))
        .ok_or_else(|| "not an address; use HOST:PORT, e.g. 127.0.0.1:8443".to_owned())
}

/// An address of this machine alone: who reaches it needs no credentials.
pub(super) fn loopback(text: &str) -> Parsed<SocketAddr> {
    let address = address(text)?;
    if address.ip().to_canonical().is_loopback() {
        return Ok(address);
    }
    Err("give a loopback address such as 127.0.0.1:8001: whoever reaches this listener acts as \
         the cluster's own user"
        .into())
}

pub(super) fn boolean(text: &str) -> Parsed<bool> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err("not a yes or no; use true or false".to_owned()),
    }
}

/// Any text but none at all.
pub(super) fn name(text: &str) -> Parsed<String> {
    if text.trim().is_empty() {
        return Err("empty; give a value or leave the setting out".to_owned());
    }
    Ok(text.to_owned())
}

/// A language, kept as text: whose frontends there are, its files say.
pub(super) fn language(text: &str) -> Parsed<String> {
    match text.parse::<LanguageIdentifier>() {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err("not a language; use a tag such as de or zh-Hant".to_owned()),
    }
}

/// A regular expression, kept as text.
pub(super) fn pattern(text: &str) -> Parsed<String> {
    match regex::Regex::new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err("not a regular expression; e.g. ^/api/.*/secrets".to_owned()),
    }
}

/// Any text; nothing of it is judged.
pub(super) fn text(text: &str) -> Parsed<String> {
    Ok(text.to_owned())
}

pub(super) fn severity(text: &str) -> Parsed<String> {
    match text.to_ascii_uppercase() {
        known if ["INFO", "WARNING", "ERROR"].contains(&known.as_str()) => Ok(known),
        _ => Err("give INFO, WARNING or ERROR".into()),
    }
}

pub(super) fn path(text: &str) -> Parsed<PathBuf> {
    name(text).map(PathBuf::from)
}

/// Something that can be read as a file is; for what is read once a pipe will do.
pub(super) fn file(text: &str) -> Parsed<PathBuf> {
    let path = path(text)?;
    match std::fs::metadata(&path) {
        Ok(about) if !about.is_dir() => Ok(path),
        _ => Err("not a file; give one that exists".to_owned()),
    }
}

pub(super) fn directory(text: &str) -> Parsed<PathBuf> {
    let path = path(text)?;
    if path.is_dir() { Ok(path) } else { Err("not a directory; give one that exists".to_owned()) }
}

/// Seconds, with an optional unit: `60`, `0.5`, `60s`, `5m`, `1h`, `250ms`.
pub(super) fn duration(text: &str) -> Parsed<Duration> {
    let wrong = || "not a time; use seconds, e.g. 60, up to one day".to_owned();
    let units = [("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
    let (number, factor) = units
        .iter()
        .find_map(|(unit, factor)| Some((text.strip_suffix(*unit)?, *factor)))
        .unwrap_or((text, 1.0));
    let seconds: f64 = number.parse().map_err(|_| wrong())?;
    let time = Duration::try_from_secs_f64(seconds * factor).map_err(|_| wrong())?;
    if time > LONGEST { Err(wrong()) } else { Ok(time) }
}

/// Between two checks of a right. Without a pause they would be all that the API server does, and
/// with a long one a right that was taken away would not end in time what it was opened with.
pub(super) fn recheck(text: &str) -> Parsed<Duration> {
    let known = duration(text).ok().filter(|time| (SHORTEST..=LONGEST_RECHECK).contains(time));
    known.ok_or_else(|| "not a time between two checks; use 1s to 10m, e.g. 10s".to_owned())
}

/// How long a shell may last: one of less would end before its first word.
pub(super) fn of_shells(text: &str) -> Parsed<Duration> {
    let known = duration(text).ok().filter(|time| *time >= SHORTEST);
    known.ok_or_else(|| "not a time for shells; use 1s or more, e.g. 30m, up to one day".to_owned())
}

/// Seconds of a silence: short ones take a slow API server for a dead replica.
pub(super) fn silence(text: &str) -> Parsed<u32> {
    let seconds = duration(text).map(|time| time.as_secs()).unwrap_or_default();
    let seconds = u32::try_from(seconds).unwrap_or_default();
    if (5..=600).contains(&seconds) {
        return Ok(seconds);
    }
    Err("not a time of silence; use 5s to 10m, e.g. 30s".to_owned())
}

/// Bytes, with an optional binary unit: `3145728`, `3072Ki`, `3Mi`.
pub(super) fn body_size(text: &str) -> Parsed<usize> {
    let wrong = || "not a size; use bytes, e.g. 3145728 or 3Mi, from 1 to 256Mi".to_owned();
    let units = [("Ki", 1_usize << 10), ("Mi", 1 << 20)];
    let (number, factor) = units
        .iter()
        .find_map(|(unit, factor)| Some((text.strip_suffix(*unit)?, *factor)))
        .unwrap_or((text, 1));
    let size = number.parse::<usize>().ok().and_then(|number| number.checked_mul(factor));
    size.filter(|size| (1..=LARGEST_BODY).contains(size)).ok_or_else(wrong)
}

pub(super) fn demo_pods(text: &str) -> Parsed<usize> {
    let pods = text.parse().ok().filter(|pods| *pods <= MOST_DEMO_PODS);
    pods.ok_or_else(|| "not a number of pods; use one from 0 to 1000000".to_owned())
}

/// A leading slash, no trailing one; the root is the empty text. Only what needs no escaping, so that a prefix of bytes
/// is a prefix of paths.
pub(super) fn base_path(text: &str) -> Parsed<String> {
    let segments: Vec<&str> = text.split('/').filter(|segment| !segment.is_empty()).collect();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    let good = |segment: &&str| segment.bytes().all(plain) && !matches!(*segment, "." | "..");
    if !segments.iter().all(good) {
        return Err(
            "not a path; use letters, digits and -_.~ between slashes, e.g. /dashboard".to_owned()
        );
    }
    Ok(segments.iter().map(|segment| format!("/{segment}")).collect())
}

pub(super) fn locale(text: &str) -> Parsed<Locale> {
    Locale::parse(text).ok_or_else(|| {
        let known: Vec<&str> = Locale::all().map(Locale::tag).collect();
        format!("not a language we have messages in; use one of {}", known.join(", "))
    })
}

pub(super) fn log_level(text: &str) -> Parsed<String> {
    let level = name(text)?;
    if telemetry::filter(&level).is_none() {
        return Err("not a level; use error, warn, info, debug or trace, e.g. info".to_owned());
    }
    Ok(level)
}

pub(super) fn log_format(text: &str) -> Parsed<LogFormat> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err("not a log format; use text or json".to_owned()),
    }
}

pub(super) fn namespace(text: &str) -> Parsed<String> {
    if is_label(text) {
        return Ok(text.to_owned());
    }
    Err("not a namespace; use lower case letters, digits and -, at most 63, e.g. team-a".to_owned())
}

/// A host name (a wildcard label in front is fine) or an IP address, as it may stand in a certificate.
pub(super) fn certificate_name(text: &str) -> Parsed<String> {
    let host = text.strip_prefix("*.").unwrap_or(text);
    ServerName::try_from(host)
        .map(|_| text.to_owned())
        .map_err(|_| "not a host name or IP address; use e.g. dashboard.example.com".to_owned())
}

/// Where pages come from, as browsers write it.
pub(super) fn origin(text: &str) -> Parsed<String> {
    let parts = text.split_once("://").filter(|(scheme, _)| matches!(*scheme, "http" | "https"));
    let is_host = |scheme: &str, host: &str| {
        let uri = host.parse::<http::uri::Authority>();
        let usual = if scheme == "https" { ":443" } else { ":80" };
        let port = host.rsplit_once(':').filter(|_| !host.ends_with(']'));
        uri.is_ok_and(|uri| uri.as_str() == host)
            && !host.contains(['@', '*'])
            && !host.ends_with(usual)
            && port.is_none_or(|(_, port)| port.parse::<u16>().is_ok())
            && !host.bytes().any(|byte| byte.is_ascii_uppercase())
    };
    match parts {
        Some((scheme, host)) if is_host(scheme, host) => Ok(text.to_owned()),
        _ => Err("not an origin; use a scheme and a host in small letters, without a path, the usual port or *, e.g. \
                  https://headlamp.example.com"
            .to_owned()),
    }
}

/// Namespace and name of releases, in both of which `*` stands for anything.
pub(super) fn releases(text: &str) -> Parsed<String> {
    let part = |part: &str| {
        let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        !part.is_empty() && part.bytes().all(|byte| good(byte) || b"-.*".contains(&byte))
    };
    match text.split_once('/') {
        Some((namespace, name)) if part(namespace) && part(name) => Ok(text.to_owned()),
        _ => Err("not a pattern of releases; use NAMESPACE/NAME, e.g. kube-system/*".to_owned()),
    }
}

/// A host's name or address with its port, as it stands in a URL; `http://` in front where there is
/// no TLS.
pub(super) fn host_and_port(text: &str) -> Parsed<String> {
    let bare = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    let known = bare.unwrap_or(text).rsplit_once(':').filter(|(host, port)| {
        let plain = !host.is_empty() && !host.contains(['/', '@', '?', '#', ' ']);
        plain && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    match known {
        Some(_) => Ok(text.to_ascii_lowercase()),
        None => Err("not a host with a port; use e.g. registry.internal:5000, or \
                  http://registry.internal:5000 without TLS"
            .to_owned()),
    }
}

/// Namespace and name of a Secret.
pub(super) fn secret(text: &str) -> Parsed<(String, String)> {
    text.split_once('/')
        .filter(|(namespace, name)| is_label(namespace) && is_subdomain(name))
        .map(|(namespace, name)| (namespace.to_owned(), name.to_owned()))
        .ok_or_else(|| "not a Secret; use NAMESPACE/NAME, e.g. binnacle/binnacle-tls".to_owned())
}

/// The name of a ConfigMap in a namespace of its own setting.
pub(super) fn config_map(text: &str) -> Parsed<String> {
    if is_subdomain(text) {
        return Ok(text.to_owned());
    }
    Err("not a name of a ConfigMap; use lower case letters, digits, - and ., e.g. \
         dashboard-settings"
        .to_owned())
}

fn is_label(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty()
        && text.len() <= LONGEST_LABEL
        && text.bytes().all(plain)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn is_subdomain(text: &str) -> bool {
    text.len() <= LONGEST_SUBDOMAIN && text.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_needs_a_port_and_localhost_is_understood() {
        assert!(address("127.0.0.1").is_err());
        assert!(address("example.com:80").is_err());
        assert_eq!(address("localhost:80").unwrap(), address("127.0.0.1:80").unwrap());
        assert_eq!(address("[::1]:0").unwrap().port(), 0);
    }

    #[test]
    fn times_are_seconds_unless_a_unit_says_otherwise() {
        assert_eq!(duration("60").unwrap(), Duration::from_secs(60));
        assert_eq!(duration("250ms").unwrap(), Duration::from_millis(250));
        assert_eq!(duration("2m").unwrap(), Duration::from_secs(120));
        for wrong in ["", "-1", "soon", "NaN", "inf", "25h", "s"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn checks_have_a_pause_and_shells_a_time() {
        assert_eq!(recheck("10").unwrap(), Duration::from_secs(10));
        assert_eq!(recheck("10m").unwrap(), Duration::from_secs(600));
        for wrong in ["0", "0.5", "11m", "often"] {
            assert!(recheck(wrong).is_err(), "{wrong}");
        }
        assert_eq!(of_shells("24h").unwrap(), Duration::from_secs(24 * 60 * 60));
        for wrong in ["0", "999ms", "25h", "-1"] {
            assert!(of_shells(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn body_sizes_are_bounded() {
        assert_eq!(body_size("3Mi").unwrap(), 3 << 20);
        assert_eq!(body_size("10").unwrap(), 10);
        for wrong in ["0", "-1", "257Mi", "3MB", "99999999999999999999Mi", ""] {
            assert!(body_size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_base_path_is_normalised_and_plain() {
        assert_eq!(base_path("x/").unwrap(), "/x");
        assert_eq!(base_path("//a//b/").unwrap(), "/a/b");
        assert_eq!(base_path("/").unwrap(), "");
        for wrong in ["/a b", "/..", "/a?x", "/%2e", "/a#b", "/ä"] {
            assert!(base_path(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_secret_is_a_namespace_and_a_name() {
        assert_eq!(secret("a/b.c").unwrap(), ("a".to_owned(), "b.c".to_owned()));
        for wrong in ["a", "/b", "a/", "A/b", "a/b/c", "a/b..c"] {
            assert!(secret(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_pattern_is_a_regular_expression() {
        assert!(pattern(r"^/api/.*/exec").is_ok());
        assert!(pattern("(").is_err());
    }

    #[test]
    fn a_certificate_name_is_a_host_or_an_address() {
        for right in ["dashboard.example.com", "*.example.com", "10.0.0.1", "::1", "localhost"] {
            assert!(certificate_name(right).is_ok(), "{right}");
        }
        for wrong in ["", "a b", "https://x", "*"] {
            assert!(certificate_name(wrong).is_err(), "{wrong}");
        }
    }
}
