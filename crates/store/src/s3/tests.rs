//! S3: real servers, and scripted ones for what real ones rarely do.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use tokio::runtime::Builder;

use super::*;
use crate::bucket::servers::{Scripted, Server, answer, free_address, key, refusal};
use crate::conformance::{self, pattern};
use crate::{BucketStore, Cancel, Retry, RetryPolicy, Store};

fn kind<T: std::fmt::Debug>(result: Result<T>) -> ErrorKind {
    result.unwrap_err().kind
}

fn names(store: &dyn Store, prefix: &str) -> Vec<String> {
    let mut names = Vec::new();
    store.list(prefix, &mut |entry| names.push(entry.name)).unwrap();
    names
}

/// An empty store for every case: now a bucket of its own, now a folder of it.
fn stores(server: &Server) -> impl Fn() -> BucketStore {
    let count = AtomicUsize::new(0);
    move || {
        let number = count.fetch_add(1, Ordering::Relaxed);
        let prefix = if number.is_multiple_of(2) { "" } else { "deep/folder" };
        S3Config::create(&server.config(&format!("bucket-{number}"), prefix)).unwrap()
    }
}

#[test]
fn conforms_on_minio() {
    conformance::check(stores(&Server::minio()));
}

/// As everybody uses a store, with retries: of two first writes into one folder rclone now and then answers one by 500,
/// because the other made the folder meanwhile.
#[test]
fn conforms_on_rclone() {
    let server = Server::rclone();
    let store = stores(&server);
    conformance::check(|| Retry::new(store(), RetryPolicy::default()));
}

#[test]
fn buckets_are_made_and_found_missing() {
    let server = Server::minio();
    let config = server.config("bucket", "");
    let store = S3Config::open(&config).unwrap();
    for error in [
        store.list("", &mut |_| {}).unwrap_err(),
        store.list("data", &mut |_| {}).unwrap_err(),
        store.get("config").unwrap_err(),
        store.put("config", b"x").unwrap_err(),
        store.delete("config").unwrap_err(),
    ] {
        assert_eq!(error.kind, ErrorKind::NotFound, "{error}: {}", error.source);
        assert!(error.source.to_string().starts_with("NoSuchBucket"), "{}", error.source);
        assert!(error.to_string().contains(&store.location()), "{error}");
    }
    assert_eq!(kind(store.size_bytes("config")), ErrorKind::NotFound);
    S3Config::create(&config).unwrap();
    S3Config::create(&config).unwrap();
    store.put("config", b"x").unwrap();
    assert_eq!(names(&store, ""), ["config"]);
    assert!(server.data().join("bucket").is_dir());
}

#[test]
fn stores_of_one_bucket_do_not_see_each_other() {
    let server = Server::minio();
    let open = |prefix| S3Config::create(&server.config("bucket", prefix)).unwrap();
    let (all, a, ab) = (open(""), open("a"), open("ab"));
    a.put("config", b"a").unwrap();
    ab.put("config", b"ab").unwrap();
    assert_eq!(a.get("config").unwrap(), b"a");
    assert_eq!(ab.get("config").unwrap(), b"ab");
    assert_eq!(names(&a, ""), ["config"]);
    assert_eq!(names(&all, ""), ["a/config", "ab/config"]);
    assert_eq!(names(&all, "a"), ["a/config"]);
    assert_eq!(a.location(), format!("{}/a", all.location()));
}

