//! Brings the CustomResourceDefinitions to the server, and up to date: what is there already is not written again, and what
//! a newer Holdfast brought stays.

use std::time::Duration;

use holdfast_api::crds::VERSION_ANNOTATION;
use holdfast_api::names::managers;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::execute::told;
use crate::notice::{Notice, Tell};

/// How long after a failure the next try begins.
const AGAIN_AFTER: Duration = Duration::from_secs(2);

/// What a definition on the server needs.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    /// To be written.
    Write,
    /// Nothing.
    Same,
    /// Nothing from us: it is of this later version.
    Newer(String),
}

/// Writes every definition that is missing or differs, and waits until all are served. Tries until it succeeds.
pub(crate) async fn definitions(client: &Client, tell: &Tell) {
    let (mut written, mut same) = (0, 0);
    for wanted in holdfast_api::crds::crds() {
        let name = wanted.metadata.name.clone().unwrap_or_default();
        let verdict = loop {
            match definition(client, &name, &wanted).await {
                Ok(verdict) => break verdict,
                Err(error) => tell(Notice::Trouble(format!("cannot install the definition {name}: {error}"))),
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        };
        match verdict {
            Verdict::Write => written += 1,
            Verdict::Same => same += 1,
            Verdict::Newer(version) => {
                tell(Notice::Done(format!("the definition {name} is that of Holdfast {version}, and stays as it is")));
            }
        }
    }
    tell(Notice::Done(format!("definitions of kinds: {written} written, {same} as they should be")));
}

async fn definition(client: &Client, name: &str, wanted: &CustomResourceDefinition) -> Result<Verdict, String> {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let found = definitions.get_opt(name).await.map_err(|error| told(&error))?;
    let verdict = found.as_ref().map_or(Verdict::Write, |found| judge(&json!(wanted), &json!(found)));
    let mut found = match found.filter(|_| verdict != Verdict::Write) {
        Some(found) => found,
        None => {
            let params = PatchParams::apply(managers::OPERATOR).force();
            definitions.patch(name, &params, &Patch::Apply(wanted)).await.map_err(|error| told(&error))?
        }
    };
    while !is_served(&found) {
        tokio::time::sleep(Duration::from_millis(100)).await;
        found = definitions.get(name).await.map_err(|error| told(&error))?;
    }
    Ok(verdict)
}

fn judge(wanted: &Value, found: &Value) -> Verdict {
    let version = |of: &Value| {
        let text = of["metadata"]["annotations"][VERSION_ANNOTATION].as_str()?.to_owned();
        Some((numbers(&text)?, text))
    };
    match (version(wanted), version(found)) {
        (Some((ours, _)), Some((theirs, text))) if theirs > ours => Verdict::Newer(text),
        _ if holds(wanted, found) => Verdict::Same,
        _ => Verdict::Write,
    }
}

/// `1.2.3`; what comes after a `-` makes it earlier than without.
fn numbers(version: &str) -> Option<([u64; 3], bool)> {
    let (numbers, is_final) = version.split_once('-').map_or((version, true), |(numbers, _)| (numbers, false));
    let mut parts = numbers.split('.').map(|part| part.parse().ok());
    let mut next = || parts.next().flatten();
    Some(([next()?, next()?, next()?], is_final))
}

/// Whether `found` says all that `wanted` says: a server adds defaults, and others their labels.
fn holds(wanted: &Value, found: &Value) -> bool {
    match (wanted, found) {
        (Value::Object(wanted), Value::Object(found)) => wanted.iter().all(|(key, wanted)| match found.get(key) {
            Some(found) => holds(wanted, found),
            None => wanted.is_null() || wanted.as_array().is_some_and(Vec::is_empty),
        }),
        (Value::Array(wanted), Value::Array(found)) => {
            wanted.len() == found.len() && wanted.iter().zip(found).all(|(wanted, found)| holds(wanted, found))
        }
        (wanted, found) => wanted == found,
    }
}

fn is_served(definition: &CustomResourceDefinition) -> bool {
    let conditions = definition.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|one| one.type_ == "Established" && one.status == "True")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A definition as a server gives it back.
    fn served(wanted: &Value) -> Value {
        let mut found = wanted.clone();
        found["metadata"]["resourceVersion"] = json!("7");
        found["metadata"]["annotations"]["helm.sh/resource-policy"] = json!("keep");
        found["spec"]["conversion"] = json!({"strategy": "None"});
        found["spec"]["names"]["listKind"] = json!("List");
        found["status"] = json!({"conditions": [{"type": "Established", "status": "True"}]});
        found
    }

    #[test]
    fn only_what_differs_is_written() {
        for wanted in holdfast_api::crds::crds() {
            let wanted = json!(wanted);
            let found = served(&wanted);
            assert_eq!(judge(&wanted, &found), Verdict::Same, "{}", wanted["metadata"]["name"]);
            let mut older = found.clone();
            older["metadata"]["annotations"][VERSION_ANNOTATION] = json!("0.0.9");
            assert_eq!(judge(&wanted, &older), Verdict::Write);
            let mut changed = found.clone();
            changed["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"] = json!({});
            assert_eq!(judge(&wanted, &changed), Verdict::Write);
            let mut without = found;
            without["metadata"]["annotations"] = json!({});
            assert_eq!(judge(&wanted, &without), Verdict::Write);
        }
    }

    #[test]
    fn a_newer_one_stays() {
        let of = |version: &str, more: &str| json!({"metadata": {"annotations": {VERSION_ANNOTATION: version}}, "spec": more});
        for (ours, theirs, expected) in [
            ("0.1.0", "0.2.0", Verdict::Newer("0.2.0".into())),
            ("0.9.0", "0.10.0", Verdict::Newer("0.10.0".into())),
            ("1.0.0-rc.1", "1.0.0", Verdict::Newer("1.0.0".into())),
            ("0.10.0", "0.9.0", Verdict::Write),
            ("0.1.0", "0.1.0", Verdict::Write),
            ("0.1.0", "by hand", Verdict::Write),
        ] {
            assert_eq!(judge(&of(ours, "ours"), &of(theirs, "theirs")), expected, "{ours} {theirs}");
        }
    }
}
