//! A run that was started: waiting for it, asking about it.

use std::{fmt, marker::PhantomData};

use serde::{Serialize, de::DeserializeOwned};

use super::{Hatchet, SendSignal};
use crate::{
    backend::{BackendError, Name, RunId, RunStatus, RunView, Watched},
    context::spawn::Untyped,
    engine::{ending::ExpectedEnd, here::notice},
    error::Error,
    failure::{RunError, RunErrorKind},
};

/// A handle for a run, which may execute on any worker. Dropping the handle does not affect the run.
pub struct RunHandle<T> {
    hatchet: Hatchet,
    id: RunId,
    workflow: Name,
    key: Option<Name>,
    output: PhantomData<fn() -> T>,
}

impl<T> Clone for RunHandle<T> {
    fn clone(&self) -> Self {
        Self::new(self.hatchet.clone(), self.id, self.workflow.clone(), self.key.clone())
    }
}

impl<T> fmt::Debug for RunHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RunHandle({})", self.id)
    }
}

impl<T> RunHandle<T> {
    pub(super) fn new(hatchet: Hatchet, id: RunId, workflow: Name, key: Option<Name>) -> Self {
        Self { hatchet, id, workflow, key, output: PhantomData }
    }

    /// The id of the run. Pass it to [`Hatchet::handle`] to get a handle elsewhere.
    pub fn id(&self) -> RunId {
        self.id
    }

    /// Returns the status of the run.
    ///
    /// ```
    /// # use hatchet_core::{Error, RunHandle};
    /// # async fn f(run: &RunHandle<u64>) -> Result<(), Error> {
    /// if run.status().await?.is_terminal() {
    ///     println!("{} has ended", run.id());
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Hatchet::get`].
    pub async fn status(&self) -> Result<RunStatus, Error> {
        Ok(self.view().await?.status)
    }

    /// Returns the stored state of the run.
    ///
    /// # Errors
    /// As [`Hatchet::get`].
    pub async fn view(&self) -> Result<RunView, Error> {
        self.hatchet.get(self.id).await
    }

    /// Cancels the run.
    ///
    /// ```
    /// # use hatchet_core::{Error, RunHandle};
    /// # async fn f(run: &RunHandle<u64>) -> Result<(), Error> {
    /// run.cancel("the customer changed their mind").await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`Hatchet::cancel`].
    pub async fn cancel(&self, reason: impl AsRef<str>) -> Result<(), Error> {
        self.hatchet.cancel(self.id, reason).await
    }

    /// Sends a signal to the run.
    ///
    /// # Errors
    /// As [`Hatchet::signal`].
    pub fn signal(&self, name: impl AsRef<str>, payload: &(impl Serialize + ?Sized)) -> SendSignal {
        self.hatchet.signal(self.id, name, payload)
    }

    async fn outcome_as<U: DeserializeOwned>(&self) -> Result<U, RunError> {
        self.outcome_from(None).await
    }

    /// Waits for its output; first for an end that a session expects, if one does.
    pub(super) async fn outcome_from<U: DeserializeOwned>(&self, mut end: Option<ExpectedEnd>) -> Result<U, RunError> {
        let unavailable = |message: String| {
            RunError::new(RunErrorKind::Unavailable, self.workflow.clone(), self.id, self.key.clone(), message)
        };
        loop {
            let end = end.take();
            let end = async {
                Ok(match end {
                    Some(end) => end.wait().await,
                    None => {
                        let session = self.hatchet.near_session().await;
                        session.map_err(|error| unavailable(error.to_string()))?.wait_for(self.id).await
                    }
                })
            };
            match notice(self.id, end).await? {
                Ok(Some(Watched::Ended(outcome))) => {
                    let mut result =
                        RunError::of_outcome(&outcome, || (self.workflow.clone(), self.id, self.key.clone()));
                    // A handle that was made from an id alone does not know the names.
                    if let Err(error) = &mut result
                        && self.workflow.is_empty()
                        && let Ok(view) = self.view().await
                    {
                        (error.0.workflow, error.0.key) = (view.workflow, view.key);
                    }
                    return result;
                }
                Ok(Some(Watched::NotFound)) => return Err(unavailable(Error::NotFound(self.id).to_string())),
                // The session was lost: wait with another.
                Ok(Some(Watched::Pending) | None) => {}
                Err(error) if matches!(*error, BackendError::SessionLost(_)) => {}
                Err(error) => return Err(unavailable(error.to_string())),
            }
        }
    }
}

impl<T: DeserializeOwned> RunHandle<T> {
    /// Waits for the output of the run, without a time limit.
    ///
    /// If a step waits for a run that is not its child, it holds its slot during the wait. In a step, use
    /// `ctx.spawn`.
    ///
    /// ```
    /// # use hatchet_core::{RunHandle};
    /// # async fn f(run: &RunHandle<u64>) -> () {
    /// match run.result().await {
    ///     Ok(total) => println!("total: {total}"),
    ///     Err(error) => println!("{:?}: {error}", error.kind()),
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    /// If the run did not succeed: [`RunError::kind`] says how it ended.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing for the run.
    pub async fn result(&self) -> Result<T, RunError> {
        self.outcome_as().await
    }
}

impl RunHandle<Untyped> {
    /// Waits for the output of the run and decodes it as a `T`, for example `serde_json::Value`.
    ///
    /// ```
    /// # use hatchet_core::{RunError, RunHandle, Untyped};
    /// # async fn f(run: &RunHandle<Untyped>) -> Result<(), RunError> {
    /// let total = run.result::<u64>().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// If the run did not succeed: [`RunError::kind`] says how it ended. [`RunErrorKind::Unreadable`] if its output
    /// is not a `T`.
    pub async fn result<T: DeserializeOwned>(&self) -> Result<T, RunError> {
        self.outcome_as().await
    }
}
