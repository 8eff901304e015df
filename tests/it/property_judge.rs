//! Compares an answer of a gateway with what the API server gives to the same person: rows, totals,
//! order, counts, joins, words of refusal, and what is embedded in details.
//!
//! Everything is counted anew from the permitted objects, one by one; no count of ours is believed.

use std::collections::{BTreeMap, BTreeSet};

use binnacle::kinds::{Join, Phase, Row};
use serde_json::{Value, json};

use crate::gateway::Answer;
use crate::property_around::{Around, Pair, is_in, place_of};
use crate::property_ask::{Ask, List, Search};
use crate::property_truth::Truth;
use crate::property_world::Served;

/// Rows that a search answers at most: as asked for.
const FOUND: usize = 500;

/// How an answer is not what it must be.
pub struct Difference {
    /// It holds what the person may not see.
    pub leak: bool,
    pub text: String,
}

type Verdict = Result<(), Difference>;

fn other(text: String) -> Difference {
    Difference { leak: false, text }
}

fn leak(text: String) -> Difference {
    Difference { leak: true, text }
}

/// Both must be the same.
fn same<T: PartialEq + std::fmt::Debug>(what: &str, given: &T, wanted: &T) -> Verdict {
    if given == wanted {
        return Ok(());
    }
    Err(other(format!("{what}:\n  given:  {given:?}\n  wanted: {wanted:?}")))
}

/// `fresh`: the API server is asked anew.
pub async fn judge(
    truth: &Truth<'_>,
    who: usize,
    ask: &Ask,
    answer: &Answer,
    fresh: bool,
) -> Verdict {
    if let Ask::Detail { served, namespace, name } = ask {
        let object = (served, namespace.as_str(), name.as_str());
        return detail(truth, who, object, answer, fresh).await;
    }
    if answer.status != 200 {
        return Err(other(format!("status {}: {}", answer.status, answer.text())));
    }
    // The content of a secret is in no list, whoever asks.
    if let Some(found) = hushed(truth, &answer.text()) {
        return Err(leak(format!("the content of a secret: {found}")));
    }
    let body = answer.json();
    match ask {
        Ask::List(asked) => list(truth, who, asked, &body, fresh).await,
        Ask::Search(asked) => search(truth, who, asked, &body, fresh).await,
        Ask::Overview(namespace) => overview(truth, who, namespace, &body, fresh).await,
        Ask::Detail { .. } => Ok(()),
    }
}

/// The content of one of the world's secrets, plain or as base64.
fn hushed(truth: &Truth<'_>, text: &str) -> Option<String> {
    use base64::Engine as _;
    let plain = format!("hush-{}", truth.world.prefix);
    // Whole groups of three bytes: what follows them does not change their letters.
    let whole = plain.len() / 3 * 3;
    let encoded = base64::engine::general_purpose::STANDARD.encode(&plain[..whole]);
    [plain, encoded].into_iter().find(|hidden| text.contains(hidden.as_str()))
}

fn place(row: &Value) -> Pair {
    let text = |key: &str| row["objectMeta"][key].as_str().unwrap_or("").to_owned();
    (text("namespace"), text("name"))
}

/// What `errors` refuses, as the API server calls it. Usage has its own source and test.
fn refused(body: &Value) -> Result<BTreeSet<String>, Difference> {
    let mut found = BTreeSet::new();
    for error in body["errors"].as_array().into_iter().flatten() {
        // The usage source being away costs no row; whatever else fails does.
        if error["ErrStatus"]["code"].as_u64().is_some_and(|code| code >= 500) {
            continue;
        }
        let words = error["ErrStatus"]["message"].as_str().unwrap_or_default();
        let Some((kind, _)) = words.split_once(" is forbidden") else {
            return Err(other(format!("an error that is no refusal: {error}")));
        };
        if !kind.ends_with(".metrics.k8s.io") {
            found.insert(kind.to_owned());
        }
    }
    Ok(found)
}

