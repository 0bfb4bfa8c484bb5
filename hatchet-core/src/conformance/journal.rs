//! The journal: entries that are written once, timers, pages, and the one order of all resolutions.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    describe::{
        Also as _, CHILDREN, Describe as _, ROOTS, child, commit, failed, keyed_child, never, next_generation, ok,
        one_more_than, payload, release, retry, root, signal, timer, value, write,
    },
    harness::{Harness, forged},
};
use crate::backend::{
    Content, Entry, EntryKey, JournalWrite, Known, Lease, Refused, Resolution, Resolved, RunId, StepIndex, Then,
    Timestamp,
};

fn fired(sequence: u64) -> Option<Resolved> {
    Some(Resolved { sequence, resolution: Resolution::Fired })
}

pub(crate) async fn an_entry_of_a_step_that_knows_more_than_the_store_is_refused(h: &Harness) {
    let parent = h.begin(root()).await;
    let knows = |name: &str, known| JournalWrite { known, ..write(&parent.lease, name, value("1")) };
    for more in one_more_than(Known::default()) {
        assert_eq!(h.try_record(knows("first", more)).await, Err(Refused::Moved), "{more:?}: it has no journal");
    }
    h.record(&parent.lease, "first", value("1")).await;
    h.spawn(&parent.lease, keyed_child(&parent.lease, "a")).await;
    h.spawn(&parent.lease, child(&parent.lease, 0)).await;
    let known = Known { children: 2, named: 2, ..Known::default() };
    for more in one_more_than(known) {
        assert_eq!(h.try_record(knows("second", more)).await, Err(Refused::Moved), "{more:?}");
    }
    assert!(h.try_record(knows("second", known)).await.expect("it knows no more than is stored").written);
    let [.., more] = one_more_than(Known { named: 9, ..known });
    let again = h.try_record(knows("second", more)).await.expect("an entry that is there is returned");
    assert!(!again.written);
    assert_eq!(h.journal(&parent.lease).await.items.len(), 4, "what was refused is not there");
    h.commit(commit(&parent, Then::Continue).state("", "x")).await.expect("a state");
    let known = Known { state: true, ..known };
    assert!(h.try_record(knows("third", known)).await.expect("the run has a state").written);
}

pub(crate) async fn a_journal_that_was_never_written_is_empty(h: &Harness) {
    let run = h.start(root()).await;
    for (run, step) in [(run, StepIndex(0)), (run, StepIndex(9)), (RunId::random(), StepIndex(0))] {
        let page = h.backend.journal(run, step, None, 10).await.unwrap();
        assert!(page.items.is_empty());
        assert_eq!((page.next, page.sequence), (None, 0));
    }
}

pub(crate) async fn an_entry_is_written_once(h: &Harness) {
    let lease = h.begin(root()).await.lease;
    let first = h.record(&lease, "body", value("1")).await;
    assert!(first.written && first.resolved.is_none());
    assert_eq!(first.entry, value("1"));
    h.moment().await;
    let second = h.record(&lease, "body", value("2")).await;
    assert!(!second.written);
    assert_eq!((second.entry, second.at), (value("1"), first.at));
    let kind_changed = h.record(&lease, "body", timer(h.tick())).await;
    assert_eq!((kind_changed.written, kind_changed.entry), (false, value("1")));
}

pub(crate) async fn an_entry_is_read_as_it_was_written(h: &Harness) {
    let lease = h.begin(root()).await.lease;
    let within = Some(Duration::from_secs(77));
    let entries = [
        ("value", value("[1,2]")),
        ("timer", timer(Duration::from_millis(123_456))),
        ("signal", signal("approved")),
        ("within", Entry::Signal { name: "word".into(), within }),
    ];
    for (name, entry) in &entries {
        let written = h.record(&lease, name, entry.clone()).await;
        assert_eq!(written.entry, *entry);
        let (Content::Entry(read, at), resolved) = h.journal(&lease).await.named(name).clone() else {
            panic!("{name}")
        };
        assert_eq!((read, at, resolved), (entry.clone(), written.at, None));
    }
    assert_eq!(h.journal(&lease).await.items.len(), 4);
}

pub(crate) async fn a_value_needs_no_resolution(h: &Harness) {
    let lease = h.begin(root()).await.lease;
    h.record(&lease, "body", value("1")).await;
    h.sweep().await;
    let journal = h.journal(&lease).await;
    assert_eq!((journal.sequence, journal.resolution("body")), (0, None));
    h.hears_nothing().await;
}

