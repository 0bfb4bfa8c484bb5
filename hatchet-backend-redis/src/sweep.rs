//! Doing what is due in one partition.

use std::time::Duration;

use hatchet_core::backend::Swept;

use crate::{error::Error, node::Lane, scripts::Scripts};

const MOST_AT_ONCE: usize = 500;

/// At most about `budget` changes, in pieces that a script bears.
pub(crate) async fn sweep(scripts: &Scripts, lane: Lane, budget: usize) -> Result<Swept, Error> {
    let mut changes = 0;
    loop {
        let mut reply = scripts.sweep(lane, (budget - changes).clamp(1, MOST_AT_ONCE)).await?;
        let some = reply.number()? as usize;
        changes += some;
        let due = due_in(reply.signed()?);
        let is_second = reply.number()? == 1;
        if let Some(by) = due_in(reply.signed()?).filter(|by| !by.is_zero()) {
            scripts.client().tell_of_clock(by);
        }
        let other_was_first = is_second && changes == 0 && scripts.client().virtual_time().is_none();
        let due = scripts.sweeping().swept(other_was_first, due);
        // A script with nothing to do has looked at everything.
        if some == 0 || changes >= budget || due != Some(Duration::ZERO) {
            return Ok(Swept::new(changes, due));
        }
    }
}

/// Reads how many milliseconds there are until something is due; less than 0 if nothing is known.
pub(crate) fn due_in(millis: i64) -> Option<Duration> {
    u64::try_from(millis).ok().map(Duration::from_millis)
}
