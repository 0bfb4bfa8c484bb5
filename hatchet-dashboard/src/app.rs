//! What all handlers share: the client, the options, and how both are used together.

use std::{fmt, future::Future, sync::Arc};

use bytes::Bytes;
use hatchet_core::{Error, Hatchet, RunId, RunView};
use tokio::sync::Semaphore;

use crate::{
    options::{Options, Part, Place},
    refusal::{Answer, Refusal},
};

/// The shared state of the router.
#[derive(Clone)]
pub(crate) struct App(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) hatchet: Hatchet,
    pub(crate) options: Options,
    /// The open streams of events. Each costs calls to the store.
    pub(crate) streams: Arc<Semaphore>,
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
            streams: Arc::new(Semaphore::new(STREAMS)),
            scans: Arc::new(Semaphore::new(SCANS)),
            checks: Arc::new(Semaphore::new(1)),
        }))
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
