//! Sending a signal to a run.

use std::{fmt, future::IntoFuture, sync::Arc};

use serde::Serialize;

use super::Hatchet;
use crate::{
    backend::{Name, Payload, RunId, Signalled},
    definition::BoxFuture,
    engine::session::Session,
    error::{Error, check_name},
    ids::hash128,
    payload::encode,
};

/// A builder for a signal: set its options, then await it to send it.
#[must_use = "a signal is sent when this is awaited"]
pub struct SendSignal {
    hatchet: Hatchet,
    run: RunId,
    name: Name,
    payload: Result<Payload, Error>,
    id: Option<String>,
}

impl fmt::Debug for SendSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendSignal").field("run", &self.run).field("name", &self.name).finish_non_exhaustive()
    }
}

impl SendSignal {
    pub(super) fn new(hatchet: &Hatchet, run: RunId, name: &str, payload: &(impl Serialize + ?Sized)) -> Self {
        let payload = encode("the signal", payload, hatchet.inner.max_payload).map_err(Error::from);
        Self { hatchet: hatchet.clone(), run, name: name.into(), payload, id: None }
    }

    /// Sets an idempotency key. If several signals are sent to one run with the same key, only the first is
    /// delivered. Later ones return the same answer and change nothing, whatever their names and payloads. The key is
    /// remembered as long as the run is retained. Length: 1 to 255 bytes.
    ///
    /// Use it if the same signal may be sent twice, for example by a webhook that is retried:
    ///
    /// ```
    /// # use hatchet_core::{Error, Hatchet, RunId};
    /// # async fn paid(hatchet: &Hatchet, order: RunId, payment: &str) -> Result<(), Error> {
    /// hatchet.signal(order, "paid", &payment).id(format!("payment {payment}")).await
    /// # }
    /// ```
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    async fn send(self) -> Result<(), Error> {
        let Self { hatchet, run, name, payload, id } = self;
        check_name("signal", &name)?;
        let payload = payload?;
        let id = match id {
            Some(id) => {
                check_name("id of a signal", &id)?;
                hash128(0, id.as_bytes())
            }
            // One for all repetitions of this call.
            None => RunId::random().uid(),
        };
        let (name, payload) = (&name, &payload);
        let signal = |session: Arc<Session>| async move {
            session
                .insist_about(&run, || session.backend.signal(run, Name::clone(name), id, Payload::clone(payload)))
                .await
        };
        match hatchet.by_own_session(signal).await? {
            Signalled::Accepted => Ok(()),
            Signalled::Ended => Err(Error::Ended(run)),
            Signalled::NotFound => Err(Error::NotFound(run)),
        }
    }
}

impl IntoFuture for SendSignal {
    /// Returns nothing. It completes when the signal is stored.
    type Output = Result<(), Error>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}
