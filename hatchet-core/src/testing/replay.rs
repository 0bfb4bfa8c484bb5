//! Checks histories of runs against the current code: each step in progress is replayed by a worker of its own, whose
//! backend contains only the history.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use tokio::sync::Notify;

use crate::{
    backend::{
        Activity, Announced, Backend, BackendInfo, BackendResult, Cancelled, Claim, Clock, Commit, CommitReply, Event,
        FsckOptions, FsckReport, Heartbeat, Inquiry, JournalItem, JournalPage, JournalWrite, Lease, Name, Pausable,
        Pause, Payload, Query, QueueCounts, Recorded, Refused, Removed, RunData, RunId, RunPage, RunView, SessionId,
        SessionSpec, SessionView, Signalled, Start, StartReply, StepIndex, Swept, Task, Then, Timestamp, Watched,
    },
    catalog::announced_only_step,
    client::Hatchet,
    engine::{lock, rehearsal::Rehearsal},
    error::Error,
    history::{History, StepPhase},
    mismatch::Stall,
    payload::{self, PayloadError},
    registry::{Registry, announced},
    workflow::AnyWorkflow,
};

/// How long a step may wait for anything other than its journal.
const PATIENCE: Duration = Duration::from_secs(30);

/// The result of a check: what the current code does with a history.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Replayed {
    /// The run continues from where it is.
    GoesOn {
        /// The stored calls that could not be compared. Before them, the code makes a call without a stored answer, or waits
        /// for an event that has not happened.
        unchecked: Vec<String>,
    },
    /// The run would be stalled: its stored data does not match the code.
    Stalls(Vec<Stall>),
    /// A step would fail: its code returned an error before it reached its stored position.
    Fails {
        /// The name of the step.
        step: String,
        /// The error.
        error: String,
    },
}

impl Replayed {
    /// Returns true if the run continues.
    pub fn goes_on(&self) -> bool {
        matches!(self, Self::GoesOn { .. })
    }
}

impl fmt::Display for Replayed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::GoesOn { unchecked } if unchecked.is_empty() => f.write_str("the run continues from here"),
            Self::GoesOn { unchecked } => {
                write!(f, "the run continues from here; not checked: [{}]", unchecked.join(", "))
            }
            Self::Stalls(stalls) => {
                let stalls: Vec<String> = stalls.iter().map(Stall::to_string).collect();
                write!(f, "the run is stalled: {}", stalls.join("; "))
            }
            Self::Fails { step, error } => write!(f, "step {step:?} fails in its replay: {error}"),
        }
    }
}

/// Checks a history against the workflows that `make` creates.
pub(super) async fn check(
    history: &History,
    registry: &Registry,
    workflows: impl Fn() -> Vec<AnyWorkflow>,
    annotated: bool,
) -> Result<Replayed, Error> {
    history.check_format()?;
    if registry.get(&history.workflow).is_none() {
        return announced(&history.workflow, Ok(Err(registry.names())));
    }
    let mut stalls = Vec::new();
    let mut unchecked = Vec::new();
    let mut fails = None;
    for step in steps_to_check(history) {
        let rehearsal = Arc::new(Rehearsal::default());
        let stage = Arc::new(Stage::new(history, step, registry)?);
        let mut worker = Hatchet::on(Arc::clone(&stage) as Arc<dyn Backend>)
            .worker()
            .label("check_replay")
            .park_after(Duration::ZERO)
            .rehearsing(Arc::clone(&rehearsal));
        worker = workflows().into_iter().fold(worker, |worker, workflow| worker.register_any(workflow));
        let worker = if annotated { worker } else { worker.only_registered() }.start().await?;
        let fate = tokio::time::timeout(PATIENCE, stage.fate()).await.unwrap_or(Fate::GoesOn);
        worker.crash().await;
        let learnt = rehearsal.learnt();
        unchecked.extend(learnt.unchecked);
        // A step that failed has returned an error before.
        let failed = history.steps.get(step).is_some_and(|step| step.state == StepPhase::Failed);
        if let Some(error) = learnt.error.filter(|_| !failed && fails.is_none()) {
            fails = Some(Replayed::Fails { step: name_of(history, step, registry), error });
        }
        if let Fate::Stalls(reason) = fate {
            stalls.push(payload::decode("the reason of a stall", &reason)?);
        }
    }
    Ok(match fails {
        _ if !stalls.is_empty() => Replayed::Stalls(stalls),
        Some(fails) => fails,
        None => Replayed::GoesOn { unchecked },
    })
}

/// The steps that would be replayed: of a run that has ended all of them, as if each was under way, else those that are.
fn steps_to_check(history: &History) -> Vec<usize> {
    let is_over = history.status.is_terminal();
    let would_replay = |phase| match phase {
        StepPhase::Active => true,
        StepPhase::Succeeded | StepPhase::Failed => is_over,
        StepPhase::Waiting | StepPhase::Cancelled | StepPhase::Restarted => false,
    };
    let steps = history.steps.iter().enumerate();
    let mut steps: Vec<usize> = steps.filter(|(_, step)| would_replay(step.state)).map(|(number, _)| number).collect();
    if steps.is_empty() {
        // Its first task shows whether the code has what has begun.
        steps.push(0);
    }
    steps
}