pub(crate) async fn a_write_that_replaces_takes_the_place_of_what_is_there(h: &Harness) {
    let lease = h.begin(root()).await.lease;
    h.record(&lease, "body", value("1")).await;
    h.moment().await;
    let replaced = h.replace(&lease, "body", value("2")).await;
    assert_eq!((replaced.written, replaced.entry), (true, value("2")));
    let again = h.record(&lease, "body", value("3")).await;
    assert_eq!((again.written, again.entry, again.at), (false, value("2"), replaced.at));
    assert!(h.replace(&lease, "new", value("4")).await.written, "what is not there can be replaced too");
}

pub(crate) async fn a_replaced_timer_does_not_fire(h: &Harness) {
    let lease = h.begin(root()).await.lease;
    h.record(&lease, "nap", timer(h.tick())).await;
    h.replace(&lease, "nap", value("1")).await;
    h.wait(h.tick() * 2).await;
    h.sweep().await;
    let journal = h.journal(&lease).await;
    assert_eq!((journal.sequence, journal.resolution("nap")), (0, None));
}

pub(crate) async fn a_timer_that_replaces_a_timer_counts_from_its_own_write(h: &Harness) {
    let lease = h.begin(root()).await.lease;
    h.record(&lease, "nap", timer(h.tick())).await;
    let asked = Instant::now();
    h.replace(&lease, "nap", timer(h.tick() * 3)).await;
    h.not_before(asked, h.tick() * 3, async || h.journal(&lease).await.resolution("nap").is_some()).await;
    assert_eq!(h.journal(&lease).await.sequence, 1);
}

pub(crate) async fn a_resolved_entry_that_is_replaced_is_unresolved(h: &Harness) {
    let lease = h.begin(root()).await.lease;
    h.record(&lease, "nap", timer(Duration::from_millis(1))).await;
    h.until(async || h.journal(&lease).await.sequence == 1).await;
    let again = h.replace(&lease, "nap", timer(Duration::from_millis(1))).await;
    assert!(again.written && again.resolved.is_none());
    h.until(async || h.journal(&lease).await.sequence == 2).await;
    assert_eq!(h.journal(&lease).await.resolution("nap"), fired(2));
}

pub(crate) async fn a_write_without_its_lease_is_refused(h: &Harness) {
    let task = h.begin(root()).await;
    let lease = task.lease;
    assert_eq!(h.try_record(write(&forged(&lease), "a", value("1"))).await, Err(Refused::LeaseLost));
    let other = h.worker().await;
    assert_eq!(other.try_record(write(&lease, "a", value("1"))).await, Err(Refused::LeaseLost));
    h.does(&task, release()).await;
    assert_eq!(h.try_record(write(&lease, "a", value("1"))).await, Err(Refused::LeaseLost));
    assert!(h.journal(&lease).await.items.is_empty());
}

pub(crate) async fn a_write_for_an_ended_run_is_refused(h: &Harness) {
    let task = h.begin(root()).await;
    h.end_ok(&task, "1").await;
    assert_eq!(h.try_record(write(&task.lease, "a", value("1"))).await, Err(Refused::Ended));
    let cancelled = h.begin(root()).await;
    h.cancel(cancelled.lease.run).await;
    assert_eq!(h.try_record(write(&cancelled.lease, "a", value("1"))).await, Err(Refused::Ended));
}

pub(crate) async fn a_refused_write_does_not_stop_those_behind_it(h: &Harness) {
    let (a, b) = (h.begin(root()).await.lease, h.begin(root()).await.lease);
    let writes = vec![
        write(&a, "x", value("1")),
        write(&forged(&b), "x", value("2")),
        write(&b, "x", value("3")),
        write(&a, "x", value("4")),
    ];
    let answers = h.record_all(writes).await;
    assert_eq!(answers[1], Err(Refused::LeaseLost));
    let written = |at: usize| answers[at].as_ref().map(|r| (r.written, r.entry.clone())).unwrap();
    assert_eq!([written(0), written(2), written(3)], [(true, value("1")), (true, value("3")), (false, value("1"))]);
}

pub(crate) async fn each_run_and_step_has_a_journal_of_its_own(h: &Harness) {
    let first = h.begin(root()).await;
    h.commit(commit(&first, Then::Continue).ready(1)).await.unwrap();
    let second = h.claim_one().await;
    let other = h.begin(root()).await;
    for (lease, text) in [(first.lease, "1"), (second.lease, "2"), (other.lease, "3")] {
        assert!(h.record(&lease, "same", value(text)).await.written);
    }
    for (lease, text) in [(first.lease, "1"), (second.lease, "2"), (other.lease, "3")] {
        assert_eq!(h.record(&lease, "same", value("x")).await.entry, value(text));
    }
}

