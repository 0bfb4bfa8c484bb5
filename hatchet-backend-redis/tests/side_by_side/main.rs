//! Random calls to the memory backend and to Redis, side by side: both must give the same answers, and at the end find
//! nothing wrong with what they stored.
//!
//! A sequence is drawn from a seed. The call at each place is drawn from a seed of its own and from what came before, so
//! that places can be left out: that is how a sequence that fails is made short. `HATCHET_TEST_SEED` is the seed of the first
//! sequence (1 if not set) and `HATCHET_TEST_SEQUENCES` how many there are; what fails names both.

mod calls;
mod planner;
#[path = "../support/random.rs"]
mod random;
#[path = "../support/server.rs"]
mod server;

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use calls::{Call, HOUR, MOMENT, Side};
use hatchet_backend_memory::{MemoryBackend, MemoryOptions};
use hatchet_backend_redis::{Options, RedisBackend};
use hatchet_core::backend::{Activity, Backend, FsckOptions, Name, SessionId, Timestamp};
use planner::Planner;
use random::Random;
use server::Server;

const SEQUENCES: u64 = 200;
const SESSIONS: usize = 6;

static SERVER: LazyLock<Server> = LazyLock::new(|| Server::start(&[]));

/// What is the same for all calls of a sequence.
#[derive(Clone, Debug)]
struct Sequence {
    seed: u64,
    /// The seeds of its calls.
    calls: Vec<u64>,
    retention: Duration,
    /// How many sessions it has at once. With one it is also compared how often that is told of work.
    sessions: usize,
}

impl Sequence {
    fn draw(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let retention = if random.percent(25) { Duration::ZERO } else { HOUR };
        let sessions = random.pick(&[1, 1, 2, 3]);
        let length = 20 + random.below(60);
        Self { seed, calls: (0..length).map(|_| random.next()).collect(), retention, sessions }
    }

    /// Makes the calls on both sides. An error tells what was wrong.
    async fn run(&self, check_each: bool) -> Result<(), String> {
        let sequence = self.clone();
        let ran = tokio::spawn(async move { sequence.run_calls(check_each).await });
        // What a panic says stands in the output already.
        ran.await.unwrap_or_else(|panic| Err(panic.to_string()))
    }

    /// Makes the calls on both sides. An error tells what was different, behind the calls that led there.
    async fn run_calls(&self, check_each: bool) -> Result<(), String> {
        let mut random = Random::new(self.seed);
        let partition = random.next() as u16;
        let mut id = || SessionId(u128::from(random.next()) << 64 | u128::from(partition));
        let ids: Vec<_> = (0..SESSIONS).map(|_| id()).collect();
        let pauses = self.seed.is_multiple_of(2);
        let side = |backend| Side::new(backend, ids.clone(), self.sessions == 1 && !pauses);
        let (mut memory, mut redis) = (side(self.memory()), side(self.redis().await));
        let mut planner = Planner::new(SESSIONS, self.sessions, partition, self.retention.is_zero(), pauses);
        let mut story = String::new();
        for seed in &self.calls {
            let call = planner.plan(&mut Random::new(*seed));
            // What a session has been told is compared before it is over.
            if let Call::Close(session, _) | Call::Die(session, _) = call {
                compare(&mut memory, &mut redis, &Call::Drain(session), &mut story, None).await?;
            }
            compare(&mut memory, &mut redis, &call, &mut story, Some(&mut planner)).await?;
            if check_each {
                check(&memory, &redis, &story).await?;
            }
        }
        for call in planner.last_calls() {
            compare(&mut memory, &mut redis, &call, &mut story, None).await?;
        }
        check(&memory, &redis, &story).await
    }

    fn memory(&self) -> Arc<dyn Backend> {
        Arc::new(MemoryBackend::with_options(MemoryOptions::default().retention(self.retention)))
    }

    async fn redis(&self) -> Arc<dyn Backend> {
        static NAMESPACE: AtomicU32 = AtomicU32::new(0);
        let namespace = format!("sequence{}", NAMESPACE.fetch_add(1, Ordering::Relaxed));
        let options = Options::from_url(&SERVER.url()).expect("a URL").namespace(namespace).retention(self.retention);
        Arc::new(RedisBackend::connect(options).await.expect("the server fits"))
    }

