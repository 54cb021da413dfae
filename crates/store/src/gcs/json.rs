//! The part of Google Cloud Storage's JSON API that a [`BucketStore`](crate::BucketStore) needs.
//!
//! An answer is taken for what it should be only when it says so itself: a page of a listing names its kind, a stored
//! object its size.

use ::http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RANGE};
use ::http::{HeaderMap, Method, StatusCode};
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};
use object_store::client::{HttpClient, HttpError, HttpErrorKind, HttpRequestBody, HttpResponse};
use object_store::gcp::GcpCredentialProvider;
use object_store::path::Path;
use object_store::{
    Attributes, CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use serde_json::{Value, json};

use crate::bucket::transport::{self, NotAListing};

/// The protocol, as a person calls it.
pub(super) const SPEAKS: &str = "Google Cloud Storage";

/// A bucket.
#[derive(Debug, Clone)]
pub(super) struct JsonApi {
    endpoint: String,
    bucket: String,
    http: HttpClient,
    tokens: Option<GcpCredentialProvider>,
}

impl JsonApi {
    pub(super) fn new(endpoint: &str, bucket: &str, http: HttpClient, tokens: Option<GcpCredentialProvider>) -> Self {
        Self { endpoint: endpoint.to_owned(), bucket: bucket.to_owned(), http, tokens }
    }

    /// Whether this server answers.
    pub(super) fn is_of(&self, endpoint: &str) -> bool {
        self.endpoint == endpoint
    }

    /// Makes the bucket.
    pub(super) async fn make_bucket(&self, project: &str) -> Result<()> {
        let url = format!("{}/storage/v1/b?project={}", self.endpoint, encoded(project));
        let body = json!({"name": self.bucket}).to_string().into_bytes();
        self.ask(Method::POST, &url, &[(CONTENT_TYPE, "application/json")], body.into()).await.map(drop)
    }

    /// The address of the bucket's objects, below `root`.
    fn objects(&self, root: &str) -> String {
        format!("{}{root}/storage/v1/b/{}/o", self.endpoint, encoded(&self.bucket))
    }

    fn object(&self, path: &Path) -> String {
        format!("{}/{}", self.objects(""), encoded(path.as_ref()))
    }

    async fn ask(
        &self,
        method: Method,
        url: &str,
        headers: &[(::http::HeaderName, &str)],
        body: HttpRequestBody,
    ) -> Result<HttpResponse> {
        let is_upload = method == Method::POST;
        let mut request = ::http::Request::builder().method(method).uri(url);
        if is_upload {
            request = request.header(CONTENT_LENGTH, body.content_length());
        }
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        if let Some(tokens) = &self.tokens {
            let bearer = &tokens.get_credential().await?.bearer;
            request = request.header(AUTHORIZATION, format!("Bearer {bearer}"));
        }
        transport::execute(&self.http, SPEAKS, request.body(body)).await
    }

    /// One page of a listing, and the token of the next.
    async fn page(&self, folder: &str, token: &str) -> Result<(Vec<ObjectMeta>, Option<String>)> {
        let mut url = format!("{}?fields=kind,nextPageToken,items(name,size)", self.objects(""));
        for (key, value) in
            [("prefix", folder), ("pageToken", token)].into_iter().filter(|(_, value)| !value.is_empty())
        {
            url = format!("{url}&{key}={}", encoded(value));
        }
        let answer = self.ask(Method::GET, &url, &[], HttpRequestBody::empty()).await?;
        let body = transport::read_page(answer.into_body()).await.map_err(failed)?;
        page(&body).ok_or_else(|| failed(HttpError::new(HttpErrorKind::Decode, NotAListing { speaks: SPEAKS })))
    }

    async fn size(&self, path: &Path) -> Result<u64> {
        let url = format!("{}?fields=size", self.object(path));
        let answer = self.ask(Method::GET, &url, &[], HttpRequestBody::empty()).await?;
        let body = transport::read_page(answer.into_body()).await.map_err(failed)?;
        size(&body).ok_or_else(not_about_an_object)
    }
}

/// Entries of a page that is one from its first to its last byte.
fn page(body: &[u8]) -> Option<(Vec<ObjectMeta>, Option<String>)> {
    let page: Value = serde_json::from_slice(body).ok()?;
    if page["kind"] != "storage#objects" {
        return None;
    }
    let no_items = Vec::new();
    let items = match &page["items"] {
        Value::Null => &no_items,
        items => items.as_array()?,
    };
    let entries = items
        .iter()
        .map(|item| Some(meta(Path::parse(item["name"].as_str()?).ok(), item["size"].as_str()?.parse().ok()?)))
        .collect::<Option<Vec<_>>>()?;
    let next = match &page["nextPageToken"] {
        Value::Null => None,
        token => Some(token.as_str()?.to_owned()).filter(|token| !token.is_empty()),
    };
    // Names that are no path are nobody's here.
    Some((entries.into_iter().flatten().collect(), next))
}

/// Numbers of 64 bits are texts in Google's JSON.
fn size(body: &[u8]) -> Option<u64> {
    serde_json::from_slice::<Value>(body).ok()?["size"].as_str()?.parse().ok()
}

fn meta(location: Option<Path>, size: u64) -> Option<ObjectMeta> {
    Some(ObjectMeta { location: location?, last_modified: Default::default(), size, e_tag: None, version: None })
}

/// Every byte but letters, digits and a few signs as `%XX`.
fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
            byte => format!("%{byte:02X}"),
        })
        .collect()
}

