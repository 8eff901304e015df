//! Search over all kinds that are kept: by name, label, image and uid, best match first, of rows
//! that the caller may list. Events and kinds that are read live (secrets) are not searched.
//!
//! One pass over the rows in scope; content (data, specs) is not looked at, and not held. The store
//! is left before rows are judged, and others have their turn while many are.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use futures::future::join_all;
use regex::bytes::{Regex, RegexBuilder};
use serde::Deserialize;
use serde_json::{Value, json};

use super::detail::distinct;
use super::list::namespaces_in;
use super::related::known;
use super::view;
use super::view::NoView;
use crate::api::error::ApiError;
use crate::api::respond::{Freshness, Reply};
use crate::api::{Caller, Shared};
use crate::auth::Reach;
use crate::kinds::{KINDS, KindDef, Row};

/// Shorter texts match nearly everything; longer than any name is a mistake.
const TEXT: std::ops::RangeInclusive<usize> = 2..=253;
/// Rows in an answer: by default, and at most.
const LIMIT: (usize, usize) = (50, 500);
/// Part of a uid that is taken for one: a shorter one is found in too many.
const UID: usize = 8;
/// Rows that are judged before others have their turn.
const STEP: usize = 500;
/// The kinds whose items name images: no other items are looked into.
const IMAGES: [&str; 8] = [
    "cronjob",
    "daemonset",
    "deployment",
    "job",
    "pod",
    "replicaset",
    "replicationcontroller",
    "statefulset",
];

/// What of a row matched, and how well: more is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Match {
    rank: u8,
    what: &'static str,
}

/// A match in the order of the answer: best first, then kind, namespace, name.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Hit {
    rank: Reverse<u8>,
    kind: &'static str,
    place: (compact_str::CompactString, compact_str::CompactString),
    what: &'static str,
    row: ByPlace,
}

/// The row itself takes no part in the order.
struct ByPlace(Arc<Row>);

/// The best matches so far.
#[derive(Default)]
struct Best {
    hits: BinaryHeap<Hit>,
    /// Of all matches.
    total: usize,
    judged: usize,
}

struct Question {
    /// In lower case.
    text: String,
    /// Finds the text in any case, without a copy.
    anywhere: Regex,
    limit: usize,
    kinds: Vec<String>,
    wanted: Reach,
}

/// `GET /api/v1/search?q=…[&namespace=][&kinds=][&limit=]`.
pub async fn search(
    State(gateway): Shared,
    Caller(user): Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let question = Question::parse(request.uri().query().unwrap_or_default())?;
    let locale = gateway.locale_of(request.headers());
    // One question first: bad credentials must not cause one for each kind.
    if let Err(NoView::Failed(error)) =
        view::scope(&gateway, &user, known("pod")?, &question.wanted).await
    {
        return Err(error);
    }
    let kinds = KINDS.iter().filter(|kind| is_searched(kind, &question.kinds));
    let (asked, wanted) = ((&*gateway, &user), &question.wanted);
    let open = kinds.map(async |kind| (kind, view::open(asked.0, asked.1, kind, wanted).await));
    let (mut best, mut views, mut errors) = (Best::default(), Vec::new(), Vec::new());
    for (kind, view) in join_all(open).await {
        let view = match view {
            Ok(view) => view,
            Err(none) => {
                errors.push(none.unless_unauthorized()?.as_item(locale));
                continue;
            }
        };
        let mut rows = Vec::new();
        view.store().each(&view.scope, |row| rows.push(row.clone()));
        best.judge(&question, kind, rows).await;
        errors.extend(view.missing().map(|error| error.as_item(locale)));
        views.push(view);
    }
    let items: Result<Vec<Value>, ApiError> =
        best.hits.into_sorted_vec().iter().map(Hit::shown).collect();
    let body = json!({
        "query": question.text, "listMeta": { "totalItems": best.total },
        "items": items?, "errors": distinct(errors),
    });
    let reply = Reply::json(body.to_string().into_bytes(), Freshness::of(views.iter()));
    Ok(reply.respond(&gateway, request.headers()))
}

fn is_searched(kind: &KindDef, wanted: &[String]) -> bool {
    let named = wanted.is_empty() || wanted.iter().any(|name| name == kind.name);
    named && kind.is_kept() && kind.name != "event"
}

