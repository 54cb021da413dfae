//! HTTP below the protocols: what the server answered when it refused, and what went wrong on the way.

use std::error::Error as StdError;
use std::time::Duration;

use ::http::StatusCode;
use ::http::header::CONTENT_RANGE;
use futures_util::StreamExt;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody, HttpService,
    ReqwestConnector,
};
use object_store::{Certificate, ClientOptions};
use serde_json::Value;

use crate::{Error, ErrorKind, Result};

/// How a store speaks HTTP: over TLS unless `is_http`, trusting the authorities of `ca_pem` beside the system's.
pub(crate) fn client_options(
    is_http: bool,
    timeout: Duration,
    ca_pem: Option<&[u8]>,
    location: &str,
) -> Result<ClientOptions> {
    let options = ClientOptions::new()
        .with_allow_http(is_http)
        .with_timeout_disabled() // see `BucketStore::within`: uploads need longer than the rest
        .with_connect_timeout(timeout.min(Duration::from_secs(10)))
        .with_http1_only();
    let Some(pem) = ca_pem else {
        return Ok(options);
    };
    let refuse = |error: Box<dyn StdError + Send + Sync>| {
        Error::new(ErrorKind::InvalidConfig, "read the CA certificates for", location, error)
    };
    let certificates = Certificate::from_pem_bundle(pem).map_err(|error| refuse(error.into()))?;
    if certificates.is_empty() {
        return Err(refuse("they hold no certificate in PEM".into()));
    }
    Ok(certificates.into_iter().fold(options, ClientOptions::with_root_certificate))
}

/// Makes HTTP clients whose refusals can be told apart: `object_store` keeps the status to itself.
#[derive(Debug)]
pub(crate) struct Connector {
    /// Host and port of the store; everything else that is asked is asked for credentials.
    pub(crate) endpoint: String,
    /// The protocol, as a person calls it.
    pub(crate) speaks: &'static str,
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        // An error means that the process has a provider, which then serves us as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let inner = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(Service { inner, endpoint: self.endpoint.clone(), speaks: self.speaks }))
    }
}

#[derive(Debug)]
struct Service {
    inner: HttpClient,
    endpoint: String,
    speaks: &'static str,
}

#[async_trait::async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let host = request.uri().authority().map_or_else(String::new, ToString::to_string);
        let of_store = host == self.endpoint || host.ends_with(&format!(".{}", self.endpoint));
        let no_credentials = |cause: &(dyn StdError + 'static), transient| {
            HttpError::new(HttpErrorKind::Unknown, NoCredentials { host: host.clone(), cause: root(cause), transient })
        };
        let is_listing = of_store && request.uri().query().is_some_and(|query| query.contains("list-type=2"));
        match self.inner.execute(request).await {
            Ok(answer) if answer.status().is_success() && is_listing => whole_listing(answer, self.speaks).await,
            Ok(mut answer) if answer.status().is_success() => {
                // rclone answers with a part and calls it the whole.
                if answer.headers().contains_key(CONTENT_RANGE) {
                    *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
                }
                Ok(answer)
            }
            Ok(answer) => {
                let refused = Refused::read(answer).await;
                Err(match of_store {
                    true => HttpError::new(HttpErrorKind::Unknown, refused),
                    false => no_credentials(&refused, refused.kind() == ErrorKind::Unavailable),
                })
            }
            // Without a role, nobody answers at the address of a machine's metadata.
            Err(error) if !of_store => Err(no_credentials(&error, false)),
            Err(error) => Err(error),
        }
    }
}

/// Passes on a page of a listing that is one from its first to its last byte. The XML reader above would
/// take a cut-off page, an error page or a welcome page for an empty bucket.
async fn whole_listing(answer: HttpResponse, speaks: &'static str) -> Result<HttpResponse, HttpError> {
    let (head, body) = answer.into_parts();
    let page = read_page(body).await?;
    let text = String::from_utf8_lossy(&page);
    let has = |what: &str| text.contains(what);
    let is_whole = has("<ListBucketResult") && text.trim_end().ends_with("</ListBucketResult>");
    let goes_on = has("<IsTruncated>true</IsTruncated>");
    match is_whole && (!goes_on || has("<NextContinuationToken>")) {
        true => Ok(HttpResponse::from_parts(head, page.into())),
        false => Err(HttpError::new(HttpErrorKind::Decode, NotAListing { speaks })),
    }
}

/// The whole body of a page of a listing; of one that is too large to be a page, no more than shows that.
pub(crate) async fn read_page(body: HttpResponseBody) -> Result<Vec<u8>, HttpError> {
    /// A page of 1,000 keys, each of 1,024 bytes that may all be escaped, is smaller.
    const PAGE_BYTES_MAX: usize = 16 << 20;
    let mut chunks = body.bytes_stream();
    let mut page = Vec::new();
    while let Some(chunk) = chunks.next().await
        && page.len() <= PAGE_BYTES_MAX
    {
        page.extend_from_slice(&chunk?);
    }
    Ok(page)
}

