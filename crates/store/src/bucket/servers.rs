//! Servers for the tests: real ones (MinIO, rclone, fake-gcs-server) started for a test, and one that says what it is told.

#[path = "../../../../tests/servers/mod.rs"]
mod real;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub(crate) use self::real::{Server, free_address};
use crate::{AccessKey, Credentials, GcsConfig, GcsCredentials, S3Config};

pub(crate) fn key() -> AccessKey {
    AccessKey { id: real::KEY.to_owned(), secret: real::SECRET.to_owned(), session_token: None }
}

impl Server {
    /// rclone behind TLS, with the PEM of the authority that vouches for it.
    pub(crate) fn rclone_tls() -> (Self, Vec<u8>) {
        let certificate = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let (pem, secret) = (certificate.cert.pem(), certificate.signing_key.serialize_pem());
        let server = Self::start(|folder, address| {
            std::fs::write(folder.join("cert.pem"), &pem).unwrap();
            std::fs::write(folder.join("key.pem"), &secret).unwrap();
            let mut command = real::rclone(folder, address);
            command.arg("--cert").arg(folder.join("cert.pem")).arg("--key").arg(folder.join("key.pem"));
            command
        });
        (server, pem.into_bytes())
    }

    pub(crate) fn config(&self, bucket: &str, prefix: &str) -> S3Config {
        S3Config {
            credentials: Credentials::Key(key()),
            region: Some("us-east-1".to_owned()),
            ..S3Config::new(format!("http://{}", self.address), bucket, prefix)
        }
    }

    pub(crate) fn gcs_config(&self, bucket: &str, prefix: &str) -> GcsConfig {
        emulated(self.address, bucket, prefix)
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