#[test]
fn wrong_credentials() {
    for (server, codes) in [
        (Server::minio(), ["InvalidAccessKeyId", "SignatureDoesNotMatch"]),
        // Not every of its refusals names a reason.
        (Server::rclone(), ["", ""]),
    ] {
        S3Config::create(&server.config("bucket", "")).unwrap().put("config", b"x").unwrap();
        let wrong_id = AccessKey { id: "somebody".to_owned(), ..key() };
        let wrong_secret = AccessKey { secret: "guessed".to_owned(), ..key() };
        for (key, code) in [wrong_id, wrong_secret].into_iter().zip(codes) {
            let config = S3Config { credentials: Credentials::Key(key), ..server.config("bucket", "") };
            let store = S3Config::open(&config).unwrap();
            for error in [
                store.list("", &mut |_| {}).unwrap_err(),
                store.get("config").unwrap_err(),
                store.delete("config").unwrap_err(),
            ] {
                assert_eq!(error.kind, ErrorKind::PermissionDenied, "{error}: {}", error.source);
                assert!(error.source.to_string().starts_with(code), "{}", error.source);
            }
            // The answer to a look has no body that could name the reason.
            for error in [store.size_bytes("config").unwrap_err(), store.put("other", b"x").unwrap_err()] {
                assert_eq!(error.kind, ErrorKind::PermissionDenied);
                assert_eq!(error.source.to_string(), "Forbidden (HTTP 403)");
            }
        }
    }
}

#[test]
fn tls_needs_an_authority() {
    let (server, ca) = Server::rclone_tls();
    let config = S3Config { endpoint: format!("https://{}", server.address), ..server.config("bucket", "") };
    let trusting = S3Config { ca_pem: Some(ca), ..config.clone() };
    let store = S3Config::create(&trusting).unwrap();
    store.put("config", b"x").unwrap();
    assert_eq!(store.get("config").unwrap(), b"x");

    let error = S3Config::open(&config).unwrap().get("config").unwrap_err();
    assert_eq!(error.kind, ErrorKind::InvalidConfig, "{}", error.source);
    assert!(error.source.to_string().contains("certificate"), "{}", error.source);

    for pem in ["", "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"] {
        let broken = S3Config { ca_pem: Some(pem.into()), ..config.clone() };
        assert_eq!(kind(S3Config::open(&broken)), ErrorKind::InvalidConfig);
    }
}

#[test]
fn large_objects_go_in_parts() {
    let server = Server::minio();
    let mut store = S3Config::create(&server.config("bucket", "")).unwrap();
    store.single_put_bytes_max = 6 << 20;
    store.part_bytes = 5 << 20;
    let data = pattern((12 << 20) + 7);
    store.put("data/large", &data).unwrap();
    assert!(store.get("data/large").unwrap() == data);
    assert_eq!(kind(store.put("data/large", &data)), ErrorKind::AlreadyExists);
    assert_eq!(names(&store, ""), ["data/large"]);
}

#[test]
fn nobody_listens() {
    let endpoint = format!("http://{}", free_address());
    let config = S3Config { credentials: Credentials::Key(key()), ..S3Config::new(&endpoint, "bucket", "") };
    let store = S3Config::open(&config).unwrap();
    for error in [
        store.list("", &mut |_| {}).unwrap_err(),
        store.get("config").unwrap_err(),
        store.put("config", b"x").unwrap_err(),
        S3Config::create(&config).unwrap_err(),
    ] {
        assert_eq!(error.kind, ErrorKind::Unavailable, "{error}: {}", error.source);
        let said = error.source.to_string();
        assert!(said.starts_with("the server cannot be reached: Connection refused"), "{said}");
    }
    assert_eq!(store.get("config").unwrap_err().to_string(), format!("cannot read s3:{endpoint}/bucket/config"));
}

#[test]
fn a_silent_server_is_not_waited_for() {
    // Takes connections into its backlog and never answers.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let store = S3Config::open(&S3Config {
        credentials: Credentials::Key(key()),
        timeout: Duration::from_millis(100),
        ..S3Config::new(endpoint, "bucket", "")
    })
    .unwrap();
    for error in [
        store.list("", &mut |_| {}).unwrap_err(),
        store.get("config").unwrap_err(),
        store.get_range("config", 0, &mut [0]).unwrap_err(),
        store.put("config", b"x").unwrap_err(),
        store.size_bytes("config").unwrap_err(),
        store.delete("config").unwrap_err(),
    ] {
        assert_eq!(error.kind, ErrorKind::Unavailable);
        assert_eq!(error.source.to_string(), "no answer within 100ms");
    }
}

