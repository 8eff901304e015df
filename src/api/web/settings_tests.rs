//! What the settings' ConfigMap holds, read and changed without a cluster.

use super::*;

#[test]
fn what_is_left_out_null_or_zero_has_its_default() {
    let read = |over: Value| Settings::default().with(&over).unwrap();
    assert_eq!(read(json!({})), Settings::default());
    let nothing = json!({"itemsPerPage": 0, "labelsLimit": null, "defaultNamespace": "",
        "namespaceFallbackList": [], "resourceAutoRefreshTimeInterval": 0, "future": 1});
    assert_eq!(read(nothing), Settings::default());
    let some = read(json!({"clusterName": "east", "itemsPerPage": 25}));
    assert_eq!((some.cluster_name.as_str(), some.items_per_page), ("east", 25));
    let next = some.with(&json!({"labelsLimit": 7})).unwrap();
    assert_eq!((next.cluster_name.as_str(), next.labels_limit), ("east", 7));
}

#[test]
fn a_value_of_another_type_is_refused() {
    for wrong in [json!({"itemsPerPage": "10"}), json!({"labelsLimit": -1})] {
        assert!(Settings::default().with(&wrong).is_err(), "{wrong}");
    }
}

#[test]
fn the_fields_are_the_contracts() {
    let shown = serde_json::to_value(Settings::default()).unwrap();
    let contract = json!({
        "clusterName": "", "itemsPerPage": 10, "labelsLimit": 3,
        "logsAutoRefreshTimeInterval": 5, "resourceAutoRefreshTimeInterval": 10,
        "disableAccessDeniedNotifications": false, "hideAllNamespaces": false,
        "defaultNamespace": "default", "namespaceFallbackList": ["default"],
    });
    assert_eq!(shown, contract);
}

#[test]
fn the_hash_of_the_same_settings_is_the_same_in_every_process() {
    let default = Settings::default();
    assert_eq!(hash(&default), "ab7b16d74a1a109b0d60c6f5b5c7ff0e");
    let other = default.with(&json!({"labelsLimit": 7})).unwrap();
    assert_ne!(hash(&other), hash(&default));
}

#[test]
fn a_broken_text_in_the_config_map_is_as_none() {
    let map = json!({
        "metadata": {"resourceVersion": "7"},
        "data": {"settings": "{", "pinnedResources": "null"},
    });
    let stored = Stored::of(&map);
    assert_eq!(stored.settings, Settings::default());
    assert!(stored.pinned.is_empty());
    assert_eq!(stored.version.as_deref(), Some("7"));
    assert!(Stored::of(&json!({"metadata": {}})).version.is_none());
}

#[test]
fn a_pinned_resource_is_told_by_kind_namespace_and_name() {
    let text = r#"[{"kind":"a.example.org","name":"x","displayName":"X","namespaced":false}]"#;
    let map = json!({"data": {"pinnedResources": text}});
    let pinned = Stored::of(&map).pinned;
    assert!(pinned[0].is("a.example.org", "", "x"));
    assert!(!pinned[0].is("a.example.org", "shop", "x"));
    assert_eq!(serde_json::to_string(&pinned).unwrap(), text);
}
