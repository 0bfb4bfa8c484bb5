//! How a failed call to the store is retried: until it succeeds, or as long as its caller can wait.

use std::{borrow::Borrow, future::Future, time::Duration};

use tokio::{
    sync::RwLockReadGuard,
    time::{Instant, sleep},
};

use super::{FIRST_WAIT, LONGEST_WAIT, Partition, Session};
use crate::backend::{BackendError, BackendResult, RunId, Task};

/// How long a step bears with a store that refuses a call, before it learns of it: that is a matter of seconds, mostly.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits between the calls of somebody who can wait for a backend that takes nothing: until it has room, however long
/// that is, and for a while if it refuses, since that is a matter of seconds, mostly.
pub(super) struct Patience<'a> {
    session: &'a Session,
    refused: Option<Instant>,
    wait: Duration,
}

impl<'a> Patience<'a> {
    pub(super) fn new(session: &'a Session) -> Self {
        Self { session, refused: None, wait: FIRST_WAIT }
    }

    /// Waits, longer each time.
    ///
    /// # Errors
    /// The error, if it is not to be waited for; [`BackendError::SessionLost`] if the session ends meanwhile, so that whoever
    /// waited knows that nothing will come of it.
    pub(super) async fn bear<E>(&mut self, error: E) -> Result<(), E>
    where
        E: Borrow<BackendError> + From<BackendError>,
    {
        let session = self.session;
        match error.borrow() {
            full @ BackendError::Full { .. } => {
                if let Some(suppressed) = session.trouble.happens("room", "") {
                    tracing::warn!(error = %full, suppressed, "the store is full; a call waits for room and is retried");
                }
            }
            refusal @ BackendError::Unusable { .. } => {
                if self.refused.get_or_insert_with(Instant::now).elapsed() >= PATIENCE {
                    return Err(error);
                }
                session.refuses.meet(refusal);
            }
            _ => return Err(error),
        }
        tokio::select! {
            () = sleep(self.wait) => {}
            () = session.lost() => return Err(BackendError::SessionLost(session.id).into()),
        }
        self.wait = (self.wait * 2).min(LONGEST_WAIT);
        Ok(())
    }

    /// The call was taken.
    pub(super) fn over(&self) {
        self.session.is_well("room", "the store has room again");
        self.session.refuses.over();
    }
}

impl Session {
    /// Makes a call of a step, which bears for a while with a store that refuses it.
    ///
    /// # Errors
    /// That of the call, if it is not borne with or for too long; [`BackendError::SessionLost`] if the session ends meanwhile.
    pub(crate) async fn patiently<T, E, F>(&self, mut call: impl FnMut() -> F) -> Result<T, E>
    where
        E: Borrow<BackendError> + From<BackendError>,
        F: Future<Output = Result<T, E>>,
    {
        let mut patience = Patience::new(self);
        let mut bore = false;
        loop {
            match call().await {
                Ok(answer) => {
                    if bore {
                        patience.over();
                    }
                    return Ok(answer);
                }
                Err(error) => patience.bear(error).await?,
            }
            bore = true;
        }
    }

    /// Calls the backend, again and again while it is not available or full, until the session is lost.
    ///
    /// # Errors
    /// [`BackendError::SessionLost`], or what will not be better later.
    pub(crate) async fn insist<T, F>(&self, call: impl FnMut() -> F) -> BackendResult<T>
    where
        F: Future<Output = BackendResult<T>>,
    {
        self.insist_within(None, call).await
    }

    /// The same for a call about this run, and others of its partition: if it fails, the others have no reason to doubt.
    ///
    /// # Errors
    /// As [`insist`](Self::insist).
    pub(crate) async fn insist_about<T, F>(&self, run: &RunId, call: impl FnMut() -> F) -> BackendResult<T>
    where
        F: Future<Output = BackendResult<T>>,
    {
        self.insist_within(Some(self.partition(run)), call).await
    }

