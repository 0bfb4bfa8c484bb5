//! The verbs of the suite: sessions that start, claim and commit, and a harness that waits, looks and cleans up.
//!
//! Nothing here sleeps for a while and hopes: what must happen is waited for, and what must not happen early is
//! compared with a moment before it was asked for. Upper bounds of time are never asserted.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::Deref,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::{
    sync::Notify,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use super::describe::{CHILDREN, Describe as _, ROOTS, commit, name, ok, payload, root, write};
use crate::backend::{
    Announced, Backend, BackendError, BackendResult, Cancelled, Claim, Clock, Commit, CommitReply, Content, Entry,
    EntryKey, Event, FsckOptions, Inquiry, JournalPage, JournalWrite, Lease, Name, NewRun, Outcome, Query, QueueCounts,
    Recorded, Refused, Resolved, Revocation, RunId, RunStatus, RunView, SessionId, SessionSpec, Signalled, Start,
    StartGroup, StartReply, Started, StepIndex, Task, TaskPhase, TaskView, Then, Wake, Watched,
};

/// The workflows that sessions announce unless a case says others.
const WORKFLOWS: [&str; 2] = ["W", "C"];

/// The durations of a case.
#[derive(Clone, Copy, Debug)]
struct Pace {
    tick: Duration,
    lease: Duration,
    quiet: Duration,
    step: Duration,
    limit: Duration,
}

impl Pace {
    fn of(clock: Clock) -> Self {
        let ms = Duration::from_millis;
        match clock {
            Clock::Runtime => {
                Self { tick: ms(1000), lease: ms(5000), quiet: ms(100), step: ms(20), limit: ms(300_000) }
            }
            Clock::Server => Self { tick: ms(150), lease: ms(600), quiet: ms(120), step: ms(10), limit: ms(30_000) },
        }
    }
}

/// A backend under test and a first session, whose verbs it has.
#[derive(Debug)]
pub(crate) struct Harness {
    first: Worker,
}

impl Deref for Harness {
    type Target = Worker;

    fn deref(&self) -> &Worker {
        &self.first
    }
}

impl Harness {
    pub(crate) async fn open(backend: Arc<dyn Backend>) -> Self {
        let pace = Pace::of(backend.info().clock);
        let first = Worker::open(backend, pace, Arc::default(), Lifetime::Long, &WORKFLOWS).await;
        Self { first }
    }

    /// Another session, which lives until the end of the case.
    pub(crate) async fn worker(&self) -> Worker {
        self.worker_of(&WORKFLOWS).await
    }

    /// Another session, which can run these workflows.
    pub(crate) async fn worker_of(&self, workflows: &[&str]) -> Worker {
        Worker::open(self.backend.clone(), self.pace, self.started.clone(), Lifetime::Long, workflows).await
    }

    /// Another session, which sends heartbeats and can be killed.
    pub(crate) async fn mortal(&self) -> Worker {
        self.mortal_of(&WORKFLOWS).await
    }

    /// The same, which can run these workflows.
    pub(crate) async fn mortal_of(&self, workflows: &[&str]) -> Worker {
        Worker::open(self.backend.clone(), self.pace, self.started.clone(), Lifetime::Heartbeats, workflows).await
    }

    /// Stops the heartbeats of `worker`, waits until its session is dead, and lets the backend recover what it held.
    pub(crate) async fn kill(&self, worker: &Worker) {
        self.let_die(worker).await;
        self.sweep().await;
    }

    /// Stops the heartbeats of `worker` and waits until its session is dead.
    pub(crate) async fn let_die(&self, worker: &Worker) {
        worker.stop_heartbeats().await;
        sleep(self.pace.lease + self.pace.quiet).await;
    }

    /// A short time, for delays.
    pub(crate) fn tick(&self) -> Duration {
        self.pace.tick
    }

    /// How long a mortal session lives without a heartbeat.
    pub(crate) fn lease(&self) -> Duration {
        self.pace.lease
    }

    /// Lets time pass.
    pub(crate) async fn wait(&self, time: Duration) {
        sleep(time).await;
    }

    /// Lets so much time pass that two moments differ on the backend's clock.
    pub(crate) async fn moment(&self) {
        sleep(Duration::from_millis(3)).await;
    }

    /// Has everything done that is due.
    pub(crate) async fn sweep(&self) {
        for _ in 0..100_000 {
            if self.backend.sweep(1000).await.expect("sweep").changes == 0 {
                return;
            }
        }
        panic!("sweep always finds something to do");
    }

