//! A master that dies, freezes, is cut off from its like or is replaced by an operator: what a program notices of it.
//!
//! Times are measured against the moment at which the replica serves, and bounded far above what is expected and far below
//! what it takes to wait for an answer that does not come.

#[path = "support/cluster.rs"]
mod cluster;
#[path = "support/door.rs"]
mod door;
#[path = "support/server.rs"]
mod server;
#[path = "support/session.rs"]
mod session;
#[path = "support/topology.rs"]
mod topology;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use cluster::ask;
use futures_util::future::join_all;
use hatchet_backend_redis::{Options, RedisBackend};
use hatchet_core::backend::{Backend as _, NewRun, RunId};
use session::{Session, root};
use topology::{Guarded, Ring};

const PARTITIONS: u16 = 12;
/// How much later than the replica itself a program may go on.
const SOON: Duration = Duration::from_secs(5);

fn options(url: &str) -> Options {
    Options::from_url(url).expect("a URL").patience(Duration::from_secs(40))
}

/// Starts a run in a partition of this master of the ring; how long that took.
async fn start_on(ring: &Ring, session: &Session, master: usize) -> Duration {
    let began = Instant::now();
    session.start_runs(None, vec![run_on(ring, master)]).await;
    began.elapsed()
}

fn run_on(ring: &Ring, master: usize) -> NewRun {
    let masters: Vec<usize> = (0..PARTITIONS).map(|partition| ring.master_of("hatchet", partition)).collect();
    let is_there = |run: &NewRun| masters[usize::from(run.id.partition() % PARTITIONS)] == master;
    std::iter::repeat_with(root).find(is_there).expect("a run")
}

/// Waits for what blocks, beside all else.
async fn beside<T: Send + 'static>(wait: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(wait).await.expect("it is waited for")
}

async fn on_a_ring() -> (Arc<Ring>, Session) {
    let ring = Arc::new(beside(Ring::start).await);
    let session = Session::with(options(&ring.url_from(0)).partitions(PARTITIONS)).await;
    session.start(20).await;
    (ring, session)
}

