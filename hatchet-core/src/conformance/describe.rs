//! The nouns of the suite: runs to start, commits, wakes and payloads, with defaults for what a case does not care
//! about.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::backend::{
    Commit, Entry, Extras, JournalWrite, Known, Lease, Name, NewRun, Outcome, Payload, Priority, ReadyStep, RunId,
    Slot, StateChange, StepIndex, Task, Then, Wake,
};

/// The queue of root runs that do not say another.
pub(crate) const ROOTS: &str = "q";
/// The queue of children that do not say another.
pub(crate) const CHILDREN: &str = "c";

pub(crate) fn payload(text: impl AsRef<[u8]>) -> Payload {
    Payload::copy_from_slice(text.as_ref())
}

pub(crate) fn name(text: impl AsRef<str>) -> Name {
    Name::from(text.as_ref())
}

pub(crate) fn ok(output: &str) -> Outcome {
    Outcome::Succeeded(payload(output))
}

pub(crate) fn failed(why: &str) -> Outcome {
    Outcome::Failed(payload(why))
}

thread_local! {
    /// Where the root runs of this case are; a case has a thread of its own. A backend keeps the order of tasks within a
    /// partition, so that is where most cases happen.
    static PARTITION: RunId = RunId::random();
}

/// A root run of workflow `W` with an identity of its own, in the partition of the case.
pub(crate) fn root() -> NewRun {
    let near = PARTITION.with(|here| *here);
    new_run(in_partition_of(RunId::random(), near), "W", ROOTS)
}

/// A root run of workflow `W` in whatever partition.
pub(crate) fn root_anywhere() -> NewRun {
    new_run(RunId::random(), "W", ROOTS)
}

fn in_partition_of(run: RunId, near: RunId) -> RunId {
    let bits = u128::from(u16::MAX);
    RunId::from_uid((run.uid() & !bits) | (near.uid() & bits))
}

/// The child with this index of the task that holds `lease`, of workflow `C`.
pub(crate) fn child(lease: &Lease, index: u32) -> NewRun {
    new_run(RunId::child(lease.run.uid(), lease.step, Slot::Index(index), 0), "C", CHILDREN)
}

/// The child with this key of the task that holds `lease`, of workflow `C`.
pub(crate) fn keyed_child(lease: &Lease, key: &str) -> NewRun {
    let id = RunId::child(lease.run.uid(), lease.step, Slot::of_key(key), 0);
    NewRun { key: Some(name(key)), ..new_run(id, "C", CHILDREN) }
}

/// The slot of `run`, run again.
pub(crate) fn next_generation(run: &NewRun) -> NewRun {
    NewRun { id: run.id.next_generation(), ..run.clone() }
}

fn new_run(id: RunId, workflow: &str, queue: &str) -> NewRun {
    NewRun {
        id,
        workflow: name(workflow),
        queue: name(queue),
        priority: Priority::Normal,
        input: payload("{}"),
        fingerprint: 7,
        key: None,
        extras: Extras::default(),
    }
}

/// A root run with an idempotency key is where that says.
fn settle_partition(mut run: NewRun) -> NewRun {
    if let (None, Some(key)) = (run.id.origin(), &run.key) {
        run.id = run.id.with_idempotency_key(&run.workflow, key);
    }
    run
}

/// What a run can have besides; each gives the run back.
pub(crate) trait Describe: Sized {
    fn of(self, workflow: &str) -> Self;
    fn on(self, queue: &str) -> Self;
    fn with_priority(self, priority: Priority) -> Self;
    fn with_input(self, input: impl AsRef<[u8]>) -> Self;
    fn with_key(self, key: &str) -> Self;
    fn with_fingerprint(self, fingerprint: u64) -> Self;
    fn labelled(self, labels: &[(&str, &str)]) -> Self;
    fn delayed(self, delay: Duration) -> Self;
    fn queue_timeout(self, timeout: Duration) -> Self;
    fn timeout(self, timeout: Duration) -> Self;
    fn detached(self) -> Self;
    fn watched(self) -> Self;
    fn in_fan_out(self) -> Self;
}

impl Describe for NewRun {
    fn of(mut self, workflow: &str) -> Self {
        self.workflow = name(workflow);
        settle_partition(self)
    }

    fn on(mut self, queue: &str) -> Self {
        self.queue = name(queue);
        self
    }

