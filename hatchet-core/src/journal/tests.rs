use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use super::*;
use crate::{backend::Payload, ids::StepIndex};

struct Count(AtomicUsize);

impl std::task::Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn waker() -> (Arc<Count>, Waker) {
    let count = Arc::new(Count(AtomicUsize::new(0)));
    (Arc::clone(&count), Waker::from(count))
}

fn child(index: u32) -> ChildEntry {
    child_entry(RunId::child(1, StepIndex(0), Slot::Index(index), 0), "C".into(), 7, None)
}

fn with_children(count: u32) -> Journal {
    let mut journal = Journal::default();
    (0..count).for_each(|index| assert_eq!(journal.insert_child(Slot::Index(index), child(index)), index));
    journal
}

fn ended(index: u32, sequence: u64, success: bool) -> (EntryKey, Resolved) {
    let payload = Payload::from_static(b"1");
    let outcome = if success { Outcome::Succeeded(payload) } else { Outcome::Failed(payload) };
    (EntryKey::Child(Slot::Index(index)), Resolved { sequence, resolution: Resolution::Child(outcome) })
}

/// Lets everything take effect that came, for a step that waits for what never comes.
fn settle_all(journal: &mut Journal) {
    let timer = Entry::Timer { after: std::time::Duration::MAX };
    let never = journal.insert_entry("never".into(), timer, Timestamp(0), None);
    let waiter = journal.wait([never].into_iter(), Mode::All, Waker::noop()).unwrap();
    assert!(!step(journal));
    journal.stop_waiting(waiter);
}

fn step(journal: &mut Journal) -> bool {
    let woke = journal.advance() == Advance::WouldWake;
    if woke {
        journal.apply_next();
    }
    woke
}

fn order_of_ends(journal: &Journal) -> Vec<Place> {
    let ends = std::iter::successors(journal.next_ended(0), |(from, _)| journal.next_ended(*from));
    ends.map(|(_, place)| place).collect()
}

#[test]
fn resolutions_take_effect_in_their_order_whenever_they_come() {
    let mut journal = with_children(3);
    journal.push([ended(2, 3, true), ended(0, 2, true)]);
    settle_all(&mut journal);
    assert!(journal.outcome(0).is_none());
    journal.push([ended(1, 1, true)]);
    settle_all(&mut journal);
    assert_eq!(order_of_ends(&journal), [1, 0, 2]);
    journal.push([ended(1, 1, true)]);
    settle_all(&mut journal);
    assert_eq!(order_of_ends(&journal), [1, 0, 2]);
}

#[test]
fn one_resolution_at_a_time_wakes() {
    let mut journal = with_children(2);
    let (count, waker) = waker();
    let either = journal.wait([0, 1].into_iter(), Mode::Any, &waker).unwrap();
    journal.push([ended(1, 1, true), ended(0, 2, true)]);
    assert!(step(&mut journal));
    assert!(journal.poll_waiter(either, &waker));
    assert!(journal.outcome(0).is_none() && journal.outcome(1).is_some());
    assert_eq!(count.0.load(Ordering::Relaxed), 1);
    assert!(!journal.is_waiting());
    journal.stop_waiting(either);
    assert!(!step(&mut journal));
    assert!(journal.outcome(0).is_none(), "nobody waits");
    settle_all(&mut journal);
    assert!(journal.outcome(0).is_some());
}

#[test]
fn a_gather_wakes_for_the_last_child_or_the_first_failure() {
    for (fails, wakes_at) in [(None, 3), (Some(2), 2)] {
        let mut journal = with_children(3);
        let (_, waker) = waker();
        let all = journal.wait(0..3, Mode::AllOrFailure, &waker).unwrap();
        assert_eq!(journal.wake(), Wake { on_failure: true, ..Wake::at(3) });
        assert_eq!(journal.known(), Known { children: 3, ..Known::default() });
        for sequence in 1..=3 {
            journal.push([ended(sequence as u32 - 1, sequence, fails != Some(sequence))]);
            assert_eq!(step(&mut journal), sequence == wakes_at, "{sequence}");
            if sequence == wakes_at {
                break;
            }
        }
        assert!(journal.poll_waiter(all, &waker));
        journal.stop_waiting(all);
    }
}

