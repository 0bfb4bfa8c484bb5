//! The ready tasks of one queue: a line for each lane, in the order in which they became ready.

use std::collections::VecDeque;

use hatchet_core::backend::{Priority, StepIndex};

/// A task, by its run and step.
pub(crate) type TaskKey = (u128, StepIndex);

/// The ready tasks of one queue.
#[derive(Debug, Default)]
pub(crate) struct Ready {
    lines: [Line; LANES],
    count: usize,
}

/// Where a ready task stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    lane: Lane,
    ticket: u64,
}

/// What goes before what within a queue: resumed tasks first, then by priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lane(u8);

const PRIORITIES: usize = 3;
const LANES: usize = 2 * PRIORITIES;

/// Tasks with consecutive tickets. One that was taken out of the middle leaves a gap; the first is never a gap.
#[derive(Debug, Default)]
struct Line {
    first_ticket: u64,
    tasks: VecDeque<Option<TaskKey>>,
}

impl Lane {
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
}

impl Ready {
    /// Puts a task at the end of a lane.
    pub(crate) fn push(&mut self, lane: Lane, task: TaskKey) -> Place {
        let line = &mut self.lines[usize::from(lane.0)];
        line.tasks.push_back(Some(task));
        self.count += 1;
        Place { lane, ticket: line.first_ticket + line.tasks.len() as u64 - 1 }
    }

    /// The task that goes next.
    pub(crate) fn first(&self) -> Option<TaskKey> {
        self.lines.iter().find_map(|line| line.tasks.front().copied().flatten())
    }

    /// Takes out the task that goes next.
    pub(crate) fn pop_first(&mut self) -> Option<TaskKey> {
        let line = self.lines.iter_mut().find(|line| !line.tasks.is_empty())?;
        let task = line.tasks.front_mut()?.take();
        line.close_gap();
        self.count -= 1;
        task
    }

    /// The task at a place.
    pub(crate) fn get(&self, place: Place) -> Option<TaskKey> {
        let line = &self.lines[usize::from(place.lane.0)];
        let at = place.ticket.checked_sub(line.first_ticket)?;
        line.tasks.get(usize::try_from(at).ok()?).copied().flatten()
    }

    /// Takes out the task at a place.
    pub(crate) fn remove(&mut self, place: Place) {
        if self.get(place).is_some() {
            let line = &mut self.lines[usize::from(place.lane.0)];
            line.tasks[(place.ticket - line.first_ticket) as usize] = None;
            line.close_gap();
            self.count -= 1;
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.count
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    #[cfg(test)]
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}

impl Line {
    fn close_gap(&mut self) {
        while let Some(None) = self.tasks.front() {
            self.tasks.pop_front();
            self.first_ticket += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(uid: u128) -> TaskKey {
        (uid, StepIndex(0))
    }

    #[test]
    fn lanes_go_before_each_other_and_tasks_of_one_lane_in_their_order() {
        let mut ready = Ready::default();
        let (low, normal, high) = (Priority::Low, Priority::Normal, Priority::High);
        let lanes = [low, normal, high, normal].map(Lane::new).into_iter().chain([low, high].map(Lane::resumed));
        for (uid, lane) in lanes.enumerate() {
            ready.push(lane, task(uid as u128));
        }
        let order: Vec<_> = std::iter::from_fn(|| ready.pop_first()).map(|(uid, _)| uid).collect();
        assert_eq!(order, [5, 4, 2, 1, 3, 0]);
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
            let order: Vec<_> = std::iter::from_fn(|| ready.pop_first()).map(|(uid, _)| uid).collect();
            assert_eq!(order, (0..5).filter(|uid| *uid != taken).collect::<Vec<_>>());
            assert!(ready.is_empty());
        }
    }

    #[test]
    fn a_place_is_not_given_twice() {
        let mut ready = Ready::default();
        let first = ready.push(Lane::new(Priority::High), task(1));
        ready.pop_first();
        let second = ready.push(Lane::new(Priority::High), task(2));
        assert_ne!(first, second);
        assert_eq!((ready.get(first), ready.first()), (None, Some(task(2))));
    }
}