async fn list(truth: &Truth<'_>, who: usize, asked: &List, body: &Value, fresh: bool) -> Verdict {
    let (world, served) = (truth.world, &asked.served);
    let wanted = asked.wanted.as_deref();
    let permit = truth.permit(who, served, wanted, fresh).await;
    let Some(items) = body[served.kind.list.items].as_array() else {
        return Err(other(format!("no {}", served.kind.list.items)));
    };
    let given: Vec<Pair> = items.iter().map(place).collect();
    if served.kind.name == "namespace" && permit.is_denied() {
        return names_only(truth, who, &given).await;
    }
    // Rows without a namespace stand under the empty one.
    let foreign = given.iter().find(|(namespace, _)| !permit.covers(namespace));
    if let Some((namespace, name)) = foreign {
        return Err(leak(format!("a row that is not permitted: {namespace}/{name}")));
    }
    let mut rows: Vec<&Row> = permit
        .rows()
        .filter(|row| world.holds(served, &row.namespace, &row.name) && asked.wants(world, row))
        .collect();
    asked.order(&mut rows);
    let steady = asked.narrowed || wanted.is_some() || (served.at.namespaced && !permit.everywhere);
    let shown: Vec<Pair> = asked.page(&rows).iter().map(|row| place_of(row)).collect();
    let total = body["listMeta"]["totalItems"].as_u64();
    if steady {
        same("totalItems", &total, &Some(rows.len() as u64))?;
        same("rows", &given, &shown)?;
    } else {
        // Of the rest of the cluster it is known only that all of it is permitted.
        same("totalItems", &total, &Some(given.len() as u64))?;
        let own = given.iter().filter(|(namespace, name)| world.holds(served, namespace, name));
        same("rows of this world", &own.cloned().collect::<Vec<_>>(), &shown)?;
    }
    let around = Around::of(truth, who, (served, &permit), wanted, fresh).await;
    let mut refusals = around.refused.clone();
    let is_short = wanted.is_some_and(|named| named.iter().any(|name| !permit.covers(name)));
    if permit.is_denied() || is_short {
        refusals.insert(served.called());
    }
    same("refusals in errors", &refused(body)?, &refusals)?;
    let all: Vec<&Row> = permit.rows().collect();
    if (wanted.is_some() || !permit.everywhere)
        && served.at.namespaced
        && let Some(status) = around.status(served, &all)
    {
        same("status", &body["status"], &status)?;
    }
    let by_place: BTreeMap<Pair, &Row> = rows.iter().map(|row| (place_of(row), *row)).collect();
    for item in items {
        joined(served, &around, item, by_place.get(&place(item)).copied())?;
    }
    Ok(())
}

