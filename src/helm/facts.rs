//! What a list shows of a release beyond metadata, read out of records and remembered by uid and
//! resource version: whoever has not listed that very version of a Secret cannot ask for it.
//!
//! It decides nothing about rights, and keeps neither values nor manifests.

use std::collections::HashMap;
use std::io::{BufReader, Read as _};
use std::sync::Arc;
use std::time::Duration;

use compact_str::CompactString;
use flate2::read::GzDecoder;
use moka::future::Cache;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::{DeserializeOwned, DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::blob::{BadRelease, Held, is_packed, packed, time};
use super::redact::without_values;
use crate::kinds::Uid;
use crate::upstream::{Cluster, Failure, Identity, UpstreamError, User};

/// Records remembered, at some 500 bytes: 500 releases of 40 revisions.
const KEPT: u64 = 20_000;
/// Nobody has looked at them for so long.
const IDLE: Duration = Duration::from_secs(3_600);
/// Characters of a text that is remembered.
const REMEMBERED: usize = 200;
/// What of a record is unpacked here, while others wait for the thread. Helm writes the times, the
/// notes and Chart.yaml before all that is long: some 50 KiB where there is much of them.
const BEGINNING: u64 = 1 << 20;
/// Records asked for at once, and what they may weigh: where they weigh more, fewer are asked for.
const PAGE: usize = 500;
const PAGE_BYTES: usize = 64 << 20;

/// Of one record.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fact {
    pub chart: CompactString,
    pub chart_version: CompactString,
    pub app_version: CompactString,
    /// Unix seconds.
    pub updated: Option<i64>,
    pub description: CompactString,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    uid: Uid,
    version: u64,
}

/// The facts of records that somebody has listed. Cheap to clone.
#[derive(Clone)]
pub struct Facts(Cache<Key, Arc<Fact>>);

/// By uid, those that one request has read.
pub type Read = HashMap<Uid, Arc<Fact>>;

#[derive(Deserialize)]
struct List {
    #[serde(default)]
    metadata: ListMeta,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ListMeta {
    r#continue: String,
}

impl Default for Facts {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(KEPT).time_to_idle(IDLE).build())
    }
}

impl Facts {
    /// What is remembered of a Secret that the caller has just listed in this version.
    pub async fn known(&self, uid: &Uid, version: u64) -> Option<Arc<Fact>> {
        self.0.get(&Key { uid: uid.clone(), version }).await
    }

    /// Reads the Secrets of `path`, a collection with a selector, as the user, page by page. After
    /// an error `found` has those that came before it. A record that cannot be read is told of in
    /// its description.
    pub async fn read(
        &self,
        cluster: &Cluster,
        user: &User,
        path: &str,
        found: &mut Read,
    ) -> Result<(), Failure> {
        let (mut token, mut limit) = (String::new(), PAGE);
        loop {
            let rest = match token.as_str() {
                "" => format!("{path}&limit={limit}"),
                token => {
                    let token = utf8_percent_encode(token, NON_ALPHANUMERIC);
                    format!("{path}&limit={limit}&continue={token}")
                }
            };
            let mut page = Vec::new();
            let mut take = |item: &str| page.extend(fact_of(item));
            let who = Identity::User(user);
            let answer = cluster.items(who, (&rest, "application/json"), PAGE_BYTES, &mut take);
            let answer = answer.await;
            for (key, fact) in page {
                found.insert(key.uid.clone(), fact.clone());
                if key.version > 0 {
                    self.0.insert(key, fact).await;
                }
            }
            let rest = match answer {
                // Large records: the same page in smaller parts.
                Err(Failure::Upstream(UpstreamError::TooLarge(_))) if limit > 1 => {
                    limit = (limit / 4).max(1);
                    continue;
                }
                answer => answer?,
            };
            let list: List = serde_json::from_slice(&rest)
                .map_err(|error| UpstreamError::Broken(format!("list of releases: {error}")))?;
            token = list.metadata.r#continue;
            if token.is_empty() {
                return Ok(());
            }
        }
    }
}