    fn with_priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    fn with_input(mut self, input: impl AsRef<[u8]>) -> Self {
        self.input = payload(input);
        self
    }

    fn with_key(mut self, key: &str) -> Self {
        self.key = Some(name(key));
        settle_partition(self)
    }

    fn with_fingerprint(mut self, fingerprint: u64) -> Self {
        self.fingerprint = fingerprint;
        self
    }

    fn labelled(mut self, labels: &[(&str, &str)]) -> Self {
        self.extras.metadata = Some(Arc::new(pairs(labels)));
        self
    }

    fn delayed(mut self, delay: Duration) -> Self {
        self.extras.delay = Some(delay);
        self
    }

    fn queue_timeout(mut self, timeout: Duration) -> Self {
        self.extras.queue_timeout = Some(timeout);
        self
    }

    fn timeout(mut self, timeout: Duration) -> Self {
        self.extras.timeout = Some(timeout);
        self
    }

    fn detached(mut self) -> Self {
        self.extras.detached = true;
        self
    }

    fn watched(mut self) -> Self {
        self.extras.watched = true;
        self
    }

    fn in_fan_out(mut self) -> Self {
        self.extras.fan_out = true;
        self
    }
}

pub(crate) fn pairs(labels: &[(&str, &str)]) -> BTreeMap<String, String> {
    labels.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// A commit of `task` that only says where it goes.
pub(crate) fn commit(task: &Task, then: Then) -> Commit {
    Commit::new(task.lease, then)
}

/// What a commit can do besides; each gives the commit back.
pub(crate) trait Also: Sized {
    fn state(self, expected: &str, new: &str) -> Self;
    fn output(self, step: u16, output: &str) -> Self;
    fn ready(self, step: u16) -> Self;
    fn keep(self, step: u16) -> Self;
    fn knows(self, known: Known) -> Self;
}

impl Also for Commit {
    fn state(mut self, expected: &str, new: &str) -> Self {
        self.state = Some(StateChange { expected: payload(expected), new: payload(new) });
        self
    }

    fn output(mut self, step: u16, output: &str) -> Self {
        self.outputs.push((StepIndex(step), payload(output)));
        self
    }

    fn ready(mut self, step: u16) -> Self {
        self.ready.push(ReadyStep { step: StepIndex(step), keep: false });
        self
    }

    fn keep(mut self, step: u16) -> Self {
        self.ready.push(ReadyStep { step: StepIndex(step), keep: true });
        self
    }

    fn knows(mut self, known: Known) -> Self {
        self.known = known;
        self
    }
}

/// What knows one more of something than this, each in its turn.
pub(crate) fn one_more_than(known: Known) -> [Known; 4] {
    let Known { sequence, children, named, .. } = known;
    [
        Known { sequence: sequence + 1, ..known },
        Known { children: children + 1, ..known },
        Known { named: named + 1, ..known },
        Known { state: true, ..known },
    ]
}

/// Wakes at this sequence number and by nothing else.
pub(crate) fn at_sequence(sequence: u64) -> Wake {
    Wake::at(sequence)
}

/// Wakes by a failed child behind `seen`.
pub(crate) fn on_failure(seen: u64) -> Wake {
    Wake { on_failure: true, seen, ..never() }
}

/// Wakes by nothing that happens within a case. A time ends it all the same: what waits for something that cannot come
/// is a finding of [`Backend::fsck`](crate::backend::Backend::fsck).
pub(crate) fn never() -> Wake {
    Wake { within: Some(Duration::from_secs(30 * 24 * 3600)), ..at_sequence(u64::MAX) }
}

pub(crate) fn retry(attempt: u32, delay: Duration) -> Then {
    Then::Retry { attempt, delay, failure: payload("\"it failed\"") }
}

pub(crate) fn release() -> Then {
    Then::Release { delay: None }
}

/// A write of an entry that must not exist yet.
pub(crate) fn write(lease: &Lease, entry_name: &str, entry: Entry) -> JournalWrite {
    JournalWrite::new(*lease, name(entry_name), entry)
}

pub(crate) fn value(text: &str) -> Entry {
    Entry::Value(payload(text))
}

pub(crate) fn timer(after: Duration) -> Entry {
    Entry::Timer { after }
}

pub(crate) fn signal(signal_name: &str) -> Entry {
    Entry::Signal { name: name(signal_name), within: None }
}
