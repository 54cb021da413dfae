//! The same question has the same answer as restic's.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::bench::Bench;
use crate::servers::noise;

/// A repository with a history: four hosts and tags, files that came, changed and went.
fn history() -> Bench {
    let bench = Bench::new(2);
    let data = bench.data();
    bench.backup(&["--host", "one", "--tag", "a,b", "--time", "2026-01-01 10:00:00"]);
    std::fs::write(data.join("folder/text"), "changed").unwrap();
    std::fs::write(data.join("new"), noise(3, 50_000)).unwrap();
    bench.restic_backup(&["--host", "one", "--tag", "b", "--time", "2026-01-02 10:00:00"]);
    std::fs::remove_dir_all(data.join("folder/deep")).unwrap();
    std::fs::hard_link(data.join("new"), data.join("new too")).unwrap();
    bench.backup(&["--host", "one", "--time", "2026-02-02 10:00:00"]);
    bench.backup(&["--host", "two", "--tag", "a", "--time", "2026-02-02 11:00:00"]);
    bench
}

fn ids(list: &Value) -> Vec<String> {
    list.as_array().unwrap().iter().map(|snapshot| snapshot["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn snapshots() {
    let bench = history();
    let data = bench.data();
    for flags in [
        &[][..],
        &["--host", "one"],
        &["--host", "one", "--host", "two"],
        &["--tag", "a"],
        &["--tag", "a,b"],
        &["--tag", ""],
        &["--tag", "a,b", "--tag", "a"],
        &["--path", data.to_str().unwrap()],
        &["--path", "/nowhere"],
        &["--latest", "1"],
        &["latest"],
    ] {
        let args = [&["snapshots", "--json"], flags].concat();
        let ours = bench.holdfast(&args).succeeded().json();
        let mut theirs = bench.restic(&args).succeeded().json();
        let mut by_time = theirs.as_array_mut().map(std::mem::take).unwrap_or_default();
        by_time.sort_by_key(|snapshot| snapshot["time"].as_str().unwrap().to_owned());
        assert_eq!(ours, Value::Array(by_time), "{flags:?}");
    }
    let groups = bench.holdfast(&["snapshots", "--json", "--group-by", "host"]).succeeded().json();
    assert_eq!(groups[0]["group_key"]["hostname"], "one");
    assert_eq!(groups[0]["snapshots"].as_array().unwrap().len(), 3);
    let table = bench.holdfast(&["snapshots"]).succeeded();
    assert!(table.stdout.starts_with("ID ") && table.stdout.ends_with("4 snapshots\n"), "{}", table.stdout);
    bench.holdfast(&["snapshots", "ffffffff"]).ended(1).said(&["ffffffff", "hint:"]);
}

#[test]
fn ls() {
    let bench = history();
    let folder = bench.data().join("folder").to_str().unwrap().to_owned();
    for flags in [&[][..], &[&*folder], &["--recursive", bench.data().to_str().unwrap()], &["--long"]] {
        let args = [&["ls", "latest"], flags].concat();
        let ours = bench.holdfast(&args).succeeded();
        let theirs = bench.restic(&[&["--quiet"], &*args].concat()).succeeded();
        let entries = |lines: Vec<&str>| {
            let is_entry = |line: &&str| !line.is_empty() && !line.starts_with("snapshot ");
            lines
                .into_iter()
                .filter(is_entry)
                .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
                .collect::<Vec<_>>()
        };
        assert_eq!(entries(ours.lines()), entries(theirs.lines()), "{flags:?}");
    }
    let ours = bench.holdfast(&["ls", "latest", "--json"]).succeeded().json_lines();
    let theirs = bench.restic(&["ls", "latest", "--json"]).succeeded().json_lines();
    assert_eq!(ours.len(), theirs.len());
    for (ours, theirs) in ours.iter().zip(&theirs) {
        for (name, value) in theirs.as_object().unwrap() {
            assert_eq!(ours[name], *value, "{name} of {ours}");
        }
    }
    bench.holdfast(&["ls", "latest", "/nowhere"]).ended(1).said(&["/nowhere", "hint:"]);
}

#[test]
fn find() {
    let bench = history();
    let hits = |list: Value| {
        let mut hits = BTreeSet::new();
        for snapshot in list.as_array().cloned().unwrap_or_default() {
            for found in snapshot["matches"].as_array().unwrap() {
                hits.insert((
                    snapshot["snapshot"].to_string(),
                    found["path"].to_string(),
                    found["size"].as_u64().unwrap_or(0),
                ));
            }
        }
        hits
    };
    for flags in [
        &["text"][..],
        &["n*"],
        &["-i", "TEXT", "LARGE"],
        &["--host", "two", "new"],
        &["--tag", "b", "text"],
        &["nowhere"],
    ] {
        let args = [&["find", "--json"], flags].concat();
        let ours = hits(bench.holdfast(&args).succeeded().json());
        let theirs = hits(bench.restic(&args).succeeded().json());
        assert_eq!(ours, theirs, "{flags:?}");
    }
    bench.holdfast(&["find", "nowhere"]).succeeded().said(&["nothing found"]);
}

#[test]
fn diff() {
    let bench = history();
    let snapshots = ids(&bench.holdfast(&["snapshots", "--json"]).succeeded().json());
    for (before, after) in [(0, 1), (1, 2), (2, 0), (2, 3)] {
        for flags in [&[][..], &["--metadata"]] {
            let args = [&["diff", "--json", &*snapshots[before], &*snapshots[after]], flags].concat();
            let sorted = |mut lines: Vec<Value>| {
                lines.sort_by_key(ToString::to_string);
                lines
            };
            let ours = sorted(bench.holdfast(&args).succeeded().json_lines());
            let theirs = sorted(bench.restic(&args).succeeded().json_lines());
            assert_eq!(ours, theirs, "{before} and {after} {flags:?}");
        }
    }
}

#[test]
fn dump() {
    let bench = history();
    let folder = bench.data().join("folder").to_str().unwrap().to_owned();
    let file = format!("{folder}/text");
    assert_eq!(bench.holdfast(&["dump", "latest", &file]).succeeded().stdout, "changed");
    let target = bench.dir.path().join("text");
    bench.holdfast(&["dump", "latest", &file, "--target", target.to_str().unwrap()]).succeeded();
    assert_eq!(std::fs::read(target).unwrap(), b"changed");
    let tar = |program: &str| {
        let archive = bench.dir.path().join(program);
        let args = ["dump", "latest", &folder, "--target", archive.to_str().unwrap()];
        if program == "restic" { bench.restic(&args) } else { bench.holdfast(&args) }.succeeded();
        let mut list = std::process::Command::new("tar");
        let list = list.args(["--numeric-owner", "-tvf"]).arg(archive).output().expect("tar is installed");
        assert!(list.status.success());
        String::from_utf8(list.stdout).unwrap()
    };
    // restic leaves out the folder itself.
    let (ours, theirs) = (tar("holdfast"), tar("restic"));
    assert_eq!(ours.lines().skip(1).collect::<Vec<_>>(), theirs.lines().collect::<Vec<_>>());
    assert!(ours.starts_with("drwx"), "{ours}");
    bench.holdfast(&["dump", "latest", "/nowhere"]).ended(1).said(&["/nowhere", "hint:"]);
}

#[test]
fn stats() {
    let bench = history();
    for mode in ["restore-size", "files-by-contents", "blobs-per-file", "raw-data"] {
        for flags in [&[][..], &["latest"], &["--host", "one"]] {
            let args = [&["stats", "--json", "--mode", mode], flags].concat();
            let ours = bench.holdfast(&args).succeeded().json();
            let theirs = bench.restic(&args).succeeded().json();
            for (name, value) in theirs.as_object().unwrap() {
                let close = (ours[name].as_f64().unwrap_or(-1.0) - value.as_f64().unwrap()).abs() < 1e-6;
                assert!(close, "{mode} {flags:?}: {name}: {ours} and {theirs}");
            }
        }
    }
}

#[test]
fn forget() {
    let bench = history();
    for flags in [
        &["--keep-last", "1"][..],
        &["-d", "1", "--group-by", ""],
        &["--keep-monthly", "unlimited", "--group-by", "host"],
        &["--keep-within", "1m", "--host", "one"],
        &["--keep-tag", "a"],
        &["--keep-within-daily", "1y2m", "--tag", "b"],
    ] {
        let args = [&["forget", "--json", "--dry-run"], flags].concat();
        let ours = bench.holdfast(&args);
        let theirs = bench.restic(&args);
        if theirs.code == Some(1) {
            // Neither removes everything of a group.
            ours.ended(1).said(&["nothing was removed"]);
            continue;
        }
        let summary = |groups: &Value| {
            let mut all = BTreeSet::new();
            for group in groups.as_array().unwrap() {
                let list = |name: &str| {
                    let list = group[name].as_array().cloned().unwrap_or_default();
                    list.iter().map(|snapshot| snapshot["id"].to_string()).collect::<BTreeSet<_>>()
                };
                let reasons: BTreeSet<_> =
                    group["reasons"].as_array().unwrap().iter().map(|reason| reason["matches"].to_string()).collect();
                all.insert((
                    group["host"].to_string(),
                    group["paths"].to_string(),
                    list("keep"),
                    list("remove"),
                    reasons,
                ));
            }
            all
        };
        assert_eq!(summary(&ours.succeeded().json()["groups"]), summary(&theirs.succeeded().json()), "{flags:?}");
    }
    let last = &ids(&bench.holdfast(&["snapshots", "--json"]).succeeded().json())[3];
    let run = bench.holdfast(&["forget", last]).succeeded();
    assert!(run.stdout.contains(&format!("removed 1 snapshot: {}", &last[..8])), "{}", run.stdout);
    let run = bench.holdfast(&["forget", "--keep-last", "1", "--prune", "--group-by", "host"]).succeeded();
    assert!(run.stdout.contains("last snapshot") && run.stdout.contains("freed"), "{}", run.stdout);
    assert_eq!(bench.files("snapshots").len(), 1);
    bench.assert_clean();
    bench.holdfast(&["forget"]).ended(1).said(&["nothing was removed", "--keep-last"]);
    bench.holdfast(&["forget", "abcdabcd"]).ended(1).said(&["abcdabcd", "hint:"]);
}

#[test]
fn tags() {
    let bench = history();
    let run = bench.holdfast(&["tag", "--add", "x,y", "--remove", "a", "--host", "two", "--json"]).succeeded();
    assert_eq!(run.json_lines().last().unwrap()["changed_snapshots"], 1);
    let tagged = bench.restic(&["snapshots", "--json", "--tag", "x,y"]).succeeded().json();
    assert_eq!(tagged[0]["tags"], serde_json::json!(["x", "y"]));
    assert_eq!(tagged[0]["hostname"], "two");
    bench.holdfast(&["tag", "--set", "", "latest"]).succeeded();
    assert!(bench.restic(&["snapshots", "--json", "latest"]).succeeded().json()[0].get("tags").is_none());
    bench.holdfast(&["tag"]).ended(1).said(&["--add"]);
    bench.assert_clean();
}

#[test]
fn check_tells_what_is_damaged() {
    let bench = history();
    bench.holdfast(&["check", "--read-data"]).succeeded();
    bench.holdfast(&["check", "--read-data-subset", "1/2"]).succeeded();
    let pack = bench
        .files("data")
        .iter()
        .flat_map(|folder| std::fs::read_dir(folder).unwrap())
        .map(|entry| entry.unwrap().path())
        .max_by_key(|path| path.metadata().unwrap().len());
    let pack = pack.unwrap();
    let mut bytes = std::fs::read(&pack).unwrap();
    bytes[1000] ^= 1;
    std::fs::remove_file(&pack).unwrap();
    std::fs::write(&pack, bytes).unwrap();
    let run = bench.holdfast(&["check", "--read-data"]).ended(1);
    assert!(
        run.stdout.contains(pack.file_name().unwrap().to_str().unwrap()) && run.stdout.contains("hint:"),
        "{}",
        run.stdout
    );
    let json = bench.holdfast(&["check", "--read-data", "--json"]).ended(1).json();
    assert!(json["num_errors"].as_u64() > Some(0) && json["affected_count"].as_u64() > Some(0), "{json}");
    let target = bench.dir.path().join("restored");
    bench
        .holdfast(&["restore", "latest", "--target", target.to_str().unwrap()])
        .ended(1)
        .said(&["incomplete", "large"]);
}
