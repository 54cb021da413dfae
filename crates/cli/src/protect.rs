//! `protect`: writes a folder of manifests for someone who only has directories.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Args;
use holdfast_api::values::Schedule;
use serde_json::json;

use crate::failure::{Failure, Result, code};
use crate::output::Output;

#[derive(Debug, Args)]
pub(crate) struct ProtectArgs {
    /// The folders to protect
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// The repository: a folder, s3:https://HOST/BUCKET/PREFIX, or gs:BUCKET:/PREFIX
    #[arg(long, value_name = "REPOSITORY")]
    to: String,
    /// How often, as 30m or 24h; or a cron schedule
    #[arg(long, default_value = "1h")]
    every: String,
    /// How many snapshots are kept
    #[arg(long, default_value = "5", value_parser = clap::value_parser!(u32).range(1..))]
    keep_last: u32,
    /// The folder to write the manifests into
    #[arg(long)]
    dir: PathBuf,
    /// The name of the workload and the backup [default: the first folder's name]
    #[arg(long)]
    name: Option<String>,
}

pub(crate) fn run(args: &ProtectArgs, output: &Output) -> Result<u8> {
    let ProtectArgs { paths, to, every, keep_last, dir, name } = args;
    let paths = outermost(paths.iter().map(|path| folder_to_protect(path)).collect::<Result<Vec<_>>>()?);
    let schedule = schedule(every)?;
    let name = match name {
        Some(name) if object_name(name) != *name => {
            let hint = format!("use small letters, digits and '-', as in {:?}", object_name(name));
            return Err(Failure::with_hint(format!("{name:?} is no name of an object"), hint));
        }
        Some(name) => name.clone(),
        None => object_name(&paths.first().and_then(|path| path.file_name()).unwrap_or_default().to_string_lossy()),
    };
    let (secret_path, manifest_path) = (dir.join(format!("{name}-secret.yaml")), dir.join(format!("{name}.yaml")));
    if manifest_path.exists() {
        return Err(exists(&manifest_path));
    }
    let (backend, is_there) = backend(to, &name, &paths)?;
    if is_there && !secret_path.exists() {
        let message = format!("{to} holds a repository already, and its password is not in {}", secret_path.display());
        return Err(Failure::with_hint(message, "choose another place for a new one, or write the manifests by hand"));
    }
    fs::create_dir_all(dir).map_err(|error| cannot_write(dir, &error))?;
    let keys: &[&str] = match (backend.get("s3"), backend.get("gcs")) {
        (Some(_), _) => &["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"],
        (_, Some(_)) => &["GOOGLE_PROJECT_ID", "GOOGLE_SERVICE_ACCOUNT_JSON_KEY"],
        _ => &[],
    };
    let new_password = write_secret(&secret_path, &name, keys)?;
    let exclude = own_folder(dir, &paths)?;
    let manifest = manifest(&name, &paths, &exclude, &backend, &schedule, *keep_last)?;
    write_new(&manifest_path, manifest.as_bytes(), 0o644)?;
    let json =
        json!({"manifest": manifest_path, "secret": secret_path, "newPassword": new_password, "exclude": exclude});
    output.result(&json, || {
        let (dir, secret) = (dir.display(), secret_path.display());
        let mut lines = vec![format!("wrote {}", manifest_path.display()), String::new()];
        lines.push(match new_password {
            true => format!(
                "The password of the repository is in {secret}: keep a copy of it elsewhere, without it the backups cannot be read."
            ),
            false => format!("The password in {secret} stays as it was."),
        });
        lines.extend((!keys.is_empty()).then(|| format!("Put {} into {secret}.", keys.join(" and "))));
        lines.extend((!exclude.is_empty()).then(|| format!("{dir} itself is left out of the backup.")));
        lines.push(String::new());
        lines.push(format!("To see what it does: holdfast plan {dir}"));
        lines.push(format!("To start it:         holdfast standalone {dir}"));
        lines.join("\n")
    })?;
    Ok(code::SUCCESS)
}

/// Without those that lie in others of them.
fn outermost(mut paths: Vec<PathBuf>) -> Vec<PathBuf> {
    let mut seen = std::collections::BTreeSet::new();
    paths.retain(|path| seen.insert(path.clone()));
    let all = paths.clone();
    paths.retain(|path| !all.iter().any(|other| path != other && path.starts_with(other)));
    paths
}

