//! What is said between a cluster and those who use it: requests and answers over the supervisor's socket, and the
//! progress of a start over its stdout. One JSON value to a line.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::layout::Cluster;

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    /// Nothing but the answer.
    Tell,
    /// End a component and leave it so.
    Stop { component: String, kill: bool },
    /// Start a component that was stopped.
    Start { component: String },
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Answer {
    /// Whether the start has come to its end.
    pub(super) up: bool,
    pub(super) nodes: u8,
    pub(super) components: Vec<State>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) name: String,
    /// Its process id as seen from inside; none while it is down.
    pub(super) process: Option<u32>,
    /// Whether it is to run.
    pub(super) wanted: bool,
    /// How often it was started again after it had ended by itself.
    pub(super) restarts: u32,
}

/// How a start goes.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Progress {
    /// Something is done.
    Step(String),
    /// All is done.
    Up,
    /// It ended; whose log tells more, if it is known.
    Failed { component: Option<String>, problem: String },
}

/// Asks the supervisor of a cluster.
pub(super) fn ask(cluster: &Cluster, request: &Request) -> Result<Answer> {
    // By way of the open folder: the path of a socket may not be long, that of the cache may be.
    let folder = File::open(&cluster.folder).with_context(|| format!("cannot open {}", cluster.folder.display()))?;
    let path = format!("/proc/self/fd/{}/control.sock", folder.as_raw_fd());
    let mut stream = UnixStream::connect(path).with_context(|| format!("cluster {} does not answer", cluster.name))?;
    writeln!(stream, "{}", serde_json::to_string(request)?).context("cannot send a request")?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).context("cannot read the answer")?;
    match serde_json::from_str::<Result<Answer, String>>(&line).context("the answer makes no sense")? {
        Ok(answer) => Ok(answer),
        Err(problem) => bail!(problem),
    }
}
