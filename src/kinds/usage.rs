//! Usage of pods and nodes as metrics.k8s.io says it: one object as a row, and a whole list of
//! them as mere numbers.
//!
//! No route lists them and no store keeps them. They are joined to pods and nodes above, under
//! rights of their own; their history is the cache's part.

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

use super::meta::{Meta, ObjectMeta, Text, TypeMeta, decode, flat, seconds};
use super::*;

pub const POD_USAGE: KindDef = KindDef {
    source: Source::Poll,
    ..KindDef::of(
        "podmetrics",
        Resource::namespaced("metrics.k8s.io", "v1beta1", "PodMetrics", "pods"),
        pod,
        pod_detail,
    )
};

pub const NODE_USAGE: KindDef = KindDef {
    source: Source::Poll,
    ..KindDef::of(
        "nodemetrics",
        Resource::cluster("metrics.k8s.io", "v1beta1", "NodeMetrics", "nodes"),
        node,
        node_detail,
    )
};

/// Most millicores of one object, 16,777 processors, and most bytes, 1 PiB: what is said to use
/// more is nonsense. The history has 24 bits for the one and 40 bits of KiB for the other.
pub const MOST_CPU: i64 = (1 << 24) - 1;
pub const MOST_MEMORY: i64 = ((1 << 40) - 2) << 10;

/// What one object of a list says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measured {
    /// Empty for nodes.
    pub namespace: CompactString,
    pub name: CompactString,
    pub usage: UsageFacts,
}

/// A list, and how many of its objects made no sense.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Measurements {
    pub items: Vec<Measured>,
    pub malformed: u64,
    /// What is wrong with the first of those.
    pub why: Option<String>,
}

#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow, default)]
    metadata: Meta<'a>,
}

#[derive(Deserialize)]
struct Name<'a> {
    #[serde(borrow)]
    metadata: NameMeta<'a>,
}

/// The two names alone: whole lists are read every few seconds.
#[derive(Deserialize)]
struct NameMeta<'a> {
    #[serde(borrow)]
    name: Text<'a>,
    #[serde(borrow, default)]
    namespace: Text<'a>,
}

/// What both kinds say: a node has `usage`, a pod has it for each container.
#[derive(Deserialize)]
struct Said<'a> {
    #[serde(borrow, default)]
    timestamp: Text<'a>,
    #[serde(borrow, default)]
    window: Text<'a>,
    #[serde(borrow, default)]
    usage: Option<Amounts<'a>>,
    #[serde(borrow, default)]
    containers: Option<Vec<Container<'a>>>,
}

#[derive(Deserialize)]
struct Container<'a> {
    #[serde(borrow, default)]
    name: Text<'a>,
    #[serde(borrow)]
    usage: Amounts<'a>,
}

#[derive(Deserialize)]
struct Amounts<'a> {
    #[serde(borrow, default)]
    cpu: Text<'a>,
    #[serde(borrow, default)]
    memory: Text<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Item<'a> {
    object_meta: ObjectMeta<'a>,
    type_meta: TypeMeta,
    timestamp: &'a str,
    window: &'a str,
    cpu: i64,
    memory: i64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    containers: Vec<Part<'a>>,
}

#[derive(Serialize)]
struct Part<'a> {
    name: &'a str,
    cpu: i64,
    memory: i64,
}

impl Measurements {
    /// Takes one object of a `PodMetricsList` or `NodeMetricsList`. One without a name, with a time
    /// or quantity that cannot be read, a negative one or an absurdly large one is left out and
    /// counted. `kind` is the name of one of the two kinds here.
    pub fn take(&mut self, kind: &'static str, json: &str) {
        match measured(kind, json) {
            Ok(item) => self.items.push(item),
            Err(error) => {
                self.malformed += 1;
                self.why.get_or_insert_with(|| error.to_string());
            }
        }
    }
}

fn measured(kind: &'static str, json: &str) -> Result<Measured, Malformed> {
    let Name { metadata } = decode(kind, json)?;
    if metadata.name.is_empty() {
        return Err(Malformed { kind, reason: "metadata.name is missing".into() });
    }
    let said: Said = decode(kind, json)?;
    Ok(Measured {
        namespace: CompactString::new(&*metadata.namespace),
        name: CompactString::new(&*metadata.name),
        usage: said.facts(kind)?,
    })
}

fn pod(json: &str) -> Result<Row, Malformed> {
    row(POD_USAGE.name, json)
}

fn pod_detail(object: &Value, row: &Row, _: &References) -> Result<Fields, Malformed> {
    flat(POD_USAGE.name, object, row)
}

fn node(json: &str) -> Result<Row, Malformed> {
    row(NODE_USAGE.name, json)
}

fn node_detail(object: &Value, row: &Row, _: &References) -> Result<Fields, Malformed> {
    flat(NODE_USAGE.name, object, row)
}

fn row(kind: &'static str, json: &str) -> Result<Row, Malformed> {
    let Head { metadata } = decode(kind, json)?;
    let said: Said = decode(kind, json)?;
    let facts = said.facts(kind)?;
    let mut containers = Vec::new();
    for container in said.containers.iter().flatten() {
        let (cpu, memory) = container.usage.read(kind)?;
        let part = Part { name: &container.name, cpu: cpu.milli(), memory: memory.value() };
        containers.push(part);
    }
    let item = Item {
        object_meta: metadata.object_meta(),
        type_meta: TypeMeta::plain(kind),
        timestamp: &said.timestamp,
        window: &said.window,
        cpu: facts.cpu,
        memory: facts.memory,
        containers,
    };
    metadata.row(kind, &item, vec![], vec![], Facts::from(facts))
}

