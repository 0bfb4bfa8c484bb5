//! Calls that mean the same to both backends, and what one of them answers, without what is its own: tokens and times.
//!
//! Leases have numbers here: the n-th lease that was given in a sequence. What the backends may do in any order is
//! sorted.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    sync::{Arc, Mutex},
    time::Duration,
};

use hatchet_core::backend::*;
use tokio::{sync::Notify, task::JoinHandle};

/// What no sequence lives to see.
pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// How long an event may take. Nothing waits that long unless something is broken.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is over after a [`MOMENT`].
pub(crate) const SOON: Duration = Duration::from_millis(1);
pub(crate) const MOMENT: Duration = Duration::from_millis(3);

/// Of a [`Wake`] that is planned: the step has seen its journal as far as there is one.
pub(crate) const ALL: u64 = u64::MAX;

/// A session, by its number.
pub(crate) type SessionNumber = usize;
/// A lease, by its number.
pub(crate) type LeaseNumber = usize;

#[derive(Clone, Debug)]
pub(crate) enum Call {
    Open(SessionNumber),
    /// Closes a session; another one claims all that became ready by it.
    Close(SessionNumber, SessionNumber),
    /// Lets a session die; another one claims all that became ready by it.
    Die(SessionNumber, SessionNumber),
    Heartbeat(SessionNumber),
    Start(SessionNumber, Vec<PlannedGroup>, usize),
    Claim(SessionNumber, Vec<(Name, usize)>),
    Held(SessionNumber),
    Commit(SessionNumber, Vec<PlannedCommit>),
    Record(SessionNumber, Vec<PlannedWrite>),
    Journal(RunId, StepIndex, usize),
    Load(RunId),
    Watch(SessionNumber, Vec<RunId>),
    Cancel(Vec<RunId>, Name),
    Remove(Vec<RunId>),
    Signal(RunId, Name, u128, Payload),
    Get(Vec<RunId>),
    List(Query),
    Counts,
    Workflows,
    Pause(Pausable),
    Unpause(Pausable),
    Paused,
    /// Reads all events that a session has got.
    Drain(SessionNumber),
}

impl Call {
    /// Whether something may be due by it.
    pub(crate) fn changes_something(&self) -> bool {
        use Call::{Cancel, Close, Commit, Die, Record, Remove, Signal, Start};
        matches!(self, Close(..) | Die(..) | Start(..) | Commit(..) | Record(..) | Cancel(..) | Remove(..) | Signal(..))
    }

