//! What was asked of the API server, by its own count: `apiserver_request_total`.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use kube::Client;

/// Verb and resource, as `APPLY backups/status`.
type Call = (String, String);

const WRITES: [&str; 6] = ["POST", "PUT", "PATCH", "APPLY", "DELETE", "DELETECOLLECTION"];

/// Requests by verb and resource: all that were answered since the server started, or those of a time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Requests(BTreeMap<Call, u64>);

impl Requests {
    /// All until now.
    pub(crate) async fn now(client: &Client) -> Result<Self> {
        let text = get(client, "/metrics").await?;
        let mut requests = Self::default();
        for line in text.lines().filter(|line| line.starts_with("apiserver_request_total{")) {
            let (labels, count) = line.rsplit_once(' ').context("a sample without a value")?;
            let label = |name: &str| {
                let (_, rest) = labels.split_once(&format!("{name}=\""))?;
                rest.split_once('"').map(|(value, _)| value)
            };
            let (Some(verb), Some(resource)) = (label("verb"), label("resource")) else { continue };
            // Lives of the cluster itself: whoever keeps a Lease, kubelets, and who may what.
            let subresource = label("subresource").unwrap_or_default();
            if ["leases", "nodes", "tokenreviews", "subjectaccessreviews", ""].contains(&resource) {
                continue;
            }
            let resource =
                if subresource.is_empty() { resource.to_owned() } else { format!("{resource}/{subresource}") };
            *requests.0.entry((verb.to_owned(), resource)).or_default() += count.parse::<f64>()? as u64;
        }
        Ok(requests)
    }

    /// Those after `before`.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let new = self.0.iter().map(|(call, count)| {
            let before = before.0.get(call).copied().unwrap_or(0);
            (call.clone(), count.saturating_sub(before))
        });
        Self(new.filter(|(_, count)| *count > 0).collect())
    }

    /// Without the one by which this program changed a Backup.
    pub(crate) fn without_patch_of_backup(mut self) -> Self {
        let call = ("PATCH".to_owned(), "backups".to_owned());
        if let Some(count) = self.0.get_mut(&call) {
            *count -= 1;
        }
        self.0.retain(|_, count| *count > 0);
        self
    }

    pub(crate) fn writes(&self) -> u64 {
        self.0.iter().filter(|((verb, _), _)| WRITES.contains(&verb.as_str())).map(|(_, count)| count).sum()
    }

    /// All but watches, which end and begin anew by themselves.
    pub(crate) fn total(&self) -> u64 {
        self.0.iter().filter(|((verb, _), _)| verb != "WATCH").map(|(_, count)| count).sum()
    }

    pub(crate) fn text(&self) -> String {
        let calls = self.0.iter().filter(|((verb, _), _)| verb != "WATCH");
        let calls: Vec<String> = calls.map(|((verb, resource), count)| format!("{count} {verb} {resource}")).collect();
        if calls.is_empty() { "none".to_owned() } else { calls.join(", ") }
    }
}

/// Whether the API server is ready to serve.
pub(crate) async fn is_ready(client: &Client) -> Result<()> {
    get(client, "/readyz").await.map(drop)
}

async fn get(client: &Client, path: &str) -> Result<String> {
    let request = http::Request::get(path).body(Vec::new())?;
    client.request_text(request).await.with_context(|| format!("cannot read {path}"))
}
