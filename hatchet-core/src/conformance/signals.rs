//! Signals: kept until somebody waits, taken in order, and delivered once whoever repeats them.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    describe::{
        Also as _, ROOTS, at_sequence, child, commit, name, payload, release, retry, root, signal, timer, value,
    },
    harness::Harness,
};
use crate::backend::{Entry, Event, Lease, Resolution, Resolved, RunId, Signalled, Then};

fn arrived(sequence: u64, text: &str) -> Option<Resolved> {
    Some(Resolved { sequence, resolution: Resolution::Signal(payload(text)) })
}

async fn resolution(h: &Harness, lease: &Lease, entry: &str) -> Option<Resolved> {
    h.journal(lease).await.resolution(entry)
}

pub(crate) async fn a_signal_goes_to_the_entry_that_waits_for_it(h: &Harness) {
    let lease = h.begin(root()).await.lease;
    h.record(&lease, "entry", signal("word")).await;
    assert_eq!(h.signal(lease.run, "word", 1, "now").await, Signalled::Accepted);
    assert_eq!(resolution(h, &lease, "entry").await, arrived(1, "now"));
    assert_eq!(h.hears_resolved(&lease, 1).await, h.journal(&lease).await.resolved());
}

pub(crate) async fn a_signal_that_comes_first_is_kept(h: &Harness) {
    let run = h.start(root()).await;
    assert_eq!(h.signal(run, "word", 1, "early").await, Signalled::Accepted);
    let lease = h.claim_one().await.lease;
    assert_eq!(h.journal(&lease).await.sequence, 0, "nothing is resolved until an entry is written");
    let recorded = h.record(&lease, "entry", signal("word")).await;
    assert!(recorded.written);
    assert_eq!(recorded.resolved, arrived(1, "early"));
    assert_eq!(resolution(h, &lease, "entry").await, arrived(1, "early"));
}

pub(crate) async fn a_signal_does_not_go_to_a_step_that_is_done(h: &Harness) {
    let first = h.begin(root()).await;
    h.record(&first.lease, "entry", signal("word")).await;
    h.commit(commit(&first, Then::Done).ready(1)).await.unwrap();
    h.signal(first.lease.run, "word", 1, "for the next").await;
    let second = h.claim_one().await.lease;
    assert_eq!(h.record(&second, "entry", signal("word")).await.resolved, arrived(1, "for the next"));
}

pub(crate) async fn kept_signals_are_taken_in_the_order_in_which_they_came(h: &Harness) {
    let lease = h.begin(root()).await.lease;
    for (id, text) in [(9, "a"), (2, "b"), (5, "c")] {
        h.signal(lease.run, "word", id, text).await;
    }
    for (at, text) in ["a", "b", "c"].into_iter().enumerate() {
        let recorded = h.record(&lease, text, signal("word")).await;
        assert_eq!(recorded.resolved, arrived(at as u64 + 1, text));
    }
    assert_eq!(h.record(&lease, "d", signal("word")).await.resolved, None);
}

pub(crate) async fn the_entry_that_was_written_first_takes_the_signal(h: &Harness) {
    let lease = h.begin(root()).await.lease;
    for entry in ["z", "a", "m"] {
        h.record(&lease, entry, signal("word")).await;
    }
    for (at, entry) in ["z", "a", "m"].into_iter().enumerate() {
        assert_eq!(resolution(h, &lease, entry).await, None);
        h.signal(lease.run, "word", at as u128, entry).await;
        assert_eq!(resolution(h, &lease, entry).await, arrived(at as u64 + 1, entry));
    }
}

pub(crate) async fn the_first_written_takes_the_signal_in_whatever_step(h: &Harness) {
    let first = h.begin(root()).await;
    h.commit(commit(&first, Then::Continue).ready(1)).await.unwrap();
    let second = h.claim_one().await;
    h.record(&second.lease, "entry", signal("word")).await;
    h.record(&first.lease, "entry", signal("word")).await;
    h.signal(first.lease.run, "word", 1, "1").await;
    assert_eq!(resolution(h, &second.lease, "entry").await, arrived(1, "1"));
    assert_eq!(resolution(h, &first.lease, "entry").await, None);
    h.signal(first.lease.run, "word", 2, "2").await;
    assert_eq!(resolution(h, &first.lease, "entry").await, arrived(1, "2"));
}

