//! Texts as helm 4.2 and 3.21 wrote them against a real API server.

use super::*;
use crate::helm::redact::without_value;

/// What both majors say, and what it is.
const TEXTS: &[(&str, &str)] = &[
    ("name-taken", "Error: INSTALLATION FAILED: cannot re-use a name that is still in use"),
    (
        "name-taken",
        "level=ERROR msg=\"release name check failed\" error=\"cannot reuse a name\"\n\
         Error: INSTALLATION FAILED: release name check failed: cannot reuse a name that is still in use",
    ),
    (
        "pending",
        "Error: UPGRADE FAILED: another operation (install/upgrade/rollback) is in progress",
    ),
    (
        "pending",
        "Error: UPGRADE FAILED: create: failed to create: secrets \
         \"sh.helm.release.v1.web.v2\" already exists",
    ),
    (
        "namespace-missing",
        "Error: INSTALLATION FAILED: create: failed to create: namespaces \"nope\" not found",
    ),
    ("no-deployed", "Error: UPGRADE FAILED: \"zz\" has no deployed releases"),
    ("not-found", "Error: release: not found"),
    ("not-found", "Error: release has no 7 version"),
    ("not-found", "Error: uninstall: Release not loaded: zz: release: not found"),
    ("not-found", "Error: the release named \"slow\" is already deleted"),
    ("not-found", "Error: INSTALLATION FAILED: deployments.apps \"slow\" not found"),
    (
        "conflict",
        "Error: INSTALLATION FAILED: unable to continue with install: ConfigMap \"a\" in namespace \
         \"t4\" exists and cannot be imported into the current release: invalid ownership metadata; \
         annotation validation error: key \"meta.helm.sh/release-name\" must equal \"b\": current \
         value is \"a\"",
    ),
    (
        "conflict",
        "level=WARN msg=\"upgrade failed\" name=dep3 error=\"conflict occurred\"\n\
         Error: UPGRADE FAILED: conflict occurred while applying object t4/dep apps/v1, \
         Kind=Deployment: Apply failed with 1 conflict: conflict with \"foo\" using apps/v1: \
         .spec.replicas",
    ),
    (
        "conflict",
        "Error: UPGRADE FAILED: invalid client update option(s): forceConflicts enabled when \
         serverSideApply disabled",
    ),
    (
        "forbidden",
        "Error: INSTALLATION FAILED: unable to continue with install: could not get information \
         about the resource ConfigMap \"ab\" in namespace \"t4x\": configmaps \"ab\" is forbidden: \
         User \"nobody\" cannot get resource \"configmaps\" in API group \"\" in the namespace \"t4x\"",
    ),
    (
        "forbidden",
        "Error: UPGRADE FAILED: query: failed to query with labels: secrets is forbidden: User \
         \"nobody\" cannot list resource \"secrets\" in API group \"\" in the namespace \"a\"",
    ),
    (
        "crd-missing",
        "Error: INSTALLATION FAILED: unable to build kubernetes objects from release manifest: \
         resource mapping not found for name: \"x\" namespace: \"\" from \"\": no matches for kind \
         \"Nope\" in version \"nope.io/v1\"\nensure CRDs are installed first",
    ),
    (
        "api-removed",
        "Error: UPGRADE FAILED: unable to build kubernetes objects from current release manifest: \
         resource mapping not found for name: \"x\" namespace: \"\" from \"\": no matches for kind \
         \"PodSecurityPolicy\" in version \"policy/v1beta1\"\nensure CRDs are installed first",
    ),
    (
        "crd-missing",
        "Error: UPGRADE FAILED: unable to build kubernetes objects from new release manifest: \
         resource mapping not found for name: \"x\" namespace: \"\" from \"\": no matches for kind \
         \"Nope\" in version \"nope.io/v1\"\nensure CRDs are installed first",
    ),
    (
        "invalid-object",
        "Error: INSTALLATION FAILED: server-side apply failed for object t4x/X_Y /v1, Kind=Service: \
         Service \"X_Y\" is invalid: [metadata.name: Invalid value: \"X_Y\": a lowercase RFC 1123 \
         label must consist of lower case alphanumeric characters]",
    ),
    (
        "invalid-object",
        "Error: INSTALLATION FAILED: server-side apply failed for object t4x/svc /v1, Kind=Service: \
         failed to create typed patch object (t4x/svc; /v1, Kind=Service): .spec.bogus: field not \
         declared in schema",
    ),
    (
        "invalid-object",
        "Error: INSTALLATION FAILED: 1 error occurred:\n\t* Service \"X_Y\" is invalid: \
         [metadata.name: Invalid value: \"X_Y\"]\n\n",
    ),
    (
        "invalid-object",
        "Error: INSTALLATION FAILED: server-side apply failed for object a/b64 /v1, Kind=Secret: \
         failed to convert new object (a/b64; /v1, Kind=Secret) to proper version: unable to convert \
         unstructured object to /v1, Kind=Secret: error decoding from json: illegal base64 data at \
         input byte 3",
    ),
    (
        "hook-failed",
        "Error: INSTALLATION FAILED: failed pre-install: resource Job/t4x/hk not ready. status: \
         InProgress, message: Job in progress\ncontext deadline exceeded",
    ),
    (
        "hook-failed",
        "Error: INSTALLATION FAILED: failed pre-install: 1 error occurred:\n\t* timed out waiting \
         for the condition\n\n",
    ),
    (
        "hook-failed",
        "Error: UPGRADE FAILED: post-upgrade hooks failed: 1 error occurred:\n\t* job hk failed: \
         BackoffLimitExceeded\n\n",
    ),
    (
        "timeout",
        "Error: INSTALLATION FAILED: resource Deployment/t4x/dep not ready. status: InProgress, \
         message: Replicas: 0/1\ncontext deadline exceeded",
    ),
    ("timeout", "Error: INSTALLATION FAILED: context deadline exceeded"),
    (
        "quota",
        "Error: INSTALLATION FAILED: server-side apply failed for object t4x-q/aq /v1, \
         Kind=ConfigMap: configmaps \"aq\" is forbidden: exceeded quota: q, requested: \
         configmaps=1, used: configmaps=0, limited: configmaps=0",
    ),
    (
        "quota",
        "Error: INSTALLATION FAILED: failed pre-install: warning: Hook pre-install web/a.yaml \
         failed: 1 error occurred:\n\t* jobs.batch \"a\" is forbidden: exceeded quota: q\n\n",
    ),
    (
        "namespace-terminating",
        "Error: INSTALLATION FAILED: create: failed to create: secrets \"sh.helm.release.v1.q.v1\" \
         is forbidden: unable to create new content in namespace t4x-term because it is being \
         terminated",
    ),
    ("cancelled", "Error: INSTALLATION FAILED: context canceled"),
    (
        "too-large",
        "Error: INSTALLATION FAILED: create: failed to create: Secret \
         \"sh.helm.release.v1.big.v1\" is invalid: data: Too long: may not be more than 1048576 bytes",
    ),
    (
        "too-large",
        "fatal error: runtime: out of memory\n\nruntime stack:\nruntime.throw({0x269abc5?, \
         0x78000000?})\n\truntime/panic.go:1229 +0x48 fp=0x51d0097ce0 sp=0x51d0097cb0 pc=0x489d08\n",
    ),
    ("too-large", "fatal error: out of memory allocating heap arena metadata\n\nruntime stack:\n"),
    ("too-large", "fatal error: runtime: cannot allocate memory\n\nruntime stack:\n"),
    (
        "immutable",
        "Error: UPGRADE FAILED: cannot patch \"dep\" with kind Deployment: Deployment.apps \"dep\" \
         is invalid: spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"c\"}}: field is immutable",
    ),
    (
        "immutable",
        "Error: UPGRADE FAILED: cannot patch \"db\" with kind StatefulSet: StatefulSet.apps \"db\" \
         is invalid: spec: Forbidden: updates to statefulset spec for fields other than 'replicas' \
         are forbidden",
    ),
    (
        "credentials",
        "Error: INSTALLATION FAILED: cluster reachability check failed: kubernetes cluster \
         unreachable: the server has asked for the client to provide credentials",
    ),
    (
        "unreachable",
        "Error: UPGRADE FAILED: kubernetes cluster unreachable: Get \"http://127.0.0.1:1/version\": \
         dial tcp 127.0.0.1:1: connect: connection refused",
    ),
    (
        "webhook",
        "Error: INSTALLATION FAILED: Internal error occurred: failed calling webhook \"w.x.io\": \
         Post \"https://w.x.svc:443/\": dial tcp 10.0.0.1:443: connect: connection refused",
    ),
    (
        "webhook",
        "Error: UPGRADE FAILED: admission webhook \"w.x.io\" denied the request: no latest tags",
    ),
    (
        "render-failed",
        "Error: execution error at (web/templates/b.yaml:1:3): image is needed\n\n\
         Use --debug flag to render out invalid YAML",
    ),
    (
        "render-failed",
        "Error: INSTALLATION FAILED: execution error at (web/templates/b.yaml:1:3): exceeded quota",
    ),
    (
        "render-failed",
        "Error: parse error at (web/templates/b.yaml:1): unexpected \"}\" in operand",
    ),
    (
        "render-failed",
        "Error: YAML parse error on web/templates/b.yaml: error converting YAML to JSON: yaml: \
         mapping values are not allowed in this context",
    ),
    (
        "render-failed",
        "Error: web/templates/b.yaml:1:10\n  executing \"web/templates/b.yaml\" at \
         <.Values.a.b.c>:\n    nil pointer evaluating interface {}.b",
    ),
    (
        "render-failed",
        "Error: template: web/templates/b.yaml:1:10: executing \"web/templates/b.yaml\" at \
         <.Values.a.b.c>: nil pointer evaluating interface {}.b",
    ),
    ("chart-broken", "Error: Chart.yaml file is missing"),
    ("chart-broken", "Error: validation: chart.metadata.version \"abc\" is invalid"),
    (
        "chart-broken",
        "Error: INSTALLATION FAILED: An error occurred while checking for chart dependencies. You \
         may need to run `helm dependency build` to fetch missing dependencies: found in \
         Chart.yaml, but missing in charts/ directory: x",
    ),
    (
        "chart-broken",
        "Error: chart requires kubeVersion: >99 which is incompatible with Kubernetes v1.36.0",
    ),
    ("chart-broken", "Error: library charts are not installable"),
    (
        "chart-broken",
        "Error: cannot load values.yaml: cannot unmarshal yaml document: error converting YAML to \
         JSON: yaml: line 1: did not find expected node content",
    ),
    (
        "chart-broken",
        "Error: file '/x/chart.tgz' does not appear to be a gzipped archive; got \
         'application/octet-stream'",
    ),
    ("engine", "Error: unknown flag: --bogus"),
    (
        "engine",
        "level=WARN msg=x\npanic: runtime error: index out of range\n\ngoroutine 1 [running]:\nmain()",
    ),
    ("unknown", "Error: something nobody has seen"),
    ("unknown", ""),
    (
        "values-invalid",
        "Error: failed to parse values.json: cannot unmarshal yaml document: error converting YAML \
         to JSON: yaml: control characters are not allowed",
    ),
];

