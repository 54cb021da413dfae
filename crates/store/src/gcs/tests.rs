//! Google Cloud Storage: its emulator, and scripted servers for what emulators do not do.

use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::Store;
use crate::bucket::servers::{Scripted, Server, answer};
use crate::conformance;

fn kind<T: std::fmt::Debug>(result: Result<T>) -> ErrorKind {
    result.unwrap_err().kind
}

/// Every operation but the removal, refused.
fn errors(store: &dyn Store) -> Vec<Error> {
    vec![
        store.list("", &mut |_| {}).unwrap_err(),
        store.get("config").unwrap_err(),
        store.get_range("config", 0, &mut [0]).unwrap_err(),
        store.size_bytes("config").unwrap_err(),
        store.put("config", b"x").unwrap_err(),
    ]
}

/// Google's way to say no.
fn refusal(status: &str, reason: &str, message: &str) -> String {
    let code = status.split(' ').next().unwrap();
    let error = format!(r#"{{"code": {code}, "message": "{message}", "errors": [{{"reason": "{reason}"}}]}}"#);
    answer(status, "", &format!(r#"{{"error": {error}}}"#))
}

#[test]
fn conforms_on_the_emulator() {
    let server = Server::fake_gcs();
    let count = AtomicUsize::new(0);
    conformance::check(|| {
        let number = count.fetch_add(1, Ordering::Relaxed);
        let prefix = if number.is_multiple_of(2) { "" } else { "deep/folder" };
        server.gcs_config(&format!("bucket-{number}"), prefix).create().unwrap()
    });
}

#[test]
fn buckets_are_made_and_found_missing() {
    let server = Server::fake_gcs();
    let config = server.gcs_config("bucket", "a");
    let store = config.open().unwrap();
    assert_eq!(store.location(), "gs:bucket:/a");
    for error in errors(&store) {
        assert_eq!(error.kind, ErrorKind::NotFound, "{error}: {}", error.source);
        assert!(error.to_string().contains("gs:bucket:/a"), "{error}");
    }
    let nowhere = GcsConfig { project: None, ..config.clone() };
    let error = nowhere.create().unwrap_err();
    assert_eq!(error.to_string(), "cannot create the bucket of gs:bucket:/a");
    assert!(error.source.to_string().ends_with("make it yourself, or set GOOGLE_PROJECT_ID"), "{}", error.source);

    config.create().unwrap();
    config.create().unwrap().put("config", b"x").unwrap();
    let all = server.gcs_config("bucket", "").open().unwrap();
    assert_eq!(all.get("a/config").unwrap(), b"x");
    assert_eq!(all.get("b").unwrap_err().to_string(), "cannot read gs:bucket:/b");
}

#[test]
fn google_refuses() {
    for (status, reason, message, expected) in [
        ("401 Unauthorized", "authError", "Invalid Credentials", ErrorKind::PermissionDenied),
        ("403 Forbidden", "forbidden", "a@b does not have storage.objects.get access", ErrorKind::PermissionDenied),
        ("404 Not Found", "notFound", "The specified bucket does not exist.", ErrorKind::NotFound),
        ("429 Too Many Requests", "rateLimitExceeded", "Slow down", ErrorKind::Unavailable),
        ("503 Service Unavailable", "backendError", "Backend Error", ErrorKind::Unavailable),
    ] {
        let server = Scripted::start(move |_, _| refusal(status, reason, message));
        let store = server.gcs_config().open().unwrap();
        for error in errors(&store).into_iter().chain([store.delete("config").unwrap_err()]) {
            assert_eq!(error.kind, expected, "{error}: {}", error.source);
            let code = status.split(' ').next().unwrap();
            assert_eq!(error.source.to_string(), format!("{reason}: {message} (HTTP {code})"));
        }
    }
}

#[test]
fn an_object_is_asked_for_that_was_not_there_before() {
    let server = Scripted::start(|request, _| match request.line.contains("ifGenerationMatch=0") {
        true => refusal("412 Precondition Failed", "conditionNotMet", "At least one did not hold."),
        false => refusal("404 Not Found", "notFound", "No such object: bucket/config"),
    });
    let store = server.gcs_config().open().unwrap();
    assert_eq!(kind(store.put("locks/a b", b"x")), ErrorKind::AlreadyExists);
    store.delete("locks/a b").unwrap();
    let upload =
        "POST /upload/storage/v1/b/bucket/o?uploadType=media&fields=size&name=locks%2Fa%20b&ifGenerationMatch=0";
    let object = "/storage/v1/b/bucket/o/locks%2Fa%20b";
    assert_eq!(server.lines(), [&format!("GET {object}?fields=size"), upload, &format!("DELETE {object}")]);
    assert_eq!(server.requests.lock().unwrap()[1].body, b"x");
}

#[test]
fn an_answer_that_is_none_is_an_error() {
    for body in ["<html>welcome</html>", "", "{}", r#"{"kind": "storage#objects", "items": [{"name": "data/1""#] {
        let server = Scripted::start(move |_, _| answer("200 OK", "", body));
        let store = server.gcs_config().open().unwrap();
        for error in [
            store.list("data", &mut |_| {}).unwrap_err(),
            store.put("config", b"x").unwrap_err(),
            store.size_bytes("config").unwrap_err(),
        ] {
            assert_eq!(error.kind, ErrorKind::Other, "{error}: {}", error.source);
            let said = error.source.to_string();
            assert!(said.contains("does this server speak Google Cloud Storage?"), "{body}: {said}");
        }
    }
    let server = Scripted::start(|request, _| match request.line.starts_with("POST") {
        true => answer("200 OK", "", r#"{"size": "3"}"#),
        false => refusal("404 Not Found", "notFound", "No such object"),
    });
    let error = server.gcs_config().open().unwrap().put("config", b"four").unwrap_err();
    assert!(error.source.to_string().ends_with("3 of 4 bytes were stored"), "{}", error.source);
}

#[test]
fn a_listing_is_read_to_its_last_page() {
    let page = |name: &str, next: &str| {
        let items = format!(r#"[{{"name": "data/{name}", "size": "1"}}]"#);
        answer("200 OK", "", &format!(r#"{{"kind": "storage#objects", "items": {items}{next}}}"#))
    };
    let server = Scripted::start(move |request, _| match request.line.contains("pageToken=t%2F2") {
        false => page("1", r#", "nextPageToken": "t/2""#),
        true => page("2", ""),
    });
    let mut names = Vec::new();
    let store = server.gcs_config().open().unwrap();
    store.list("data", &mut |entry| names.push(entry.name)).unwrap();
    assert_eq!(names, ["data/1", "data/2"]);
    assert!(server.lines()[0].contains("&prefix=data%2F"), "{:?}", server.lines());

    let server = Scripted::start(move |_, number| match number {
        0 => page("1", r#", "nextPageToken": "2""#),
        _ => refusal("503 Service Unavailable", "backendError", "Backend Error"),
    });
    assert_eq!(kind(server.gcs_config().open().unwrap().list("data", &mut |_| {})), ErrorKind::Unavailable);
}

#[test]
fn an_answer_cut_short_is_an_error() {
    let server = Scripted::start(move |request, _| match request.head.contains("range: ") {
        false => "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc".to_owned(),
        true => "HTTP/1.1 206 Partial\r\nContent-Length: 10\r\nContent-Range: bytes 0-9/20\r\n\r\nabc".to_owned(),
    });
    let store = server.gcs_config().open().unwrap();
    assert_eq!(kind(store.get("config")), ErrorKind::Unavailable);
    assert_eq!(kind(store.get_range("config", 0, &mut [0; 10])), ErrorKind::Unavailable);
}

#[test]
fn a_service_account_signs_its_tokens() {
    let made = Command::new("openssl").args(["genrsa", "2048"]).output().expect("openssl; run: cargo xtask tools");
    let server = Scripted::start(|_, _| answer("200 OK", "", r#"{"kind": "storage#objects"}"#));
    let key = serde_json::json!({
        "type": "service_account",
        "client_email": "a@b",
        "private_key": String::from_utf8(made.stdout).unwrap(),
        "private_key_id": "id",
        "gcs_base_url": server.url(),
    });
    let config = GcsConfig { credentials: GcsCredentials::Key(key.to_string()), ..server.gcs_config() };
    config.open().unwrap().list("", &mut |_| {}).unwrap();
    let requests = server.requests.lock().unwrap();
    let bearer = requests[0].head.lines().find_map(|line| line.strip_prefix("authorization: bearer ")).unwrap();
    assert_eq!(bearer.split('.').count(), 3, "{bearer}");
}

#[test]
fn settings_that_make_no_sense() {
    for (bucket, prefix) in [("", ""), ("a/b", ""), ("bucket", "/a"), ("bucket", "a/../b")] {
        assert_eq!(kind(GcsConfig::new(bucket, prefix).open()), ErrorKind::InvalidConfig, "{bucket} {prefix}");
    }
    let key = r#"{"type": "service_account", "client_email": "a@b", "private_key": "hush"}"#;
    for (key, expected) in [
        (r#"{"type": "service_account"}"#, "has no `client_email`"),
        ("/path/to/key.json", "GOOGLE_SERVICE_ACCOUNT_JSON_KEY is not JSON"),
        (key, "the `private_key` of the service account is no RSA key"),
        (r#"{"gcs_base_url": "gcs:4443", "disable_oauth": true}"#, "the address `gcs:4443` is not http://HOST"),
    ] {
        let config = GcsConfig { credentials: GcsCredentials::Key(key.into()), ..GcsConfig::new("bucket", "") };
        let error = config.open().unwrap_err();
        assert_eq!((error.kind, error.to_string().as_str()), (ErrorKind::InvalidConfig, "cannot open gs:bucket:/"));
        let said = error.source.to_string();
        assert!(said.contains(expected) && !said.contains("hush"), "{said}");
    }
}