    /// Leaves out what is not needed for it to fail.
    async fn shrink(mut self, mut failure: String) -> (Self, String) {
        let mut some = self.calls.len().div_ceil(2);
        loop {
            let mut at = 0;
            while at < self.calls.len() {
                let mut shorter = self.clone();
                shorter.calls.drain(at..(at + some).min(self.calls.len()));
                match shorter.run(true).await {
                    Ok(()) => at += some,
                    Err(still) => (self, failure) = (shorter, still),
                }
            }
            if some == 1 {
                return (self, failure);
            }
            some = some.div_ceil(2);
        }
    }
}

async fn compare(
    memory: &mut Side,
    redis: &mut Side,
    call: &Call,
    story: &mut String,
    planner: Option<&mut Planner>,
) -> Result<(), String> {
    let (expected, given) = (memory.perform(call).await, redis.perform(call).await);
    let _ = writeln!(story, "{call:?}");
    if call.needs_a_moment() {
        tokio::time::sleep(MOMENT).await;
    }
    if call.changes_something() {
        memory.sweep().await;
        redis.sweep().await;
    }
    if expected.text != given.text {
        return Err(format!("{story}\n{}", difference(&expected.text, &given.text)));
    }
    for (number, task) in &expected.facts.tasks {
        let _ = writeln!(story, "    lease {number}: step {} of {}", task.lease.step.0, task.lease.run);
    }
    if let Some(planner) = planner {
        planner.learn(call, expected.facts);
    }
    Ok(())
}

/// The lines in which two answers differ, and what is around them.
fn difference(memory: &str, redis: &str) -> String {
    const AROUND: usize = 10;
    let lines = |text: &str| text.replace(", ", ",\n");
    let (memory, redis) = (lines(memory), lines(redis));
    let (memory, redis): (Vec<_>, Vec<_>) = (memory.lines().collect(), redis.lines().collect());
    let before = memory.iter().zip(&redis).take_while(|(a, b)| a == b).count();
    let behind = memory[before..].iter().rev().zip(redis[before..].iter().rev()).take_while(|(a, b)| a == b).count();
    let part = |lines: &[&str]| {
        let to = (lines.len() - behind + AROUND / 2).min(lines.len());
        lines[before.saturating_sub(AROUND)..to].join("\n")
    };
    format!("memory answers\n{}\nredis answers\n{}", part(&memory), part(&redis))
}

async fn check(memory: &Side, redis: &Side, story: &str) -> Result<(), String> {
    for (name, side) in [("memory", memory), ("redis", redis)] {
        let report = side.backend.fsck(FsckOptions::default()).await.expect("fsck");
        if !report.is_sound() {
            return Err(format!("{story}\n{name} finds\n{report}"));
        }
    }
    // What was due in a moment has happened on both sides.
    tokio::time::sleep(MOMENT).await;
    for side in [memory, redis] {
        while side.backend.sweep(10_000).await.expect("sweep").changes > 0 {}
    }
    let (expected, given) = (counted(&memory.backend).await, counted(&redis.backend).await);
    if expected != given {
        return Err(format!("{story}\nof root runs memory has counted\n{expected:#?}\nand redis\n{given:#?}"));
    }
    Ok(())
}

/// What was counted of root runs in all minutes: by queue, how many were created, ended with each status, and were measured.
async fn counted(backend: &Arc<dyn Backend>) -> BTreeMap<Name, [u64; 6]> {
    let mut all = BTreeMap::<Name, Activity>::new();
    for of in backend.activity(Timestamp(0), Timestamp(u64::MAX)).await.expect("activity") {
        let nothing = || Activity::new(Timestamp(0), of.queue.clone());
        all.entry(of.queue.clone()).or_insert_with(nothing).add(&of);
    }
    let numbers = |of: Activity| [of.created, of.succeeded, of.failed, of.cancelled, of.expired, of.durations.total()];
    all.into_iter().map(|(queue, of)| (queue, numbers(of))).collect()
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is a number, not {text:?}")))
}

#[tokio::test]
async fn memory_and_redis_give_the_same_answers() {
    let first = number("HATCHET_TEST_SEED").unwrap_or(1);
    for seed in (first..).take(number("HATCHET_TEST_SEQUENCES").unwrap_or(SEQUENCES) as usize) {
        let sequence = Sequence::draw(seed);
        if let Err(failure) = sequence.run(false).await {
            let (shortest, failure) = sequence.shrink(failure).await;
            panic!(
                "HATCHET_TEST_SEED={seed} HATCHET_TEST_SEQUENCES=1 fails, also with {} calls (retention {:?}): {failure}",
                shortest.calls.len(),
                shortest.retention
            );
        }
    }
}
