//! Files that are read, refused and planned without a cluster.

use super::*;

fn config_maps() -> Served {
    Served {
        group: String::new(),
        kind: "ConfigMap".into(),
        plural: "configmaps".into(),
        namespaced: true,
        versions: vec!["v1".into()],
        scalable: false,
        readable: true,
    }
}

#[test]
fn documents_are_yaml_or_json_and_lists_are_taken_apart() {
    assert_eq!(objects("a: 1\n---\n# nothing\n---\nb: 2\n").unwrap().len(), 2);
    assert_eq!(objects(r#"{"kind": "Pod"}"#).unwrap()[0]["kind"], "Pod");
    let list = "kind: List\nitems:\n- {kind: A}\n- {kind: B}\n";
    assert_eq!(objects(list).unwrap().len(), 2);
    for bad in ["", "---\n---\n", "a: [", "a: b: c"] {
        assert!(objects(bad).is_err(), "{bad}");
    }
    assert!(objects(&"a: 1\n---\n".repeat(OBJECTS + 1)).is_err());
}

#[test]
fn json_objects_one_after_the_other_are_as_many_documents() {
    for text in ["{\"a\": 1}\n{\"b\": 2}\n", "\n{\"a\": 1}{\n  \"b\": 2\n}"] {
        assert_eq!(objects(text).unwrap(), [json!({"a": 1}), json!({"b": 2})], "{text}");
    }
    let list = r#"{"kind": "List", "items": [{"a": 1}, {"b": 2}]}"#;
    assert_eq!(objects(&format!("{list}\n{list}\n")).unwrap().len(), 4);
    let full = format!("{{\"a\": [{}0]}}\n", "0,".repeat(NODES / 2));
    for bad in ["{\"a\": 1}\n{\"b\": 2", "{\"a\": 1}\nb", &format!("{full}{full}")] {
        assert!(objects(bad).is_err());
    }
}

#[test]
fn items_of_a_list_of_one_kind_are_of_that_kind_unless_they_say_otherwise() {
    let items = json!([{"a": 1}, {"kind": "B"}, {"apiVersion": "v2"}]);
    let of = |kind: &str| {
        let list = json!({"kind": kind, "apiVersion": "g/v1", "items": items});
        objects(&list.to_string()).unwrap()
    };
    let told = json!({"kind": "Role", "apiVersion": "g/v1", "a": 1});
    assert_eq!(of("RoleList"), [told, items[1].clone(), items[2].clone()]);
    assert_eq!(of("ListList")[0]["kind"], "List", "only the last of it is taken off");
    assert_eq!(Value::from(of("List")), items);
}

#[test]
fn a_bomb_of_aliases_is_refused() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let below = format!("*a{}", level - 1);
        let row = vec![below; 9].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{row}]\n"));
    }
    assert!(objects(&bomb).is_err());
    assert!(objects(&format!("{}1{}", "[".repeat(5_000), "]".repeat(5_000))).is_err());
    // One long text over and over; in a second document as well as in the first.
    let long =
        |count: usize| format!("a: &a {}\nb: [{}]\n", "x".repeat(1 << 18), "*a,".repeat(count));
    assert!(objects(&long(12)).is_ok());
    assert!(objects(&long(40)).is_err());
    assert!(objects(&format!("{}---\n{}", long(20), long(20))).is_err());
    // Short, and within what a long file may have.
    let short = |levels: usize| bomb.lines().take(levels).collect::<Vec<_>>().join("\n");
    assert!(objects(&short(3)).is_ok());
    assert!(objects(&short(5)).is_err());
}

#[test]
fn keys_are_those_that_kubectl_makes_of_them() {
    let text = "kind: ConfigMap\ndata:\n  on: x\n  1.10: v\n  0400: z\n  'y': t\n";
    let wanted = json!({"true": "x", "1.1": "v", "256": "z", "y": "t"});
    assert_eq!(objects(text).unwrap()[0]["data"], wanted);
    let lines = "{\"y\": 1}\n{\"1.10\": 2}\n";
    assert_eq!(objects(lines).unwrap(), [json!({"y": 1}), json!({"1.10": 2})], "JSON is text");
}

