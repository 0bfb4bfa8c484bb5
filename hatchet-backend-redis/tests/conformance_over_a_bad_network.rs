//! The conformance suite of the contract, over a network that delivers late, in halves, or not at all.
//!
//! A call is repeated by the backend where its reply was lost, and must have the answer then that it would have had. With
//! some calls that cannot be: a commit that was applied is refused when it is made again, and a claim is given again in
//! any order. Of those only the way to the server is bad here; `lost_replies.rs` and `bad_network.rs` have the other one.
//! Pauses are never broken here: a repeated call that ends one may say that there was one in any case. Neither is the
//! connection that waits for events: events would be late by more than the suite takes for
//! silence.
//!
//! `HATCHET_TEST_SEED` is the seed of the first case.

#[path = "support/proxy.rs"]
mod proxy;
#[path = "support/random.rs"]
mod random;
#[path = "support/server.rs"]
mod server;

use std::{
    sync::{
        LazyLock, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use hatchet_backend_redis::{Options, RedisBackend};
use hatchet_core::conformance::{self, Fixture, Settings};
use proxy::{Losable, Proxy};
use server::Server;
use tokio::runtime::Runtime;

static SERVER: LazyLock<Server> = LazyLock::new(|| Server::start(&[]));
/// What the proxies run on, since a case may block the runtime that it is in.
static NETWORK: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("a runtime"));
/// How many connections were broken.
static BROKEN: AtomicU64 = AtomicU64::new(0);

/// Most of a case is waiting.
const CASES_AT_ONCE: usize = 24;

fn losable(command: &str) -> Losable {
    match command.split('_').next().unwrap_or_default() {
        "BLPOP" | "pause" => Losable::Nothing,
        "start" | "claim" | "commit" | "record" | "cancel" | "remove" | "sweep" => Losable::Request,
        _ => Losable::Both,
    }
}

/// The same for cases that make a commit twice themselves. The store cannot tell them from a backend that does so since the
/// request was lost, and may answer that the commit is applied.
fn losable_but_commits(command: &str) -> Losable {
    if command.starts_with("commit_") { Losable::Nothing } else { losable(command) }
}

/// Counts what a proxy has broken when its case is over.
struct Counted(Proxy);

impl Drop for Counted {
    fn drop(&mut self) {
        BROKEN.fetch_add(self.0.broken(), Ordering::Relaxed);
    }
}

/// A backend behind a proxy of its own, in a namespace that nothing else uses.
async fn behind_a_proxy(case: &str, settings: Settings, seed: u64) -> Fixture {
    let proxy = NETWORK.spawn(async { Proxy::start(&SERVER.url()).await }).await.expect("a proxy");
    proxy.lose(seed, if case.starts_with("repetition::") { losable_but_commits } else { losable });
    let options = Options::from_url(&proxy.url()).expect("a URL").namespace(format!("case{seed}"));
    let options = options.retention(settings.retention).patience(Duration::from_secs(60));
    Fixture::new(RedisBackend::connect(options).await.expect("the server fits")).with_guard(Counted(proxy))
}

/// Runs a case in a thread of its name, so that what it says when it fails names it.
fn holds(case: &str, seed: u64) -> bool {
    let name = case.to_owned();
    let run = move || conformance::run(&name, async |settings| behind_a_proxy(&name, settings, seed).await);
    thread::Builder::new().name(case.to_owned()).spawn(run).expect("a thread").join().is_ok()
}

#[test]
fn the_contract_holds_over_a_bad_network() {
    let first: u64 = std::env::var("HATCHET_TEST_SEED").map_or(1, |seed| seed.parse().expect("a number"));
    let cases: Vec<String> = conformance::cases().iter().map(|case| format!("{case:?}")).collect();
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            let seed = first + cases.iter().position(|other| other == case).unwrap_or_default() as u64;
            if !holds(case, seed) {
                failed.lock().expect("a list").push((case.clone(), seed));
            }
        }
    };
    thread::scope(|scope| (0..CASES_AT_ONCE).for_each(|_| drop(scope.spawn(work))));
    let failed = failed.into_inner().expect("a list");
    assert!(failed.is_empty(), "cases that fail, with their seeds: {failed:#?}");
    let broken = BROKEN.load(Ordering::Relaxed);
    assert!(broken > 100, "it misbehaved only {broken} times");
}
