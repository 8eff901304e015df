//! Resource quotas: what is used of each hard limit, as the contract shows it in a namespace's
//! detail, too.

use serde_json::{Value, json};

use super::detail::{copy, list};
use super::loose::{detail_with, row_with};
use super::*;

pub const KIND: KindDef = KindDef {
    source: Source::Live,
    children: &[("event", Child::Events)],
    ..KindDef::of(
        "resourcequota",
        Resource::namespaced("", "v1", "ResourceQuota", "resourcequotas"),
        row,
        detail,
    )
};

fn row(json: &str) -> Result<Row, Malformed> {
    row_with(KIND.name, json, |quota| {
        let mut own = Fields::new();
        if !list(quota, "/spec/scopes").is_empty() {
            own.insert("scopes".into(), copy(quota, "/spec/scopes"));
        }
        let hard = quota.pointer("/status/hard").and_then(Value::as_object);
        let used = quota.pointer("/status/used");
        let status = hard.into_iter().flatten().map(|(resource, hard)| {
            let used = used.and_then(|used| used.get(resource)).cloned();
            let used = used.unwrap_or_else(|| "0".into());
            (resource.clone(), json!({ "used": used, "hard": hard }))
        });
        let status: Fields = status.collect();
        if !status.is_empty() {
            own.insert("statusList".into(), status.into());
        }
        Value::Object(own).into()
    })
}

/// `hard` is what is asked for; `statusList` what the quota controller has made of it.
fn detail(object: &Value, row: &Row, _: &References) -> Result<Fields, Malformed> {
    detail_with(KIND.name, object, row, |quota| {
        json!({
            "hard": copy(quota, "/spec/hard"),
            "scopeSelector": copy(quota, "/spec/scopeSelector"),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUOTA: &str = r#"{"metadata": {"name": "q"},
        "spec": {"scopes": ["BestEffort"], "hard": {"pods": "60"}},
        "status": {"hard": {"pods": "50", "services": "5"}, "used": {"pods": "15"}}}"#;

    #[test]
    fn a_quota_lists_what_is_used_of_each_hard_limit() {
        let item: Value = serde_json::from_slice(&row(QUOTA).unwrap().json).unwrap();
        assert_eq!(item["scopes"], json!(["BestEffort"]));
        assert_eq!(
            item["statusList"],
            json!({"pods": {"used": "15", "hard": "50"}, "services": {"used": "0", "hard": "5"}})
        );
    }

    #[test]
    fn a_detail_shows_what_is_asked_for_and_a_bare_quota_has_neither_scopes_nor_status() {
        let fields = detail_of(&KIND, QUOTA).unwrap();
        assert_eq!(fields["hard"], json!({"pods": "60"}));
        let bare = detail_of(&KIND, r#"{"metadata": {"name": "q"}}"#).unwrap();
        assert_eq!(bare.len(), 4);
        assert_eq!(bare["hard"], Value::Null);
    }
}
