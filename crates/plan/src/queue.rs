//! Which of the due runs start now, and what the others wait for.
//!
//! - Two runs never use one location at once, and no more than [`Settings::slots`] go on at once.
//! - Nothing is read or written while a recovery writes it, and nothing is recovered while it is read.
//! - A backup waits for a recovery that is still to be done into what it reads: it would otherwise store the empty
//!   volume, and retention would in time remove the good snapshots for it. A recovery that found no snapshot
//!   holds nothing up: it is the backup that makes the first one.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use crate::Settings;
use crate::backup::Scheduled;
use crate::observed::Observed;
use crate::planned::{Due, PlannedRecovery, PlannedRepository, RecoveryState, Wait};
use crate::source::DirectorySource;
use crate::target::ancestors;

/// Whether backups wait for a recovery into what they read: while it is not done, unless there is nothing to restore.
pub(crate) fn holds_backups(recovery: &PlannedRecovery, observed: &Observed) -> bool {
    let no_snapshot = observed
        .recoveries
        .get(&recovery.id)
        .is_some_and(|history| history.no_snapshot && !history.is_afresh(&recovery.occasion, &recovery.revision));
    recovery.state != RecoveryState::Recovered && !no_snapshot
}

/// Decides for each of the due runs, in their order.
pub(crate) fn line_up(
    due: &mut [Due],
    settings: &Settings,
    observed: &Observed,
    repositories: &[PlannedRepository],
    backups: &[Scheduled],
    recoveries: &[PlannedRecovery],
) {
    let location: HashMap<&str, &str> =
        repositories.iter().map(|repository| (repository.id.as_str(), repository.location.as_str())).collect();
    let path = |source: &DirectorySource| source.identity(settings.volumes.as_ref()).to_string_lossy().into_owned();
    let mut runs: HashMap<&str, Run> = HashMap::new();
    for Scheduled { planned, .. } in backups {
        let read = planned.snapshots.iter().flat_map(|snapshot| &snapshot.directories);
        let paths = read.map(|directory| path(&directory.source)).collect();
        let location = location.get(planned.repository.as_str()).copied().unwrap_or_default();
        runs.insert(&planned.id, Run { location, paths, writes: false });
    }
    let mut to_recover = Occupied::default();
    for recovery in recoveries {
        let paths: Vec<String> = recovery.restore.iter().map(|restore| path(&restore.into)).collect();
        if holds_backups(recovery, observed) {
            to_recover.add(&paths, &recovery.id);
        }
        let location = location.get(recovery.repository.as_str()).copied().unwrap_or_default();
        runs.insert(&recovery.id, Run { location, paths, writes: true });
    }
    let mut now = Running { free: settings.slots, ..Running::default() };
    for (id, location) in &observed.running {
        now.free = now.free.saturating_sub(1);
        now.locations.insert(location.clone(), id.clone());
        if let Some(run) = runs.get(id.as_str()) {
            now.occupy(run, id);
        }
    }
    for due in due {
        let Some(run) = runs.get(due.id.as_str()) else { continue };
        due.waits_for = match to_recover.by(&run.paths).filter(|_| !run.writes) {
            Some(recovery) => Some(Wait::Recovery(recovery.to_owned())),
            None => now.admit(run, &due.id).err(),
        };
    }
}

/// What a run needs for itself.
struct Run<'a> {
    location: &'a str,
    /// The directories it reads or writes.
    paths: Vec<String>,
    writes: bool,
}

/// What goes on.
#[derive(Default)]
struct Running {
    free: usize,
    locations: BTreeMap<String, String>,
    read: Occupied,
    written: Occupied,
}

impl Running {
    fn admit(&mut self, run: &Run<'_>, id: &str) -> Result<(), Wait> {
        if let Some(other) = self.locations.get(run.location) {
            return Err(Wait::Repository(other.clone()));
        }
        if let Some(recovery) = self.written.by(&run.paths) {
            return Err(Wait::Recovery(recovery.to_owned()));
        }
        if let Some(backup) = self.read.by(&run.paths).filter(|_| run.writes) {
            return Err(Wait::Backup(backup.to_owned()));
        }
        self.free = self.free.checked_sub(1).ok_or(Wait::Slot)?;
        self.locations.insert(run.location.to_owned(), id.to_owned());
        self.occupy(run, id);
        Ok(())
    }

    fn occupy(&mut self, run: &Run<'_>, id: &str) {
        let occupied = if run.writes { &mut self.written } else { &mut self.read };
        occupied.add(&run.paths, id);
    }
}

/// Directories and who uses them.
#[derive(Debug, Default)]
struct Occupied(BTreeMap<String, String>);

impl Occupied {
    fn add(&mut self, paths: &[String], id: &str) {
        for path in paths {
            self.0.entry(path.clone()).or_insert_with(|| id.to_owned());
        }
    }

    /// Who uses one of the paths, or a folder above or below it.
    fn by(&self, paths: &[String]) -> Option<&str> {
        paths.iter().find_map(|path| {
            let above = std::iter::once(path.as_str()).chain(ancestors(path)).find_map(|path| self.0.get(path));
            let below = || {
                let (below, id) = self.0.range(format!("{}/", path.trim_end_matches('/'))..).next()?;
                Path::new(below).starts_with(path).then_some(id)
            };
            above.or_else(below).map(String::as_str)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_meet_above_and_below() {
        let mut occupied = Occupied::default();
        occupied.add(&["/srv/a/b".to_owned(), "/srv/a-b".to_owned()], "x");
        for (path, expected) in [
            ("/srv/a/b", true),
            ("/srv/a", true),
            ("/srv/a/b/c/d", true),
            ("/", true),
            ("/srv/a/c", false),
            ("/srv/a/bc", false),
            ("/srv/a-", false),
            ("/srv/b", false),
        ] {
            assert_eq!(occupied.by(&[path.to_owned()]).is_some(), expected, "{path}");
        }
    }
}
