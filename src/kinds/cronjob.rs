//! Cron jobs: when they run, whether they are suspended, and how many of their jobs are at work.
//!
//! The jobs themselves are another kind; they link back by their controller.

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::detail::{copy, text};
use super::loose::detail_with;
use super::meta::{Meta, ObjectMeta, Text, TypeMeta, decode, seconds};
use super::template::Template;
use super::*;

pub const KIND: KindDef = KindDef {
    columns: &[
        Column::text("schedule"),
        Column::text("suspend"),
        Column::number("active"),
        Column::time("lastSchedule"),
    ],
    list: ListShape { items: "items", counts: Counts::CronJobs, metrics: false },
    children: &[("event", Child::Events), ("job", Child::Jobs)],
    actions: &[Action::Trigger],
    ..KindDef::of(
        "cronjob",
        Resource::namespaced("batch", "v1", "CronJob", "cronjobs"),
        row,
        detail,
    )
};

#[derive(Deserialize)]
struct CronJob<'a> {
    #[serde(borrow, default)]
    metadata: Meta<'a>,
    #[serde(borrow, default)]
    spec: Spec<'a>,
    #[serde(borrow, default)]
    status: Status<'a>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec<'a> {
    #[serde(borrow)]
    schedule: Text<'a>,
    suspend: Option<bool>,
    #[serde(borrow)]
    job_template: JobTemplate<'a>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct JobTemplate<'a> {
    #[serde(borrow)]
    spec: JobSpec<'a>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct JobSpec<'a> {
    #[serde(borrow)]
    template: Template<'a>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status<'a> {
    /// References to the jobs at work; only their number is shown.
    active: Option<Vec<IgnoredAny>>,
    #[serde(borrow)]
    last_schedule_time: Option<Text<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Item<'a> {
    object_meta: ObjectMeta<'a>,
    type_meta: TypeMeta,
    schedule: &'a str,
    suspend: Option<bool>,
    active: usize,
    last_schedule: Option<&'a str>,
    container_images: Option<Vec<&'a str>>,
}

fn row(json: &str) -> Result<Row, Malformed> {
    let object: CronJob = decode(KIND.name, json)?;
    let CronJob { spec, status, .. } = &object;
    let active = status.active.as_ref().map_or(0, Vec::len);
    let last_schedule = status.last_schedule_time.as_deref();
    let item = Item {
        object_meta: object.metadata.object_meta(),
        type_meta: TypeMeta::plain(KIND.name),
        schedule: &spec.schedule,
        suspend: spec.suspend,
        active,
        last_schedule,
        container_images: spec.job_template.spec.template.images(),
    };
    let suspended = if spec.suspend == Some(true) { "true" } else { "false" };
    let cells = vec![
        Cell::Text((&*spec.schedule).into()),
        Cell::Text(suspended.into()),
        Cell::Number(i64::try_from(active).unwrap_or(i64::MAX)),
        Cell::Time(last_schedule.and_then(seconds)),
    ];
    // As the contract has it; the API server always fills `suspend` in.
    let facts = Facts::CronJob { running: spec.suspend == Some(false) };
    object.metadata.row(KIND.name, &item, cells, vec![], facts)
}

fn detail(object: &Value, row: &Row, _: &References) -> Result<Fields, Malformed> {
    detail_with(KIND.name, object, row, |cron_job| {
        json!({
            "concurrencyPolicy": text(cron_job, "/spec/concurrencyPolicy"),
            "startingDeadlineSeconds": copy(cron_job, "/spec/startingDeadlineSeconds"),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NIGHTLY: &str = r#"{
        "metadata": {"name": "nightly", "namespace": "atlas", "uid": "c1",
            "creationTimestamp": "2026-01-01T03:04:05Z"},
        "spec": {"schedule": "*/1 * * * *", "suspend": false, "concurrencyPolicy": "Allow",
            "jobTemplate": {"metadata": {}, "spec": {"template": {"spec": {
                "initContainers": [{"name": "init", "image": "init:1"}],
                "containers": [{"name": "main", "image": "nightly:1"}]}}}}},
        "status": {"lastScheduleTime": "2026-01-02T03:04:05Z",
            "active": [{"kind": "Job", "name": "nightly-1", "uid": "j1"}, {"kind": "Job", "name": "nightly-2"}]}}"#;

    #[test]
    fn a_cron_job_shows_its_schedule_and_how_many_jobs_are_at_work() {
        let row = row(NIGHTLY).unwrap();
        assert_eq!(row.facts, Facts::CronJob { running: true });
        assert_eq!(
            *row.cells,
            [
                Cell::Text("*/1 * * * *".into()),
                Cell::Text("false".into()),
                Cell::Number(2),
                Cell::Time(Some(1_767_323_045)),
            ]
        );
        assert_eq!(
            std::str::from_utf8(&row.json).unwrap(),
            concat!(
                r#"{"objectMeta":{"name":"nightly","namespace":"atlas","creationTimestamp":"2026-01-01T03:04:05Z","#,
                r#""uid":"c1"},"typeMeta":{"kind":"cronjob"},"schedule":"*/1 * * * *","suspend":false,"active":2,"#,
                r#""lastSchedule":"2026-01-02T03:04:05Z","containerImages":["nightly:1"]}"#,
            )
        );
    }

    #[test]
    fn only_a_cron_job_that_says_it_is_not_suspended_counts_as_running() {
        for (suspend, running, cell) in [
            (json!(true), false, "true"),
            (json!(false), true, "false"),
            (Value::Null, false, "false"),
        ] {
            let object = json!({"metadata": {"name": "c"}, "spec": {"suspend": suspend}});
            let row = row(&object.to_string()).unwrap();
            assert_eq!(row.facts, Facts::CronJob { running });
            assert_eq!(row.cells[1], Cell::Text(cell.into()));
            let item: Value = serde_json::from_slice(&row.json).unwrap();
            assert_eq!(item["suspend"], suspend);
            assert_eq!((&item["lastSchedule"], &item["active"]), (&Value::Null, &json!(0)));
            assert_eq!(item["containerImages"], Value::Null);
        }
    }

    #[test]
    fn a_detail_adds_the_policy_and_the_deadline() {
        let fields = detail_of(&KIND, NIGHTLY).unwrap();
        assert_eq!(fields["concurrencyPolicy"], "Allow");
        assert_eq!(fields["startingDeadlineSeconds"], Value::Null);
        assert_eq!(fields.len(), 9);
    }
}
