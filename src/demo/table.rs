//! The forms a client may ask an object in: whole, metadata only, or rows of the server's Table.
//!
//! Columns are the few a person needs, not all that kubectl shows of a real server.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::kinds::{DEPLOYMENT, Kind, NAMESPACE, NODE, POD, SECRET, TREE};
use super::reply::Fail;
use super::store::Stored;

/// What a Table row carries beside its cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Include {
    Nothing,
    Metadata,
    Object,
}

/// The form of an answer, from the Accept header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Plain,
    Metadata,
    Table(Include),
}

impl Form {
    /// The first media range that the demo can give; 406 when there is none.
    pub(super) fn accepted(accept: &str, include: &str) -> Result<Form, Fail> {
        if accept.trim().is_empty() {
            return Ok(Form::Plain);
        }
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default();
            if !matches!(media, "application/json" | "application/*" | "*/*") {
                continue;
            }
            match parts.find_map(|part| part.strip_prefix("as=")) {
                None => return Ok(Form::Plain),
                Some("PartialObjectMetadata" | "PartialObjectMetadataList") => {
                    return Ok(Form::Metadata);
                }
                Some("Table") => {
                    return Ok(Form::Table(match include {
                        "None" => Include::Nothing,
                        "Object" => Include::Object,
                        _ => Include::Metadata,
                    }));
                }
                Some(_) => {}
            }
        }
        let message = "only the following media types are accepted: application/json";
        Err(Fail::new(406, "NotAcceptable", message))
    }

    /// The opening of a list, up to and with the bracket before its items.
    pub(super) fn list_head(&self, kind: &Kind, metadata: &Value) -> String {
        match self {
            Form::Plain => format!(
                "{{\"kind\":\"{}List\",\"apiVersion\":\"{}\",\"metadata\":{metadata},\"items\":[",
                kind.kind,
                kind.api_version()
            ),
            Form::Metadata => format!(
                "{{\"kind\":\"PartialObjectMetadataList\",\"apiVersion\":\"meta.k8s.io/v1\",\
                 \"metadata\":{metadata},\"items\":["
            ),
            Form::Table(_) => format!(
                "{{\"kind\":\"Table\",\"apiVersion\":\"meta.k8s.io/v1\",\"metadata\":{metadata},\
                 \"columnDefinitions\":{},\"rows\":[",
                definitions(kind)
            ),
        }
    }

    /// One item of a list.
    pub(super) fn item(&self, kind: &Kind, object: &Stored) -> Vec<u8> {
        match self {
            Form::Plain => object.json.to_vec(),
            Form::Metadata => metadata_only(object),
            Form::Table(include) => row(kind, object, *include).to_string().into_bytes(),
        }
    }

    /// One object for itself; a Table has its columns when they are asked for.
    pub(super) fn single(&self, kind: &Kind, object: &Stored, columns: bool) -> Vec<u8> {
        match self {
            Form::Plain => object.full(kind),
            Form::Metadata => metadata_only(object),
            Form::Table(include) => {
                let mut table = json!({
                    "kind": "Table",
                    "apiVersion": "meta.k8s.io/v1",
                    "metadata": { "resourceVersion": object.version.to_string() },
                    "rows": [row(kind, object, *include)],
                });
                if columns {
                    table["columnDefinitions"] = definitions(kind);
                }
                table.to_string().into_bytes()
            }
        }
    }
}

fn metadata_only(object: &Stored) -> Vec<u8> {
    #[derive(Deserialize)]
    struct Document<'a> {
        #[serde(borrow)]
        metadata: Option<&'a RawValue>,
    }
    let document: Option<Document> = serde_json::from_slice(&object.json).ok();
    let metadata = document.and_then(|it| it.metadata).map_or("{}", RawValue::get);
    format!(
        "{{\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"meta.k8s.io/v1\",\
         \"metadata\":{metadata}}}"
    )
    .into_bytes()
}

struct Column {
    name: &'static str,
    of: &'static str,
    /// 0 is always shown, more only in wide tables.
    priority: u8,
    cell: fn(&Value) -> Value,
}

const fn column(name: &'static str, of: &'static str, cell: fn(&Value) -> Value) -> Column {
    Column { name, of, priority: 0, cell }
}

