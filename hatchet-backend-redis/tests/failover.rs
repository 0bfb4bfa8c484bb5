//! A master that dies, freezes, is cut off from its like or is replaced by an operator: what a program notices of it.
//!
//! What is measured is the longest standstill of somebody who starts runs all the time, from before the event until after it. Where the
//! servers elect a successor, how long that takes is theirs, and much longer on a busy machine: so it is measured, too, and the bounds
//! count from then.

#[path = "support/cluster.rs"]
mod cluster;
#[path = "support/door.rs"]
mod door;
#[path = "support/operator.rs"]
mod operator;
#[path = "support/server.rs"]
mod server;
#[path = "support/session.rs"]
mod session;
#[path = "support/topology.rs"]
mod topology;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use cluster::ask;
use futures_util::future::join_all;
use hatchet_backend_redis::{Options, RedisBackend};
use hatchet_core::backend::{Backend as _, Event, NewRun, RunId};
use session::{Session, root};
use topology::{Guarded, Ring};

const PARTITIONS: u16 = 12;
/// How long a program stands still that connects, or that goes on with a replica which serves.
const SOON: Duration = Duration::from_secs(2);
/// How long it stands still where an operator has a replica take the place of its master.
const PLANNED: Duration = Duration::from_secs(2);
/// How long it stands still if a master dies: all in all, and if the replica itself is slow, after that serves.
const DEATH: Duration = Duration::from_secs(4);
const AFTER_DEATH: Duration = Duration::from_secs(1);
/// How long a process may be silent whose server was replaced, and how much longer until another one has what it held.
const SILENCE: Duration = Duration::from_secs(15);
const AFTER_SILENCE: Duration = Duration::from_secs(5);
/// How long calls to the other masters take meanwhile.
const UNDISTURBED: Duration = Duration::from_secs(1);

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

