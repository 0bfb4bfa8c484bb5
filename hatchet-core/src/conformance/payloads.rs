//! Extremes: what a payload, a name or a number contains changes nothing, and every bit of it comes back.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use super::{
    describe::{
        Also as _, CHILDREN, Describe as _, ROOTS, child, commit, keyed_child, name, next_generation, pairs, payload,
        release, retry, root, signal, value, write,
    },
    harness::Harness,
};
use crate::backend::{
    Cancelled, Claim, Commit, Content, Entry, EntryKey, Extras, NewRun, Outcome, Payload, Query, ReadyStep, Resolution,
    RunId, Signalled, Slot, Started, StateChange, StepIndex, Then, Watched,
};

/// What no store may choke on, whatever its wire and its scripts are made of.
fn extremes() -> Vec<Payload> {
    let mut payloads: Vec<Payload> = vec![
        payload(""),
        payload(" "),
        payload("0"),
        payload("9007199254740993"),
        payload("-0.0"),
        payload("[]"),
        payload("{}"),
        payload("null"),
        payload("\"\\u0000\""),
        payload([0]),
        payload([0, 0, 0]),
        payload("a\0b"),
        payload("\r\n$-1\r\n*0\r\n+OK\r\n"),
        payload("'); return redis.call('FLUSHALL') --"),
        payload("; DROP TABLE runs; --"),
        payload("{}:*?[]%s\\\"'`"),
        payload("żółć 猫 🦀 \u{202e}"),
        payload([0xff, 0xfe, 0x80, 0xc0]),
        payload("{\"a\":{\"b\":[1,2,{\"c\":null}]}}"),
    ];
    payloads.push((0..=255).collect::<Vec<u8>>().into());
    payloads
}

fn extreme_names() -> Vec<String> {
    let mut names: Vec<String> = [
        "a", "A", "a ", " a", "0", "-1", "1e3", "nil", "null", "true", ".", "..", "/", "a:b", "a:b:c", "{a}", "{a}b",
        "a{b", "}", "*", "?", "[a]", "a\\b", "%00", "a\0b", "\r\n", "\"", "'", "`", "$x", "#", "é", "e\u{301}", "ß",
        "ẞ", "猫", "🦀", "\u{202e}", "\u{feff}", "a|b", "a,b", "a;b", "a=b", "a\tb", "\u{7f}",
    ]
    .map(str::to_owned)
    .to_vec();
    names.push("x".repeat(255));
    names.push(format!("{}y", "x".repeat(254)));
    names.push("猫".repeat(85));
    names
}

