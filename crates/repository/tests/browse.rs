//! Listing, searching, comparing, dumping, counting and tagging: the same answers as restic's.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

mod oracle;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Command, Stdio};

use holdfast_repository::browse::{FindOptions, LsOptions, StatsMode, Wanted, diff, dump, find, ls, stats};
use holdfast_repository::format::FileKind;
use holdfast_repository::format::snapshot::SnapshotFilter;
use holdfast_repository::pattern::{Case, PatternList};
use holdfast_repository::snapshots::{Selected, Snapshots, group, select, select_all};
use holdfast_repository::tag::{TagChange, TagOptions, tag};
use holdfast_repository::{Error, Monitor};
use oracle::Bench;
use serde_json::Value;

/// Two snapshots with a bit of everything.
fn filled() -> Bench {
    let bench = Bench::new(2);
    let data = bench.data();
    bench.write("docs/large", 1, 3_000_000);
    bench.write("docs/deep/er/small", 2, 5_000);
    bench.write("docs/gone/file", 3, 400);
    bench.write("same", 2, 5_000);
    std::fs::write(data.join("empty"), "").unwrap();
    std::fs::write(data.join("ümläut"), "all work and no play\n".repeat(5_000)).unwrap();
    std::fs::write(data.join("x".repeat(200)), "long").unwrap();
    std::fs::hard_link(data.join("docs/large"), data.join("linked")).unwrap();
    symlink("docs/large", data.join("link")).unwrap();
    symlink("y".repeat(150), data.join("dangling")).unwrap();
    assert!(Command::new("mkfifo").arg(data.join("pipe")).status().unwrap().success());
    std::fs::write(data.join("becomes"), "a file").unwrap();
    std::fs::write(data.join("mode"), "same content").unwrap();
    bench.backup(&["--host", "one", "--tag", "a,b"]);
    std::fs::remove_dir_all(data.join("docs/gone")).unwrap();
    std::fs::remove_file(data.join("becomes")).unwrap();
    bench.write("becomes/a-folder", 5, 10);
    bench.write("new/folder/file", 6, 2_000_000);
    bench.write("docs/deep/er/small", 7, 6_000);
    std::fs::set_permissions(data.join("mode"), PermissionsExt::from_mode(0o4711)).unwrap();
    bench.backup(&["--host", "two"]);
    bench
}

fn latest(bench: &Bench) -> Selected {
    select(&bench.open(), "latest", &SnapshotFilter::default()).unwrap()
}

fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn snapshots_are_chosen_as_restic_chooses() {
    let bench = filled();
    let repository = bench.open();
    let ids = bench.snapshots();
    let chosen = |text: &str, filter: &SnapshotFilter| {
        select(&repository, text, filter).map(|chosen| chosen.saved.id.to_string())
    };
    let all = SnapshotFilter::default();
    assert_eq!(chosen("latest", &all).unwrap(), ids[1]);
    assert_eq!(chosen("latest~0", &all).unwrap(), ids[1]);
    assert_eq!(chosen("latest~1", &all).unwrap(), ids[0]);
    assert_eq!(chosen(&ids[0][..8], &all).unwrap(), ids[0]);
    let one = SnapshotFilter { hosts: vec!["one".into()], ..SnapshotFilter::default() };
    assert_eq!(chosen("latest", &one).unwrap(), ids[0]);
    for text in ["latest~2", "latest~x", "ffffffffff", "latest:nowhere", "latest:same"] {
        let error = chosen(text, &all);
        let is_of = |error: &Error| matches!(error, Error::Selection(_));
        let text = if text == "latest:same" { format!("latest:{}/same", bench.data().display()) } else { text.into() };
        assert!(error.as_ref().is_err_and(is_of), "{text}: {error:?}");
    }
    let folder = format!("latest:{}", bench.data().join("new").display());
    let folder = select(&repository, &folder, &all).unwrap();
    assert_ne!(folder.tree, folder.saved.snapshot.tree);
    let monitor = Monitor::default();
    assert_eq!(select_all(&repository, &[], &one, &monitor).unwrap().len(), 1);
    assert_eq!(select_all(&repository, &["latest".into(), ids[1].clone()], &all, &monitor).unwrap().len(), 1);
    let saved = Snapshots::load(&repository).unwrap().complete().unwrap();
    assert_eq!(group(saved.clone(), "host".parse().unwrap()).len(), 2);
    assert_eq!(group(saved, "paths".parse().unwrap()).len(), 1);
}