impl Said<'_> {
    fn facts(&self, kind: &'static str) -> Result<UsageFacts, Malformed> {
        let bad = |reason: String| Malformed { kind, reason };
        let time = seconds(&self.timestamp)
            .ok_or_else(|| bad(format!("timestamp is {:?}", &*self.timestamp)))?;
        let containers = self.containers.iter().flatten().map(|container| &container.usage);
        let mut sum: Option<(Quantity, Quantity)> = None;
        for part in self.usage.iter().chain(containers) {
            let (cpu, memory) = part.read(kind)?;
            let (all_cpu, all_memory) = sum.unwrap_or_default();
            sum = Some((all_cpu + cpu, all_memory + memory));
        }
        let (cpu, memory) = sum.ok_or_else(|| bad("it holds no usage".into()))?;
        let (cpu, memory) = (cpu.milli(), memory.value());
        if cpu > MOST_CPU || memory > MOST_MEMORY {
            return Err(bad(format!("{cpu} millicores and {memory} bytes are absurd")));
        }
        Ok(UsageFacts { time, cpu, memory })
    }
}

impl Amounts<'_> {
    /// CPU and memory; no usage is negative.
    fn read(&self, kind: &'static str) -> Result<(Quantity, Quantity), Malformed> {
        let amount = |what: &str, text: &str| {
            let amount = Quantity::parse(text).filter(|amount| *amount >= Quantity::default());
            amount.ok_or_else(|| Malformed { kind, reason: format!("{what} is {text:?}") })
        };
        Ok((amount("usage.cpu", &self.cpu)?, amount("usage.memory", &self.memory)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const POD: &str = r#"{"metadata": {"name": "tiles-1", "namespace": "atlas",
            "creationTimestamp": "2026-01-02T03:04:06Z", "labels": {"app": "tiles"}},
        "timestamp": "2026-01-02T03:04:05Z", "window": "10.1s",
        "containers": [{"name": "main", "usage": {"cpu": "119600001n", "memory": "65536Ki"}},
            {"name": "side", "usage": {"cpu": "1m", "memory": "1024"}}]}"#;

    const TIME: i64 = 1_767_323_045;

    #[test]
    fn a_pods_usage_is_the_sum_over_its_containers() {
        let row = pod(POD).unwrap();
        let memory = (64 << 20) + 1024;
        assert_eq!(row.facts, Facts::from(UsageFacts { time: TIME, cpu: 121, memory }));
        let item: Value = serde_json::from_slice(&row.json).unwrap();
        assert_eq!(item["typeMeta"], json!({"kind": "podmetrics"}));
        assert_eq!((&item["cpu"], &item["memory"]), (&json!(121), &json!(memory)));
        assert_eq!(item["window"], "10.1s");
        let side = json!({"name": "side", "cpu": 1, "memory": 1024});
        assert_eq!(item["containers"][1], side);
        assert_eq!(detail_of(&POD_USAGE, POD).unwrap()["cpu"], 121);
    }

    #[test]
    fn a_nodes_usage_is_its_own() {
        let json = r#"{"metadata": {"name": "node-0"}, "timestamp": "2026-01-02T03:04:05Z",
            "usage": {"cpu": "366m", "memory": "5Ti"}}"#;
        let row = node(json).unwrap();
        let facts = UsageFacts { time: TIME, cpu: 366, memory: 5 << 40 };
        assert_eq!(row.facts, Facts::from(facts));
        assert!(!detail_of(&NODE_USAGE, json).unwrap().contains_key("containers"));
    }

    #[test]
    fn nonsense_costs_its_object_and_not_the_list() {
        let node = |name: &str, time: &str, cpu: &str, memory: &str| {
            json!({"metadata": {"name": name}, "timestamp": time,
                "usage": {"cpu": cpu, "memory": memory}})
        };
        let time = "2026-01-02T03:04:05Z";
        let items = json!([
            node("good", time, "1", "1Gi"),
            node("", time, "1", "1Gi"),
            node("timeless", "yesterday", "1", "1Gi"),
            node("wordy", time, "much", "1Gi"),
            node("negative", time, "-1m", "1Gi"),
            node("hot", time, "1e12", "1Gi"),
            node("fat", time, "1", "9Ei"),
            {"metadata": {"name": "mute"}, "timestamp": time},
            {"metadata": {"name": "empty"}, "timestamp": time, "containers": []},
            {"metadata": null},
            7,
        ]);
        let mut found = Measurements::default();
        for item in items.as_array().unwrap() {
            found.take(NODE_USAGE.name, &item.to_string());
        }
        found.take(NODE_USAGE.name, "{");
        assert_eq!(found.malformed, 11);
        assert!(found.why.unwrap().contains("metadata.name"));
        let usage = UsageFacts { time: TIME, cpu: 1_000, memory: 1 << 30 };
        let good = Measured { namespace: "".into(), name: "good".into(), usage };
        assert_eq!(found.items, [good]);
    }
}