#[test]
fn a_wait_that_ended_is_not_counted_with_the_next_one() {
    let mut journal = with_children(2);
    let (_, waker) = waker();
    let first = journal.wait(0..2, Mode::All, &waker).unwrap();
    journal.stop_waiting(first);
    let second = journal.wait([1].into_iter(), Mode::All, &waker).unwrap();
    assert_ne!(first, second);
    journal.push([ended(0, 1, true)]);
    assert!(!step(&mut journal));
    assert!(!journal.poll_waiter(second, &waker));
    journal.push([ended(1, 2, true)]);
    assert!(step(&mut journal));
}

#[test]
fn a_replay_meets_everything_in_the_same_order() {
    let items = [ended(1, 1, true), ended(0, 2, false), ended(2, 3, true)];
    let mut journal = Journal::default();
    let stored = items.into_iter().map(|(key, resolved)| {
        let EntryKey::Child(Slot::Index(index)) = key else { unreachable!() };
        JournalItem { key, content: Content::Child(child(index)), resolved: Some(resolved) }
    });
    journal.load(stored.collect(), 0);
    let (_, waker) = waker();
    for (expected, index) in [(1, 1), (2, 0), (3, 2)] {
        let place = journal.child(Slot::Index(index)).unwrap().place;
        assert!(journal.outcome(place).is_none());
        let all: Vec<_> = (0..3).filter(|&place| journal.outcome(place).is_none()).collect();
        let next = journal.wait(all.into_iter(), Mode::Any, &waker).unwrap();
        assert!(step(&mut journal));
        assert_eq!(journal.outcome(place).unwrap().0, expected);
        journal.stop_waiting(next);
    }
}

#[test]
fn a_retry_sees_old_successes_at_once_and_old_failures_as_such() {
    let mut journal = Journal::default();
    let stored = [ended(0, 1, true), ended(1, 2, false), ended(2, 3, false)].into_iter().map(|(key, resolved)| {
        let EntryKey::Child(Slot::Index(index)) = key else { unreachable!() };
        JournalItem { key, content: Content::Child(child(index)), resolved: Some(resolved) }
    });
    journal.load(stored.collect(), 2);
    assert!(!journal.child(Slot::Index(0)).unwrap().failed_before);
    assert!(journal.outcome(0).is_some());
    assert!(journal.child(Slot::Index(1)).unwrap().failed_before);
    assert!(!journal.child(Slot::Index(2)).unwrap().failed_before);
    let again = child_entry(RunId::child(1, StepIndex(0), Slot::Index(1), 1), "C".into(), 7, None);
    let place = journal.insert_child(Slot::Index(1), again);
    assert!(journal.outcome(place).is_none());
    assert!(!journal.child(Slot::Index(1)).unwrap().failed_before);
    assert_eq!(order_of_ends(&journal), [0]);
    journal.push([ended(1, 4, true)]);
    settle_all(&mut journal);
    assert_eq!(order_of_ends(&journal), [0, 2, 1]);
}

#[test]
fn a_wait_for_the_next_goes_on_after_each() {
    let mut journal = with_children(3);
    let (count, waker) = waker();
    let next = journal.wait(0..3, Mode::Any, &waker).unwrap();
    journal.push([ended(1, 1, true), ended(2, 2, true), ended(0, 3, true)]);
    for given in 1..=3 {
        assert!(step(&mut journal));
        assert!(!journal.is_waiting());
        assert_eq!((order_of_ends(&journal).len(), count.0.load(Ordering::Relaxed)), (given, given));
        journal.arm(next, true);
        assert!(journal.is_waiting());
    }
    journal.arm(next, false);
    assert!(!journal.is_waiting());
    journal.stop_waiting(next);
    assert!(!journal.is_waiting());
}

#[test]
fn a_resolution_may_come_before_its_child_is_known() {
    let mut journal = Journal::default();
    journal.push([ended(0, 1, true)]);
    settle_all(&mut journal);
    assert!(journal.child(Slot::Index(0)).is_none());
    let place = journal.insert_child(Slot::Index(0), child(0));
    assert!(journal.outcome(place).is_some());
    let (_, waker) = waker();
    assert!(journal.wait([place].into_iter(), Mode::Any, &waker).is_none());
}

