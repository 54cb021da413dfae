//! Where a repository is kept.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use kube::KubeSchema;

use super::VolumeSource;

/// Where a repository is kept and which Secret opens it.
///
/// The Secret holds `RESTIC_PASSWORD` and the credentials of the store under the keys of [`crate::names::secret_keys`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "BackendFields", into = "BackendFields")]
pub struct Backend {
    /// Name of the Secret with the password of the repository and the credentials of the store.
    pub storage_secret_name: Option<String>,
    /// The one store that is set.
    pub kind: BackendKind,
}

/// A store of objects.
#[derive(Clone, Debug, PartialEq)]
pub enum BackendKind {
    /// A directory of a volume.
    Local(Box<LocalBackend>),
    /// Amazon S3 or a compatible service.
    S3(S3Backend),
    /// Google Cloud Storage.
    Gcs(GcsBackend),
    /// Azure Blob Storage.
    Azure(AzureBackend),
    /// OpenStack Swift.
    Swift(SwiftBackend),
    /// Backblaze B2.
    B2(B2Backend),
    /// A restic REST server.
    Rest(RestBackend),
}

impl BackendKind {
    /// The field under which the store is written.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Local(_) => "local",
            Self::S3(_) => "s3",
            Self::Gcs(_) => "gcs",
            Self::Azure(_) => "azure",
            Self::Swift(_) => "swift",
            Self::B2(_) => "b2",
            Self::Rest(_) => "rest",
        }
    }

    /// The path inside the store: the prefix of a bucket or container, the sub-path of a volume. A REST server's path
    /// is part of its URL.
    pub fn prefix(&self) -> Option<&str> {
        match self {
            Self::Local(b) => b.sub_path.as_deref(),
            Self::S3(b) => b.prefix.as_deref(),
            Self::Gcs(b) => b.prefix.as_deref(),
            Self::Azure(b) => b.prefix.as_deref(),
            Self::Swift(b) => b.prefix.as_deref(),
            Self::B2(b) => b.prefix.as_deref(),
            Self::Rest(_) => None,
        }
    }

    /// The place of [`BackendKind::prefix`], to expand a template or to append a path; none for a REST server.
    pub fn prefix_mut(&mut self) -> Option<&mut Option<String>> {
        match self {
            Self::Local(b) => Some(&mut b.sub_path),
            Self::S3(b) => Some(&mut b.prefix),
            Self::Gcs(b) => Some(&mut b.prefix),
            Self::Azure(b) => Some(&mut b.prefix),
            Self::Swift(b) => Some(&mut b.prefix),
            Self::B2(b) => Some(&mut b.prefix),
            Self::Rest(_) => None,
        }
    }
}

/// A directory of a volume that the backup can mount.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "LocalFields", into = "LocalFields")]
pub struct LocalBackend {
    /// Where the volume is mounted in the container that backs up.
    pub mount_path: String,
    /// The directory inside the volume that holds the repository.
    pub sub_path: Option<String>,
    /// The volume, written inline.
    pub volume: VolumeSource,
}

/// Amazon S3 or a compatible service. Credentials: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct S3Backend {
    /// Host name or URL of the service, such as `s3.amazonaws.com` or `http://minio.demo:9000`.
    /// Default: `s3.amazonaws.com`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Name of the bucket.
    #[schemars(length(min = 1))]
    pub bucket: String,
    /// Path inside the bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// Region of the bucket. Default: the region the service names, else `us-east-1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
}

/// Google Cloud Storage. Credentials: `GOOGLE_PROJECT_ID`, `GOOGLE_SERVICE_ACCOUNT_JSON_KEY`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GcsBackend {
    /// Name of the bucket.
    #[schemars(length(min = 1))]
    pub bucket: String,
    /// Path inside the bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
}

/// Azure Blob Storage. Credentials: `AZURE_ACCOUNT_NAME`, `AZURE_ACCOUNT_KEY`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AzureBackend {
    /// Name of the container.
    #[schemars(length(min = 1))]
    pub container: String,
    /// Path inside the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
}

/// OpenStack Swift. Credentials: the `OS_*` or `ST_*` variables of the Swift clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SwiftBackend {
    /// Name of the container.
    #[schemars(length(min = 1))]
    pub container: String,
    /// Path inside the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
}

/// Backblaze B2. Credentials: `B2_ACCOUNT_ID`, `B2_ACCOUNT_KEY`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct B2Backend {
    /// Name of the bucket.
    #[schemars(length(min = 1))]
    pub bucket: String,
    /// Path inside the bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
}

/// A restic REST server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestBackend {
    /// URL of the repository, such as `https://backup.example:8000/team/db`.
    #[schemars(length(min = 1))]
    pub url: String,
}

/// The written form of [`Backend`], in which several stores or none can stand.
#[derive(Clone, Default, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "[has(self.local), has(self.s3), has(self.gcs), has(self.azure), has(self.swift), has(self.b2), has(self.rest)].filter(x, x).size() == 1",
).message("exactly one of local, s3, gcs, azure, swift, b2 and rest must be set"))]
struct BackendFields {
    /// Name of the Secret with `RESTIC_PASSWORD` and the credentials of the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    storage_secret_name: Option<String>,
    /// A directory of a volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    local: Option<Box<LocalBackend>>,
    /// Amazon S3 or a compatible service. Credentials: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    s3: Option<S3Backend>,
    /// Google Cloud Storage. Credentials: `GOOGLE_PROJECT_ID`, `GOOGLE_SERVICE_ACCOUNT_JSON_KEY`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gcs: Option<GcsBackend>,
    /// Azure Blob Storage. Credentials: `AZURE_ACCOUNT_NAME`, `AZURE_ACCOUNT_KEY`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    azure: Option<AzureBackend>,
    /// OpenStack Swift. Credentials: the `OS_*` or `ST_*` variables of the Swift clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    swift: Option<SwiftBackend>,
    /// Backblaze B2. Credentials: `B2_ACCOUNT_ID`, `B2_ACCOUNT_KEY`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    b2: Option<B2Backend>,
    /// A restic REST server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rest: Option<RestBackend>,
}

