//! Tests of the kinds that no cache holds yet.

use super::*;

fn item(row: &Row) -> Value {
    serde_json::from_slice(&row.json).unwrap()
}

#[test]
fn endpoints_are_the_addresses_of_all_subsets_ready_ones_first() {
    let object = json!({"subsets": [{
        "notReadyAddresses": [{"ip": "10.0.0.2"}],
        "addresses": [{"ip": "10.0.0.1", "nodeName": "node-0"}],
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}]}]});
    let shown = endpoints(Some(&object));
    assert_eq!(shown["listMeta"]["totalItems"], 1);
    assert_eq!(shown["endpoints"][0]["nodeName"], "node-0");
    assert_eq!(shown["endpoints"][1]["nodeName"], Value::Null);
    assert_eq!(shown["endpoints"][1]["ready"], false);
    let none = endpoints(None);
    assert_eq!(none, json!({"listMeta": {"totalItems": 0}, "endpoints": []}));
}

#[test]
fn an_owner_counts_as_its_kind_does() {
    let json = r#"{"metadata": {"name": "import"}, "spec": {"completions": 2, "template": {"spec": {
        "containers": [{"image": "import:1"}]}}}, "status": {"active": 1, "replicas": 9}}"#;
    let job = owner(json, "job").unwrap();
    let facts = Facts::from(WorkloadFacts { current: 1, desired: Some(2) });
    assert_eq!(job.facts, facts);
    assert_eq!(item(&job)["containerImages"], json!(["import:1"]));
    assert_eq!(item(&job)["initContainerImages"], Value::Null);
    let set = owner(json, "statefulset").unwrap();
    assert_eq!(
        item(&set)["typeMeta"],
        json!({"kind": "statefulset", "scalable": true, "restartable": true})
    );
    let custom = owner(json, "widgets.example.com").unwrap();
    assert_eq!(item(&custom)["typeMeta"], json!({"kind": "widgets.example.com"}));
}
