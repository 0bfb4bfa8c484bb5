//! What happens to root runs, counted by the minute, as the scripts write it down.

use std::collections::BTreeMap;

use hatchet_core::backend::{Activity, Name, RunStatus, Timestamp};

use crate::{
    codec::{Values, name_of},
    error::Error,
    scripts::Scripts,
};

/// How many minutes one command reads.
const MINUTES_AT_ONCE: u64 = 120;

type Counts = BTreeMap<(Timestamp, Name), Activity>;

/// The counts of one partition.
pub(crate) async fn read(scripts: &Scripts, from: Timestamp, before: Timestamp) -> Result<Vec<Activity>, Error> {
    let length = Activity::MINUTE.as_millis() as u64;
    // What is older than this is not kept, so that a range without a beginning costs no more than one with.
    let kept = Activity::KEPT.as_millis() as u64 + length;
    let now = scripts.activity(0, 0).await?.number()?;
    let end = before.0.div_ceil(length).min(now + 1);
    let mut minute = (from.0 / length).max(end.saturating_sub(kept / length));
    let mut counts = Counts::new();
    while minute < end {
        let next = (minute + MINUTES_AT_ONCE).min(end);
        let mut reply = scripts.activity(minute, next).await?;
        reply.number()?;
        read_some(reply, &mut counts)?;
        minute = next;
    }
    Ok(counts.into_values().collect())
}

fn read_some(mut reply: Values, counts: &mut Counts) -> Result<(), Error> {
    let length = Activity::MINUTE.as_millis() as u64;
    while !reply.is_empty() {
        let (minute, field, runs) = (reply.number()?, reply.bytes()?, reply.number()?);
        let minute = Timestamp(minute * length);
        let Some((&what, mut queue)) = field.split_first() else { continue };
        let step = queue.first().copied().unwrap_or_default();
        if what == b'd' {
            queue = queue.get(1..).unwrap_or_default();
        }
        let queue = name_of(&field.slice_ref(queue))?;
        let of = counts.entry((minute, Name::clone(&queue))).or_insert_with(|| Activity::new(minute, queue));
        match what {
            b'n' => of.created += runs,
            b'd' => of.durations.count(step, runs),
            b's' => of.count_ended(RunStatus::Succeeded, runs),
            b'f' => of.count_ended(RunStatus::Failed, runs),
            b'c' => of.count_ended(RunStatus::Cancelled, runs),
            b'e' => of.count_ended(RunStatus::Expired, runs),
            _ => {}
        }
    }
    Ok(())
}

/// Puts together what several partitions have counted.
pub(crate) fn merge(pages: Vec<Vec<Activity>>) -> Vec<Activity> {
    let mut counts = Counts::new();
    for activity in pages.into_iter().flatten() {
        let key = (activity.minute, Name::clone(&activity.queue));
        match counts.get_mut(&key) {
            Some(known) => known.add(&activity),
            None => drop(counts.insert(key, activity)),
        }
    }
    counts.into_values().collect()
}