pub(crate) async fn names_are_independent(h: &Harness) {
    let lease = h.begin(root()).await.lease;
    h.record(&lease, "a", signal("a")).await;
    h.signal(lease.run, "b", 1, "for b").await;
    assert_eq!(resolution(h, &lease, "a").await, None);
    assert_eq!(h.record(&lease, "b", signal("b")).await.resolved, arrived(1, "for b"));
    h.signal(lease.run, "a", 2, "for a").await;
    assert_eq!(resolution(h, &lease, "a").await, arrived(2, "for a"));
}

pub(crate) async fn a_signal_of_the_same_id_is_delivered_once(h: &Harness) {
    let lease = h.begin(root()).await.lease;
    h.record(&lease, "first", signal("word")).await;
    h.record(&lease, "second", signal("word")).await;
    for _ in 0..3 {
        assert_eq!(h.signal(lease.run, "word", u128::MAX, "once").await, Signalled::Accepted);
    }
    assert_eq!(resolution(h, &lease, "first").await, arrived(1, "once"));
    assert_eq!(resolution(h, &lease, "second").await, None);
}

pub(crate) async fn a_kept_signal_of_the_same_id_is_kept_once(h: &Harness) {
    let lease = h.begin(root()).await.lease;
    h.signal(lease.run, "word", 1, "once").await;
    h.signal(lease.run, "word", 1, "once").await;
    assert_eq!(h.record(&lease, "first", signal("word")).await.resolved, arrived(1, "once"));
    h.signal(lease.run, "word", 1, "once").await;
    assert_eq!(h.record(&lease, "second", signal("word")).await.resolved, None);
}

pub(crate) async fn the_same_id_for_another_run_is_another_signal(h: &Harness) {
    let (a, b) = (h.begin(root()).await.lease, h.begin(root()).await.lease);
    h.signal(a.run, "word", 1, "a").await;
    h.signal(b.run, "word", 1, "b").await;
    assert_eq!(h.record(&a, "entry", signal("word")).await.resolved, arrived(1, "a"));
    assert_eq!(h.record(&b, "entry", signal("word")).await.resolved, arrived(1, "b"));
}

pub(crate) async fn a_signal_that_does_not_come_in_time_is_given_up(h: &Harness) {
    let lease = h.begin(root()).await.lease;
    let asked = Instant::now();
    h.record(&lease, "entry", Entry::Signal { name: name("word"), within: Some(h.tick() * 2) }).await;
    h.not_before(asked, h.tick() * 2, async || resolution(h, &lease, "entry").await.is_some()).await;
    assert_eq!(resolution(h, &lease, "entry").await, Some(Resolved { sequence: 1, resolution: Resolution::Fired }));
    h.signal(lease.run, "word", 1, "late").await;
    assert_eq!(h.journal(&lease).await.sequence, 1, "who gave up takes no signal");
    assert_eq!(h.record(&lease, "next", signal("word")).await.resolved, arrived(2, "late"));
}

pub(crate) async fn a_signal_that_came_in_time_is_not_given_up(h: &Harness) {
    let lease = h.begin(root()).await.lease;
    h.record(&lease, "entry", Entry::Signal { name: name("word"), within: Some(h.tick()) }).await;
    h.signal(lease.run, "word", 1, "now").await;
    let kept = arrived(1, "now");
    // Where this machine was so slow that the time was up, there is nothing to see.
    if resolution(h, &lease, "entry").await == kept {
        h.wait(h.tick() * 2).await;
        h.sweep().await;
        assert_eq!((h.journal(&lease).await.sequence, resolution(h, &lease, "entry").await), (1, kept));
    }
}

pub(crate) async fn an_entry_that_was_replaced_takes_no_signal(h: &Harness) {
    let lease = h.begin(root()).await.lease;
    h.record(&lease, "first", signal("word")).await;
    h.record(&lease, "second", signal("word")).await;
    h.replace(&lease, "first", value("1")).await;
    h.signal(lease.run, "word", 1, "now").await;
    assert_eq!(resolution(h, &lease, "second").await, arrived(1, "now"));
    assert_eq!(resolution(h, &lease, "first").await, None);
}

pub(crate) async fn a_signal_that_was_taken_stays_with_its_entry(h: &Harness) {
    let task = h.begin(root()).await;
    h.signal(task.lease.run, "word", 1, "now").await;
    h.record(&task.lease, "entry", signal("word")).await;
    h.does(&task, retry(2, Duration::ZERO)).await;
    h.until(async || h.is_ready(task.lease.run).await).await;
    let again = h.claim_one().await;
    let found = h.record(&again.lease, "entry", signal("word")).await;
    assert_eq!((found.written, found.resolved), (false, arrived(1, "now")));
}

