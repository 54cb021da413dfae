//! What a test needs of a cluster: a namespace of its own, objects written and waited for, commands in pods, faults,
//! and on failure everything that a person would ask for next.

mod api;
mod cluster;
mod components;
mod gate;
mod operator;
mod pods;
mod protect;
mod proxy;
mod published;
mod push;
mod report;
mod repository;
mod storage;
mod wait;

use std::panic::{AssertUnwindSafe, resume_unwind};

use futures_util::FutureExt;
pub(crate) use gate::{Gate, Moment};
pub(crate) use operator::{CHART, IMAGE, is_true};
pub(crate) use pods::container_status;
pub(crate) use protect::{DB, LISTING, REPOSITORY, WEB, WRITE, is};
pub(crate) use proxy::Flow;
pub(crate) use serde_json::Value;
use serde_json::json;

use api::Objects;

/// One test: its namespace and what it may do in there.
pub(crate) struct Test {
    /// The namespace, made for this test alone; objects that name none are written here.
    pub(crate) namespace: String,
    objects: Objects,
}

/// Runs a test beside others, in a namespace of its own. The namespace goes when the test has ended; after a failure
/// it is described first, and stays when `E2E_KEEP=1` says so.
pub(crate) fn test<F: AsyncFnOnce(&Test)>(body: F) {
    let path = std::any::type_name::<F>();
    assert!(!is_alone(path), "a test of the module `alone` begins with test_alone");
    run_named(path, body);
}

/// The same for a test that disturbs the whole cluster: no other test runs there meanwhile.
pub(crate) fn test_alone<F: AsyncFnOnce(&Test, &Alone)>(body: F) {
    let path = std::any::type_name::<F>();
    assert!(is_alone(path), "a test that disturbs others belongs in the module `alone`");
    run_named(path, async |test: &Test| body(test, &Alone(())).await);
}

/// No other test runs: the leave to make faults of the cluster itself.
pub(crate) struct Alone(());

/// Whether a test is one of those that have a cluster for themselves: `cargo xtask test e2e` knows them by their names.
fn is_alone(path: &str) -> bool {
    path.contains("::alone::")
}

fn run_named(path: &str, body: impl AsyncFnOnce(&Test)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let result = runtime.block_on(async {
        let test = Test::begin(path).await;
        let judged = async {
            body(&test).await;
            test.assert_nothing_invalid().await;
        };
        let result = AssertUnwindSafe(judged).catch_unwind().await;
        test.end(result.is_ok()).await;
        result
    });
    if let Err(panic) = result {
        resume_unwind(panic);
    }
}

impl Test {
    async fn begin(path: &str) -> Self {
        let namespace = namespace_for(path);
        let objects = Objects::new(cluster::client().await, &namespace);
        let test = Self { namespace, objects };
        test.apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": test.namespace}}).to_string())
            .await;
        // Pods are refused until a namespace has its account.
        test.wait("ServiceAccount/default", "exists", |account| !account.is_null()).await;
        test
    }

    /// The same in another namespace, which has to exist and stays.
    pub(crate) fn in_namespace(&self, name: &str) -> Self {
        Self { namespace: name.to_owned(), objects: Objects::new(self.objects.client.clone(), name) }
    }

    async fn end(self, ok: bool) {
        if !ok {
            report::print(&self).await;
            if std::env::var_os("E2E_KEEP").is_some_and(|value| value == "1") {
                println!("kept: namespace {}", self.namespace);
                return;
            }
        }
        self.objects.remove_everything().await;
    }
}

/// `e2e::platform::a_job_runs::{{closure}}` gives `a-job-runs-` and five characters that no other test has.
fn namespace_for(path: &str) -> String {
    use std::hash::{BuildHasher, RandomState};
    let name = path.trim_end_matches("::{{closure}}").rsplit("::").next().unwrap_or_default().replace('_', "-");
    let name: String = name.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(50).collect();
    let random = RandomState::new().hash_one(path) & 0xf_ffff;
    format!("{}-{random:05x}", name.trim_matches('-'))
}
