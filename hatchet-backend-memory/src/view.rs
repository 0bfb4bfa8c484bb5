//! What can be read: single runs, pages of runs, numbers of tasks.

use std::{collections::BTreeMap, sync::Arc};

use hatchet_core::backend::{
    BackendError, BackendResult, Name, Query, QueueCounts, RunData, RunId, RunPage, RunView, SessionId, TaskPhase,
    TaskView, Watched,
};

use crate::{
    journal::Item,
    queue::Queue,
    run::{Phase, Run, Step},
    session::Announced,
    store::Store,
};

/// How many runs a page looks at beyond those that it may hold, so that a filter that few pass does not hold the lock
/// for long.
const LOOKS_PER_PAGE: usize = 4096;

/// How many ready tasks of a queue are looked at to tell whether somebody serves them.
const LOOKED_AT: usize = 1000;

impl Store {
    /// Implements [`Backend::watch`](hatchet_core::backend::Backend::watch) for an open session.
    pub(crate) fn watch(&mut self, session: SessionId, run: RunId) -> Watched {
        let Some(run) = self.live(run.uid()) else { return Watched::NotFound };
        if let Some(outcome) = &run.outcome {
            return Watched::Ended(outcome.clone());
        }
        let uid = run.uid();
        if let Some(run) = self.runs.get_mut(&uid) {
            self.sessions.watch(session, run);
        }
        Watched::Pending
    }

    /// Implements [`Backend::load`](hatchet_core::backend::Backend::load).
    pub(crate) fn load(&self, run: RunId) -> Option<RunData> {
        let run = self.live(run.uid())?;
        Some(RunData::new(run.input.clone(), run.state(), run.outputs()))
    }

    /// Implements [`Backend::get`](hatchet_core::backend::Backend::get) for one run.
    pub(crate) fn get(&self, run: RunId) -> Option<RunView> {
        self.live(run.uid()).map(|run| self.view(run))
    }

    /// Implements [`Backend::counts`](hatchet_core::backend::Backend::counts).
    pub(crate) fn counts(&self) -> BTreeMap<Name, QueueCounts> {
        let counts = self.queues.iter().map(|queue| {
            let mut counts = QueueCounts::default();
            counts.ready = queue.ready.len() as u64;
            counts.delayed = queue.delayed;
            counts.leased = queue.leased;
            counts.parked = queue.parked;
            counts.stalled = queue.ready.stalled() as u64;
            counts.unserved = self.unserved(queue);
            (Arc::clone(&queue.name), counts)
        });
        counts.collect()
    }

    /// How many ready tasks of a queue no open session serves.
    fn unserved(&self, queue: &Queue) -> u64 {
        if queue.ready.is_empty() {
            return 0;
        }
        let open = self.sessions.open.iter().filter(|(id, _)| self.sessions.is_alive(**id, self.now));
        let mut serving: Vec<&Announced> = Vec::new();
        for announced in open.map(|(_, session)| &*session.announced).filter(|it| it.queues.contains(&queue.name)) {
            if serving.iter().all(|known| !std::ptr::eq(*known, announced)) {
                serving.push(announced);
            }
        }
        if serving.is_empty() {
            return queue.ready.len() as u64;
        }
        let is_served = |workflow: &Name| serving.iter().any(|it| it.workflows.contains(workflow));
        let first = queue.ready.in_line().take(LOOKED_AT).filter_map(|(uid, _)| self.runs.get(&uid));
        let unserved = first.filter(|run| !is_served(&run.workflow)).count() + queue.ready.apart_without(is_served);
        unserved as u64
    }

    /// Implements [`Backend::list`](hatchet_core::backend::Backend::list). A cursor is the order of the run that was
    /// looked at last.
    pub(crate) fn list(&self, query: &Query) -> BackendResult<RunPage> {
        let before = match &query.cursor {
            None => u64::MAX,
            Some(text) => text.parse().map_err(|_| no_cursor(text))?,
        };
        match query.parent {
            None => {
                let roots = self.roots.range(..before).rev();
                Ok(self.page(roots.filter_map(|(_, uid)| self.runs.get(uid).map(AsRef::as_ref)), query))
            }
            Some(parent) => Ok(match self.live(parent.uid()) {
                Some(parent) => self.page(self.children_before(parent, before), query),
                None => RunPage::default(),
            }),
        }
    }

