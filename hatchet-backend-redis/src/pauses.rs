//! What is paused, as the scripts write it down.

use std::collections::BTreeMap;

use hatchet_core::backend::{Pausable, Pause, Timestamp};

use crate::{codec::name_of, error::Error, scripts::Scripts};

/// The field that stands for what is or is to be paused.
fn field_of(what: &Pausable) -> Vec<u8> {
    let (kind, name) = match what {
        Pausable::Queue(queue) => (b'q', queue),
        Pausable::Workflow(workflow) => (b'w', workflow),
    };
    [&[kind], name.as_bytes()].concat()
}

/// Pauses something in one partition; since when it is paused there.
pub(crate) async fn pause(scripts: &Scripts, what: &Pausable) -> Result<Timestamp, Error> {
    let mut reply = scripts.pause(&field_of(what), true).await?;
    let since = Timestamp(reply.number()?);
    while !reply.is_empty() {
        let worker = reply.bytes()?;
        tracing::warn!(
            %what,
            worker = %String::from_utf8_lossy(&worker),
            "a worker with an older version of this library takes no notice of pauses"
        );
    }
    Ok(since)
}

/// Has something go on in one partition; whether it was paused there.
pub(crate) async fn go_on(scripts: &Scripts, what: &Pausable) -> Result<bool, Error> {
    Ok(scripts.pause(&field_of(what), false).await?.signed()? >= 0)
}

/// What is paused in one partition. What another program left there is passed over.
pub(crate) async fn read(scripts: &Scripts) -> Result<Vec<Pause>, Error> {
    let mut reply = scripts.paused().await?;
    let mut pauses = Vec::new();
    while !reply.is_empty() {
        let (field, since) = (reply.bytes()?, reply.bytes()?);
        pauses.extend(read_one(&field, &since));
    }
    Ok(pauses)
}

fn read_one(field: &[u8], since: &[u8]) -> Option<Pause> {
    let (kind, name) = field.split_first()?;
    let name = name_of(name).ok()?;
    let what = match kind {
        b'q' => Pausable::Queue(name),
        b'w' => Pausable::Workflow(name),
        _ => return None,
    };
    let since = std::str::from_utf8(since).ok().and_then(|text| text.parse().ok()).unwrap_or_default();
    Some(Pause::new(what, Timestamp(since)))
}

/// Puts together what several partitions have paused.
pub(crate) fn merge(pages: Vec<Vec<Pause>>) -> Vec<Pause> {
    let mut pauses = BTreeMap::<Pausable, Timestamp>::new();
    for Pause { what, since, .. } in pages.into_iter().flatten() {
        let first = pauses.entry(what).or_insert(since);
        *first = since.min(*first);
    }
    pauses.into_iter().map(|(what, since)| Pause::new(what, since)).collect()
}
