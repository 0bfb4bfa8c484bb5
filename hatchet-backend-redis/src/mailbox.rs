//! The events of a session on their way from its inbox in Redis to `receive`.
//!
//! In each partition a session has an inbox, and one task that reads it: it waits on a connection of its own for the
//! mark that a script leaves there, then takes the events through the command connection. Another task, where the
//! heartbeats are sent, looks out for sessions that have died (`lookout.rs`). A mark that is lost with a connection
//! costs nothing, since the inbox is looked into before each wait, and at least every few seconds. Events are dropped
//! from the inbox only by the read that follows.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hatchet_core::backend::{Event, Inquiry, Name, SessionId};
use redis::aio::{ConnectionLike as _, MultiplexedConnection};
use tokio::{
    sync::Notify,
    task::AbortHandle,
    time::{Instant, sleep},
};

use crate::{
    codec::read_event,
    error::Error,
    joining::Joining,
    lookout::look_out,
    node::{Lane, Node},
    scripts::Scripts,
};

/// How long one wait takes at most: the safety net for marks that were lost.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// Beyond the wait, how long the server may take to say that there was nothing.
const GRACE: Duration = Duration::from_secs(5);
const EVENTS_AT_ONCE: usize = 1_024;
/// What stands in an inbox and is no event: the process is to say that it lives.
const SPEAK_UP: &[u8] = b"P";
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(100);

/// Where the events of a session wait for `receive`.
#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    state: Mutex<State>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct State {
    events: VecDeque<Event>,
    lost: bool,
    readers: Vec<AbortHandle>,
    lookouts: Vec<AbortHandle>,
    /// Queues in which there is work again, each with its partition.
    work: BTreeSet<(Name, usize)>,
    /// Queues that were not claimed from, since their partition was out of reach.
    left_out: BTreeSet<(Name, usize)>,
    /// Partitions that were out of reach when somebody asked what the session holds.
    unasked: BTreeSet<usize>,
    /// The partitions whose events cannot be read: the log tells of the first and of the end.
    interrupted: BTreeSet<usize>,
    /// When something is due, if the session is to learn that.
    due: Option<Instant>,
    /// The last of these moments that it learned. It sweeps then, and is answered when the next one is.
    known_due: Option<Instant>,
    /// Whether a reader has panicked and no call has said so yet.
    panicked: bool,
}

/// Held by a task that reads an inbox. If the task panics, the next `receive` fails: whoever calls it again starts the readers
/// anew. Without that, a call that waits would wait for ever.
struct Reads(Arc<Mailbox>);

impl Drop for Reads {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.state().panicked = true;
            self.0.arrive();
        }
    }
}

impl Mailbox {
    /// Waits for events and takes all that are there.
    ///
    /// # Cancel safety
    /// A dropped future takes nothing.
    pub(crate) async fn receive(&self) -> Result<Vec<Event>, Error> {
        loop {
            let arrived = self.arrived.notified();
            {
                let mut state = self.state();
                if !state.events.is_empty() || state.due.is_some() {
                    let due = state.due.take().map(|due| Event::DueIn(due.saturating_duration_since(Instant::now())));
                    return Ok(state.events.drain(..).chain(due).collect());
                }
                if state.lost {
                    return Err(Error::SessionLost);
                }
                if std::mem::take(&mut state.panicked) {
                    state.readers.drain(..).for_each(|reader| reader.abort());
                    return Err(Error::Stopped);
                }
            }
            arrived.await;
        }
    }

    pub(crate) fn put(&self, partition: usize, events: Vec<Event>) {
        {
            let mut state = self.state();
            for event in &events {
                if let Event::Work(queue) = event {
                    state.work.insert((Arc::clone(queue), partition));
                }
            }
            state.events.extend(events);
        }
        self.arrive();
    }

    /// Has the session learn that something is due after this time.
    pub(crate) fn put_due(&self, wait: Duration) {
        let now = Instant::now();
        // A time that the clock cannot represent never arrives.
        let Some(at) = now.checked_add(wait) else { return };
        {
            let mut state = self.state();
            // What it has not heard yet counts however late it is: a later moment must not take its place.
            let is_sooner = |known: Instant| known <= at && (now < known || state.due == Some(known));
            if state.known_due.is_some_and(is_sooner) {
                return;
            }
            (state.due, state.known_due) = (Some(at), Some(at));
        }
        self.arrive();
    }

