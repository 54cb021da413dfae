//! Names that users, their dashboards and other programs rely on.

/// Label of a workload that names the `Restic` which protects it (first generation).
pub const RESTIC_CONFIG_LABEL: &str = "restic.appscode.com/config";
/// Annotation of a `Restic` with the tag of the sidecar's image (first generation).
pub const RESTIC_IMAGE_ANNOTATION: &str = "restic.appscode.com/image";
/// Annotation of a workload or `AppBinding`: `"true"` asks for the default backup.
pub const BACKUP_ANNOTATION: &str = "stash.appscode.com/backup";
/// Annotation of a workload with the list of container paths to back up, such as `[/source/data]`.
pub const TARGET_DIRECTORIES_ANNOTATION: &str = "stash.appscode.com/targetDirectories";
/// Annotation of a workload or `AppBinding` that names the `BackupTemplate` to use.
pub const BACKUP_TEMPLATE_ANNOTATION: &str = "stash.appscode.com/backupTemplate";
/// Name of the sidecar of the first generation.
pub const RESTIC_SIDECAR: &str = "restic-sidecar";

/// Keys of the Secret that a backend names.
pub mod secret_keys {
    /// Password of the repository.
    pub const RESTIC_PASSWORD: &str = "RESTIC_PASSWORD";
    /// Password of the repository (first generation).
    pub const PASSWORD: &str = "password";
    /// Access key of S3.
    pub const AWS_ACCESS_KEY_ID: &str = "AWS_ACCESS_KEY_ID";
    /// Secret key of S3.
    pub const AWS_SECRET_ACCESS_KEY: &str = "AWS_SECRET_ACCESS_KEY";
    /// Project of Google Cloud.
    pub const GOOGLE_PROJECT_ID: &str = "GOOGLE_PROJECT_ID";
    /// Key of a Google service account, as JSON.
    pub const GOOGLE_SERVICE_ACCOUNT_JSON_KEY: &str = "GOOGLE_SERVICE_ACCOUNT_JSON_KEY";
    /// Storage account of Azure.
    pub const AZURE_ACCOUNT_NAME: &str = "AZURE_ACCOUNT_NAME";
    /// Key of the storage account of Azure.
    pub const AZURE_ACCOUNT_KEY: &str = "AZURE_ACCOUNT_KEY";
    /// Account of Backblaze B2.
    pub const B2_ACCOUNT_ID: &str = "B2_ACCOUNT_ID";
    /// Key of Backblaze B2.
    pub const B2_ACCOUNT_KEY: &str = "B2_ACCOUNT_KEY";
    /// PEM certificates of the authority that signed the store's certificate.
    pub const CA_CERT_DATA: &str = "CA_CERT_DATA";
    /// What the names of OpenStack's variables start with.
    pub const OPENSTACK_PREFIXES: [&str; 2] = ["OS_", "ST_"];
}

/// Reasons of events.
pub mod reasons {
    /// A backup succeeded (first generation).
    pub const SUCCESS: &str = "Success";
    /// A backup failed (first generation).
    pub const FAILED: &str = "Failed";
    /// A backup succeeded.
    pub const SUCCESSFUL_BACKUP: &str = "SuccessfulBackup";
    /// A backup failed.
    pub const FAILED_BACKUP: &str = "FailedBackup";
    /// The retention policy could not be applied.
    pub const FAILED_RETENTION: &str = "FailedRetention";
    /// A recovery succeeded.
    pub const SUCCESSFUL_RECOVERY: &str = "SuccessfulRecovery";
    /// A recovery failed.
    pub const FAILED_RECOVERY: &str = "FailedRecovery";
    /// A repository was checked and is sound.
    pub const SUCCESSFUL_CHECK: &str = "SuccessfulCheck";
    /// A repository is damaged or could not be checked.
    pub const FAILED_CHECK: &str = "FailedCheck";
    /// The CronJob of a backup could not be written.
    pub const FAILED_CRON_JOB: &str = "FailedCronJob";
    /// A `Restic` contradicts itself or another one.
    pub const INVALID_RESTIC: &str = "InvalidRestic";
    /// A `Recovery` cannot be carried out as written.
    pub const INVALID_RECOVERY: &str = "InvalidRecovery";
    /// A `Backup` cannot be carried out as written.
    pub const INVALID_BACKUP: &str = "InvalidBackup";
}

