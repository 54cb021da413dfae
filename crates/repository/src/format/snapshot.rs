//! Snapshots: one backup each; and the rules by which they are chosen and grouped.
//!
//! Source: restic's design document, section "Snapshots", what restic 0.19 writes, and the options `--host`,
//! `--tag`, `--path` and `--group-by` of its manual.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

use super::time::Timestamp;
use crate::Id;

/// One backup: when, of what, by whom, and the tree it saved.
///
/// Fields that this version does not know are kept in `unknown`, so that rewriting a snapshot loses nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// When the backup began.
    pub time: Timestamp,
    /// The snapshot it was compared with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Id>,
    /// The root directory.
    pub tree: Id,
    /// What was backed up: absolute paths.
    #[serde(default, deserialize_with = "null_as_default")]
    pub paths: Vec<String>,
    /// The machine, or what stands for one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hostname: String,
    /// The name of the user that ran the backup.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub username: String,
    /// That user's number.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub uid: u32,
    /// That user's group.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub gid: u32,
    /// Patterns of what was left out.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub excludes: Vec<String>,
    /// Labels given by people.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// The snapshot that this one is a changed copy of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original: Option<Id>,
    /// The program that wrote it, as `restic 0.19.1`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub program_version: String,
    /// What the backup did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<SnapshotSummary>,
    /// Fields of other versions and programs.
    #[serde(flatten)]
    pub unknown: BTreeMap<String, serde_json::Value>,
}

/// What a backup did.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SnapshotSummary {
    /// When the backup began.
    pub backup_start: Timestamp,
    /// When it ended.
    pub backup_end: Timestamp,
    /// Files that the parent did not have.
    pub files_new: u64,
    /// Files that differ from the parent's.
    pub files_changed: u64,
    /// Files that are as in the parent.
    pub files_unmodified: u64,
    /// Directories that the parent did not have.
    pub dirs_new: u64,
    /// Directories that differ from the parent's.
    pub dirs_changed: u64,
    /// Directories that are as in the parent.
    pub dirs_unmodified: u64,
    /// Pieces of files that the repository did not have.
    pub data_blobs: i64,
    /// Directories that the repository did not have.
    pub tree_blobs: i64,
    /// Bytes of these before compression.
    pub data_added: u64,
    /// Bytes of these as stored.
    pub data_added_packed: u64,
    /// Files in the snapshot.
    pub total_files_processed: u64,
    /// Bytes of these files.
    pub total_bytes_processed: u64,
    /// Fields of other versions and programs.
    #[serde(flatten)]
    pub unknown: BTreeMap<String, serde_json::Value>,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// Go writes a list that was never made as `null`.
fn null_as_default<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl Snapshot {
    /// Reads a snapshot file (after decryption and decompression).
    pub fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(json)
    }

    /// The snapshot file's content.
    pub fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }

    /// Adds tags that are not there yet; whether anything changed.
    pub fn add_tags<'a>(&mut self, tags: impl IntoIterator<Item = &'a str>) -> bool {
        let before = self.tags.len();
        for tag in tags {
            if !self.tags.iter().any(|own| own == tag) {
                self.tags.push(tag.to_owned());
            }
        }
        self.tags.len() != before
    }

    /// Removes tags; whether anything changed.
    pub fn remove_tags(&mut self, tags: &[&str]) -> bool {
        let before = self.tags.len();
        self.tags.retain(|own| !tags.contains(&own.as_str()));
        self.tags.len() != before
    }

    /// Whether it has every tag of one list. The empty tag stands for "has no tags at all".
    pub fn has_tags(&self, list: &TagList) -> bool {
        for tag in &list.0 {
            if tag.is_empty() && self.tags.is_empty() {
                return true;
            }
            if !self.tags.contains(tag) {
                return false;
            }
        }
        true
    }
}

/// Tags that a snapshot must have all of: one `--tag a,b` of the command line.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TagList(pub Vec<String>);

impl FromStr for TagList {
    type Err = std::convert::Infallible;

    /// Splits at commas and trims white space; the empty text is one empty tag, which stands for "no tags".
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.split(',').map(|tag| tag.trim().to_owned()).collect()))
    }
}

