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
    /// The repository: a folder, or s3:https://HOST/BUCKET/PREFIX
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
    let paths = paths.iter().map(|path| folder_to_protect(path)).collect::<Result<Vec<_>>>()?;
    let schedule = schedule(every)?;
    let name = match name {
        Some(name) if object_name(name) != *name => {
            return Err(Failure::with_hint(
                format!("{name:?} is no name of an object"),
                format!("use small letters, digits and '-', as in {:?}", object_name(name)),
            ));
        }
        Some(name) => name.clone(),
        None => object_name(&paths.first().and_then(|path| path.file_name()).unwrap_or_default().to_string_lossy()),
    };
    let backend = backend(to, &name)?;
    fs::create_dir_all(dir)?;
    let (secret_path, manifest_path) = (dir.join(format!("{name}-secret.yaml")), dir.join(format!("{name}.yaml")));
    let has_s3 = backend.get("s3").is_some();
    let new_password = write_secret(&secret_path, &name, has_s3)?;
    let manifest = manifest(&name, &paths, &backend, &schedule, *keep_last);
    write_new(&manifest_path, manifest.as_bytes(), 0o644)?;
    let json = json!({"manifest": manifest_path, "secret": secret_path, "newPassword": new_password});
    output.result(&json, || {
        let password = if new_password {
            format!("The password of the repository is in {}: keep a copy of it elsewhere, without it the backups cannot be read.\n", secret_path.display())
        } else {
            format!("The password in {} stays as it was.\n", secret_path.display())
        };
        let keys = if has_s3 { format!("Put the keys of the S3 server into {}.\n", secret_path.display()) } else { String::new() };
        format!("wrote {}\n\n{password}{keys}\nTo see what it does: holdfast plan {dir}\nTo start it:         holdfast standalone {dir}", manifest_path.display(), dir = dir.display())
    })?;
    Ok(code::SUCCESS)
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

/// The backend as manifests write it.
fn backend(to: &str, name: &str) -> Result<serde_json::Value> {
    use holdfast_store::Location;
    let location: Location = to.parse().map_err(|error| {
        Failure::with_hint(format!("--to {to:?}: {error}"), "give a folder, or s3:https://HOST/BUCKET/PREFIX")
    })?;
    let secret = format!("{name}-repository");
    match location {
        Location::Local(path) => {
            let path = std::path::absolute(&path)?;
            Ok(json!({"local": {"mountPath": "/repository", "hostPath": {"path": path}}, "storageSecretName": secret}))
        }
        Location::S3 { endpoint, bucket, prefix } => {
            Ok(json!({"s3": {"endpoint": endpoint, "bucket": bucket, "prefix": prefix}, "storageSecretName": secret}))
        }
        other => Err(Failure::with_hint(
            format!("--to {other}: not supported here yet"),
            "give a folder, or s3:https://HOST/BUCKET/PREFIX",
        )),
    }
}

/// Writes the Secret with a new password, unless there is one: another password would lock the repository's owner out.
fn write_secret(path: &Path, name: &str, has_s3: bool) -> Result<bool> {
    if path.exists() {
        return Ok(false);
    }
    let mut random = [0; 32];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty()).map_err(std::io::Error::from)?;
    let password: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut data = json!({"RESTIC_PASSWORD": password});
    if has_s3 {
        data["AWS_ACCESS_KEY_ID"] = "".into();
        data["AWS_SECRET_ACCESS_KEY"] = "".into();
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

fn manifest(name: &str, paths: &[PathBuf], backend: &serde_json::Value, schedule: &str, keep_last: u32) -> String {
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
    let backup = json!({
        "apiVersion": "stash.appscode.com/v1alpha2", "kind": "Backup", "metadata": {"name": name},
        "spec": {
            "schedule": schedule,
            "repository": {"name": name},
            "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
            "targetDirectories": paths,
            "retentionPolicy": {"keepLast": keep_last, "prune": true},
        },
    });
    let documents: [(&str, serde_json::Value); 3] = [
        ("Where the backups go.", repository),
        ("What there is: the folders, as a workload would see them.", workload),
        ("What to back up, when, and how much history to keep.", backup),
    ];
    let texts: Vec<String> = documents
        .iter()
        .map(|(comment, object)| format!("# {comment}\n{}", yaml(object).unwrap_or_default()))
        .collect();
    texts.join("---\n")
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
    let exists = |error: std::io::Error| {
        if error.kind() == std::io::ErrorKind::AlreadyExists {
            Failure::with_hint(
                format!("{} exists already", path.display()),
                "edit it, or choose another --name or --dir",
            )
        } else {
            Failure::with_hint(format!("cannot write {}: {error}", path.display()), "is the folder writable?")
        }
    };
    let mut file = fs::File::options().create_new(true).write(true).mode(mode).open(path).map_err(exists)?;
    file.write_all(bytes)?;
    Ok(file.sync_all()?)
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
    fn a_duration_becomes_a_schedule() {
        assert_eq!(schedule("90m").unwrap(), "@every 90m");
        assert_eq!(schedule("0 3 * * *").unwrap(), "0 3 * * *");
        assert!(schedule("often").is_err());
    }

    #[test]
    fn what_is_written_is_valid() {
        let text =
            manifest("docs", &["/a/b".into(), "/c d".into()], &backend("/repo", "docs").unwrap(), "@every 1h", 5);
        let outcome = holdfast_api::manifest::read([("docs.yaml", text.as_bytes())]);
        assert!(outcome.errors.is_empty(), "{:?}", outcome.errors);
        assert_eq!(outcome.objects.len(), 3);
    }
}
