//! The ready tasks of one queue: a line for each lane, in the order in which they became ready.
//!
//! A task that a claim comes across and cannot run is set aside, once, into lines of its workflow. What is set aside was in
//! front of all that is left in the line that it came from, so within a lane it goes first, by its ticket.
//!
//! The children of a large fan-out have a line of their own in their lane, see `fan_out.rs`.

use std::collections::VecDeque;

use hatchet_core::backend::{Name, Priority, StepIndex};

use crate::fan_out::{FanOut, FanOutIndex, FanOuts};

/// A task, by its run and step.
pub(crate) type TaskKey = (u128, StepIndex);

/// The ready tasks of one queue.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ready {
    lines: [Line<TaskKey>; LANES],
    /// How many stand in these lines.
    count: usize,
    /// One for each workflow of which tasks were ever set aside, and for each way in which some were stalled.
    aside: Vec<Aside>,
    aside_count: usize,
    /// How many of these are stalled.
    stalled: usize,
    pub(crate) fan_outs: FanOuts,
}

/// Tasks of one workflow that were set aside, each with the ticket that it had.
#[derive(Clone, Debug)]
struct Aside {
    workflow: Name,
    /// Of stalled tasks: who announced one of these is not given them.
    unless: Vec<Name>,
    lines: [Line<(u64, TaskKey)>; LANES],
    count: usize,
}

/// Where a ready task stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    lane: Lane,
    among: Among,
    ticket: u64,
}

/// Which of the lines of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Among {
    Line,
    /// What was set aside of a workflow, by its position.
    Aside(u32),
    FanOut(FanOutIndex),
}

/// Which tasks of a lane to look at.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Part {
    /// What was set aside and is open to the session.
    Aside,
    Line,
    FanOut(FanOutIndex),
}

/// The workflows of a queue whose tasks were set aside and that a session can run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Open(Vec<usize>);

/// What goes before what within a queue: resumed tasks first, then by priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lane(u8);

const PRIORITIES: usize = 3;
pub(crate) const LANES: usize = 2 * PRIORITIES;

/// Tasks with consecutive tickets. One that was taken out of the middle leaves a gap; the first is never a gap.
#[derive(Clone, Debug)]
pub(crate) struct Line<T> {
    first_ticket: u64,
    tasks: VecDeque<Option<T>>,
}

impl Place {
    pub(crate) fn is_of_resumed(self) -> bool {
        usize::from(self.lane.0) < PRIORITIES
    }
}