    /// Whether a moment must pass before all that is due by it is so on every clock.
    pub(crate) fn needs_a_moment(&self) -> bool {
        match self {
            Self::Start(_, groups, _) => groups
                .iter()
                .flat_map(|(_, runs, _)| runs)
                .any(|run| [run.extras.timeout, run.extras.queue_timeout].contains(&Some(SOON))),
            Self::Commit(_, commits) => {
                commits.iter().any(|commit| matches!(&commit.then, Then::Park(wake) if wake.within == Some(SOON)))
            }
            _ => false,
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct PlannedCommit {
    pub(crate) lease: LeaseNumber,
    pub(crate) state: Option<StateChange>,
    pub(crate) outputs: Vec<(StepIndex, Payload)>,
    pub(crate) ready: Vec<ReadyStep>,
    pub(crate) then: Then,
    pub(crate) known: Known,
}

/// Runs to start: by which lease, and what its step knows.
pub(crate) type PlannedGroup = (Option<LeaseNumber>, Vec<NewRun>, Known);
/// An entry to write: by which lease, its name, whether it replaces one, and what its step knows.
pub(crate) type PlannedWrite = (LeaseNumber, Name, Entry, bool, Known);

/// What a call answered.
#[derive(Debug)]
pub(crate) struct Answer {
    /// All that must be the same on both sides.
    pub(crate) text: String,
    /// What the next calls are planned by.
    pub(crate) facts: Facts,
}

#[derive(Debug, Default)]
pub(crate) struct Facts {
    /// The tasks that the session holds now by this call, with their lease numbers.
    pub(crate) tasks: Vec<(LeaseNumber, Task)>,
    /// Of a commit, what became of each.
    pub(crate) results: Vec<Result<(), Refused>>,
    /// Of a start, what became of each run, where its group was not refused.
    pub(crate) started: Vec<(RunId, Started)>,
}

/// The events that were read.
#[derive(Debug, Default)]
struct Inbox {
    events: Mutex<BTreeMap<SessionId, Vec<Event>>>,
    arrived: Notify,
}

impl Inbox {
    fn put(&self, session: SessionId, events: Vec<Event>) {
        self.events.lock().expect("events").entry(session).or_default().extend(events);
        self.arrived.notify_one();
    }

    /// All events of a session if this run's end is among them, without that one.
    fn take_before(&self, session: SessionId, sentinel: RunId) -> Option<Vec<Event>> {
        let is_sentinel = |event: &Event| matches!(event, Event::Ended(ended, _) if *ended == sentinel);
        let mut events = self.events.lock().expect("events");
        let of_session = events.entry(session).or_default();
        let at = of_session.iter().position(is_sentinel)?;
        of_session.remove(at);
        Some(std::mem::take(of_session))
    }
}

/// One backend, what it gave so far, and the readers of its events.
#[derive(Debug)]
pub(crate) struct Side {
    pub(crate) backend: Arc<dyn Backend>,
    /// Sessions in the order in which they were opened.
    sessions: Vec<SessionId>,
    leases: Vec<Lease>,
    /// Of each lease, the sequence number of its journal when it was given.
    sequences: BTreeMap<LeaseNumber, u64>,
    inbox: Arc<Inbox>,
    readers: BTreeMap<SessionId, JoinHandle<()>>,
    /// Whether it matters which session is told of work. Where several wait, it may be any of them.
    counts_work: bool,
    sentinels: u128,
}

impl Side {
    pub(crate) fn new(backend: Arc<dyn Backend>, sessions: Vec<SessionId>, counts_work: bool) -> Self {
        Self {
            backend,
            sessions,
            leases: Vec::new(),
            sequences: BTreeMap::new(),
            inbox: Arc::default(),
            readers: BTreeMap::new(),
            counts_work,
            sentinels: 0,
        }
    }

    /// Makes a call. What is due by it is another matter: [`Self::sweep`].
    pub(crate) async fn perform(&mut self, call: &Call) -> Answer {
        let mut facts = Facts::default();
        let text = match call {
            Call::Open(session) => self.open(*session, HOUR).await,
            Call::Close(session, heir) => {
                let answer = self.backend.close(self.sessions[*session]).await;
                self.inherit(answer, *session, *heir, &mut facts).await
            }
            Call::Die(session, heir) => {
                let answer = self.open(*session, Duration::from_millis(1)).await;
                tokio::time::sleep(Duration::from_millis(4)).await;
                self.inherit(answer, *session, *heir, &mut facts).await
            }
            Call::Heartbeat(session) => {
                show(&self.backend.heartbeat(self.sessions[*session]).await.map(|_| ()).map_err(kind))
            }
            Call::Start(session, groups, keep) => self.start(*session, groups, *keep, &mut facts).await,
            Call::Claim(session, queues) => {
                let session = self.sessions[*session];
                let answer = self.backend.claim(Claim { session, queues: queues.clone() }).await.map_err(kind);
                match answer {
                    Ok(tasks) => show(&self.take(tasks, &mut facts).await),
                    Err(error) => error,
                }
            }
            Call::Held(session) => {
                let answer = self.backend.held(self.sessions[*session]).await.map_err(kind);
                show(&answer.map(|tasks| sorted(tasks.iter().map(|task| self.task_text(task)).collect())))
            }
            Call::Commit(session, commits) => self.commit(*session, commits, &mut facts).await,
            Call::Record(session, writes) => self.record(*session, writes).await,
            Call::Journal(run, step, limit) => self.journal(*run, *step, *limit).await,
            Call::Load(run) => {
                let mut data = self.backend.load(*run).await.map_err(kind);
                data.iter_mut().flatten().for_each(|data| data.outputs.sort_unstable());
                show(&data)
            }
            Call::Watch(session, runs) => {
                show(&self.backend.watch(self.sessions[*session], runs.clone()).await.map_err(kind))
            }
            Call::Cancel(runs, reason) => {
                show(&self.backend.cancel(runs.clone(), Arc::clone(reason)).await.map_err(kind))
            }
            Call::Remove(runs) => show(&self.backend.remove(runs.clone()).await.map_err(kind)),
            Call::Signal(run, name, id, payload) => {
                show(&self.backend.signal(*run, Arc::clone(name), *id, payload.clone()).await.map_err(kind))
            }
            Call::Get(runs) => {
                let views = self.backend.get(runs.clone()).await.map_err(kind);
                show(&views.map(|views| views.into_iter().map(|view| view.map(plain_view)).collect::<Vec<_>>()))
            }
            Call::List(query) => self.list(query).await,
            Call::Counts => {
                let mut counts = self.backend.counts().await.expect("counts");
                counts.retain(|_, counts| *counts != QueueCounts::default());
                show(&counts)
            }
            Call::Workflows => show(&self.backend.workflows().await.map_err(kind)),
            Call::Pause(what) => show(&self.backend.pause(what.clone()).await.map(|_| ()).map_err(kind)),
            Call::Unpause(what) => show(&self.backend.unpause(what.clone()).await.map_err(kind)),
            Call::Paused => {
                let paused = self.backend.paused().await.map_err(kind);
                show(&paused.map(|paused| paused.into_iter().map(|pause| pause.what).collect::<Vec<_>>()))
            }
            Call::Drain(session) => self.drain(*session).await,
        };
        Answer { text, facts }
    }

    /// Does everything that is due.
    pub(crate) async fn sweep(&self) {
        while self.backend.sweep(1000).await.expect("sweep").changes > 0 {}
    }

    async fn open(&mut self, session: SessionNumber, lease: Duration) -> String {
        let id = self.sessions[session];
        let (workflows, queues) = announced(session);
        let answer = self.backend.open(SessionSpec { id, label: "test".into(), lease, workflows, queues }).await;
        if answer.is_ok() {
            self.read_events(id);
        }
        show(&answer.map_err(kind))
    }

    fn read_events(&mut self, session: SessionId) {
        let (backend, inbox) = (Arc::clone(&self.backend), Arc::clone(&self.inbox));
        self.readers.entry(session).or_insert_with(|| {
            tokio::spawn(async move {
                while let Ok(some) = backend.receive(session).await {
                    inbox.put(session, some);
                }
            })
        });
    }

    /// What a session held that is over becomes ready in an order that the contract leaves open, so that all of it is
    /// claimed.
    async fn inherit(&mut self, answer: impl Debug, session: usize, heir: usize, facts: &mut Facts) -> String {
        self.sweep().await;
        if let Some(reader) = self.readers.remove(&self.sessions[session]) {
            reader.abort();
        }
        let queues = QUEUES.map(|queue| (Name::from(queue), 1000)).to_vec();
        let mut tasks = match self.backend.claim(Claim { session: self.sessions[heir], queues }).await {
            Ok(tasks) => tasks,
            Err(error) => return format!("{answer:?}, {}", kind(error)),
        };
        tasks.sort_unstable_by_key(|task| (task.lease.run, task.lease.step));
        format!("{answer:?}, then {:?}", self.take(tasks, facts).await)
    }

    /// Gives leases their numbers.
    async fn take(&mut self, tasks: Vec<Task>, facts: &mut Facts) -> Vec<String> {
        let mut texts = Vec::new();
        for task in tasks {
            texts.push(self.task_text(&task));
            if task.journaled {
                let page = self.backend.journal(task.lease.run, task.lease.step, None, 0).await.expect("journal");
                self.sequences.insert(self.leases.len(), page.sequence);
            }
            facts.tasks.push((self.leases.len(), task.clone()));
            self.leases.push(task.lease);
        }
        texts
    }

    fn task_text(&self, task: &Task) -> String {
        let Task { lease, workflow, queue, priority, input, attempt, recoveries, first, .. } = task;
        let Lease { run, step, token: _ } = lease;
        let hours = task.run_left.map(|left| (left.as_secs() + 1800) / 3600);
        let Task { key, metadata, headers, .. } = task;
        format!(
            "{run} {step:?} {workflow} {queue} {priority:?} {input:?} attempt {attempt} recoveries {recoveries} \
             first {first} left {hours:?} key {key:?} {metadata:?} {headers:?}"
        )
    }

    async fn start(
        &mut self,
        session: SessionNumber,
        groups: &[PlannedGroup],
        keep: usize,
        facts: &mut Facts,
    ) -> String {
        let session = self.sessions[session];
        let group = |(parent, runs, known): &PlannedGroup| StartGroup {
            parent: parent.map(|lease| self.leases[lease]),
            runs: runs.clone(),
            known: *known,
        };
        let request = Start { session, groups: groups.iter().map(group).collect(), keep };
        let reply = match self.backend.start(request).await {
            Ok(reply) => reply,
            Err(error) => return kind(error),
        };
        for ((_, runs, _), answers) in groups.iter().zip(&reply.groups) {
            for (run, answer) in runs.iter().zip(answers.iter().flatten()) {
                facts.started.push((run.id, answer.clone()));
            }
        }
        format!("{:?}\nkept {:?}", reply.groups, self.take(reply.tasks, facts).await)
    }

    async fn commit(&mut self, session: SessionNumber, commits: &[PlannedCommit], facts: &mut Facts) -> String {
        let session = self.sessions[session];
        let mut batch = Vec::new();
        for PlannedCommit { lease, state, outputs, ready, then, known } in commits.iter().cloned() {
            let mut commit = Commit::new(self.leases[lease], then);
            (commit.state, commit.outputs, commit.ready, commit.known) = (state, outputs, ready, known);
            if let Then::Park(wake) = &mut commit.then
                && wake.seen == ALL
            {
                let Lease { run, step, .. } = commit.lease;
                wake.seen = self.backend.journal(run, step, None, 0).await.expect("journal").sequence;
            }
            batch.push(commit);
        }
        let reply = match self.backend.commit(session, batch).await {
            Ok(reply) => reply,
            Err(error) => return kind(error),
        };
        // Events come here or by `receive`.
        self.inbox.put(session, reply.events);
        facts.results.clone_from(&reply.results);
        format!("{:?}\nkept {:?}", reply.results, self.take(reply.tasks, facts).await)
    }

    async fn record(&self, session: SessionNumber, writes: &[PlannedWrite]) -> String {
        let plan = |(lease, name, entry, replace, known): &PlannedWrite| JournalWrite {
            lease: self.leases[*lease],
            name: Arc::clone(name),
            entry: entry.clone(),
            replace: *replace,
            known: *known,
        };
        let answer = self.backend.record(self.sessions[session], writes.iter().map(plan).collect()).await;
        let plain = |recorded: Recorded| Recorded { at: Timestamp(0), ..recorded };
        let answer = answer.map(|answers| answers.into_iter().map(|answer| answer.map(plain)).collect::<Vec<_>>());
        show(&answer.map_err(kind))
    }

    async fn journal(&self, run: RunId, step: StepIndex, limit: usize) -> String {
        let mut cursor = None;
        let mut items = Vec::new();
        loop {
            let page = match self.backend.journal(run, step, cursor, limit).await {
                Ok(page) => page,
                Err(error) => return kind(error),
            };
            assert!(page.items.len() <= limit, "a page has more than its limit");
            items.extend(page.items);
            cursor = page.next;
            if cursor.is_none() || limit == 0 {
                self.forget_order_of_cancellations(run, &mut items).await;
                let texts = items.into_iter().map(|item| format!("{:?}", plain_item(item))).collect();
                return format!("sequence {}, {:?}", page.sequence, sorted(texts));
            }
        }
    }

    /// When a run ends, its children are cancelled in an order that is left open.
    async fn forget_order_of_cancellations(&self, run: RunId, items: &mut [JournalItem]) {
        if !items.iter().any(is_cancelled) {
            return;
        }
        let view = self.backend.get(vec![run]).await.expect("get").remove(0);
        if view.is_some_and(|view| view.status.is_terminal()) {
            for item in items.iter_mut().filter(|item| is_cancelled(item)) {
                item.resolved.iter_mut().for_each(|resolved| resolved.sequence = 0);
            }
        }
    }

    async fn list(&self, query: &Query) -> String {
        let mut query = query.clone();
        let mut runs = Vec::new();
        loop {
            let page = match self.backend.list(query.clone()).await {
                Ok(page) => page,
                Err(error) => return kind(error),
            };
            assert!(page.runs.len() <= query.limit, "a page has more than its limit");
            runs.extend(page.runs);
            query.cursor = page.next;
            if query.cursor.is_none() {
                break;
            }
        }
        let is_sorted = runs.is_sorted_by(|a, b| a.created >= b.created);
        assert!(is_sorted || query.parent.is_some(), "a list is not newest first: {runs:#?}");
        if query.limit == 1 {
            self.check_moments(&query, &runs).await;
        }
        // Which of two comes first that were created in the same millisecond is left open.
        show(&sorted(runs.into_iter().map(|run| show(&plain_view(run))).collect()))
    }

    /// A list that is limited in time has exactly those of the whole that fall into it.
    async fn check_moments(&self, query: &Query, all: &[RunView]) {
        let Some(pivot) = all.get(all.len() / 2).map(|run| run.created) else { return };
        let whole = Query { limit: 1000, cursor: None, ..query.clone() };
        for (from, before) in [(Some(pivot), None), (None, Some(pivot))] {
            let part = Query { created_from: from, created_before: before, ..whole.clone() };
            let listed = self.backend.list(part).await.expect("list").runs;
            let ids = |runs: &[RunView]| sorted(runs.iter().map(|run| run.id.to_string()).collect());
            let fits = |run: &&RunView| from.is_none_or(|from| run.created >= from);
            let expected: Vec<_> =
                all.iter().filter(fits).filter(|run| before.is_none_or(|to| run.created < to)).cloned().collect();
            assert_eq!(ids(&listed), ids(&expected), "created from {from:?} before {before:?}");
        }
    }

    /// Reads the events of a session up to one that it causes itself.
    async fn drain(&mut self, session: SessionNumber) -> String {
        let id = self.sessions[session];
        self.sentinels += 1;
        let uid = (self.sentinels << 32) | (u128::MAX << 64) | u128::from(self.partition());
        let run = RunId::from_uid(uid);
        let mut extras = Extras::default();
        extras.delay = Some(HOUR);
        let new = NewRun {
            id: run,
            workflow: "sentinel".into(),
            queue: "sentinel".into(),
            priority: Priority::Normal,
            input: Payload::new(),
            fingerprint: 0,
            key: None,
            extras,
        };
        let groups = vec![StartGroup::new(None, vec![new])];
        if let Err(error) = self.backend.start(Start { session: id, groups, keep: 0 }).await {
            return kind(error);
        }
        self.backend.watch(id, vec![run]).await.expect("watch");
        self.backend.cancel(vec![run], "sentinel".into()).await.expect("cancel");
        loop {
            if let Some(events) = self.inbox.take_before(id, run) {
                let held = self.backend.held(id).await.expect("held").into_iter().map(|task| task.lease).collect();
                return self.events_text(events, held);
            }
            let arrived = tokio::time::timeout(PATIENCE, self.inbox.arrived.notified()).await;
            assert!(arrived.is_ok(), "an event does not come; there are {:?}", self.inbox);
        }
    }

    /// The partition of all runs of a sequence: the order between those of different ones is left open.
    fn partition(&self) -> u16 {
        (self.sessions[0].0 & 0xffff) as u16
    }

    /// What the events tell that must be told: of a journal, what was resolved since its task was claimed, as long as
    /// that is held.
    fn events_text(&self, events: Vec<Event>, held: Vec<Lease>) -> String {
        let mut resolved: BTreeMap<(RunId, StepIndex), Vec<(EntryKey, Resolved)>> = BTreeMap::new();
        let mut others = Vec::new();
        for event in events {
            match event {
                Event::Work(queue) if self.counts_work => others.push(format!("work in {queue}")),
                Event::Resolved { run, step, items } => {
                    let Some(lease) = held.iter().find(|lease| (lease.run, lease.step) == (run, step)) else {
                        continue;
                    };
                    let since = self.number_of(lease).and_then(|number| self.sequences.get(&number)).copied();
                    let items = items.into_iter().filter(|(_, resolved)| resolved.sequence > since.unwrap_or(0));
                    resolved.entry((run, step)).or_default().extend(items);
                }
                Event::Ended(run, outcome) => others.push(format!("{run} ended: {outcome:?}")),
                Event::Revoked(lease, why) => {
                    let number = self.number_of(&lease);
                    others.push(format!("lease {number:?} of {} {:?} revoked: {why:?}", lease.run, lease.step));
                }
                // Which session gets the others is left open.
                _ => {}
            }
        }
        resolved.retain(|_, items| !items.is_empty());
        // By their sequence numbers, since those of a commit's own reply overtake.
        resolved.values_mut().for_each(|items| items.sort_by_key(|(_, resolved)| resolved.sequence));
        format!("{:?} {resolved:?}", sorted(others))
    }

    fn number_of(&self, lease: &Lease) -> Option<LeaseNumber> {
        self.leases.iter().position(|known| known == lease)
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        self.readers.values().for_each(JoinHandle::abort);
    }
}

/// The workflows and queues that a session announces.
fn announced(session: SessionNumber) -> (Vec<Name>, Vec<Name>) {
    let workflows: &[&str] = [&["V", "W"][..], &["V"], &["W"], &["W", "V"]][session % 4];
    let queues: &[&str] = [&["p", "q"][..], &["q"]][session / 2 % 2];
    let names = |names: &[&str]| names.iter().copied().map(Name::from).collect();
    (names(workflows), names(queues))
}

/// All queues of a sequence.
pub(crate) const QUEUES: [&str; 2] = ["p", "q"];

fn show(value: &impl Debug) -> String {
    format!("{value:?}")
}

fn sorted(mut texts: Vec<String>) -> Vec<String> {
    texts.sort_unstable();
    texts
}

/// An error as far as both backends give the same.
fn kind(error: BackendError) -> String {
    match error {
        BackendError::SessionLost(_) => "session lost".to_owned(),
        BackendError::Unavailable { .. } => panic!("nothing is unavailable: {error:?}"),
        other => format!("unusable: {other:?}"),
    }
}

fn is_cancelled(item: &JournalItem) -> bool {
    let resolution = item.resolved.as_ref().map(|resolved| &resolved.resolution);
    matches!(resolution, Some(Resolution::Child(Outcome::Cancelled { .. })))
}

fn plain_item(mut item: JournalItem) -> JournalItem {
    if let Content::Entry(_, at) = &mut item.content {
        *at = Timestamp(0);
    }
    item
}

/// A view without its moments, whose order is checked.
fn plain_view(mut view: RunView) -> RunView {
    let moments = [Some(view.created), view.started, view.ended];
    assert!(moments.iter().flatten().is_sorted(), "created, started and ended are not in order: {view:#?}");
    assert_eq!(view.ended.is_some(), view.status.is_terminal(), "{view:#?}");
    let zero = |moment: Option<Timestamp>| moment.map(|_| Timestamp(0));
    (view.created, view.started, view.ended) = (Timestamp(0), zero(view.started), zero(view.ended));
    view.outputs.sort_unstable();
    for task in &mut view.tasks {
        if let TaskPhase::Delayed { until } = &mut task.phase {
            *until = Timestamp(0);
        }
    }
    view
}