/// Of a Secret as it came in a list.
fn fact_of(secret: &str) -> Option<(Key, Arc<Fact>)> {
    let held = Held::of(secret.as_bytes()).ok()?;
    let fact = held.release.ok_or(BadRelease::Missing).and_then(fact);
    let fact = fact.unwrap_or_else(|error| Fact {
        description: cut(Some(&format!("The record cannot be read: {error}"))),
        ..Fact::default()
    });
    Some((Key { uid: held.uid.as_str().into(), version: held.version }, Arc::new(fact)))
}

/// What a list shows of a record: it is read no further than to the chart's metadata. Where the
/// beginning holds but one of what is looked for, such as after a tool that has sorted the members,
/// the other is not known.
fn fact(base64: &str) -> Result<Fact, BadRelease> {
    let bytes = packed(base64)?;
    let mut found = Found::default();
    let (read, is_cut) = if is_packed(&bytes) {
        let mut text = BufReader::new(GzDecoder::new(bytes.as_slice()).take(BEGINNING));
        let mut reader = serde_json::Deserializer::from_reader(&mut text);
        let read = Search(&mut found).deserialize(&mut reader);
        (read, text.get_ref().limit() == 0)
    } else {
        let mut reader = serde_json::Deserializer::from_slice(&bytes);
        (Search(&mut found).deserialize(&mut reader), false)
    };
    // Whoever has found what he looks for has left the rest with an error.
    if let Err(error) = read
        && !found.is_whole()
        && (!is_cut || found.is_empty())
    {
        return Err(match error.io_error_kind() {
            _ if is_cut => BadRelease::TooLarge(BEGINNING),
            Some(kind) => BadRelease::Packed(kind.to_string()),
            None => BadRelease::Json(error.column()),
        });
    }
    let (info, chart) = (found.info.unwrap_or_default(), found.chart.unwrap_or_default());
    Ok(Fact {
        chart: cut(chart.name.as_deref()),
        chart_version: cut(chart.version.as_deref()),
        app_version: cut(chart.app_version.as_deref()),
        updated: info.last_deployed,
        description: cut(info.description.as_deref().map(without_values).as_deref()),
    })
}

fn cut(text: Option<&str>) -> CompactString {
    text.unwrap_or_default().chars().take(REMEMBERED).collect()
}

/// What is looked for.
#[derive(Default)]
struct Found {
    info: Option<FoundInfo>,
    chart: Option<FoundChart>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct FoundInfo {
    #[serde(deserialize_with = "time")]
    last_deployed: Option<i64>,
    description: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct FoundChart {
    name: Option<String>,
    version: Option<String>,
    app_version: Option<String>,
}

impl Found {
    fn is_whole(&self) -> bool {
        self.info.is_some() && self.chart.is_some()
    }

    fn is_empty(&self) -> bool {
        self.info.is_none() && self.chart.is_none()
    }

    /// An error as soon as there is nothing more to look for.
    fn go_on<E: serde::de::Error>(&self) -> Result<(), E> {
        if self.is_whole() { Err(E::custom("nothing more is wanted")) } else { Ok(()) }
    }
}

/// Reads a release into what is looked for.
struct Search<'f>(&'f mut Found);
/// The same of its chart.
struct SearchChart<'f>(&'f mut Found);

fn member<'de, T: DeserializeOwned, A: MapAccess<'de>>(map: &mut A) -> Result<Option<T>, A::Error> {
    map.next_value()
}

