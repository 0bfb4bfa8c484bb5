//! Steps recovered from dead workers: whether a step may have killed its worker, and how it begins again.
//!
//! A step that kills its workers must not do so forever, but most steps of a dead worker only happened to be there. A death
//! counts against a step if the step had begun in that worker, was not only waiting, and has no more entries in its journal
//! than when it began. Progress resets the count.
//!
//! A note in the step's journal stores the necessary data: the state of the journal when the step began after the last
//! death, and later that it waits. It is written only after a death, so steps whose workers live cost nothing. After two
//! counted deaths in a row such steps begin one at a time: the next one begins when the previous one has ended, waits, or
//! has run for a while. So none of them takes others down with it.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{
    sync::{Mutex, OwnedMutexGuard},
    time::{Sleep, sleep},
};

use super::{
    attempt::state::AttemptState,
    driver::{Driver, Ending},
};
use crate::{
    backend::{BackendError, Name, Refused},
    definition::BoxFuture,
    journal::Progress,
};

/// How long a suspect has to survive until the next one begins.
const SURVIVED: Duration = Duration::from_secs(1);
/// How many deaths in a row make a step a suspect.
const SUSPECT: u32 = 2;

/// Held by the suspect that has its turn.
#[derive(Debug, Default)]
pub(crate) struct Suspects(Arc<Mutex<()>>);

/// What is noted of a step that was taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    /// How often it had been taken over.
    recoveries: u32,
    /// How many deaths in a row count against it.
    fruitless: u32,
    progress: Progress,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Phase {
    /// It is a suspect, and has not had its turn.
    Queued,
    Begun,
    /// Only its journal can wake it, or its code has come to its end.
    Waits,
}

/// How many deaths in a row count against a step that is taken over for the `recoveries`th time.
fn fruitless(before: Option<Note>, recoveries: u32, progress: Progress) -> u32 {
    match before {
        // Nothing is known of the first time that it ran, and without a note it did not begin again.
        None => 1,
        // It was given back or parked meanwhile: nobody died.
        Some(note) if note.recoveries == recoveries => note.fruitless,
        Some(note) if progress.is_beyond(note.progress) => 1,
        Some(note) => note.fruitless.saturating_add(u32::from(note.phase == Phase::Begun)),
    }
}

/// A step that was taken over, about to begin.
pub(super) struct TakenOver {
    attempt: Arc<AttemptState>,
    note: Note,
}

impl TakenOver {
    /// Judges a step whose journal is loaded.
    pub(super) fn new(attempt: &Arc<AttemptState>) -> Self {
        let journal = attempt.journal();
        let before = journal.value(NOTE).and_then(|note| serde_json::from_slice(note).ok());
        let (recoveries, progress) = (attempt.recoveries(), journal.progress());
        drop(journal);
        let note =
            Note { recoveries, fruitless: fruitless(before, recoveries, progress), progress, phase: Phase::Queued };
        Self { attempt: Arc::clone(attempt), note }
    }

    /// How many deaths in a row count against it.
    pub(super) fn fruitless(&self) -> u32 {
        self.note.fruitless
    }

    /// Writes down that it begins, when it is its turn. `None` if the attempt is over.
    ///
    /// # Errors
    /// What the backend says.
    pub(super) async fn begin(mut self, suspects: &Suspects) -> Result<Option<Beginning>, Arc<BackendError>> {
        let mut turn = None;
        if self.note.fruitless >= SUSPECT {
            if !self.write(Phase::Queued).await? {
                return Ok(None);
            }
            turn = self.turn(suspects).await;
            if turn.is_none() {
                return Ok(None);
            }
        }
        let begins = self.write(Phase::Begun).await?;
        Ok(begins.then_some(Beginning { taken_over: self, turn }))
    }

    /// Waits for its turn. `None` if the attempt is over before.
    async fn turn(&self, suspects: &Suspects) -> Option<OwnedMutexGuard<()>> {
        let mut turn = pin!(Arc::clone(&suspects.0).lock_owned());
        poll_fn(|cx| {
            self.attempt.bell().set_driver(cx.waker());
            if self.attempt.is_revoked() { Poll::Ready(None) } else { turn.as_mut().poll(cx).map(Some) }
        })
        .await
    }

    /// Answers whether the attempt goes on.
    async fn write(&mut self, phase: Phase) -> Result<bool, Arc<BackendError>> {
        self.note.phase = phase;
        note(&self.attempt, self.note).await
    }
}

