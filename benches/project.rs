//! What happens to one object: projection of its JSON to a row, and filling a store with rows.
//!
//! No network, no process: `list` measures the same over loopback.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a bench fails loudly")]

use std::hint::black_box;

use binnacle::cache::Store;
use binnacle::kinds::{KindDef, Row, by_name};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

const PODS: usize = 10_000;
/// As in the demo: a thousand pods a namespace.
const NAMESPACES: usize = 10;
/// Objects as an API server sends them, written over several lines for people.
const OBJECTS: [(&str, &str); 4] = [
    ("pod", include_str!("objects/pod.json")),
    ("deployment", include_str!("objects/deployment.json")),
    ("event", include_str!("objects/event.json")),
    ("node", include_str!("objects/node.json")),
];
fn kind(name: &str) -> &'static KindDef {
    by_name(name).unwrap()
}

/// The object on one line, as it is on the wire.
fn wire(text: &str) -> String {
    serde_json::from_str::<serde_json::Value>(text).unwrap().to_string()
}

/// Rows of pods that differ in name, namespace, UID and age.
fn pods() -> Vec<Row> {
    let (_, text) = OBJECTS[0];
    let mut object: serde_json::Value = serde_json::from_str(text).unwrap();
    let mut rows = Vec::with_capacity(PODS);
    for number in 0..PODS {
        let metadata = &mut object["metadata"];
        // Names in an order of their own, not that of the ages.
        metadata["name"] = format!("checkout-{:05}", number * 7_919 % PODS).into();
        metadata["namespace"] = format!("shop-{}", number % NAMESPACES).into();
        metadata["uid"] = format!("0d9f6f0e-52b1-4c0e-8b5d-{number:012}").into();
        let (hour, minute, second) = (number / 3_600, number / 60 % 60, number % 60);
        metadata["creationTimestamp"] =
            format!("2026-03-02T{hour:02}:{minute:02}:{second:02}Z").into();
        rows.push((kind("pod").row)(&object.to_string()).unwrap());
    }
    rows
}

fn project(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("project");
    for (name, text) in OBJECTS {
        let (kind, json) = (kind(name), wire(text));
        group.throughput(Throughput::ElementsAndBytes { elements: 1, bytes: json.len() as u64 });
        let id = format!("{name}, {} bytes", json.len());
        group.bench_function(id, |bencher| {
            bencher.iter(|| (kind.row)(black_box(json.as_str())).unwrap());
        });
    }
    group.finish();
}

fn store(criterion: &mut Criterion) {
    let (kind, rows) = (kind("pod"), pods());
    let mut group = criterion.benchmark_group("store");
    group.sample_size(20).throughput(Throughput::Elements(PODS as u64));
    group.bench_function("fill with 10000 pods", |bencher| {
        let rows = || rows.clone();
        bencher.iter_batched(rows, |rows| Store::of(kind, rows), BatchSize::LargeInput);
    });
    group.finish();
}

criterion_group!(benches, project, store);
criterion_main!(benches);
