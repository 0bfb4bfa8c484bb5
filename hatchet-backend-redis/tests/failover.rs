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
    let lost = lost_of(&session, &runs).await;
    eprintln!("replicas={replicas}: {lost} of {} runs are lost, the longest standstill is {longest:?}", runs.len());
    (lost, longest)
}

/// How many of these runs the servers have forgotten.
async fn lost_of(session: &Session, runs: &[RunId]) -> usize {
    let there = session.backend.get(runs.to_vec()).await.expect("get");
    there.iter().filter(|view| view.is_none()).count()
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
    let lost = lost_of(&session, &runs).await;
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
async fn a_planned_failover_with_one_replica_is_over_when_the_old_master_follows() {
    // Sentinels leave the old master alone for about ten seconds before they have it follow the new one, which it then does at once.
    // Until then nobody confirms what the new one has. An operator can be quicker.
    let mut stood_still = Vec::new();
    for by_operator in [false, true] {
        let world = Arc::new(beside(|| Guarded::start(1, 3)).await);
        let session = Session::with(options(&world.url()).replicas(1)).await;
        let of_switch = Arc::clone(&world);
        let switch = tokio::task::spawn_blocking(move || {
            of_switch.fail_over();
            of_switch.until_succeeded();
            let began = Instant::now();
            if by_operator {
                of_switch.tell_to_follow(0, 1);
            }
            let says = |at: usize, what| ask(&of_switch.servers[at], &["info", "replication"]).contains(what);
            topology::until("the old master is a replica", || says(0, "role:slave"));
            let told = began.elapsed();
            topology::until("the old master has what the new one has", || says(1, "state=online"));
            (told, began.elapsed())
        });
        let (runs, longest) = start_until(&session, root, || switch.is_finished()).await;
        let (told, follows) = switch.await.expect("a failover");
        let there = session.backend.get(runs).await.expect("get");
        assert!(there.iter().all(Option::is_some), "nothing that was confirmed is lost");
        eprintln!(
            "told by an operator: {by_operator}; the old master followed the new one after {told:?} and had all after {follows:?}, the \
             longest standstill is {longest:?}"
        );
        assert!(longest < follows + SOON, "{longest:?} and {follows:?}");
        stood_still.push(longest);
    }
    assert!(stood_still[1] < SOON, "{stood_still:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_without_enough_replicas_refuses_and_is_gone_on_with_when_they_are_back() {
    let (ring, session) = on_a_ring().await;
    for settings in [["min-replicas-max-lag", "1"], ["min-replicas-to-write", "1"]] {
        ask(&ring.nodes[0], &["config", "set", settings[0], settings[1]]);
    }
    ring.hold_peers(0, true);
    let refuses = || ask(&ring.nodes[0], &["info", "errorstats"]).contains("errorstat_NOREPLICAS");
    let (of_call, of_wait) = (Arc::clone(&ring), Arc::clone(&ring));
    let call = async {
        let mut longest = Duration::ZERO;
        while !refuses() {
            longest = longest.max(start_on(&of_call, &session, 0).await);
        }
        // The others do not notice.
        let others = start_on(&of_call, &session, 1).await + start_on(&of_call, &session, 2).await;
        (longest.max(start_on(&of_call, &session, 0).await), others)
    };
    let replicas_return = async {
        beside(move || {
            topology::until("it refuses", || ask(&of_wait.nodes[0], &["info", "errorstats"]).contains("NOREPLICAS"));
            std::thread::sleep(Duration::from_secs(1));
            of_wait.hold_peers(0, false);
            Instant::now()
        })
        .await
    };
    let ((longest, others), back) = tokio::join!(call, replicas_return);
    eprintln!(
        "a call waited {longest:?}, over {:?} after the replica was back; others took {others:?}",
        back.elapsed()
    );
    assert!(others < SOON && back.elapsed() < SOON, "{others:?}, {:?}", back.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_that_runs_for_seconds_holds_up_the_partitions_of_its_node_alone() {
    const LONG: Duration = Duration::from_secs(3);
    let (ring, session) = on_a_ring().await;
    ask(&ring.nodes[0], &["config", "set", "busy-reply-threshold", "100"]);
    let of_script = Arc::clone(&ring);
    let script = tokio::task::spawn_blocking(move || {
        let text = format!(
            "local t = redis.call('time')[1] while redis.call('time')[1] - t < {} do end return 1",
            LONG.as_secs() + 1
        );
        ask(&of_script.nodes[0], &["eval", &text, "0"]);
    });
    tokio::time::sleep(LONG / 6).await;
    let others = start_on(&ring, &session, 1).await + start_on(&ring, &session, 2).await;
    let one = start_on(&ring, &session, 0).await;
    eprintln!("while a script ran on one node, calls to the others took {others:?}, and one to that {one:?}");
    assert!(others < LONG / 2, "{others:?}");
    assert!(one < LONG + SOON, "{one:?}");
    script.await.expect("a script");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_planned_failover_is_followed_before_the_old_master_is_demoted() {
    let (lost, longest) = planned_failover(0).await;
    assert!(lost < 50, "{lost}");
    assert!(longest < SOON, "{longest:?}");
}

/// Has this happen to a master, and perhaps to a sentinel: a call is answered soon after another one serves.
async fn is_left_behind_sentinels(of_sentinel: Option<&str>, of_master: &str) {
    let world = Arc::new(beside(|| Guarded::start(2, 3)).await);
    let session = Session::with(options(&world.url())).await;
    session.start(20).await;
    let began = Instant::now();
    of_sentinel.into_iter().for_each(|signal| world.sentinels[0].signal(signal));
    world.servers[0].signal(of_master);
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
    eprintln!("{of_master}: the replica served after {election:?}, the call was answered after {call:?}");
    assert!(call < election + SOON, "{call:?}, and the election took {election:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_is_frozen_is_left_with_its_sentinels_one_of_whom_is_frozen_too() {
    is_left_behind_sentinels(Some("-STOP"), "-STOP").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_dies_is_left_with_its_sentinels() {
    is_left_behind_sentinels(None, "-9").await;
}