#[test]
fn what_helm_writes_is_classified() {
    for (class, text) in TEXTS {
        assert_eq!(classify(Why::Itself, text).class, *class, "{text}");
    }
}

#[test]
fn who_ended_the_engine_is_the_class_when_it_was_not_itself() {
    let text = "Error: INSTALLATION FAILED: context canceled";
    assert_eq!(classify(Why::Cancelled, text).class, "cancelled");
    assert_eq!(classify(Why::TimedOut, text).class, "timeout");
    assert_eq!(classify(Why::TooMuchOutput, text).class, "output-limit");
    assert_eq!(classify(Why::TooMuchOutput, text).detail, text);
}

#[test]
fn the_detail_is_the_last_error_without_the_log() {
    let text = "W1121 16:40:34.505437   32048 warnings.go:107] \"Warning: unknown field\"\n\
                level=WARN msg=\"upgrade failed\" name=dep3\n\
                Error: execution error at (a.yaml:1:3): no way\n\n\
                Use --debug flag to render out invalid YAML\n";
    let detail = classify(Why::Itself, text).detail;
    assert_eq!(detail, "Error: execution error at (a.yaml:1:3): no way");

    let long = format!("Error: {}", "é".repeat(DETAIL));
    let detail = classify(Why::Itself, &long).detail;
    assert!(detail.len() <= DETAIL && detail.ends_with('é'), "{}", detail.len());
    assert_eq!(classify(Why::Itself, "").detail, "");
}

