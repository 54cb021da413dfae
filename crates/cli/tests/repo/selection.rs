//! What a backup takes: the same flags choose the same files as restic's.

use std::io::Write;
use std::process::Stdio;

use crate::bench::{Bench, Run};

/// A folder in which every flag has something to leave out.
fn folder() -> Bench {
    let bench = Bench::new(2);
    let data = bench.data();
    for (name, content) in [
        ("a.o", "x"),
        ("B.O", "x"),
        ("src/a.rs", "x"),
        ("src/target/out.o", "x"),
        ("cache/CACHEDIR.TAG", "Signature: 8a477f597d28d172789f06886806bc55\n"),
        ("cache/inside", "x"),
        ("nocache/CACHEDIR.TAG", "Signature: none"),
        ("nocache/inside", "x"),
        ("private/.nobackup", "please"),
        ("private/inside", "x"),
    ] {
        let path = data.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    let lists = bench.dir.path();
    std::fs::write(lists.join("patterns"), "# no objects\n*.o\n\n$HOLE/target\n!a.o\n").unwrap();
    std::fs::write(lists.join("list"), format!("{0}/src\n# {0}/cache\n{0}/*.[oO]\n", data.display())).unwrap();
    std::fs::write(lists.join("verbatim"), format!("{0}/src\n{0}/a.o\n", data.display())).unwrap();
    std::fs::write(lists.join("raw"), format!("{0}/src\0{0}/a.o\0", data.display())).unwrap();
    bench
}

#[track_caller]
fn check(bench: &Bench, flags: &[&str], with_path: bool) {
    let data = bench.data();
    let path = if with_path { vec![data.to_str().unwrap()] } else { vec![] };
    let args = [&["backup", "--quiet"], flags, &path].concat();
    let list = |run: Run| {
        run.succeeded();
        let list = bench.restic(&["ls", "latest", "--json"]).succeeded().json_lines();
        let paths = list.iter().filter_map(|node| node["path"].as_str().map(str::to_owned)).collect::<Vec<_>>();
        (bench.tree(list[0]["id"].as_str().unwrap()), list[0]["paths"].clone(), list[0]["excludes"].clone(), paths)
    };
    let ours = list(bench.holdfast(&args));
    let theirs = list(bench.restic(&args));
    assert_eq!(ours, theirs, "{flags:?}");
}

#[test]
fn flags_choose_what_restics_choose() {
    let bench = folder();
    for flags in [
        &["--exclude", "*.o"][..],
        &["--iexclude", "*.o", "-e", "src/target"],
        &["--exclude-file", "patterns"],
        &["--iexclude-file", "patterns"],
        &["--exclude-caches"],
        &["--exclude-if-present", ".nobackup"],
        &["--exclude-if-present", ".nobackup:please"],
        &["--exclude-if-present", ".nobackup:no"],
        &["--exclude-larger-than", "10k"],
        &["--one-file-system"],
    ] {
        check(&bench, flags, true);
    }
    for flags in [&["--files-from", "list"][..], &["--files-from-verbatim", "verbatim"], &["--files-from-raw", "raw"]] {
        check(&bench, flags, false);
    }
}

#[test]
fn a_snapshot_carries_what_it_is_told() {
    let bench = Bench::new(2);
    let id = bench.backup(&["--host", "other", "--tag", "a,b", "--tag", "c", "--time", "2020-02-03 04:05:06"]);
    let snapshot = &bench.restic(&["snapshots", "--json"]).succeeded().json()[0];
    assert_eq!(snapshot["id"], *id);
    assert_eq!(snapshot["hostname"], "other");
    assert_eq!(snapshot["tags"], serde_json::json!(["a", "b", "c"]));
    assert_eq!(snapshot["time"], "2020-02-03T04:05:06Z");
}

#[test]
fn nothing_is_written_in_a_dry_run_or_where_nothing_changed() {
    let bench = Bench::new(2);
    let data = bench.data();
    let report = bench.holdfast(&["backup", "--json", "--dry-run", data.to_str().unwrap()]).succeeded().json();
    assert!(report["snapshot_id"].is_null() && report["data_added"].as_u64() > Some(3_000_000), "{report}");
    assert!(bench.files("snapshots").is_empty() && bench.files("index").is_empty());
    // Of a command, because the folders above a file change with everything that others do there.
    let unchanged =
        ["backup", "--skip-if-unchanged", "--time", "2026-01-01 10:00:00", "--stdin-from-command", "echo", "x"];
    bench.holdfast(&unchanged).succeeded();
    let run = bench.holdfast(&unchanged).succeeded();
    assert!(run.stdout.contains("nothing changed"), "{}", run.stdout);
    assert_eq!(bench.files("snapshots").len(), 1);
}

#[test]
fn standard_input_is_a_file() {
    let bench = Bench::new(2);
    let mut child = bench
        .command(&["backup", "--stdin", "--stdin-filename", "dumps/db.sql"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"content").unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(bench.restic(&["dump", "latest", "/dumps/db.sql"]).succeeded().stdout, "content");
    assert_eq!(bench.holdfast(&["dump", "latest", "/dumps/db.sql"]).succeeded().stdout, "content");
}

#[test]
fn the_output_of_a_command_is_a_file_unless_the_command_fails() {
    let bench = Bench::new(2);
    bench.holdfast(&["backup", "--stdin-from-command", "--", "sh", "-c", "seq 3"]).succeeded();
    assert_eq!(bench.restic(&["dump", "latest", "/stdin"]).succeeded().stdout, "1\n2\n3\n");
    let failed =
        bench.holdfast(&["backup", "--stdin-from-command", "--", "sh", "-c", "seq 3; echo no database >&2; exit 7"]);
    failed.ended(1).said(&["no database", "7"]);
    assert_eq!(bench.files("snapshots").len(), 1);
    bench.assert_clean();
}
