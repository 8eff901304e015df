//! The contract's list around rows that were already chosen: of a list route, of a child list, or
//! embedded in a detail.
//!
//! It chooses nothing; rows are copied as they were encoded.

use serde::Serialize;
use serde_json::Value;

use super::join::{Joins, Status};
use super::metrics::{LIST_PACE, cumulative};
use crate::cache::{Page, Series};
use crate::kinds::{Counts, KindDef};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ListMeta {
    total_items: usize,
}

/// The list as JSON. The usage is of all rows, those of other pages too; `errors` is `None` where the contract's list has no such key.
pub fn body(
    kind: &KindDef,
    status: &Status,
    (joins, usage): (&Joins, Option<Series>),
    page: &Page,
    errors: Option<&[Value]>,
) -> serde_json::Result<Vec<u8>> {
    let rows: usize = page.rows.iter().map(|row| row.json.len() + 64).sum();
    let mut out = Vec::with_capacity(rows + 256);
    out.extend_from_slice(b"{\"listMeta\":");
    serde_json::to_writer(&mut out, &ListMeta { total_items: page.total })?;
    if kind.list.metrics {
        out.extend_from_slice(b",\"cumulativeMetrics\":");
        let metrics = usage.map(|usage| cumulative(&usage.thinned(LIST_PACE)));
        serde_json::to_writer(&mut out, metrics.as_ref().map_or(&[][..], |both| both))?;
    }
    if kind.list.counts != Counts::None {
        out.extend_from_slice(b",\"status\":");
        serde_json::to_writer(&mut out, status)?;
    }
    out.extend_from_slice(b",\"");
    out.extend_from_slice(kind.list.items.as_bytes());
    out.extend_from_slice(b"\":[");
    for (index, row) in page.rows.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        joins.write(kind, row, &mut out)?;
    }
    out.push(b']');
    if let Some(errors) = errors {
        out.extend_from_slice(b",\"errors\":");
        serde_json::to_writer(&mut out, errors)?;
    }
    out.push(b'}');
    Ok(out)
}
