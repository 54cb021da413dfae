//! Servers for the tests: real ones (MinIO, rclone, fake-gcs-server) started for a test, and one that says what it is told.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::{AccessKey, Credentials, GcsConfig, GcsCredentials, S3Config};

/// A real server on this machine, gone when dropped, also when the test panics.
pub(crate) struct Server {
    process: Child,
    address: SocketAddr,
    scheme: &'static str,
    folder: tempfile::TempDir,
}

pub(crate) fn key() -> AccessKey {
    AccessKey { id: "holdfast".to_owned(), secret: "not so secret".to_owned(), session_token: None }
}

impl Server {
    pub(crate) fn minio() -> Self {
        Self::start("http", |folder, address| {
            let mut command = server_command("minio");
            command
                .args(["server", "--quiet", "--address", &address.to_string()])
                .args(["--console-address", &free_address().to_string(), "--certs-dir"])
                .arg(folder.join("certs"))
                .arg(folder.join("data"))
                .env("MINIO_ROOT_USER", key().id)
                .env("MINIO_ROOT_PASSWORD", key().secret)
                .env("MINIO_UPDATE", "off");
            command
        })
    }

    pub(crate) fn rclone() -> Self {
        Self::start("http", rclone)
    }

    /// rclone behind TLS, with the PEM of the authority that vouches for it.
    pub(crate) fn rclone_tls() -> (Self, Vec<u8>) {
        let certificate = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let (pem, secret) = (certificate.cert.pem(), certificate.signing_key.serialize_pem());
        let server = Self::start("https", |folder, address| {
            std::fs::write(folder.join("cert.pem"), &pem).unwrap();
            std::fs::write(folder.join("key.pem"), &secret).unwrap();
            let mut command = rclone(folder, address);
            command.arg("--cert").arg(folder.join("cert.pem")).arg("--key").arg(folder.join("key.pem"));
            command
        });
        (server, pem.into_bytes())
    }

    /// Google Cloud Storage as its emulator has it: no credentials, everything in memory.
    pub(crate) fn fake_gcs() -> Self {
        Self::start("http", |_, address| {
            let mut command = server_command("fake-gcs-server");
            let host = address.ip().to_string();
            command.args(["-backend", "memory", "-log-level", "error", "-scheme", "http", "-host", &host]).args([
                "-port",
                &address.port().to_string(),
                "-public-host",
                &address.to_string(),
            ]);
            command
        })
    }

    fn start(scheme: &'static str, command: impl Fn(&Path, SocketAddr) -> Command) -> Self {
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
            let mut server = Self { process, address, scheme, folder };
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

    pub(crate) fn config(&self, bucket: &str, prefix: &str) -> S3Config {
        let endpoint = format!("{}://{}", self.scheme, self.address);
        S3Config {
            credentials: Credentials::Key(key()),
            region: Some("us-east-1".to_owned()),
            ..S3Config::new(endpoint, bucket, prefix)
        }
    }

    pub(crate) fn gcs_config(&self, bucket: &str, prefix: &str) -> GcsConfig {
        emulated(self.address, bucket, prefix)
    }

    /// Where the server keeps its buckets.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// A bucket of an emulator, by the key that points there.
fn emulated(address: SocketAddr, bucket: &str, prefix: &str) -> GcsConfig {
    let key = format!(r#"{{"type": "service_account", "gcs_base_url": "http://{address}", "disable_oauth": true}}"#);
    GcsConfig {
        credentials: GcsCredentials::Key(key),
        project: Some("project".to_owned()),
        ..GcsConfig::new(bucket, prefix)
    }
}

fn rclone(folder: &Path, address: SocketAddr) -> Command {
    let mut command = server_command("rclone");
    command
        .args(["serve", "s3", "--config", "/dev/null", "--addr", &address.to_string()])
        .arg(format!("--auth-key={},{}", key().id, key().secret))
        .arg("--cache-dir")
        .arg(folder.join("cache"))
        .arg(folder.join("data"));
    command
}

/// A command that ends with the test process, even if that is killed.
fn server_command(name: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(tool(name));
    command
}

/// A tool that `cargo xtask tools` has installed, or the one that `HOLDFAST_<NAME>` names.
fn tool(name: &str) -> PathBuf {
    let named = std::env::var_os(format!("HOLDFAST_{}", name.to_uppercase().replace('-', "_"))).map(PathBuf::from);
    let path = named.unwrap_or_else(|| {
        let cache = std::env::var_os("HOLDFAST_CACHE").map(PathBuf::from);
        let cache = cache.unwrap_or_else(|| Path::new(&std::env::var_os("HOME").unwrap()).join(".cache/holdfast"));
        cache.join("bin").join(name)
    });
    assert!(path.is_file(), "{} is missing; run: cargo xtask tools", path.display());
    path
}

/// An address on which nothing listens.
pub(crate) fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Whether an S3 server answers, with anything but "not yet" (503).
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

/// A request as a [`Scripted`] server sees it.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// Method and path with the query.
    pub(crate) line: String,
    /// All in lower case.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

/// A server that answers with what a function says, byte by byte, and then closes the connection.
pub(crate) struct Scripted {
    address: SocketAddr,
    pub(crate) requests: Arc<Mutex<Vec<Request>>>,
}

impl Scripted {
    /// `answer` gets the request and its number, from 0.
    pub(crate) fn start(answer: impl Fn(&Request, usize) -> String + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        // Ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let Some(request) = receive(&stream) else {
                    continue;
                };
                let number = seen.lock().unwrap().len();
                seen.lock().unwrap().push(request.clone());
                // The client may have gone: it is under test, not this.
                let _ = stream.write_all(answer(&request, number).as_bytes());
            }
        });
        Self { address, requests }
    }

    pub(crate) fn config(&self) -> S3Config {
        S3Config {
            credentials: Credentials::Key(key()),
            timeout: Duration::from_secs(10),
            ..S3Config::new(format!("http://{}", self.address), "bucket", "")
        }
    }

    pub(crate) fn gcs_config(&self) -> GcsConfig {
        GcsConfig { timeout: Duration::from_secs(10), ..emulated(self.address, "bucket", "") }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.requests.lock().unwrap().iter().map(|request| request.line.clone()).collect()
    }
}

fn receive(stream: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|length| *length > 0)?;
    let mut head = String::new();
    loop {
        let start = head.len();
        reader.read_line(&mut head).ok()?;
        if head[start..].trim().is_empty() {
            break;
        }
    }
    let head = head.to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |n| n.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let line = line.trim().trim_end_matches(" HTTP/1.1").to_owned();
    Some(Request { line, head, body })
}

/// An HTTP answer with a body.
pub(crate) fn answer(status: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n{body}")
}

/// S3's way to say no.
pub(crate) fn refusal(status: &str, code: &str) -> String {
    answer(status, "", &format!("<Error><Code>{code}</Code><Message>because</Message></Error>"))
}
