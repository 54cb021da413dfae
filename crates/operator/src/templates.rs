//! The default AgentTemplates, which are installed with the kinds.

use holdfast_api::names::managers;
use holdfast_plan::MANAGED_BY;
use serde_json::{Value, json};

use crate::action::Action;
use crate::merge;
use crate::settings::Settings;
use crate::world::World;

pub(crate) use holdfast_api::names::agents::{VOLUME_BACKUP, VOLUME_RECOVERY};

/// Whether the template is one of ours, which need not be looked up.
pub(crate) fn is_default(name: &str) -> bool {
    [VOLUME_BACKUP, VOLUME_RECOVERY].contains(&name)
}

/// The arguments that every command of a template gets.
fn arguments(command: &str, object: &str) -> Vec<String> {
    vec![
        command.to_owned(),
        object.to_owned(),
        "--pushgateway-url=$(PUSH_GATEWAY_URL)".to_owned(),
        "--enable-status-subresource=$(ENABLE_STATUS_SUB_RESOURCE)".to_owned(),
        "--enable-analytics=$(ENABLE_ANALYTICS)".to_owned(),
    ]
}

/// The arguments of a backup by the default template.
pub(crate) fn backup_arguments() -> Vec<String> {
    arguments("backup", "--backup-name=$(BACKUP_NAME)")
}

/// The arguments of a recovery by the default template.
pub(crate) fn recovery_arguments() -> Vec<String> {
    arguments("recover", "--recovery-name=$(RECOVERY_NAME)")
}

/// Installs or updates the default templates.
pub(crate) fn install(world: &World<'_>, settings: &Settings) -> Vec<Action> {
    let templates =
        [(VOLUME_BACKUP, "stash-backup", backup_arguments()), (VOLUME_RECOVERY, "stash-recover", recovery_arguments())];
    let wanted = templates.map(|(name, container, args)| template(name, container, &args, settings));
    let missing = wanted.into_iter().filter(|wanted| {
        let found = world.elsewhere("AgentTemplate", "", crate::world::name(wanted));
        !found.is_some_and(|found| merge::contains(found, wanted))
    });
    missing
        .map(|object| Action::Apply {
            because: "the default templates are installed".to_owned(),
            manager: managers::OPERATOR.to_owned(),
            subresource: None,
            object,
        })
        .collect()
}

fn template(name: &str, container: &str, args: &[String], settings: &Settings) -> Value {
    let (label, value) = MANAGED_BY;
    json!({
        "apiVersion": "stash.appscode.com/v1alpha2",
        "kind": "AgentTemplate",
        "metadata": {"name": name, "labels": {label: value}},
        "spec": {"containers": [{"name": container, "image": settings.image, "args": args}]},
    })
}
