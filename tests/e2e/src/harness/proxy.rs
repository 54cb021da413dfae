//! A Service that can be delayed, silenced, cut or refused: its connections go through toxiproxy, which every test
//! cluster runs beside its API server, on their way to the real one.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use serde_json::json;

use super::{Test, Value};

/// Where toxiproxy is, and where on that host it takes its orders.
const HOST: &str = "10.77.0.1";
const ORDERS: &str = "http://10.77.0.1:8474/proxies";

/// What happens to the connections of a [`Proxy`], open ones included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    /// All bytes pass at once.
    Open,
    /// Every piece of data waits this long.
    Slow(Duration),
    /// Connections are accepted and stay, no byte passes; they end with the silence.
    Silent,
    /// Open connections end and new ones are refused.
    Refuse,
    /// Connections end after so many bytes in one direction.
    CutAfter(usize),
}

/// Stands for a Service until it is dropped.
pub(crate) struct Proxy {
    url: String,
}

impl Test {
    /// Makes the Service `name` with this port, whose connections go through toxiproxy to `upstream`.
    pub(crate) async fn proxy(&self, name: &str, port: u16, upstream: SocketAddr) -> Proxy {
        let id = format!("{}-{name}", self.namespace);
        let wanted = json!({"name": id, "listen": format!("{HOST}:0"), "upstream": upstream, "enabled": true});
        let made = order("POST", ORDERS, &wanted);
        let listen: SocketAddr = made["listen"].as_str().and_then(|address| address.parse().ok()).expect("an address");
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
            "spec": {"ports": [{"name": "tcp", "port": port}]}});
        let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4", "ports": [{"name": "tcp", "port": listen.port()}],
            "endpoints": [{"addresses": [listen.ip()]}]});
        self.apply(&format!("{service}\n---\n{slice}")).await;
        Proxy { url: format!("{ORDERS}/{id}") }
    }

    /// Where the first ready pod of a Service answers; reachable by toxiproxy, which its own address is not.
    pub(crate) async fn endpoint(&self, service: &str) -> SocketAddr {
        let labels = format!("kubernetes.io/service-name={service}");
        let first = |slices: &[Value]| {
            let endpoints = |slice: &Value| slice["endpoints"].as_array().cloned().unwrap_or_default();
            slices.iter().find_map(|slice| {
                let port = u16::try_from(slice["ports"][0]["port"].as_u64()?).ok()?;
                let ready = endpoints(slice).into_iter().find(|endpoint| endpoint["conditions"]["ready"] == true)?;
                Some(SocketAddr::new(ready["addresses"][0].as_str()?.parse().ok()?, port))
            })
        };
        let slices = self.wait_all("EndpointSlice", &labels, "one ready endpoint", |all| first(all).is_some()).await;
        first(&slices).expect("just seen")
    }
}

impl Proxy {
    /// From now on.
    pub(crate) fn set(&self, flow: Flow) {
        let toxics = format!("{}/toxics", self.url);
        for toxic in order("GET", &toxics, &Value::Null).as_array().into_iter().flatten() {
            order("DELETE", &format!("{toxics}/{}", toxic["name"].as_str().unwrap_or_default()), &Value::Null);
        }
        order("POST", &self.url, &json!({"enabled": flow != Flow::Refuse}));
        let (kind, attributes) = match flow {
            Flow::Open | Flow::Refuse => return,
            Flow::Slow(time) => ("latency", json!({"latency": time.as_millis() as u64})),
            Flow::Silent => ("timeout", json!({"timeout": 0})),
            Flow::CutAfter(bytes) => ("limit_data", json!({"bytes": bytes})),
        };
        for stream in ["upstream", "downstream"] {
            order("POST", &toxics, &json!({"type": kind, "stream": stream, "attributes": attributes}));
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Err(error) = ask("DELETE", &self.url, &Value::Null) {
            println!("cannot end a proxy: {error}");
        }
    }
}

/// What toxiproxy must do.
fn order(method: &str, url: &str, body: &Value) -> Value {
    ask(method, url, body).unwrap_or_else(|error| panic!("{error}"))
}

/// Asks toxiproxy; null when it has nothing to say.
fn ask(method: &str, url: &str, body: &Value) -> Result<Value, String> {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--fail-with-body", "--max-time", "10", "--request", method, url]);
    curl.args(["--data", &body.to_string()]);
    let output = curl.output().map_err(|error| format!("cannot start curl: {error}"))?;
    let (said, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !output.status.success() {
        return Err(format!("toxiproxy, {method} {url}: {error}{said}"));
    }
    Ok(serde_json::from_str(&said).unwrap_or_default())
}