/// The pattern that leaves the folder of manifests out, where it lies in what is protected: its state changes with
/// every run, and its Secret is of no use within the repository that it opens.
fn own_folder(dir: &Path, paths: &[PathBuf]) -> Result<Vec<String>> {
    let dir = fs::canonicalize(dir)?;
    if !paths.iter().any(|path| dir.starts_with(path)) {
        return Ok(Vec::new());
    }
    if paths.contains(&dir) {
        let message = format!("{} is to be protected and to hold the manifests", dir.display());
        return Err(Failure::with_hint(message, "choose another --dir: it may be a folder within"));
    }
    let escaped = |c: char| if r"*?[]\".contains(c) { format!("\\{c}") } else { c.to_string() };
    Ok(vec![dir.to_string_lossy().chars().map(escaped).collect()])
}

fn folder_to_protect(path: &Path) -> Result<PathBuf> {
    let hint = "give folders that exist";
    let full = fs::canonicalize(path)
        .map_err(|error| Failure::with_hint(format!("cannot protect {}: {error}", path.display()), hint))?;
    if !full.is_dir() {
        return Err(Failure::with_hint(
            format!("cannot protect {}: it is not a folder", path.display()),
            "give the folder it is in",
        ));
    }
    if full.to_str().is_none() {
        return Err(Failure::with_hint(
            format!("cannot protect {}: its path is not UTF-8, which manifests cannot say", path.display()),
            "protect the folder above it",
        ));
    }
    Ok(full)
}

/// `1h` becomes `@every 1h`; what is a schedule already stays.
fn schedule(every: &str) -> Result<String> {
    let text = if every.parse::<holdfast_api::values::Duration>().is_ok() {
        format!("@every {every}")
    } else {
        every.to_owned()
    };
    match text.parse::<Schedule>() {
        Ok(_) => Ok(text),
        Err(error) => Err(Failure::with_hint(
            format!("--every {every:?}: {error}"),
            "write it as 30m, 24h, @daily or \"0 3 * * *\"",
        )),
    }
}

/// The nearest name that Kubernetes takes.
fn object_name(text: &str) -> String {
    let name: String =
        text.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect();
    let name: String = name.trim_matches('-').chars().take(50).collect();
    if name.is_empty() { "files".into() } else { name.trim_end_matches('-').into() }
}

const PLACES: &str = "give a folder, s3:https://HOST/BUCKET/PREFIX, or gs:BUCKET:/PREFIX";

/// The backend as manifests write it, and whether a repository is known to be there.
fn backend(to: &str, name: &str, paths: &[PathBuf]) -> Result<(serde_json::Value, bool)> {
    use holdfast_store::Location;
    let location: Location = to.parse().map_err(|error| Failure::with_hint(format!("--to {to:?}: {error}"), PLACES))?;
    let secret = format!("{name}-repository");
    match location {
        Location::Local(path) => {
            let path = real(&path)?;
            if let Some(around) = paths.iter().find(|protected| path.starts_with(protected)) {
                let message = format!(
                    "the repository {} lies in {}, and would be backed up into itself",
                    path.display(),
                    around.display()
                );
                return Err(Failure::with_hint(message, "choose a place outside, best on another disk"));
            }
            let is_there = path.join("config").is_file();
            let local = json!({"mountPath": "/repository", "hostPath": {"path": path}});
            Ok((json!({"local": local, "storageSecretName": secret}), is_there))
        }
        Location::S3 { endpoint, bucket, prefix } => {
            let s3 = json!({"endpoint": endpoint, "bucket": bucket, "prefix": prefix});
            Ok((json!({"s3": s3, "storageSecretName": secret}), false))
        }
        Location::Gcs { bucket, prefix } => {
            Ok((json!({"gcs": {"bucket": bucket, "prefix": prefix}, "storageSecretName": secret}), false))
        }
        other => Err(Failure::with_hint(format!("--to {other}: not supported here yet"), PLACES)),
    }
}

/// The path without links, though its last folders may not be there yet.
fn real(path: &Path) -> Result<PathBuf> {
    let path = std::path::absolute(path)?;
    let there = path.ancestors().find_map(|above| Some((above, fs::canonicalize(above).ok()?)));
    Ok(match there {
        Some((above, real)) => match path.strip_prefix(above) {
            Ok(rest) if !rest.as_os_str().is_empty() => real.join(rest),
            _ => real,
        },
        None => path,
    })
}