pub(crate) async fn an_entry_and_a_child_do_not_meet(h: &Harness) {
    let lease = h.begin(root()).await.lease;
    h.spawn_all(&lease, vec![child(&lease, 0), keyed_child(&lease, "0")]).await.unwrap();
    let key = keyed_child(&lease, "0").id.origin().unwrap().slot;
    let crate::backend::Slot::Key(hash) = key else { panic!("a key") };
    let names = [
        "0".to_owned(),
        "k0".to_owned(),
        format!("k{hash:032x}"),
        format!("{hash:032x}"),
        child(&lease, 0).id.to_string(),
    ];
    for name in &names {
        assert!(h.record(&lease, name, value("1")).await.written, "{name}");
    }
    assert_eq!(h.journal(&lease).await.items.len(), 2 + names.len());
}

pub(crate) async fn a_journal_outlives_attempts_and_sessions(h: &Harness) {
    let mortal = h.mortal().await;
    let task = mortal.begin(root()).await;
    mortal.record(&task.lease, "body", value("1")).await;
    mortal.does(&task, retry(2, Duration::ZERO)).await;
    h.until(async || h.is_ready(task.lease.run).await).await;
    let second = mortal.claim_one().await;
    assert!(second.journaled);
    h.kill(&mortal).await;
    let third = h.claim_one().await;
    assert!(third.journaled);
    assert_eq!(h.record(&third.lease, "body", value("2")).await.entry, value("1"));
}

// Timers.

pub(crate) async fn a_timer_does_not_fire_before_its_time(h: &Harness) {
    let lease = h.begin(root()).await.lease;
    let asked = Instant::now();
    h.record(&lease, "nap", timer(h.tick() * 2)).await;
    h.not_before(asked, h.tick() * 2, async || h.journal(&lease).await.resolution("nap").is_some()).await;
    assert_eq!(h.journal(&lease).await.resolution("nap"), fired(1));
    let told = h.hears_resolved(&lease, 1).await;
    assert_eq!(told, h.journal(&lease).await.resolved());
}

pub(crate) async fn a_timer_counts_from_its_first_write(h: &Harness) {
    let mortal = h.mortal().await;
    let task = mortal.begin(root()).await;
    let written = mortal.record(&task.lease, "nap", timer(h.tick())).await;
    h.kill(&mortal).await;
    let again = h.claim_one().await;
    let found = h.record(&again.lease, "nap", timer(h.tick())).await;
    assert_eq!((found.written, found.at), (false, written.at));
    // The lease of the dead session was longer than the timer.
    h.until(async || h.journal(&again.lease).await.sequence == 1).await;
    let found = h.record(&again.lease, "nap", timer(h.tick())).await;
    assert_eq!((found.written, found.resolved), (false, fired(1)));
}

pub(crate) async fn a_timer_fires_whatever_becomes_of_its_task(h: &Harness) {
    let task = h.begin(root()).await;
    h.commit(commit(&task, Then::Continue).ready(1)).await.unwrap();
    let parked = h.claim_one().await;
    h.record(&task.lease, "a", timer(h.tick())).await;
    h.record(&parked.lease, "b", timer(h.tick())).await;
    h.parks(&parked, never()).await;
    h.does(&task, release()).await;
    h.until(async || h.journal(&task.lease).await.sequence == 1).await;
    h.until(async || h.journal(&parked.lease).await.sequence == 1).await;
    assert_eq!(h.claim_runs(ROOTS, 10).await.len(), 1);
}

pub(crate) async fn a_timer_of_an_ended_run_is_gone(h: &Harness) {
    let task = h.begin(root()).await;
    h.record(&task.lease, "nap", timer(h.tick())).await;
    h.end_ok(&task, "1").await;
    h.wait(h.tick() * 2).await;
    h.sweep().await;
    h.hears_nothing().await;
}

pub(crate) async fn a_timer_may_be_as_long_as_a_duration(h: &Harness) {
    let lease = h.begin(root()).await.lease;
    let lengths = [Duration::MAX, Duration::from_millis(u64::MAX), Duration::from_secs(100 * 365 * 24 * 3600)];
    for (at, after) in lengths.into_iter().enumerate() {
        h.record(&lease, &at.to_string(), timer(after)).await;
    }
    h.wait(h.tick()).await;
    h.sweep().await;
    assert_eq!(h.journal(&lease).await.sequence, 0);
}

pub(crate) async fn a_timer_of_no_time_fires(h: &Harness) {
    let lease = h.begin(root()).await.lease;
    h.record(&lease, "nap", timer(Duration::ZERO)).await;
    h.until(async || h.journal(&lease).await.sequence == 1).await;
}

