//! What a run depends on, as one short text: when it differs from that of the last run, a failed run need not wait to
//! be tried again, since somebody has mended something.
//!
//! It covers the planned run itself, its repository, the values of the Secret that opens that, and the ConfigMaps and
//! Secrets it reads or writes as volumes; of the target what matters to the run, which is the directories it leads to.
//! It is a hash under a key that only this installation knows ([`Settings::revision_key`]), so that nobody who comes by
//! a recorded one can try passwords against it; and no plan shows it.

use std::collections::HashMap;

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::Settings;
use crate::backup::Scheduled;
use crate::index::Index;
use crate::planned::{PlannedRecovery, PlannedRepository};
use crate::repository::value;
use crate::source::{DirectorySource, Files, Volume};

/// How many bytes of the hash are kept: enough to tell two apart, and not what a longer one could be derived from.
const LENGTH: usize = 16;

/// Fills in `revision` of the backups and recoveries.
pub(crate) fn fill(
    index: &Index<'_>,
    settings: &Settings,
    repositories: &[PlannedRepository],
    backups: &mut [Scheduled],
    recoveries: &mut [PlannedRecovery],
) {
    let by_id: HashMap<&str, &PlannedRepository> =
        repositories.iter().map(|repository| (repository.id.as_str(), repository)).collect();
    let begin = |repository: &str| {
        let mut hash = Hash(Sha256::new());
        hash.part(settings.revision_key.expose());
        if let Some(repository) = by_id.get(repository) {
            hash.repository(index, repository);
        }
        hash
    };
    for Scheduled { planned, .. } in backups {
        let mut hash = begin(&planned.repository);
        hash.object(planned);
        let directories = planned.snapshots.iter().flat_map(|snapshot| &snapshot.directories);
        directories.for_each(|directory| hash.volume(index, &directory.source));
        planned.revision = hash.finish();
    }
    for planned in recoveries {
        let mut hash = begin(&planned.repository);
        hash.object(planned);
        planned.restore.iter().for_each(|restore| hash.volume(index, &restore.into));
        planned.revision = hash.finish();
    }
}

struct Hash(Sha256);

impl Hash {
    /// With its length, so that no two lists of parts read the same.
    fn part(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    fn object(&mut self, object: &impl Serialize) {
        self.part(&serde_json::to_vec(object).unwrap_or_default());
    }

    fn repository(&mut self, index: &Index<'_>, repository: &PlannedRepository) {
        self.object(repository);
        let Some(secret) = index.secret(repository.namespace(), &repository.secret) else { return };
        for key in repository.env.values() {
            self.part(value(secret, key).unwrap_or_default());
        }
    }

    fn volume(&mut self, index: &Index<'_>, source: &DirectorySource) {
        match &source.volume {
            Volume::HostPath(_) | Volume::Claim { .. } | Volume::EmptyDir(_) | Volume::Mounted(_) => {}
            Volume::ConfigMap(Files { name, volume, .. }) => {
                let map = index.config_map(&volume.namespace, name);
                self.object(&map.map(|map| (&map.data, &map.binary_data)));
            }
            Volume::Secret(Files { name, volume, .. }) => {
                let secret = index.secret(&volume.namespace, name);
                self.object(&secret.map(|secret| (&secret.data, &secret.string_data)));
            }
        }
    }

    fn finish(self) -> String {
        self.0.finalize()[..LENGTH].iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use holdfast_api::values::Secret;

    use super::*;
    use crate::{Observed, Plan, plan};

    const FOLDER: &str = "apiVersion: v1
kind: Secret
metadata: {name: repo, namespace: demo}
stringData: {RESTIC_PASSWORD: one, other: x}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: demo}
data: {key: written}
---
apiVersion: v1
kind: Secret
metadata: {name: token, namespace: demo}
stringData: {key: mounted}
---
apiVersion: stash.appscode.com/v1alpha2
kind: Repository
metadata: {name: repo, namespace: demo}
spec: {backend: {storageSecretName: repo, local: {mountPath: /r, hostPath: {path: /srv/repo}}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: demo}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
        - {name: main, image: x, volumeMounts: [{name: a, mountPath: /a}, {name: b, mountPath: /b}, {name: c, mountPath: /c}]}
      volumes: [{name: a, hostPath: {path: /srv/a}}, {name: b, configMap: {name: settings}}, {name: c, secret: {secretName: token}}]
---
apiVersion: stash.appscode.com/v1alpha2
kind: Backup
metadata: {name: web, namespace: demo}
spec:
  schedule: '@hourly'
  repository: {name: repo}
  targetRef: {apiVersion: apps/v1, kind: Deployment, name: web}
  targetDirectories: [/a, /b, /c]
---
apiVersion: stash.appscode.com/v1alpha2
kind: Recovery
metadata: {name: web, namespace: demo}
spec: {repository: {name: repo}, paths: [/a], recoverTo: {volume: {mountPath: /a, hostPath: {path: /srv/new}}}}
";

    fn settings() -> Settings {
        Settings::new("2026-11-21T12:00:00Z".parse().unwrap(), "/manifests", "/volumes", "node")
    }

    fn planned(folder: &str, settings: &Settings) -> Plan {
        let outcome = holdfast_api::manifest::read([("a.yaml", folder.as_bytes())]);
        let plan = plan(&outcome, &Observed::default(), settings);
        assert_eq!(plan.errors, []);
        plan
    }

    /// Whether the change is one for the backup, and for the recovery.
    fn changes(folder: &str, settings: &Settings) -> (bool, bool) {
        let (before, after) = (planned(FOLDER, &self::settings()), planned(folder, settings));
        let differ = |before: &str, after: &str| before != after;
        (
            differ(&before.backups[0].revision, &after.backups[0].revision),
            differ(&before.recoveries[0].revision, &after.recoveries[0].revision),
        )
    }

    #[test]
    fn it_changes_with_what_the_run_depends_on_and_nothing_else() {
        for (from, to, expected) in [
            ("RESTIC_PASSWORD: one", "RESTIC_PASSWORD: two", (true, true)),
            ("other: x", "other: z", (false, false)),
            ("/srv/repo", "/srv/elsewhere", (true, true)),
            ("path: /srv/a}", "path: /srv/b}", (true, false)),
            ("key: written", "key: anew", (true, false)),
            ("key: mounted", "key: anew", (true, false)),
            ("image: x", "image: z", (false, false)),
            ("/srv/new", "/srv/newer", (false, true)),
            ("'@hourly'", "'@hourly'\n  exclude: ['*.tmp']", (true, false)),
        ] {
            assert!(FOLDER.contains(from));
            assert_eq!(changes(&FOLDER.replace(from, to), &settings()), expected, "{from} → {to}");
        }
    }

    #[test]
    fn the_clock_leaves_it_and_another_key_hides_it() {
        let later = Settings { now: "2027-01-01T00:00:00Z".parse().unwrap(), ..settings() };
        assert_eq!(changes(FOLDER, &later), (false, false));
        let key = Settings { revision_key: Secret::new([7; 32]), ..settings() };
        assert_eq!(changes(FOLDER, &key), (true, true));
    }

    #[test]
    fn no_plan_shows_it() {
        let plan = planned(FOLDER, &settings());
        let text = serde_json::to_string(&plan).unwrap();
        assert!(!text.contains(&plan.backups[0].revision) && !text.contains(&plan.recoveries[0].revision));
    }
}
