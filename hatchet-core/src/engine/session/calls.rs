//! The calls that attempts and clients make to the store, in batches by partition.

use std::sync::Arc;

use super::{Session, patience::Patience};
use crate::{
    backend::{
        BackendError, BackendResult, Cancelled, Commit, CommitReply, JournalWrite, Lease, Name, NewRun, Recorded,
        Refused, RunId, StartGroup, Started, Watched,
    },
    engine::batcher::Part,
};

/// What a batch answers to those who start runs by it.
#[derive(Debug)]
pub(super) enum StartAnswer {
    Answered(Result<Vec<Started>, Refused>),
    /// The backend is full or refuses it; the runs are given back.
    NotTaken(Vec<NewRun>, Arc<BackendError>),
}

impl Session {
    /// Creates one run, in a batch with what others create now. A child waits until there is room for it, and for a
    /// while if the store refuses it.
    ///
    /// # Errors
    /// As [`insist`](Self::insist), and [`BackendError::Full`] for a root run.
    pub(crate) async fn start(
        &self,
        parent: Option<Lease>,
        run: NewRun,
    ) -> Result<Result<Started, Refused>, Arc<BackendError>> {
        let started = self.start_together(StartGroup::new(parent, vec![run])).await?;
        Ok(started.map(|started| started.into_iter().next().unwrap_or(Started::Created)))
    }

    /// Creates some runs of one partition, in a batch with what others create now; otherwise as [`start`](Self::start).
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub(crate) async fn start_together(
        &self,
        mut group: StartGroup,
    ) -> Result<Result<Vec<Started>, Refused>, Arc<BackendError>> {
        let Some(first) = group.runs.first().map(|run| run.id) else { return Ok(Ok(Vec::new())) };
        let (parent, known) = (group.parent, group.known);
        let mut patience = Patience::new(self);
        loop {
            let answer = self.partition(&first).starts.call(group).await;
            match answer.unwrap_or_else(|| Err(Arc::new(BackendError::SessionLost(self.id))))? {
                StartAnswer::Answered(answer) => {
                    patience.over();
                    return Ok(answer);
                }
                StartAnswer::NotTaken(_, error) if parent.is_none() => return Err(error),
                StartAnswer::NotTaken(refused, error) => {
                    patience.bear(error).await?;
                    group = StartGroup { parent, runs: refused, known };
                }
            }
        }
    }

    /// Creates many runs of one parent, which `runs` makes for each call to the backend. Children wait until there is room for
    /// them, and for a while if the store refuses them.
    ///
    /// # Errors
    /// As [`insist`](Self::insist), and [`BackendError::Full`] for root runs.
    pub(crate) async fn start_many(
        &self,
        parent: Option<Lease>,
        runs: impl Fn() -> Vec<NewRun>,
    ) -> BackendResult<Result<Vec<Started>, Refused>> {
        let group = || vec![StartGroup::new(parent, runs())];
        let mut patience = Patience::new(self);
        let reply = loop {
            match self.start_groups(group).await {
                Err(error) if parent.is_some() => patience.bear(error).await?,
                other => break other?,
            }
        };
        patience.over();
        Ok(reply.groups.into_iter().next().unwrap_or(Ok(Vec::new())))
    }

    pub(super) async fn start_batch(&self, batch: Part<StartGroup>) -> BackendResult<Vec<StartAnswer>> {
        // Neighbours of one parent share a group, so that root runs make few of them.
        let groups = || {
            let mut groups: Vec<StartGroup> = Vec::new();
            for some in batch.iter() {
                match groups.last_mut() {
                    Some(group) if group.parent == some.parent => group.runs.extend_from_slice(&some.runs),
                    _ => groups.push(some.clone()),
                }
            }
            groups
        };
        let reply = match self.start_groups(groups).await {
            // A batch that is refused is tried in parts before.
            Err(error) if matches!(error, BackendError::Full { .. }) || error.is_refusal() && batch.len() == 1 => {
                let error = Arc::new(error);
                let back = |group: &StartGroup| StartAnswer::NotTaken(group.runs.clone(), Arc::clone(&error));
                return Ok(batch.iter().map(back).collect());
            }
            other => other?,
        };
        let mut groups = reply.groups.into_iter();
        let mut group: Result<std::vec::IntoIter<Started>, Refused> = Ok(Vec::new().into_iter());
        let mut answers = Vec::with_capacity(batch.len());
        for (at, StartGroup { parent, runs, .. }) in batch.iter().enumerate() {
            if at == 0 || batch[at - 1].parent != *parent {
                let Some(next) = groups.next() else { break };
                group = next.map(Vec::into_iter);
            }
            answers.push(match &mut group {
                Ok(started) => Ok(started.by_ref().take(runs.len()).collect()),
                Err(refused) => Err(refused.clone()),
            });
        }
        Ok(answers.into_iter().map(StartAnswer::Answered).collect())
    }

    /// Writes one entry, in a batch with what others write now; again for a while if the store refuses it.
    ///
    /// # Errors
    /// As [`insist`](Self::insist).
    pub(crate) async fn record(&self, write: JournalWrite) -> Result<Result<Recorded, Refused>, Arc<BackendError>> {
        let mut patience = Patience::new(self);
        loop {
            match self.partition(&write.lease.run).records.call(write.clone()).await {
                Some(Ok(recorded)) => {
                    patience.over();
                    return Ok(recorded);
                }
                Some(Err(error)) => patience.bear(error).await?,
                None => return Err(Arc::new(BackendError::SessionLost(self.id))),
            }
        }
    }

    pub(super) async fn record_batch(
        &self,
        batch: Part<JournalWrite>,
    ) -> BackendResult<Vec<Result<Recorded, Refused>>> {
        let Some(first) = batch.first() else { return Ok(Vec::new()) };
        self.insist_about(&first.lease.run, || self.backend.record(self.id, batch.to_vec())).await
    }

    pub(super) async fn watch_batch(&self, runs: Part<RunId>) -> BackendResult<Vec<Watched>> {
        let Some(first) = runs.first() else { return Ok(Vec::new()) };
        self.insist_about(first, || self.backend.watch(self.id, runs.to_vec())).await
    }

    /// How a run ended, or [`Watched::Pending`]: then an event follows. In one batch with other questions of now.
    pub(in crate::engine) async fn look_at(&self, run: RunId) -> Result<Watched, Arc<BackendError>> {
        self.partition(&run)
            .watches
            .call(run)
            .await
            .unwrap_or_else(|| Err(Arc::new(BackendError::SessionLost(self.id))))
    }

    /// Ends runs as cancelled, and sees to it that their descendants are.
    ///
    /// # Errors
    /// As [`insist`](Self::insist).
    pub(crate) async fn cancel(&self, run: RunId, reason: &Name) -> BackendResult<Vec<Cancelled>> {
        self.insist_about(&run, || self.backend.cancel(vec![run], Arc::clone(reason))).await
    }

    /// Commits a task, and bears for a while with a store that refuses that.
    ///
    /// # Errors
    /// As [`insist`](Self::insist).
    pub(crate) async fn commit_patiently(&self, commit: &Commit) -> BackendResult<CommitReply> {
        self.patiently(|| self.insist_about(&commit.lease.run, || self.backend.commit(self.id, vec![commit.clone()])))
            .await
    }
}
