//! What validating and mutating webhook configurations share: each is a list of webhooks.
//!
//! The CA bundle of a webhook is left out: it is long, and tells nothing of what is called when.

use serde_json::{Value, json};

use super::detail::{list, text};
use super::loose::{Own, detail_with, row_with};
use super::*;

pub const COLUMNS: &[Column] = &[Column::number("webhookCount")];

pub fn row(kind: &'static str, json: &str) -> Result<Row, Malformed> {
    row_with(kind, json, |configuration| {
        let webhooks = list(configuration, "/webhooks");
        let names: Vec<&str> = webhooks.iter().map(|webhook| text(webhook, "/name")).collect();
        let fields = json!({ "webhookCount": names.len(), "webhookNames": names });
        let count = i64::try_from(names.len()).unwrap_or(i64::MAX);
        Own { fields, cells: vec![Cell::Number(count)], ..Own::default() }
    })
}

/// `webhooks` as they stand in the object, without their CA bundles.
pub fn detail(kind: &'static str, object: &Value, row: &Row) -> Result<Fields, Malformed> {
    detail_with(kind, object, row, |configuration| {
        let webhooks = list(configuration, "/webhooks").iter().cloned().map(|mut webhook| {
            let client = webhook.get_mut("clientConfig").and_then(Value::as_object_mut);
            if let Some(client) = client {
                client.remove("caBundle");
            }
            webhook
        });
        json!({ "webhooks": webhooks.collect::<Vec<_>>() })
    })
}