    /// Sweeps until the condition holds. Fails if that takes unreasonably long.
    pub(crate) async fn until(&self, condition: impl AsyncFn() -> bool) {
        let start = Instant::now();
        loop {
            self.sweep().await;
            if condition().await {
                return;
            }
            assert!(start.elapsed() < self.pace.limit, "waited for {:?} in vain", self.pace.limit);
            sleep(self.pace.step).await;
        }
    }

    /// Sweeps until the condition holds, and fails if that is before `delay` has passed since `since`.
    pub(crate) async fn not_before(&self, since: Instant, delay: Duration, condition: impl AsyncFn() -> bool) {
        // The backend counts in milliseconds: the one in which it was asked and the one in which it answers may have
        // begun.
        let earliest = delay.saturating_sub(Duration::from_millis(1));
        loop {
            self.sweep().await;
            let holds = condition().await;
            let waited = since.elapsed();
            if holds {
                assert!(waited >= earliest, "after {waited:?}, which is before {delay:?}");
                return;
            }
            assert!(waited < delay + self.pace.limit, "waited for {waited:?} in vain");
            sleep(self.pace.step).await;
        }
    }

    /// What is known of a run that must exist.
    pub(crate) async fn view(&self, run: RunId) -> RunView {
        self.find(run).await.unwrap_or_else(|| panic!("there is no run {run}"))
    }

    pub(crate) async fn find(&self, run: RunId) -> Option<RunView> {
        let mut views = self.backend.get(vec![run]).await.expect("get");
        assert_eq!(views.len(), 1, "get answers for each run");
        views.remove(0)
    }

    pub(crate) async fn status(&self, run: RunId) -> RunStatus {
        self.view(run).await.status
    }

    pub(crate) async fn outcome(&self, run: RunId) -> Option<Outcome> {
        let view = self.view(run).await;
        assert_eq!(view.outcome.is_some(), view.status.is_terminal(), "{run}: status and outcome belong together");
        view.outcome
    }

    pub(crate) async fn has_ended(&self, run: RunId) -> bool {
        self.status(run).await.is_terminal()
    }

    pub(crate) async fn task_view(&self, run: RunId, step: u16) -> TaskView {
        let view = self.view(run).await;
        let found = view.tasks.into_iter().find(|task| task.step == StepIndex(step));
        found.unwrap_or_else(|| panic!("run {run} has no task of step {step}"))
    }

    pub(crate) async fn phase(&self, run: RunId) -> TaskPhase {
        self.task_view(run, 0).await.phase
    }

    pub(crate) async fn waits(&self, run: RunId) -> bool {
        self.task_view(run, 0).await.waits
    }

    pub(crate) async fn is_ready(&self, run: RunId) -> bool {
        self.phase(run).await == TaskPhase::Ready
    }

    pub(crate) async fn counts(&self, queue: &str) -> QueueCounts {
        self.backend.counts().await.expect("counts").get(queue).copied().unwrap_or_default()
    }

    /// The whole journal of a task's step.
    pub(crate) async fn journal(&self, lease: &Lease) -> Journal {
        self.journal_of(lease.run, lease.step, 1000).await
    }

    pub(crate) async fn journal_of(&self, run: RunId, step: StepIndex, limit: usize) -> Journal {
        let mut journal = Journal::default();
        let mut cursor = None;
        loop {
            let JournalPage { items, next, sequence } =
                self.backend.journal(run, step, cursor, limit).await.expect("journal");
            assert!(items.len() <= limit, "a page has {} entries, {limit} were asked for", items.len());
            journal.sequence = sequence;
            for item in items {
                let double = journal.items.insert(item.key.clone(), (item.content, item.resolved));
                assert!(double.is_none(), "{:?} is on two pages", item.key);
            }
            match next {
                Some(next) => cursor = Some(next),
                None => return journal,
            }
        }
    }

    /// The ids of all runs that match, page by page.
    pub(crate) async fn list(&self, query: Query) -> Vec<RunId> {
        let mut runs = Vec::new();
        let mut query = query;
        loop {
            let page = self.backend.list(query.clone()).await.expect("list");
            assert!(page.runs.len() <= query.limit, "a page has more runs than were asked for");
            runs.extend(page.runs.iter().map(|view| view.id));
            match page.next {
                Some(next) => query.cursor = Some(next),
                None => return runs,
            }
        }
    }

