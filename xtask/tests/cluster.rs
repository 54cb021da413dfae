//! Test clusters as a person uses them: up, down, after a crash, two at once, and the machine as it was.
#![expect(clippy::unwrap_used, reason = "this is a test")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// `cargo xtask cluster …`, on the cache of this user.
fn cluster(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_xtask")).arg("cluster").args(words).output().unwrap()
}

/// The same, which must succeed; returns what it said.
fn must(words: &[&str]) -> String {
    let output = cluster(words);
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "cluster {words:?}: {said}");
    said
}

/// kubectl in a cluster.
fn kubectl(name: &str, words: &[&str]) -> Output {
    cluster(&[&["exec", "--name", name, "--", "kubectl"], words].concat())
}

/// A name that no other run of this test uses at the same time. The cluster ends with it, also when the test fails.
struct Named(String);

impl Named {
    fn new(what: &str) -> Self {
        Self(format!("test-{}-{what}", std::process::id()))
    }

    fn folder(&self) -> PathBuf {
        cache().join("clusters").join(&self.0)
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        cluster(&["down", "--name", &self.0]);
        let _never_made = fs::remove_file(cache().join("locks").join(format!("cluster-{}", self.0)));
    }
}

fn cache() -> PathBuf {
    let own = std::env::var_os("HOLDFAST_CACHE").filter(|folder| !folder.is_empty());
    own.map_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache/holdfast"), PathBuf::from)
}

/// Folders of cgroups whose name begins so.
fn cgroups(name: &str) -> Vec<PathBuf> {
    let prefix = format!("holdfast-{name}-");
    let below = |folder: &Path| -> Vec<PathBuf> {
        fs::read_dir(folder).map(|entries| entries.flatten().map(|entry| entry.path()).collect()).unwrap_or_default()
    };
    let mut found = below(Path::new("/sys/fs/cgroup"));
    found.extend(found.clone().iter().flat_map(|folder| below(folder)));
    found.retain(|path| path.file_name().unwrap().to_string_lossy().starts_with(&prefix));
    found
}

/// Everything of the machine that a cluster could disturb, as text.
fn machine() -> String {
    let run = |words: &[&str]| {
        let output = Command::new(words[0]).args(&words[1..]).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    };
    let mut text = run(&["ip", "-o", "addr"]) + &run(&["ip", "route"]) + &run(&["ip", "netns"]);
    text += &fs::read_to_string("/proc/self/mountinfo").unwrap();
    text += &run(&["iptables-save"]).lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n");
    for setting in ["vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops"] {
        text += &fs::read_to_string(Path::new("/proc/sys").join(setting)).unwrap();
    }
    for folder in ["/etc", "/opt", "/usr/libexec", "/var/lib", "/var/log"] {
        text += &run(&["ls", folder]);
    }
    // How long an address is valid counts down by itself.
    text.split_whitespace().filter(|word| !word.ends_with("sec")).collect::<Vec<_>>().join(" ")
}

/// A process of the caller that must outlive every cluster.
struct Bystander(Child);

impl Drop for Bystander {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Components that are killed, stopped, started again; a node that is cut off.
fn faults(name: &str) {
    let line = |component: &str| {
        let said = must(&["status", "--name", name]);
        said.lines().find(|line| line.starts_with(component)).unwrap().to_owned()
    };
    let before = line("etcd");
    must(&["restart", "--name", name, "--kill", "etcd"]);
    assert_ne!(line("etcd").split_whitespace().nth(1), before.split_whitespace().nth(1), "another process");
    must(&["stop", "--name", name, "scheduler"]);
    assert!(line("scheduler").ends_with("stopped"), "{}", line("scheduler"));
    must(&["start", "--name", name, "scheduler"]);
    assert!(!line("scheduler").ends_with("stopped"), "{}", line("scheduler"));
    let unknown = cluster(&["stop", "--name", name, "nobody"]);
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("there are"), "{unknown:?}");

    // The kubelet answers whoever reaches it, if only to refuse.
    let asks = || {
        let url = "https://10.77.0.11:10250/pods";
        let curl =
            ["exec", "--name", name, "--", "curl", "-sk", "-m", "2", "-o", "/dev/null", "-w", "%{http_code}", url];
        String::from_utf8(cluster(&curl).stdout).unwrap()
    };
    assert_eq!(asks(), "401");
    must(&["cut", "--name", name, "1"]);
    assert_eq!(asks(), "000");
    must(&["heal", "--name", name, "1"]);
    let deadline = Instant::now() + Duration::from_secs(30);
    while asks() != "401" {
        assert!(Instant::now() < deadline, "the node is not reached again");
    }
}