#[test]
fn violations_of_schemas_are_told_one_by_one() {
    let text = "Error: INSTALLATION FAILED: values don't meet the specifications of the schema(s) \
                in the following chart(s):\n\
                web:\n\
                - at '': missing property 'image'\n\
                - at '/b': value must be one of 'x', 'y'\n\
                - at '/c': validation failed\n  \
                - at '/c/d/0': got number, want string\n  \
                - at '/c': additional properties 'e' not allowed\n\
                sub:\n\
                invalid type for values: expected object (map), got string\n\n";
    let told = classify(Why::Itself, text);
    let parts = |one: &SchemaError| (one.chart.clone(), one.path.clone(), one.message.clone());
    let schema: Vec<_> = told.schema.iter().map(parts).collect();
    let wanted = [
        ("web", "", "missing property 'image'"),
        ("web", "/b", "value must be one of 'x', 'y'"),
        ("web", "/c/d/0", "got number, want string"),
        ("web", "/c", "additional properties 'e' not allowed"),
        ("sub", "", "invalid type for values: expected object (map), got string"),
    ];
    let wanted = wanted.map(|(chart, path, message)| (chart.into(), path.into(), message.into()));
    assert_eq!((told.class, schema), ("values-invalid", wanted.to_vec()));
}

#[test]
fn violations_in_the_words_of_older_helms_are_understood() {
    let text = "Error: values don't meet the specifications of the schema(s) in the following \
                chart(s):\nweb:\n- (root): image is required\n- a.b: Invalid type. Expected: \
                string, given: number\n";
    let told = classify(Why::Itself, text).schema;
    let paths: Vec<_> = told.iter().map(|one| (&*one.path, &*one.message)).collect();
    let second = ("/a/b", "Invalid type. Expected: string, given: number");
    assert_eq!(paths, [("", "image is required"), second]);
}