    /// Cancels a run that must be unfinished.
    pub(crate) async fn cancel(&self, run: RunId) {
        assert_eq!(self.try_cancel(run).await, Cancelled::Cancelled);
    }

    pub(crate) async fn try_cancel(&self, run: RunId) -> Cancelled {
        self.backend.cancel(vec![run], name("enough")).await.expect("cancel").remove(0)
    }

    pub(crate) async fn signal(&self, run: RunId, signal: &str, id: u128, text: &str) -> Signalled {
        self.backend.signal(run, name(signal), id, payload(text)).await.expect("signal")
    }

    /// Nothing contradicts the contract, everything that was started can be ended, and then nothing is left in a queue.
    pub(crate) async fn finish(&self) {
        self.assert_sound("after the case").await;
        let started: Vec<RunId> = lock(&self.started).iter().copied().collect();
        for batch in started.chunks(self.max_batch()) {
            let answers = self.backend.cancel(batch.to_vec(), name("the case is over")).await.expect("cancel");
            assert_eq!(answers.len(), batch.len(), "cancel answers for each run");
        }
        self.sweep().await;
        self.assert_sound("after everything was cancelled").await;
        for (queue, counts) in self.backend.counts().await.expect("counts") {
            assert_eq!(counts, QueueCounts::default(), "all runs have ended, but not for queue {queue:?}");
        }
    }

    pub(crate) async fn assert_sound(&self, when: &str) {
        let report = self.backend.fsck(FsckOptions::default()).await.expect("fsck");
        assert!(report.is_sound(), "{when}, fsck finds\n{report}");
    }
}

/// A journal as a whole.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    pub(crate) items: BTreeMap<EntryKey, (Content, Option<Resolved>)>,
    pub(crate) sequence: u64,
}

impl Journal {
    /// The resolved entries in the order of their sequence numbers, which must be 1, 2, 3 and so on.
    pub(crate) fn resolved(&self) -> Vec<(EntryKey, Resolved)> {
        let mut resolved: Vec<(EntryKey, Resolved)> = Vec::new();
        resolved.extend(self.items.iter().filter_map(|(key, (_, r))| Some((key.clone(), r.clone()?))));
        resolved.sort_by_key(|(_, r)| r.sequence);
        resolved
    }

    /// The resolution of an entry that [`Backend::record`] wrote.
    pub(crate) fn resolution(&self, entry: &str) -> Option<Resolved> {
        self.named(entry).1.clone()
    }

    pub(crate) fn named(&self, entry: &str) -> &(Content, Option<Resolved>) {
        let found = self.items.get(&EntryKey::Named(name(entry)));
        found.unwrap_or_else(|| panic!("the journal has no entry {entry:?}"))
    }

    /// The resolution of a child.
    pub(crate) fn child(&self, child: RunId) -> Option<Resolved> {
        let slot = child.origin().expect("a child").slot;
        let found = self.items.get(&EntryKey::Child(slot));
        let (content, resolved) = found.unwrap_or_else(|| panic!("the journal has no child {child}"));
        match content {
            Content::Child(entry) => assert_eq!(entry.id, child, "the child in this slot"),
            Content::Entry(..) => panic!("{child} stands in the journal as an entry"),
        }
        resolved.clone()
    }
}

/// How long a session lives.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lifetime {
    /// Longer than any case.
    Long,
    /// As long as heartbeats are sent.
    Heartbeats,
}

/// A session and what it does.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) id: SessionId,
    workflows: Vec<Name>,
    pace: Pace,
    inbox: Arc<Inbox>,
    /// Every run that any session of this case asked for.
    started: Arc<Mutex<BTreeSet<RunId>>>,
    heart: Mutex<Option<JoinHandle<()>>>,
    ear: Mutex<Option<JoinHandle<()>>>,
}

/// What a session received and the case has not looked at.
#[derive(Debug, Default)]
struct Inbox {
    events: Mutex<VecDeque<Event>>,
    arrived: Notify,
    /// When something is due, of what was not looked at.
    due: Mutex<Option<Instant>>,
    due_arrived: Notify,
    /// The last question of a check that was not looked at.
    inquiry: Mutex<Option<Inquiry>>,
    asked: Notify,
}

