//! A Service that can be delayed, silenced, cut or refused: TCP through this process, on its way to the real one.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::{Either, select};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::{Test, Value, cluster};

/// What happens to the connections of a [`Proxy`], open ones included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    /// All bytes pass at once.
    Open,
    /// Every piece of data waits this long.
    Slow(Duration),
    /// Connections are accepted and stay, no byte passes.
    Silent,
    /// Open connections end and new ones are refused.
    Refuse,
    /// Connections end after so many bytes in one direction.
    CutAfter(usize),
}

/// Stands for a Service until it is dropped.
pub(crate) struct Proxy {
    flow: watch::Sender<Flow>,
}

impl Proxy {
    /// From now on.
    pub(crate) fn set(&self, flow: Flow) {
        self.flow.send_replace(flow);
    }
}

impl Test {
    /// Makes the Service `name` with this port, whose connections go through this process to `upstream`.
    pub(crate) async fn proxy(&self, name: &str, port: u16, upstream: SocketAddr) -> Proxy {
        let listener = TcpListener::bind((cluster::own_address().await, 0)).await.expect("a port");
        let here = listener.local_addr().expect("an address");
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
            "spec": {"ports": [{"name": "tcp", "port": port}]}});
        let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4", "ports": [{"name": "tcp", "port": here.port()}],
            "endpoints": [{"addresses": [here.ip()]}]});
        self.apply(&format!("{service}\n---\n{slice}")).await;
        let (flow, commands) = watch::channel(Flow::Open);
        tokio::spawn(accept(listener, upstream, commands));
        Proxy { flow }
    }

    /// Where the first ready pod of a Service answers; reachable from this process, which its own address is not.
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

/// Ends with the [`Proxy`] that holds the other end of `commands`.
async fn accept(listener: TcpListener, upstream: SocketAddr, mut commands: watch::Receiver<Flow>) {
    let here = listener.local_addr().expect("an address");
    let mut listener = Some(listener);
    loop {
        let flow = *commands.borrow_and_update();
        if flow == Flow::Refuse {
            listener = None;
        } else if listener.is_none() {
            listener = Some(TcpListener::bind(here).await.expect("the port once more"));
        }
        let connection = async {
            match &listener {
                Some(listener) => listener.accept().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = commands.changed() => if changed.is_err() { return },
            Ok((client, _)) = connection => { tokio::spawn(carry(client, upstream, commands.clone())); }
        }
    }
}

/// One connection, until either side ends it.
async fn carry(client: TcpStream, upstream: SocketAddr, commands: watch::Receiver<Flow>) {
    let Ok(server) = TcpStream::connect(upstream).await else { return };
    let ((client_in, client_out), (server_in, server_out)) = (client.into_split(), server.into_split());
    let there = std::pin::pin!(copy(client_in, server_out, commands.clone()));
    let back = std::pin::pin!(copy(server_in, client_out, commands));
    // A half that was only closed for writing lets the other go on; one that broke ends both.
    if let Either::Left((true, rest)) | Either::Right((true, rest)) = match select(there, back).await {
        Either::Left((whole, back)) => Either::Left((whole, Either::Left(back))),
        Either::Right((whole, there)) => Either::Right((whole, Either::Right(there))),
    } {
        rest.await;
    }
}

/// One direction; true when it ended by itself.
async fn copy(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut commands: watch::Receiver<Flow>,
) -> bool {
    let mut buffer = vec![0; 64 << 10];
    let mut passed = 0;
    loop {
        let length = tokio::select! {
            read = from.read(&mut buffer) => match read {
                Ok(0) => return true,
                Ok(length) => length,
                Err(_) => return false,
            },
            () = async { drop(commands.wait_for(|flow| *flow == Flow::Refuse).await) } => return false,
        };
        let flow = *commands.borrow_and_update();
        match flow {
            Flow::Open => {}
            Flow::Slow(time) => tokio::time::sleep(time).await,
            Flow::Silent => drop(commands.wait_for(|flow| *flow != Flow::Silent).await),
            Flow::Refuse => return false,
            Flow::CutAfter(bytes) if passed + length <= bytes => {}
            Flow::CutAfter(bytes) => {
                _ = to.write_all(&buffer[..bytes.saturating_sub(passed)]).await;
                return false;
            }
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return false;
        }
        passed += length;
    }
}