fn name_of(history: &History, step: usize, registry: &Registry) -> String {
    let stored = history.steps.get(step).and_then(|step| step.name.clone());
    let only = || Some(registry.get(&history.workflow)?.definition().steps.first()?.name.to_owned());
    stored.or_else(only).unwrap_or_default().trim_start_matches('#').to_owned()
}

/// What became of the task.
#[derive(Clone, Debug)]
enum Fate {
    GoesOn,
    /// With this reason.
    Stalls(Payload),
}

/// A backend with one task, of a step of a history. What is written to it is lost.
#[derive(Debug)]
struct Stage {
    task: Task,
    data: Mutex<RunData>,
    sequence: u64,
    items: Vec<JournalItem>,
    workflows: Vec<Name>,
    holder: Mutex<Option<SessionId>>,
    fate: Mutex<Option<Fate>>,
    decided: Notify,
}

impl Stage {
    fn new(history: &History, step: usize, registry: &Registry) -> Result<Self, Error> {
        let stored = history.steps.get(step);
        let entries = stored.map_or(&[][..], |step| &step.journal);
        let items: Option<Vec<JournalItem>> = entries.iter().map(|entry| entry.to_item()).collect();
        let items = items.ok_or_else(incomplete)?;
        let active = stored.is_some_and(|step| step.state != StepPhase::Waiting && step.state != StepPhase::Restarted);
        let state = history.state_with_active(if active { step } else { usize::MAX });
        let lease = Lease { run: history.run, step: StepIndex(step as u16), token: 1 };
        let task = Task {
            lease,
            workflow: history.workflow.as_str().into(),
            queue: "".into(),
            priority: history.priority,
            input: history.input(),
            attempt: stored.map_or(1, |step| step.attempt),
            recoveries: 0,
            journaled: !items.is_empty(),
            first: step == 0,
            has_state: !state.is_empty(),
            is_new: false,
            age: Duration::ZERO,
            run_left: None,
            key: history.key.as_deref().map(Name::from),
            metadata: Some(Arc::new(history.metadata.clone())),
            headers: Some(Arc::new(history.headers.clone())),
        };
        let only_steps = history.only_steps.iter().map(|step| announced_only_step(&history.workflow, step));
        let workflows = registry.names().into_iter().chain(only_steps).collect();
        Ok(Self {
            task,
            data: Mutex::new(RunData { input: history.input(), state, outputs: history.outputs() }),
            sequence: stored.map_or(0, |step| step.sequence),
            items,
            workflows,
            holder: Mutex::default(),
            fate: Mutex::default(),
            decided: Notify::new(),
        })
    }

    async fn fate(&self) -> Fate {
        loop {
            let decided = self.decided.notified();
            if let Some(fate) = lock(&self.fate).clone() {
                return fate;
            }
            decided.await;
        }
    }

    fn page(&self, cursor: Option<u64>, limit: usize) -> JournalPage {
        let from = cursor.unwrap_or_default() as usize;
        let items: Vec<_> = self.items.iter().skip(from).take(limit).cloned().collect();
        let next = from + items.len();
        let is_last = limit == 0 || next >= self.items.len();
        JournalPage { items, next: (!is_last).then_some(next as u64), sequence: self.sequence }
    }

    fn commit_one(&self, commit: Commit) {
        if let Some(change) = commit.state {
            lock(&self.data).state = change.new;
        }
        let fate = match commit.then {
            Then::Continue | Then::Wait { .. } => return,
            Then::Stall { reason, .. } => Fate::Stalls(reason),
            _ => Fate::GoesOn,
        };
        lock(&self.fate).get_or_insert(fate);
        self.decided.notify_waiters();
    }
}

fn incomplete() -> Error {
    let source = serde::de::Error::custom("an entry of a journal lacks a required field");
    Error::Payload(PayloadError::Decode { what: "a history".to_owned(), expected: "the history of a run", source })
}

#[async_trait]
impl Backend for Stage {
    fn info(&self) -> BackendInfo {
        BackendInfo { name: "history", clock: Clock::Runtime, max_batch: 1024, partitions: 1 }
    }

    async fn open(&self, _session: SessionSpec) -> BackendResult<()> {
        Ok(())
    }

    async fn heartbeat(&self, _session: SessionId) -> BackendResult<Heartbeat> {
        Ok(Heartbeat::default())
    }

    async fn close(&self, _session: SessionId) -> BackendResult<()> {
        Ok(())
    }

    async fn workflows(&self) -> BackendResult<Vec<Name>> {
        Ok(self.workflows.clone())
    }

