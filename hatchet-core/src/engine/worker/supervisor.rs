//! Opens the session of a worker, opens a new one when it is lost, and shuts the worker down.

use std::{
    collections::HashMap,
    future::Future,
    sync::{Arc, Mutex, Weak, atomic::AtomicBool},
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};

use super::{
    claimer::Claimer,
    core::{Changed, WorkerCore},
};
use crate::{
    backend::{Backend, Name, SessionId, SessionSpec},
    engine::{
        committer,
        host::{Host, Settings},
        lock,
        seldom::Seldom,
        session::{Launch, Loops, Session},
        slots::Slots,
        waiting::note_waits,
        watchdog::watch_limits,
    },
    error::Error,
    registry::Registry,
};

/// How long a shutdown goes on after its grace time, to hand back what is left and to write down what ended.
const LAST_WRITES: Duration = Duration::from_secs(2);
/// How long a shutdown waits for steps that were stopped to yield.
const UNTIL_LEFT: Duration = Duration::from_secs(1);
/// The shortest time between the openings of two sessions.
const SHORTEST_SESSION: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    No,
    /// Let running steps finish.
    Gracefully,
    /// Be gone as if the process had died.
    Crash,
}

/// What a worker needs to open a session, again if it must.
pub(super) struct Plan {
    pub(super) backend: Arc<dyn Backend>,
    pub(super) registry: Arc<Registry>,
    pub(super) queues: Vec<(Name, Option<usize>)>,
    pub(super) slots: usize,
    pub(super) settings: Settings,
    pub(super) code: Name,
    pub(super) local: Arc<LocalWorkers>,
}

/// The workers that were made from one client: it calls by their sessions, since what is started by them can begin at once, and
/// they are notified first when it has ended.
#[derive(Debug, Default)]
pub(crate) struct LocalWorkers(Mutex<Vec<Weak<WorkerCore>>>);

impl LocalWorkers {
    fn add(&self, worker: &Arc<WorkerCore>) {
        let mut workers = lock(&self.0);
        workers.retain(|worker| worker.strong_count() > 0);
        workers.push(Arc::downgrade(worker));
    }

    /// The session of a worker that will go on for a while.
    pub(crate) fn session(&self) -> Option<Arc<Session>> {
        let workers = lock(&self.0);
        let mut at_work = workers.iter().filter_map(Weak::upgrade);
        let worker = at_work.find(|worker| !worker.is_parting() && !worker.session.is_lost())?;
        Some(Arc::clone(&worker.session))
    }
}

/// A session at work.
pub(super) struct AtWork {
    pub(super) core: Arc<WorkerCore>,
    tasks: JoinSet<()>,
    loops: Loops,
    stop_claiming: watch::Sender<bool>,
    since: Instant,
}

/// Spawns a part of a worker. A worker without it would hold tasks and do nothing with them, so a panic of the part ends the session.
fn spawn_part(tasks: &mut JoinSet<()>, core: &Arc<WorkerCore>, part: impl Future<Output = ()> + Send + 'static) {
    let core = Arc::clone(core);
    tasks.spawn(async move {
        let _guard = core.session.ends_by_panic();
        part.await;
    });
}

