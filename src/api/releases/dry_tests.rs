//! What refusals of dry runs mean, and what is sent, without a cluster.

use super::*;

fn refused(code: u16, body: &Value) -> Failure {
    let code = StatusCode::from_u16(code).unwrap();
    Failure::status(code, body.to_string().as_bytes())
}

#[test]
fn a_refusal_is_told_by_what_the_api_server_says() {
    let said = |code: u16, message: &str| class(&refused(code, &json!({"message": message})));
    assert_eq!(said(403, "pods \"a\" is forbidden: exceeded quota: q"), "quota");
    assert_eq!(said(403, "pods is forbidden: User \"x\" cannot create"), "forbidden");
    let ending = "unable to create new content in namespace n because it is being terminated";
    assert_eq!(said(403, ending), "namespace-terminating");
    assert_eq!(said(409, "Apply failed with 1 conflict: conflict with \"k\""), "conflict");
    assert_eq!(said(422, "spec.selector: Invalid value: field is immutable"), "immutable");
    assert_eq!(said(400, "admission webhook \"w\" denied the request: no"), "webhook");
    assert_eq!(said(400, "strict decoding error: unknown field \"spec.x\""), "invalid-object");
}

#[test]
fn a_problem_is_told_with_how_bad_it_is() {
    let told = |problem: Problem| serde_json::to_string(&problem).unwrap();
    let rest = r#""message":"m","detail":""}"#;
    let error = told(Problem::error("quota", "m".to_owned()));
    assert_eq!(error, format!(r#"{{"class":"quota","severity":"error",{rest}"#));
    let info = told(Problem::info("kept", "m".to_owned()));
    assert_eq!(info, format!(r#"{{"class":"kept","severity":"info",{rest}"#));
}

#[test]
fn a_namespace_that_is_not_there_is_told_from_an_object_that_is_not() {
    let of = |kind: &str| {
        refused(404, &json!({"message": "m", "details": {"kind": kind, "name": "atlas"}}))
    };
    assert_eq!(missing_namespace(&of("namespaces")), Some("atlas"));
    assert_eq!(missing_namespace(&of("configmaps")), None);
}

#[test]
fn only_conflicts_with_the_engine_alone_are_taken_over() {
    let of = |managers: &[&str]| {
        let causes = managers.iter().map(|manager| {
            json!({"reason": "FieldManagerConflict",
                "message": format!("conflict with \"{manager}\" using apps/v1")})
        });
        let causes: Vec<Value> = causes.collect();
        refused(409, &json!({"message": "m", "details": {"causes": causes}}))
    };
    assert!(is_own_conflict(&of(&["helm", "helm"])));
    assert!(!is_own_conflict(&of(&["helm", "kubectl"])) && !is_own_conflict(&of(&[])));
}

#[test]
fn what_the_api_server_repeats_of_a_secret_is_hidden() {
    let secret = json!({"kind": "Secret", "stringData": {"a": 4711, "b": "hunter2", "c": ""}});
    let message = "expected string, got 4711, near hunter2".to_owned();
    let hidden = without_secrets(message.clone(), &secret);
    assert_eq!(hidden, "expected string, got ***, near ***");
    assert_eq!(without_secrets(message.clone(), &json!({"kind": "Pod"})), message);
}

#[test]
fn the_engines_marks_are_added_where_a_template_left_an_empty_map() {
    let mut object = json!({"metadata": {"labels": null, "annotations": {"a": "b"}}});
    mark(&mut object, "labels", "x", "1");
    mark(&mut object, "annotations", "y", "2");
    let expected = json!({"metadata": {"labels": {"x": "1"},
        "annotations": {"a": "b", "y": "2"}}});
    assert_eq!(object, expected);
}
