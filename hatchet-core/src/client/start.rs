//! Starting a run.

use std::{fmt, future::IntoFuture, marker::PhantomData, sync::Arc, time::Duration};

use serde::{Serialize, de::DeserializeOwned};

use super::{Hatchet, RunHandle};
use crate::{
    backend::{Extras, Name, NewRun, Payload, Priority, RunId, Started},
    context::spawn::overlay,
    definition::{BoxFuture, Options},
    engine::{ending::ExpectedEnd, session::Session},
    error::{Error, KeyConflict, check_name, check_pairs},
    interceptor::StartEnd,
    payload::{encode, fingerprint},
    registry::announced,
};

/// A builder for a run: set its options, then await it to start the run.
#[must_use = "a run is started when this is awaited"]
pub struct StartRun<T> {
    hatchet: Hatchet,
    pub(super) workflow: Name,
    pub(super) queue: Name,
    pub(super) priority: Priority,
    pub(super) input: Result<Payload, Error>,
    key: Option<String>,
    pub(super) extras: Extras,
    unchecked: bool,
    /// The version is that which open workers have.
    pub(super) by_name: bool,
    /// The ended run that it is started like.
    pub(super) repeats: Option<RunId>,
    id: RunId,
    output: PhantomData<fn() -> T>,
}

impl<T> fmt::Debug for StartRun<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StartRun").field("workflow", &self.workflow).field("key", &self.key).finish_non_exhaustive()
    }
}

impl<T> StartRun<T> {
    pub(super) fn new(hatchet: &Hatchet, options: &Options, input: &impl Serialize) -> Self {
        let extras = Extras { queue_timeout: options.queue_timeout, timeout: options.timeout, ..Extras::default() };
        Self {
            hatchet: hatchet.clone(),
            workflow: options.name.into(),
            queue: options.queue.into(),
            priority: options.priority,
            input: encode("the input", input, hatchet.inner.max_payload).map_err(Error::from),
            key: None,
            extras,
            unchecked: false,
            by_name: false,
            repeats: None,
            id: RunId::random(),
            output: PhantomData,
        }
    }