fn failed(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Generic { store: SPEAKS, source: source.into() }
}

fn not_about_an_object() -> Error {
    failed("the answer does not tell of an object; does this server speak Google Cloud Storage?")
}

fn unused<T>(operation: &str) -> Result<T> {
    Err(Error::NotImplemented { operation: operation.to_owned(), implementer: SPEAKS.to_owned() })
}

/// The bytes that an answer carries, and how large the whole object is.
fn range(status: StatusCode, headers: &HeaderMap) -> Option<(std::ops::Range<u64>, u64)> {
    let header = |name| headers.get(name)?.to_str().ok();
    if status != StatusCode::PARTIAL_CONTENT {
        let size = header(&CONTENT_LENGTH)?.parse().ok()?;
        return Some((0..size, size));
    }
    let (range, size) = header(&CONTENT_RANGE)?.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    Some((first.parse().ok()?..last.parse::<u64>().ok()?.checked_add(1)?, size.parse().ok()?))
}

impl std::fmt::Display for JsonApi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{SPEAKS}, bucket {}", self.bucket)
    }
}

#[async_trait::async_trait]
impl ObjectStore for JsonApi {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let length = payload.content_length() as u64;
        let mut url =
            format!("{}?uploadType=media&fields=size&name={}", self.objects("/upload"), encoded(path.as_ref()));
        if options.mode == PutMode::Create {
            url.push_str("&ifGenerationMatch=0");
        }
        let headers = [(CONTENT_TYPE, "application/octet-stream")];
        let answer = self.ask(Method::POST, &url, &headers, payload.into()).await?;
        let body = transport::read_page(answer.into_body()).await.map_err(failed)?;
        match size(&body) {
            Some(stored) if stored == length => {
                Ok(PutResult { e_tag: None, version: None, extensions: Default::default() })
            }
            Some(stored) => Err(failed(format!("{stored} of {length} bytes were stored"))),
            None => Err(not_about_an_object()),
        }
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        let whole = |size| meta(Some(path.clone()), size).ok_or_else(not_about_an_object);
        let (payload, meta, range) = if options.head {
            let size = self.size(path).await?;
            (stream::empty().boxed(), whole(size)?, 0..size)
        } else {
            let wanted = options.range.as_ref().map(ToString::to_string);
            let headers: Vec<_> = wanted.iter().map(|range| (RANGE, range.as_str())).collect();
            let url = format!("{}?alt=media", self.object(path));
            let answer = self.ask(Method::GET, &url, &headers, HttpRequestBody::empty()).await?;
            let (range, size) = range(answer.status(), answer.headers()).ok_or_else(not_about_an_object)?;
            (answer.into_body().bytes_stream().map_err(failed).boxed(), whole(size)?, range)
        };
        let payload = GetResultPayload::Stream(payload);
        Ok(GetResult { payload, meta, range, attributes: Attributes::new(), extensions: Default::default() })
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let api = self.clone();
        paths
            .and_then(move |path| {
                let api = api.clone();
                async move {
                    let url = api.object(&path);
                    api.ask(Method::DELETE, &url, &[], HttpRequestBody::empty()).await.map(|_| path)
                }
            })
            .boxed()
    }

    fn list(&self, folder: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let folder = folder.map(ToString::to_string).filter(|folder| !folder.is_empty());
        let folder = folder.map_or_else(String::new, |folder| format!("{folder}/"));
        let api = self.clone();
        let pages = stream::try_unfold(Some(String::new()), move |token| {
            let (api, folder) = (api.clone(), folder.clone());
            async move {
                let Some(token) = token else { return Ok::<_, Error>(None) };
                let (entries, next) = api.page(&folder, &token).await?;
                Ok(Some((stream::iter(entries.into_iter().map(Ok)), next)))
            }
        });
        pages.try_flatten().boxed()
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        unused("put_multipart_opts")
    }

    async fn list_with_delimiter(&self, _: Option<&Path>) -> Result<ListResult> {
        unused("list_with_delimiter")
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        unused("copy_opts")
    }
}