    fn page<'a>(&'a self, runs: impl Iterator<Item = &'a Run>, query: &Query) -> RunPage {
        let mut page = RunPage::default();
        let mut runs = runs.peekable();
        let mut looks = 0;
        while page.runs.len() < query.limit && looks < LOOKS_PER_PAGE {
            let Some(run) = runs.next() else { return page };
            looks += 1;
            if passes(run, query) {
                page.runs.push(self.view(run));
            }
            page.next = runs.peek().map(|_| run.order.to_string());
        }
        page
    }

    /// The current children of all steps of a run, newest first, from before a place in the order of creation.
    fn children_before<'a>(&'a self, parent: &'a Run, before: u64) -> impl Iterator<Item = &'a Run> {
        let journals = parent.steps.iter().filter_map(|step| step.journal.as_ref());
        let mut rests: Vec<&[Item]> = journals
            .map(|journal| &journal.items[..journal.items.partition_point(|item| item.order(&self.runs) < before)])
            .collect();
        std::iter::from_fn(move || {
            let newest = rests.iter_mut().filter_map(|rest| {
                let end = rest.iter().rposition(|item| matches!(item, Item::Child { .. })).map_or(0, |last| last + 1);
                *rest = &rest[..end];
                match rest.last() {
                    Some(Item::Child { uid, .. }) => self.runs.get(uid).map(|run| (run, rest)),
                    _ => None,
                }
            });
            let (run, rest) = newest.max_by_key(|(run, _)| run.order)?;
            *rest = &rest[..rest.len() - 1];
            Some(run.as_ref())
        })
    }

    fn view(&self, run: &Run) -> RunView {
        let queue = Arc::clone(&self.queues.get(run.queue).name);
        let mut view = RunView::new(run.id, Arc::clone(&run.workflow), queue, run.created.timestamp());
        view.priority = run.priority;
        view.key = run.key.clone();
        view.status = run.status();
        view.input = run.input.clone();
        view.outcome = run.outcome.clone();
        view.metadata = run.metadata().cloned().unwrap_or_default();
        view.headers = run.headers().cloned().unwrap_or_default();
        view.detached = run.is_detached();
        view.started = run.started.map(|at| at.timestamp());
        view.ended = run.ended.map(|at| at.timestamp());
        view.tasks = run.steps.iter().map(view_of_task).collect();
        view.state = run.state();
        view.outputs = run.outputs();
        if let Some(rare) = &run.rare {
            (view.restarted_from, view.restarted_as) = (rare.restarts.from, rare.restarts.by.clone());
        }
        view
    }
}

fn view_of_task(step: &Step) -> TaskView {
    let phase = match step.phase {
        Phase::Ready(_) => TaskPhase::Ready,
        Phase::Stalled(_) => TaskPhase::Stalled,
        Phase::Delayed((until, _)) => TaskPhase::Delayed { until: until.next_timestamp() },
        Phase::Leased { session, .. } => TaskPhase::Leased { session },
        Phase::Parked { .. } => TaskPhase::Parked,
        Phase::Done => TaskPhase::Done,
    };
    let mut view = TaskView::new(step.index, phase);
    view.attempt = step.attempt;
    view.recoveries = step.recoveries;
    view.waits = step.waits();
    // Of an attempt that was followed by another, which waits.
    view.failure =
        step.failure.as_deref().cloned().filter(|_| !matches!(phase, TaskPhase::Leased { .. } | TaskPhase::Done));
    let stall = step.stall.as_ref().filter(|_| phase == TaskPhase::Stalled);
    view.stall = stall.map(|stall| stall.reason.clone());
    if let Some(journal) = &step.journal {
        (view.children, view.unfinished_children) = (journal.children, journal.unfinished);
    }
    view
}

fn passes(run: &Run, query: &Query) -> bool {
    let created = run.created.timestamp();
    let labelled =
        |(name, value): &(String, String)| run.metadata().is_some_and(|pairs| pairs.get(name) == Some(value));
    (query.statuses.is_empty() || query.statuses.contains(&run.status()))
        && query.workflow.as_ref().is_none_or(|workflow| *workflow == run.workflow)
        && query.created_from.is_none_or(|from| created >= from)
        && query.created_before.is_none_or(|before| created < before)
        && query.metadata.iter().all(labelled)
}

fn no_cursor(text: &str) -> BackendError {
    BackendError::Unusable {
        backend: crate::NAME,
        reason: format!("{text:?} is not a cursor: pass the `next` of the previous page"),
        source: None,
    }
}
