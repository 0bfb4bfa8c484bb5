//! Calls that change something. A call continues after its caller has gone or stopped waiting, so that its result is always
//! logged.

use std::{fmt, future::Future, sync::Arc};

use hatchet_core::{Error, RunId};
use tokio::{sync::oneshot, task::spawn, time::timeout};
use tracing::Instrument as _;

use crate::{
    api::PauseRequest,
    app::App,
    refusal::{Answer, Refusal},
};

/// The maximum number of such calls at once. A store that is away for long could gather any number of them.
pub(crate) const ACTS: usize = 1_000;

/// What is done, for the log.
#[derive(Clone, Debug)]
pub(crate) struct Act {
    pub(crate) verb: &'static str,
    pub(crate) with: With,
}

/// With what something is done.
#[derive(Clone, Debug)]
pub(crate) enum With {
    NewRun,
    Run(RunId),
    /// What is paused or resumed.
    Pause(PauseRequest),
}

/// When the store has answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    InTime,
    /// Nobody waits for the answer any more.
    Late,
}

impl App {
    /// Does something. If the store does it, `log` leaves a line in the log, however late that is. If the store refuses it
    /// when nobody waits any more, this leaves the line.
    ///
    /// # Errors
    /// What the store says; unavailable if it takes too long. Then it may be done or not.
    ///
    /// # Cancel safety
    /// It is done nevertheless.
    pub(crate) async fn act<T: Clone + Send + 'static>(
        &self,
        act: Act,
        call: impl Future<Output = Result<T, Error>> + Send + 'static,
        log: impl FnOnce(&T, When) + Send + 'static,
    ) -> Answer<T> {
        let Ok(permit) = Arc::clone(&self.acts).try_acquire_owned() else {
            return Err(Refusal::unavailable("too many actions wait for the store; nothing was done, try again later"));
        };
        let (answer, answered) = oneshot::channel();
        let whole = async move {
            let _permit = permit;
            let done = call.await;
            let said = done.as_ref().map(T::clone).map_err(Error::to_string);
            let when = if answer.send(done).is_ok() { When::InTime } else { When::Late };
            match said {
                Ok(value) => log(&value, when),
                Err(error) if when == When::Late => {
                    let Act { verb, with } = act;
                    tracing::warn!(target: "hatchet::audit", action = verb, run = %with, late = true, error, "{verb} {with} failed");
                }
                Err(_) => {}
            }
        };
        spawn(whole.in_current_span());
        match timeout(self.options.patience, answered).await {
            Ok(Ok(done)) => done.map_err(Into::into),
            Ok(Err(_)) => Err(Refusal::internal("the action was broken off")),
            Err(_) => Err(Refusal::unavailable(
                "the store does not answer, so it may be done or not; the log will say: look again when it is back",
            )),
        }
    }
}

impl When {
    pub(crate) fn is_late(self) -> bool {
        self == Self::Late
    }
}

impl fmt::Display for With {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NewRun => f.write_str("a new run"),
            Self::Run(run) => run.fmt(f),
            Self::Pause(PauseRequest { kind, name }) => write!(f, "{kind} {name:?}"),
        }
    }
}
