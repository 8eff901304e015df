//! A deployment that was told to keep all of its replica sets, on a demo at rest.
//! It is NOT where the new set is told from the old ones (`details.rs`).

use serde_json::{Value, json};

use crate::fault_proxy::Front;

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/shop/deployments";
const SETS: &str = "/apis/apps/v1/namespaces/shop/replicasets";

fn labels() -> Value {
    json!({"app": "kept"})
}

fn template(image: &str) -> Value {
    let containers = json!([{"name": "main", "image": image}]);
    json!({"metadata": {"labels": labels()}, "spec": {"containers": containers}})
}

fn set(name: &str, replicas: u32, image: &str, owner: &Value) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {"name": name, "labels": labels(), "ownerReferences": [owner]},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": labels()},
            "template": template(image),
        },
    })
}

#[tokio::test]
async fn all_sets_of_a_deployment_are_looked_at_or_it_is_said_that_they_are_too_many() {
    let (front, _demo) = Front::demo(0).await;
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "kept"},
        "spec": {
            "replicas": 0, "selector": {"matchLabels": labels()}, "template": template("kept:2"),
        },
    });
    front.api.create(DEPLOYMENTS, &deployment).await;
    let all = front.api.list(DEPLOYMENTS).await;
    let made = all.iter().find(|one| one["metadata"]["name"] == "kept").unwrap();
    let owner = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "kept",
        "uid": made["metadata"]["uid"], "controller": true});
    // The API server lists by name: those that are looked for come last.
    front.api.create(SETS, &set("y-old", 1, "kept:1", &owner)).await;
    front.api.create(SETS, &set("z-new", 0, "kept:2", &owner)).await;
    for number in 0..501 {
        front.api.create(SETS, &set(&format!("a-{number}"), 0, "kept:0", &owner)).await;
    }
    let new = front.get("/api/v1/deployment/shop/kept/newreplicaset").await;
    assert_eq!(new.status, 200, "{}", new.text());
    assert_eq!(new.json()["objectMeta"]["name"], "z-new", "{}", new.text());
    let old = front.get("/api/v1/deployment/shop/kept/oldreplicaset").await.json();
    assert_eq!(old["replicaSets"][0]["objectMeta"]["name"], "y-old", "{old}");
    assert_eq!(old["listMeta"]["totalItems"], 1, "{old}");

    for number in 501..2_000 {
        front.api.create(SETS, &set(&format!("a-{number}"), 0, "kept:0", &owner)).await;
    }
    let refused = front.get("/api/v1/deployment/shop/kept/newreplicaset").await;
    assert_eq!(refused.status, 502, "{}", refused.text());
    assert!(refused.text().contains("revisionHistoryLimit"), "{}", refused.text());
}
