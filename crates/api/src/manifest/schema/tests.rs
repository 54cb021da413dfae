//! What the schema check finds, and what it says of it.

use serde_json::json;

use super::*;
use crate::manifest::yaml;

/// The findings of `text` against `schema`, as `line path: problem: found, expected; suggestion`.
#[track_caller]
fn check(schema: Json, text: &str, want: &[&str]) {
    let mut root = yaml::read(text.as_bytes()).remove(0).root.unwrap();
    let findings = super::check(&mut root, &[&schema], &schema, &Path::default(), (1, 1));
    let got: Vec<String> = findings
        .into_iter()
        .map(|finding| {
            let line = finding.in_file("f", None).to_string();
            line.strip_prefix("f:").unwrap_or_default().to_owned()
        })
        .collect();
    assert_eq!(got, want, "{text}");
}

#[test]
fn types() {
    let schema = json!({"properties": {
        "text": {"type": "string"}, "count": {"type": "integer"}, "share": {"type": "number"},
        "flag": {"type": "boolean"}, "list": {"type": "array", "items": {"type": "string"}},
        "map": {"type": "object", "additionalProperties": {"type": "integer"}},
        "named": {"type": "object", "properties": {"name": {"type": "string"}}},
        "wait": {"type": "string", "format": "holdfast-duration"},
    }});
    check(schema.clone(), "text: x\ncount: 3\nshare: 3\nflag: true\nlist: [a]\nmap: {a: 1}\nnamed: {name: x}\n", &[]);
    check(
        schema,
        "text: 0644\ncount: '5'\nshare: '0.5'\nflag: 'yes'\nlist: a\nmap: {a: b}\nnamed: x\nwait: 90\n",
        &[
            "1:7: text: wrong value: found 0644 (read as 420), expected a text; write \"0644\" in quotes",
            "2:8: count: wrong value: found \"5\", expected an integer; write 5 without quotes",
            "3:8: share: wrong value: found \"0.5\", expected a number; write 0.5 without quotes",
            "4:7: flag: wrong value: found \"yes\", expected true or false; write true without quotes",
            "5:7: list: wrong value: found \"a\", expected a list; write a list: [a]",
            "6:10: map.a: wrong value: found \"b\", expected an integer",
            "7:8: named: wrong value: found \"x\", expected a mapping; write {name: x}",
            "8:7: wait: not a duration: found 90, expected numbers with units, such as 90s, 1h30m or 2d",
        ],
    );
}

#[test]
fn unknown_fields() {
    let schema = json!({"type": "object", "properties": {
        "schedule": {"type": "string"},
        "policy": {"type": "object", "properties": {"keepLast": {"type": "integer"}, "prune": {"type": "boolean"}}},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        "any": {},
    }});
    check(
        schema,
        "policy: {keepLst: 5, schedule: x, zzz: 1}\nprune: true\nfree: {a: 1}\nany: {b: 1}\n",
        &[
            "1:10: policy.keepLst: unknown field; did you mean keepLast?",
            "1:22: policy.schedule: unknown field; it belongs further out: check its indentation",
            "1:35: policy.zzz: unknown field; known here: keepLast, prune",
            "2:1: prune: unknown field; did you mean policy.prune? indent it under policy",
        ],
    );
}

#[test]
fn required_and_null() {
    let schema = json!({"type": "object", "required": ["a", "b"], "properties": {
        "a": {"type": "string"}, "b": {"type": "integer"}, "c": {"type": "string", "nullable": true},
        "d": {"type": ["string", "null"]}, "e": {"anyOf": [{"type": "string"}, {"type": "null"}]},
    }});
    check(
        schema,
        "a:\nc:\nd:\ne:\n",
        &["1:1: a: missing field: expected a text", "1:1: b: missing field: expected an integer"],
    );
}

#[test]
fn enumerations() {
    let listed = json!({"properties": {"p": {"enum": ["Always", "IfNotRecovered"], "type": "string"}}});
    let described = json!({"properties": {"p": {"oneOf": [
        {"const": "Always", "description": "d"}, {"type": "string", "enum": ["IfNotRecovered"]}]}}});
    for schema in [listed, described] {
        check(schema.clone(), "p: Always\n", &[]);
        check(
            schema.clone(),
            "p: always\n",
            &["1:4: p: wrong value: found \"always\", expected Always or IfNotRecovered; did you mean Always?"],
        );
        check(schema, "p: 5\n", &["1:4: p: wrong value: found 5, expected Always or IfNotRecovered"]);
    }
}

