//! The counters of the queues, compared with what was found.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use bytes::Bytes;
use hatchet_core::backend::FindingKind;
use redis::{
    Value,
    aio::{ConnectionLike as _, MultiplexedConnection},
};
use tokio::time::timeout;

use super::{Check, Mend};
use crate::{error::Error, scripts::Scripts};

/// Watches the counters of a partition on a connection of its own. Tasks may go round meanwhile and leave all counters as
/// they were, so only this tells that nothing moved.
pub(super) struct WatchedCounters {
    connection: MultiplexedConnection,
    counters: String,
}

impl WatchedCounters {
    /// How long the server may take for an answer.
    const PATIENCE: Duration = Duration::from_secs(5);

    /// None where it cannot be known: without a connection, or the right to watch.
    pub(super) async fn begin(scripts: &Scripts) -> Option<Self> {
        let _held = scripts.client().virtual_time().map(|time| time.hold(false));
        let counters = scripts.keys().counters();
        let begin = async {
            let (_, mut connection) = scripts.client().blocking().await.ok()?;
            redis::cmd("WATCH").arg(&counters).exec_async(&mut connection).await.ok()?;
            Some(connection)
        };
        let connection = timeout(Self::PATIENCE, begin).await.ok().flatten()?;
        Some(Self { connection, counters })
    }

    pub(super) async fn ends_untouched(mut self, scripts: &Scripts) -> bool {
        let _held = scripts.client().virtual_time().map(|time| time.hold(false));
        // Not as the client library's transaction: where the user has no right to MULTI, the task that drives the connection panics.
        let mut transaction = redis::pipe();
        transaction.cmd("MULTI").exists(&self.counters).cmd("EXEC");
        let answers = self.connection.req_packed_commands(&transaction, 0, 3);
        let executed = timeout(Self::PATIENCE, answers).await.ok().and_then(Result::ok).and_then(|mut all| all.pop());
        matches!(executed, Some(Value::Array(_)))
    }
}

impl Check<'_> {
    /// The counters of the queues; notes whether cancellations are under way.
    pub(super) async fn read_counters(&mut self) -> Result<HashMap<Bytes, i64>, Error> {
        let mut counters = HashMap::new();
        let mut reply = self.ask("counters", b"", &[]).await?;
        if reply.is_empty() {
            return Ok(counters);
        }
        self.tearing_down |= reply.number()? == 1;
        self.total = self.total.max(reply.number()?);
        while !reply.is_empty() {
            let (field, count) = (reply.bytes()?, reply.signed()?);
            counters.insert(field, count);
        }
        counters.retain(|_, count| *count != 0);
        Ok(counters)
    }

    pub(super) fn check_counters(&mut self, counters: &HashMap<Bytes, i64>) {
        let fields: HashSet<_> = counters.keys().chain(self.tallies.keys()).cloned().collect();
        for field in fields {
            let [counted, there] = [counters, &self.tallies].map(|map| map.get(&field).copied().unwrap_or(0));
            if counted != there {
                let name = String::from_utf8_lossy(&field).into_owned();
                let what = format!("the counter {name} is {counted} but there are {there}");
                let place = format!("counter {name}");
                // Two checks have found the same difference, so it is what is wrong, however much the number moved since.
                let by = Bytes::from((there - counted).to_string());
                let mend = Mend::new("counted anew", "counter", [field, by]);
                self.find_at(FindingKind::Miscounted, &what, place, Some(mend));
            }
        }
    }
}
