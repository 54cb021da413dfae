//! Brings the CustomResourceDefinitions to the server, and up to date.

use std::time::Duration;

use holdfast_api::names::managers;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};

use crate::execute::told;
use crate::notice::{Notice, Tell};

/// How long after a failure the next try begins.
const AGAIN_AFTER: Duration = Duration::from_secs(2);

/// Applies every definition and waits until all are served. Tries until it succeeds.
pub(crate) async fn definitions(client: &Client, tell: &Tell) {
    for wanted in holdfast_api::crds::crds() {
        let name = wanted.metadata.name.clone().unwrap_or_default();
        while let Err(error) = definition(client, &name, &wanted).await {
            tell(Notice::Trouble(format!("cannot install the definition {name}: {error}")));
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }
    tell(Notice::Done("the definitions of all kinds are installed".to_owned()));
}

async fn definition(client: &Client, name: &str, wanted: &CustomResourceDefinition) -> Result<(), String> {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let params = PatchParams::apply(managers::OPERATOR).force();
    let mut found = definitions.patch(name, &params, &Patch::Apply(wanted)).await.map_err(|error| told(&error))?;
    while !is_served(&found) {
        tokio::time::sleep(Duration::from_millis(100)).await;
        found = definitions.get(name).await.map_err(|error| told(&error))?;
    }
    Ok(())
}

fn is_served(definition: &CustomResourceDefinition) -> bool {
    let conditions = definition.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|one| one.type_ == "Established" && one.status == "True")
}