impl Inbox {
    fn push(&self, events: Vec<Event>) {
        for event in events {
            match event {
                // At any time, and nobody counts them.
                Event::DueIn(wait) => self.is_due_in(wait),
                Event::Inquiry(inquiry) => {
                    *lock(&self.inquiry) = Some(inquiry);
                    self.asked.notify_one();
                }
                other => {
                    lock(&self.events).push_back(other);
                    self.arrived.notify_one();
                }
            }
        }
    }

    fn is_due_in(&self, wait: Duration) {
        let Some(at) = Instant::now().checked_add(wait) else { return };
        let mut due = lock(&self.due);
        *due = Some(due.map_or(at, |before| before.min(at)));
        drop(due);
        self.due_arrived.notify_one();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let tasks = [lock(&self.heart).take(), lock(&self.ear).take()];
        tasks.into_iter().flatten().for_each(|task| task.abort());
    }
}

impl Worker {
    async fn open(
        backend: Arc<dyn Backend>,
        pace: Pace,
        started: Arc<Mutex<BTreeSet<RunId>>>,
        lifetime: Lifetime,
        workflows: &[&str],
    ) -> Self {
        let id = SessionId::random();
        let workflows = workflows.iter().map(name).collect();
        let (inbox, heart, ear) = Default::default();
        let worker = Self { backend, id, workflows, pace, inbox, started, heart, ear };
        worker.backend.open(worker.spec(lifetime)).await.expect("a session opens");
        // A faulty one may fail, which is none of our business.
        drop(worker.backend.heartbeat(id).await);
        if lifetime == Lifetime::Heartbeats {
            let (backend, beat) = (worker.backend.clone(), pace.lease / 4);
            *lock(&worker.heart) = Some(tokio::spawn(async move {
                loop {
                    sleep(beat).await;
                    // A case that closes its session sees what comes of it elsewhere.
                    if backend.heartbeat(id).await.is_err() {
                        return;
                    }
                }
            }));
        }
        worker
    }

    fn spec(&self, lifetime: Lifetime) -> SessionSpec {
        let lease = match lifetime {
            Lifetime::Long => Duration::from_secs(30 * 24 * 3600),
            Lifetime::Heartbeats => self.pace.lease,
        };
        let (workflows, queues) = (self.workflows.clone(), vec![name(ROOTS), name(CHILDREN)]);
        SessionSpec { id: self.id, label: name("worker"), lease, workflows, queues }
    }

    /// What the session announced when it was opened first.
    pub(crate) fn announced(&self) -> Announced {
        let SessionSpec { workflows, queues, .. } = self.spec(Lifetime::Long);
        Announced::new(workflows, queues)
    }

    /// What opens a session with this identity that lives as long as a mortal one.
    pub(crate) fn mortal_spec(&self, id: SessionId) -> SessionSpec {
        SessionSpec { id, ..self.spec(Lifetime::Heartbeats) }
    }

    pub(crate) async fn stop_heartbeats(&self) {
        let heart = lock(&self.heart).take().expect("the session sends heartbeats");
        heart.abort();
        let _ = heart.await;
    }

    /// Opens the session once more, with other workflows.
    pub(crate) async fn opens_again_with(&self, workflows: &[&str]) {
        let workflows = workflows.iter().map(name).collect();
        let spec = SessionSpec { workflows, ..self.spec(Lifetime::Long) };
        self.backend.open(spec).await.expect("the session is open");
    }

    /// Opens the session once more as it was opened.
    pub(crate) async fn open_again(&self) {
        self.backend.open(self.spec(Lifetime::Long)).await.expect("the session is open");
    }

    pub(crate) async fn close(&self) {
        self.backend.close(self.id).await.expect("close");
    }

    pub(crate) fn max_batch(&self) -> usize {
        self.backend.info().max_batch
    }

    // Starting.

    pub(crate) async fn try_start(&self, groups: Vec<StartGroup>, keep: usize) -> BackendResult<StartReply> {
        lock(&self.started).extend(groups.iter().flat_map(|group| &group.runs).map(|run| run.id));
        let runs: Vec<usize> = groups.iter().map(|group| group.runs.len()).collect();
        let reply = self.backend.start(Start { session: self.id, groups, keep }).await?;
        assert_eq!(reply.groups.len(), runs.len(), "start answers for each group");
        for (answers, asked) in reply.groups.iter().zip(runs) {
            assert!(answers.as_ref().is_err() || answers.as_ref().is_ok_and(|answers| answers.len() == asked));
        }
        Ok(reply)
    }