/// What came in answer to a question for a listing is none.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NotAListing {
    /// The protocol that the server was thought to speak.
    pub(crate) speaks: &'static str,
}

impl std::fmt::Display for NotAListing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the answer is not a whole listing of a bucket; does this server speak {}?", self.speaks)
    }
}

impl StdError for NotAListing {}

/// The server said no.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    status: u16,
    /// S3's name for the reason, for example `AccessDenied`; HTTP's where there is none.
    code: String,
    message: String,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { status, code, message } = self;
        match message.as_str() {
            "" => write!(f, "{code} (HTTP {status})"),
            message => write!(f, "{code}: {message} (HTTP {status})"),
        }
    }
}

impl StdError for Refused {}

impl Refused {
    /// Reasons are short; what is longer than this is not one.
    const BODY_BYTES_MAX: usize = 64 << 10;

    async fn read(answer: HttpResponse) -> Self {
        let status = answer.status();
        let mut chunks = answer.into_body().bytes_stream();
        let mut body = Vec::new();
        while let Some(Ok(chunk)) = chunks.next().await
            && body.len() < Self::BODY_BYTES_MAX
        {
            body.extend_from_slice(&chunk);
        }
        let reason = status.canonical_reason().unwrap_or("refused");
        Self::parse(status.as_u16(), reason, &String::from_utf8_lossy(&body))
    }

    /// From S3's XML, from Google's JSON, or from what is left: the status alone.
    fn parse(status: u16, reason: &str, body: &str) -> Self {
        let field = |tag: &str| {
            let (_, rest) = body.split_once(&format!("<{tag}>"))?;
            let (value, _) = rest.split_once(&format!("</{tag}>"))?;
            let value = value.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"");
            Some(value.replace("&apos;", "'").replace("&#39;", "'").replace("&amp;", "&"))
        };
        let json: Value = serde_json::from_str(body).unwrap_or_default();
        let error = &json["error"];
        let text = |value: &Value| value.as_str().map(str::to_owned);
        // Those who hand out tokens write `{"error": "invalid_grant", "error_description": "…"}`.
        let code = text(error).or_else(|| text(&error["errors"][0]["reason"]));
        let message = text(&error["message"]).or_else(|| text(&json["error_description"]));
        Self {
            status,
            code: code.or_else(|| field("Code")).unwrap_or_else(|| reason.to_owned()),
            message: message.or_else(|| field("Message")).unwrap_or_default(),
        }
    }

    fn kind(&self) -> ErrorKind {
        match (self.status, self.code.as_str()) {
            (507, _) | (_, "XMinioStorageFull" | "QuotaExceeded" | "InsufficientCapacity") => ErrorKind::Full,
            (_, "AuthorizationHeaderMalformed" | "InvalidBucketName" | "IllegalLocationConstraintException")
            | (301 | 302 | 307 | 308, _) => ErrorKind::InvalidConfig,
            (403, "rateLimitExceeded" | "userRateLimitExceeded") => ErrorKind::Unavailable,
            (401 | 403, _) | (_, "ExpiredToken" | "InvalidToken" | "InvalidAccessKeyId") => ErrorKind::PermissionDenied,
            (404, _) => ErrorKind::NotFound,
            (412, _) | (_, "BucketAlreadyOwnedByYou" | "BucketAlreadyExists" | "conflict") => ErrorKind::AlreadyExists,
            (416, _) => ErrorKind::Truncated,
            (501, _) => ErrorKind::Other,
            // Two writers at once: S3 asks for another try.
            (_, "ConditionalRequestConflict" | "OperationAborted" | "RequestTimeout" | "SlowDown")
            | (408 | 429 | 500.., _) => ErrorKind::Unavailable,
            _ => ErrorKind::Other,
        }
    }
}

/// No key was found, and the service that could hand one out did not.
#[derive(Debug, Clone)]
struct NoCredentials {
    host: String,
    cause: String,
    transient: bool,
}

impl std::fmt::Display for NoCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { host, cause, transient: _ } = self;
        write!(f, "no credentials: no key is set, and {host} gives none: {cause}")
    }
}

impl StdError for NoCredentials {}

/// The connection failed.
#[derive(Debug)]
struct Unreachable(String);

impl std::fmt::Display for Unreachable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the server cannot be reached: {}", self.0)
    }
}

impl StdError for Unreachable {}