#[test]
fn a_violation_does_not_repeat_the_value() {
    let cases = [
        (
            "- at '/password': 'hunter2' does not match pattern '^[A-Z]+$'",
            "- at '/password': the value does not match pattern '^[A-Z]+$'",
        ),
        (
            r"  - at '/a': 'it\'s' does not match pattern '^\'x'",
            r"  - at '/a': the value does not match pattern '^\'x'",
        ),
        (
            r"- at '/it\'s': 'hunter2\\' is not valid email: mail: \'hunter2\\\'",
            r"- at '/it\'s': the value is not valid email",
        ),
        // A value that looks like a message.
        (
            r"- at '/a': 'x\' does not match pattern \'hunter2' is not valid uri: hunter2",
            "- at '/a': the value is not valid uri",
        ),
        (
            r"- at '/a': 'x\' is not valid hunter2: y' does not match pattern 'z'",
            "- at '/a': the value does not match pattern 'z'",
        ),
        ("- at '/a': 'hunter2", "- at '/a': the value is not allowed"),
        // As helm writes of a value, and of a key, that ends in a backslash.
        (
            r#"- at '/a': 'it\'s "hunter2" \' does not match pattern '^[A-Z\']+$'"#,
            "- at '/a': the value is not allowed",
        ),
        (r"- at '/a\': 'hunter2' does not match pattern 'x'", "- the value is not allowed"),
        ("- at '/a': 'oneOf' failed, none matched", "- at '/a': 'oneOf' failed, none matched"),
        ("- at '/a': got number, want string", "- at '/a': got number, want string"),
        ("the value 'x' is not valid", "the value 'x' is not valid"),
    ];
    for (line, wanted) in cases {
        assert_eq!(without_value(line), wanted);
    }
    let text = "Error: values don't meet the specifications of the schema(s) in the following \
                chart(s):\nweb:\n- at '/password': 'hunter2' does not match pattern '^[A-Z]+$'\n";
    let told = classify(Why::Itself, text);
    assert!(!told.detail.contains("hunter2"), "{}", told.detail);
    let schema = (told.schema[0].path.as_str(), told.schema[0].message.as_str());
    assert_eq!(schema, ("/password", "the value does not match pattern '^[A-Z]+$'"));
}