impl Plan {
    pub(super) async fn open(&self) -> Result<AtWork, Error> {
        let spec = SessionSpec {
            id: SessionId::random(),
            label: self.settings.label.clone(),
            lease: self.settings.lease,
            workflows: self.registry.announced().into_iter().chain([Name::clone(&self.code)]).collect(),
            queues: self.queues.iter().map(|(queue, _)| queue.clone()).collect(),
        };
        let (session, loops, work) = Session::open(Arc::clone(&self.backend), spec).await?;
        let changed = Arc::new(Changed::default());
        let common = Slots::new(self.slots, Box::new(Arc::clone(&changed)));
        let own_or_common = |own: &Option<usize>| match own {
            Some(own) => Slots::new(*own, Box::new(Arc::clone(&changed))),
            None => Arc::clone(&common),
        };
        let slots: HashMap<Name, Arc<Slots>> =
            self.queues.iter().map(|(queue, own)| (queue.clone(), own_or_common(own))).collect();
        let (committers, ended): (Vec<_>, Vec<_>) =
            (0..session.info.partitions.max(1)).map(|_| mpsc::unbounded_channel()).unzip();
        let host = Host {
            session,
            catalog: self.registry.catalog(),
            settings: self.settings.clone(),
            code: Name::clone(&self.code),
            slots,
            warned_of_waits: AtomicBool::new(false),
        };
        let core = Arc::new(WorkerCore::new(host, Arc::clone(&self.registry), changed, committers));
        let launch: Arc<dyn Launch> = Arc::<WorkerCore>::clone(&core);
        core.session.serves(Arc::downgrade(&launch));
        self.local.add(&core);
        let (stop_claiming, claiming_stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        for (partition, ended) in ended.into_iter().enumerate() {
            spawn_part(&mut tasks, &core, committer::serve(Arc::clone(&core), partition, ended));
        }
        spawn_part(&mut tasks, &core, note_waits(Arc::clone(&core)));
        spawn_part(&mut tasks, &core, Claimer::new(Arc::clone(&core), work).serve(claiming_stopped));
        spawn_part(&mut tasks, &core, watch_limits(Arc::clone(&core)));
        Ok(AtWork { core, tasks, loops, stop_claiming, since: Instant::now() })
    }

    /// Opens another session, as soon as that can be done.
    async fn reopen(&self) -> AtWork {
        let trouble = Seldom::default();
        loop {
            match self.open().await {
                Ok(at_work) => return at_work,
                Err(error) => {
                    if let Some(suppressed) = trouble.happens("open", "") {
                        tracing::warn!(worker = %self.settings.label, %error, suppressed, "the worker lost its session and cannot open another; retrying every second");
                    }
                }
            }
            sleep(Duration::from_secs(1)).await;
        }
    }

    /// Works with one session after the other until the worker is to stop.
    pub(super) async fn supervise(
        self,
        first: AtWork,
        mut stopping: watch::Receiver<Stop>,
        current: Arc<Mutex<Arc<WorkerCore>>>,
    ) {
        let mut at_work = first;
        loop {
            let stop = tokio::select! {
                biased;
                // The sender gone is a worker that was dropped.
                stop = stopping.wait_for(|stop| *stop != Stop::No) => stop.map_or(Stop::Crash, |stop| *stop),
                () = at_work.core.session.lost() => Stop::No,
            };
            match stop {
                Stop::Gracefully => return at_work.finish().await,
                Stop::Crash => return at_work.core.abandon(),
                Stop::No => at_work.core.abandon(),
            }
            // If every session ends at once, as by a panic in each sweep, sessions must not follow each other in a busy loop.
            let pause = SHORTEST_SESSION.saturating_sub(at_work.since.elapsed());
            drop(at_work);
            let reopened = tokio::select! {
                at_work = async { sleep(pause).await; self.reopen().await } => at_work,
                // A session that was opened by a call without an answer ends by itself.
                _ = stopping.wait_for(|stop| *stop != Stop::No) => return,
            };
            at_work = reopened;
            tracing::info!(worker = %self.settings.label, session = %at_work.core.session.id, "the worker continues with a new session");
            *lock(&current) = Arc::clone(&at_work.core);
        }
    }
}

impl AtWork {
    /// Ends what runs and writes down what ended, as far as that can be done in time.
    async fn finish(self) {
        let Self { core, mut tasks, loops, stop_claiming, since: _ } = self;
        stop_claiming.send_replace(true);
        let worker = &core.settings.label;
        let under_way = core.running();
        tracing::info!(%worker, under_way, grace = ?core.settings.grace, "worker is shutting down: waiting steps are parked, running steps have the grace period to end");
        core.part();
        let grace = Instant::now() + core.settings.grace;
        let mut handed_back = 0;
        if timeout_at(grace, core.idle(|core| core.running() == 0)).await.is_err() {
            handed_back = core.running();
            core.hand_back();
            let stopped = core.idle(|core| core.running() == 0);
            drop(timeout(UNTIL_LEFT, stopped).await);
        }
        core.name_left_behind();
        // What steps came to must be written before the session is closed.
        let written = core.idle(|core| core.uncommitted() == 0);
        tokio::select! {
            () = written => {}
            () = core.session.lost() => {}
            () = sleep_until(grace + LAST_WRITES) => {
                let unwritten = core.uncommitted();
                tracing::error!(%worker, unwritten, "some results could not be stored in time: these steps run again elsewhere when the lease ends");
            }
        }
        core.session.close().await;
        tasks.abort_all();
        drop(loops);
        tracing::info!(%worker, parked_or_ended = under_way.saturating_sub(handed_back), handed_back, "worker shut down");
    }
}
