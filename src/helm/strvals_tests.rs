//! Helm's own cases (`pkg/strvals/parser_test.go`), and the bounds that are ours.

use serde_json::{Map, Value, json};

use super::{INDEX, INDEXES, ITEMS, NAMES, set};

fn onto(before: Value, lines: &[&str], strings: bool) -> Result<Value, String> {
    let mut into = before.as_object().unwrap().clone();
    let mut room = ITEMS;
    for line in lines {
        set(line, &mut into, strings, &mut room)?;
    }
    Ok(Value::Object(into))
}

fn parsed(line: &str) -> Result<Value, String> {
    onto(json!({}), &[line], false)
}

#[test]
fn lines_mean_what_they_mean_to_helm() {
    let inner = json!({"outer": {"inner1": "value", "middle": {"inner": "value"}}});
    let cases = [
        ("", json!({})),
        ("name1=null,f=false,t=true", json!({"name1": null, "f": false, "t": true})),
        ("a=NULL,b=True,c=FALSE", json!({"a": null, "b": true, "c": false})),
        ("name1=value1", json!({"name1": "value1"})),
        ("name1=value1,name2=value2", json!({"name1": "value1", "name2": "value2"})),
        ("name1=value1,name2=value2,", json!({"name1": "value1", "name2": "value2"})),
        ("name1=,name2=value2", json!({"name1": "", "name2": "value2"})),
        ("leading_zeros=00009", json!({"leading_zeros": "00009"})),
        ("zero_int=0", json!({"zero_int": 0})),
        ("long_int=1234567890", json!({"long_int": 1_234_567_890_i64})),
        ("a=-5,b=+5,c=1.5,d=1e3", json!({"a": -5, "b": 5, "c": "1.5", "d": "1e3"})),
        ("a=9223372036854775808", json!({"a": "9223372036854775808"})),
        ("boolean=true", json!({"boolean": true})),
        ("is_null=null", json!({"is_null": null})),
        (r"name1=one\,two,name2=three\,four", json!({"name1": "one,two", "name2": "three,four"})),
        (r"name1=one\=two,name2=three\=four", json!({"name1": "one=two", "name2": "three=four"})),
        (r"a\.b/c=d", json!({"a.b/c": "d"})),
        ("name1=a=b", json!({"name1": "a=b"})),
        ("name1=one two three,name2=x y", json!({"name1": "one two three", "name2": "x y"})),
        ("outer.inner=value", json!({"outer": {"inner": "value"}})),
        ("outer.middle.inner=value", json!({"outer": {"middle": {"inner": "value"}}})),
        ("outer.a=value,outer.b=value2", json!({"outer": {"a": "value", "b": "value2"}})),
        ("outer.inner1=value,outer.middle.inner=value", inner),
        ("name1.name2=", json!({"name1": {"name2": ""}})),
        ("name1={value1,value2}", json!({"name1": ["value1", "value2"]})),
        ("a={x,y},b={x,y}", json!({"a": ["x", "y"], "b": ["x", "y"]})),
        ("name1={1021,902}", json!({"name1": [1021, 902]})),
        ("name1={}", json!({"name1": [""]})),
        ("name1.name2={x,y}", json!({"name1": {"name2": ["x", "y"]}})),
        ("list[0]=foo", json!({"list": ["foo"]})),
        ("list[0]={a,b}", json!({"list": [["a", "b"]]})),
        ("list[0].foo=bar", json!({"list": [{"foo": "bar"}]})),
        ("list[0].foo=bar,list[0].hello=x", json!({"list": [{"foo": "bar", "hello": "x"}]})),
        ("list[0]=foo,list[1]=bar", json!({"list": ["foo", "bar"]})),
        ("list[0]=foo,list[1]=bar,", json!({"list": ["foo", "bar"]})),
        ("list[0]=foo,list[3]=bar", json!({"list": ["foo", null, null, "bar"]})),
        ("noval[0]", json!({"noval": []})),
        ("noval[0]=", json!({"noval": [""]})),
        ("nested[0][0]=1", json!({"nested": [[1]]})),
        ("nested[1][1]=1", json!({"nested": [null, [null, 1]]})),
        ("a.b[0].c=d,a.b[1].c=d", json!({"a": {"b": [{"c": "d"}, {"c": "d"}]}})),
        ("a.b[1].c=d,a.b[0].c=d", json!({"a": {"b": [{"c": "d"}, {"c": "d"}]}})),
        ("a.b[1].c=d", json!({"a": {"b": [null, {"c": "d"}]}})),
    ];
    for (line, wanted) in cases {
        assert_eq!(parsed(line), Ok(wanted), "{line}");
    }
}

