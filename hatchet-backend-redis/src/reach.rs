//! Calls to several partitions of which one may be out of reach, or on a server that refuses: the others must not suffer from it.
//!
//! Each partition knows whether its last command failed in a way that may pass. Whoever asks all partitions waits for such a one
//! only a moment, and for one that does not answer no more than half a second longer than for the others. It is out of reach then, until
//! any command to it succeeds: the inbox readers and the look-outs try all the time.
//!
//! A server that refuses (its disk is full, its user has no rights, another program's key is in the way) does so at once, and is asked
//! each time. The log says so once in a while, since the caller has the answers of the others and does not.

use std::{
    future::Future,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::time::{Instant, timeout_at};

use crate::{error::Error, scripts::Scripts};

/// How much longer than for the others a partition is waited for that is out of reach.
const MOMENT: Duration = Duration::from_millis(50);
/// How much longer than for the others a partition is waited for that does not answer. One that is slow all the same is back with
/// its answer, and what it gave is found.
const SILENCE: Duration = Duration::from_millis(400);

/// The same where nobody else asks for what it has: seldom, so that the others can wait for one that is far away or has much to do.
const LONG_SILENCE: Duration = Duration::from_secs(2);

/// Whether a partition can be reached.
#[derive(Debug, Default)]
pub(crate) struct Reach {
    is_out: AtomicBool,
}

impl Reach {
    pub(crate) fn is_out(&self) -> bool {
        self.is_out.load(Ordering::Relaxed)
    }

    /// A command succeeded.
    pub(crate) fn is_back(&self) {
        if self.is_out() {
            self.is_out.store(false, Ordering::Relaxed);
        }
    }

    /// A command failed, or had no answer.
    pub(crate) fn failed(&self) {
        self.is_out.store(true, Ordering::Relaxed);
    }
}

/// The answers of those partitions that can be reached and do not refuse, each with the place of its call. A future that is not waited for
/// is dropped.
///
/// # Errors
/// [`Error::SessionLost`] if any says so, since a session is one for all. If none has answered, what is wrong with one: rather what may
/// pass, since the next try may come to something else.
pub(crate) async fn answers_of_reachable<T, F>(calls: Vec<(Arc<Scripts>, F)>) -> Result<Vec<(usize, T)>, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    answers_within(SILENCE, calls).await
}

/// The same, with more time for those that were reachable before.
///
/// # Errors
/// As [`answers_of_reachable`].
pub(crate) async fn patient_answers_of_reachable<T, F>(calls: Vec<(Arc<Scripts>, F)>) -> Result<Vec<(usize, T)>, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    answers_within(LONG_SILENCE, calls).await
}

async fn answers_within<T, F>(silence: Duration, mut calls: Vec<(Arc<Scripts>, F)>) -> Result<Vec<(usize, T)>, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    if calls.len() == 1
        && let Some((_, call)) = calls.pop()
    {
        return Ok(vec![(0, call.await?)]);
    }
    let (mut answers, mut refused, mut last_error) = (Vec::with_capacity(calls.len()), Vec::new(), None);
    let (partitions, calls): (Vec<_>, Vec<_>) = calls.into_iter().unzip();
    let mut is_pending = vec![true; calls.len()];
    let numbered = calls.into_iter().enumerate().map(|(at, call)| async move { (at, call.await) });
    let mut under_way = pin!(numbered.collect::<FuturesUnordered<_>>());
    let mut last_event = Instant::now();
    loop {
        let pending =
            || partitions.iter().zip(&is_pending).filter(|(_, pending)| **pending).map(|(scripts, _)| scripts);
        let waits = if pending().all(|scripts| scripts.client().reach().is_out()) { MOMENT } else { silence };
        let is_first = answers.is_empty() && last_error.is_none();
        let next =
            if is_first { Ok(under_way.next().await) } else { timeout_at(last_event + waits, under_way.next()).await };
        let (at, answer) = match next {
            Ok(Some(next)) => next,
            Ok(None) => break,
            Err(_) => {
                pending().for_each(|scripts| scripts.client().reach().failed());
                break;
            }
        };
        is_pending[at] = false;
        last_event = Instant::now();
        match answer {
            Ok(answer) => answers.push((at, answer)),
            Err(Error::SessionLost) => return Err(Error::SessionLost),
            Err(error) => {
                if !error.may_pass() {
                    refused.push((at, error.clone()));
                }
                if error.may_pass() || last_error.is_none() {
                    last_error = Some(error);
                }
            }
        }
    }
    if !answers.is_empty() {
        // Else the caller says so.
        refused.iter().for_each(|(at, error)| partitions[*at].client().tell_of_refusal(error));
    }
    match last_error {
        Some(error) if answers.is_empty() => Err(error),
        _ => Ok(answers),
    }
}