#[test]
fn the_end_of_a_new_generation_may_come_before_the_answer_to_its_start() {
    let mut journal = Journal::default();
    let (key, resolved) = ended(0, 1, false);
    let stored = JournalItem { key, content: Content::Child(child(0)), resolved: Some(resolved) };
    journal.load(vec![stored], 1);
    journal.push([ended(0, 2, true)]);
    settle_all(&mut journal);
    let again = child_entry(RunId::child(1, StepIndex(0), Slot::Index(0), 1), "C".into(), 7, None);
    let place = journal.insert_child(Slot::Index(0), again);
    assert!(journal.outcome(place).is_some_and(|(sequence, outcome)| sequence == 2 && outcome.is_success()));
    assert_eq!(order_of_ends(&journal), [place], "it ended once");
}

#[test]
fn a_message_that_came_before_the_stored_journal_was_read_blocks_nothing() {
    let mut journal = Journal::default();
    journal.push([ended(0, 1, true)]);
    let stored = [(0, true), (1, false)].map(|(index, has_ended)| {
        let (key, resolved) = ended(index, 1, true);
        JournalItem { key, content: Content::Child(child(index)), resolved: has_ended.then_some(resolved) }
    });
    journal.load(stored.into(), 1);
    journal.push([ended(1, 2, true)]);
    settle_all(&mut journal);
    assert_eq!(order_of_ends(&journal), [0, 1]);
}

#[test]
fn a_place_that_is_named_twice_counts_once() {
    let mut journal = with_children(2);
    let (_, waker) = waker();
    let all = journal.wait([0, 0, 1, 0].into_iter(), Mode::All, &waker).unwrap();
    assert_eq!(journal.wake().at_sequence, 2);
    journal.push([ended(0, 1, true), ended(1, 2, true)]);
    assert!(step(&mut journal));
    assert!(journal.poll_waiter(all, &waker));
    assert!(journal.outcome(1).is_some());
}

#[test]
fn the_end_of_a_child_waits_for_the_answer_to_the_call_that_made_it() {
    let mut journal = with_children(1);
    let (_, waker) = waker();
    let first = journal.wait([0].into_iter(), Mode::Any, &waker).unwrap();
    journal.expect(true);
    journal.push([ended(1, 1, true), ended(0, 2, true)]);
    assert!(!step(&mut journal), "what comes behind it waits too");
    let place = journal.insert_child(Slot::Index(1), child(1));
    journal.expect(false);
    let second = journal.wait([place].into_iter(), Mode::Any, &waker).unwrap();
    assert!(step(&mut journal));
    assert!(journal.poll_waiter(second, &waker) && !journal.poll_waiter(first, &waker));
}

#[test]
fn the_end_of_a_child_whose_call_was_given_up_is_in_nobodys_way() {
    let mut journal = with_children(1);
    let (_, waker) = waker();
    let first = journal.wait([0].into_iter(), Mode::Any, &waker).unwrap();
    journal.expect(true);
    journal.push([ended(1, 1, true), ended(0, 2, true)]);
    journal.expect(false);
    assert!(step(&mut journal));
    assert!(journal.poll_waiter(first, &waker));
}

/// What a store has that this journal is a copy of: the children, and the ends of those that have ended, by index and
/// sequence number.
fn stored(children: u32, ends: &[(u32, u64)]) -> Vec<JournalItem> {
    let end =
        |index| ends.iter().find(|(ended, _)| *ended == index).map(|(_, sequence)| ended(index, *sequence, true).1);
    let item = |index| JournalItem {
        key: EntryKey::Child(Slot::Index(index)),
        content: Content::Child(child(index)),
        resolved: end(index),
    };
    (0..children).map(item).collect()
}