impl fmt::Display for TagList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(","))
    }
}

/// Which snapshots are meant. Empty lists ask for nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SnapshotFilter {
    /// Any of these hosts.
    pub hosts: Vec<String>,
    /// All tags of any of these lists.
    pub tags: Vec<TagList>,
    /// All of these paths, as absolute paths written the same way.
    pub paths: Vec<String>,
}

impl SnapshotFilter {
    /// Whether a snapshot is meant.
    pub fn matches(&self, snapshot: &Snapshot) -> bool {
        (self.hosts.is_empty() || self.hosts.contains(&snapshot.hostname))
            && (self.tags.is_empty() || self.tags.iter().any(|list| snapshot.has_tags(list)))
            && self.paths.iter().all(|path| snapshot.paths.contains(path))
    }
}

/// What snapshots must have in common to be in one group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupBy {
    /// The same host.
    pub host: bool,
    /// The same set of paths.
    pub paths: bool,
    /// The same set of tags.
    pub tags: bool,
}

impl Default for GroupBy {
    /// By host and paths, as restic does.
    fn default() -> Self {
        Self { host: true, paths: true, tags: false }
    }
}

/// A text that names no grouping.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot group snapshots by {0:?}: expected host, paths or tags, or several with commas between")]
pub struct GroupByError(String);

impl FromStr for GroupBy {
    type Err = GroupByError;

    /// `host,paths,tags` in any order and number; empty for one group of all.
    fn from_str(text: &str) -> Result<Self, GroupByError> {
        let mut by = Self { host: false, paths: false, tags: false };
        for word in text.split(',') {
            match word.trim() {
                "host" | "hosts" => by.host = true,
                "path" | "paths" => by.paths = true,
                "tag" | "tags" => by.tags = true,
                "" => {}
                other => return Err(GroupByError(other.to_owned())),
            }
        }
        Ok(by)
    }
}

impl fmt::Display for GroupBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = [(self.host, "host"), (self.paths, "paths"), (self.tags, "tags")];
        let words: Vec<_> = words.iter().filter(|(is_on, _)| *is_on).map(|(_, word)| *word).collect();
        f.write_str(&words.join(","))
    }
}

/// What the snapshots of one group have in common; `None` and empty where that is not asked for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize)]
pub struct GroupKey {
    /// The host.
    pub hostname: String,
    /// The paths, sorted.
    pub paths: Option<Vec<String>>,
    /// The tags, sorted.
    pub tags: Option<Vec<String>>,
}