/// Runs are started on a master to which something happens: no call takes longer than its replica needs, and a moment.
async fn is_left_in_time(ring: &Arc<Ring>, session: &Session, master: usize, event: impl FnOnce()) {
    event();
    let began = Instant::now();
    let of_election = Arc::clone(ring);
    let election = beside(move || of_election.until_succeeded(master));
    let begun_before = async {
        start_on(ring, session, master).await;
        began.elapsed()
    };
    let (begun_before, election) = tokio::join!(begun_before, election);
    let after = start_on(ring, session, master).await;
    eprintln!(
        "the replica served after {election:?}, a call of before was answered after {begun_before:?}, one of after in {after:?}"
    );
    assert!(begun_before < election + SOON, "{begun_before:?}, and the election took {election:?}");
    assert!(after < SOON, "{after:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_is_cut_off_from_its_like_is_left() {
    let (ring, session) = on_a_ring().await;
    is_left_in_time(&ring, &session, 0, || ring.isolate(0)).await;
    // A program whose URL begins with that master takes the next.
    let began = Instant::now();
    let other = Session::with(options(&ring.url_from(0))).await;
    start_on(&ring, &other, 0).await;
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_is_frozen_is_left() {
    let (ring, session) = on_a_ring().await;
    is_left_in_time(&ring, &session, 0, || ring.nodes[0].signal("-STOP")).await;
    // What begins now asks it first.
    let began = Instant::now();
    let connect = |_| RedisBackend::connect(options(&ring.url_from(0)));
    for backend in join_all((0..7).map(connect)).await {
        backend.expect("the others answer");
    }
    eprintln!("seven programs connected in {:?}", began.elapsed());
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_dies_is_left_by_a_program_that_knew_no_other_node() {
    let ring = Arc::new(beside(Ring::start).await);
    let url = format!("redis://{}?namespace=alone", ring.address(0));
    let namespace = (0..).map(|number| format!("alone{number}")).find(|name| ring.master_of(name, 0) == 0);
    let session = Session::with(options(&url).namespace(namespace.expect("a name"))).await;
    session.start(20).await;
    ring.nodes[0].signal("-9");
    let of_election = Arc::clone(&ring);
    let election = beside(move || of_election.until_succeeded(0)).await;
    let began = Instant::now();
    session.start(20).await;
    eprintln!("the replica served after {election:?}, and a call {:?} later", began.elapsed());
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
}

/// Starts runs one after the other until this is over, and a while longer; which, and the longest standstill.
async fn start_until(
    session: &Session,
    mut next: impl FnMut() -> NewRun,
    over: impl Fn() -> bool,
) -> (Vec<RunId>, Duration) {
    let (mut runs, mut longest, mut left) = (Vec::new(), Duration::ZERO, 50);
    while left > 0 {
        let (began, run) = (Instant::now(), next());
        runs.push(run.id);
        session.start_runs(None, vec![run]).await;
        longest = longest.max(began.elapsed());
        left -= usize::from(over());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    (runs, longest)
}

/// Starts runs while an operator has a replica take the place of the master; how many are lost, and the longest standstill.
async fn planned_failover(replicas: u16) -> (usize, Duration) {
    let world = Arc::new(beside(|| Guarded::start(2, 3)).await);
    let session = Session::with(options(&world.url()).replicas(replicas)).await;
    let mut runs = session.start(20).await;
    let of_switch = Arc::clone(&world);
    let switch = tokio::task::spawn_blocking(move || {
        of_switch.fail_over();
        of_switch.until_succeeded();
        // The old master takes writes until the sentinels turn to it, which is after a while.
        topology::until("the old master follows", || {
            ask(&of_switch.servers[0], &["info", "replication"]).contains("role:slave")
        });
    });
    let (started, longest) = start_until(&session, root, || switch.is_finished()).await;
    switch.await.expect("a failover");
    runs.extend(started);
    let there = session.backend.get(runs.clone()).await.expect("get");
    let lost = there.iter().filter(|view| view.is_none()).count();
    eprintln!("replicas={replicas}: {lost} of {} runs are lost, the longest standstill is {longest:?}", runs.len());
    (lost, longest)
}

/// The same in a cluster, where the master waits for its replica, its only one, before it gives way.
async fn planned_failover_of_a_cluster(replicas: u16) -> (usize, Duration) {
    let ring = Arc::new(beside(Ring::start).await);
    let session = Session::with(options(&ring.url_from(0)).partitions(PARTITIONS).replicas(replicas)).await;
    let mut runs = session.start(20).await;
    let of_switch = Arc::clone(&ring);
    let switch = tokio::task::spawn_blocking(move || {
        let began = Instant::now();
        of_switch.fail_over(0);
        of_switch.until_succeeded(0);
        eprintln!("the replica serves after {:?}", began.elapsed());
        of_switch.until_settled();
        eprintln!("all is well after {:?}", began.elapsed());
    });
    let masters: Vec<usize> = (0..PARTITIONS).map(|partition| ring.master_of("hatchet", partition)).collect();
    let is_there = |run: &NewRun| masters[usize::from(run.id.partition() % PARTITIONS)] == 0;
    let next = || std::iter::repeat_with(root).find(is_there).expect("a run");
    let (started, longest) = start_until(&session, next, || switch.is_finished()).await;
    switch.await.expect("a failover");
    runs.extend(started);
    let there = session.backend.get(runs.clone()).await.expect("get");
    let lost = there.iter().filter(|view| view.is_none()).count();
    eprintln!("replicas={replicas}: {lost} of {} runs are lost, the longest standstill is {longest:?}", runs.len());
    (lost, longest)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_planned_failover_of_a_cluster_loses_nothing_and_is_over_soon() {
    for replicas in [0, 1] {
        let (lost, longest) = planned_failover_of_a_cluster(replicas).await;
        assert_eq!(lost, 0);
        assert!(longest < SOON, "{longest:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_planned_failover_with_confirmed_writes_loses_nothing_and_is_over_soon() {
    let (lost, longest) = planned_failover(1).await;
    assert_eq!(lost, 0);
    assert!(longest < SOON, "{longest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_planned_failover_is_followed_before_the_old_master_is_demoted() {
    let (lost, longest) = planned_failover(0).await;
    assert!(lost < 50, "{lost}");
    assert!(longest < SOON, "{longest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_is_frozen_is_left_with_its_sentinels_one_of_whom_is_frozen_too() {
    let world = Arc::new(beside(|| Guarded::start(2, 3)).await);
    let session = Session::with(options(&world.url())).await;
    session.start(20).await;
    let began = Instant::now();
    world.sentinels[0].signal("-STOP");
    world.servers[0].signal("-STOP");
    let of_election = Arc::clone(&world);
    let election = beside(move || {
        of_election.until_succeeded();
        began.elapsed()
    });
    let call = async {
        session.start(1).await;
        began.elapsed()
    };
    let (call, election) = tokio::join!(call, election);
    eprintln!("the replica served after {election:?}, the call was answered after {call:?}");
    assert!(call < election + SOON, "{call:?}, and the election took {election:?}");
}
