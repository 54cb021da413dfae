//! A Service in front of an S3 server that knows requests: it lists them, and holds everything at one of them. So a
//! program can be killed between any two things that it does to a repository, however quick it is.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::Test;

/// This process's address towards pods.
const HOST: &str = "10.77.0.1";

/// Stands for a Service until it is dropped.
pub(crate) struct Gate {
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

/// Where to hold: at the request that comes after so many others, counted from the first of this method in this folder
/// (not counted itself; none: from now).
#[derive(Clone, Debug)]
pub(crate) struct Moment {
    pub(crate) after: Option<(&'static str, &'static str)>,
    pub(crate) others: usize,
}

struct Shared {
    state: Mutex<State>,
    held: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    /// `PUT /bucket/prefix/snapshots/…`, as they came.
    requests: Vec<String>,
    moment: Option<Moment>,
}

impl Gate {
    /// The requests since this was last asked.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.state().requests)
    }

    /// From that request on nothing reaches the server.
    pub(crate) fn hold_at(&self, moment: Moment) {
        self.shared.state().moment = Some(moment);
    }

    /// Waits until something is held.
    pub(crate) async fn held(&self) {
        let mut held = self.shared.held.subscribe();
        held.wait_for(|held| *held).await.expect("the sender lives as long as this");
    }

    /// Everything passes again. What was held ends with its connection and never arrives.
    pub(crate) fn open(&self) {
        self.shared.state().moment = None;
        self.shared.held.send_replace(false);
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Shared {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a request; says whether it is to be held.
    fn see(&self, line: &str) -> bool {
        let mut state = self.state();
        if *self.held.borrow() {
            return true;
        }
        let hold = match &mut state.moment {
            None => false,
            Some(moment) => match moment.after {
                Some(first) => {
                    if is(line, first) {
                        moment.after = None;
                    }
                    false
                }
                None => {
                    let others = moment.others;
                    moment.others = others.saturating_sub(1);
                    others == 0
                }
            },
        };
        if hold {
            self.held.send_replace(true);
        } else {
            state.requests.push(line.to_owned());
        }
        hold
    }
}

impl Test {
    /// Makes the Service `name` with this port, whose requests go through this process to `upstream`.
    pub(crate) async fn gate(&self, name: &str, port: u16, upstream: SocketAddr) -> Gate {
        let listener = TcpListener::bind((HOST, 0)).await.expect("a port");
        let here = listener.local_addr().expect("an address");
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
            "spec": {"ports": [{"name": "tcp", "port": port}]}});
        let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4", "ports": [{"name": "tcp", "port": here.port()}],
            "endpoints": [{"addresses": [here.ip()]}]});
        self.apply(&format!("{service}\n---\n{slice}")).await;
        let shared = Arc::new(Shared { state: Mutex::default(), held: watch::Sender::new(false) });
        let accepting = tokio::spawn(accept(listener, upstream, Arc::clone(&shared)));
        Gate { shared, accepting }
    }
}

async fn accept(listener: TcpListener, upstream: SocketAddr, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let Ok(server) = TcpStream::connect(upstream).await else { return };
            let ((client_in, client_out), (server_in, server_out)) = (client.into_split(), server.into_split());
            // Whichever ends first ends the connection: HTTP has no use for one that is half open.
            tokio::select! {
                () = ask(client_in, server_out, &shared) => {}
                () = answer(server_in, client_out) => {}
            }
        });
    }
}

/// Requests, one after the other: a client does not send the next before it has the answer, so that a request is
/// what a piece of data begins with.
async fn ask(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, shared: &Shared) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let data = &buffer[..length];
        if let Some(line) = request_line(data)
            && shared.see(line)
        {
            let mut held = shared.held.subscribe();
            _ = held.wait_for(|held| !*held).await;
            return;
        }
        if to.write_all(data).await.is_err() {
            return;
        }
    }
}

async fn answer(mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
    _ = tokio::io::copy(&mut from, &mut to).await;
}

/// Whether a request has this method and is about a file of this folder.
fn is(line: &str, (method, folder): (&str, &str)) -> bool {
    line.starts_with(method) && line.contains(folder)
}

/// Method and target of a request that begins here.
fn request_line(data: &[u8]) -> Option<&str> {
    let end = data.iter().take(2000).position(|byte| *byte == b'\r')?;
    let (line, version) = std::str::from_utf8(&data[..end]).ok()?.rsplit_once(' ')?;
    let is_request = ["GET /", "PUT /", "HEAD /", "POST /", "DELETE /"].iter().any(|start| line.starts_with(start));
    (is_request && version.starts_with("HTTP/1")).then_some(line)
}