pub(crate) async fn a_timer_fires_at_its_moment_and_not_before(h: &Harness) {
    let lease = h.begin(root()).await.lease;
    let asked = Instant::now();
    let written = h.record(&lease, "now", value("1")).await.at;
    let moment = written.after(h.tick() * 2);
    let recorded = h.record(&lease, "nap", Entry::Until { moment }).await;
    assert_eq!((recorded.written, recorded.entry), (true, Entry::Until { moment }));
    h.not_before(asked, h.tick() * 2, async || h.journal(&lease).await.resolution("nap").is_some()).await;
    assert_eq!(h.journal(&lease).await.resolution("nap"), fired(1));
    let found = h.record(&lease, "nap", Entry::Until { moment: moment.after(h.tick()) }).await;
    assert_eq!((found.written, found.entry, found.resolved), (false, Entry::Until { moment }, fired(1)));
}

pub(crate) async fn a_timer_whose_moment_is_past_fires(h: &Harness) {
    let lease = h.begin(root()).await.lease;
    h.record(&lease, "never", Entry::Until { moment: Timestamp(u64::MAX) }).await;
    h.record(&lease, "past", Entry::Until { moment: Timestamp(0) }).await;
    h.until(async || h.journal(&lease).await.sequence == 1).await;
    assert_eq!(h.journal(&lease).await.resolution("past"), fired(1));
}

// Order and pages.

pub(crate) async fn the_order_of_the_events_is_that_of_the_sequence_numbers(h: &Harness) {
    let lease = h.begin(root()).await.lease;
    let other = h.worker().await;
    let mut children = Vec::new();
    for index in 0..6 {
        h.spawn(&lease, child(&lease, index)).await;
        children.push(other.claim_child().await);
    }
    h.record(&lease, "nap", timer(h.tick())).await;
    h.record(&lease, "word", signal("word")).await;
    for index in [3, 0] {
        other.end_ok(&children[index], "1").await;
    }
    h.signal(lease.run, "word", 1, "now").await;
    let ends = [5, 1].map(|index| commit(&children[index], Then::End(failed("no"))));
    other.commit_all(ends.to_vec()).await;
    h.until(async || h.journal(&lease).await.resolution("nap").is_some()).await;
    other.end_ok(&children[2], "1").await;
    h.cancel(children[4].lease.run).await;

    let told = h.hears_resolved(&lease, 8).await;
    let numbers: Vec<u64> = told.iter().map(|(_, resolved)| resolved.sequence).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(told, h.journal(&lease).await.resolved());
    let slot = |index| EntryKey::Child(crate::backend::Slot::Index(index));
    let keys: Vec<EntryKey> = told.into_iter().map(|(key, _)| key).collect();
    let named = |name: &str| EntryKey::Named(name.into());
    assert_eq!(keys, [slot(3), slot(0), named("word"), slot(5), slot(1), named("nap"), slot(2), slot(4)]);
}

pub(crate) async fn a_resolution_never_changes(h: &Harness) {
    let lease = h.begin(root()).await.lease;
    let task = h.begin_child(&lease, child(&lease, 0)).await;
    h.end_ok(&task, "1").await;
    let _ = h.then(&task, Then::End(failed("2"))).await;
    h.try_cancel(task.lease.run).await;
    h.sweep().await;
    let journal = h.journal(&lease).await;
    let resolved = Resolved { sequence: 1, resolution: Resolution::Child(ok("1")) };
    assert_eq!((journal.sequence, journal.child(task.lease.run)), (1, Some(resolved)));
}

pub(crate) async fn sequence_numbers_are_read_in_the_order_of_the_request(h: &Harness) {
    let mut steps = Vec::new();
    for children in [2, 0, 1] {
        let lease = h.begin(root()).await.lease;
        for index in 0..children {
            let task = h.begin_child(&lease, child(&lease, index)).await;
            h.end_ok(&task, "1").await;
        }
        steps.push((lease.run, lease.step));
    }
    steps.push((RunId::random(), StepIndex(0)));
    assert_eq!(h.backend.sequences(steps.clone()).await.expect("sequences"), [2, 0, 1, 0]);
    // More than one call to a store may take.
    let many: Vec<_> = steps.iter().copied().cycle().take(h.max_batch().min(2_000)).collect();
    let numbers = h.backend.sequences(many.clone()).await.expect("sequences");
    assert_eq!(numbers.len(), many.len());
    assert!(numbers.chunks(4).all(|numbers| numbers == &[2, 0, 1, 0][..numbers.len()]));
    assert_eq!(h.backend.sequences(Vec::new()).await.expect("sequences"), Vec::<u64>::new());
}