/// What a pod that Holdfast works in looks like: agreed on by the operator, which writes it, and the agent, which runs in it.
pub mod pod {
    /// The folder below which everything is mounted: `target/…`, `repository/…` and `secrets/…`.
    pub const ROOT: &str = "/holdfast";
    /// Environment variable: the name of the pod.
    pub const POD_NAME: &str = "POD_NAME";
    /// Environment variable: the namespace of the pod.
    pub const POD_NAMESPACE: &str = "POD_NAMESPACE";
    /// Environment variable: the UID of the pod.
    pub const POD_UID: &str = "POD_UID";
    /// Environment variable: the node of the pod.
    pub const NODE_NAME: &str = "NODE_NAME";
    /// Environment variable: the workload or claim that is worked for, as `Deployment/web`.
    pub const TARGET: &str = "HOLDFAST_TARGET";
    /// Environment variable: `true` lets `holdfast backup` stay and follow its schedule.
    pub const FOLLOW_SCHEDULE: &str = "HOLDFAST_FOLLOW_SCHEDULE";
    /// Environment variable: the `Backup` that a container works for.
    pub const BACKUP_NAME: &str = "BACKUP_NAME";
    /// Environment variable: the `Recovery` that a container works for.
    pub const RECOVERY_NAME: &str = "RECOVERY_NAME";
    /// Environment variable: the UID of that `Recovery`. One that is made anew under its name restarts the pods.
    pub const RECOVERY_UID: &str = "HOLDFAST_RECOVERY_UID";
    /// Environment variable: where metrics are pushed to.
    pub const PUSH_GATEWAY_URL: &str = "PUSH_GATEWAY_URL";
    /// Environment variable, without effect: status is always written.
    pub const ENABLE_STATUS_SUB_RESOURCE: &str = "ENABLE_STATUS_SUB_RESOURCE";
    /// Environment variable, without effect: nothing is ever sent home.
    pub const ENABLE_ANALYTICS: &str = "ENABLE_ANALYTICS";
    /// The same, as published templates misspell it.
    pub const ENABLE_ANALYTICS_MISSPELT: &str = "ENABLE_ANALYSTICS";

    /// The volume of a Job's pod that is backed up.
    pub const TARGET_VOLUME: &str = "holdfast-target";

    /// The volume of a Job's pod that is recovered into, the `number`-th from 0.
    pub fn recovered_volume(number: usize) -> String {
        format!("holdfast-recovered-{number}")
    }

    /// Where a volume of the target is mounted, below [`ROOT`]: the whole volume, by its name in the pod.
    pub fn target_mount(volume: &str) -> String {
        format!("target/{volume}")
    }

    /// Where a repository's volume is mounted, below [`ROOT`]; `hash` is [`hash`] of what the volume is.
    pub fn repository_mount(hash: &str) -> String {
        format!("repository/{hash}")
    }

    /// The pod's volume that holds a repository.
    pub fn repository_volume(hash: &str) -> String {
        format!("holdfast-repository-{hash}")
    }

    /// Where the keys of a Secret are mounted, below [`ROOT`].
    pub fn secret_mount(secret: &str) -> String {
        format!("secrets/{secret}")
    }

    /// The pod's volume that holds a Secret.
    pub fn secret_volume(secret: &str) -> String {
        format!("holdfast-secret-{}", hash(secret))
    }

    /// The Lease by which the pods of a workload choose the one that backs up.
    pub fn writer_lease(host: &str) -> String {
        format!("holdfast-{host}")
    }

    /// The Lease by which the pods of a workload choose the one that recovers.
    pub fn recovery_lease(host: &str) -> String {
        format!("holdfast-recover-{host}")
    }

    /// The field manager of a host's part of a status.
    pub fn field_manager(host: &str) -> String {
        let manager = format!("holdfast-host-{host}");
        // A field manager's name has at most 128 characters.
        if manager.len() <= 120 { manager } else { format!("holdfast-host-{}", hash(host)) }
    }

    /// Eight hexadecimal digits that stand for `text` in the name of an object (FNV-1a, folded to 32 bits).
    pub fn hash(text: &str) -> String {
        let hash = text
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        format!("{:08x}", (hash >> 32) as u32 ^ hash as u32)
    }
}

/// Field managers of server-side apply.
pub mod managers {
    /// The operator.
    pub const OPERATOR: &str = "holdfast";
    /// What agents find about a repository.
    pub const REPOSITORY: &str = "holdfast-repository";
    /// Whose turn it is, of the runs that wait for one.
    pub const ADMISSION: &str = "holdfast-admission";
}

/// The AgentTemplates that exist without being written.
pub mod agents {
    /// Backs up volumes.
    pub const VOLUME_BACKUP: &str = "stash-volume-backup";
    /// Recovers volumes.
    pub const VOLUME_RECOVERY: &str = "stash-volume-recovery";

    /// Whether a template is the built-in one of backups, under its name or the one that published examples write.
    pub fn is_built_in_backup(name: &str) -> bool {
        [VOLUME_BACKUP, "stashVolumeBackup"].contains(&name)
    }
}