#[test]
fn a_history_that_only_went_on_contradicts_nothing() {
    let mut journal = with_children(3);
    let extent = journal.extent();
    assert!(!journal.contradicts(extent, &stored(3, &[(1, 1), (0, 2)]), 2));
    assert!(!journal.push([ended(1, 1, true)]), "it goes on");
    assert!(!journal.push([ended(1, 1, true)]), "and is told twice");
    assert!(!journal.contradicts(extent, &stored(4, &[(1, 1), (0, 2)]), 2), "what came meanwhile");
    let extent = journal.extent();
    assert!(!journal.contradicts(extent, &stored(3, &[(1, 1)]), 1));
    let waiter = journal.wait([0, 1].into_iter(), Mode::All, Waker::noop()).unwrap();
    step(&mut journal);
    assert_eq!(journal.sequence(), 1);
    assert!(!journal.contradicts(journal.extent(), &stored(3, &[(1, 1), (2, 2)]), 2));
    journal.stop_waiting(waiter);
}

#[test]
fn a_history_that_was_forgotten_contradicts_what_was_met() {
    let mut journal = with_children(3);
    journal.push([ended(1, 1, true), ended(0, 2, true)]);
    let waiter = journal.wait([0, 2].into_iter(), Mode::All, Waker::noop()).unwrap();
    step(&mut journal);
    let extent = journal.extent();
    assert_eq!(journal.sequence(), 2);
    assert!(!journal.contradicts(extent, &stored(3, &[(1, 1), (0, 2)]), 2));
    assert!(journal.contradicts(extent, &stored(3, &[(1, 1)]), 1), "an end is gone");
    assert!(journal.contradicts(extent, &stored(3, &[(1, 1), (2, 2)]), 2), "another one ended instead");
    assert!(journal.contradicts(extent, &stored(3, &[(0, 1), (1, 2)]), 2), "they ended in another order");
    assert!(journal.contradicts(extent, &stored(2, &[(1, 1), (0, 2)]), 2), "a child is gone");
    journal.push([ended(2, 3, true)]);
    assert!(journal.contradicts(journal.extent(), &stored(4, &[(1, 1), (0, 2), (3, 3)]), 3), "so did one to come");
    assert!(journal.push([ended(0, 3, true)]), "something else was to be next, and this was met");
    step(&mut journal);
    assert_eq!(journal.sequence(), 3);
    assert!(
        journal.contradicts(journal.extent(), &stored(3, &[(1, 1), (2, 2), (0, 3)]), 3),
        "one is met twice, and another one not at all"
    );
    journal.stop_waiting(waiter);
}

#[test]
fn a_large_output_that_was_given_back_takes_no_memory_until_it_is_read_again() {
    for (length, is_large) in [(SMALL_OUTPUT, false), (SMALL_OUTPUT + 1, true)] {
        let mut journal = Journal::default();
        let place = journal.insert_child(Slot::Index(0), child(0));
        let output = Payload::from(vec![b'1'; length]);
        let resolution = Resolution::Child(Outcome::Succeeded(output.clone()));
        journal.settle(place, Resolved { sequence: 1, resolution });
        assert!(!journal.was_given_back(place));
        journal.give_back(place);
        assert_eq!((journal.was_given_back(place), output.is_unique()), (is_large, is_large));
        journal.take_again(place, Outcome::Succeeded(output.clone()));
        assert_eq!(journal.outcome(place), Some((1, &Outcome::Succeeded(output))));
        assert_eq!(journal.next_ended(0), Some((1, place)));
    }
}

#[test]
fn the_end_of_a_child_that_is_not_known_to_be_stored_waits_until_it_is() {
    let mut journal = Journal::default();
    journal.expect(true);
    let place = journal.insert_unwritten(Slot::Index(0), child(0));
    let waiter = journal.wait([place].into_iter(), Mode::All, Waker::noop()).unwrap();
    journal.push([ended(0, 1, true)]);
    assert!(!step(&mut journal), "its end came before the answer");
    assert_eq!(journal.insert_child(Slot::Index(0), child(0)), place);
    assert!(step(&mut journal));
    assert!(journal.poll_waiter(waiter, Waker::noop()));
}