#[test]
fn an_unreadable_snapshot_is_told_and_the_others_go_on() {
    let bench = filled();
    let ids = bench.snapshots();
    let path = bench.repository_path().join(FileKind::Snapshot.path(&ids[0].parse().unwrap()));
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "damaged").unwrap();
    let repository = bench.open();
    let monitor = Monitor::default();
    let found = select_all(&repository, &[], &SnapshotFilter::default(), &monitor).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(monitor.counters().errors.load(std::sync::atomic::Ordering::Relaxed), 1);
    // It might be the latest.
    select(&repository, "latest", &SnapshotFilter::default()).unwrap_err();
    select(&repository, &ids[1], &SnapshotFilter::default()).unwrap();
}

#[track_caller]
fn check_ls(bench: &Bench, paths: &[&str], recursive: bool) {
    let mut ours = BTreeSet::new();
    let options = LsOptions { paths: paths.iter().map(|path| path.as_bytes().to_vec()).collect(), recursive };
    ls(&bench.open(), &latest(bench), &options, &Monitor::default(), &mut |path, node| {
        ours.insert((String::from_utf8(path.to_vec()).unwrap(), node.kind.name().to_owned(), node.size));
        Ok(())
    })
    .unwrap();
    let mut args = vec!["ls", "--json", "latest"];
    args.extend(recursive.then_some("--recursive"));
    args.extend(paths);
    let theirs = json_lines(&bench.run(&args)).into_iter().filter(|line| line["struct_type"] == "node").map(|line| {
        let text = |key: &str| line[key].as_str().unwrap().to_owned();
        (text("path"), text("type"), line["size"].as_u64().unwrap_or(0))
    });
    let theirs: BTreeSet<_> = theirs.collect();
    assert!(!theirs.is_empty());
    assert_eq!(ours, theirs);
}

#[test]
fn ls_lists_what_restic_lists() {
    let bench = filled();
    let data = bench.data().display().to_string();
    check_ls(&bench, &[], false);
    check_ls(&bench, &["/"], false);
    check_ls(&bench, &[&data], false);
    check_ls(&bench, &[&data], true);
    check_ls(&bench, &[&format!("{data}/docs"), &format!("{data}/new")], false);
    check_ls(&bench, &[&format!("{data}/docs")], true);
    let options = LsOptions { paths: vec![b"/nowhere".to_vec()], recursive: false };
    let error = ls(&bench.open(), &latest(&bench), &options, &Monitor::default(), &mut |_, _| Ok(())).unwrap_err();
    assert!(error.to_string().contains("/nowhere"), "{error}");
}

fn found(bench: &Bench, wanted: Wanted) -> BTreeSet<(String, String)> {
    let repository = bench.open();
    let snapshots = Snapshots::load(&repository).unwrap().complete().unwrap();
    let options = FindOptions { wanted, oldest: None, newest: None };
    let mut places = BTreeSet::new();
    find(&repository, &snapshots, &options, &Monitor::default(), &mut |found| {
        places.insert((found.snapshot.id.to_string(), String::from_utf8_lossy(found.path).into_owned()));
        Ok(())
    })
    .unwrap();
    places
}

#[test]
fn find_finds_what_restic_finds() {
    let bench = filled();
    for (pattern, case) in [
        ("small", Case::Sensitive),
        ("d*", Case::Sensitive),
        ("SMALL", Case::Ignored),
        ("/**/deep/er", Case::Sensitive),
        ("nowhere", Case::Sensitive),
    ] {
        let mut args = vec!["find", "--json", pattern];
        args.extend((case == Case::Ignored).then_some("--ignore-case"));
        let theirs: Value = serde_json::from_str(&bench.run(&args)).unwrap();
        let mut places = BTreeSet::new();
        for snapshot in theirs.as_array().unwrap() {
            for place in snapshot["matches"].as_array().unwrap() {
                places.insert((
                    snapshot["snapshot"].as_str().unwrap().to_owned(),
                    place["path"].as_str().unwrap().to_owned(),
                ));
            }
        }
        let patterns = PatternList::new([pattern], case).unwrap();
        assert_eq!(found(&bench, Wanted::Paths(patterns)), places, "{pattern}");
    }
}