/// The name of the entry.
const NOTE: &str = "engine:taken-over";

async fn note(attempt: &AttemptState, note: Note) -> Result<bool, Arc<BackendError>> {
    let text = serde_json::to_vec(&note).unwrap_or_default();
    match attempt.try_record_value(Name::from(NOTE), text.into()).await? {
        Ok(()) => Ok(true),
        Err(Refused::LeaseLost | Refused::Ended | Refused::StateChanged(_) | Refused::Moved | Refused::NotEnded) => {
            attempt.abandon();
            Ok(false)
        }
    }
}

/// A step that was taken over and may begin.
pub(super) struct Beginning {
    taken_over: TakenOver,
    /// Of a suspect.
    turn: Option<OwnedMutexGuard<()>>,
}

impl Beginning {
    /// Has it driven.
    pub(super) fn drive(self, driver: Driver) -> Resumed {
        let turn = self.turn.map(|turn| (turn, Box::pin(sleep(SURVIVED))));
        Resumed { driver, taken_over: self.taken_over, turn, noted: false, noting: None, ending: None }
    }
}

/// Drives a step that was taken over.
pub(super) struct Resumed {
    driver: Driver,
    taken_over: TakenOver,
    /// Of a suspect, until the next one may begin.
    turn: Option<(OwnedMutexGuard<()>, Pin<Box<Sleep>>)>,
    /// It is written down that it waits, or will be.
    noted: bool,
    noting: Option<BoxFuture<'static, ()>>,
    /// The result of a suspect, kept until the note that its code has ended is stored. Its turn lasts until then, because the next suspect
    /// may kill the worker before the result is stored.
    ending: Option<Ending>,
}

impl Resumed {
    /// What is to be written down once the step waits, or has come to its end.
    fn note_wait(&self) -> BoxFuture<'static, ()> {
        let attempt = Arc::clone(&self.taken_over.attempt);
        let progress = attempt.journal().progress();
        let waits = Note { phase: Phase::Waits, progress, ..self.taken_over.note };
        Box::pin(async move {
            if let Err(error) = note(&attempt, waits).await {
                tracing::debug!(run = %attempt.run_id(), %error, "the note that a step is waiting could not be stored");
            }
        })
    }
}

impl Future for Resumed {
    type Output = Ending;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Ending> {
        let this = &mut *self;
        if this.ending.is_none()
            && let Poll::Ready(ending) = Pin::new(&mut this.driver).poll(cx)
        {
            let is_over = matches!(ending, Ending::Returned(_) | Ending::TimedOut(_));
            if !is_over || this.turn.is_none() {
                return Poll::Ready(ending);
            }
            (this.ending, this.noting) = (Some(ending), Some(this.note_wait()));
        }
        if let Some(ending) = this.ending.take() {
            if this.noting.as_mut().is_none_or(|noting| noting.as_mut().poll(cx).is_ready()) {
                return Poll::Ready(ending);
            }
            this.ending = Some(ending);
            return Poll::Pending;
        }
        let waits = this.driver.waits();
        if let Some((_, survives)) = &mut this.turn
            && (waits || survives.as_mut().poll(cx).is_ready())
        {
            this.turn = None;
        }
        if waits && !this.noted && this.driver.rests() {
            this.noted = true;
            this.noting = Some(this.note_wait());
        }
        if let Some(noting) = &mut this.noting
            && noting.as_mut().poll(cx).is_ready()
        {
            this.noting = None;
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(items: u64) -> Progress {
        Progress { items, sequence: 3 }
    }

    fn before(recoveries: u32, fruitless: u32, phase: Phase) -> Option<Note> {
        Some(Note { recoveries, fruitless, progress: progress(5), phase })
    }

    #[test]
    fn a_death_counts_against_a_step_that_had_begun_and_came_no_further() {
        assert_eq!(fruitless(None, 1, progress(5)), 1);
        assert_eq!(fruitless(None, 4, progress(5)), 1, "without a note it did not begin again");
        assert_eq!(fruitless(before(1, 1, Phase::Begun), 2, progress(5)), 2);
        assert_eq!(fruitless(before(1, 7, Phase::Begun), 2, progress(6)), 1, "it came further");
        assert_eq!(fruitless(before(1, 7, Phase::Waits), 2, progress(5)), 7);
        assert_eq!(fruitless(before(1, 7, Phase::Queued), 2, progress(5)), 7);
        assert_eq!(fruitless(before(2, 7, Phase::Begun), 2, progress(5)), 7, "nobody died since");
    }
}