static NAME: Column = column("Name", "string", |object| object["metadata"]["name"].clone());
static AGE: Column = column("Age", "string", age);
static PHASE: Column = column("Status", "string", |object| object["status"]["phase"].clone());
static POD_COLUMNS: [Column; 5] = [
    column("Ready", "string", |pod| {
        let ready = containers(pod).filter(|it| it["ready"] == true).count();
        let all = pod["spec"]["containers"].as_array().map_or(0, Vec::len);
        json!(format!("{ready}/{all}"))
    }),
    column("Status", "string", pod_status),
    column("Restarts", "integer", |pod| {
        json!(containers(pod).filter_map(|it| it["restartCount"].as_i64()).sum::<i64>())
    }),
    Column { priority: 1, ..column("IP", "string", |pod| pod["status"]["podIP"].clone()) },
    Column { priority: 1, ..column("Node", "string", |pod| pod["spec"]["nodeName"].clone()) },
];
static DEPLOYMENT_COLUMNS: [Column; 3] = [
    column("Ready", "string", |it| {
        let ready = it["status"]["readyReplicas"].as_i64().unwrap_or(0);
        json!(format!("{ready}/{}", it["spec"]["replicas"].as_i64().unwrap_or(0)))
    }),
    column("Up-to-date", "integer", |it| count(it, "updatedReplicas")),
    column("Available", "integer", |it| count(it, "availableReplicas")),
];
static NODE_COLUMNS: [Column; 2] = [
    column("Status", "string", |node| {
        let mut conditions = node["status"]["conditions"].as_array().into_iter().flatten();
        let ready = conditions.any(|it| it["type"] == "Ready" && it["status"] == "True");
        json!(if ready { "Ready" } else { "NotReady" })
    }),
    column("Version", "string", |node| node["status"]["nodeInfo"]["kubeletVersion"].clone()),
];

/// Between name and age, as everywhere: who reads secrets knows where their type stands.
static SECRET_COLUMNS: [Column; 2] = [
    column("Type", "string", |secret| secret["type"].clone()),
    column("Data", "integer", |secret| {
        json!(secret["data"].as_object().map_or(0, serde_json::Map::len))
    }),
];

/// As the definition of trees in `orchard.yaml` has them.
static TREE_COLUMNS: [Column; 2] = [
    column("Variety", "string", |tree| tree["spec"]["variety"].clone()),
    column("Apples", "integer", |tree| tree["status"]["apples"].clone()),
];

fn columns(kind: &Kind) -> Vec<&'static Column> {
    let own: &'static [Column] = if std::ptr::eq(kind, &POD) {
        &POD_COLUMNS
    } else if std::ptr::eq(kind, &DEPLOYMENT) {
        &DEPLOYMENT_COLUMNS
    } else if std::ptr::eq(kind, &NODE) {
        &NODE_COLUMNS
    } else if std::ptr::eq(kind, &NAMESPACE) {
        std::slice::from_ref(&PHASE)
    } else if std::ptr::eq(kind, &SECRET) {
        &SECRET_COLUMNS
    } else if std::ptr::eq(kind, &TREE) {
        &TREE_COLUMNS
    } else {
        &[]
    };
    let (narrow, wide): (Vec<_>, Vec<_>) = own.iter().partition(|column| column.priority == 0);
    std::iter::once(&NAME).chain(narrow).chain(std::iter::once(&AGE)).chain(wide).collect()
}

fn definitions(kind: &Kind) -> Value {
    let definition = |column: &Column| {
        let format = if column.name == "Name" { "name" } else { "" };
        json!({
            "name": column.name,
            "type": column.of,
            "format": format,
            "description": "",
            "priority": column.priority,
        })
    };
    columns(kind).into_iter().map(definition).collect()
}

fn row(kind: &Kind, object: &Stored, include: Include) -> Value {
    let value = object.value();
    let cells: Vec<Value> = columns(kind).into_iter().map(|it| (it.cell)(&value)).collect();
    let mut row = json!({ "cells": cells });
    match include {
        Include::Nothing => {}
        Include::Metadata => {
            row["object"] = json!({
                "kind": "PartialObjectMetadata",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": value["metadata"],
            });
        }
        Include::Object => {
            row["object"] = serde_json::from_slice(&object.full(kind)).unwrap_or_default();
        }
    }
    row
}

fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    pod["status"]["containerStatuses"].as_array().into_iter().flatten()
}

fn count(object: &Value, field: &str) -> Value {
    json!(object["status"][field].as_i64().unwrap_or(0))
}

/// The reason a container waits for, else why it ended, else the phase.
fn pod_status(pod: &Value) -> Value {
    let of = |state: &str| {
        containers(pod).find_map(|it| it["state"][state]["reason"].as_str()).map(str::to_owned)
    };
    match of("waiting").or_else(|| of("terminated")) {
        Some(reason) => json!(reason),
        None => pod["status"]["phase"].clone(),
    }
}

/// `42s`, `5m`, `3h`, `12d`.
fn age(object: &Value) -> Value {
    let created = object["metadata"]["creationTimestamp"].as_str().unwrap_or_default();
    let Ok(created) = created.parse::<Timestamp>() else { return json!("<unknown>") };
    let seconds = Timestamp::now().as_second() - created.as_second();
    json!(match seconds.max(0) {
        seconds @ 0..120 => format!("{seconds}s"),
        seconds @ 120..7_200 => format!("{}m", seconds / 60),
        seconds @ 7_200..172_800 => format!("{}h", seconds / 3_600),
        seconds => format!("{}d", seconds / 86_400),
    })
}