impl Lane {
    /// All of them, in the order in which they are claimed from.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0..LANES as u8).map(Self)
    }

    pub(crate) fn resumed(priority: Priority) -> Self {
        Self(match priority {
            Priority::High => 0,
            Priority::Normal => 1,
            Priority::Low => 2,
        })
    }

    pub(crate) fn new(priority: Priority) -> Self {
        Self(PRIORITIES as u8 + Self::resumed(priority).0)
    }

    pub(crate) fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl Ready {
    /// Puts a task at the end of a lane.
    pub(crate) fn push(&mut self, lane: Lane, task: TaskKey) -> Place {
        self.count += 1;
        Place { lane, among: Among::Line, ticket: self.lines[lane.index()].push(task) }
    }

    /// Puts a task at the end of its fan-out's line in a lane.
    pub(crate) fn push_in_fan_out(&mut self, lane: Lane, fan_out: FanOut, task: TaskKey) -> Place {
        let (index, ticket) = self.fan_outs.push(lane, fan_out, task);
        Place { lane, among: Among::FanOut(index), ticket }
    }

    /// Which of what was set aside can be run by a session that announced these names.
    pub(crate) fn open_to(&self, announced: impl Fn(&Name) -> bool) -> Open {
        if self.aside_count == 0 {
            return Open::default();
        }
        let is_open =
            |aside: &Aside| aside.count > 0 && announced(&aside.workflow) && !aside.unless.iter().any(&announced);
        let some = self.aside.iter().enumerate().filter(|(_, aside)| is_open(aside));
        Open(some.map(|(at, _)| at).collect())
    }

    /// The task that goes next in a part of a lane, and where it stands.
    pub(crate) fn first(&self, lane: Lane, part: Part, open: &Open) -> Option<(Place, TaskKey)> {
        match part {
            Part::Aside => {
                let waiting = open.0.iter().filter_map(|&at| {
                    let line = &self.aside[at].lines[lane.index()];
                    line.first().map(|&(before, task)| (before, at, line.first_ticket, task))
                });
                let (_, at, ticket, task) = waiting.min_by_key(|(before, ..)| *before)?;
                Some((Place { lane, among: Among::Aside(at as u32), ticket }, task))
            }
            Part::Line => {
                let line = &self.lines[lane.index()];
                let task = *line.first()?;
                Some((Place { lane, among: Among::Line, ticket: line.first_ticket }, task))
            }
            Part::FanOut(index) => {
                let line = self.fan_outs.line(index)?;
                let task = *line.first()?;
                Some((Place { lane, among: Among::FanOut(index), ticket: line.first_ticket }, task))
            }
        }
    }

    /// Whether nothing is ready for a session to which this is open and that can run these workflows; what stands in the
    /// lines may be for it.
    pub(crate) fn has_nothing_for(&self, open: &Open, can_run: impl Fn(&Name) -> bool) -> bool {
        self.count == 0 && open.0.is_empty() && !self.fan_outs.has_some_of(can_run)
    }

    /// Sets aside the task at a place that is not set aside yet; where it stands now.
    pub(crate) fn set_aside(&mut self, place: Place, workflow: &Name) -> Option<Place> {
        let task = self.get(place).filter(|_| !matches!(place.among, Among::Aside(_)))?;
        self.remove(place);
        Some(self.put_aside(place.lane, place.ticket, task, workflow, &[]))
    }

    /// Puts a stalled task where only those find it who did not announce one of these names; in front of its lane.
    pub(crate) fn stall(&mut self, lane: Lane, task: TaskKey, workflow: &Name, unless: &[Name]) -> Place {
        self.stalled += 1;
        self.put_aside(lane, 0, task, workflow, unless)
    }

    fn put_aside(&mut self, lane: Lane, before: u64, task: TaskKey, workflow: &Name, unless: &[Name]) -> Place {
        let known = self.aside.iter().position(|aside| aside.workflow == *workflow && aside.unless == unless);
        // One that is empty is used again: there is no end of names that something is stalled unless.
        let free = || self.aside.iter().position(|aside| aside.count == 0 && !aside.unless.is_empty());
        let at = known.or_else(free).unwrap_or_else(|| {
            self.aside.push(Aside {
                workflow: Name::clone(workflow),
                unless: Vec::new(),
                lines: Default::default(),
                count: 0,
            });
            self.aside.len() - 1
        });
        let aside = &mut self.aside[at];
        if aside.count == 0 {
            (aside.workflow, aside.unless) = (Name::clone(workflow), unless.to_vec());
        }
        aside.count += 1;
        self.aside_count += 1;
        let ticket = aside.lines[lane.index()].push((before, task));
        Place { lane, among: Among::Aside(at as u32), ticket }
    }

    /// The tasks that were not set aside and are in no fan-out, in their order.
    pub(crate) fn in_line(&self) -> impl Iterator<Item = TaskKey> {
        self.lines.iter().flat_map(|line| line.tasks.iter().copied().flatten())
    }

    /// How many tasks of workflows for which this does not hold were set aside or are in fan-outs, but for stalled ones.
    pub(crate) fn apart_without(&self, holds: impl Fn(&Name) -> bool) -> usize {
        let some = self.aside.iter().filter(|aside| aside.count > 0 && aside.unless.is_empty());
        let aside = some.filter(|aside| !holds(&aside.workflow));
        aside.map(|aside| aside.count).sum::<usize>() + self.fan_outs.tasks_without(&holds)
    }

    /// The task at a place.
    pub(crate) fn get(&self, place: Place) -> Option<TaskKey> {
        match place.among {
            Among::Line => self.lines[place.lane.index()].get(place.ticket).copied(),
            Among::Aside(at) => {
                self.aside.get(at as usize)?.lines[place.lane.index()].get(place.ticket).map(|(_, task)| *task)
            }
            Among::FanOut(index) => self.fan_outs.line(index)?.get(place.ticket).copied(),
        }
    }

    /// Takes out the task at a place.
    pub(crate) fn remove(&mut self, place: Place) {
        match place.among {
            Among::Line => self.count -= usize::from(self.lines[place.lane.index()].remove(place.ticket)),
            Among::Aside(at) => {
                let Some(aside) = self.aside.get_mut(at as usize) else { return };
                let removed = usize::from(aside.lines[place.lane.index()].remove(place.ticket));
                aside.count -= removed;
                self.aside_count -= removed;
                if !aside.unless.is_empty() {
                    self.stalled -= removed;
                }
            }
            Among::FanOut(index) => self.fan_outs.remove(index, place.ticket),
        }
    }

    /// How many are ready.
    pub(crate) fn len(&self) -> usize {
        self.count + self.aside_count + self.fan_outs.tasks() - self.stalled
    }

    /// How many are stalled.
    pub(crate) fn stalled(&self) -> usize {
        self.stalled
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[cfg(test)]
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}

impl<T> Line<T> {
    pub(crate) fn push(&mut self, task: T) -> u64 {
        self.tasks.push_back(Some(task));
        self.first_ticket + self.tasks.len() as u64 - 1
    }

    pub(crate) fn first(&self) -> Option<&T> {
        self.tasks.front()?.as_ref()
    }

    fn place_of(&self, ticket: u64) -> Option<usize> {
        usize::try_from(ticket.checked_sub(self.first_ticket)?).ok()
    }

    fn get(&self, ticket: u64) -> Option<&T> {
        self.tasks.get(self.place_of(ticket)?)?.as_ref()
    }

    /// Whether there was one.
    pub(crate) fn remove(&mut self, ticket: u64) -> bool {
        let Some(place) = self.place_of(ticket).and_then(|at| self.tasks.get_mut(at)) else { return false };
        let removed = place.take().is_some();
        while let Some(None) = self.tasks.front() {
            self.tasks.pop_front();
            self.first_ticket += 1;
        }
        removed
    }
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self { first_ticket: 0, tasks: VecDeque::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(uid: u128) -> TaskKey {
        (uid, StepIndex(0))
    }

    /// Takes the tasks out in their order.
    fn drain(ready: &mut Ready, open: &Open) -> Vec<u128> {
        let mut order = Vec::new();
        while let Some((place, (uid, _))) = first_of(ready, open) {
            ready.remove(place);
            order.push(uid);
        }
        order
    }

    /// What goes next of all that is not in a fan-out.
    fn first_of(ready: &Ready, open: &Open) -> Option<(Place, TaskKey)> {
        let parts = |lane| [Part::Aside, Part::Line].into_iter().find_map(|part| ready.first(lane, part, open));
        Lane::all().find_map(parts)
    }

    #[test]
    fn lanes_go_before_each_other_and_tasks_of_one_lane_in_their_order() {
        let mut ready = Ready::default();
        let (low, normal, high) = (Priority::Low, Priority::Normal, Priority::High);
        let lanes = [low, normal, high, normal].map(Lane::new).into_iter().chain([low, high].map(Lane::resumed));
        for (uid, lane) in lanes.enumerate() {
            ready.push(lane, task(uid as u128));
        }
        assert_eq!(drain(&mut ready, &Open::default()), [5, 4, 2, 1, 3, 0]);
    }

    #[test]
    fn a_task_is_taken_out_from_wherever_it_stands() {
        for taken in 0..4_u128 {
            let mut ready = Ready::default();
            let places: Vec<_> = (0..4).map(|uid| ready.push(Lane::new(Priority::Normal), task(uid))).collect();
            ready.remove(places[taken as usize]);
            ready.remove(places[taken as usize]);
            assert_eq!(ready.get(places[taken as usize]), None);
            assert_eq!(ready.len(), 3);
            let last = ready.push(Lane::new(Priority::Normal), task(4));
            assert_eq!(ready.get(last), Some(task(4)));
            let order = drain(&mut ready, &Open::default());
            assert_eq!(order, (0..5).filter(|uid| *uid != taken).collect::<Vec<_>>());
            assert!(ready.is_empty());
        }
    }

    #[test]
    fn a_place_is_not_given_twice() {
        let mut ready = Ready::default();
        let first = ready.push(Lane::new(Priority::High), task(1));
        ready.remove(first);
        let second = ready.push(Lane::new(Priority::High), task(2));
        assert_ne!(first, second);
        assert_eq!((ready.get(first), first_of(&ready, &Open::default())), (None, Some((second, task(2)))));
    }

    #[test]
    fn what_was_set_aside_keeps_its_place_for_those_that_can_run_it() {
        let mut ready = Ready::default();
        let normal = Lane::new(Priority::Normal);
        let places: Vec<_> = (0..6).map(|uid| ready.push(normal, task(uid))).collect();
        for (at, workflow) in [(0, "a"), (1, "b"), (2, "a")] {
            ready.set_aside(places[at], &workflow.into()).unwrap();
        }
        let urgent = ready.push(Lane::new(Priority::High), task(6));
        let open = |ready: &Ready, names: &'static [&'static str]| ready.open_to(|name| names.contains(&&**name));
        assert_eq!(first_of(&ready, &open(&ready, &[])), Some((urgent, task(6))));
        assert_eq!((ready.len(), ready.apart_without(|name| &**name == "b")), (7, 2));
        let both = open(&ready, &["a", "b"]);
        assert_eq!(drain(&mut ready, &both), [6, 0, 1, 2, 3, 4, 5]);
        assert!(ready.is_empty() && ready.has_nothing_for(&open(&ready, &["a", "b"]), |_| true));
    }

    #[test]
    fn what_is_stalled_is_open_to_those_who_did_not_announce_a_name() {
        let mut ready = Ready::default();
        ready.push(Lane::new(Priority::Normal), task(0));
        let lane = Lane::resumed(Priority::Normal);
        let place = ready.stall(lane, task(1), &"a".into(), &["code 1".into()]);
        ready.stall(lane, task(2), &"a".into(), &["code 1".into(), "code 2".into()]);
        assert_eq!((ready.len(), ready.stalled(), ready.apart_without(|_| false)), (1, 2, 0));
        let open = |ready: &Ready, names: &'static [&'static str]| ready.open_to(|name| names.contains(&&**name));
        for (names, next) in [(&["a", "code 1"][..], 0), (&["a", "code 2"], 1), (&["b", "code 3"], 0)] {
            assert_eq!(first_of(&ready, &open(&ready, names)).unwrap().1, task(next), "{names:?}");
        }
        ready.remove(place);
        assert_eq!(first_of(&ready, &open(&ready, &["a", "code 3"])).unwrap().1, task(2));
        // Its lane is used again.
        ready.stall(lane, task(3), &"b".into(), &["code 4".into()]);
        assert_eq!((ready.aside.len(), ready.stalled()), (2, 2));
        assert_eq!(first_of(&ready, &open(&ready, &["b", "code 3"])).unwrap().1, task(3));
    }

    #[test]
    fn what_was_set_aside_is_taken_out_from_wherever_it_stands() {
        for taken in 0..3 {
            let mut ready = Ready::default();
            let places: Vec<_> = (0..3).map(|uid| ready.push(Lane::new(Priority::Normal), task(uid))).collect();
            let aside: Vec<_> = places.iter().map(|place| ready.set_aside(*place, &"a".into()).unwrap()).collect();
            ready.remove(aside[taken]);
            ready.remove(aside[taken]);
            assert_eq!((ready.get(aside[taken]), ready.len()), (None, 2));
            let open = ready.open_to(|_| true);
            let order: Vec<_> = (0..3).filter(|uid| *uid != taken as u128).collect();
            assert_eq!(drain(&mut ready, &open), order);
        }
    }
}
