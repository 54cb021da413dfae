//! Metrics to a Pushgateway: the latest of each host, in place of those before.

use std::time::Duration;

/// How long the gateway is waited for.
const WITHIN: Duration = Duration::from_secs(10);

/// Puts `metrics` in the place of what the gateway has of this namespace and host.
pub(super) async fn push(gateway: &str, namespace: &str, host: &str, metrics: String) -> Result<(), String> {
    let url = url(gateway, namespace, host);
    let client = reqwest::Client::builder().timeout(WITHIN).build().map_err(|error| chain(&error))?;
    let request = client.put(&url).header("content-type", "text/plain; version=0.0.4").body(metrics);
    let response = request.send().await.map_err(|error| chain(&error))?;
    if response.status().is_success() { Ok(()) } else { Err(format!("it answers {}", response.status())) }
}

fn chain(error: &reqwest::Error) -> String {
    holdfast_repository::chain(error)
}

/// Names of Kubernetes need no escaping.
fn url(gateway: &str, namespace: &str, host: &str) -> String {
    format!("{}/metrics/job/holdfast/namespace/{namespace}/host/{host}", gateway.trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_host_has_its_own_group() {
        assert_eq!(
            url("http://push:9091/", "demo", "statefulset.db-0"),
            "http://push:9091/metrics/job/holdfast/namespace/demo/host/statefulset.db-0"
        );
    }
}
