//! What a repository of charts is: its name, its type and its address, as people write them, and
//! whether that makes sense.
//!
//! It holds no credentials, and that an address may not be reached is found out by connecting.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use url::Url;

use super::Policy;
use super::oci::is_repository;

/// RFC 1123: a label. With what stands before it in the name of the ConfigMap it fits into one.
const NAME: usize = 63;
/// Addresses of repositories have some fifty bytes.
const ADDRESS: usize = 2048;
/// Repositories of one registry that are named one by one; beyond that a prefix says it.
const NAMED: usize = 500;
/// How often a repository is looked at where nobody says it: what is new shows within a coffee.
const INTERVAL: Duration = Duration::from_secs(15 * 60);
/// Conditional requests are cheap, but one a second is an attack.
const SHORTEST: Duration = Duration::from_secs(10);
/// Beyond a day it is a slip of units.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// A repository as it is written down, without its credentials.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Definition {
    pub name: String,
    #[serde(rename = "type")]
    pub kind: Kind,
    /// `https://host[:port]/path`, or `oci://host[:port][/prefix]` of a registry.
    pub url: String,
    /// What of a registry counts; without it all that it enumerates below the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oci: Option<Oci>,
    /// `15m`: a whole number with s, m or h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<String>,
    /// Of a ConfigMap: there is a Secret of the same name. Who asks us for it has no say in it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_credentials: bool,
}

/// How charts are found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// A file `index.yaml`.
    Index,
    /// A registry of the OCI distribution specification.
    Oci,
    /// ChartMuseum: an index and an API to change it.
    Museum,
    /// Harbor's own API: the path of the address is a project, none: all of them.
    Harbor,
}

/// The part of a registry that counts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Oci {
    /// Below the address; they are charts, each by the last part of its name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub repositories: Vec<String>,
    /// Below the address: repositories that begin so, out of the registry's own list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
}

