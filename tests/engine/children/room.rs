//! What the outputs of children take in memory: nothing once they were handed out, although the step goes on.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use hatchet::{
    Payload, RunId, SessionId,
    backend::{Backend, Commit, CommitReply, Event, JournalPage, Outcome, Resolution, Resolved, StepIndex, Watched},
    prelude::*,
    testing::TestWorld,
};

use crate::{
    play::secs,
    wrapper::{instead, pass_on},
};

const CHILDREN: usize = 40;
const LENGTH: usize = 256 << 10;

/// The bytes of outputs that are in memory, of those that a store has given.
#[derive(Clone, Debug, Default)]
struct Live(Arc<AtomicUsize>);

impl Live {
    /// How many outputs that is.
    fn outputs(&self) -> usize {
        self.0.load(Ordering::Acquire) / LENGTH
    }

    /// The same text, counted as long as anybody has it.
    fn count(&self, text: &mut Payload) {
        struct Counted(Vec<u8>, Live);
        impl AsRef<[u8]> for Counted {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }
        impl Drop for Counted {
            fn drop(&mut self) {
                self.1.0.fetch_sub(self.0.len(), Ordering::AcqRel);
            }
        }
        self.0.fetch_add(text.len(), Ordering::AcqRel);
        *text = Payload::from_owner(Counted(text.to_vec(), self.clone()));
    }

    fn count_outcome(&self, outcome: &mut Outcome) {
        if let Outcome::Succeeded(output) = outcome {
            self.count(output);
        }
    }

    fn count_resolved(&self, resolved: &mut Resolved) {
        if let Resolution::Child(outcome) = &mut resolved.resolution {
            self.count_outcome(outcome);
        }
    }

    fn count_events(&self, events: &mut [Event]) {
        for event in events {
            match event {
                Event::Resolved { items, .. } => {
                    items.iter_mut().for_each(|(_, resolved)| self.count_resolved(resolved))
                }
                Event::Ended(_, outcome) => self.count_outcome(outcome),
                _ => {}
            }
        }
    }
}

/// A store that counts what it gives.
#[derive(Debug)]
struct Counting {
    inner: Arc<dyn Backend>,
    live: Live,
}

impl Backend for Counting {
    instead! {
        async fn commit(self, session: SessionId, commits: Vec<Commit>) -> CommitReply {
            let mut reply = self.inner.commit(session, commits).await?;
            self.live.count_events(&mut reply.events);
            Ok(reply)
        }
    }

    instead! {
        async fn receive(self, session: SessionId) -> Vec<Event> {
            let mut events = self.inner.receive(session).await?;
            self.live.count_events(&mut events);
            Ok(events)
        }
    }

    instead! {
        async fn watch(self, session: SessionId, runs: Vec<RunId>) -> Vec<Watched> {
            let mut watched = self.inner.watch(session, runs).await?;
            for watched in &mut watched {
                if let Watched::Ended(outcome) = watched {
                    self.live.count_outcome(outcome);
                }
            }
            Ok(watched)
        }
    }

    instead! {
        async fn journal(self, run: RunId, step: StepIndex, cursor: Option<u64>, limit: usize) -> JournalPage {
            let mut page = self.inner.journal(run, step, cursor, limit).await?;
            page.items
                .iter_mut()
                .filter_map(|item| item.resolved.as_mut())
                .for_each(|one| self.live.count_resolved(one));
            Ok(page)
        }
    }

    pass_on! {
        info open heartbeat close workflows announced sessions activity remove resume pause unpause paused start claim held disown record sequences load cancel signal get list
        counts sweep fsck
    }
}

/// Gives a large text, one second after the one before it.
#[workflow(name = "room:large")]
struct Large;

#[workflow]
impl Large {
    #[step]
    async fn give(&self, _ctx: &StepContext, input: usize) -> StepResult<String> {
        tokio::time::sleep(secs(input as u64)).await;
        Ok(char::from(b'a' + (input % 26) as u8).to_string().repeat(LENGTH))
    }
}

/// Takes the outputs of its children in one way after the other, and notes after each how many are in memory.
#[workflow(name = "room:takes")]
struct Takes {
    live: Live,
    notes: Arc<Mutex<Vec<(&'static str, usize)>>>,
}

impl Takes {
    fn note(&self, how: &'static str) {
        self.notes.lock().unwrap().push((how, self.live.outputs()));
    }
}

#[workflow]
impl Takes {
    #[step]
    async fn take(&self, ctx: &StepContext, input: bool) -> StepResult<usize> {
        let children = ctx.spawn_all::<Large>(0..CHILDREN).await?;
        let mut sum = 0;
        if input {
            let mut each = ctx.together(children.handles());
            while let Some(child) = each.next().await {
                sum += child.result?.len();
                self.note("next");
            }
        } else {
            for child in children.handles() {
                sum += child.result().await?.len();
                self.note("result");
            }
        }
        // What was handed out before is read again.
        let again = children.settled().await;
        sum += again.iter().map(|output| output.as_ref().map_or(0, String::len)).sum::<usize>();
        self.note("settled");
        Ok(sum)
    }
}

#[tokio::test(start_paused = true)]
async fn an_output_that_was_handed_out_takes_no_memory_while_the_step_goes_on() {
    for by_next in [true, false] {
        let live = Live::default();
        let notes: Arc<Mutex<Vec<_>>> = Arc::default();
        let backend = Arc::new(Counting { inner: crate::backend().await, live: live.clone() });
        let takes = (live, Arc::clone(&notes));
        let world =
            TestWorld::new().on(backend).register(move || Takes { live: takes.0.clone(), notes: takes.1.clone() });
        let run = world.start::<Takes>(&by_next).await;
        assert_eq!(run.result().await.unwrap(), 2 * CHILDREN * LENGTH);
        let notes = notes.lock().unwrap().clone();
        assert_eq!(notes.len(), CHILDREN + 1);
        let most = notes.iter().max_by_key(|(_, outputs)| *outputs).unwrap();
        assert!(most.1 <= 2, "of {CHILDREN} outputs, {most:?} are in memory");
        world.check().await;
    }
}