    fn arrive(&self) {
        self.arrived.notify_waiters();
        self.arrived.notify_one();
    }

    /// The queues that were told to have work again since this was last asked, each with its partition.
    pub(crate) fn take_work(&self) -> Vec<(Name, usize)> {
        std::mem::take(&mut self.state().work).into_iter().collect()
    }

    /// Notes queues that are not claimed from in a partition that is out of reach.
    pub(crate) fn leave_out<'a>(&self, partition: usize, queues: impl Iterator<Item = &'a Name>) {
        self.state().left_out.extend(queues.map(|queue| (Arc::clone(queue), partition)));
    }

    /// Notes a partition that could not say what the session holds there.
    pub(crate) fn not_asked(&self, partition: usize) {
        self.state().unasked.insert(partition);
    }

    /// A partition is back: has the session look into the queues that it left out, and ask again what it holds there.
    fn is_back(&self, partition: usize) {
        let mut events: Vec<Event> = Vec::new();
        {
            let mut state = self.state();
            events.extend(state.unasked.remove(&partition).then_some(Event::Restarted(partition)));
            let back = state.left_out.extract_if(.., |(_, of)| *of == partition);
            events.extend(back.map(|(queue, _)| Event::Work(queue)));
        }
        if !events.is_empty() {
            self.put(partition, events);
        }
    }

    /// Notes that the events of a partition cannot be read; whether those of all others can.
    fn is_interrupted(&self, partition: usize) -> bool {
        let mut state = self.state();
        state.interrupted.insert(partition);
        state.interrupted.len() == 1
    }

    /// Notes that the events of a partition are read again; whether those of all are.
    fn resumes(&self, partition: usize) -> bool {
        let mut state = self.state();
        state.interrupted.remove(&partition);
        state.interrupted.is_empty()
    }

    /// Whether somebody reads the session's inboxes.
    pub(crate) fn is_read(&self) -> bool {
        !self.state().readers.is_empty()
    }

    /// Whether the session is over.
    pub(crate) fn is_lost(&self) -> bool {
        self.state().lost
    }

    /// Ends it: the session is over.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        state.lost = true;
        let State { readers, lookouts, .. } = &mut *state;
        readers.drain(..).chain(lookouts.drain(..)).for_each(|task| task.abort());
        drop(state);
        self.arrive();
    }

    /// Begins to look out for others, if nobody does. Called where the heartbeats are sent.
    pub(crate) fn ensure_lookouts(
        self: &Arc<Self>,
        partitions: &[Arc<Scripts>],
        session: SessionId,
        joining: Option<&Arc<Joining>>,
    ) {
        let mut state = self.state();
        let runs = !state.lookouts.is_empty() && state.lookouts.iter().all(|lookout| !lookout.is_finished());
        if runs || state.lost {
            return;
        }
        state.lookouts.drain(..).for_each(|lookout| lookout.abort());
        let look_out = |(partition, scripts): (usize, &Arc<Scripts>)| {
            let join = (joining.cloned(), partition);
            tokio::spawn(look_out(Arc::clone(self), Arc::clone(scripts), session, join)).abort_handle()
        };
        state.lookouts = partitions.iter().enumerate().map(look_out).collect();
    }

    /// Begins to read the session's inboxes, if nobody does.
    pub(crate) fn ensure_readers(
        self: &Arc<Self>,
        partitions: &[Arc<Scripts>],
        session: SessionId,
        joining: Option<&Arc<Joining>>,
    ) {
        let mut state = self.state();
        let runs = !state.readers.is_empty() && state.readers.iter().all(|reader| !reader.is_finished());
        if runs || state.lost {
            return;
        }
        state.readers.drain(..).for_each(|reader| reader.abort());
        state.interrupted.clear();
        for (partition, scripts) in partitions.iter().enumerate() {
            let (mailbox, scripts) = (Arc::clone(self), Arc::clone(scripts));
            let reader = InboxReader { mailbox, scripts, session, partition, joining: joining.cloned() };
            let reads = Reads(Arc::clone(self));
            let read = async move {
                let _reads = reads;
                reader.run().await;
            };
            state.readers.push(tokio::spawn(read).abort_handle());
        }
    }

    /// Held only to look or to change, never across a wait.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct InboxReader {
    mailbox: Arc<Mailbox>,
    scripts: Arc<Scripts>,
    session: SessionId,
    partition: usize,
    joining: Option<Arc<Joining>>,
}