impl<'de> DeserializeSeed<'de> for Search<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Search<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        formatter.write_str("a release")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<CompactString>()? {
            match key.as_str() {
                "info" => self.0.info = member(&mut map)?,
                "chart" => map.next_value_seed(SearchChart(&mut *self.0))?,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
            self.0.go_on()?;
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for SearchChart<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for SearchChart<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        formatter.write_str("a chart")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<CompactString>()? {
            match key.as_str() {
                "metadata" => self.0.chart = member(&mut map)?,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
            self.0.go_on()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::helm::blob::tests::{BOMB, HELM_3, stored};

    fn web() -> Fact {
        Fact {
            chart: "web".into(),
            chart_version: "1.2.0".into(),
            app_version: "2.0".into(),
            updated: Some(1_767_323_045),
            description: "Install complete".into(),
        }
    }

    #[test]
    fn facts_are_found_packed_or_not_and_wherever_they_stand() {
        assert_eq!(fact(&stored(HELM_3, true)), Ok(web()));
        assert_eq!(fact(&stored(HELM_3, false)), Ok(web()));
        let behind = r#"{"chart": {"values": {}, "metadata": {"name": "web", "version": "1.2.0",
            "appVersion": "2.0"}, "files": []}, "hooks": [], "info": {"description":
            "Install complete", "last_deployed": "2026-01-02T04:04:05.5+01:00"}}"#;
        assert_eq!(fact(&stored(behind, true)), Ok(web()));
        assert_eq!(fact(&stored(r#"{"chart": null, "info": null}"#, true)), Ok(Fact::default()));
    }

    #[test]
    fn nothing_is_read_behind_what_is_looked_for() {
        let cut_off = r#"{"info": {"description": "a"}, "chart": {"metadata": {"name": "b"}, "tem"#;
        let fact = fact(&stored(cut_off, true)).unwrap();
        assert_eq!((fact.chart.as_str(), fact.description.as_str()), ("b", "a"));
    }

    #[test]
    fn a_record_that_cannot_be_read_has_an_error_without_its_content() {
        assert!(matches!(fact("%"), Err(BadRelease::Base64(_))));
        assert!(fact(&stored("[]", true)).is_err());
        let error = fact(&stored(r#"{"info": "hunter2"}"#, true)).unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
        assert!(fact(&BOMB).is_err());
    }

    #[test]
    fn only_the_beginning_of_a_record_is_unpacked() {
        let long = "a".repeat(8 << 20);
        let metadata = r#"{"metadata": {"name": "web", "version": "1.2.0", "appVersion": "2.0"}"#;
        let info = r#""info": {"description": "Install complete"}"#;
        let far = format!(r#"{{"manifest": "{long}", {info}, "chart": {metadata}}}}}"#);
        assert_eq!(fact(&stored(&far, true)), Err(BadRelease::TooLarge(BEGINNING)));
        // Behind all that Helm writes first, and behind the chart where the members are sorted.
        let behind = format!(r#"{{{info}, "chart": {metadata}, "files": "{long}"}}}}"#);
        let sorted = format!(r#"{{"chart": {metadata}, "files": "{long}"}}, {info}}}"#);
        let web = Fact { updated: None, ..web() };
        assert_eq!(fact(&stored(&behind, true)).as_ref(), Ok(&web));
        let chart = Fact { description: CompactString::default(), ..web };
        assert_eq!(fact(&stored(&sorted, true)), Ok(chart));
    }

    #[test]
    fn a_secret_of_a_list_has_its_facts_by_uid_and_version() {
        let secret = |data: serde_json::Value, version: &str| {
            let metadata = json!({"uid": "u-1", "resourceVersion": version});
            json!({"metadata": metadata, "data": data}).to_string()
        };
        let whole = json!({"release": stored(HELM_3, true)});
        let (key, found) = fact_of(&secret(whole, "77")).unwrap();
        assert_eq!((key.uid, key.version, &*found), ("u-1".into(), 77, &web()));
        let (key, found) = fact_of(&secret(json!(null), "x")).unwrap();
        assert_eq!(key.version, 0);
        assert!(found.description.contains("no data.release"), "{}", found.description);
        assert!(fact_of("{}").is_none());
    }

    #[test]
    fn long_texts_are_cut() {
        assert_eq!(cut(Some(&"é".repeat(500))).chars().count(), REMEMBERED);
    }

    #[tokio::test]
    async fn facts_of_another_version_are_not_known() {
        let facts = Facts::default();
        let key = Key { uid: "u-1".into(), version: 7 };
        facts.0.insert(key, Arc::new(web())).await;
        assert!(facts.known(&"u-1".into(), 7).await.is_some());
        assert!(facts.known(&"u-1".into(), 8).await.is_none());
    }
}