#[test]
fn blobs_trees_and_packs_are_found() {
    let bench = filled();
    let repository = bench.open();
    let data = bench.data().display().to_string();
    let list = json_lines(&bench.run(&["ls", "--json", "--recursive", "latest"]));
    assert!(list.len() > 10);
    let mut blob = None;
    let options = LsOptions::default();
    ls(&repository, &latest(&bench), &options, &Monitor::default(), &mut |path, node| {
        if path.ends_with(b"/same") {
            blob = node.content.as_ref().map(|content| content[0].to_string());
        }
        Ok(())
    })
    .unwrap();
    let blob = blob.unwrap();
    let paths = |places: BTreeSet<(String, String)>| places.into_iter().map(|(_, path)| path).collect::<BTreeSet<_>>();
    // In the first snapshot another file has the same content.
    let want = BTreeSet::from([format!("{data}/same"), format!("{data}/docs/deep/er/small")]);
    assert_eq!(paths(found(&bench, Wanted::Blobs(vec![blob[..10].to_owned()]))), want);
    let root = latest(&bench).tree.to_string();
    assert_eq!(paths(found(&bench, Wanted::Trees(vec![root]))), BTreeSet::from(["/".to_owned()]));
    let packs = repository.list(FileKind::Pack).unwrap().iter().map(ToString::to_string).collect();
    assert!(found(&bench, Wanted::Packs(packs)).len() > 20);
}

fn check_diff(bench: &Bench, metadata: bool) {
    let repository = bench.open();
    let all = SnapshotFilter::default();
    let [before, after] = ["latest~1", "latest"].map(|name| select(&repository, name, &all).unwrap());
    let mut ours = BTreeSet::new();
    let report = diff(&repository, &before, &after, metadata, &Monitor::default(), &mut |change| {
        ours.insert((String::from_utf8(change.path.to_vec()).unwrap(), change.modifier()));
        Ok(())
    })
    .unwrap();
    let (before, after) = (before.saved.id.to_string(), after.saved.id.to_string());
    let mut args = vec!["diff", "--json", &before, &after];
    args.extend(metadata.then_some("--metadata"));
    let (mut theirs, mut statistics) = (BTreeSet::new(), Value::Null);
    for line in json_lines(&bench.run(&args)) {
        match line["message_type"].as_str().unwrap() {
            "change" => {
                let path = line["path"].as_str().unwrap();
                let path = path.strip_suffix('/').unwrap_or(path);
                theirs.insert((path.to_owned(), line["modifier"].as_str().unwrap().to_owned()));
            }
            _ => statistics = line,
        }
    }
    assert_eq!(ours, theirs);
    assert_eq!(statistics["changed_files"], report.changed_files);
    for (key, side) in [("added", report.added), ("removed", report.removed)] {
        let theirs = &statistics[key];
        assert_eq!(serde_json::to_value(side).unwrap(), *theirs, "{key}");
    }
}

#[test]
fn diff_tells_what_restic_tells() {
    let bench = filled();
    check_diff(&bench, false);
    check_diff(&bench, true);
}

#[test]
fn content_that_changed_by_itself_is_suspicious() {
    let bench = Bench::new(2);
    bench.write("file", 1, 1000);
    bench.backup(&[]);
    // A different content under the very same metadata: what a failing disk does. Inode and ctime change with any
    // write, so the folder is backed up without them.
    let path = bench.data().join("file");
    let modified = std::fs::metadata(&path).unwrap().modified().unwrap();
    std::fs::write(&path, oracle::noise(2, 1000)).unwrap();
    std::fs::File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
    bench.backup(&["--force"]);
    check_diff(&bench, false);
}

fn dumped(bench: &Bench, path: &str) -> Vec<u8> {
    let mut out = Vec::new();
    dump(&bench.open(), &latest(bench), path.as_bytes(), &mut out, &Monitor::default()).unwrap();
    out
}

/// What GNU tar says of an archive: modes, owners, sizes, times to the nanosecond, names and targets, sorted.
fn tar_list(archive: &[u8]) -> Vec<String> {
    let mut tar = Command::new("tar");
    tar.args(["--list", "--verbose", "--full-time", "--numeric-owner", "--quoting-style=escape"]).env("TZ", "UTC");
    let mut tar = tar.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = tar.stdin.take().unwrap();
    let archive = archive.to_vec();
    let feed = std::thread::spawn(move || stdin.write_all(&archive).unwrap());
    let output = tar.wait_with_output().unwrap();
    feed.join().unwrap();
    assert!(output.status.success());
    // The width of a column depends on the lines before it.
    let one_space = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut lines: Vec<_> = String::from_utf8(output.stdout).unwrap().lines().map(one_space).collect();
    lines.sort();
    lines
}

/// The mode, the size and the name of each line, without pipes.
fn without_times(list: Vec<String>) -> Vec<String> {
    let fields = list.iter().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let fields = fields.filter(|fields| !fields[0].starts_with('p'));
    fields.map(|fields| [&fields[..3], &fields[5..]].concat().join(" ")).collect::<BTreeSet<_>>().into_iter().collect()
}

