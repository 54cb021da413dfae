//! Checks a tree against a JSON schema, as an API server would, and finds every mistake in one pass.
//!
//! Knows the schemas that `schemars`, `k8s-openapi` and CustomResourceDefinitions write: `$ref`, `allOf`, `anyOf`,
//! `oneOf`, `nullable`, `enum`, `format`, numbers in bounds and Kubernetes' own extensions. Patterns and CEL rules
//! are left to the typed values, but for the rule that exactly one of several fields is set. Where a server
//! would drop a null or turn a number into a quantity, the tree is changed alike.

use std::collections::HashSet;

use serde_json::Value as Json;

use super::finding::Finding;
use super::format;
use super::path::Path;
use super::suggest::nearest;
use super::tree::{Entry, Node, Value};

/// Checks the node at `path` of an object against all of `schemas`, whose `$ref`s are looked up in `root`. `at` is the
/// place of the node's key.
pub(super) fn check(node: &mut Node, schemas: &[&Json], root: &Json, path: &Path, at: (usize, usize)) -> Vec<Finding> {
    let mut checker =
        Checker { root, path: path.clone(), nested: 0, outer: Vec::new(), findings: Vec::new(), told: HashSet::new() };
    checker.node(node, schemas, at, true);
    checker.findings
}

struct Checker<'s> {
    root: &'s Json,
    path: Path,
    /// How many alternatives this one stands in.
    nested: usize,
    /// The fields known on each level above.
    outer: Vec<Vec<&'s str>>,
    findings: Vec<Finding>,
    /// The paths and problems of `findings`.
    told: HashSet<(Path, String)>,
}

