//! Jobs: images, counts and how they ended, and the link to the cron job that made them.
//!
//! Their pods are those they control, found as every other workload's are.

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::detail::copy;
use super::loose::detail_with;
use super::meta::{Meta, ObjectMeta, Text, TypeMeta, decode};
use super::template::Template;
use super::*;

pub const KIND: KindDef = KindDef {
    columns: &[Column::text("status"), Column::number("completions")],
    list: ListShape { items: "jobs", counts: Counts::Jobs, metrics: true },
    joins: &[Join::PodInfo { key: "podInfo", pods: PodsOf::Owner }],
    children: &[("event", Child::Events), ("pod", Child::Pods)],
    ..KindDef::of("job", Resource::namespaced("batch", "v1", "Job", "jobs"), row, detail)
};

#[derive(Deserialize)]
struct Job<'a> {
    #[serde(borrow, default)]
    metadata: Meta<'a>,
    #[serde(borrow, default)]
    spec: Spec<'a>,
    #[serde(borrow, default)]
    status: Status<'a>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Spec<'a> {
    parallelism: Option<i64>,
    completions: Option<i64>,
    #[serde(borrow)]
    template: Template<'a>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status<'a> {
    active: i64,
    #[serde(borrow)]
    conditions: Option<Vec<Condition<'a>>>,
}

/// Read from the object and written as the contract's `Condition`.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Condition<'a> {
    #[serde(borrow, default, rename = "type")]
    kind: Text<'a>,
    #[serde(borrow, default)]
    status: Text<'a>,
    #[serde(borrow, default)]
    last_probe_time: Option<Text<'a>>,
    #[serde(borrow, default)]
    last_transition_time: Option<Text<'a>>,
    #[serde(borrow, default)]
    reason: Text<'a>,
    #[serde(borrow, default)]
    message: Text<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Item<'a> {
    object_meta: ObjectMeta<'a>,
    type_meta: TypeMeta,
    container_images: Option<Vec<&'a str>>,
    init_container_images: Option<Vec<&'a str>>,
    parallelism: Option<i64>,
    job_status: JobStatus<'a>,
}

/// `message` is that of a failure alone; `conditions` are null when there are none.
#[derive(Serialize)]
struct JobStatus<'a> {
    status: &'static str,
    message: &'a str,
    conditions: Option<&'a [Condition<'a>]>,
}

impl Job<'_> {
    /// What the first condition that ends the job says, and its message.
    fn end(&self) -> Option<(Outcome, &str)> {
        let conditions = self.status.conditions.iter().flatten();
        let mut met = conditions.filter(|condition| &*condition.status == "True");
        met.find_map(|condition| match &*condition.kind {
            "Complete" => Some((Outcome::Complete, &*condition.message)),
            "Failed" => Some((Outcome::Failed, &*condition.message)),
            _ => None,
        })
    }
}

fn row(json: &str) -> Result<Row, Malformed> {
    let object: Job = decode(KIND.name, json)?;
    let end = object.end();
    let (status, message) = match end {
        None => ("Running", ""),
        Some((Outcome::Complete, _)) => ("Complete", ""),
        Some((Outcome::Failed, message)) => ("Failed", message),
    };
    let conditions = object.status.conditions.as_deref().filter(|list| !list.is_empty());
    let item = Item {
        object_meta: object.metadata.object_meta(),
        type_meta: TypeMeta::plain(KIND.name),
        container_images: object.spec.template.images(),
        init_container_images: object.spec.template.init_images(),
        parallelism: object.spec.parallelism,
        job_status: JobStatus { status, message, conditions },
    };
    let workload =
        WorkloadFacts { current: object.status.active, desired: object.spec.completions };
    let facts = Facts::from(JobFacts { workload, outcome: end.map(|(outcome, _)| outcome) });
    // A work queue wants no number of completions; it sorts before all that do.
    let completions = object.spec.completions.unwrap_or(0);
    let cells = vec![Cell::Text(status.into()), Cell::Number(completions)];
    // A cron job's are those that name it as an owner: a hand-made one need not be controlled.
    let links = object.metadata.owner_links();
    object.metadata.row(KIND.name, &item, cells, links, facts)
}

