//! Tests of the kinds that no cache holds yet.

use super::*;

fn item(row: &Row) -> Value {
    serde_json::from_slice(&row.json).unwrap()
}

#[test]
fn a_claim_shows_its_volume_and_what_it_got() {
    let row = claim(
        r#"{"metadata": {"name": "data", "namespace": "atlas"},
            "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "fast", "volumeName": "vol-1"},
            "status": {"phase": "Bound", "capacity": {"storage": "5Gi"}}}"#,
    )
    .unwrap();
    assert_eq!(
        item(&row),
        json!({
            "objectMeta": {"name": "data", "namespace": "atlas", "creationTimestamp": null},
            "typeMeta": {"kind": "persistentvolumeclaim"},
            "status": "Bound", "volume": "vol-1", "capacity": {"storage": "5Gi"},
            "accessModes": ["ReadWriteOnce"], "storageClass": "fast",
        })
    );
}

#[test]
fn the_claims_of_a_pod_are_named_and_made_ones_each_once() {
    let pod = json!({"metadata": {"name": "a"}, "spec": {"volumes": [
        {"name": "x", "persistentVolumeClaim": {"claimName": "data"}},
        {"name": "y", "persistentVolumeClaim": {"claimName": "data"}},
        {"name": "scratch", "ephemeral": {}}, {"name": "z", "emptyDir": {}}]}});
    assert_eq!(claim_names(&pod), ["a-scratch", "data"]);
    assert!(claim_names(&json!({})).is_empty());
}

#[test]
fn an_ingress_shows_distinct_hosts_and_links_to_its_services() {
    let row = ingress(
        r#"{"metadata": {"name": "edge", "namespace": "atlas"},
            "spec": {"defaultBackend": {"service": {"name": "rest"}}, "rules": [
                {"host": "a.invalid", "http": {"paths": [{"backend": {"service": {"name": "tiles"}}}]}},
                {"host": "a.invalid", "http": {"paths": [{"backend": {"resource": {"name": "x"}}}]}},
                {"http": null}]},
            "status": {"loadBalancer": {"ingress": [{"hostname": "lb", "ip": "192.0.2.1"}, {"ip": "192.0.2.2"}]}}}"#,
    )
    .unwrap();
    assert_eq!(*row.links, [Link::Backend("rest".into()), Link::Backend("tiles".into())]);
    let item = item(&row);
    assert_eq!(item["hosts"], json!(["a.invalid"]));
    assert_eq!(
        item["endpoints"],
        json!([{"host": "lb", "ports": null}, {"host": "192.0.2.2", "ports": null}])
    );
}

#[test]
fn an_autoscaler_shows_cpu_alone_and_links_to_its_target() {
    let row = autoscaler(
        r#"{"metadata": {"name": "tiles"},
            "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "tiles"}, "minReplicas": 2, "maxReplicas": 6,
                "metrics": [{"type": "Resource", "resource": {"name": "memory", "target": {"averageUtilization": 1}}},
                    {"type": "Resource", "resource": {"name": "cpu", "target": {"averageUtilization": 80}}}]},
            "status": {"currentMetrics": null}}"#,
    )
    .unwrap();
    assert_eq!(*row.links, [Link::Target("deployment".into(), "tiles".into())]);
    let item = item(&row);
    assert_eq!(item["scaleTargetRef"], json!({"kind": "Deployment", "name": "tiles"}));
    assert_eq!((&item["minReplicas"], &item["maxReplicas"]), (&json!(2), &json!(6)));
    assert_eq!(item["targetCPUUtilizationPercentage"], 80);
    assert_eq!(item["currentCPUUtilizationPercentage"], Value::Null);
}

#[test]
fn a_quota_lists_what_is_used_of_each_hard_limit() {
    let row = quota(
        r#"{"metadata": {"name": "q"}, "spec": {"scopes": ["BestEffort"]},
            "status": {"hard": {"pods": "50", "services": "5"}, "used": {"pods": "15"}}}"#,
    )
    .unwrap();
    let item = item(&row);
    assert_eq!(item["scopes"], json!(["BestEffort"]));
    assert_eq!(
        item["statusList"],
        json!({"pods": {"used": "15", "hard": "50"}, "services": {"used": "0", "hard": "5"}})
    );
    let bare = quota(r#"{"metadata": {"name": "q"}}"#).unwrap();
    assert_eq!(self::item(&bare).as_object().unwrap().len(), 2);
}

#[test]
fn limits_are_one_item_for_each_type_and_resource() {
    let ranges = r#"{"items": [{"spec": {"limits": [{"type": "Container", "max": {"cpu": "2"},
        "default": {"cpu": "200m", "memory": "128Mi"}}]}}, {"spec": {}}]}"#;
    assert_eq!(
        limits(ranges).unwrap(),
        json!([
            {"resourceName": "cpu", "resourceType": "Container", "max": "2", "default": "200m"},
            {"resourceName": "memory", "resourceType": "Container", "default": "128Mi"},
        ])
    );
    assert_eq!(limits(r#"{"items": []}"#).unwrap(), Value::Null);
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
    let facts = Facts::Workload(WorkloadFacts { current: 1, desired: Some(2) });
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
