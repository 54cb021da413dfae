//! Disks that are full or read-only. Needs root, to mount small file systems.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::bench::{Bench, assert_same, below, init};
use crate::servers::noise;

/// A file system in memory; unmounted when it is dropped.
struct Disk {
    path: PathBuf,
}

impl Disk {
    fn mount(path: PathBuf, size: &str) -> Self {
        assert!(rustix::process::geteuid().is_root(), "this test mounts a file system: run it as root");
        std::fs::create_dir_all(&path).unwrap();
        mount(&["-t", "tmpfs", "-o", &format!("size={size},mode=755"), "tmpfs"], &path);
        Self { path }
    }

    fn remount(&self, options: &str) {
        mount(&["-o", &format!("remount,{options}")], &self.path);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.path).status();
    }
}

#[track_caller]
fn mount(args: &[&str], path: &Path) {
    let status = Command::new("mount").args(args).arg(path).status().expect("mount is installed");
    assert!(status.success(), "mount {args:?} {}: {status}", path.display());
}

#[test]
fn a_full_repository_says_so_stays_whole_and_goes_on_when_there_is_room() {
    let bench = Bench::bare();
    let disk = Disk::mount(bench.repository(), "8m");
    init(&bench.repository(), 2);
    bench.backup(&[]);
    std::fs::write(bench.data().join("too large"), noise(7, 20_000_000)).unwrap();
    let data = bench.data();
    let args = ["backup", data.to_str().unwrap()];
    bench.holdfast(&args).ended(1).said(&[
        "cannot write",
        "No space left",
        bench.repository().to_str().unwrap(),
        "hint: make room",
    ]);
    assert_eq!(bench.files("snapshots").len(), 1);
    disk.remount("size=64m");
    bench.assert_clean();
    bench.holdfast(&args).succeeded();
    bench.assert_clean();
}

#[test]
fn a_full_target_says_so_and_the_restore_goes_on_when_there_is_room() {
    let bench = Bench::new(2);
    bench.backup(&[]);
    let target = bench.dir.path().join("target");
    let disk = Disk::mount(target.clone(), "1m");
    let args = ["restore", "latest", "--target", target.to_str().unwrap()];
    bench.holdfast(&args).ended(1).said(&["No space left", target.to_str().unwrap(), "hint: make room"]);
    disk.remount("size=64m");
    bench.holdfast(&args).succeeded();
    assert_same(&bench.data(), &below(&target, &bench.data()));
}

#[test]
fn a_full_disk_under_standard_output_is_no_success() {
    let bench = Bench::new(2);
    bench.backup(&[]);
    let large = bench.data().join("large");
    let mut command = bench.command(&["dump", "latest", large.to_str().unwrap()]);
    command.stdout(std::fs::File::options().write(true).open("/dev/full").unwrap());
    crate::bench::Run::of("holdfast", &["dump"], command).ended(1).said(&["No space left"]);
}

#[test]
fn a_read_only_repository_is_read_without_a_lock() {
    let bench = Bench::bare();
    let disk = Disk::mount(bench.repository(), "16m");
    init(&bench.repository(), 2);
    bench.backup(&[]);
    disk.remount("ro");
    bench.holdfast(&["backup", "data"]).ended(1).said(&["cannot write", "Read-only file system", "hint:"]);
    bench.holdfast(&["snapshots"]).ended(1).said(&["Read-only file system", "--no-lock"]);
    bench.holdfast(&["snapshots", "--no-lock"]).succeeded();
    bench.holdfast(&["ls", "latest", "--no-lock"]).succeeded();
    bench.holdfast(&["check"]).ended(1).said(&["Read-only file system", "--no-lock"]);
    bench.holdfast(&["check", "--no-lock", "--read-data"]).succeeded();
    let target = bench.dir.path().join("restored");
    bench.holdfast(&["restore", "latest", "--no-lock", "--target", target.to_str().unwrap()]).succeeded();
    assert_same(&bench.data(), &below(&target, &bench.data()));
}

#[test]
fn a_read_only_target_says_so() {
    let bench = Bench::new(2);
    bench.backup(&[]);
    let target = bench.dir.path().join("target");
    let disk = Disk::mount(target.clone(), "16m");
    disk.remount("ro");
    bench
        .holdfast(&["restore", "latest", "--target", target.to_str().unwrap()])
        .ended(1)
        .said(&["Read-only file system", "hint:"]);
}

#[test]
fn a_place_that_no_repository_can_be_made_in_says_so() {
    let bench = Bench::bare();
    std::fs::write(bench.dir.path().join("file"), "").unwrap();
    bench.holdfast(&["-r", "file/repository", "init"]).ended(1).said(&["file/repository"]);
    let folder = bench.dir.path().join("secret");
    std::fs::create_dir(&folder).unwrap();
    std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o555)).unwrap();
    let disk = Disk::mount(folder, "1m");
    disk.remount("ro");
    bench.holdfast(&["-r", "secret/repository", "init"]).ended(1).said(&["secret/repository", "hint:"]);
}
