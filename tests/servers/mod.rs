//! Real servers for the tests of several crates, which take this file in by its path.

#![allow(dead_code, unreachable_pub, unused_imports, reason = "each test program uses a part of it")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

#[path = "../common/mod.rs"]
mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub use common::{noise, tool};

/// The access key of every S3 server here.
pub const KEY: &str = "holdfast";
/// Its secret.
pub const SECRET: &str = "not so secret";

/// A real server on this machine, gone when dropped, also when the test panics.
pub struct Server {
    process: Child,
    pub address: SocketAddr,
    pub folder: tempfile::TempDir,
}

impl Server {
    pub fn minio() -> Self {
        Self::start(|folder, address| {
            let mut command = server_command("minio");
            command
                .args(["server", "--quiet", "--address", &address.to_string()])
                .args(["--console-address", &free_address().to_string(), "--certs-dir"])
                .arg(folder.join("certs"))
                .arg(folder.join("data"))
                .envs([("MINIO_ROOT_USER", KEY), ("MINIO_ROOT_PASSWORD", SECRET), ("MINIO_UPDATE", "off")]);
            command
        })
    }

    pub fn rclone() -> Self {
        Self::start(rclone)
    }

    /// Google Cloud Storage as its emulator has it: no credentials, everything in memory.
    pub fn fake_gcs() -> Self {
        Self::start(|_, address| {
            let (port, host) = (address.port().to_string(), address.to_string());
            let mut command = server_command("fake-gcs-server");
            command.args(["-backend", "memory", "-log-level", "error", "-scheme", "http", "-host", "127.0.0.1"]);
            command.args(["-port", &port, "-public-host", &host]);
            command
        })
    }

    /// Starts what `command` makes of a folder with an empty `data` in it, and of an address.
    pub fn start(command: impl Fn(&Path, SocketAddr) -> Command) -> Self {
        let mut said = String::new();
        // Another process may take the port between choosing and using it.
        for _ in 0..5 {
            let folder = tempfile::tempdir().unwrap();
            std::fs::create_dir(folder.path().join("data")).unwrap();
            let address = free_address();
            let log = folder.path().join("log");
            let output = std::fs::File::create(&log).unwrap();
            let process = command(folder.path(), address)
                .stdin(Stdio::null())
                .stdout(output.try_clone().unwrap())
                .stderr(output)
                .spawn()
                .unwrap();
            let mut server = Self { process, address, folder };
            if server.is_ready() {
                return server;
            }
            said = std::fs::read_to_string(&log).unwrap();
        }
        panic!("the server does not start: {said}");
    }

    /// Waits until the server answers; false when it has ended.
    fn is_ready(&mut self) -> bool {
        let deadline = Instant::now() + Duration::from_secs(60);
        while Instant::now() < deadline {
            if self.process.try_wait().unwrap().is_some() {
                return false;
            }
            if answers(self.address) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }

    /// Where the server keeps its buckets, each a folder.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// rclone as an S3 server on that folder and address.
pub fn rclone(folder: &Path, address: SocketAddr) -> Command {
    let mut command = server_command("rclone");
    command
        .args(["serve", "s3", "--config", "/dev/null", "--addr", &address.to_string()])
        .arg(format!("--auth-key={KEY},{SECRET}"))
        .arg("--cache-dir")
        .arg(folder.join("cache"))
        .arg(folder.join("data"));
    command
}

/// A command that ends with the thread that starts it, even if the test process is killed.
pub fn server_command(name: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(tool(name));
    command
}

/// An address on which nothing listens.
pub fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Whether a server answers by HTTP, with anything but "not yet" (503).
fn answers(address: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect(address) else {
        return false;
    };
    stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let request = format!("GET /ready?list-type=2 HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    let mut answer = String::new();
    stream.write_all(request.as_bytes()).is_ok()
        && stream.read_to_string(&mut answer).is_ok()
        && answer.starts_with("HTTP/1.")
        && !answer.contains(" 503 ")
}