#[test]
fn what_the_api_server_says_of_an_object_does_not_repeat_its_values() {
    let cases = [
        (
            ".stringData.password: expected string, got &value.valueUnstructured{Value:47110815}",
            ".stringData.password: expected string, which the value is not",
        ),
        (
            r#".a: expected string, got &value.valueUnstructured{Value:map[string]interface {}{"b":"hunter2\" } x", "c":[]interface {}{1, "hunter2"}}}: and more"#,
            ".a: expected string, which the value is not: and more",
        ),
        // In a line of the log, where all is quoted once more.
        (
            r#"level=WARN error="errors:\n  .a: expected string, got &value.valueUnstructured{Value:[]interface {}{\"hunt\\\"er2\\\\\"}}\n  .b: expected string, got &value.valueUnstructured{Value:1}\n  .c: field not declared in schema""#,
            r#"level=WARN error="errors:\n  .a: expected string, which the value is not\n  .b: expected string, which the value is not\n  .c: field not declared in schema""#,
        ),
        (
            r#"level=WARN error=".a: expected boolean, got &{hunter2}\n  .b: hunter2" name=a"#,
            r#"level=WARN error=".a: expected boolean, which the value is not"#,
        ),
        (".a: expected numeric (int or float), got string", ""),
        // A patch, with the Secret that is there.
        (
            r#"Secret:  "" is invalid: patch: Invalid value: "{\"data\":{\"a\":\"aHVudGVyMg==\"},\"stringData\":{\"a\":{\"b\":\"hunter2\\\" } x\"}}}": json: cannot unmarshal object"#,
            r#"Secret:  "" is invalid: patch: Invalid value: json: cannot unmarshal object"#,
        ),
        (
            r#"level=WARN error="patch: Invalid value: \"{\\\"a\\\":\\\"hunter2\\\\\\\" } x\\\"}\": json: cannot" name=a"#,
            r#"level=WARN error="patch: Invalid value: json: cannot" name=a"#,
        ),
        (
            r#"spec.template: Invalid value: {"Env":[{"Name":"P","Value":"hunter2\"}"}]}: field is immutable"#,
            "spec.template: Invalid value: field is immutable",
        ),
        (
            r#"[a.b: Invalid value: "hunter2": no, c: Invalid value: v1.Foo{A:"hunter2", B:map[string]interface {}{"a":"hunter2"}}: never, d: Invalid value: -1: no]"#,
            "[a.b: Invalid value: no, c: Invalid value: never, d: Invalid value: -1: no]",
        ),
        (r#"patch: Invalid value: "{\"a\":\"hunt …"#, "patch: Invalid value"),
        (r#"map key of type: x, key: <nil>, value: "hunter2""#, "map key of type: x, key: <nil>"),
        // Helm 3, and words of a chart's author.
        ("json: cannot unmarshal number into Go struct field Secret.stringData", ""),
        ("execution error at (a.yaml:1:3): Invalid value: must be positive", ""),
    ];
    for (line, wanted) in cases {
        assert_eq!(without_value(line), if wanted.is_empty() { line } else { wanted });
    }
}

#[test]
fn a_value_of_several_lines_is_left_out_to_its_last() {
    let text = "level=INFO msg=a\n\
                Error: INSTALLATION FAILED: failed to create typed patch object (a/b; /v1, \
                Kind=Secret): errors:\n  .stringData: expected map, got &{{password: hunter2}\n\
                other: hunter2\n\n}\n  .type: expected string, got \
                &value.valueUnstructured{Value:1}\n  .immutable: expected boolean, got &{hunter2\n\
                hunter2}\nlevel=INFO msg=b\nhunter2 is no value";
    let wanted = "Error: INSTALLATION FAILED: failed to create typed patch object (a/b; /v1, \
                  Kind=Secret): errors:\n  .stringData: expected map, which the value is not\n  \
                  .type: expected string, which the value is not\n  .immutable: expected boolean, \
                  which the value is not";
    let told = format!("level=INFO msg=a\n{wanted}\nlevel=INFO msg=b\nhunter2 is no value");
    assert_eq!(without_values(text), told);
    let error = text.split("\nlevel=INFO msg=b").next().unwrap();
    let trouble = classify(Why::Itself, error);
    assert_eq!((trouble.class, trouble.detail.as_str()), ("invalid-object", wanted));
}

#[test]
fn of_a_text_whose_beginning_was_cut_off_nothing_is_told_that_may_be_a_value() {
    let value = "hunter2\n".repeat(STDERR_KEPT / 8);
    let trouble = classify(Why::Itself, &value);
    assert_eq!((trouble.class, trouble.detail.as_str()), ("unknown", LONG));
    let text = format!("{value}Error: release: not found");
    assert_eq!(classify(Why::Itself, &text).detail, "Error: release: not found");
}

#[test]
fn violations_are_bounded() {
    let many = "- at '/a': got string, want integer\n".repeat(5000);
    let text = format!(
        "Error: values don't meet the specifications of the schema(s) in the following \
         chart(s):\nweb:\n{many}"
    );
    assert_eq!(classify(Why::Itself, &text).schema.len(), VIOLATIONS);
}

#[test]
fn in_a_test_it_is_the_test_that_failed() {
    let class = |text: &str| classify(Why::Itself, text).of_test().class;
    assert_eq!(class("Error: 1 error occurred:\n\t* pod tst failed\n\n"), "test-failed");
    assert_eq!(class("Error: pod tst failed\n"), "test-failed");
    let late = "Error: resource Pod/a/tst not ready. status: InProgress, message: Pod is in the \
                Pending phase\ncontext deadline exceeded";
    assert_eq!(class(late), "test-failed");
    assert_eq!(class("Error: release: not found"), "not-found");
}
