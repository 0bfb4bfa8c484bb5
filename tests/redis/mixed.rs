//! Two versions of this library in one fleet: processes of an older build and of this one share a namespace, and are killed.
//!
//! The older program comes first, since a store that a newer one has created may be too new for it. `tests/mixed/run.sh` builds it, with
//! the same workflows, and starts these tests.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Duration,
};

use hatchet::{RunErrorKind, RunHandle};
use tokio::task::JoinHandle;

use crate::{
    ledger::{Deed, Ledger},
    program::{Branch, Crowd, Gather, Graph, Item, Listen, Nap, Rhombus, Tree, Work},
    random::Random,
    world::{ALWAYS, Spec, Worker, World, seed},
};

/// Where the worker program of the older build is.
const OLD_PROGRAM: &str = "HATCHET_OLD_PROGRAM";
/// Longer than a busy machine stops a process. Whoever is killed is noticed by its connections.
const LEASE: Duration = Duration::from_secs(30);
const ROUNDS: usize = 9;
/// How long a run may take when nothing is killed any more.
const PATIENCE: Duration = Duration::from_secs(60);
/// What the runs of each kind are called in the ledger, with a number behind.
const KINDS: [&str; 7] = ["work", "nap", "graph", "rhombus", "gather", "tree", "listen"];
/// More than the engine takes for few, so that they have a lane of their own in the store.
const CHILDREN: u64 = 80;

/// The builds, by number.
const OLD: usize = 0;
const NEW: usize = 1;

struct Fleet {
    world: World,
    old_program: PathBuf,
    workers: [Worker; 2],
    /// All processes of each build.
    processes: [BTreeSet<u32>; 2],
    random: Random,
    started: u64,
    runs: Vec<JoinHandle<()>>,
    listening: Vec<(RunHandle<u64>, u64)>,
}

impl Fleet {
    async fn new() -> Self {
        let old_program = PathBuf::from(std::env::var_os(OLD_PROGRAM).expect("the program of an older build"));
        let seed = seed();
        let (world, old) = World::begun_by(ALWAYS, &old_program, LEASE).await;
        let new = start_worker(&world, None);
        let processes = [BTreeSet::from([old.id()]), BTreeSet::from([new.id()])];
        let (runs, listening) = (Vec::new(), Vec::new());
        Self {
            world,
            old_program,
            workers: [old, new],
            processes,
            random: Random::new(seed),
            started: 0,
            runs,
            listening,
        }
    }

    /// Kills the process of a build, and starts another one.
    fn replace(&mut self, build: usize) {
        self.workers[build].kill();
        self.workers[build] = start_worker(&self.world, (build == OLD).then_some(&self.old_program));
        self.processes[build].insert(self.workers[build].id());
    }

    /// Starts a run of each kind.
    async fn start(&mut self) {
        let (hatchet, number) = (&self.world.hatchet, self.started);
        self.started += 1;
        let item = |kind: &str, value| Item { name: format!("{kind}{number}"), value, millis: 1 + number % 9 };
        let work = hatchet.start::<Work>(&item("work", number)).await.unwrap();
        self.runs.push(gives(work, number));
        let nap = hatchet.start::<Nap>(&item("nap", 0)).await.unwrap();
        self.runs.push(tokio::spawn(async move { assert!(ended(&nap).await.unwrap() > 0) }));
        let graph = hatchet.start::<Graph>(&item("graph", number)).await.unwrap();
        self.runs.push(gives(graph, 7 * number));
        let rhombus = hatchet.start::<Rhombus>(&item("rhombus", number)).await.unwrap();
        self.runs.push(match number % 2 {
            0 => gives(rhombus, 2 * number + 4),
            _ => tokio::spawn(async move {
                assert_eq!(ended(&rhombus).await.unwrap_err().kind(), RunErrorKind::Failed);
            }),
        });
        let crowd = Crowd { name: format!("gather{number}"), children: CHILDREN, millis: 2 };
        let gather = hatchet.start::<Gather>(&crowd).await.unwrap();
        self.runs.push(gives(gather, (0..CHILDREN).sum()));
        let tree = Branch { name: format!("tree{number}"), fans: vec![3, 2] };
        self.runs.push(gives(hatchet.start::<Tree>(&tree).await.unwrap(), 6));
        let signals = 1 + number % 3;
        let listen = hatchet.start::<Listen>(&item("listen", signals)).await.unwrap();
        self.listening.push((hatchet.handle(listen.id()), signals));
        self.runs.push(gives(listen, (1..=signals).sum()));
    }

