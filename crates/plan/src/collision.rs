//! Warns where two targets store one path under one host name in one repository: both are backed up, each
//! with its own tag and retention, but "the latest snapshot of that host" no longer says whose data it is.

use std::collections::HashMap;

use crate::backup::Scheduled;
use crate::key::Target;
use crate::report::{Finding, Report};
use crate::repository::Repositories;
use crate::target::Lookup;

/// Warns of each such pair, at the second by id.
pub(crate) fn warn(lookup: Lookup<'_>, repositories: &Repositories, backups: &[Scheduled], report: &mut Report) {
    let mut first: HashMap<(&str, &str, &str), &Target> = HashMap::new();
    for Scheduled { planned, .. } in backups {
        let location = repositories.location(&planned.repository);
        for directory in planned.snapshots.iter().flat_map(|snapshot| &snapshot.directories) {
            let other = *first.entry((location, &planned.host, &directory.path)).or_insert(&planned.target);
            if *other == planned.target {
                continue;
            }
            let Some(manifest) = lookup.manifest(&planned.object, &planned.target) else { continue };
            let problem = format!(
                "{} and {} store `{}` in one repository, both as host `{}`: their snapshots differ only by tag",
                other.key(),
                planned.target.key(),
                directory.path,
                planned.host
            );
            let finding = Finding::new("spec.repository", problem);
            report.warnings(manifest, finding.suggest("give one of them a repository of its own"));
        }
    }
}
