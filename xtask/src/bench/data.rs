//! The benchmark's data: made once, kept in the cache, the same on every machine except for the database.

use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::cache::Cache;
use crate::command;
use crate::tools::{self, Tool};

/// What is backed up. Sizes are those of `--percent 100`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(super) enum Data {
    /// 2 GiB of random bytes in 8 files: nothing to compress, nothing to deduplicate
    Large,
    /// A PostgreSQL data directory of some 1.9 GB, filled by pgbench and shut down
    Postgres,
    /// 200,000 files of 4 KiB on average, half of them text
    Small,
}

/// Large files are changed in parts of this size.
const BLOCK: u64 = 1 << 20;

impl Data {
    pub(super) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// The folder with the data, made now unless it is there. A crash on the way leaves nothing that counts.
    pub(super) fn folder(self, cache: &Cache, percent: u64) -> Result<PathBuf> {
        let name = format!("{}-{percent}", self.name());
        let folder = cache.folder("bench/data")?.join(&name);
        let _turn = cache.lock(&format!("bench-{name}"))?;
        if folder.exists() {
            return Ok(folder);
        }
        eprintln!("making the data `{}`, once", self.name());
        let unfinished = folder.with_extension("unfinished");
        remove(&unfinished)?;
        match self {
            Self::Large => large(&unfinished, percent),
            Self::Postgres => postgres(cache, &unfinished, percent),
            Self::Small => small(&unfinished, percent),
        }
        .with_context(|| format!("cannot make the data `{}`", self.name()))?;
        fs::rename(&unfinished, &folder).with_context(|| format!("cannot name {}", folder.display()))?;
        Ok(folder)
    }
}

/// Removes a folder with everything in it, if it exists.
pub(super) fn remove(folder: &Path) -> Result<()> {
    if folder.symlink_metadata().is_ok() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    Ok(())
}

/// Inverts one in a hundred of all blocks below `folder`, a block being 1 MiB of a file or what is left of it, so a
/// small file is one block. The same `seed` again brings the first content back; names and sizes stay as they are.
pub(super) fn change(folder: &Path, seed: u64) -> Result<()> {
    let mut choice = Random(seed);
    each_file(folder, &mut |path, size| {
        let chosen: Vec<u64> = (0..size.div_ceil(BLOCK))
            .filter(|_| choice.next().is_multiple_of(100))
            .map(|block| block * BLOCK)
            .collect();
        if chosen.is_empty() {
            return Ok(());
        }
        let mut file = OpenOptions::new().read(true).write(true).open(path)?;
        for start in chosen {
            let mut block = Vec::new();
            file.seek(SeekFrom::Start(start))?;
            (&file).take(BLOCK).read_to_end(&mut block)?;
            block.iter_mut().for_each(|byte| *byte = !*byte);
            file.seek(SeekFrom::Start(start))?;
            file.write_all(&block)?;
        }
        Ok(())
    })
    .with_context(|| format!("cannot change {}", folder.display()))
}

/// Every regular file below a folder, in the order of their names, one at a time.
fn each_file(folder: &Path, visit: &mut impl FnMut(&Path, u64) -> Result<()>) -> Result<()> {
    let mut names = fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name())).collect::<Result<Vec<_>>>()?;
    names.sort();
    for name in names {
        let path = folder.join(name);
        let metadata = path.symlink_metadata()?;
        if metadata.is_dir() {
            each_file(&path, visit)?;
        } else if metadata.is_file() {
            visit(&path, metadata.len())?;
        }
    }
    Ok(())
}

fn large(folder: &Path, percent: u64) -> Result<()> {
    fs::create_dir_all(folder)?;
    for number in 0..8 {
        let mut file = BufWriter::with_capacity(1 << 20, File::create(folder.join(format!("{number}.bin")))?);
        let mut random = Random(number);
        for _ in 0..percent * (256 << 20) / 100 / 8 {
            file.write_all(&random.next().to_le_bytes())?;
        }
        file.flush()?;
    }
    Ok(())
}