#[test]
fn a_request_under_way_ends_soon_when_it_is_cancelled() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let cancel = Cancel::new();
    let config = S3Config { credentials: Credentials::Key(key()), ..S3Config::new(endpoint, "bucket", "") };
    let store = config.open().unwrap().cancelled_by(cancel.clone());
    std::thread::scope(|scope| {
        let (get, put) = (scope.spawn(|| store.get("config")), scope.spawn(|| store.put("data/x", b"x")));
        let _under_way = listener.accept().unwrap();
        let begin = Instant::now();
        cancel.cancel();
        assert_eq!(kind(get.join().unwrap()), ErrorKind::Interrupted);
        assert_eq!(kind(put.join().unwrap()), ErrorKind::Interrupted);
        // The time limit of a request is a minute.
        assert!(begin.elapsed() < 10 * Cancel::GRACE, "{:?}", begin.elapsed());
    });
    // One that begins after that has the same time, to give back a lock.
    let begin = Instant::now();
    assert_eq!(kind(store.delete("locks/x")), ErrorKind::Interrupted);
    assert!(begin.elapsed() >= Cancel::GRACE);
}

fn page(names: &[&str], next: Option<&str>) -> String {
    let entry = |name: &&str| {
        format!("<Contents><Key>{name}</Key><LastModified>2026-01-01T00:00:00Z</LastModified><Size>1</Size></Contents>")
    };
    let next = next.map_or_else(String::new, |token| format!("<NextContinuationToken>{token}</NextContinuationToken>"));
    let entries: String = names.iter().map(entry).collect();
    answer("200 OK", "", &format!("<ListBucketResult>{entries}{next}</ListBucketResult>"))
}

#[test]
fn a_listing_is_whole_or_an_error() {
    let server = Scripted::start(|request, _| match request.line.contains("continuation-token=2") {
        false => page(&["data/1", "data/2"], Some("2")),
        true => refusal("503 Slow Down", "SlowDown"),
    });
    let store = S3Config::open(&server.config()).unwrap();
    let error = store.list("data", &mut |_| {}).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert_eq!(error.source.to_string(), "SlowDown: because (HTTP 503)");

    for broken in [
        "<ListBucketResult><Contents>",
        "<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>",
        "<html>welcome</html>",
        "",
    ] {
        let server = Scripted::start(move |_, _| answer("200 OK", "", broken));
        let store = S3Config::open(&server.config()).unwrap();
        let error = store.list("data", &mut |_| {}).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Other);
        assert!(error.source.to_string().contains("does this server speak S3?"), "{}", error.source);
    }
}

#[test]
fn an_answer_cut_short_is_an_error() {
    let head = "Last-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n";
    let server = Scripted::start(move |request, _| match request.head.contains("range: ") {
        false => format!("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n{head}\r\nabc"),
        true => format!("HTTP/1.1 206 Partial\r\nContent-Length: 10\r\nContent-Range: bytes 0-9/20\r\n{head}\r\nabc"),
    });
    let store = S3Config::open(&server.config()).unwrap();
    assert_eq!(kind(store.get("config")), ErrorKind::Unavailable);
    assert_eq!(kind(store.get_range("config", 0, &mut [0; 10])), ErrorKind::Unavailable);
}

/// A server that has objects and treats conditional writes as told.
fn conditional(unknown: &'static str) -> Scripted {
    let written = Mutex::new(BTreeSet::new());
    Scripted::start(move |request, _| {
        let (method, path) = request.line.split_once(' ').unwrap();
        let mut written = written.lock().unwrap();
        match method {
            "HEAD" if written.contains(path) => {
                answer("200 OK", "Last-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n", "")
            }
            "HEAD" => answer("404 Not Found", "", ""),
            "PUT" if unknown == "refuses" && request.head.contains("if-none-match: *") => {
                refusal("501 Not Implemented", "NotImplemented")
            }
            "PUT" if unknown == "knows" && written.contains(path) => {
                assert!(request.head.contains("if-none-match: *"));
                refusal("412 Precondition Failed", "PreconditionFailed")
            }
            "PUT" => {
                written.insert(path.to_owned());
                answer("200 OK", "ETag: \"x\"\r\n", "")
            }
            _ => refusal("400 Bad Request", "InvalidRequest"),
        }
    })
}