    /// Starts root runs and gives the answers.
    pub(crate) async fn start_all(&self, runs: Vec<NewRun>) -> Vec<Started> {
        let reply = self.start_keep(runs, 0).await;
        assert!(reply.tasks.is_empty(), "nothing was to be kept");
        reply.groups.into_iter().next().expect("one group").expect("root runs are not refused")
    }

    pub(crate) async fn start_keep(&self, runs: Vec<NewRun>, keep: usize) -> StartReply {
        self.try_start(vec![StartGroup::new(None, runs)], keep).await.expect("start")
    }

    /// Starts a root run that is not there yet.
    pub(crate) async fn start(&self, run: NewRun) -> RunId {
        let id = run.id;
        assert_eq!(self.start_all(vec![run]).await, [Started::Created]);
        id
    }

    /// Starts many root runs that are not there yet.
    pub(crate) async fn start_many(&self, runs: Vec<NewRun>) -> Vec<RunId> {
        let ids = runs.iter().map(|run| run.id).collect();
        for batch in runs.chunks(self.max_batch()) {
            let answers = self.start_all(batch.to_vec()).await;
            assert!(answers.iter().all(|answer| *answer == Started::Created), "{answers:?}");
        }
        ids
    }

    /// Starts a root run and claims its first task.
    pub(crate) async fn begin(&self, run: NewRun) -> Task {
        let (id, queue) = (run.id, run.queue.clone());
        self.start(run).await;
        let task = self.claim_from(&queue).await;
        assert_eq!(task.lease.run, id, "the claimed run");
        task
    }

    /// Starts children of one task and gives the answers.
    pub(crate) async fn spawn_all(&self, parent: &Lease, runs: Vec<NewRun>) -> Result<Vec<Started>, Refused> {
        let reply = self.try_start(vec![StartGroup::new(Some(*parent), runs)], 0).await.expect("start");
        assert!(reply.tasks.is_empty(), "nothing was to be kept");
        reply.groups.into_iter().next().expect("one group")
    }

    /// Starts a child that is not there yet.
    pub(crate) async fn spawn(&self, parent: &Lease, run: NewRun) -> RunId {
        let id = run.id;
        assert_eq!(self.spawn_all(parent, vec![run]).await, Ok(vec![Started::Created]));
        id
    }

    /// Starts a child and claims its first task.
    pub(crate) async fn begin_child(&self, parent: &Lease, run: NewRun) -> Task {
        let (id, queue) = (run.id, run.queue.clone());
        self.spawn(parent, run).await;
        let task = self.claim_from(&queue).await;
        assert_eq!(task.lease.run, id, "the claimed child");
        task
    }

    // Claiming.

    pub(crate) async fn claim(&self, queue: &str, wanted: usize) -> Vec<Task> {
        let claim = Claim { session: self.id, queues: vec![(name(queue), wanted)] };
        let tasks = self.backend.claim(claim).await.expect("claim");
        assert!(tasks.len() <= wanted, "{} tasks, {wanted} were wanted", tasks.len());
        assert!(tasks.iter().all(|task| &*task.queue == queue), "a task of another queue");
        tasks
    }

    /// Claims one task of a queue that must have one.
    pub(crate) async fn claim_from(&self, queue: &str) -> Task {
        let mut tasks = self.claim(queue, 1).await;
        assert_eq!(tasks.len(), 1, "queue {queue:?} has a ready task");
        tasks.remove(0)
    }

    /// Claims one task of the root runs' queue, which must have one.
    pub(crate) async fn claim_one(&self) -> Task {
        self.claim_from(ROOTS).await
    }

    /// Claims one task of the children's queue, which must have one.
    pub(crate) async fn claim_child(&self) -> Task {
        self.claim_from(CHILDREN).await
    }

    /// Claims from a queue that must have nothing ready, which makes the session one that waits for work there.
    pub(crate) async fn claim_none(&self, queue: &str) {
        let tasks = self.claim(queue, 1).await;
        assert!(tasks.is_empty(), "nothing is ready in queue {queue:?}, but {tasks:?}");
    }

    /// The runs of what is ready, in the order of the claims.
    pub(crate) async fn claim_runs(&self, queue: &str, wanted: usize) -> Vec<RunId> {
        self.claim(queue, wanted).await.iter().map(|task| task.lease.run).collect()
    }

