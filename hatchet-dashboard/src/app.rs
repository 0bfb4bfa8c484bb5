//! What all handlers share: the client, the options, and how both are used together.

use std::{
    fmt,
    future::Future,
    sync::{Arc, Weak},
};

use bytes::Bytes;
use hatchet_core::{Error, Hatchet, RunId, RunView};
use tokio::sync::Semaphore;

use crate::{
    acting::ACTS,
    changes::Changes,
    options::{Options, Part, Place},
    refusal::{Answer, Refusal},
};

/// The shared state of the router.
#[derive(Clone)]
pub(crate) struct App(Arc<Inner>);

/// The shared state, as long as there is a router.
#[derive(Clone)]
pub(crate) struct WeakApp(Weak<Inner>);

impl WeakApp {
    pub(crate) fn upgrade(&self) -> Option<App> {
        self.0.upgrade().map(App)
    }
}

pub(crate) struct Inner {
    pub(crate) hatchet: Hatchet,
    pub(crate) options: Options,
    /// Those that wait for changes of any kind.
    pub(crate) changes: Changes,
    /// The open streams of events.
    pub(crate) streams: Arc<Semaphore>,
    /// Calls that change something.
    pub(crate) acts: Arc<Semaphore>,
    /// Actions on many runs, or counts of them.
    pub(crate) scans: Arc<Semaphore>,
    /// Checks of the whole store.
    pub(crate) checks: Arc<Semaphore>,
}

/// The maximum number of actions on many runs at once.
const SCANS: usize = 4;
/// The maximum number of open streams of events.
const STREAMS: usize = 200;

impl std::ops::Deref for App {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App").field("hatchet", &self.hatchet).field("options", &self.options).finish_non_exhaustive()
    }
}

impl App {
    pub(crate) fn new(hatchet: Hatchet, options: Options) -> Self {
        Self(Arc::new(Inner {
            hatchet,
            options,
            changes: Changes::default(),
            streams: Arc::new(Semaphore::new(STREAMS)),
            acts: Arc::new(Semaphore::new(ACTS)),
            scans: Arc::new(Semaphore::new(SCANS)),
            checks: Arc::new(Semaphore::new(1)),
        }))
    }

    /// The same, without keeping it.
    pub(crate) fn downgrade(&self) -> WeakApp {
        WeakApp(Arc::downgrade(&self.0))
    }

    /// Makes a call to the store, which may wait for long if the store is away.
    ///
    /// # Errors
    /// What the call says; unavailable if it takes too long.
    pub(crate) async fn ask<T, E: Into<Refusal>>(&self, call: impl Future<Output = Result<T, E>>) -> Answer<T> {
        match tokio::time::timeout(self.options.patience, call).await {
            Ok(answer) => answer.map_err(Into::into),
            Err(_) => Err(Refusal::unavailable("the store does not answer; try again when it is back")),
        }
    }

    /// A run.
    ///
    /// # Errors
    /// That it does not exist, or that the store cannot be reached.
    pub(crate) async fn run(&self, id: RunId) -> Answer<RunView> {
        self.ask(self.hatchet.get(id)).await
    }

    /// A run if it is still stored.
    pub(crate) async fn run_if_stored(&self, id: RunId) -> Answer<Option<RunView>> {
        let found = self.ask(async { Ok::<_, Refusal>(self.hatchet.get(id).await) }).await?;
        match found {
            Ok(view) => Ok(Some(view)),
            Err(Error::NotFound(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// A payload as it may be shown: `None` if it is empty, or if it must be redacted and is not JSON.
    pub(crate) fn shown(&self, run: &RunView, part: Part, payload: &Bytes) -> Option<Bytes> {
        let Some(redact) = &self.options.redact else {
            return Some(payload.clone()).filter(|payload| !payload.is_empty());
        };
        let mut value = serde_json::from_slice(payload).ok()?;
        let place = Place { run: run.id, workflow: run.workflow.clone(), part };
        redact(&place, &mut value);
        serde_json::to_vec(&value).ok().map(Bytes::from)
    }
}