impl Question {
    fn parse(query: &str) -> Result<Self, ApiError> {
        let (mut text, mut limit, mut kinds, mut wanted) =
            (String::new(), LIMIT.0, Vec::new(), Reach::Everything);
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "q" => text = value.trim().to_lowercase(),
                "limit" => limit = value.parse().unwrap_or(LIMIT.0).clamp(1, LIMIT.1),
                "kinds" => kinds = value.split(',').map(|kind| kind.trim().to_owned()).collect(),
                "namespace" => wanted = namespaces_in(&value)?,
                _ => {}
            }
        }
        if !TEXT.contains(&text.len()) {
            let (least, most) = (TEXT.start().to_string(), TEXT.end().to_string());
            let args = [("least", least.as_str()), ("most", most.as_str())];
            return Err(ApiError::bad_request("error-search-text", &args));
        }
        let known = |name: &String| KINDS.iter().any(|kind| kind.is_kept() && kind.name == name);
        if let Some(unknown) = kinds.iter().find(|name| !known(name)) {
            return Err(ApiError::bad_request("error-unknown-kind", &[("kind", unknown)]));
        }
        let anywhere = RegexBuilder::new(&regex::escape(&text)).case_insensitive(true).build();
        let anywhere = anywhere.map_err(|error| ApiError::internal(&error))?;
        Ok(Self { text, anywhere, limit, kinds, wanted })
    }
}

impl Best {
    async fn judge(&mut self, question: &Question, kind: &'static KindDef, rows: Vec<Arc<Row>>) {
        let with_images = IMAGES.contains(&kind.name);
        for row in rows {
            if let Some(found) = found(question, &row, with_images) {
                self.add(Hit::of(kind, &row, found), question.limit);
            }
            self.judged += 1;
            if self.judged.is_multiple_of(STEP) {
                tokio::task::yield_now().await;
            }
        }
    }

    fn add(&mut self, hit: Hit, limit: usize) {
        self.total += 1;
        self.hits.push(hit);
        if self.hits.len() > limit {
            // The worst of them.
            self.hits.pop();
        }
    }
}

/// How well the text matches a row.
fn found(question: &Question, row: &Row, with_images: bool) -> Option<Match> {
    let text = question.text.as_str();
    let name = lower(&row.name);
    let by_name = match name.find(text) {
        Some(0) if name.len() == text.len() => Some(100),
        Some(0) => Some(80),
        Some(at)
            if name.as_bytes().get(at - 1).is_some_and(|byte| !byte.is_ascii_alphanumeric()) =>
        {
            Some(70)
        }
        Some(_) => Some(60),
        None => None,
    };
    if let Some(rank) = by_name {
        return Some(Match { rank, what: "name" });
    }
    if text.len() >= UID && row.uid.starts_with(text) {
        return Some(Match { rank: 90, what: "uid" });
    }
    let mut labels = row.labels.iter();
    if labels.clone().any(|(_, value)| lower(value) == text) {
        return Some(Match { rank: 40, what: "label" });
    }
    if labels.any(|(key, value)| lower(value).contains(text) || lower(key).contains(text)) {
        return Some(Match { rank: 30, what: "label" });
    }
    let by_image = with_images && has_image(question, row);
    by_image.then_some(Match { rank: 20, what: "image" })
}

/// Names are lower case nearly always: copied only when they are not.
fn lower(text: &str) -> std::borrow::Cow<'_, str> {
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        text.to_lowercase().into()
    } else {
        text.into()
    }
}

/// Images are in the item alone: it is read only where the text stands somewhere in it.
fn has_image(question: &Question, row: &Row) -> bool {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    #[derive(Default)]
    struct Images {
        container_images: Option<Vec<String>>,
        init_container_images: Option<Vec<String>>,
    }
    if !question.anywhere.is_match(&row.json) {
        return false;
    }
    let images: Images = serde_json::from_slice(&row.json).unwrap_or_default();
    let all = images.container_images.into_iter().chain(images.init_container_images);
    all.flatten().any(|image| question.anywhere.is_match(image.as_bytes()))
}