#[test]
fn clusters_come_and_go_without_a_trace_and_do_not_meet() {
    let mut bystander = Bystander(Command::new("sleep").arg("1000").spawn().unwrap());
    let before = machine();
    let (one, two) = (Named::new("one"), Named::new("two"));
    thread::scope(|scope| {
        for name in [&one.0, &two.0] {
            scope.spawn(move || must(&["up", "--name", name, "--nodes", "1"]));
        }
    });
    assert_eq!(machine(), before, "while two clusters are up");
    assert!(must(&["up", "--name", &one.0, "--nodes", "1"]).contains("is up already"));
    assert!(!cluster(&["up", "--name", &one.0, "--nodes", "2"]).status.success(), "another number of nodes");

    let created = kubectl(&one.0, &["create", "configmap", "only-here"]);
    assert!(created.status.success(), "{created:?}");
    let elsewhere = kubectl(&two.0, &["get", "configmap", "only-here"]);
    assert!(String::from_utf8_lossy(&elsewhere.stderr).contains("NotFound"), "{elsewhere:?}");

    faults(&two.0);

    // A pod runs when its cluster crashes.
    let run = ["run", "sleeper", "--image=holdfast.test/busybox:1", "--command", "--", "sleep", "1000"];
    let ran = kubectl(&one.0, &run);
    assert!(ran.status.success(), "{ran:?}");
    let waited = kubectl(&one.0, &["wait", "--for=condition=Ready", "pod/sleeper", "--timeout=60s"]);
    assert!(waited.status.success(), "{waited:?}");
    assert!(must(&["status", "--name", &one.0]).contains("kubelet-1"));

    let first = fs::read_to_string(one.folder().join("init.pid")).unwrap();
    assert!(Command::new("kill").args(["-9", first.trim()]).status().unwrap().success());
    must(&["down", "--name", &one.0]);
    assert!(!one.folder().exists() && cgroups(&one.0).is_empty(), "{:?}", cgroups(&one.0));
    assert!(must(&["down", "--name", &one.0]).contains("is not there"));
    let gone = cluster(&["exec", "--name", &one.0, "--", "true"]);
    assert!(String::from_utf8_lossy(&gone.stderr).contains("is not up"), "{gone:?}");

    let nodes = kubectl(&two.0, &["get", "nodes", "--no-headers"]);
    assert!(String::from_utf8_lossy(&nodes.stdout).contains(" Ready "), "the other cluster goes on: {nodes:?}");
    assert!(!cgroups(&two.0).is_empty());
    must(&["down", "--name", &two.0]);
    assert!(!two.folder().exists() && cgroups(&two.0).is_empty(), "{:?}", cgroups(&two.0));
    assert_eq!(machine(), before, "after two clusters");
    assert!(bystander.0.try_wait().unwrap().is_none(), "a process of the caller was ended");
}

#[test]
fn a_start_whose_caller_is_killed_ends_by_itself() {
    let name = Named::new("orphan");
    let processes = || -> usize {
        let read = |folder: &PathBuf| fs::read_to_string(folder.join("system/cgroup.procs")).unwrap_or_default();
        cgroups(&name.0).iter().map(|folder| read(folder).lines().count()).sum()
    };
    let until = |what: &str, state: &dyn Fn() -> bool| {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !state() {
            assert!(Instant::now() < deadline, "{what}");
            thread::sleep(Duration::from_millis(50));
        }
    };
    let mut up = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(["cluster", "up", "--name", &name.0, "--nodes", "1"])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    until("it does not begin", &|| processes() > 0);
    up.kill().unwrap();
    up.wait().unwrap();
    until("its processes go on", &|| processes() == 0);
    must(&["down", "--name", &name.0]);
    assert!(!name.folder().exists() && cgroups(&name.0).is_empty());
}

#[test]
fn a_component_that_dies_is_named_with_its_log_and_nothing_stays() {
    let folder = tempfile::tempdir_in(cache()).unwrap();
    // A cache like the real one, but for one program.
    fs::create_dir(folder.path().join("bin")).unwrap();
    for entry in fs::read_dir(cache().join("bin")).unwrap().flatten() {
        symlink(entry.path(), folder.path().join("bin").join(entry.file_name())).unwrap();
    }
    fs::create_dir_all(cache().join("images")).unwrap();
    symlink(cache().join("images"), folder.path().join("images")).unwrap();
    let etcd = folder.path().join("bin/etcd");
    fs::remove_file(&etcd).unwrap();
    fs::write(&etcd, "#!/bin/sh\necho the disk is on fire\nexit 3\n").unwrap();
    fs::set_permissions(&etcd, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();

    let output = Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(["cluster", "up", "--name", "broken", "--nodes", "1"])
        .env("HOLDFAST_CACHE", folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("etcd: it has ended: exit status: 3") && said.contains("the disk is on fire"), "{said}");
    assert!(!folder.path().join("clusters/broken").exists() && cgroups("broken").is_empty(), "{said}");
}