#[test]
fn references_and_combinations() {
    let schema = json!({
        "$defs": {"S3": {"type": "object", "required": ["bucket"], "properties": {"bucket": {"type": "string"}}}},
        "type": "object",
        "properties": {"s3": {"$ref": "#/$defs/S3"}, "maybe": {"anyOf": [{"$ref": "#/$defs/S3"}, {"type": "null"}]}},
        "allOf": [{"properties": {"name": {"type": "string"}}}],
        "oneOf": [{"required": ["s3"]}, {"required": ["maybe"]}],
    });
    check(schema.clone(), "s3: {bucket: b}\nname: x\n", &[]);
    check(
        schema.clone(),
        "s3: {buckte: b}\nnmae: x\n",
        &["1:6: s3.buckte: unknown field; did you mean bucket?", "2:1: nmae: unknown field; did you mean name?"],
    );
    check(schema.clone(), "maybe: {}\n", &["1:1: maybe.bucket: missing field: expected a text"]);
    check(schema.clone(), "{}\n", &["1:1: exactly one of s3 and maybe must be set: found none"]);
    check(
        schema,
        "s3: {bucket: b}\nmaybe: {bucket: b}\n",
        &["2:1: exactly one of s3 and maybe must be set: found s3 and maybe"],
    );
}

#[test]
fn a_schema_that_refers_to_itself_ends() {
    let schema =
        json!({"$defs": {"A": {"allOf": [{"$ref": "#/$defs/A"}, {"$ref": "#/$defs/A"}]}}, "$ref": "#/$defs/A"});
    check(schema, "a: 1\n", &[]);
    let schema = json!({"$defs": {"A": {"anyOf": [{"$ref": "#/$defs/A"}, {"type": "string"}]}}, "properties": {"a": {"$ref": "#/$defs/A"}}});
    let mut root = yaml::read(b"a: x\n").remove(0).root.unwrap();
    super::check(&mut root, &[&schema], &schema, &Path::default(), (1, 1));
}

#[test]
fn numbers_and_lengths() {
    let schema = json!({"properties": {
        "port": {"type": "integer", "format": "uint16", "minimum": 1}, "small": {"type": "integer", "format": "int32"},
        "name": {"type": "string", "minLength": 1, "maxLength": 3}, "list": {"type": "array", "minItems": 1},
    }});
    check(schema.clone(), "port: 80\nsmall: -5\nname: abc\nlist: [1]\n", &[]);
    check(
        schema,
        "port: 70000\nsmall: 3000000000\nname: ''\nlist: []\n",
        &[
            "1:7: port: wrong value: found 70000, expected a number from 1 to 65535",
            "2:8: small: wrong value: found 3000000000, expected a number from -2147483648 to 2147483647",
            "3:7: name: wrong value: found \"\", expected a text that is not empty",
            "4:7: list: wrong value: found an empty list, expected at least 1 in the list",
        ],
    );
}

#[test]
fn quantities_and_ports() {
    let schema = json!({"properties": {
        "cpu": {"description": "Quantity is a fixed-point number.", "x-kubernetes-int-or-string": true},
        "memory": {"x-kubernetes-int-or-string": true, "format": "holdfast-quantity"},
        "port": {"x-kubernetes-int-or-string": true},
    }});
    check(schema.clone(), "cpu: 0.5\nmemory: 64Mi\nport: http\n", &[]);
    check(
        schema.clone(),
        "cpu: half\nmemory: 64MB\nport: 1.5\n",
        &[
            "1:6: cpu: not a quantity: found \"half\", expected a number with a suffix or none, such as 128Mi, 250m or 2",
            "2:9: memory: not a quantity: found \"64MB\", expected a number with a suffix or none, such as 128Mi, 250m or 2; did you mean \"64M\"?",
            "3:7: port: wrong value: found 1.5, expected an integer or a text",
        ],
    );
    let mut root = yaml::read(b"cpu: 2\nport: 80\n").remove(0).root.unwrap();
    super::check(&mut root, &[&schema], &schema, &Path::default(), (1, 1));
    assert_eq!(root.to_json(), json!({"cpu": "2", "port": 80}));
}

#[test]
fn rules_of_one_choice() {
    for rule in ["has(self.a) != has(self.b)", "[has(self.a), has(self.b)].filter(x, x).size() == 1"] {
        assert_eq!(one_of_rule(rule), Some(vec!["a", "b"]));
    }
    for rule in ["has(self.a) == has(self.b)", "has(self.a)", "has(self.a) != (has(self.b) && size(self.b) > 0)", ""] {
        assert_eq!(one_of_rule(rule), None);
    }
}
