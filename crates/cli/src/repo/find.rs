//! `repo find`: finds files, folders or ids in snapshots.

use clap::Args;
use holdfast_repository::Id;
use holdfast_repository::browse::{FindOptions, Found, Wanted, find};
use holdfast_repository::format::time::Timestamp;
use holdfast_repository::pattern::Case;
use holdfast_repository::source::display_path;
use serde::Serialize;
use serde_json::{Value, json};

use super::backup::parse_time;
use super::node::{NodeJson, line};
use super::open::RepoArgs;
use super::patterns;
use super::selection::{SelectionArgs, select_all};
use super::snapshots::local_time;
use crate::failure::Result;
use crate::output::{Lines, Output, counted};

#[derive(Debug, Args)]
pub(crate) struct FindArgs {
    /// Names or paths with wildcards, or ids (see --blob, --tree and --pack)
    #[arg(value_name = "PATTERN", required = true)]
    patterns: Vec<String>,
    /// Whatever the case
    #[arg(short, long)]
    ignore_case: bool,
    /// Find files with these data blobs
    #[arg(long, conflicts_with_all = ["tree", "pack"])]
    blob: bool,
    /// Find folders with these trees
    #[arg(long, conflicts_with = "pack")]
    tree: bool,
    /// Find files and folders with anything in these packs
    #[arg(long)]
    pack: bool,
    /// Only what was last changed at this time or later, as 2026-11-21 08:00:00
    #[arg(short = 'O', long, value_name = "TIME", value_parser = parse_time)]
    oldest: Option<jiff::Timestamp>,
    /// Only what was last changed at this time or earlier
    #[arg(short = 'N', long, value_name = "TIME", value_parser = parse_time)]
    newest: Option<jiff::Timestamp>,
    /// Only in this snapshot; may be given several times
    #[arg(short, long, value_name = "ID")]
    snapshot: Vec<String>,
    /// Begin with the oldest snapshot
    #[arg(short = 'R', long)]
    reverse: bool,
    /// Show permissions, owner, size and time
    #[arg(short, long)]
    long: bool,
    /// Show sizes in units that people read
    #[arg(long)]
    human_readable: bool,
    #[command(flatten)]
    selection: SelectionArgs,
}

pub(crate) fn run(repo: &RepoArgs, args: FindArgs, output: &Output) -> Result<u8> {
    let options = args.options()?;
    let repository = repo.open()?;
    let monitor = output.monitor();
    let _lock = repo.lock_to_read(&repository, &monitor)?;
    let mut snapshots = select_all(&repository, &args.snapshot, &args.selection.filter(), &monitor)?;
    if !args.reverse {
        snapshots.reverse();
    }
    let mut hits = Hits::default();
    let mut lines = Lines::new();
    let outcome = find(&repository, &snapshots, &options, &monitor, &mut |found| {
        hits.count += 1;
        if output.is_json() {
            hits.add(&found);
            return Ok(());
        }
        if hits.begins(found.snapshot.id) {
            let time = local_time(found.snapshot.snapshot.time);
            lines.print(&format!("in snapshot {} of {time}:", found.snapshot.id.short()))?;
        }
        lines.print(&args.line(&found))
    });
    lines.finish(outcome)?;
    if output.is_json() {
        output.result(&hits.json(), String::new)?;
    } else if hits.count == 0 {
        output.note(format!("nothing found in {}", counted(snapshots.len() as u64, "snapshot")));
    }
    super::complete(&monitor)
}

impl FindArgs {
    fn options(&self) -> Result<FindOptions> {
        let ids = || self.patterns.iter().map(|id| id.to_ascii_lowercase()).collect();
        let wanted = if self.blob {
            Wanted::Blobs(ids())
        } else if self.tree {
            Wanted::Trees(ids())
        } else if self.pack {
            Wanted::Packs(ids())
        } else {
            let case = if self.ignore_case { Case::Ignored } else { Case::Sensitive };
            Wanted::Paths(patterns::list(&patterns::collect(&self.patterns, &[])?, case)?)
        };
        Ok(FindOptions { wanted, oldest: self.oldest.map(Timestamp::from), newest: self.newest.map(Timestamp::from) })
    }

    fn line(&self, found: &Found<'_>) -> String {
        let place = match found.node {
            Some(node) => line(found.path, node, self.long || self.human_readable, self.human_readable),
            None => display_path(found.path),
        };
        match found.blob {
            Some((kind, id)) => format!("{} blob {id}: {place}", kind.noun()),
            None => place,
        }
    }
}

/// What was found, for programs, with restic's names.
#[derive(Default)]
struct Hits {
    count: u64,
    last: Option<Id>,
    snapshots: Vec<SnapshotHits>,
    objects: Vec<Value>,
}

#[derive(Serialize)]
struct SnapshotHits {
    matches: Vec<NodeJson>,
    hits: u64,
    snapshot: Id,
}

impl Hits {
    /// Whether this is the first hit in a snapshot.
    fn begins(&mut self, snapshot: Id) -> bool {
        self.last.replace(snapshot) != Some(snapshot)
    }

    fn add(&mut self, found: &Found<'_>) {
        let snapshot = found.snapshot.id;
        if let Some((kind, id)) = found.blob {
            self.objects.push(json!({
                "object_type": kind.noun(),
                "id": id,
                "path": String::from_utf8_lossy(found.path),
                "snapshot": snapshot,
                "time": found.snapshot.snapshot.time,
            }));
            return;
        }
        if self.begins(snapshot) {
            self.snapshots.push(SnapshotHits { matches: Vec::new(), hits: 0, snapshot });
        }
        if let (Some(last), Some(node)) = (self.snapshots.last_mut(), found.node) {
            last.hits += 1;
            last.matches.push(NodeJson::new(found.path, node));
        }
    }

    fn json(&self) -> Value {
        if self.objects.is_empty() { json!(self.snapshots) } else { json!(self.objects) }
    }
}