    async fn insist_within<T, F>(&self, part: Option<&Partition>, mut call: impl FnMut() -> F) -> BackendResult<T>
    where
        F: Future<Output = BackendResult<T>>,
    {
        let mut patience = Patience::new(self);
        loop {
            match self.insist_unless_full(part, &mut call).await {
                Err(error @ BackendError::Full { .. }) => patience.bear(error).await?,
                other => return other,
            }
        }
    }

    /// The same, but for a backend that is full: who may be refused hears of it at once.
    ///
    /// # Errors
    /// As [`insist`](Self::insist), and [`BackendError::Full`].
    async fn insist_unless_full<T, F>(&self, part: Option<&Partition>, mut call: impl FnMut() -> F) -> BackendResult<T>
    where
        F: Future<Output = BackendResult<T>>,
    {
        let mut wait = FIRST_WAIT;
        let mut failed = false;
        loop {
            if self.is_lost() {
                return Err(BackendError::SessionLost(self.id));
            }
            match self.once(part, call()).await {
                Err(BackendError::Unavailable { .. }) => {
                    failed = true;
                    sleep(wait).await;
                    wait = (wait * 2).min(LONGEST_WAIT);
                }
                other => {
                    // Another call may go well all the time.
                    if failed {
                        self.is_well("calls", "calls to the store succeed again");
                    }
                    return other;
                }
            }
        }
    }

    /// Asks the backend once what the session holds, and notes what an error says of it.
    ///
    /// # Errors
    /// What the backend says.
    pub(in crate::engine) async fn held(&self) -> BackendResult<Vec<Task>> {
        self.once(None, self.backend.held(self.id)).await
    }

    /// Makes a call about this run once, and notes what an error says of the session.
    ///
    /// # Errors
    /// What the backend says.
    pub(crate) async fn once_about<T>(
        &self,
        run: &RunId,
        call: impl Future<Output = BackendResult<T>>,
    ) -> BackendResult<T> {
        self.once(Some(self.partition(run)), call).await
    }

    async fn once<T>(
        &self,
        part: Option<&Partition>,
        call: impl Future<Output = BackendResult<T>>,
    ) -> BackendResult<T> {
        let answer = call.await;
        match &answer {
            Ok(_) | Err(BackendError::Full { .. }) => {}
            Err(BackendError::SessionLost(id)) => {
                if *id == self.id {
                    self.mark_lost();
                }
            }
            // It may have been applied, in part or as a whole.
            Err(error) => {
                self.doubt(part);
                if !error.is_refusal()
                    && let Some(suppressed) = self.trouble.happens("calls", "")
                {
                    tracing::warn!(session = %self.id, %error, suppressed, "a call to the store failed; it is retried until it succeeds");
                }
            }
        }
        answer
    }

    /// As [`insist`](Self::insist), for a call that may give tasks; they are to be begun before the guard is dropped.
    /// `run` is of the partition that may give some: without one all do that can be reached. Nothing is held between
    /// two tries, so that who wants to know what was given by a lost answer need not wait for a store that is away.
    ///
    /// # Errors
    /// As [`insist`](Self::insist), and [`BackendError::Full`].
    pub(in crate::engine) async fn insist_on_tasks<T, F>(
        &self,
        run: Option<&RunId>,
        mut call: impl FnMut() -> F,
    ) -> BackendResult<(T, RwLockReadGuard<'_, ()>)>
    where
        F: Future<Output = BackendResult<T>>,
    {
        let part = run.map(|run| self.partition(run));
        let giving = part.map_or(&self.claiming, |part| &part.giving);
        self.insist_unless_full(part, || {
            let call = call();
            async {
                let gives = giving.read().await;
                Ok((call.await?, gives))
            }
        })
        .await
    }

    /// As [`insist_on_tasks`](Self::insist_on_tasks), for a call that gives none.
    ///
    /// # Errors
    /// As [`insist`](Self::insist), and [`BackendError::Full`].
    pub(in crate::engine) async fn insist_on_none<T, F>(
        &self,
        run: Option<&RunId>,
        call: impl FnMut() -> F,
    ) -> BackendResult<T>
    where
        F: Future<Output = BackendResult<T>>,
    {
        self.insist_unless_full(run.map(|run| self.partition(run)), call).await
    }
}