async fn fill(h: &Harness, lease: &Lease, entries: usize) {
    let names: Vec<String> = (0..entries).map(|at| format!("entry {at}")).collect();
    for batch in names.chunks(h.max_batch().min(500)) {
        let writes = batch.iter().map(|name| write(lease, name, value(name))).collect();
        assert!(h.record_all(writes).await.iter().all(|answer| answer.as_ref().is_ok_and(|r| r.written)));
    }
}

pub(crate) async fn a_journal_is_read_page_by_page(h: &Harness) {
    let lease = h.begin(root()).await.lease;
    fill(h, &lease, 3000).await;
    let children: Vec<_> = (0..50).map(|index| child(&lease, index)).collect();
    for batch in children.chunks(h.max_batch()) {
        h.spawn_all(&lease, batch.to_vec()).await.unwrap();
    }
    for limit in [999, 10_000] {
        // `journal_of` fails if a page is too long or an entry stands on two of them.
        let journal = h.journal_of(lease.run, lease.step, limit).await;
        assert_eq!(journal.items.len(), 3050);
        let (content, _) = journal.named("entry 2999");
        assert!(matches!(content, Content::Entry(Entry::Value(text), _) if *text == payload("entry 2999")));
    }
}

pub(crate) async fn children_are_the_same_on_pages_of_any_size(h: &Harness) {
    let lease = h.begin(root()).await.lease;
    let large = "x".repeat(1000);
    let run = |index| child(&lease, index).with_input(if (64..128).contains(&index) { &large } else { "1" });
    let runs: Vec<_> = (0..200).map(run).collect();
    for batch in runs.chunks(h.max_batch()) {
        h.spawn_all(&lease, batch.to_vec()).await.unwrap();
    }
    for batch in h.claim(CHILDREN, 190).await.chunks(h.max_batch()) {
        let ends = batch.iter().map(|task| {
            let index = runs.iter().position(|run| run.id == task.lease.run).expect("it was started");
            commit(task, Then::End(if index % 7 == 0 { failed("no") } else { ok("1") }))
        });
        h.commit_all(ends.collect()).await;
    }
    let again = [7, 70, 133, 140].map(|index| next_generation(&run(index)));
    h.spawn_all(&lease, again.to_vec()).await.unwrap();
    for task in h.claim(CHILDREN, 12).await {
        h.end_ok(&task, "2").await;
    }
    let one_by_one = h.journal_of(lease.run, lease.step, 1).await;
    assert_eq!(one_by_one.items.len(), 200);
    for limit in [63, 64, 100, 1000] {
        let journal = h.journal_of(lease.run, lease.step, limit).await;
        assert_eq!(format!("{:?}", journal.items), format!("{:?}", one_by_one.items), "in pages of {limit}");
    }
}

pub(crate) async fn the_smallest_page_has_one_entry(h: &Harness) {
    let lease = h.begin(root()).await.lease;
    fill(h, &lease, 7).await;
    assert_eq!(h.journal_of(lease.run, lease.step, 1).await.items.len(), 7);
}

pub(crate) async fn what_was_there_before_the_first_page_is_not_missed(h: &Harness) {
    let lease = h.begin(root()).await.lease;
    fill(h, &lease, 300).await;
    let first = h.backend.journal(lease.run, lease.step, None, 100).await.unwrap();
    h.record(&lease, "a late one", value("1")).await;
    h.replace(&lease, "entry 5", value("another")).await;
    let mut seen: std::collections::BTreeSet<EntryKey> = first.items.into_iter().map(|item| item.key).collect();
    let mut cursor = first.next;
    while let Some(at) = cursor {
        let page = h.backend.journal(lease.run, lease.step, Some(at), 100).await.unwrap();
        seen.extend(page.items.into_iter().map(|item| item.key));
        cursor = page.next;
    }
    for at in 0..300 {
        assert!(seen.contains(&EntryKey::Named(format!("entry {at}").into())), "entry {at} was missed");
    }
}

pub(crate) async fn a_page_of_nothing_tells_the_sequence_number(h: &Harness) {
    let lease = h.begin(root()).await.lease;
    fill(h, &lease, 3).await;
    let task = h.begin_child(&lease, child(&lease, 0)).await;
    h.end_ok(&task, "1").await;
    let page = h.backend.journal(lease.run, lease.step, None, 0).await.unwrap();
    assert_eq!((page.items.len(), page.sequence), (0, 1));
}
