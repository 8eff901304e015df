//! Changes of a body: what they say, and that applied to the old body they give the new one.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Change, change};

/// What a client does with a change.
fn apply(body: &mut Value, change: &Value) {
    for (name, value) in change.as_object().unwrap() {
        let known = body.get(name).and_then(Value::as_array);
        let (Some(rows), Some(set)) = (known, value.get("set").and_then(Value::as_array)) else {
            body[name] = value.clone();
            continue;
        };
        let uid = |row: &Value| row["objectMeta"]["uid"].as_str().unwrap().to_owned();
        let named = |list: &Value| -> Vec<String> {
            list.as_array().unwrap().iter().map(|uid| uid.as_str().unwrap().to_owned()).collect()
        };
        let removed = named(&value["removed"]);
        let mut left: Vec<Value> =
            rows.iter().filter(|row| !removed.contains(&uid(row))).cloned().collect();
        for row in set {
            match left.iter_mut().find(|known| uid(known) == uid(row)) {
                Some(known) => *known = row.clone(),
                None => left.push(row.clone()),
            }
        }
        if let Some(order) = value.get("order") {
            let find = |wanted: &String| left.iter().find(|row| uid(row) == *wanted).cloned();
            left = named(order).iter().map(|uid| find(uid).unwrap()).collect();
        }
        body[name] = Value::Array(left);
    }
}

fn row(uid: usize, shown: usize) -> Value {
    json!({"objectMeta": {"uid": format!("u{uid}"), "name": format!("pod-{uid}")}, "shown": shown,
        "much": "more than the uid of a row, so that a change is shorter than the whole"})
}

fn list(rows: &[(usize, usize)]) -> Value {
    let rows: Vec<Value> = rows.iter().map(|(uid, shown)| row(*uid, *shown)).collect();
    json!({"listMeta": {"totalItems": rows.len()}, "status": {"running": 1}, "pods": rows,
        "errors": []})
}

fn told(old: &Value, new: &Value) -> Option<Value> {
    match change(old.to_string().as_bytes(), new.to_string().as_bytes()) {
        Change::Members(bytes) => Some(serde_json::from_slice(&bytes).unwrap()),
        Change::Nothing => Some(json!({})),
        Change::Whole => None,
    }
}

#[test]
fn a_changed_row_is_sent_without_its_neighbours_and_without_an_order() {
    let (old, new) = (list(&[(1, 0), (2, 0), (3, 0)]), list(&[(1, 0), (2, 9), (3, 0)]));
    let told = told(&old, &new).unwrap();
    assert_eq!(told, json!({"pods": {"set": [row(2, 9)], "removed": []}}));
}

#[test]
fn a_row_that_is_gone_is_named_and_one_that_came_brings_the_order() {
    let old = list(&[(1, 0), (2, 0), (3, 0)]);
    let gone = told(&old, &list(&[(1, 0), (3, 0)])).unwrap();
    assert_eq!(gone["pods"], json!({"set": [], "removed": ["u2"]}));
    assert_eq!(gone["listMeta"], json!({"totalItems": 2}));
    let came = told(&old, &list(&[(4, 0), (1, 0), (2, 0), (3, 0)])).unwrap();
    let order = ["u4", "u1", "u2", "u3"];
    assert_eq!(came["pods"], json!({"order": order, "set": [row(4, 0)], "removed": []}));
}

#[test]
fn the_same_is_nothing_also_when_it_is_written_in_another_way() {
    let body = list(&[(1, 0)]);
    assert_eq!(told(&body, &body), Some(json!({})));
    let (old, new) = (br#"{"a":1,"b":[2]}"#, br#" {"b":[2],"a":1} "#);
    assert_eq!(change(old, new), Change::Nothing);
}

#[test]
fn a_member_that_is_no_list_of_objects_is_sent_again_as_it_is() {
    let filler = "a long member that stays as it is, so that a change is the shorter way to say it";
    let body = |member: Value| json!({"filler": [filler, filler], "member": member});
    for (old, new) in [
        (json!({"set": 1}), json!({"set": 2})),
        (json!([1, 2]), json!([2])),
        (json!(null), json!([row(1, 0)])),
        (json!([{"objectMeta": {}}]), json!([])),
        (json!([row(1, 0), row(1, 1)]), json!([row(1, 0)])),
        (json!([{"objectMeta": {"uid": ""}}]), json!([row(1, 1)])),
    ] {
        let told = told(&body(old), &body(new.clone()));
        assert_eq!(told, Some(json!({"member": new})));
    }
}

#[test]
fn what_no_change_can_say_is_sent_as_a_whole() {
    let filler = "a long member that stays as it is, so that length is not the reason for it";
    let odd = json!({"a": [row(1, 0)], "b": filler});
    let in_place = json!({"a": {"set": []}, "b": filler});
    for new in [json!({"b": filler}), in_place, json!([1]), json!(1)] {
        assert_eq!(told(&odd, &new), None, "{new}");
    }
    assert_eq!(change(b"no JSON", b"{}"), Change::Whole);
    // All of it changed.
    assert_eq!(told(&json!({"a": 1}), &json!({"a": 2})), None);
}

/// Rows in any order, each uid once.
fn some_rows() -> impl Strategy<Value = Vec<(usize, usize)>> {
    proptest::collection::vec((0..8usize, 0..3usize), 0..10).prop_map(|mut rows| {
        let mut seen = [false; 8];
        rows.retain(|(uid, _)| !std::mem::replace(&mut seen[*uid], true));
        rows
    })
}

proptest! {
    #[test]
    fn a_change_applied_to_the_old_body_gives_the_new_one(
        old in some_rows(),
        new in some_rows(),
    ) {
        let (mut body, new) = (list(&old), list(&new));
        match told(&body, &new) {
            Some(change) => apply(&mut body, &change),
            None => body = new.clone(),
        }
        prop_assert_eq!(body, new);
    }
}