fn small(folder: &Path, percent: u64) -> Result<()> {
    let mut random = Random(42);
    for number in 0..percent * 200_000 / 100 {
        let group = folder.join(format!("{:03}/{:02}", number / 4000, number / 200 % 20));
        if number % 200 == 0 {
            fs::create_dir_all(&group)?;
        }
        // Half are below 2 KiB, three in eight below 8 KiB, one in eight below 32 KiB.
        let most = match random.next() % 8 {
            0..4 => 2 << 10,
            4..7 => 8 << 10,
            _ => 32 << 10,
        };
        let size = random.next() % most;
        let mut content = Vec::new();
        while (content.len() as u64) < size {
            let word = random.next();
            if number % 2 == 0 {
                content.extend_from_slice(&word.to_le_bytes());
            } else {
                content.extend_from_slice(format!("{word:x} ").as_bytes());
            }
        }
        fs::write(group.join(format!("{number}.dat")), content)?;
    }
    Ok(())
}

/// `initdb`, `pgbench -i`, and a clean stop. PostgreSQL refuses to run as root, so there its own user does it, in a
/// folder that this user can reach; the finished one is moved.
fn postgres(cache: &Cache, folder: &Path, percent: u64) -> Result<()> {
    tools::install(cache, &[Tool::Postgresql])?;
    let place = PathBuf::from(format!("/var/tmp/holdfast-bench-{}", std::process::id()));
    remove(&place)?;
    fs::create_dir_all(&place)?;
    let made = fill(&place, percent).and_then(|data| {
        let moved = command::output(Command::new("mv").arg(data).arg(folder));
        moved.map(drop)
    });
    remove(&place)?;
    made
}

fn fill(place: &Path, percent: u64) -> Result<PathBuf> {
    let root = command::output(Command::new("id").arg("-u"))?.trim() == "0";
    if root {
        command::output(Command::new("chown").arg("postgres:").arg(place))?;
    }
    let run = |program: &str| {
        let program = Path::new("/usr/lib/postgresql/15/bin").join(program);
        let mut command = if root {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        command.current_dir(place);
        command
    };
    let data = place.join("data");
    let scale = (128 * percent / 100).max(1).to_string();
    let socket = place.display().to_string();
    command::output(run("initdb").args(["--no-sync", "--auth=trust", "--username=bench", "--pgdata"]).arg(&data))?;
    let settings = format!("-k {socket} -c listen_addresses= -c fsync=off -c max_wal_size=128MB");
    let server = |verb: &str| {
        let mut command = run("pg_ctl");
        command.args([verb, "--wait", "--log", "server.log", "--pgdata"]).arg(&data);
        command
    };
    command::output(server("start").args(["--options", &settings]))?;
    let filled = command::output(run("pgbench").args([
        "--initialize",
        "--quiet",
        "--scale",
        &scale,
        "--username=bench",
        "--host",
        &socket,
        "postgres",
    ]));
    let stopped = command::output(server("stop").arg("--mode=fast"));
    filled?;
    stopped?;
    Ok(data)
}

/// SplitMix64: the same bytes on every machine, fast, and not compressible.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn content(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut found = BTreeMap::new();
        each_file(folder, &mut |path, _| {
            found.insert(path.to_owned(), fs::read(path)?);
            Ok(())
        })
        .unwrap();
        found
    }

    #[test]
    fn one_in_a_hundred_small_files_changes_and_changes_back() {
        let folder = tempfile::tempdir().unwrap();
        small(folder.path(), 1).unwrap();
        let before = content(folder.path());
        assert_eq!(before.len(), 2000);
        change(folder.path(), 7).unwrap();
        let after = content(folder.path());
        let changed = before.iter().filter(|(path, bytes)| after[*path] != **bytes).count();
        assert!((10..40).contains(&changed), "{changed} of 2000");
        change(folder.path(), 7).unwrap();
        assert_eq!(content(folder.path()), before);
    }

    #[test]
    fn a_large_file_changes_by_whole_blocks() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("large");
        File::create(&path).unwrap().set_len(200 * BLOCK).unwrap();
        change(folder.path(), 1).unwrap();
        let mut file = File::open(&path).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 200 * BLOCK);
        let mut changed = 0;
        let mut block = vec![0; BLOCK as usize];
        for _ in 0..200 {
            file.read_exact(&mut block).unwrap();
            assert!(block == vec![block[0]; BLOCK as usize], "part of a block");
            changed += usize::from(block[0] == 0xff);
        }
        assert!((1..10).contains(&changed), "{changed} of 200");
    }

    #[test]
    fn random_data_is_the_same_every_time() {
        let mut random = Random(0);
        assert_eq!(random.next(), 0xe220_a839_7b1d_cdaf, "the first number of SplitMix64 for seed 0");
    }
}
