//! Events: what was said about which object, and the warnings that other rows show.
//!
//! core/v1 events only, as the contract has it. Those of the newer API (events.k8s.io) have their
//! times and their count elsewhere: found as kubectl finds them. `action` is not shown.

use compact_str::CompactString;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::meta::{Meta, ObjectMeta, Text, TypeMeta, decode, flat, seconds, time};
use super::*;

pub const KIND: KindDef = KindDef {
    columns: &[Column::time("firstSeen"), Column::time("lastSeen"), Column::text("reason")],
    list: ListShape::rows("events"),
    ..KindDef::of("event", Resource::namespaced("", "v1", "Event", "events"), row, detail)
};

/// The type of warnings, given by the reporter or found by reason.
const WARNING: &str = "Warning";

/// Parts of a reason that make an event without a type a warning.
const BAD_REASONS: [&str; 11] = [
    "failed",
    "err",
    "exceeded",
    "invalid",
    "unhealthy",
    "mismatch",
    "insufficient",
    "conflict",
    "outof",
    "nil",
    "backoff",
];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event<'a> {
    #[serde(borrow, default)]
    metadata: Meta<'a>,
    #[serde(borrow, default)]
    involved_object: Involved<'a>,
    #[serde(borrow, default)]
    source: Source<'a>,
    #[serde(borrow, default)]
    reason: Text<'a>,
    #[serde(borrow, default)]
    message: Text<'a>,
    #[serde(borrow, default, rename = "type")]
    kind: Text<'a>,
    #[serde(default)]
    count: i64,
    #[serde(borrow, default)]
    first_timestamp: Option<Text<'a>>,
    #[serde(borrow, default)]
    last_timestamp: Option<Text<'a>>,
    #[serde(borrow, default)]
    event_time: Option<Text<'a>>,
    #[serde(borrow, default)]
    series: Option<Series<'a>>,
}

/// What the newer API says of an event that was seen again.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Series<'a> {
    count: i64,
    #[serde(borrow)]
    last_observed_time: Option<Text<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Involved<'a> {
    #[serde(borrow)]
    kind: Text<'a>,
    #[serde(borrow)]
    name: Text<'a>,
    #[serde(borrow)]
    namespace: Text<'a>,
    #[serde(borrow)]
    uid: Text<'a>,
    #[serde(borrow)]
    field_path: Text<'a>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Source<'a> {
    #[serde(borrow)]
    component: Text<'a>,
    #[serde(borrow)]
    host: Text<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Item<'a> {
    object_meta: ObjectMeta<'a>,
    type_meta: TypeMeta,
    message: &'a str,
    source_component: &'a str,
    source_host: &'a str,
    object: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    object_kind: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    object_name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    object_namespace: &'a str,
    count: i64,
    first_seen: Option<String>,
    last_seen: Option<String>,
    reason: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
}

impl Event<'_> {
    /// First and last sighting, and how many there were (`printEvent` of Kubernetes' printers).
    fn seen(&self) -> (Option<i64>, Option<i64>, i64) {
        let at = |text: &Option<Text>| text.as_deref().and_then(seconds);
        let first = at(&self.first_timestamp).or_else(|| at(&self.event_time));
        let last = at(&self.last_timestamp).or(first);
        match &self.series {
            Some(series) => (first, at(&series.last_observed_time).or(last), series.count),
            // An event of the newer API that was seen once has no count.
            None => (first, last, self.count.max(1)),
        }
    }

    /// The type, filled in by reason where the reporter gave none.
    fn kind(&self) -> &str {
        if !self.kind.is_empty() {
            return &self.kind;
        }
        let reason = self.reason.to_lowercase();
        if BAD_REASONS.iter().any(|bad| reason.contains(bad)) { WARNING } else { "Normal" }
    }

    fn facts(&self) -> Facts {
        let kind = self.kind();
        let warning = (kind == WARNING).then(|| {
            Box::new(Warning {
                message: Box::from(&*self.message),
                reason: Box::from(&*self.reason),
                kind: CompactString::new(kind),
            })
        });
        Facts::Event(EventFacts { warning })
    }

    fn links(&self) -> Vec<Link> {
        let Involved { name, namespace, uid, .. } = &self.involved_object;
        // By uid nobody looks for others, and most events are others.
        let by_uid = !uid.is_empty() && (namespace.is_empty() || self.kind() == WARNING);
        let mut links = Vec::with_capacity(usize::from(by_uid) + usize::from(!name.is_empty()));
        if by_uid {
            links.push(Link::Involved(Uid::from(&**uid)));
        }
        let object = CompactString::new(&**name);
        if !name.is_empty() && *namespace == self.metadata.namespace {
            links.push(Link::InvolvedName(object));
        } else if !name.is_empty() {
            links.push(Link::InvolvedAt(Box::new((CompactString::new(&**namespace), object))));
        }
        links
    }
}

fn row(json: &str) -> Result<Row, Malformed> {
    let object: Event = decode(KIND.name, json)?;
    let (first, last, count) = object.seen();
    let item = Item {
        object_meta: object.metadata.object_meta(),
        type_meta: TypeMeta::plain(KIND.name),
        message: &object.message,
        source_component: &object.source.component,
        source_host: &object.source.host,
        object: &object.involved_object.field_path,
        object_kind: &object.involved_object.kind,
        object_name: &object.involved_object.name,
        object_namespace: &object.involved_object.namespace,
        count,
        first_seen: first.and_then(time),
        last_seen: last.and_then(time),
        reason: &object.reason,
        kind: object.kind(),
    };
    let reason = CompactString::new(&*object.reason);
    let cells = vec![Cell::Time(first), Cell::Time(last), Cell::Text(reason)];
    object.metadata.row(KIND.name, &item, cells, object.links(), object.facts())
}