/// What an inbox had.
struct Taken {
    events: Vec<Event>,
    /// How many there were, with those that are no events.
    count: usize,
    /// The number of the first one that was not taken.
    next: u64,
    /// Whose inbox it was.
    from: Arc<Node>,
}

/// A connection that waits, and whose it is.
type Waiting = (Arc<Node>, MultiplexedConnection);

impl InboxReader {
    async fn run(self) {
        let mut next = 0;
        // As soon as it is read it says which connection it lives by: if it died before, nobody would notice until its lease ends.
        let mut is_named = self.scripts.client().virtual_time().is_some();
        let mut connection = None;
        let mut was_interrupted = false;
        let mut server = None;
        let told = self.scripts.client().virtual_time().map(|time| time.listen(self.session));
        loop {
            let before = self.server().await;
            let taken = self.take(next, &mut is_named).await;
            if taken.is_ok() && self.is_another(&mut server, before, was_interrupted).await {
                self.mailbox.put(self.partition, vec![Event::Restarted(self.partition)]);
            }
            let given = match taken {
                Ok(taken) => self.give(taken, &mut next).await,
                Err(error) => Err(error),
            };
            let result = match (given, &told) {
                (Ok(0), None) => self.wait(&mut connection).await,
                (Ok(0), Some(told)) => {
                    told.notified().await;
                    Ok(())
                }
                (other, _) => other.map(drop),
            };
            match result {
                Ok(()) => {
                    self.mailbox.is_back(self.partition);
                    if was_interrupted && self.mailbox.resumes(self.partition) {
                        tracing::info!(session = %self.session, "events are received again");
                    }
                    was_interrupted = false;
                }
                Err(Error::SessionLost) => return self.mailbox.close(),
                Err(error) => {
                    connection = None;
                    if !was_interrupted && self.mailbox.is_interrupted(self.partition) {
                        tracing::warn!(session = %self.session, %error, "cannot read events; retrying");
                    }
                    was_interrupted = true;
                    sleep(PAUSE_AFTER_FAILURE).await;
                }
            }
        }
    }

    /// Which start of which server commands go to now, as far as it tells.
    async fn server(&self) -> String {
        let identity = self.scripts.client().identity(Lane::Commands).await.ok().flatten();
        identity.map(|identity| identity.server).unwrap_or_default()
    }

    /// Whether the inbox was taken from another start of a server than `known`. `before` is the one before that. Where
    /// both are not the same, it may have been either, and the next time tells: what this server had for us is dropped
    /// when it is first taken from it, as read, and has to be looked for after that.
    async fn is_another(&self, known: &mut Option<String>, before: String, was_interrupted: bool) -> bool {
        let now = self.server().await;
        let is_first = known.is_none();
        let is_other = known.as_ref() != Some(&now) || now.is_empty() && was_interrupted;
        if now == before {
            *known = Some(now);
        }
        is_other && !is_first
    }

    /// Takes what is in the inbox behind the event `next`, and drops what is before it.
    async fn take(&self, next: u64, is_named: &mut bool) -> Result<Taken, Error> {
        if let Some(joining) = &self.joining {
            joining.join(self.partition, &self.scripts).await?;
        }
        let (mut reply, from) = self.scripts.take(self.session, next, EVENTS_AT_ONCE).await?;
        let mut taken = Taken { events: Vec::new(), count: 0, next: reply.number()?, from };
        let mut speak_up = !*is_named;
        while !reply.is_empty() {
            let event = reply.bytes()?;
            taken.count += 1;
            if event == SPEAK_UP {
                speak_up = true;
            } else {
                taken.events.push(match read_event(event)? {
                    Event::Inquiry(inquiry) => Event::Inquiry(Inquiry { partition: self.partition, ..inquiry }),
                    other => other,
                });
            }
        }
        taken.next += taken.count as u64;
        if speak_up {
            self.scripts.speak_up(self.session, Lane::Commands).await?;
            *is_named = true;
        }
        Ok(taken)
    }