/// What the joins added to one row; `row` is what it is made of, if it is one of this world.
fn joined(served: &Served, around: &Around, item: &Value, row: Option<&Row>) -> Verdict {
    let said = |warnings: &Value| -> Vec<Pair> {
        let text = |warning: &Value, key: &str| warning[key].as_str().unwrap_or("").to_owned();
        let all = warnings.as_array().into_iter().flatten();
        all.map(|warning| (text(warning, "reason"), text(warning, "message"))).collect()
    };
    let (namespace, name) = place(item);
    let what = |key: &str| format!("{key} of {namespace}/{name}");
    for join in served.kind.joins {
        match (join, row) {
            (Join::Warnings, Some(row)) => {
                same(&what("warnings"), &said(&item["warnings"]), &around.warnings(&[row]))?;
            }
            (Join::PodInfo { key, pods }, Some(row)) => {
                let pods = around.pods_of(row, *pods);
                let info = &item[*key];
                let count = |phase| pods.iter().filter(|pod| is_in(pod, phase)).count();
                let wanted = [Phase::Running, Phase::Pending, Phase::Failed, Phase::Succeeded];
                let wanted = json!(wanted.map(count));
                let given = ["running", "pending", "failed", "succeeded"].map(|key| &info[key]);
                same(&what(key), &json!(given), &wanted)?;
                same(&what("warnings"), &said(&info["warnings"]), &around.warnings(&pods))?;
            }
            (Join::Allocation, _) if !around.pods.everywhere => {
                let shown = &item["allocatedResources"];
                let keys = ["allocatedPods", "cpuRequests", "memoryRequests"];
                let given = keys.map(|key| &shown[key]);
                same(&what("allocatedResources"), &json!(given), &json!([0, 0, 0]))?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// Who may not list namespaces may be shown those in which rights allow anything at all.
async fn names_only(truth: &Truth<'_>, who: usize, given: &[Pair]) -> Verdict {
    let token = &truth.world.people[who].token;
    for (_, name) in given {
        let question = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview",
            "spec": {"namespace": name},
        });
        let path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
        let body = question.to_string();
        let answer = truth.api.send(http::Method::POST, token, path, &[], body).await;
        if answer.status != 201 {
            return Err(other(format!("no review: {}: {}", answer.status, answer.text())));
        }
        let review = answer.json();
        let mut rules = review["status"]["resourceRules"].as_array().into_iter().flatten();
        // Everybody may create reviews about themselves.
        if !rules.any(|rule| rule["verbs"] != json!(["create"])) {
            return Err(leak(format!("namespace {name}, in which nothing is allowed")));
        }
    }
    Ok(())
}

async fn detail(
    truth: &Truth<'_>,
    who: usize,
    (served, namespace, name): (&Served, &str, &str),
    answer: &Answer,
    fresh: bool,
) -> Verdict {
    let within = served.at.namespaced.then_some(namespace);
    let path = format!("{}/{name}", served.at.collection(within));
    let direct = truth.get(who, &path, "application/json").await;
    if direct.status != answer.status {
        let (given, wanted) = (answer.status, direct.status);
        let text = format!("status {given}, the API server says {wanted}: {}", answer.text());
        // What has just gone may still be told to who may read it.
        return Err(Difference { leak: given == 200 && wanted == 403, text });
    }
    if answer.status != 200 {
        return Ok(());
    }
    if let Some(found) = hushed(truth, &answer.text()) {
        let secret = format!("/api/v1/namespaces/{namespace}/secrets/atlas-0");
        let other = format!("/api/v1/namespaces/{namespace}/secrets/birch-0");
        let mut allowed = truth.get(who, &secret, "application/json").await.status == 200;
        allowed |= truth.get(who, &other, "application/json").await.status == 200;
        if !allowed {
            return Err(leak(format!("the content of a secret: {found}")));
        }
    }
    let body = answer.json();
    let mut found = BTreeSet::new();
    embedded(&body, &mut found);
    found.remove(&(served.kind.name.to_owned(), namespace.to_owned(), name.to_owned()));
    for (kind, namespace, name) in found {
        let Some(embedded) = truth.world.kind(&kind) else { continue };
        if embedded.at.namespaced && namespace.is_empty() {
            continue;
        }
        if truth.rows(who, &embedded, &namespace, fresh).await.is_some() {
            continue;
        }
        // What controls a pod is read by its name; only who may read it is told that it has gone.
        let within = embedded.at.namespaced.then_some(namespace.as_str());
        let path = format!("{}/{name}", embedded.at.collection(within));
        if truth.get(who, &path, "application/json").await.status == 403 {
            return Err(leak(format!("embedded {kind} {namespace}/{name}, which is refused")));
        }
    }
    if let (true, Some(events)) = (warns(&body), truth.world.kind("event"))
        && !namespace.is_empty()
        && truth.rows(who, &events, namespace, fresh).await.is_none()
    {
        return Err(leak("warnings for somebody who may not list events".to_owned()));
    }
    Ok(())
}

/// Kind, namespace and name of everything in a body that has them.
fn embedded(value: &Value, found: &mut BTreeSet<(String, String, String)>) {
    match value {
        Value::Array(all) => all.iter().for_each(|one| embedded(one, found)),
        Value::Object(fields) => {
            if let Some(kind) = value["typeMeta"]["kind"].as_str() {
                let (namespace, name) = place(value);
                if !name.is_empty() {
                    found.insert((kind.to_owned(), namespace, name));
                }
            }
            fields.values().for_each(|one| embedded(one, found));
        }
        _ => {}
    }
}

/// Whether there is any warning in a body.
fn warns(value: &Value) -> bool {
    match value {
        Value::Array(all) => all.iter().any(warns),
        Value::Object(fields) => {
            let own = fields.get("warnings").and_then(Value::as_array);
            own.is_some_and(|own| !own.is_empty()) || fields.values().any(warns)
        }
        _ => false,
    }
}

async fn search(
    truth: &Truth<'_>,
    who: usize,
    asked: &Search,
    body: &Value,
    fresh: bool,
) -> Verdict {
    let mut given: BTreeMap<String, BTreeSet<Pair>> = BTreeMap::new();
    for item in body["items"].as_array().into_iter().flatten() {
        let kind = item["kind"].as_str().unwrap_or_default().to_owned();
        given.entry(kind).or_default().insert(place(item));
    }
    let count: usize = given.values().map(BTreeSet::len).sum();
    let total = body["listMeta"]["totalItems"].as_u64().unwrap_or_default();
    if count < FOUND {
        same("totalItems", &total, &(count as u64))?;
    }
    let mut refusals = BTreeSet::new();
    for served in &asked.kinds {
        let permit = truth.permit(who, served, asked.wanted.as_deref(), fresh).await;
        let found = given.remove(served.kind.name).unwrap_or_default();
        if served.kind.name == "namespace" && permit.is_denied() {
            let found: Vec<Pair> = found.into_iter().collect();
            names_only(truth, who, &found).await?;
        } else if let Some((namespace, name)) =
            found.iter().find(|(namespace, _)| !permit.covers(namespace))
        {
            let kind = served.kind.name;
            return Err(leak(format!("found {kind} {namespace}/{name}, which is refused")));
        } else if count < FOUND {
            let named = permit.rows().filter(|row| {
                truth.world.holds(served, &row.namespace, &row.name)
                    && row.name.to_lowercase().contains(&asked.text)
            });
            let missing: Vec<Pair> =
                named.map(place_of).filter(|place| !found.contains(place)).collect();
            same(&format!("{} that are not found", served.kind.name), &missing, &Vec::new())?;
        }
        if permit.is_denied() {
            refusals.insert(served.called());
        }
    }
    if let Some(kind) = given.keys().next() {
        return Err(other(format!("rows of {kind}, which was not asked for")));
    }
    let (mut said, called) = (refused(body)?, "namespaces");
    // May be shown as names only, without a refusal.
    said.remove(called);
    refusals.remove(called);
    same("refusals in errors", &said, &refusals)
}

async fn overview(
    truth: &Truth<'_>,
    who: usize,
    namespace: &str,
    body: &Value,
    fresh: bool,
) -> Verdict {
    let wanted = [namespace.to_owned()];
    let mut refusals = BTreeSet::new();
    let kept = truth.world.kinds.iter().filter(|served| served.kind.is_kept());
    for served in kept.filter(|served| served.kind.name != "namespace") {
        let permit = truth.permit(who, served, Some(&wanted), fresh).await;
        let given = body["objects"].get(served.kind.name).and_then(Value::as_u64);
        let name = served.kind.name;
        if permit.is_denied() {
            refusals.insert(served.called());
            if given.is_some() {
                return Err(leak(format!("a number of {name}: {given:?}")));
            }
        } else if served.at.namespaced {
            let rows: Vec<&Row> = permit.rows().collect();
            same(&format!("objects.{name}"), &given, &Some(rows.len() as u64))?;
            let around = Around::of(truth, who, (served, &permit), Some(&wanted), fresh).await;
            if let Some(status) = around.status(served, &rows) {
                same(&format!("workloads.{name}"), &body["workloads"][name], &status)?;
            }
            if name == "event" {
                let warnings = rows.iter().filter(|event| event.warning().is_some()).count();
                let groups = body["warnings"].as_array().into_iter().flatten();
                let given: u64 = groups.filter_map(|group| group["count"].as_u64()).sum();
                same("warnings", &given, &(warnings as u64))?;
            }
        }
        if name == "event" && permit.is_denied() && body["warnings"] != json!([]) {
            return Err(leak(format!("warnings: {}", body["warnings"])));
        }
        if name == "pod" && permit.is_denied() && !body["capacity"].is_null() {
            return Err(leak(format!("sums of pods: {}", body["capacity"])));
        }
    }
    let mut said = refused(body)?;
    said.remove("namespaces");
    same("refusals in errors", &said, &refusals)
}