impl GroupBy {
    /// The group of a snapshot.
    pub fn key(&self, snapshot: &Snapshot) -> GroupKey {
        let sorted = |is_on: bool, list: &[String]| {
            let mut list = (is_on && !list.is_empty()).then(|| list.to_vec());
            list.iter_mut().for_each(|list| list.sort());
            list
        };
        GroupKey {
            hostname: if self.host { snapshot.hostname.clone() } else { String::new() },
            paths: sorted(self.paths, &snapshot.paths),
            tags: sorted(self.tags, &snapshot.tags),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: &str = concat!(
        r#"{"time":"2026-11-21T08:03:36.27428018+02:00","parent":"8c28f0576fc36f40b0bf67034052da30ab732dfc080395635fb4cefa52470dca","#,
        r#""tree":"5f2c2974fdc81da639b0d3d98ff674720e9ebbb31c8d12d45fa05448d0142cf0","paths":["/a","/b"],"hostname":"vm","#,
        r#""username":"root","uid":1000,"gid":100,"excludes":["*.o"],"tags":["x","y"],"#,
        r#""original":"8c28f0576fc36f40b0bf67034052da30ab732dfc080395635fb4cefa52470dca","program_version":"restic 0.19.1","#,
        r#""summary":{"backup_start":"2026-11-21T08:03:36.27428018+02:00","backup_end":"2026-11-21T08:03:36.8+02:00","#,
        r#""files_new":1,"files_changed":2,"files_unmodified":6,"dirs_new":3,"dirs_changed":6,"dirs_unmodified":4,"#,
        r#""data_blobs":5,"tree_blobs":6,"data_added":8175,"data_added_packed":2631,"total_files_processed":8,"#,
        r#""total_bytes_processed":10485770}}"#
    );

    fn snapshot(host: &str, tags: &[&str], paths: &[&str]) -> Snapshot {
        let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        Snapshot {
            hostname: host.into(),
            tags: texts(tags),
            paths: texts(paths),
            ..Snapshot::parse(FULL.as_bytes()).unwrap()
        }
    }

    #[test]
    fn every_field_is_read_and_written_as_restic_does() {
        let snapshot = Snapshot::parse(FULL.as_bytes()).unwrap();
        assert!(snapshot.unknown.is_empty());
        assert_eq!(String::from_utf8(snapshot.to_json().unwrap()).unwrap(), FULL);
    }

    #[test]
    fn unknown_fields_survive_a_rewrite() {
        let json =
            FULL.replacen('{', r#"{"label":{"a":[1,"x"]},"#, 1).replace(r#""data_blobs""#, r#""speed":3,"data_blobs""#);
        let again = Snapshot::parse(&Snapshot::parse(json.as_bytes()).unwrap().to_json().unwrap()).unwrap();
        assert_eq!(again.unknown["label"]["a"][1], "x");
        assert_eq!(again.summary.unwrap().unknown["speed"], 3);
    }

    #[test]
    fn old_snapshots_have_few_fields() {
        let json = r#"{"time":"2015-01-02T03:04:05Z","tree":"5f2c2974fdc81da639b0d3d98ff674720e9ebbb31c8d12d45fa05448d0142cf0","paths":null}"#;
        let snapshot = Snapshot::parse(json.as_bytes()).unwrap();
        assert!(snapshot.paths.is_empty() && snapshot.summary.is_none());
        assert!(Snapshot::parse(b"{}").is_err());
    }

    #[track_caller]
    fn check_filter(hosts: &[&str], tags: &[&str], paths: &[&str], of: &Snapshot, want: bool) {
        let filter = SnapshotFilter {
            hosts: hosts.iter().map(|host| (*host).into()).collect(),
            tags: tags.iter().map(|tags| tags.parse().unwrap()).collect(),
            paths: paths.iter().map(|path| (*path).into()).collect(),
        };
        assert_eq!(filter.matches(of), want, "{filter:?}");
    }

    #[test]
    fn filters() {
        let of = snapshot("a", &["x", "y"], &["/p", "/q"]);
        check_filter(&[], &[], &[], &of, true);
        check_filter(&["b", "a"], &[], &[], &of, true);
        check_filter(&["b"], &[], &[], &of, false);
        check_filter(&[], &["x,y"], &[], &of, true);
        check_filter(&[], &["x, z"], &[], &of, false);
        check_filter(&[], &["z", "y"], &[], &of, true);
        check_filter(&[], &[""], &[], &of, false);
        check_filter(&[], &[], &["/p"], &of, true);
        check_filter(&[], &[], &["/p", "/r"], &of, false);
        check_filter(&[], &[""], &[], &snapshot("a", &[], &[]), true);
        check_filter(&[], &["x"], &[], &snapshot("a", &[], &[]), false);
    }

    #[test]
    fn grouping() {
        let one = snapshot("a", &["y", "x"], &["/q", "/p"]);
        let other = snapshot("b", &["x", "y"], &["/p", "/q"]);
        for (by, same) in [("", true), ("paths,tags", true), ("tag", true), ("host", false), ("host,paths", false)] {
            let by: GroupBy = by.parse().unwrap();
            assert_eq!(by.key(&one) == by.key(&other), same, "{by}");
        }
        assert_eq!(GroupBy::default().to_string(), "host,paths");
        assert!("hosts,colour".parse::<GroupBy>().unwrap_err().to_string().contains("colour"));
    }

    #[test]
    fn tags() {
        let mut snapshot = snapshot("a", &["x"], &[]);
        assert!(!snapshot.add_tags(["x"]));
        assert!(snapshot.add_tags(["y", "y"]));
        assert_eq!(snapshot.tags, ["x", "y"]);
        assert!(snapshot.remove_tags(&["x"]) && !snapshot.remove_tags(&["x"]));
    }
}