fn large() -> Payload {
    (0..1 << 20).map(|at: u32| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect::<Vec<u8>>().into()
}

/// Sends `given` through everything that takes a payload and compares what comes back.
async fn assert_kept(h: &Harness, given: &Payload) {
    let task = h.begin(root().with_input(given)).await;
    let run = task.lease.run;
    assert_eq!(task.input, given, "the input of the first task");
    h.record(&task.lease, "value", Entry::Value(given.clone())).await;
    let found = h.record(&task.lease, "value", value("other")).await;
    assert_eq!(found.entry, Entry::Value(given.clone()), "a recorded value");
    h.backend.signal(run, name("word"), 1, given.clone()).await.unwrap();
    let recorded = h.record(&task.lease, "word", signal("word")).await;
    assert_eq!(recorded.resolved.map(|r| r.resolution), Some(Resolution::Signal(given.clone())), "a signal");
    let below = h.begin_child(&task.lease, child(&task.lease, 0).with_input(given)).await;
    h.ends(&below, Outcome::Failed(given.clone())).await;
    let journal = h.journal(&task.lease).await;
    let resolution = journal.child(below.lease.run).map(|r| r.resolution);
    assert_eq!(resolution, Some(Resolution::Child(Outcome::Failed(given.clone()))), "a child's failure");
    let Content::Entry(read, _) = &journal.named("value").0 else { panic!("an entry") };
    assert_eq!(*read, Entry::Value(given.clone()), "a value that is read");
    let state = Some(StateChange { expected: payload(""), new: given.clone() });
    let outputs = vec![(StepIndex(0), given.clone())];
    let keep = Commit { state, outputs, ..commit(&task, Then::Continue) };
    assert_eq!(h.commit(keep).await, Ok(()));
    let data = h.backend.load(run).await.unwrap().unwrap();
    assert_eq!((&data.input, &data.state), (given, given), "input and state");
    assert_eq!(data.outputs, [(StepIndex(0), given.clone())], "an output");
    let again = Then::Retry { attempt: 2, delay: Duration::from_secs(3600), failure: given.clone() };
    let change = Some(StateChange { expected: given.clone(), new: payload("over") });
    assert_eq!(h.commit(Commit { state: change, ..commit(&task, again) }).await, Ok(()), "the expected state");
    assert_eq!(h.task_view(run, 0).await.failure.as_ref(), Some(given), "the failure of an attempt");
    let last = h.begin(root()).await;
    h.watch(last.lease.run).await;
    h.ends(&last, Outcome::Succeeded(given.clone())).await;
    assert_eq!(h.outcome(last.lease.run).await, Some(Outcome::Succeeded(given.clone())), "an output of a run");
}

pub(crate) async fn every_byte_of_a_payload_comes_back(h: &Harness) {
    for given in extremes() {
        assert_kept(h, &given).await;
    }
}

pub(crate) async fn a_large_payload_comes_back(h: &Harness) {
    assert_kept(h, &large()).await;
}

pub(crate) async fn a_name_may_contain_anything(h: &Harness) {
    for (at, text) in extreme_names().iter().enumerate() {
        let labels = [(text.as_str(), text.as_str())];
        h.opens_again_with(&[text, "C"]).await;
        let run = root().of(text).on(text).with_key(text).labelled(&labels);
        let run = NewRun { extras: Extras { headers: Some(Arc::new(pairs(&labels))), ..run.extras.clone() }, ..run };
        let task = h.begin(run.clone()).await;
        assert_eq!((&*task.workflow, &*task.queue, task.key.as_deref()), (&**text, &**text, Some(&**text)));
        assert_eq!((&task.metadata, &task.headers), (&run.extras.metadata, &run.extras.headers));
        let view = h.view(run.id).await;
        assert_eq!((&*view.workflow, &*view.queue, view.key.as_deref()), (&**text, &**text, Some(&**text)));
        assert!(h.record(&task.lease, text, signal(text)).await.written);
        assert_eq!(h.signal(run.id, text, at as u128, text).await, Signalled::Accepted);
        let resolved = h.journal(&task.lease).await.resolution(text).expect("the signal came");
        assert_eq!(resolved.resolution, Resolution::Signal(payload(text)));
        let below = h.spawn(&task.lease, keyed_child(&task.lease, text)).await;
        assert_eq!(h.view(below).await.key.as_deref(), Some(&**text));
        let of = Query { workflow: Some(name(text)), metadata: vec![(text.clone(), text.clone())], ..Query::default() };
        assert_eq!(h.list(of).await, [run.id]);
        assert_eq!(h.backend.cancel(vec![run.id], name(text)).await.unwrap(), [Cancelled::Cancelled]);
        assert_eq!(h.outcome(run.id).await, Some(Outcome::Cancelled { reason: name(text) }));
        h.sweep().await;
    }
}

pub(crate) async fn different_names_never_meet(h: &Harness) {
    let texts = extreme_names();
    h.start_many(texts.iter().map(|text| root().of("one").with_key(text)).collect()).await;
    h.start_many(texts.iter().map(|text| root().of(text).with_key("key")).collect()).await;
    h.start_many(texts.iter().map(|text| root().on(text)).collect()).await;
    for text in &texts {
        assert_eq!(h.counts(text).await.ready, 1, "{text:?}");
        assert_eq!(h.claim(text, 10).await.len(), 1, "{text:?}");
    }
    let lease = h.begin(root().on("journals")).await.lease;
    for text in &texts {
        assert!(h.record(&lease, text, value(text)).await.written, "{text:?}");
    }
    for text in &texts {
        assert_eq!(h.record(&lease, text, value("other")).await.entry, value(text), "{text:?}");
        h.record(&lease, &format!("waits for {text}"), signal(text)).await;
    }
    for (at, text) in texts.iter().enumerate() {
        h.signal(lease.run, text, at as u128, text).await;
        let resolved = h.journal(&lease).await.resolution(&format!("waits for {text}"));
        assert_eq!(resolved.map(|r| r.resolution), Some(Resolution::Signal(payload(text))), "{text:?}");
    }
}

pub(crate) async fn a_workflow_and_a_key_do_not_run_together(h: &Harness) {
    let pairs = [
        ("a:b", "c"),
        ("a", "b:c"),
        ("ab", "c"),
        ("a", "bc"),
        ("a\0", "b"),
        ("a", "\0b"),
        ("a\0b", "c"),
        ("a", "b\0c"),
    ];
    h.start_many(pairs.map(|(workflow, key)| root().of(workflow).with_key(key)).to_vec()).await;
}

pub(crate) async fn large_numbers_are_kept_to_the_last_bit(h: &Harness) {
    for fingerprint in [0, 1, (1 << 53) + 1, u64::MAX - 1, u64::MAX] {
        let run = root().with_fingerprint(fingerprint);
        h.start(run.clone()).await;
        let [Started::Exists(found)] = &h.start_all(vec![run]).await[..] else { panic!("it exists") };
        assert_eq!(found.fingerprint, fingerprint);
    }
    let parent = h.begin(root().on("p")).await.lease;
    let slots = [Slot::Index(u32::MAX), Slot::Index(0), Slot::Key(u128::MAX), Slot::Key(0), Slot::Key(1)];
    for slot in slots {
        let id = RunId::child(parent.run.uid(), parent.step, slot, 0);
        h.spawn(&parent, NewRun { id, fingerprint: u64::MAX, ..child(&parent, 1) }).await;
    }
    let journal = h.journal(&parent).await;
    let expected: BTreeSet<EntryKey> = slots.into_iter().map(EntryKey::Child).collect();
    assert_eq!(journal.items.keys().cloned().collect::<BTreeSet<_>>(), expected);
    for (content, _) in journal.items.values() {
        assert!(matches!(content, Content::Child(entry) if entry.fingerprint == u64::MAX));
    }
}

pub(crate) async fn an_identity_may_be_any_number(h: &Harness) {
    for uid in [0, 1, u128::from(u64::MAX), 1 << 127, u128::MAX] {
        let run = NewRun { id: RunId::from_uid(uid), ..root() };
        let task = h.begin(run).await;
        assert_eq!(task.lease.run.uid(), uid);
        let below = h.begin_child(&task.lease, child(&task.lease, 0)).await;
        h.end_ok(&below, "1").await;
        h.end_ok(&task, "2").await;
    }
}

pub(crate) async fn the_last_step_is_a_step(h: &Harness) {
    let first = h.begin(root()).await;
    let ready = vec![
        ReadyStep { step: StepIndex(u16::MAX), keep: false },
        ReadyStep { step: StepIndex(u16::MAX - 1), keep: false },
    ];
    h.commit(Commit { ready, ..commit(&first, Then::Done).output(u16::MAX, "1") }).await.unwrap();
    let task = h.claim_one().await;
    assert_eq!(task.lease.step, StepIndex(u16::MAX));
    let below = h.begin_child(&task.lease, child(&task.lease, 0)).await;
    h.end_ok(&below, "1").await;
    assert_eq!(h.journal(&task.lease).await.sequence, 1);
    h.record(&task.lease, "a", value("1")).await;
}

pub(crate) async fn attempts_may_be_many(h: &Harness) {
    let task = h.begin(root()).await;
    h.does(&task, retry(u32::MAX, Duration::ZERO)).await;
    h.until(async || h.is_ready(task.lease.run).await).await;
    assert_eq!(h.claim_one().await.attempt, u32::MAX);
}

pub(crate) async fn a_generation_is_told_from_its_text(h: &Harness) {
    let parent = h.begin(root()).await;
    let mut run = keyed_child(&parent.lease, "k~1");
    for _ in 0..12 {
        let task = h.begin_child(&parent.lease, run.clone()).await;
        assert_eq!(task.lease.run.to_string(), run.id.to_string());
        h.ends(&task, Outcome::Failed(payload("no"))).await;
        run = next_generation(&run);
    }
    assert_eq!(h.journal(&parent.lease).await.items.len(), 1);
}

pub(crate) async fn the_largest_batch_is_taken(h: &Harness) {
    let size = h.max_batch().min(5000);
    let runs: Vec<NewRun> = (0..size).map(|_| root()).collect();
    let ids: Vec<RunId> = runs.iter().map(|run| run.id).collect();
    assert!(h.start_all(runs).await.iter().all(|answer| *answer == Started::Created));
    let views = h.backend.get(ids.clone()).await.unwrap();
    assert!(views.iter().zip(&ids).all(|(view, id)| view.as_ref().is_some_and(|view| view.id == *id)));
    let watched = h.backend.watch(h.id, ids.clone()).await.unwrap();
    assert!(watched.len() == size && watched.iter().all(|answer| *answer == Watched::Pending));
    let claim = Claim { session: h.id, queues: vec![(name(ROOTS), size)] };
    let tasks = h.backend.claim(claim).await.unwrap();
    assert_eq!(tasks.iter().map(|task| task.lease.run).collect::<Vec<_>>(), ids);
    let writes = tasks.iter().map(|task| write(&task.lease, "a", value("1"))).collect();
    assert!(h.record_all(writes).await.iter().all(Result::is_ok));
    let half = size / 2;
    let ends = tasks[..half].iter().map(|task| commit(task, Then::End(Outcome::Succeeded(payload("1"))))).collect();
    assert!(h.commit_all(ends).await.results.iter().all(Result::is_ok));
    let back = tasks[half..].iter().map(|task| commit(task, release())).collect();
    assert!(h.commit_all(back).await.results.iter().all(Result::is_ok));
    let answers = h.backend.cancel(ids, name("enough")).await.unwrap();
    assert_eq!(answers.iter().filter(|answer| **answer == Cancelled::Cancelled).count(), size - half);
    assert!(h.find(RunId::random()).await.is_none());
    h.claim_none(CHILDREN).await;
}