#[test]
fn children_that_are_not_stored_yet_are_not_missed_in_the_store() {
    let mut journal = with_children(2);
    journal.insert_unwritten(Slot::Index(2), child(2));
    let item = |index| JournalItem {
        key: EntryKey::Child(Slot::Index(index)),
        content: Content::Child(child(index)),
        resolved: None,
    };
    assert_eq!(journal.progress().items, 2);
    let extent = journal.extent();
    journal.insert_child(Slot::Index(2), child(2));
    assert!(!journal.contradicts(extent, &[item(0), item(1)], 0), "it was written after the store was read");
    assert!(journal.contradicts(extent, &[item(0)], 0));
    assert!(journal.contradicts(journal.extent(), &[item(0), item(1)], 0));
}

/// What a journal is loaded with that has these values.
fn values(names: &[&str]) -> Vec<JournalItem> {
    let value = |name: &&str| {
        let value = if name.starts_with(VOID) { &br#"["b","child x"]"#[..] } else { b"true" };
        let entry = Entry::Value(Payload::copy_from_slice(value));
        let content = Content::Entry(entry, Timestamp::default());
        JournalItem { key: EntryKey::Named((*name).into()), content, resolved: None }
    };
    names.iter().map(value).collect()
}

#[test]
fn code_is_not_asked_for_what_was_noted() {
    let mut journal = Journal::default();
    journal.load(values(&["a", "b", "engine:void:1.1"]), 0);
    assert_eq!((journal.left_out(), journal.has_more()), (vec!["a".to_owned()], true));
    journal.use_named("a");
    assert_eq!((journal.left_out(), journal.has_more()), (vec![], false));
}

#[test]
fn code_is_early_until_it_has_asked_for_everything() {
    let mut journal = Journal::default();
    journal.load(values(&["a", "patch:x"]), 0);
    assert!(journal.is_early());
    journal.use_named("a");
    assert!(journal.is_early(), "it has not asked for the patch");
    assert!(!journal.has_more(), "a patch may be removed");
    journal.use_named("patch:x");
    assert!(!journal.is_early());
    // Code that has replayed nothing cannot be early.
    assert!(!Journal::default().is_early());
}

#[test]
fn notes_of_several_attempts_have_names_of_their_own() {
    let mut names = HashSet::<Name>::new();
    for _ in 0..3 {
        let mut journal = Journal::default();
        journal.load(values(&names.iter().map(|name| &**name).collect::<Vec<_>>()), 0);
        for _ in 0..2 {
            let (name, _) = journal.note_early(vec!["b".to_owned()]).unwrap();
            assert!(names.insert(name));
        }
    }
    assert_eq!(Journal::default().note_early(vec![]), None, "there is nothing to note");
}

/// A journal with a call, a patch, and what code without the patch has added and noted.
fn patched_and_added_to() -> Journal {
    let mut before = Journal::default();
    before.load(values(&["a", "patch:x"]), 0);
    before.use_named("a");
    let (name, value) = before.note_early(vec!["b".to_owned()]).unwrap();
    let mut items = values(&["a", "patch:x", "b"]);
    let content = Content::Entry(Entry::Value(value), Timestamp::default());
    items.push(JournalItem { key: EntryKey::Named(name), content, resolved: None });
    let mut journal = Journal::default();
    journal.load(items, 0);
    journal
}

#[test]
fn code_that_asks_for_a_patch_need_not_ask_for_what_was_added_without_it() {
    let mut journal = patched_and_added_to();
    journal.use_named("a");
    assert!(journal.settle_notes().is_empty(), "it has not asked for the patch so far");
    assert_eq!(journal.left_out(), ["b"]);
    journal.use_named("patch:x");
    let notes = journal.settle_notes();
    assert_eq!((journal.left_out(), journal.is_early()), (vec![], false));
    // From now on, for no code.
    let [(_, value)] = &notes[..] else { panic!("one note, but {notes:?}") };
    assert_eq!(&value[..], br#"["b"]"#);
    assert!(journal.settle_notes().is_empty(), "it is written once");
}

#[test]
fn code_without_a_patch_has_to_ask_for_what_was_added_without_it() {
    let mut journal = patched_and_added_to();
    journal.use_named("a");
    assert_eq!((journal.left_out(), journal.has_more()), (vec!["b".to_owned()], true));
    journal.use_named("b");
    assert_eq!((journal.left_out(), journal.has_more()), (vec![], false));
}