/// Writes the Secret with a new password and places for `keys`, unless there is one: another password would lock the repository's owner out.
fn write_secret(path: &Path, name: &str, keys: &[&str]) -> Result<bool> {
    if path.exists() {
        return Ok(false);
    }
    let mut random = [0; 32];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty()).map_err(std::io::Error::from)?;
    let password: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut data = json!({"RESTIC_PASSWORD": password});
    for key in keys {
        data[key] = "".into();
    }
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": format!("{name}-repository")},
        "stringData": data,
    });
    let text = format!("# Whoever has this and the repository can read the backups.\n{}", yaml(&secret)?);
    write_new(path, text.as_bytes(), 0o600)?;
    Ok(true)
}

fn manifest(
    name: &str,
    paths: &[PathBuf],
    exclude: &[String],
    backend: &serde_json::Value,
    schedule: &str,
    keep_last: u32,
) -> Result<String> {
    let volume = |n: usize| if paths.len() == 1 { "files".to_owned() } else { format!("files-{n}") };
    let repository = json!({
        "apiVersion": "stash.appscode.com/v1alpha2", "kind": "Repository",
        "metadata": {"name": name}, "spec": {"backend": backend},
    });
    let mounts: Vec<_> =
        paths.iter().enumerate().map(|(n, path)| json!({"name": volume(n), "mountPath": path})).collect();
    let volumes: Vec<_> =
        paths.iter().enumerate().map(|(n, path)| json!({"name": volume(n), "hostPath": {"path": path}})).collect();
    let workload = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": name, "image": "busybox", "volumeMounts": mounts}], "volumes": volumes},
            },
        },
    });
    let mut backup = json!({
        "apiVersion": "stash.appscode.com/v1alpha2", "kind": "Backup", "metadata": {"name": name},
        "spec": {
            "schedule": schedule,
            "repository": {"name": name},
            "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
            "targetDirectories": paths,
            "retentionPolicy": {"keepLast": keep_last, "prune": true},
        },
    });
    if !exclude.is_empty() {
        backup["spec"]["exclude"] = json!(exclude);
    }
    let documents: [(&str, serde_json::Value); 3] = [
        ("Where the backups go.", repository),
        ("What there is: the folders, as a workload would see them.", workload),
        ("What to back up, when, and how much history to keep.", backup),
    ];
    let texts: Vec<String> = documents
        .iter()
        .map(|(comment, object)| Ok(format!("# {comment}\n{}", yaml(object)?)))
        .collect::<Result<_>>()?;
    Ok(texts.join("---\n"))
}

fn yaml(object: &serde_json::Value) -> Result<String> {
    let mut text = serde_saphyr::to_string(object).map_err(anyhow::Error::from)?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

/// Writes a file that must not be there: nobody's edits are lost.
fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => exists(path),
        _ => cannot_write(path, &error),
    };
    let mut file = fs::File::options().create_new(true).write(true).mode(mode).open(path).map_err(failed)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(|error| cannot_write(path, &error))
}

fn exists(path: &Path) -> Failure {
    Failure::with_hint(format!("{} exists already", path.display()), "edit it, or choose another --name or --dir")
}

fn cannot_write(path: &Path, error: &std::io::Error) -> Failure {
    Failure::with_hint(
        format!("cannot write {}: {error}", path.display()),
        "choose a --dir that this user can write to",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_fit() {
        for (text, want) in
            [("Photos", "photos"), ("my docs_2", "my-docs-2"), ("--", "files"), ("", "files"), ("Ünï", "n")]
        {
            assert_eq!(object_name(text), want, "{text}");
        }
    }

    #[test]
    fn folders_within_others_are_theirs() {
        let paths = ["/a/b", "/a", "/a", "/ab"].map(PathBuf::from);
        assert_eq!(outermost(paths.into()), [PathBuf::from("/a"), PathBuf::from("/ab")]);
    }

    #[test]
    fn a_duration_becomes_a_schedule() {
        assert_eq!(schedule("90m").unwrap(), "@every 90m");
        assert_eq!(schedule("0 3 * * *").unwrap(), "0 3 * * *");
        assert!(schedule("often").is_err());
    }

    #[test]
    fn what_is_written_is_valid() {
        let (backend, _) = backend("/no/such/repository", "docs", &[]).unwrap();
        let paths = ["/a/b".into(), "/c d".into()];
        let text = manifest("docs", &paths, &["/a/b/\\*".into()], &backend, "@every 1h", 5).unwrap();
        let outcome = holdfast_api::manifest::read([("docs.yaml", text.as_bytes())]);
        assert!(outcome.errors.is_empty(), "{:?}", outcome.errors);
        assert_eq!(outcome.objects.len(), 3);
    }
}
