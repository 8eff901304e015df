//! Leases: who holds one, and when it was last renewed.
//!
//! Whether a lease has run out is for its readers to say: it depends on their clock.

use serde_json::json;

use super::detail::{copy, text};
use super::loose::{Own, detail_with, row_with};
use super::meta::seconds;
use super::*;

pub const KIND: KindDef = KindDef {
    source: Source::Live,
    columns: &[Column::text("holder"), Column::time("renewTime")],
    children: &[("event", Child::Events)],
    ..KindDef::of(
        "lease",
        Resource::namespaced("coordination.k8s.io", "v1", "Lease", "leases"),
        row,
        detail,
    )
};

fn row(json: &str) -> Result<Row, Malformed> {
    row_with(KIND.name, json, |lease| {
        let holder = text(lease, "/spec/holderIdentity");
        let fields = json!({
            "holder": holder,
            "renewTime": copy(lease, "/spec/renewTime"),
            "durationSeconds": copy(lease, "/spec/leaseDurationSeconds"),
        });
        let renewed = seconds(text(lease, "/spec/renewTime"));
        let cells = vec![Cell::Text(holder.into()), Cell::Time(renewed)];
        Own { fields, cells, ..Own::default() }
    })
}

fn detail(object: &Value, row: &Row, _: &References) -> Result<Fields, Malformed> {
    detail_with(KIND.name, object, row, |lease| {
        json!({
            "acquireTime": copy(lease, "/spec/acquireTime"),
            "transitions": copy(lease, "/spec/leaseTransitions"),
            "strategy": copy(lease, "/spec/strategy"),
            "preferredHolder": copy(lease, "/spec/preferredHolder"),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_shows_its_holder_and_sorts_by_its_renewal() {
        let json = r#"{"metadata": {"name": "l", "namespace": "n"}, "spec": {"holderIdentity": "a",
            "leaseDurationSeconds": 15, "renewTime": "2026-01-02T03:04:05.678901Z",
            "leaseTransitions": 2}}"#;
        let row = row(json).unwrap();
        assert_eq!(*row.cells, [Cell::Text("a".into()), Cell::Time(Some(1_767_323_045))]);
        assert_eq!(
            Value::Object(detail_of(&KIND, json).unwrap()),
            json!({
                "objectMeta": {"name": "l", "namespace": "n", "creationTimestamp": null},
                "typeMeta": {"kind": "lease"},
                "holder": "a", "renewTime": "2026-01-02T03:04:05.678901Z", "durationSeconds": 15,
                "acquireTime": null, "transitions": 2, "strategy": null, "preferredHolder": null,
            })
        );
    }

    #[test]
    fn a_lease_that_nobody_holds_has_no_renewal() {
        let row = row(r#"{"metadata": {"name": "l"}}"#).unwrap();
        assert_eq!(*row.cells, [Cell::Text("".into()), Cell::Time(None)]);
    }
}