#[test]
fn dumps_are_what_was_backed_up() {
    let bench = filled();
    let data = bench.data().display().to_string();
    for file in ["docs/large", "ümläut", "empty"] {
        assert_eq!(
            dumped(&bench, &format!("{data}/{file}")),
            std::fs::read(bench.data().join(file)).unwrap(),
            "{file}"
        );
    }
    // GNU tar's own archive of the same folder.
    let tar = ["--create", "--format=posix", "--hard-dereference", "--directory=/", &data[1..]];
    let tar = Command::new("tar").args(tar).output().unwrap();
    assert_eq!(tar_list(&dumped(&bench, &data)), tar_list(&tar.stdout));
    // restic leaves out pipes and rounds times.
    let theirs = bench.restic(&["dump", "--archive", "tar", "latest", "/"]);
    assert_eq!(without_times(tar_list(&dumped(&bench, "/"))), without_times(tar_list(&theirs.stdout)));
    let mut out = Vec::new();
    for path in [format!("{data}/link"), format!("{data}/nothing")] {
        dump(&bench.open(), &latest(&bench), path.as_bytes(), &mut out, &Monitor::default()).unwrap_err();
    }
    assert!(out.is_empty());
}

#[test]
fn stats_count_what_restic_counts() {
    let bench = filled();
    let repository = bench.open();
    let snapshots = Snapshots::load(&repository).unwrap().complete().unwrap();
    for (mode, name) in [
        (StatsMode::RestoreSize, "restore-size"),
        (StatsMode::FilesByContents, "files-by-contents"),
        (StatsMode::BlobsPerFile, "blobs-per-file"),
        (StatsMode::RawData, "raw-data"),
    ] {
        // Which path a content counts for depends on the order of the snapshots, and restic reads them in any order.
        let (of, which): (_, &[&str]) = if mode == StatsMode::BlobsPerFile {
            (&snapshots[snapshots.len() - 1..], &["latest"])
        } else {
            (&*snapshots, &[])
        };
        let ours = stats(&repository, of, mode, &Monitor::default()).unwrap();
        let arguments = [&["stats", "--json", "--mode", name], which].concat();
        let theirs: Value = serde_json::from_str(&bench.run(&arguments)).unwrap();
        let number = |key: &str| theirs[key].as_u64().unwrap_or(0);
        assert_eq!(ours.total_bytes, number("total_size"), "{name}");
        assert_eq!(ours.files, number("total_file_count"), "{name}");
        assert_eq!(ours.blobs, number("total_blob_count"), "{name}");
        assert_eq!(ours.uncompressed_bytes, number("total_uncompressed_size"), "{name}");
        assert_eq!(ours.snapshots, number("snapshots_count"), "{name}");
        if mode == StatsMode::RawData {
            assert!((ours.compression_ratio() - theirs["compression_ratio"].as_f64().unwrap()).abs() < 1e-9);
        }
    }
}

#[test]
fn tags_change_as_restic_changes_them() {
    let bench = filled();
    let repository = bench.open();
    let first = bench.snapshots()[0].clone();
    let options =
        |change| TagOptions { snapshots: vec![], filter: SnapshotFilter::default(), change, lock: Default::default() };
    let edit = |add: &[&str], remove: &[&str]| {
        let owned = |list: &[&str]| list.iter().map(|tag| (*tag).to_owned()).collect();
        options(TagChange::Edit { add: owned(add), remove: owned(remove) })
    };
    let tags = || {
        let list: Value = serde_json::from_str(&bench.run(&["snapshots", "--json"])).unwrap();
        list.as_array().unwrap().clone()
    };
    let retagged = tag(&repository, &edit(&["c"], &["b"]), &Monitor::default()).unwrap();
    assert_eq!(retagged.len(), 2);
    let list = tags();
    assert_eq!(list.len(), 2);
    assert_eq!((&list[0]["tags"], &list[1]["tags"]), (&serde_json::json!(["a", "c"]), &serde_json::json!(["c"])));
    assert_eq!(list[0]["original"], first.as_str());
    assert!(tag(&repository, &edit(&["c"], &[]), &Monitor::default()).unwrap().is_empty());
    // Restic edits what we wrote, and we what restic did: the original stays the first.
    bench.run(&["tag", "--add", "d"]);
    let none = TagChange::Set(vec![]);
    let one =
        TagOptions { filter: SnapshotFilter { hosts: vec!["one".into()], ..Default::default() }, ..options(none) };
    assert_eq!(tag(&repository, &one, &Monitor::default()).unwrap().len(), 1);
    let list = tags();
    assert_eq!((&list[0]["tags"], &list[1]["tags"]), (&Value::Null, &serde_json::json!(["c", "d"])));
    assert_eq!(list[0]["original"], first.as_str());
    bench.assert_clean();
}