    async fn announced(&self) -> BackendResult<Vec<Announced>> {
        Ok(vec![Announced::new(self.workflows.iter().cloned(), [Name::clone(&self.task.queue)])])
    }

    async fn sessions(&self) -> BackendResult<Vec<SessionView>> {
        Ok(Vec::new())
    }

    async fn activity(&self, _from: Timestamp, _before: Timestamp) -> BackendResult<Vec<Activity>> {
        Ok(Vec::new())
    }

    async fn pause(&self, _what: Pausable) -> BackendResult<Timestamp> {
        Ok(Timestamp::default())
    }

    async fn unpause(&self, _what: Pausable) -> BackendResult<bool> {
        Ok(false)
    }

    async fn paused(&self) -> BackendResult<Vec<Pause>> {
        Ok(Vec::new())
    }

    /// The code makes no calls that are not stored.
    async fn start(&self, _request: Start) -> BackendResult<StartReply> {
        std::future::pending().await
    }

    async fn claim(&self, request: Claim) -> BackendResult<Vec<Task>> {
        let mut holder = lock(&self.holder);
        let Some((queue, _)) = request.queues.iter().find(|(_, wanted)| *wanted > 0) else { return Ok(Vec::new()) };
        if holder.is_some() {
            return Ok(Vec::new());
        }
        *holder = Some(request.session);
        Ok(vec![Task { queue: Name::clone(queue), ..self.task.clone() }])
    }

    async fn held(&self, session: SessionId) -> BackendResult<Vec<Task>> {
        let is_held = *lock(&self.holder) == Some(session) && lock(&self.fate).is_none();
        Ok(if is_held { vec![self.task.clone()] } else { Vec::new() })
    }

    async fn disown(&self, _session: SessionId, _inquiry: Inquiry, _leases: Vec<Lease>) -> BackendResult<()> {
        Ok(())
    }

    async fn commit(&self, _session: SessionId, commits: Vec<Commit>) -> BackendResult<CommitReply> {
        let results = vec![Ok(()); commits.len()];
        commits.into_iter().for_each(|commit| self.commit_one(commit));
        Ok(CommitReply { results, ..CommitReply::default() })
    }

    /// Only the engine's own notes come here.
    async fn record(
        &self,
        _session: SessionId,
        writes: Vec<JournalWrite>,
    ) -> BackendResult<Vec<Result<Recorded, Refused>>> {
        let record =
            |write: JournalWrite| Recorded { written: true, entry: write.entry, at: Timestamp(0), resolved: None };
        Ok(writes.into_iter().map(|write| Ok(record(write))).collect())
    }

    async fn journal(
        &self,
        _run: RunId,
        _step: StepIndex,
        cursor: Option<u64>,
        limit: usize,
    ) -> BackendResult<JournalPage> {
        Ok(self.page(cursor, limit))
    }

    async fn sequences(&self, steps: Vec<(RunId, StepIndex)>) -> BackendResult<Vec<u64>> {
        Ok(vec![self.sequence; steps.len()])
    }

    async fn load(&self, _run: RunId) -> BackendResult<Option<RunData>> {
        Ok(Some(lock(&self.data).clone()))
    }

    async fn watch(&self, _session: SessionId, runs: Vec<RunId>) -> BackendResult<Vec<Watched>> {
        Ok(vec![Watched::Pending; runs.len()])
    }

    async fn receive(&self, _session: SessionId) -> BackendResult<Vec<Event>> {
        std::future::pending().await
    }

    async fn cancel(&self, runs: Vec<RunId>, _reason: Name) -> BackendResult<Vec<Cancelled>> {
        Ok(vec![Cancelled::NotFound; runs.len()])
    }

    async fn remove(&self, runs: Vec<RunId>) -> BackendResult<Vec<Removed>> {
        Ok(vec![Removed::NotFound; runs.len()])
    }

    async fn resume(&self, runs: Vec<RunId>) -> BackendResult<Vec<usize>> {
        Ok(vec![0; runs.len()])
    }

    async fn signal(&self, _run: RunId, _name: Name, _id: u128, _payload: Payload) -> BackendResult<Signalled> {
        Ok(Signalled::NotFound)
    }

    async fn get(&self, runs: Vec<RunId>) -> BackendResult<Vec<Option<RunView>>> {
        Ok(vec![None; runs.len()])
    }

    async fn list(&self, _query: Query) -> BackendResult<RunPage> {
        Ok(RunPage::default())
    }

    async fn counts(&self) -> BackendResult<BTreeMap<Name, QueueCounts>> {
        Ok(BTreeMap::new())
    }

    async fn sweep(&self, _budget: usize) -> BackendResult<Swept> {
        Ok(Swept::default())
    }

    async fn fsck(&self, _options: FsckOptions) -> BackendResult<FsckReport> {
        Ok(FsckReport::default())
    }
}