fn detail(object: &Value, row: &Row, _: &References) -> Result<Fields, Malformed> {
    detail_with(
        KIND.name,
        object,
        row,
        |job| json!({"completions": copy(job, "/spec/completions")}),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_status(status: &Value) -> Row {
        row(&json!({"metadata": {"name": "j"}, "status": status}).to_string()).unwrap()
    }

    fn shown(row: &Row) -> Value {
        serde_json::from_slice::<Value>(&row.json).unwrap()["jobStatus"].clone()
    }

    const NIGHTLY: &str = r#"{
        "metadata": {"name": "nightly-1", "namespace": "atlas", "uid": "j1",
            "creationTimestamp": "2026-01-02T03:04:05Z",
            "ownerReferences": [{"apiVersion": "batch/v1", "kind": "CronJob", "name": "nightly",
                "uid": "c1", "controller": true}]},
        "spec": {"parallelism": 1, "completions": 2,
            "template": {"spec": {"containers": [{"name": "main", "image": "nightly:1"}]}}},
        "status": {"succeeded": 2, "conditions": [
            {"type": "SuccessCriteriaMet", "status": "True", "message": "all"},
            {"type": "Complete", "status": "True", "lastProbeTime": "2026-01-02T03:05:05Z",
                "lastTransitionTime": "2026-01-02T03:05:05Z", "reason": "R", "message": "M"}]}}"#;

    #[test]
    fn a_complete_job_shows_its_conditions_and_links_to_its_cron_job() {
        let row = row(NIGHTLY).unwrap();
        assert_eq!(*row.links, [Link::Owner("c1".into())]);
        assert_eq!(*row.cells, [Cell::Text("Complete".into()), Cell::Number(2)]);
        let workload = WorkloadFacts { current: 0, desired: Some(2) };
        let outcome = Some(Outcome::Complete);
        assert_eq!(row.facts, Facts::from(JobFacts { workload, outcome }));
        assert_eq!(
            std::str::from_utf8(&row.json).unwrap(),
            concat!(
                r#"{"objectMeta":{"name":"nightly-1","namespace":"atlas","creationTimestamp":"2026-01-02T03:04:05Z","#,
                r#""uid":"j1","ownerReferences":[{"kind":"CronJob","name":"nightly"}]},"typeMeta":{"kind":"job"},"#,
                r#""containerImages":["nightly:1"],"initContainerImages":null,"parallelism":1,"#,
                r#""jobStatus":{"status":"Complete","message":"","conditions":[{"type":"SuccessCriteriaMet","#,
                r#""status":"True","lastProbeTime":null,"lastTransitionTime":null,"reason":"","message":"all"},"#,
                r#"{"type":"Complete","status":"True","lastProbeTime":"2026-01-02T03:05:05Z","#,
                r#""lastTransitionTime":"2026-01-02T03:05:05Z","reason":"R","message":"M"}]}}"#,
            )
        );
    }

    #[test]
    fn a_job_links_to_each_of_its_owners_once_and_to_its_controller_first() {
        let owned = |owners: Value| {
            let job = json!({"metadata": {"name": "j", "ownerReferences": owners}});
            row(&job.to_string()).unwrap().links
        };
        let by_hand = json!([{"kind": "CronJob", "name": "nightly", "uid": "c1"}]);
        assert_eq!(*owned(by_hand), [Link::Owner("c1".into())]);
        let several = json!([
            {"kind": "CronJob", "name": "nightly", "uid": "c1", "controller": false},
            {"kind": "Batch", "name": "b", "uid": "b1", "controller": true},
            {"kind": "CronJob", "name": "nightly", "uid": "c1"},
        ]);
        assert_eq!(*owned(several), [Link::Owner("b1".into()), Link::Owner("c1".into())]);
        assert!(owned(json!(null)).is_empty());
    }

    #[test]
    fn a_failed_job_says_why() {
        let row = with_status(&json!({"failed": 1, "conditions": [
            {"type": "Complete", "status": "False", "message": "no"},
            {"type": "Failed", "status": "True", "message": "Job has reached the specified backoff limit"},
        ]}));
        assert_eq!(row.cells[0], Cell::Text("Failed".into()));
        assert!(matches!(&row.facts, Facts::Job(job) if job.outcome == Some(Outcome::Failed)));
        assert_eq!(shown(&row)["status"], "Failed");
        assert_eq!(shown(&row)["message"], "Job has reached the specified backoff limit");
    }

    #[test]
    fn a_job_without_an_end_is_running_with_nulls_where_nothing_is_said() {
        for status in [json!({"active": 3}), json!({"active": 3, "conditions": []})] {
            let row = with_status(&status);
            assert_eq!(*row.cells, [Cell::Text("Running".into()), Cell::Number(0)]);
            let workload = WorkloadFacts { current: 3, desired: None };
            assert_eq!(row.facts, Facts::from(JobFacts { workload, outcome: None }));
            let expected = json!({"status": "Running", "message": "", "conditions": null});
            assert_eq!(shown(&row), expected);
        }
        let suspended = json!({"conditions": [{"type": "Suspended", "status": "True"}]});
        assert_eq!(shown(&with_status(&suspended))["status"], "Running");
    }

    #[test]
    fn a_detail_adds_the_completions() {
        let fields = detail_of(&KIND, NIGHTLY).unwrap();
        assert_eq!(fields["completions"], 2);
        assert_eq!(fields["parallelism"], 1);
        assert_eq!(fields.len(), 7);
        let bare = detail_of(&KIND, r#"{"metadata": {"name": "a"}}"#).unwrap();
        assert_eq!(bare["completions"], Value::Null);
        assert_eq!(bare["parallelism"], Value::Null);
    }
}
