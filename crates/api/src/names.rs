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