#[test]
fn large_files_without_aliases_are_read() {
    assert_eq!(objects(&format!("a: {}\n", "x".repeat(TEXT + 1))).unwrap().len(), 1);
    assert_eq!(objects(&"- {type: string}\n".repeat(30_000)).unwrap().len(), 1);
}

#[test]
fn what_the_api_server_looks_up_may_come_with_the_file() {
    let mut own = Own::default();
    for (kind, place, name) in [
        ("Role", "atlas", "readers"),
        ("ClusterRole", "", "viewers"),
        ("ServiceAccount", "atlas", "runner"),
        ("PriorityClass", "", "high"),
        ("ServiceAccount", "atlas", ""),
    ] {
        own.take(&json!({"kind": kind, "metadata": {"name": name}}), place);
    }
    let binding = |kind: &str, role: &str, name: &str| {
        let reference = json!({"kind": role, "name": name});
        json!({"kind": kind, "roleRef": reference})
    };
    let pod = |account: &str, class: &str| {
        let spec = json!({"serviceAccountName": account, "priorityClassName": class});
        json!({"kind": "Pod", "spec": spec})
    };
    for (object, place, expected) in [
        (binding("RoleBinding", "Role", "readers"), "atlas", vec!["readers"]),
        (binding("RoleBinding", "Role", "readers"), "other", vec![]),
        (binding("RoleBinding", "Role", "viewers"), "atlas", vec![]),
        (binding("RoleBinding", "ClusterRole", "viewers"), "atlas", vec!["viewers"]),
        (binding("ClusterRoleBinding", "ClusterRole", "viewers"), "", vec!["viewers"]),
        (binding("Deployment", "Role", "readers"), "atlas", vec![]),
        (pod("runner", "high"), "atlas", vec!["runner", "high"]),
        (pod("runner", "low"), "other", vec![]),
        (pod("", ""), "atlas", vec![]),
    ] {
        assert_eq!(own.bases(&object, place), expected, "{object} in {place}");
    }
}

#[test]
fn only_a_base_of_its_own_is_forgiven_to_an_object_that_was_tried() {
    let refused = |code: StatusCode, message: &str| {
        let status = json!({"kind": "Status", "message": message}).to_string();
        Failure::status(code, status.as_bytes())
    };
    let planned = Planned {
        body: Bytes::new(),
        path: String::new(),
        group: String::new(),
        plural: String::new(),
        namespace: String::new(),
        shown: String::new(),
        is_untried: false,
        bases: vec!["runner".into()],
    };
    let (missing, forbidden) = (StatusCode::NOT_FOUND, StatusCode::FORBIDDEN);
    for (code, words, is_forgiven) in [
        (missing, "roles.rbac.authorization.k8s.io \"runner\" not found", true),
        (missing, "namespaces \"atlas\" not found", false),
        (
            forbidden,
            "pods \"a\" is forbidden: error looking up service account atlas/runner: \
             serviceaccount \"runner\" not found",
            true,
        ),
        (forbidden, "pods \"runner\" is forbidden: exceeded quota: pods", false),
        (
            forbidden,
            "pods \"runner\" is forbidden: no PriorityClass with name none was found",
            false,
        ),
        (StatusCode::CONFLICT, "pods \"runner\" already exists", false),
    ] {
        assert_eq!(planned.lacks_a_base(&refused(code, words)), is_forgiven, "{words}");
    }
}

#[test]
fn the_namespace_is_that_of_the_form_or_of_the_document_and_never_two() {
    let of = |own: &str, asked: &str| {
        let object = json!({"metadata": {"namespace": own}});
        namespace_of(&config_maps(), &object, asked).map_err(|error| error.status.as_u16())
    };
    assert_eq!(of("a", OWN), Ok("a".into()));
    assert_eq!(of("", "b"), Ok("b".into()));
    assert_eq!(of("b", "b"), Ok("b".into()));
    assert_eq!(of("a", "b"), Err(400));
    assert_eq!(of("", OWN), Err(400));
    let cluster = Served { namespaced: false, ..config_maps() };
    let object = json!({"metadata": {"namespace": "a"}});
    assert_eq!(namespace_of(&cluster, &object, "b").unwrap(), "");
}