/// The kind of a failure and its cause, without the layers between that repeat it.
pub(crate) fn explain(error: object_store::Error) -> (ErrorKind, Box<dyn StdError + Send + Sync>) {
    for link in links(&error) {
        if let Some(refused) = link.downcast_ref::<Refused>() {
            return (refused.kind(), Box::new(refused.clone()));
        }
        if let Some(missing) = link.downcast_ref::<NoCredentials>() {
            let kind = match missing.transient {
                true => ErrorKind::Unavailable,
                false => ErrorKind::PermissionDenied,
            };
            return (kind, Box::new(missing.clone()));
        }
    }
    if let Some(not) = links(&error).find_map(|link| link.downcast_ref::<NotAListing>()) {
        return (ErrorKind::Other, Box::new(*not));
    }
    if links(&error).any(|link| link.is::<HttpError>()) {
        let kind = match links(&error).any(is_tls) {
            // Another try meets the same certificate.
            true => ErrorKind::InvalidConfig,
            false => ErrorKind::Unavailable,
        };
        return (kind, Box::new(Unreachable(root(&error))));
    }
    (ErrorKind::Other, Box::new(error))
}

/// `io::Error` hides the error that it carries behind that one's own source.
fn is_tls(link: &(dyn StdError + 'static)) -> bool {
    let carried = link.downcast_ref::<std::io::Error>().and_then(|error| error.get_ref());
    link.is::<rustls::Error>() || carried.is_some_and(|inner| is_tls(inner))
}

/// The error and its causes, the first cause last.
fn links<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let link = next?;
        next = link.source();
        Some(link)
    })
}

pub(crate) fn root(error: &(dyn StdError + 'static)) -> String {
    links(error).last().map_or_else(String::new, ToString::to_string)
}

pub(crate) fn is_not_implemented(error: &Error) -> bool {
    refused(error).is_some_and(|refused| refused.status == 501 || refused.code == "NotImplemented")
}

pub(crate) fn is_bucket_missing(error: &Error) -> bool {
    // Google says `notFound` of buckets and objects alike.
    let says = |refused: &Refused| refused.code == "NoSuchBucket" || refused.message.contains("bucket does not exist");
    refused(error).is_some_and(says)
}

fn refused(error: &Error) -> Option<&Refused> {
    error.source.downcast_ref()
}

/// Sends a request.
pub(crate) async fn execute(
    client: &HttpClient,
    store: &'static str,
    request: ::http::Result<HttpRequest>,
) -> object_store::Result<HttpResponse> {
    let failed = |source: Box<dyn StdError + Send + Sync>| object_store::Error::Generic { store, source };
    client.execute(request.map_err(|error| failed(error.into()))?).await.map_err(|error| failed(error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_by_kind() {
        let body =
            |code: &str| format!("<?xml?><Error><Code>{code}</Code><Message>a &lt;b&gt; &amp; c</Message></Error>");
        for (status, code, expected) in [
            (403, "AccessDenied", ErrorKind::PermissionDenied),
            (403, "SignatureDoesNotMatch", ErrorKind::PermissionDenied),
            (400, "ExpiredToken", ErrorKind::PermissionDenied),
            (404, "NoSuchKey", ErrorKind::NotFound),
            (404, "NoSuchBucket", ErrorKind::NotFound),
            (412, "PreconditionFailed", ErrorKind::AlreadyExists),
            (409, "ConditionalRequestConflict", ErrorKind::Unavailable),
            (416, "InvalidRange", ErrorKind::Truncated),
            (429, "TooManyRequests", ErrorKind::Unavailable),
            (500, "InternalError", ErrorKind::Unavailable),
            (503, "SlowDown", ErrorKind::Unavailable),
            (501, "NotImplemented", ErrorKind::Other),
            (507, "XMinioStorageFull", ErrorKind::Full),
            (301, "PermanentRedirect", ErrorKind::InvalidConfig),
            (400, "AuthorizationHeaderMalformed", ErrorKind::InvalidConfig),
            (400, "MalformedXML", ErrorKind::Other),
            (401, "authError", ErrorKind::PermissionDenied),
            (403, "forbidden", ErrorKind::PermissionDenied),
            (403, "rateLimitExceeded", ErrorKind::Unavailable),
            (404, "notFound", ErrorKind::NotFound),
            (409, "conflict", ErrorKind::AlreadyExists),
            (412, "conditionNotMet", ErrorKind::AlreadyExists),
        ] {
            let refused = Refused::parse(status, "", &body(code));
            assert_eq!(refused.kind(), expected, "{refused}");
            assert_eq!(refused.to_string(), format!("{code}: a <b> & c (HTTP {status})"));
        }
        assert_eq!(Refused::parse(403, "Forbidden", "").to_string(), "Forbidden (HTTP 403)");
        for (status, json, expected) in [
            (
                404,
                r#"{"error": {"code": 404, "message": "It is not there.", "errors": [{"reason": "notFound"}]}}"#,
                "notFound: It is not there. (HTTP 404)",
            ),
            (
                400,
                r#"{"error": "invalid_grant", "error_description": "Invalid JWT Signature."}"#,
                "invalid_grant: Invalid JWT Signature. (HTTP 400)",
            ),
            (404, "Not Found", "reason (HTTP 404)"),
        ] {
            assert_eq!(Refused::parse(status, "reason", json).to_string(), expected);
        }
    }
}