impl<'s> Checker<'s> {
    /// Checks a node against all of `schemas`. `closed`: whether fields that none of them knows are mistakes.
    fn node(&mut self, node: &mut Node, schemas: &[&'s Json], at: (usize, usize), closed: bool) {
        let parts = self.parts(schemas);
        if node.value == Value::Null && self.nullable(&parts) {
            return;
        }
        if let Some(allowed) = self.enumeration(&parts) {
            self.one_of_values(node, &allowed);
            return;
        }
        if parts.iter().any(|part| is_true(part, "x-kubernetes-int-or-string") || part["format"] == "int-or-string") {
            self.int_or_string(node, &parts);
            return;
        }
        if !self.has_type(node, &parts) {
            return;
        }
        for part in &parts {
            self.bounds(node, part);
            if let (Some(format), Value::Text(text)) = (part["format"].as_str(), &node.value)
                && let Some(wrong) = format::check(format, text)
            {
                self.report(node, |finding| wrong.describe(finding));
            }
        }
        self.alternatives(node, &parts, at);
        match &mut node.value {
            Value::List(items) => {
                let schemas: Vec<&Json> = parts.iter().filter_map(|part| part.get("items")).collect();
                for (index, item) in items.iter_mut().enumerate() {
                    self.path.push_index(index);
                    let at = (item.line, item.column);
                    self.outer.push(Vec::new());
                    self.node(item, &schemas, at, true);
                    self.outer.pop();
                    self.path.pop();
                }
            }
            Value::Map(entries) => {
                self.fields(entries, &parts, closed);
                self.required(node, &parts, at);
            }
            _ => {}
        }
    }

    /// The schemas that all apply: these, what they refer to, and the members of their `allOf`.
    fn parts(&self, schemas: &[&'s Json]) -> Vec<&'s Json> {
        let mut parts: Vec<&Json> = Vec::new();
        let mut open: Vec<&Json> = schemas.to_vec();
        while let Some(schema) = open.pop() {
            // A bound, lest a schema that refers to itself goes on for ever.
            if parts.len() >= 64 {
                break;
            }
            parts.push(schema);
            if let Some(target) = schema["$ref"].as_str() {
                open.extend(target.strip_prefix('#').and_then(|pointer| self.root.pointer(pointer)));
            }
            open.extend(schema["allOf"].as_array().into_iter().flatten());
        }
        parts
    }

    /// The alternatives of every `anyOf` and `oneOf`, without the one for null.
    fn branches(parts: &[&'s Json]) -> impl Iterator<Item = Vec<&'s Json>> {
        parts.iter().flat_map(|part| ["anyOf", "oneOf"].map(|key| part[key].as_array())).flatten().map(|branches| {
            branches
                .iter()
                .filter(|branch| branch["type"] != "null" && branch["enum"] != Json::from(vec![Json::Null]))
                .collect()
        })
    }

    fn nullable(&self, parts: &[&'s Json]) -> bool {
        let takes_null = |part: &Json| {
            is_true(part, "nullable")
                || part["type"] == "null"
                || part["type"].as_array().is_some_and(|types| types.iter().any(|t| t == "null"))
        };
        parts.iter().any(|part| {
            takes_null(part)
                || ["anyOf", "oneOf"].iter().filter_map(|key| part[key].as_array()).flatten().any(takes_null)
        }) || parts.iter().all(|part| {
            part.as_object().is_none_or(|part| {
                !part.contains_key("type") && !part.contains_key("$ref") && !part.contains_key("properties")
            })
        })
    }

    /// The values that are allowed where only listed values are, wherever the list stands.
    fn enumeration(&self, parts: &[&'s Json]) -> Option<Vec<&'s Json>> {
        let listed = |part: &'s Json| -> Option<Vec<&'s Json>> {
            match (&part["enum"], part.get("const")) {
                (Json::Array(values), _) => Some(values.iter().collect()),
                (_, Some(value)) => Some(vec![value]),
                _ => None,
            }
        };
        if let Some(values) = parts.iter().find_map(|part| listed(part)) {
            return Some(values);
        }
        Self::branches(parts)
            .find_map(|branches| branches.into_iter().map(listed).collect::<Option<Vec<_>>>())
            .filter(|lists| !lists.is_empty())
            .map(|lists| lists.into_iter().flatten().collect())
    }

    fn one_of_values(&mut self, node: &Node, allowed: &[&Json]) {
        let found = node.to_json();
        if allowed.contains(&&found) {
            return;
        }
        let texts: Vec<&str> = allowed.iter().filter_map(|value| value.as_str()).collect();
        let near = node.scalar_text().and_then(|text| nearest(&text, texts.iter().copied()));
        let list = allowed.iter().map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
        let expected = join(&list.collect::<Vec<_>>(), "or");
        self.report(node, |finding| {
            finding.expected(expected).suggest(near.map(|near| format!("did you mean {near}?")))
        });
    }

    fn int_or_string(&mut self, node: &mut Node, parts: &[&Json]) {
        let quantity = parts.iter().any(|part| {
            let refers = part["$ref"].as_str().is_some_and(|target| target.ends_with("resource.Quantity"));
            let describes = part["description"].as_str().is_some_and(|text| text.starts_with("Quantity is"));
            refers || describes || part["format"] == format::QUANTITY
        });
        if quantity {
            if let (Value::Number(_), Some(text)) = (&node.value, node.scalar_text()) {
                node.value = Value::Text(text);
            }
            match &node.value {
                Value::Text(text) => {
                    if let Some(wrong) = format::check(format::QUANTITY, text) {
                        self.report(node, |finding| wrong.describe(finding));
                    }
                }
                _ => self.report(node, |finding| finding.expected("a quantity such as 128Mi, 250m or 2")),
            }
            return;
        }
        match &node.value {
            Value::Text(_) => {}
            Value::Number(number) if number.is_i64() => {}
            _ => self.report(node, |finding| finding.expected("an integer or a text")),
        }
    }

    /// Whether the node has the type the schemas ask for; reports it if not.
    fn has_type(&mut self, node: &Node, parts: &[&'s Json]) -> bool {
        let types: Vec<&str> = parts
            .iter()
            .find_map(|part| match &part["type"] {
                Json::String(one) => Some(vec![one.as_str()]),
                Json::Array(several) => Some(several.iter().filter_map(Json::as_str).collect()),
                _ if part.get("properties").is_some() => Some(vec!["object"]),
                _ => None,
            })
            .unwrap_or_default();
        let fits = types.is_empty()
            || types.iter().any(|wanted| match &node.value {
                Value::Null => *wanted == "null",
                Value::Bool(_) => *wanted == "boolean",
                Value::Number(number) => *wanted == "number" || *wanted == "integer" && !number.is_f64(),
                Value::Text(_) => *wanted == "string",
                Value::List(_) => *wanted == "array",
                Value::Map(_) => *wanted == "object",
            });
        if !fits {
            // Quotes alone do not make a duration of a number.
            let text = if types.contains(&"string") { node.scalar_text() } else { None };
            let formats = parts.iter().filter_map(|part| part["format"].as_str());
            if let Some(wrong) =
                text.and_then(|text| formats.into_iter().find_map(|format| format::check(format, &text)))
            {
                self.report(node, |finding| wrong.describe(finding));
                return false;
            }
            let wanted: Vec<&str> = types.iter().copied().filter(|name| *name != "null").collect();
            let names: Vec<String> = wanted.iter().map(|name| type_name(name).to_owned()).collect();
            let suggestion = wanted.first().and_then(|wanted| self.retyped(node, wanted, parts));
            self.report(node, |finding| finding.expected(join(&names, "or")).suggest(suggestion));
        }
        fits
    }

    /// How to write a value so that it has the wanted type, where that is plain.
    fn retyped(&self, node: &Node, wanted: &str, parts: &[&'s Json]) -> Option<String> {
        let text = node.scalar_text()?;
        match (wanted, &node.value) {
            ("integer", Value::Text(_)) => {
                let number: i64 = text.trim().parse().ok()?;
                Some(format!("write {number} without quotes"))
            }
            ("number", Value::Text(_)) => {
                let number: f64 = text.trim().parse().ok()?;
                Some(format!("write {number} without quotes"))
            }
            ("boolean", Value::Text(_)) => match text.to_lowercase().as_str() {
                "true" | "yes" | "on" => Some("write true without quotes".to_owned()),
                "false" | "no" | "off" => Some("write false without quotes".to_owned()),
                _ => None,
            },
            ("string", Value::Bool(_) | Value::Number(_)) => Some(format!("write {text:?} in quotes")),
            ("array", _) => Some(format!("write a list: [{}]", quoted(&text))),
            ("object", _) if self.known(parts).contains(&"name") => Some(format!("write {{name: {}}}", quoted(&text))),
            _ => None,
        }
    }

    fn bounds(&mut self, node: &Node, part: &Json) {
        match &node.value {
            Value::Number(number) => {
                let value = number.as_f64().unwrap_or(f64::NAN);
                let format_range = match part["format"].as_str() {
                    Some("int32") => (Some(f64::from(i32::MIN)), Some(f64::from(i32::MAX))),
                    Some("uint32") => (Some(0.0), Some(f64::from(u32::MAX))),
                    Some("uint8") => (Some(0.0), Some(255.0)),
                    Some("uint16") => (Some(0.0), Some(65535.0)),
                    Some("uint" | "uint64") => (Some(0.0), None),
                    _ => (None, None),
                };
                let least = part["minimum"].as_f64().or(format_range.0);
                let most = part["maximum"].as_f64().or(format_range.1);
                if least.is_some_and(|least| value < least) || most.is_some_and(|most| value > most) {
                    let range = match (least, most) {
                        (Some(least), Some(most)) => format!("a number from {least} to {most}"),
                        (Some(least), None) => format!("a number of {least} or more"),
                        (None, most) => format!("a number of {} or less", most.unwrap_or_default()),
                    };
                    self.report(node, |finding| finding.expected(range));
                }
            }
            Value::Text(text) => {
                let length = text.chars().count() as u64;
                if part["minLength"].as_u64().is_some_and(|least| length < least) {
                    self.report(node, |finding| finding.expected("a text that is not empty"));
                } else if let Some(most) = part["maxLength"].as_u64().filter(|most| length > *most) {
                    self.report(node, |finding| finding.expected(format!("at most {most} characters")));
                }
            }
            Value::List(items) => {
                let length = items.len() as u64;
                if let Some(least) = part["minItems"].as_u64().filter(|least| length < *least) {
                    self.report(node, |finding| finding.expected(format!("at least {least} in the list")));
                } else if let Some(most) = part["maxItems"].as_u64().filter(|most| length > *most) {
                    self.report(node, |finding| finding.expected(format!("at most {most} in the list")));
                }
            }
            _ => {}
        }
    }

    /// Checks `anyOf` and `oneOf`: the node must fit one branch; if none, the nearest tells what is wrong.
    fn alternatives(&mut self, node: &mut Node, parts: &[&'s Json], at: (usize, usize)) {
        // A schema whose alternative is itself would go on for ever.
        if self.nested > self.path.0.len() + 8 {
            return;
        }
        for branches in Self::branches(parts) {
            if let Some(fields) = branches.iter().map(|branch| only_required(branch)).collect::<Option<Vec<_>>>() {
                self.exactly_one(node, &fields, None, at);
                continue;
            }
            let mut best: Option<(Vec<Finding>, Node)> = None;
            for branch in branches {
                let mut tried = node.clone();
                let mut checker = Checker {
                    root: self.root,
                    path: self.path.clone(),
                    nested: self.nested + 1,
                    outer: self.outer.clone(),
                    findings: Vec::new(),
                    told: HashSet::new(),
                };
                checker.node(&mut tried, &[branch], at, false);
                if best.as_ref().is_none_or(|(findings, _)| checker.findings.len() < findings.len()) {
                    best = Some((checker.findings, tried));
                }
            }
            if let Some((findings, tried)) = best {
                self.findings.extend(findings);
                *node = tried;
            }
        }
    }

    /// The fields that schemas and their branches know.
    fn known(&self, parts: &[&'s Json]) -> Vec<&'s str> {
        let mut known: Vec<&str> = Vec::new();
        let mut open: Vec<Vec<&Json>> = vec![parts.to_vec()];
        let mut depth = 0;
        while let Some(parts) = open.pop() {
            depth += 1;
            known.extend(
                parts.iter().filter_map(|part| part["properties"].as_object()).flatten().map(|(key, _)| key.as_str()),
            );
            if depth < 64 {
                open.extend(Self::branches(&parts).flatten().map(|branch| self.parts(&[branch])));
            }
        }
        known.sort_unstable();
        known.dedup();
        known
    }

    fn fields(&mut self, entries: &mut Vec<Entry>, parts: &[&'s Json], closed: bool) {
        let known = self.known(parts);
        let others: Vec<&Json> = parts.iter().filter_map(|part| part.get("additionalProperties")).collect();
        let free = parts.iter().any(|part| is_true(part, "x-kubernetes-preserve-unknown-fields"))
            || others.iter().any(|schema| schema.is_object() || **schema == true)
            || (known.is_empty() && !others.iter().any(|schema| **schema == false));
        self.outer.push(known.clone());
        entries.retain_mut(|entry| {
            let at = (entry.line, entry.column);
            let mut schemas: Vec<&Json> = parts.iter().filter_map(|part| part["properties"].get(&entry.key)).collect();
            let in_branch = schemas.is_empty() && known.contains(&entry.key.as_str());
            self.path.push_key(&entry.key);
            let mut keep = true;
            if schemas.is_empty() && !in_branch {
                if free {
                    schemas = others.iter().copied().filter(|schema| schema.is_object()).collect();
                } else if closed {
                    self.unknown(entry, &known, parts);
                }
            }
            if !schemas.is_empty() {
                // An API server drops a null where none may stand; then the field is not there.
                if entry.value.value == Value::Null && !self.nullable(&self.parts(&schemas)) {
                    keep = false;
                } else {
                    self.node(&mut entry.value, &schemas, at, true);
                }
            }
            self.path.pop();
            keep
        });
        self.outer.pop();
    }

    fn unknown(&mut self, entry: &Entry, known: &[&'s str], parts: &[&'s Json]) {
        let key = entry.key.as_str();
        let inside = || {
            known.iter().find(|field| {
                let schemas: Vec<&Json> = parts.iter().filter_map(|part| part["properties"].get(field)).collect();
                self.known(&self.parts(&schemas)).contains(&key)
            })
        };
        let outside = || self.outer.iter().rev().skip(1).any(|level| level.contains(&key));
        let suggestion = if let Some(near) = nearest(key, known.iter().copied()) {
            Some(format!("did you mean {near}?"))
        } else if let Some(field) = inside() {
            Some(format!("did you mean {field}.{key}? indent it under {field}"))
        } else if outside() {
            Some("it belongs further out: check its indentation".to_owned())
        } else if !known.is_empty() && known.len() <= 12 {
            let names: Vec<String> = known.iter().map(|name| (*name).to_owned()).collect();
            Some(format!("known here: {}", names.join(", ")))
        } else {
            None
        };
        let finding = Finding::new((entry.line, entry.column), &self.path, "unknown field").suggest(suggestion);
        self.add(finding);
    }

    fn required(&mut self, node: &Node, parts: &[&'s Json], at: (usize, usize)) {
        for part in parts {
            for field in part["required"].as_array().into_iter().flatten().filter_map(Json::as_str) {
                // A field that is there under a name nearly right is told once.
                let misspelt = || {
                    let known = self.known(parts);
                    node.entries().iter().any(|entry| {
                        !known.contains(&entry.key.as_str())
                            && nearest(&entry.key, known.iter().copied()) == Some(field)
                    })
                };
                if node.get(field).is_none() && !misspelt() {
                    let schemas: Vec<&Json> = parts.iter().filter_map(|part| part["properties"].get(field)).collect();
                    let wanted = self.parts(&schemas).iter().find_map(|part| part["type"].as_str()).map(type_name);
                    let mut finding = Finding::new(at, &self.path.key(field), "missing field");
                    finding.expected = wanted.map(str::to_owned);
                    self.add(finding);
                }
            }
            for rule in part["x-kubernetes-validations"].as_array().into_iter().flatten() {
                if let Some(fields) = rule["rule"].as_str().and_then(one_of_rule) {
                    self.exactly_one(node, &fields, rule["message"].as_str(), at);
                }
            }
        }
    }

    fn exactly_one(&mut self, node: &Node, fields: &[&str], message: Option<&str>, at: (usize, usize)) {
        let set: Vec<String> =
            fields.iter().filter(|field| node.get(field).is_some()).map(|field| (*field).to_owned()).collect();
        if set.len() == 1 {
            return;
        }
        // Of two, the second is the one too many.
        let at = set.get(1).and_then(|second| node.entry(second)).map_or(at, |second| (second.line, second.column));
        let problem = message.map_or_else(
            || {
                let names: Vec<String> = fields.iter().map(|field| (*field).to_owned()).collect();
                format!("exactly one of {} must be set", join(&names, "and"))
            },
            str::to_owned,
        );
        let found = if set.is_empty() { "none".to_owned() } else { join(&set, "and") };
        let finding = Finding::new(at, &self.path, problem).found(found);
        self.add(finding);
    }

    /// Adds a finding about a value of the wrong type or form.
    fn report(&mut self, node: &Node, complete: impl FnOnce(Finding) -> Finding) {
        let finding = Finding::new((node.line, node.column), &self.path, "wrong value").found(node.describe());
        self.add(complete(finding));
    }

    /// Adds a finding, unless the same stands there already from another part of the schema.
    fn add(&mut self, finding: Finding) {
        if self.told.insert((finding.path.clone(), finding.problem.clone())) {
            self.findings.push(finding);
        }
    }
}

fn is_true(schema: &Json, key: &str) -> bool {
    schema[key] == true
}

/// A schema's type as a reader knows it.
fn type_name(name: &str) -> &str {
    match name {
        "string" => "a text",
        "integer" => "an integer",
        "number" => "a number",
        "boolean" => "true or false",
        "array" => "a list",
        "object" => "a mapping",
        other => other,
    }
}

/// `a, b or c`.
fn join(words: &[String], last: &str) -> String {
    match words {
        [] => "nothing".to_owned(),
        [one] => one.clone(),
        [most @ .., end] => format!("{} {last} {end}", most.join(", ")),
    }
}

/// A text as YAML takes it in a flow list.
fn quoted(text: &str) -> String {
    let plain = text.chars().all(|c| c.is_alphanumeric() || "/._-".contains(c)) && !text.is_empty();
    if plain { text.to_owned() } else { format!("{text:?}") }
}

/// The field of a branch that says nothing but that this field must be there.
fn only_required(branch: &Json) -> Option<&str> {
    let fields = branch.as_object().filter(|fields| fields.len() == 1)?.get("required")?.as_array()?;
    match fields.as_slice() {
        [field] => field.as_str(),
        _ => None,
    }
}

/// The fields of a CEL rule that says that exactly one of them is set, in the forms in which the kinds of this crate
/// write it: `has(self.a) != has(self.b)` and `[has(self.a), has(self.b)].filter(x, x).size() == 1`.
fn one_of_rule(rule: &str) -> Option<Vec<&str>> {
    let items: Vec<&str> = match rule.strip_prefix('[') {
        Some(rest) => rest.strip_suffix("].filter(x, x).size() == 1")?.split(", ").collect(),
        None => rule.split(" != ").collect(),
    };
    let fields: Vec<&str> =
        items.iter().map(|item| item.strip_prefix("has(self.")?.strip_suffix(')')).collect::<Option<_>>()?;
    let plain = fields.iter().all(|field| field.chars().all(char::is_alphanumeric));
    (plain && fields.len() > 1).then_some(fields)
}

#[cfg(test)]
mod tests;