    /// What the backend says that the session holds.
    pub(crate) async fn held(&self) -> Vec<Task> {
        self.backend.held(self.id).await.expect("held")
    }

    // Committing.

    /// Commits and gives the whole reply; its events go where received ones go.
    pub(crate) async fn commit_all(&self, commits: Vec<Commit>) -> CommitReply {
        let asked = commits.len();
        let mut reply = self.backend.commit(self.id, commits).await.expect("commit");
        assert_eq!(reply.results.len(), asked, "commit answers for each element");
        self.inbox.push(std::mem::take(&mut reply.events));
        reply
    }

    pub(crate) async fn commit(&self, commit: Commit) -> Result<(), Refused> {
        let mut reply = self.commit_all(vec![commit]).await;
        assert!(reply.tasks.is_empty(), "nothing was to be kept");
        reply.results.remove(0)
    }

    pub(crate) async fn then(&self, task: &Task, then: Then) -> Result<(), Refused> {
        self.commit(commit(task, then)).await
    }

    /// Commits what must not be refused.
    pub(crate) async fn does(&self, task: &Task, then: Then) {
        assert_eq!(self.then(task, then).await, Ok(()));
    }

    pub(crate) async fn parks(&self, task: &Task, wake: Wake) {
        self.does(task, Then::Park(wake)).await;
    }

    /// Ends the run of a task.
    pub(crate) async fn ends(&self, task: &Task, outcome: Outcome) {
        self.does(task, Then::End(outcome)).await;
    }

    /// Ends the run of a task with an output.
    pub(crate) async fn end_ok(&self, task: &Task, output: &str) {
        self.ends(task, ok(output)).await;
    }

    // The journal.

    pub(crate) async fn record_all(&self, writes: Vec<JournalWrite>) -> Vec<Result<Recorded, Refused>> {
        let asked = writes.len();
        let answers = self.backend.record(self.id, writes).await.expect("record");
        assert_eq!(answers.len(), asked, "record answers for each write");
        answers
    }

    pub(crate) async fn try_record(&self, write: JournalWrite) -> Result<Recorded, Refused> {
        self.record_all(vec![write]).await.remove(0)
    }

    /// Writes an entry that must not be refused.
    pub(crate) async fn record(&self, lease: &Lease, entry_name: &str, entry: Entry) -> Recorded {
        self.try_record(write(lease, entry_name, entry)).await.expect("the lease is held")
    }

    /// Writes an entry in the place of what is there.
    pub(crate) async fn replace(&self, lease: &Lease, entry_name: &str, entry: Entry) -> Recorded {
        self.try_record(JournalWrite { replace: true, ..write(lease, entry_name, entry) })
            .await
            .expect("the lease is held")
    }

    // Events.

    pub(crate) async fn watch(&self, run: RunId) -> Watched {
        let mut answers = self.backend.watch(self.id, vec![run]).await.expect("watch");
        assert_eq!(answers.len(), 1, "watch answers for each run");
        answers.remove(0)
    }

    /// Begins to receive, unless it has. From then on one call after the other waits, as in the engine.
    pub(crate) fn listen(&self) {
        lock(&self.ear).get_or_insert_with(|| {
            let (backend, id, inbox) = (self.backend.clone(), self.id, self.inbox.clone());
            tokio::spawn(async move {
                loop {
                    match backend.receive(id).await {
                        Ok(events) => {
                            assert!(!events.is_empty(), "receive gives at least one event");
                            inbox.push(events);
                        }
                        Err(BackendError::SessionLost(_)) => return,
                        Err(error) => panic!("receive: {error:?}"),
                    }
                }
            })
        });
    }

    /// Waits until the session has an event, then until no more come, and gives all of them.
    pub(crate) async fn events(&self) -> Vec<Event> {
        let mut events = self.settle().await;
        let start = Instant::now();
        while events.is_empty() {
            assert!(start.elapsed() < self.pace.limit, "no event came");
            events = self.settle().await;
        }
        events
    }

    /// The one event that the session gets.
    pub(crate) async fn event(&self) -> Event {
        let mut events = self.events().await;
        assert_eq!(events.len(), 1, "one event, but {events:?}");
        events.remove(0)
    }

    /// No event comes.
    pub(crate) async fn hears_nothing(&self) {
        let events = self.settle().await;
        assert!(events.is_empty(), "no event, but {events:?}");
    }