    /// Hands on what was taken, once replicas have it where they are waited for: nobody is to go on from what a
    /// failover may lose. Until then it stays in the inbox, and is taken again. How many events that were.
    async fn give(&self, taken: Taken, next: &mut u64) -> Result<usize, Error> {
        if !taken.events.is_empty() {
            self.scripts.confirm(&taken.from).await?;
            self.mailbox.put(self.partition, taken.events);
        }
        *next = taken.next;
        Ok(taken.count)
    }

    async fn wait(&self, waiting: &mut Option<Waiting>) -> Result<(), Error> {
        let (node, connection) = match waiting {
            Some(waiting) => waiting,
            None => waiting.insert(self.scripts.client().blocking().await?),
        };
        let mut command = redis::cmd("BLPOP");
        command.arg(self.scripts.keys().mark(self.session)).arg(LONGEST_WAIT.as_secs());
        let call = async { Ok(connection.req_packed_command(&command).await.and_then(redis::Value::extract_error)?) };
        match tokio::time::timeout(LONGEST_WAIT + GRACE, node.unless_left(call)).await {
            Ok(reply) => reply.map(drop).map_err(|error| self.scripts.client().note(node, error)),
            Err(_) => Err(Error::Stopped),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_partitions_that_are_away_the_first_is_told_of_and_the_return_of_the_last() {
        let mailbox = Mailbox::default();
        assert!(mailbox.is_interrupted(0));
        assert!(!mailbox.is_interrupted(1));
        assert!(!mailbox.resumes(0));
        assert!(mailbox.resumes(1));
    }

    #[tokio::test]
    async fn a_reader_that_panics_is_noticed_by_who_waits_for_events() {
        let mailbox = Arc::new(Mailbox::default());
        let receive = tokio::spawn({
            let mailbox = Arc::clone(&mailbox);
            async move { mailbox.receive().await }
        });
        tokio::task::yield_now().await;
        let reads = Reads(Arc::clone(&mailbox));
        let reader = tokio::spawn(async move {
            let _reads = reads;
            panic!("on purpose");
        });
        mailbox.state().readers.push(reader.abort_handle());
        assert!(matches!(receive.await.unwrap(), Err(Error::Stopped)));
        assert!(!mailbox.is_read(), "the next call starts them again");
        mailbox.put(0, vec![Event::Work("q".into())]);
        assert_eq!(mailbox.receive().await.unwrap().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_told_again_and_again_is_kept_once() {
        let mailbox = Mailbox::default();
        for _ in 0..100_000 {
            mailbox.put(0, vec![Event::Work("q".into())]);
            mailbox.put(1, vec![Event::Work("q".into())]);
            mailbox.put_due(Duration::from_secs(5));
            mailbox.receive().await.unwrap();
        }
        assert_eq!(mailbox.state().work.len(), 2);
        assert!(mailbox.state().events.is_empty());
        assert_eq!(mailbox.take_work(), [("q".into(), 0), ("q".into(), 1)]);
        assert!(mailbox.take_work().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_later_moment_is_not_told_before_the_sooner_one_has_come() {
        let (mailbox, second) = (Mailbox::default(), Duration::from_secs(1));
        let told = async || tokio::time::timeout(second / 2, mailbox.receive()).await.ok();
        mailbox.put_due(second * 5);
        assert!(matches!(told().await.unwrap().unwrap()[..], [Event::DueIn(wait)] if wait == second * 5));
        mailbox.put_due(second * 9);
        assert!(told().await.is_none());
        mailbox.put_due(second);
        assert!(matches!(told().await.unwrap().unwrap()[..], [Event::DueIn(wait)] if wait == second));
        sleep(second).await;
        mailbox.put_due(second * 9);
        assert!(matches!(told().await.unwrap().unwrap()[..], [Event::DueIn(wait)] if wait == second * 9));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_due_and_not_yet_received_is_not_replaced_by_a_later_moment_of_another_partition() {
        let (mailbox, second) = (Mailbox::default(), Duration::from_secs(1));
        mailbox.put_due(Duration::ZERO);
        mailbox.put_due(second * 9);
        sleep(second).await;
        mailbox.put_due(second * 9);
        assert!(matches!(mailbox.receive().await.unwrap()[..], [Event::DueIn(Duration::ZERO)]));
    }
}