#[test]
fn servers_that_know_conditions_are_asked_once() {
    let server = conditional("knows");
    let store = S3Config::open(&server.config()).unwrap();
    store.put("a", b"x").unwrap();
    store.put("b", b"x").unwrap();
    assert_eq!(kind(store.put("b", b"y")), ErrorKind::AlreadyExists);
    let lines = ["HEAD /bucket/a", "PUT /bucket/a", "PUT /bucket/a", "PUT /bucket/b", "PUT /bucket/b"];
    assert_eq!(server.lines(), lines);
}

#[test]
fn servers_that_know_no_conditions_are_looked_at_first() {
    for (unknown, first) in [("refuses", 3), ("ignores", 3)] {
        let server = conditional(unknown);
        let store = S3Config::open(&server.config()).unwrap();
        store.put("a", b"x").unwrap();
        assert_eq!(kind(store.put("a", b"y")), ErrorKind::AlreadyExists);
        store.put("b", b"x").unwrap();
        let lines = server.lines();
        assert_eq!(lines[..2], ["HEAD /bucket/a", "PUT /bucket/a"], "{unknown}");
        assert_eq!(lines[first..], ["HEAD /bucket/a", "HEAD /bucket/b", "PUT /bucket/b"], "{unknown}");
        let bodies = server.requests.lock().unwrap();
        assert!(bodies.iter().all(|request| request.body.is_empty() || request.body == b"x"));
    }
}

#[test]
fn calls_from_asynchronous_tasks_are_errors() {
    let store = S3Config::open(&Scripted::start(|_, _| page(&[], None)).config()).unwrap();
    store.list("", &mut |_| {}).unwrap();
    let runtime = Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let error = store.list("", &mut |_| {}).unwrap_err();
        assert_eq!(error.source.to_string(), "a blocking call within an asynchronous task");
        drop(store);
    });
}

#[test]
fn settings_that_make_no_sense() {
    for (endpoint, bucket, prefix) in [
        ("host", "bucket", ""),
        ("ftp://host", "bucket", ""),
        ("https://", "bucket", ""),
        ("https://host", "", ""),
        ("https://host", "a/b", ""),
        ("https://host", "bucket", "/a"),
        ("https://host", "bucket", "a/../b"),
    ] {
        let config = S3Config { credentials: Credentials::Anonymous, ..S3Config::new(endpoint, bucket, prefix) };
        assert_eq!(kind(S3Config::open(&config)), ErrorKind::InvalidConfig, "{endpoint} {bucket} {prefix}");
    }
}

#[test]
fn regions_and_styles_of_endpoints() {
    for (endpoint, bucket, region, path_style) in [
        ("https://s3.eu-west-1.amazonaws.com", "bucket", Some("eu-west-1"), false),
        ("https://s3-eu-west-1.amazonaws.com", "bucket", Some("eu-west-1"), false),
        ("https://s3.dualstack.eu-west-1.amazonaws.com", "bucket", Some("eu-west-1"), false),
        ("https://s3.cn-north-1.amazonaws.com.cn", "bucket", Some("cn-north-1"), false),
        ("https://s3.amazonaws.com", "bucket", None, false),
        ("https://s3.amazonaws.com", "my.bucket", None, true),
        ("http://127.0.0.1:9000", "bucket", None, true),
        ("https://s3.example-host.org", "bucket", None, true),
    ] {
        let config = S3Config::new(endpoint, bucket, "");
        assert_eq!(config.region_of_endpoint(), region, "{endpoint}");
        assert_eq!(config.is_path_style(), path_style, "{endpoint} {bucket}");
    }
}