impl Hit {
    fn of(kind: &'static KindDef, row: &Arc<Row>, found: Match) -> Self {
        Self {
            rank: Reverse(found.rank),
            kind: kind.name,
            place: (row.namespace.clone(), row.name.clone()),
            what: found.what,
            row: ByPlace(row.clone()),
        }
    }

    /// The list item of its kind, and what matched.
    fn shown(&self) -> Result<Value, ApiError> {
        let item: Value =
            serde_json::from_slice(&self.row.0.json).map_err(|error| ApiError::internal(&error))?;
        Ok(json!({
            "kind": self.kind, "match": self.what,
            "objectMeta": item.get("objectMeta"), "typeMeta": item.get("typeMeta"),
        }))
    }
}

impl PartialEq for ByPlace {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for ByPlace {}

impl PartialOrd for ByPlace {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ByPlace {
    fn cmp(&self, _: &Self) -> std::cmp::Ordering {
        std::cmp::Ordering::Equal
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::by_name;
    use crate::tests::beside;

    fn row(name: &str) -> Row {
        let json = json!({
            "metadata": {
                "name": name, "namespace": "atlas", "labels": {"app": "Tiles"},
                "uid": "6f1c2b3a-0000-4000-8000-000000000001",
            },
            "spec": {"template": {"spec": {"containers": [{"image": "hub.example/maps:2-RC1"}]}}},
        });
        (by_name("deployment").unwrap().row)(&json.to_string()).unwrap()
    }

    fn search(text: &str, name: &str) -> Option<Match> {
        found(&Question::parse(&format!("q={text}")).unwrap(), &row(name), true)
    }

    #[test]
    fn names_rank_before_uids_labels_and_images() {
        let ranks =
            ["web", "web-front", "my-web", "cobweb"].map(|name| search("web", name).unwrap().rank);
        assert_eq!(ranks, [100, 80, 70, 60]);
        let what = |text: &str| search(text, "web").map(|found| found.what);
        assert_eq!(what("6f1c2b3a"), Some("uid"));
        assert_eq!(what("6f1c"), None);
        assert_eq!(what("tiles"), Some("label"));
        for image in ["example/maps", "maps:2-RC1", "maps:2-rc1", "Maps:2-Rc"] {
            assert_eq!(what(image), Some("image"), "{image}");
        }
        assert_eq!(what("maps:2.RC1"), None, "it is no pattern");
        assert_eq!(what("creationtimestamp"), None);
    }

    #[test]
    fn a_question_needs_a_text_and_known_kinds() {
        assert!(Question::parse("q=a").is_err());
        assert!(Question::parse("limit=3").is_err());
        assert!(Question::parse("q=web&kinds=gadget").is_err());
        let question = Question::parse("q=+WEB+&kinds=pod,job&limit=9999&namespace=b,a").unwrap();
        assert_eq!((question.text.as_str(), question.limit), ("web", 500));
        assert!(question.wanted.names().eq(["a", "b"]), "{:?}", question.wanted);
    }

    #[test]
    fn images_are_looked_for_in_the_kinds_that_show_them() {
        let shows = |kind: &&KindDef| {
            let row = (kind.row)(r#"{"metadata": {"name": "web"}}"#).unwrap();
            let item: Value = serde_json::from_slice(&row.json).unwrap();
            item.get("containerImages").or(item.get("initContainerImages")).is_some()
        };
        let kinds = KINDS.iter().filter(|kind| is_searched(kind, &[])).filter(shows);
        let names: Vec<&str> = kinds.map(|kind| kind.name).collect();
        assert_eq!(names, IMAGES);
    }

    #[tokio::test]
    async fn others_have_their_turn_while_many_rows_are_judged() {
        let row = Arc::new(row("web"));
        let question = Question::parse("q=web").unwrap();
        let (mut best, kind) = (Best::default(), by_name("deployment").unwrap());
        // Few rows of many kinds are many, too.
        let judged = async {
            for _ in 0..4 {
                best.judge(&question, kind, vec![row.clone(); STEP / 2]).await;
            }
        };
        let ((), turns) = beside(judged).await;
        assert_ne!(turns, 0);
        assert_eq!((best.total, best.hits.len()), (2 * STEP, question.limit));
    }
}