    /// The session is told once that there is work in `queue`, and nothing else.
    pub(crate) async fn hears_of_work(&self, queue: &str) {
        let event = self.event().await;
        assert!(matches!(&event, Event::Work(of) if &**of == queue), "work in {queue:?}, but {event:?}");
    }

    /// Resolutions of the step's journal until there are `wanted`, in the order in which they came; other events are
    /// lost.
    pub(crate) async fn hears_resolved(&self, lease: &Lease, wanted: usize) -> Vec<(EntryKey, Resolved)> {
        let mut resolved = Vec::new();
        while resolved.len() < wanted {
            for event in self.events().await {
                match event {
                    Event::Resolved { run, step, items } if run == lease.run && step == lease.step => {
                        resolved.extend(items);
                    }
                    Event::Resolved { .. } => panic!("a resolution of another journal: {event:?}"),
                    _ => {}
                }
            }
        }
        assert_eq!(resolved.len(), wanted, "each resolution is given once: {resolved:?}");
        resolved
    }

    /// The session is told once how a run ended, and nothing else.
    pub(crate) async fn hears_end(&self, run: RunId, outcome: Outcome) {
        let event = self.event().await;
        assert!(matches!(&event, Event::Ended(id, how) if *id == run && *how == outcome), "{outcome:?}, but {event:?}");
    }

    /// The session is told once that its lease ended, and nothing else.
    pub(crate) async fn hears_revoked(&self, lease: &Lease, why: Revocation) {
        let event = self.event().await;
        assert!(matches!(&event, Event::Revoked(of, how) if of == lease && *how == why), "{why:?}, but {event:?}");
    }

    /// Waits for a question of a check.
    pub(crate) async fn inquiry(&self) -> Inquiry {
        self.listen();
        loop {
            if let Some(inquiry) = lock(&self.inbox.inquiry).take() {
                return inquiry;
            }
            self.inbox.asked.notified().await;
        }
    }

    /// Sweeps when the session is told that something is due, as the engine does, and at no other time, until the condition holds.
    pub(crate) async fn sweeps_when_told(&self, condition: impl AsyncFn() -> bool) {
        self.listen();
        let start = Instant::now();
        while !condition().await {
            assert!(start.elapsed() < self.pace.limit, "it does not happen, and nobody is told that it is due");
            let due = *lock(&self.inbox.due);
            let step = due.unwrap_or(start + self.pace.limit);
            tokio::select! {
                () = tokio::time::sleep_until(step) => {}
                () = self.inbox.due_arrived.notified() => continue,
            }
            lock(&self.inbox.due).take();
            // A millisecond more, since that is what the backend may count in.
            sleep(Duration::from_millis(1)).await;
            if let Some(wait) = self.backend.sweep(1000).await.expect("sweep").due_in {
                self.inbox.is_due_in(wait);
            }
        }
    }

    /// What came so far.
    pub(crate) fn received(&self) -> Vec<Event> {
        lock(&self.inbox.events).drain(..).collect()
    }

    /// What came, once nothing comes any more.
    pub(crate) async fn settle(&self) -> Vec<Event> {
        self.listen();
        while timeout(self.pace.quiet, self.inbox.arrived.notified()).await.is_ok() {}
        self.received()
    }
}

/// The session was refused.
#[track_caller]
pub(crate) fn assert_session_lost<T: std::fmt::Debug>(answer: BackendResult<T>, id: SessionId) {
    match answer {
        Err(BackendError::SessionLost(lost)) => assert_eq!(lost, id, "the lost session"),
        other => panic!("session {id} is not open, but {other:?}"),
    }
}

/// A lease with another token.
pub(crate) fn forged(lease: &Lease) -> Lease {
    Lease { token: lease.token ^ 1, ..*lease }
}

pub(crate) fn names(names: &[&str]) -> Vec<Name> {
    names.iter().map(name).collect()
}

/// Starts root runs of these workflows.
pub(crate) async fn start_all_of(h: &Harness, workflows: &[&str]) -> Vec<RunId> {
    h.start_many(workflows.iter().map(|workflow| root().of(workflow)).collect()).await
}

/// Claims until nothing is left for this session. Returns the runs in the order of the claims.
pub(crate) async fn claim_all(worker: &Worker, wanted: usize) -> Vec<RunId> {
    let mut runs = Vec::new();
    loop {
        let some = worker.claim_runs(ROOTS, wanted).await;
        if some.is_empty() {
            return runs;
        }
        runs.extend(some);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no case panics with a lock held")
}