pub(crate) async fn a_signal_reaches_a_run_that_is_parked_or_ready(h: &Harness) {
    let task = h.begin(root()).await;
    h.record(&task.lease, "a", signal("a")).await;
    h.record(&task.lease, "b", signal("b")).await;
    h.parks(&task, at_sequence(2)).await;
    h.signal(task.lease.run, "a", 1, "1").await;
    h.signal(task.lease.run, "b", 2, "2").await;
    let again = h.claim_one().await;
    h.record(&again.lease, "c", signal("c")).await;
    h.does(&again, release()).await;
    h.signal(task.lease.run, "c", 3, "3").await;
    assert_eq!(resolution(h, &task.lease, "c").await, arrived(3, "3"));
    assert_eq!(h.claim_runs(ROOTS, 10).await.len(), 1);
}

pub(crate) async fn a_signal_to_an_ended_run_says_so(h: &Harness) {
    let task = h.begin(root()).await;
    h.end_ok(&task, "1").await;
    assert_eq!(h.signal(task.lease.run, "word", 1, "late").await, Signalled::Ended);
}

pub(crate) async fn a_signal_to_no_run_says_so(h: &Harness) {
    assert_eq!(h.signal(RunId::random(), "word", 1, "lost").await, Signalled::NotFound);
}

pub(crate) async fn timers_and_signals_share_one_order(h: &Harness) {
    let lease = h.begin(root()).await.lease;
    h.record(&lease, "nap", timer(Duration::ZERO)).await;
    h.until(async || h.journal(&lease).await.sequence == 1).await;
    h.signal(lease.run, "word", 1, "1").await;
    assert_eq!(h.record(&lease, "word", signal("word")).await.resolved, arrived(2, "1"));
    assert_eq!(h.journal(&lease).await.sequence, 2);
}

fn unread(run: RunId, signals: &[(&str, u64)]) -> String {
    let signals = signals.iter().map(|(name, number)| (name.to_string().into(), *number)).collect();
    format!("{:?}", Event::SignalsUnread(run, signals))
}

/// What was said of unread signals among the next events.
async fn hears_unread(h: &Harness) -> Vec<String> {
    let events = h.events().await;
    let said = events.into_iter().map(|event| match event {
        Event::SignalsUnread(run, mut signals) => {
            signals.sort_unstable();
            format!("{:?}", Event::SignalsUnread(run, signals))
        }
        other => format!("{other:?}"),
    });
    said.collect()
}

pub(crate) async fn who_ends_a_run_learns_of_signals_that_nobody_took(h: &Harness) {
    let parent = h.begin(root()).await;
    // One that has a journal, and others of whose tasks nothing else is known.
    let recorded = h.begin(root()).await;
    h.record(&recorded.lease, "entry", signal("first")).await;
    let child = h.begin_child(&parent.lease, child(&parent.lease, 0)).await;
    for (task, takes) in [(recorded, true), (h.begin(root()).await, false), (child, false)] {
        let run = task.lease.run;
        for (id, word) in ["first", "word", "word", "other"].into_iter().enumerate() {
            assert_eq!(h.signal(run, word, id as u128, "x").await, Signalled::Accepted);
        }
        h.settle().await;
        h.end_ok(&task, "1").await;
        let wanted: &[_] =
            if takes { &[("other", 1), ("word", 2)] } else { &[("first", 1), ("other", 1), ("word", 2)] };
        assert!(hears_unread(h).await.contains(&unread(run, wanted)), "{wanted:?}");
    }
}

pub(crate) async fn of_signals_that_were_all_taken_nothing_is_said(h: &Harness) {
    let task = h.begin(root()).await;
    h.signal(task.lease.run, "word", 1, "early").await;
    h.record(&task.lease, "entry", signal("word")).await;
    h.settle().await;
    h.end_ok(&task, "1").await;
    h.hears_nothing().await;
}

pub(crate) async fn one_session_learns_of_the_signals_of_a_run_that_ends_from_outside(h: &Harness) {
    let run = h.start(root()).await;
    h.signal(run, "word", 1, "early").await;
    h.cancel(run).await;
    assert_eq!(hears_unread(h).await, [unread(run, &[("word", 1)])]);
}
