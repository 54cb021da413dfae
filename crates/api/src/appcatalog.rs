//! The kind of `appcatalog.appscode.com`: `AppBinding`, how to reach an application such as a database.

#![allow(unreachable_pub, reason = "KubeSchema copies each struct, with its visibility, into a function body")]
#![allow(clippy::duplicated_attributes, reason = "printer columns have fields of the same value")]

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::values::ObjectReference;

/// API group of the kind.
pub const GROUP: &str = "appcatalog.appscode.com";

/// How to reach an application and which Secret holds its credentials.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "appcatalog.appscode.com",
    version = "v1alpha1",
    kind = "AppBinding",
    plural = "appbindings",
    namespaced,
    derive = "PartialEq",
    shortname = "ab",
    category = "holdfast",
    doc = "How to reach an application such as a database, and which Secret holds its credentials.",
    printcolumn(name = "Type", type_ = "string", json_path = ".spec.type"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
pub struct AppBindingSpec {
    /// Kind of the application, such as `kubedb.com/postgres`.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub app_type: Option<String>,
    /// Version of the application, such as `11.2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// How to reach it.
    pub client_config: ClientConfig,
    /// The Secret of the same namespace with its credentials, such as `POSTGRES_USER` and `POSTGRES_PASSWORD`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<ObjectReference>,
    /// Further parameters, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, String>,
}

/// How to reach an application: by URL or by Service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.url) != has(self.service)")
    .message("exactly one of url and service must be set"))]
pub struct ClientConfig {
    /// Its URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Its Service in the same namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceReference>,
    /// Whether its certificate is taken unseen. Default: false.
    #[serde(default, rename = "insecureSkipTLSVerify")]
    pub insecure_skip_tls_verify: bool,
    /// PEM certificates of the authority that signed its certificate, in base64. Default: those of the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "byte"))]
    pub ca_bundle: Option<ByteString>,
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceReference {
    /// URL scheme, such as `postgresql`. Default: that of the application's type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<String>,
    /// Name of the Service.
    #[schemars(length(min = 1))]
    pub name: String,
    /// Port, 1 to 65535.
    #[schemars(range(min = 1))]
    pub port: u16,
    /// Path of the URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Query of the URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_field_survives_a_round_trip() {
        let spec = json!({
            "type": "kubedb.com/postgres",
            "version": "11.2",
            "clientConfig": {
                "service": {"scheme": "postgresql", "name": "quick-postgres", "port": 5432, "path": "/db", "query": "a=b"},
                "insecureSkipTLSVerify": true,
                "caBundle": "aGVsbG8=",
            },
            "secret": {"name": "quick-postgres-auth"},
            "parameters": {"sslmode": "disable"},
        });
        let binding: AppBindingSpec = serde_json::from_value(spec.clone()).unwrap();
        assert_eq!(
            binding.client_config.ca_bundle.as_ref().map(|bundle| bundle.0.as_slice()),
            Some(b"hello".as_slice())
        );
        assert_eq!(serde_json::to_value(binding).unwrap(), spec);
    }

    #[test]
    fn a_port_beyond_the_last_is_an_error() {
        let service = json!({"name": "s", "port": 65_536});
        assert!(serde_json::from_value::<ServiceReference>(service).is_err());
    }
}