fn detail(object: &Value, row: &Row, _: &References) -> Result<Map<String, Value>, Malformed> {
    flat(KIND.name, object, row)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_event_of_a_kubelet_shows_its_own_times() {
        let row = row(
            r#"{"metadata": {"name": "a.1", "namespace": "atlas", "uid": "e1",
                    "creationTimestamp": "2026-01-02T03:04:05Z"},
                "involvedObject": {"kind": "Pod", "name": "a", "namespace": "atlas", "uid": "p1",
                    "fieldPath": "spec.containers{main}"},
                "source": {"component": "kubelet", "host": "node-0"}, "reason": "BackOff",
                "message": "Back-off\nrestarting", "type": "Warning", "count": 7, "eventTime": null,
                "firstTimestamp": "2026-01-02T03:04:05Z", "lastTimestamp": "2026-01-02T03:05:05Z"}"#,
        )
        .unwrap();
        assert_eq!(
            *row.cells,
            [
                Cell::Time(Some(1_767_323_045)),
                Cell::Time(Some(1_767_323_105)),
                Cell::Text("BackOff".into())
            ]
        );
        assert_eq!(*row.links, [Link::Involved("p1".into()), Link::InvolvedName("a".into())]);
        assert!(row.links_to(&Link::InvolvedAt(Box::new(("atlas".into(), "a".into())))));
        assert!(!row.links_to(&Link::InvolvedAt(Box::new(("other".into(), "a".into())))));
        let warning = row.warning().unwrap();
        assert_eq!((&*warning.message, &*warning.reason), ("Back-off\nrestarting", "BackOff"));
        assert_eq!(warning.kind, "Warning");
        assert_eq!(
            std::str::from_utf8(&row.json).unwrap(),
            concat!(
                r#"{"objectMeta":{"name":"a.1","namespace":"atlas","creationTimestamp":"2026-01-02T03:04:05Z","uid":"e1"},"#,
                r#""typeMeta":{"kind":"event"},"message":"Back-off\nrestarting","sourceComponent":"kubelet","#,
                r#""sourceHost":"node-0","object":"spec.containers{main}","objectKind":"Pod","objectName":"a","#,
                r#""objectNamespace":"atlas","count":7,"firstSeen":"2026-01-02T03:04:05Z","#,
                r#""lastSeen":"2026-01-02T03:05:05Z","reason":"BackOff","type":"Warning"}"#,
            )
        );
    }

    #[test]
    fn an_event_of_the_newer_api_is_shown_and_sorted_by_its_event_time() {
        let row = row(
            r#"{"metadata": {"name": "a.2", "namespace": "atlas"}, "involvedObject": {"name": "a"},
                "source": {}, "reason": "Scheduled", "type": "Normal", "firstTimestamp": null,
                "lastTimestamp": null, "eventTime": "2026-01-02T03:04:05.987654Z"}"#,
        )
        .unwrap();
        let seen = Cell::Time(Some(1_767_323_045));
        assert_eq!(row.cells[..2], [seen.clone(), seen]);
        assert_eq!(row.warning(), None);
        let nowhere = Link::InvolvedAt(Box::new(("".into(), "a".into())));
        assert_eq!(*row.links, *std::slice::from_ref(&nowhere));
        assert!(row.links_to(&nowhere));
        let item: Value = serde_json::from_slice(&row.json).unwrap();
        assert_eq!(item["firstSeen"], "2026-01-02T03:04:05Z");
        assert_eq!(item["lastSeen"], "2026-01-02T03:04:05Z");
        assert_eq!(item["count"], 1);
        assert_eq!(item.get("objectKind"), None);
    }

    #[test]
    fn a_series_says_when_an_event_was_seen_last_and_how_often() {
        let of = |series: Value| {
            let object = json!({"metadata": {"name": "e"}, "eventTime": "2026-01-02T03:04:05.9Z",
                "lastTimestamp": null, "series": series});
            let row = row(&object.to_string()).unwrap();
            let item: Value = serde_json::from_slice(&row.json).unwrap();
            (row.cells[1].clone(), item["lastSeen"].clone(), item["count"].clone())
        };
        let last = |seconds, text: &str| (Cell::Time(Some(seconds)), json!(text));
        let (cell, shown) = last(1_767_323_105, "2026-01-02T03:05:05Z");
        let series = json!({"count": 7, "lastObservedTime": "2026-01-02T03:05:05.123456Z"});
        assert_eq!(of(series), (cell, shown, json!(7)));
        let (cell, shown) = last(1_767_323_045, "2026-01-02T03:04:05Z");
        assert_eq!(of(json!({"count": 2, "lastObservedTime": null})), (cell, shown, json!(2)));
    }

    #[test]
    fn an_event_without_a_type_gets_one_by_its_reason() {
        for (reason, kind) in [
            ("FailedScheduling", "Warning"),
            ("ErrImagePull", "Warning"),
            ("OutOfDisk", "Warning"),
            ("BackOff", "Warning"),
            ("Scheduled", "Normal"),
            ("", "Normal"),
        ] {
            let object = json!({"metadata": {"name": "e"}, "reason": reason});
            let row = row(&object.to_string()).unwrap();
            let item: Value = serde_json::from_slice(&row.json).unwrap();
            assert_eq!(item["type"], kind, "{reason}");
            assert_eq!(row.warning().is_some(), kind == "Warning", "{reason}");
            assert_eq!(item["firstSeen"], Value::Null);
        }
    }
}