impl TryFrom<BackendFields> for Backend {
    type Error = String;

    fn try_from(fields: BackendFields) -> Result<Self, String> {
        let BackendFields { storage_secret_name, local, s3, gcs, azure, swift, b2, rest } = fields;
        let mut set = [
            local.map(BackendKind::Local),
            s3.map(BackendKind::S3),
            gcs.map(BackendKind::Gcs),
            azure.map(BackendKind::Azure),
            swift.map(BackendKind::Swift),
            b2.map(BackendKind::B2),
            rest.map(BackendKind::Rest),
        ]
        .into_iter()
        .flatten();
        match (set.next(), set.next()) {
            (Some(kind), None) => Ok(Self { storage_secret_name, kind }),
            (None, _) => Err("a backend needs one of local, s3, gcs, azure, swift, b2 and rest".to_owned()),
            (Some(first), Some(second)) => {
                Err(format!("a backend must have one store, but has {} and {}", first.name(), second.name()))
            }
        }
    }
}

impl From<Backend> for BackendFields {
    fn from(Backend { storage_secret_name, kind }: Backend) -> Self {
        let mut fields = Self { storage_secret_name, ..Self::default() };
        match kind {
            BackendKind::Local(b) => fields.local = Some(b),
            BackendKind::S3(b) => fields.s3 = Some(b),
            BackendKind::Gcs(b) => fields.gcs = Some(b),
            BackendKind::Azure(b) => fields.azure = Some(b),
            BackendKind::Swift(b) => fields.swift = Some(b),
            BackendKind::B2(b) => fields.b2 = Some(b),
            BackendKind::Rest(b) => fields.rest = Some(b),
        }
        fields
    }
}

/// The written form of [`LocalBackend`], in which several volumes or none can stand.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "LocalBackend")]
struct LocalFields {
    /// Where the volume is mounted in the container that backs up.
    #[schemars(length(min = 1))]
    mount_path: String,
    /// The directory inside the volume that holds the repository. Default: the volume's root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sub_path: Option<String>,
    #[serde(flatten)]
    volume: VolumeSource,
}

impl TryFrom<LocalFields> for LocalBackend {
    type Error = String;

    fn try_from(LocalFields { mount_path, sub_path, volume }: LocalFields) -> Result<Self, String> {
        volume.exactly_one("a local backend")?;
        Ok(Self { mount_path, sub_path, volume })
    }
}

impl From<LocalBackend> for LocalFields {
    fn from(LocalBackend { mount_path, sub_path, volume }: LocalBackend) -> Self {
        Self { mount_path, sub_path, volume }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn error(given: Value) -> String {
        serde_json::from_value::<Backend>(given).unwrap_err().to_string()
    }

    #[test]
    fn every_store_survives_a_round_trip() {
        for store in [
            json!({"local": {"mountPath": "/repo", "subPath": "a", "hostPath": {"path": "/data"}}}),
            json!({"s3": {"endpoint": "http://minio:9000", "bucket": "b", "prefix": "p", "region": "eu-central-1"}}),
            json!({"gcs": {"bucket": "b", "prefix": "p"}}),
            json!({"azure": {"container": "c"}}),
            json!({"swift": {"container": "c", "prefix": "p"}}),
            json!({"b2": {"bucket": "b"}}),
            json!({"rest": {"url": "http://rest:8000/"}}),
        ] {
            let mut given = store.clone();
            given["storageSecretName"] = "secret".into();
            let backend: Backend = serde_json::from_value(given.clone()).unwrap();
            assert!(store.get(backend.kind.name()).is_some(), "{}", backend.kind.name());
            assert_eq!(serde_json::to_value(backend).unwrap(), given);
        }
    }

    #[test]
    fn prefix_can_be_read_and_replaced() {
        let mut backend: Backend = serde_json::from_value(json!({"gcs": {"bucket": "b", "prefix": "p"}})).unwrap();
        assert_eq!(backend.kind.prefix(), Some("p"));
        *backend.kind.prefix_mut().unwrap() = Some("q".to_owned());
        assert_eq!(backend.kind.prefix(), Some("q"));
    }

    #[test]
    fn no_store_and_two_stores_are_errors() {
        assert_eq!(
            error(json!({"storageSecretName": "s"})),
            "a backend needs one of local, s3, gcs, azure, swift, b2 and rest"
        );
        assert_eq!(
            error(json!({"b2": {"bucket": "b"}, "gcs": {"bucket": "b"}})),
            "a backend must have one store, but has gcs and b2"
        );
    }

    #[test]
    fn a_local_backend_has_exactly_one_volume() {
        assert_eq!(
            error(json!({"local": {"mountPath": "/r"}})),
            "a local backend needs a volume source such as hostPath or persistentVolumeClaim"
        );
        assert_eq!(
            error(json!({"local": {"mountPath": "/r", "emptyDir": {}, "hostPath": {"path": "/d"}}})),
            "a local backend must have one volume source, but has emptyDir and hostPath"
        );
    }
}