/// Something happens to the first master. Runs are started on each all the while; how long it took until the replica served, and the
/// longest standstill on the first.
async fn longest_standstill(ring: &Arc<Ring>, session: &Session, event: impl FnOnce()) -> (Duration, Duration) {
    let is_over = AtomicBool::new(false);
    // A call is under way when it happens.
    let election = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        event();
        let of_election = Arc::clone(ring);
        let election = beside(move || of_election.until_succeeded(0)).await;
        is_over.store(true, Ordering::SeqCst);
        election
    };
    let masters: Vec<usize> = (0..PARTITIONS).map(|partition| ring.master_of("hatchet", partition)).collect();
    // Else all masters refuse calls from when one is taken for dead until its replica serves.
    ring.nodes.iter().for_each(|node| drop(ask(node, &["config", "set", "cluster-require-full-coverage", "no"])));
    let (masters, is_over) = (&masters, &is_over);
    let on = |master: usize| {
        let is_there = move |run: &NewRun| masters[usize::from(run.id.partition() % PARTITIONS)] == master;
        let next = move || std::iter::repeat_with(root).find(is_there).expect("a run");
        start_until(session, next, || is_over.load(Ordering::SeqCst))
    };
    let (election, (_, first), (_, second), (_, third)) = tokio::join!(election, on(0), on(1), on(2));
    let others = second.max(third);
    eprintln!(
        "the replica served after {election:?}, calls stood still for {first:?}, those to other masters for {others:?}"
    );
    assert!(others < UNDISTURBED, "{others:?}");
    (election, first)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_is_cut_off_from_its_like_is_left() {
    let (ring, session) = on_a_ring().await;
    let (election, longest) = longest_standstill(&ring, &session, || ring.isolate(0)).await;
    assert!(longest < election + SOON, "{longest:?}");
    // A program whose URL begins with that master takes the next.
    let began = Instant::now();
    let other = Session::with(options(&ring.url_from(0))).await;
    start_on(&ring, &other, 0).await;
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_is_frozen_is_left() {
    let (ring, session) = on_a_ring().await;
    let (election, longest) = longest_standstill(&ring, &session, || ring.nodes[0].signal("-STOP")).await;
    assert!(longest < election + SOON, "{longest:?}");
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
async fn a_master_that_dies_is_left() {
    let (ring, session) = on_a_ring().await;
    let (election, longest) = longest_standstill(&ring, &session, || ring.nodes[0].signal("-9")).await;
    assert!(longest < DEATH.max(election + AFTER_DEATH), "{longest:?}");
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

/// Whether the servers of all partitions know by which connection a session lives.
async fn is_known(ring: &Ring, session: &Session) -> bool {
    for partition in 0..PARTITIONS {
        let node = &ring.nodes[ring.master_of("hatchet", partition)];
        let mut connection = operator::connect(&node.url()).await;
        let key = [format!("{{hatchet:{partition}}}:h:").as_bytes(), &session.id.0.to_be_bytes()].concat();
        let known: bool = redis::cmd("HEXISTS").arg(key).arg("client").query_async(&mut connection).await.unwrap();
        if !known {
            return false;
        }
    }
    true
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_process_held_that_died_with_a_master_is_taken_up_long_before_its_lease_ends() {
    let (ring, survivor) = on_a_ring().await;
    survivor.start_runs(None, vec![run_on(&ring, 0)]).await;
    let of_process = Arc::clone(&ring);
    // What a process is to the servers: its connections end with its runtime.
    let process = std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(async {
            let session = Session::with(options(&of_process.url_from(0))).await.looks_out().await;
            let mut held = 0;
            while held < 20 + 1 {
                held += session.claim(100).await.len();
            }
            let (backend, id) = (session.backend.clone(), session.id);
            tokio::spawn(async move { while backend.receive(id).await.is_ok() {} });
            while !is_known(&of_process, &session).await {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            of_process.nodes[0].signal("-9");
        });
    });
    beside(move || process.join().expect("it lives until then")).await;
    let survivor = survivor.looks_out().await;
    let of_election = Arc::clone(&ring);
    beside(move || of_election.until_succeeded(0)).await;
    let (began, mut taken_up) = (Instant::now(), 0);
    while taken_up < 20 + 1 {
        assert!(began.elapsed() < SILENCE + AFTER_SILENCE, "{taken_up} are taken up");
        taken_up += survivor.claim(100).await.len();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    eprintln!("all is taken up {:?} after the replica served", began.elapsed());
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
    let world = beside(|| Guarded::start(2, 3)).await;
    let (lost, _, longest) = planned_failover_of(world, replicas).await;
    (lost, longest)
}

/// As [`planned_failover`], on given servers. Returns the number of lost runs, the number of all runs, and the longest interruption.
async fn planned_failover_of(world: Guarded, replicas: u16) -> (usize, usize, Duration) {
    let world = Arc::new(world);
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
    (lost, runs.len(), longest)
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
        assert!(longest < PLANNED, "{longest:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_planned_failover_with_confirmed_writes_loses_nothing_and_is_over_soon() {
    let (lost, longest) = planned_failover(1).await;
    assert_eq!(lost, 0);
    assert!(longest < PLANNED, "{longest:?}");
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
    assert!(stood_still[1] < PLANNED, "{stood_still:?}");
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
    // A master learns within a second that its replica has come back, and the call asks again half a second later.
    assert!(others < UNDISTURBED && back.elapsed() < SOON + UNDISTURBED, "{others:?}, {:?}", back.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_without_enough_replicas_is_left_for_the_one_that_takes_over() {
    let (ring, session) = on_a_ring().await;
    for settings in [["min-replicas-max-lag", "1"], ["min-replicas-to-write", "1"]] {
        ask(&ring.nodes[0], &["config", "set", settings[0], settings[1]]);
    }
    ring.hold_peers(0, true);
    let (of_wait, is_over) = (Arc::clone(&ring), AtomicBool::new(false));
    let takes_over = async {
        let served = beside(move || {
            topology::until("it refuses", || ask(&of_wait.nodes[0], &["info", "errorstats"]).contains("NOREPLICAS"));
            of_wait.take_over(0);
            of_wait.until_succeeded(0);
            Instant::now()
        })
        .await;
        is_over.store(true, Ordering::SeqCst);
        served
    };
    let calls = async {
        let mut last = Instant::now();
        while !is_over.load(Ordering::SeqCst) {
            start_on(&ring, &session, 0).await;
            last = Instant::now();
        }
        last
    };
    let (served, answered) = tokio::join!(takes_over, calls);
    let waited = answered.saturating_duration_since(served);
    eprintln!("a call was answered {waited:?} after the other one served");
    assert!(waited < SOON, "{waited:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_is_far_away_holds_up_its_own_partitions_alone() {
    // No claim waits that long for one of several.
    const DELAY: Duration = Duration::from_millis(300);
    let (ring, session) = on_a_ring().await;
    ring.delay_programs(0, DELAY);
    let (mut far, mut others) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..5 {
        far = far.max(start_on(&ring, &session, 0).await);
        others = others.max(start_on(&ring, &session, 1).await).max(start_on(&ring, &session, 2).await);
    }
    eprintln!("calls to the one took {far:?}, those to the others {others:?}");
    assert!(far >= 2 * DELAY && others < UNDISTURBED, "{far:?}, {others:?}");
    // What a claim from all is not waited for to give is found.
    let mut found = session.claim(1000).await.len();
    let find_all = async {
        while found < 20 + 15 {
            let events = session.backend.receive(session.id).await.expect("receive");
            if events.iter().any(|event| matches!(event, Event::Restarted(_))) {
                found = session.backend.held(session.id).await.expect("held").len();
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), find_all).await.expect("all runs are found");
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
    assert!(longest < PLANNED, "{longest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_planned_failover_is_followed_by_a_program_that_sentinels_tell_nothing() {
    let world = beside(|| Guarded::start(2, 3)).await;
    for sentinel in &world.sentinels {
        assert_eq!(ask(sentinel, &["acl", "setuser", "default", "-psubscribe"]).trim(), "OK");
    }
    let (lost, of, longest) = planned_failover_of(world, 0).await;
    // They are asked each second, and the old master takes runs for ten.
    assert!(6 * lost < of, "{lost} of {of}");
    assert!(longest < PLANNED, "{longest:?}");
}

/// A master behind sentinels and a session, to which something happens while runs are started; how long it took until a replica served,
/// and the longest standstill.
async fn behind_sentinels(event: impl FnOnce(&Guarded)) -> (Arc<Guarded>, Session, Duration, Duration) {
    let world = Arc::new(beside(|| Guarded::start(2, 3)).await);
    let session = Session::with(options(&world.url())).await;
    session.start(20).await;
    let is_over = AtomicBool::new(false);
    let election = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        event(&world);
        let (began, of_election) = (Instant::now(), Arc::clone(&world));
        beside(move || {
            of_election.until_succeeded();
        })
        .await;
        is_over.store(true, Ordering::SeqCst);
        began.elapsed()
    };
    let runs = start_until(&session, root, || is_over.load(Ordering::SeqCst));
    let (election, (_, longest)) = tokio::join!(election, runs);
    eprintln!("the replica served after {election:?}, calls stood still for {longest:?}");
    (world, session, election, longest)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_is_frozen_is_left_with_its_sentinels_one_of_whom_is_frozen_too() {
    let (world, _, election, longest) = behind_sentinels(|world| {
        world.sentinels[0].signal("-STOP");
        world.servers[0].signal("-STOP");
    })
    .await;
    assert!(longest < election + SOON, "{longest:?}");
    // What begins now asks that sentinel first.
    let began = Instant::now();
    Session::with(options(&world.url())).await.start(1).await;
    eprintln!("a program connected in {:?}", began.elapsed());
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_dies_is_left_with_its_sentinels() {
    let (_, _, election, longest) = behind_sentinels(|world| world.servers[0].signal("-9")).await;
    assert!(longest < DEATH.max(election + AFTER_DEATH), "{longest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_is_cut_off_from_its_like_is_left_with_its_sentinels() {
    let (world, session, election, longest) = behind_sentinels(|world| world.isolate(0)).await;
    let served = Instant::now();
    assert!(longest < election + SOON, "{longest:?}");
    // It still takes what it is sent, and nobody sends it anything.
    let of_count = Arc::clone(&world);
    let new = beside(move || of_count.until_other_than(0)).await;
    let runs_of = |server: usize| ask(&world.servers[server], &["zcard", "{hatchet:0}:a"]);
    loop {
        let (old_has, new_has) = (runs_of(0), runs_of(new));
        session.start(1).await;
        if runs_of(new) != new_has {
            assert_eq!(runs_of(0), old_has);
            break;
        }
        assert!(served.elapsed() < SOON, "the old master is still sent what is started");
    }
}