    /// Sets an idempotency key. Starting the same workflow again with the same key and input returns the existing
    /// run, even a failed one, while it is retained. The key belongs to the name of the workflow without its version: a
    /// start of another version also returns the existing run.
    ///
    /// A run is retained for a time after the end of its tree of runs. Default: 7 days on Redis, 1 hour in memory; the
    /// URL can change it. Length of the key: 1 to 255 bytes.
    ///
    /// ```
    /// # use hatchet_core::{Error, Hatchet, Workflow};
    /// # async fn f<Order: Workflow<Input = u64, Output = u64>>(hatchet: &Hatchet) -> Result<(), Error> {
    /// let first = hatchet.start::<Order>(17).key("order 17").await?;
    /// let again = hatchet.start::<Order>(17).key("order 17").await?;
    /// assert_eq!(first.id(), again.id());
    /// # Ok(()) }
    /// ```
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Adds a metadata entry, by which runs can be listed ([`Query::metadata`](crate::Query::metadata)). The run's
    /// children inherit it.
    ///
    /// ```
    /// # use hatchet_core::{Error, Hatchet, Query, Workflow};
    /// # async fn f<Order: Workflow<Input = u64, Output = u64>>(hatchet: &Hatchet) -> Result<(), Error> {
    /// hatchet.start::<Order>(17).metadata("tenant", "acme").await?;
    /// let acme = Query { metadata: vec![("tenant".to_owned(), "acme".to_owned())], ..Query::default() };
    /// let runs = hatchet.list(&acme).await?.runs;
    /// # Ok(()) }
    /// ```
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        overlay(&mut self.extras.metadata, key.into(), value.into());
        self
    }

    /// Adds a header such as `traceparent`. The run's children inherit it.
    pub fn header(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        overlay(&mut self.extras.headers, key.into(), value.into());
        self
    }

    /// Sets the priority of the run among the tasks of its queue. Default: the priority of its workflow.
    ///
    /// ```
    /// # use hatchet_core::{Error, Hatchet, Priority, Workflow};
    /// # async fn f<Order: Workflow<Input = u64, Output = u64>>(hatchet: &Hatchet) -> Result<(), Error> {
    /// hatchet.start::<Order>(17).priority(Priority::High).await?;
    /// # Ok(()) }
    /// ```
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// Sets the queue. Default: the queue of its workflow. A worker receives only runs of workflows it has. Without such
    /// a worker the run waits; see [`RunView::unserved`](crate::RunView::unserved).
    pub fn queue(mut self, queue: impl AsRef<str>) -> Self {
        self.queue = queue.as_ref().into();
        self
    }

    /// Delays the start of the run by this duration.
    ///
    /// ```
    /// # use hatchet_core::{Error, Hatchet, Workflow};
    /// # use std::time::Duration;
    /// # async fn f<Order: Workflow<Input = u64, Output = u64>>(hatchet: &Hatchet) -> Result<(), Error> {
    /// hatchet.start::<Order>(17).delay(Duration::from_secs(24 * 3600)).await?;   // tomorrow
    /// # Ok(()) }
    /// ```
    pub fn delay(mut self, delay: Duration) -> Self {
        self.extras.delay = Some(delay);
        self
    }

    /// Limits the duration of the run. A run that takes longer ends as expired. The time counts from its start and
    /// includes waits and retries, but not its delay.
    ///
    /// ```
    /// # use hatchet_core::{Error, Hatchet, Limit, RunErrorKind, Workflow};
    /// # use std::time::Duration;
    /// # async fn f<Order: Workflow<Input = u64, Output = u64>>(hatchet: &Hatchet) -> Result<(), Error> {
    /// let run = hatchet.start::<Order>(17).timeout(Duration::from_secs(3600)).await?;
    /// if let Err(error) = run.result().await
    ///     && error.kind() == RunErrorKind::Expired(Limit::Run)
    /// {
    ///     println!("the order took longer than an hour");
    /// }
    /// # Ok(()) }
    /// ```
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.extras.timeout = Some(timeout);
        self
    }

    /// Limits the time in the queue. A run that no worker claims within this time ends as expired. Its delay does not
    /// count.
    ///
    /// ```
    /// # use hatchet_core::{Error, Hatchet, Workflow};
    /// # use std::time::Duration;
    /// # async fn f<Order: Workflow<Input = u64, Output = u64>>(hatchet: &Hatchet) -> Result<(), Error> {
    /// // If no worker claims it within a minute, it expires.
    /// let run = hatchet.start::<Order>(17).queue_timeout(Duration::from_secs(60)).await?;
    /// # Ok(()) }
    /// ```
    pub fn queue_timeout(mut self, timeout: Duration) -> Self {
        self.extras.queue_timeout = Some(timeout);
        self
    }

    /// Starts the run even if no worker has ever announced its workflow. Use it in a program that runs before its
    /// first worker.
    ///
    /// ```
    /// # use hatchet_core::{Error, Hatchet};
    /// # async fn f(hatchet: &Hatchet) -> Result<(), Error> {
    /// hatchet.start_named("order", 17).unchecked().await?;                      // no worker has to be running yet
    /// # Ok(()) }
    /// ```
    pub fn unchecked(mut self) -> Self {
        self.unchecked = true;
        self
    }

    /// Gives it this identity, so that it depends on nothing but a test's seed.
    #[cfg(feature = "testing")]
    #[doc(hidden)]
    pub fn with_id(mut self, id: RunId) -> Self {
        self.id = id;
        self
    }

    pub(super) fn new_run(self) -> Result<NewRun, Error> {
        check_name("workflow name", &self.workflow)?;
        check_name("queue", &self.queue)?;
        if let Some(key) = &self.key {
            check_name("key", key)?;
        }
        check_pairs("metadata", self.extras.metadata.as_ref())?;
        check_pairs("headers", self.extras.headers.as_ref())?;
        let input = self.input?;
        let id = self.key.as_ref().map_or(self.id, |key| self.id.with_idempotency_key(&self.workflow, key));
        Ok(NewRun {
            id,
            workflow: self.workflow,
            queue: self.queue,
            priority: self.priority,
            fingerprint: fingerprint(&input),
            input,
            key: self.key.map(Name::from),
            extras: self.extras,
        })
    }

    async fn start(self) -> Result<RunHandle<T>, Error> {
        Ok(self.start_and(false).await?.0)
    }

    /// Starts the run and waits for its output.
    pub(super) async fn run(self) -> Result<T, Error>
    where
        T: DeserializeOwned,
    {
        let (handle, end) = self.start_and(true).await?;
        Ok(handle.outcome_from(end).await?)
    }

    /// Starts the run. If it is watched and was not there before, its end is waited for.
    async fn start_and(mut self, watched: bool) -> Result<(RunHandle<T>, Option<ExpectedEnd>), Error> {
        let hatchet = self.hatchet.clone();
        let unchecked = self.unchecked;
        self.extras.watched = watched;
        if self.by_name && !unchecked {
            let name = Name::clone(&self.workflow);
            check_name("workflow name", &name)?;
            let name = &name;
            self.workflow =
                hatchet.by_session(|session| async move { announced(name, session.resolve(name).await) }).await?;
        }
        let repeats = self.repeats;
        let mut run = self.new_run()?;
        let sending = hatchet.intercept(&mut run, repeats);
        let (id, workflow, key, hash) = (run.id, run.workflow.clone(), run.key.clone(), run.fingerprint);
        let handle = |id, workflow: Name| RunHandle::new(hatchet.clone(), id, workflow, key.clone());
        let start = |session: Arc<Session>| {
            let run = run.clone();
            async move {
                if !unchecked {
                    announced(&run.workflow, session.check_known(&run.workflow).await)?;
                }
                let end = watched.then(|| ExpectedEnd::new(&session, run.id));
                Ok((session.start(None, run).await?, end))
            }
        };
        let started = match hatchet.by_session(start).await {
            Ok((Ok(Started::Created), end)) => Ok((handle(id, workflow), end)),
            Ok((Ok(Started::Exists(there)), _)) if there.fingerprint == hash => {
                Ok((handle(there.id, there.workflow), None))
            }
            Ok((Ok(Started::Exists(there)), _)) => Err(Error::KeyConflict(Box::new(KeyConflict {
                key: key.as_deref().unwrap_or_default().to_owned(),
                run: there.id,
                workflow: there.workflow.to_string(),
            }))),
            Ok((Err(refused), _)) => Err(Error::Interrupted(format!("the backend refused a root run: {refused:?}"))),
            Err(error) => Err(error),
        };
        if let Some(sending) = sending {
            match &started {
                Ok((handle, _)) if handle.id() != id => sending.end(StartEnd::Existed(handle.id())),
                started => sending.end_with(started),
            }
        }
        started
    }
}

impl<T: 'static> IntoFuture for StartRun<T> {
    /// The handle of the run. It completes when the run is stored.
    type Output = Result<RunHandle<T>, Error>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.start())
    }
}