/// What is wrong. It never repeats an address: people put passwords there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadDefinition {
    #[error(
        "name has to be 1 to {} lower-case letters, digits and dashes, beginning and ending with \
         a letter or digit",
        NAME
    )]
    Name,
    #[error("url {0}")]
    Url(&'static str),
    #[error("oci {0}")]
    Oci(&'static str),
    #[error("interval has to be a time from 10s to 24h, such as 15m")]
    Interval,
}

impl Definition {
    /// Where it is spoken to: with `http` or `https`, and a slash at the end.
    pub fn base(&self, policy: &Policy) -> Result<Url, BadDefinition> {
        if !is_label(&self.name) {
            return Err(BadDefinition::Name);
        }
        self.interval.as_deref().map_or(Some(INTERVAL), time).ok_or(BadDefinition::Interval)?;
        let base = self.address(policy)?;
        self.is_part_of_registry(&base)?;
        Ok(base)
    }

    /// Between two refreshes.
    pub fn interval(&self) -> Duration {
        self.interval.as_deref().and_then(time).unwrap_or(INTERVAL)
    }

    fn address(&self, policy: &Policy) -> Result<Url, BadDefinition> {
        let bad = BadDefinition::Url;
        if self.url.len() > ADDRESS {
            return Err(bad("is too long"));
        }
        if self.url.contains(|c: char| c.is_whitespace() || c.is_control() || c == '\\') {
            return Err(bad("has spaces, control characters or backslashes"));
        }
        // Of no host the parser would make one out of the path.
        let registry = self.url.strip_prefix("oci://").filter(|rest| !rest.starts_with('/'));
        let mut url = match (self.kind, registry) {
            (Kind::Oci, Some(rest)) => Url::parse(&format!("https://{rest}")),
            (Kind::Oci, None) => return Err(bad("of a registry is oci:// with a host")),
            (_, Some(_)) => return Err(bad("begins with oci://: its type is oci")),
            (_, None) => Url::parse(&self.url),
        }
        .map_err(|_| bad("is no address, such as https://charts.example.com/stable"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(bad("has to begin with https://, http:// or, of a registry, oci://"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(bad("has a user name in it; those are given as credentials"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(bad("has a ? or # in it; tokens are given as credentials"));
        }
        if self.kind == Kind::Oci {
            let scheme = policy.scheme(url.host_str().unwrap_or_default(), url.port());
            url.set_scheme(scheme).map_err(|()| bad("has no host"))?;
        }
        let path = url.path().trim_end_matches('/');
        let path = path.strip_suffix("/index.yaml").unwrap_or(path).trim_end_matches('/');
        let path = format!("{path}/");
        url.set_path(&path);
        Ok(url)
    }

    fn is_part_of_registry(&self, base: &Url) -> Result<(), BadDefinition> {
        let bad = BadDefinition::Oci;
        let path = base.path().trim_matches('/');
        if self.kind == Kind::Oci && !path.is_empty() && !is_repository(path) {
            return Err(BadDefinition::Url(
                "has a path that is no repository: small letters, digits and ._- between slashes",
            ));
        }
        let Some(Oci { repositories, prefix }) = &self.oci else { return Ok(()) };
        if self.kind != Kind::Oci {
            return Err(bad("belongs to repositories of the type oci alone"));
        }
        if !repositories.is_empty() && prefix.is_some() {
            return Err(bad("has repositories and a prefix; give one of them"));
        }
        if repositories.len() > NAMED {
            return Err(bad("names more than 500 repositories; give a prefix"));
        }
        let prefix = prefix.as_deref().map(|prefix| prefix.trim_end_matches('/'));
        if !repositories.iter().map(String::as_str).chain(prefix).all(is_repository) {
            return Err(bad(
                "names what is no repository: small letters, digits and ._- between slashes",
            ));
        }
        Ok(())
    }
}

/// Whether this can be the name of a repository.
pub fn is_label(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=NAME).contains(&text.len())
        && text.bytes().all(plain)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn time(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        _ => return None,
    };
    let number: u64 =
        number.bytes().all(|byte| byte.is_ascii_digit()).then(|| number.parse().ok())??;
    let time = Duration::from_secs(number.checked_mul(seconds)?);
    (SHORTEST..=LONGEST).contains(&time).then_some(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(kind: Kind, url: &str) -> Definition {
        Definition {
            name: "stable".into(),
            kind,
            url: url.into(),
            oci: None,
            interval: None,
            has_credentials: false,
        }
    }

    fn base(kind: Kind, url: &str) -> Result<String, String> {
        let base = of(kind, url).base(&Policy::default());
        base.map(String::from).map_err(|error| error.to_string())
    }

    #[test]
    fn an_address_ends_with_a_slash_and_leaves_the_index_out() {
        for given in ["", "/", "/index.yaml"] {
            let url = format!("https://charts.example/a{given}");
            assert_eq!(base(Kind::Index, &url).unwrap(), "https://charts.example/a/");
        }
        assert_eq!(base(Kind::Museum, "http://m.corp:8080").unwrap(), "http://m.corp:8080/");
        let registry = base(Kind::Oci, "oci://r.example:5000/a/b");
        assert_eq!(registry.unwrap(), "https://r.example:5000/a/b/");
        let here = Policy::default().with_loopback();
        let local = of(Kind::Oci, "oci://127.0.0.1:5000").base(&here).unwrap();
        assert_eq!(local.as_str(), "http://127.0.0.1:5000/");
    }

    #[test]
    fn what_is_wrong_with_an_address_is_said_without_repeating_it() {
        for (kind, url) in [
            (Kind::Index, ""),
            (Kind::Index, "charts.example"),
            (Kind::Index, "file:///etc/hunter2"),
            (Kind::Index, "ftp://hunter2.example"),
            (Kind::Index, "https://me:hunter2@charts.example"),
            (Kind::Index, "https://hunter2@charts.example"),
            (Kind::Index, "https://charts.example/?token=hunter2"),
            (Kind::Index, "https://charts.example/#hunter2"),
            (Kind::Index, "https://charts.example/hunter2 /"),
            (Kind::Index, "oci://charts.example/hunter2"),
            (Kind::Oci, "https://charts.example/hunter2"),
            (Kind::Oci, "oci://me:hunter2@charts.example"),
            (Kind::Oci, "oci://charts.example/Hunter2"),
            (Kind::Oci, "oci:///hunter2:0"),
        ] {
            let error = base(kind, url).unwrap_err();
            assert!(error.starts_with("url "), "{url}: {error}");
            assert!(!error.contains("unter2"), "{url}: {error}");
        }
        assert!(base(Kind::Index, &format!("https://a.b/{}", "c".repeat(ADDRESS))).is_err());
    }

    #[test]
    fn a_name_fits_into_the_name_of_a_config_map() {
        let policy = Policy::default();
        let longest = "a".repeat(63);
        for name in ["a", "a-1", "1", longest.as_str()] {
            let definition = Definition { name: name.into(), ..of(Kind::Index, "https://a.b") };
            assert!(definition.base(&policy).is_ok(), "{name}");
        }
        let long = "a".repeat(64);
        for name in ["", "-a", "a-", "A", "a.b", "a/b", "ä", "..", long.as_str()] {
            let definition = Definition { name: name.into(), ..of(Kind::Index, "https://a.b") };
            assert_eq!(definition.base(&policy), Err(BadDefinition::Name), "{name}");
        }
    }

    #[test]
    fn an_interval_is_a_number_with_its_unit_within_a_day() {
        let mut definition = of(Kind::Index, "https://a.b");
        assert_eq!(definition.interval(), INTERVAL);
        for (text, seconds) in [("10s", 10), ("15m", 900), ("24h", 86_400)] {
            definition.interval = Some(text.into());
            assert!(definition.base(&Policy::default()).is_ok(), "{text}");
            assert_eq!(definition.interval(), Duration::from_secs(seconds));
        }
        let huge = "99999999999999999999h";
        for text in ["", "m", "9s", "25h", "15", "+15m", "1.5h", "-1m", "15µ", huge] {
            definition.interval = Some(text.into());
            assert_eq!(definition.base(&Policy::default()), Err(BadDefinition::Interval), "{text}");
        }
    }

    #[test]
    fn parts_of_a_registry_are_named_for_registries_alone() {
        let policy = Policy::default();
        let with = |kind, url: &str, repositories: &[&str], prefix: Option<&str>| {
            let repositories = repositories.iter().map(|name| (*name).to_owned()).collect();
            let oci = Some(Oci { repositories, prefix: prefix.map(str::to_owned) });
            Definition { oci, ..of(kind, url) }.base(&policy).is_ok()
        };
        assert!(with(Kind::Oci, "oci://r.example", &["charts/web", "db"], None));
        assert!(with(Kind::Oci, "oci://r.example", &[], Some("charts/")));
        assert!(!with(Kind::Oci, "oci://r.example", &["web"], Some("charts")));
        assert!(!with(Kind::Oci, "oci://r.example", &["../web"], None));
        assert!(!with(Kind::Oci, "oci://r.example", &[], Some("")));
        assert!(!with(Kind::Index, "https://r.example", &["web"], None));
    }

    #[test]
    fn it_is_written_as_people_write_it() {
        let text = r#"{"name":"stable","type":"museum","url":"https://a.b","interval":"5m"}"#;
        let definition: Definition = serde_json::from_str(text).unwrap();
        assert_eq!(definition.kind, Kind::Museum);
        assert_eq!(serde_json::to_string(&definition).unwrap(), text);
        let secret = r#"{"name":"stable","type":"index","url":"https://a.b","password":"hunter2"}"#;
        let error = serde_json::from_str::<Definition>(secret).unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }
}