#[test]
fn lines_that_helm_refuses_are_refused() {
    let cases = [
        "name1=value1,,,,name2=value2,",
        "name1,name2=",
        "name1,name2=value2",
        "name1,name2=value2\\",
        "name1,name2",
        "name1.name2",
        "name1.name2,name1.name3",
        "name1.=name2",
        "name1.,name2",
        "name1={1021,902",
        "list[0].foo=bar,list[-30].hello=world",
        "list[0]=foo,list[-20]=bar",
        "list[x]=foo",
        "list[0",
        "illegal[0]name.foo=bar",
        "a=b,a.c=d",
        "a=b,a[0]=d",
        "]={}].",
    ];
    for line in cases {
        assert!(parsed(line).is_err(), "{line}: {:?}", parsed(line));
    }
}

#[test]
fn a_refusal_repeats_no_number_of_the_line() {
    let large = format!("an index is greater than the maximum supported index of {INDEX}");
    assert_eq!(parsed("a[-12345678]=1"), Err("negative index not allowed".to_owned()));
    assert_eq!(parsed("a[99999999]=1"), Err(large));
}

#[test]
fn with_strings_every_value_is_a_text() {
    let cases = [
        ("long_int_string=1234567890", json!({"long_int_string": "1234567890"})),
        ("boolean=true", json!({"boolean": "true"})),
        ("is_null=null", json!({"is_null": "null"})),
        ("zero=0", json!({"zero": "0"})),
        ("list={1,true}", json!({"list": ["1", "true"]})),
    ];
    for (line, wanted) in cases {
        assert_eq!(onto(json!({}), &[line], true), Ok(wanted), "{line}");
    }
}

#[test]
fn lines_are_set_into_what_is_there() {
    let before = json!({"outer": {"inner1": "overwrite", "inner2": "value2"}});
    let line = "outer.inner1=value1,outer.inner3=value3,outer.inner4=4";
    let wanted = json!({"outer": {
        "inner1": "value1", "inner2": "value2", "inner3": "value3", "inner4": 4,
    }});
    assert_eq!(onto(before, &[line], false), Ok(wanted));

    let lines = ["l[0][0].type=listValue", "l[0][0].status=alive"];
    let wanted = json!({"l": [[{"type": "listValue", "status": "alive"}]]});
    assert_eq!(onto(json!({}), &lines, false), Ok(wanted));

    let lines = ["l[0][0].type=listValue", "l[1][0].status=alive"];
    let wanted = json!({"l": [[{"type": "listValue"}], [{"status": "alive"}]]});
    assert_eq!(onto(json!({}), &lines, false), Ok(wanted));

    let lines = ["l[0][1][0].type=listValue", "l[0][0][1].status=alive"];
    let wanted = json!({"l": [[
        [{"exited": "old"}, {"status": "alive"}],
        [{"type": "listValue"}],
    ]]});
    assert_eq!(onto(json!({"l": [[[{"exited": "old"}]]]}), &lines, false), Ok(wanted));

    assert_eq!(onto(json!({"a": {}}), &["a."], false), Ok(json!({"a": {}})));
}

#[test]
fn names_nest_as_deep_as_helm_lets_them() {
    let deep = |dots: usize| format!("{}z=1", "n.".repeat(dots));
    assert!(parsed(&deep(NAMES)).is_ok());
    let refused = parsed(&deep(NAMES + 1));
    let wanted = "value name nested level is greater than maximum supported nested level of 30";
    assert_eq!(refused, Err(wanted.to_owned()));
}

#[test]
fn indexes_are_bounded_in_depth_size_and_sum() {
    let deep = |count: usize| format!("a{}=1", "[0]".repeat(count));
    assert!(parsed(&deep(INDEXES)).is_ok());
    assert!(parsed(&deep(INDEXES + 1)).is_err());
    assert!(parsed(&deep(100_000)).is_err());

    assert!(parsed("a[65536]=1").is_ok());
    assert!(parsed("a[65537]=1").is_err());
    assert!(parsed("a[99999999999999999999]=1").is_err());

    let mut into = Map::new();
    let mut room = ITEMS;
    let refused = (0..10)
        .map(|at| set(&format!("a[{at}][65000]=1"), &mut into, false, &mut room))
        .find_map(Result::err);
    assert_eq!(refused, Some(format!("all indexes together make more than {ITEMS} items")));
}