    /// Sends its next signal to every run that waits for more.
    async fn tell(&mut self) {
        for (run, left) in self.listening.iter_mut().filter(|(_, left)| *left > 0) {
            run.signal("told", left).await.unwrap();
            *left -= 1;
        }
    }

    fn begun_by(&self, build: usize, kind: &str, ledger: &Ledger) -> bool {
        let is_of =
            |name: &str| name.strip_prefix(kind).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
        let mut begun = ledger.all(Deed::Began).filter(|record| is_of(&record.name));
        begun.any(|record| self.processes[build].contains(&record.process))
    }

    /// Has runs of each kind until both builds have begun some.
    async fn until_both_work(&mut self) {
        loop {
            self.start().await;
            self.ends().await;
            let ledger = self.world.ledger();
            let missing =
                KINDS.iter().find(|kind| [OLD, NEW].iter().any(|build| !self.begun_by(*build, kind, &ledger)));
            match missing {
                None => return,
                Some(kind) => assert!(self.started < 100, "one build does nothing of {kind}"),
            }
        }
    }

    /// Waits until all has ended that was started.
    async fn ends(&mut self) {
        while self.listening.iter().any(|(_, left)| *left > 0) {
            self.tell().await;
        }
        for run in std::mem::take(&mut self.runs) {
            run.await.expect("the run gives what it should");
        }
    }

    /// Plays rounds in which processes are killed, and has all end with the processes of one build alone.
    async fn play(mut self, last: usize) {
        self.until_both_work().await;
        for _ in 0..ROUNDS {
            let before = self.world.ledger().len();
            self.start().await;
            self.tell().await;
            let more = before + 1 + self.random.below(200);
            self.world.until("something has happened", |ledger| ledger.len() > more).await;
            tokio::time::sleep(Duration::from_micros(self.random.next() % 0x4000)).await;
            for build in self.random.pick(&[&[OLD][..], &[NEW], &[OLD, NEW]]) {
                self.replace(*build);
            }
        }
        self.start().await;
        self.workers[1 - last].kill();
        self.ends().await;
        let ledger = self.world.ledger();
        ledger.check();
        self.world.check().await;
        let by = |build: usize| {
            ledger.all(Deed::Began).filter(|record| self.processes[build].contains(&record.process)).count()
        };
        eprintln!(
            "{} runs without their children, {} deeds; the {} processes of the old build began {} steps, the {} of this one {}",
            self.started * KINDS.len() as u64,
            ledger.len(),
            self.processes[OLD].len(),
            by(OLD),
            self.processes[NEW].len(),
            by(NEW),
        );
        let [old, new] = self.workers;
        [old, new].into_iter().nth(last).expect("a worker").shut_down().await;
    }
}

fn start_worker(world: &World, program: Option<&PathBuf>) -> Worker {
    world.start_worker(&Spec {
        lease: LEASE,
        program: program.map(PathBuf::as_path).map(Path::to_owned),
        ..world.spec()
    })
}

/// Checks that a run gives this.
fn gives(run: RunHandle<u64>, expected: u64) -> JoinHandle<()> {
    tokio::spawn(async move { assert_eq!(ended(&run).await.unwrap(), expected, "{}", run.id()) })
}

async fn ended<T: serde::de::DeserializeOwned>(run: &RunHandle<T>) -> Result<T, hatchet::RunError> {
    // The rounds before the end take their time too.
    match tokio::time::timeout(2 * PATIENCE, run.result()).await {
        Ok(result) => result,
        Err(_) => panic!("the run does not end: {:#?}", run.view().await),
    }
}

#[tokio::test]
#[ignore = "it needs the program of an older build: tests/mixed/run.sh"]
async fn a_fleet_is_upgraded_to_this_version_of_the_library() {
    Fleet::new().await.play(NEW).await;
}

#[tokio::test]
#[ignore = "it needs the program of an older build: tests/mixed/run.sh"]
async fn a_fleet_is_taken_back_to_an_older_version_of_the_library() {
    Fleet::new().await.play(OLD).await;
}
