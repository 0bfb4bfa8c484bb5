//! Large fan-outs among the ready tasks of a queue: the children of each have a line of their own, and these take turns with what
//! else is ready in their lane.
//!
//! A fan-out stays in the rotation until a claim comes to it and finds it empty.

use std::collections::{HashMap, VecDeque};

use hatchet_core::backend::{Name, RunId, StepIndex};

use crate::ready::{LANES, Lane, Line, TaskKey};

/// The children of one step that run one workflow.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FanOut {
    pub(crate) parent: u128,
    pub(crate) step: StepIndex,
    pub(crate) workflow: Name,
}

impl FanOut {
    /// That of a child; none of a root run.
    pub(crate) fn of(run: &RunId, workflow: &Name) -> Option<Self> {
        let origin = run.origin()?;
        Some(Self { parent: origin.parent, step: origin.step, workflow: Name::clone(workflow) })
    }
}

/// A fan-out's position among those of a queue, as long as it is in the rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FanOutIndex(u32);

/// The fan-outs of one queue.
#[derive(Clone, Debug, Default)]
pub(crate) struct FanOuts {
    list: Vec<Option<Box<Member>>>,
    free: Vec<u32>,
    known: HashMap<(usize, FanOut), FanOutIndex>,
    /// The one that was added to last: mostly it is the one that comes next.
    last: u32,
    rotations: [Rotation; LANES],
    /// How many tasks there are in all.
    tasks: usize,
}

#[derive(Clone, Debug)]
struct Member {
    lane: Lane,
    fan_out: FanOut,
    line: Line<TaskKey>,
    tasks: usize,
}

/// Those of one lane.
#[derive(Clone, Debug, Default)]
struct Rotation {
    /// By workflow, in the order of their turns. None is empty, but some of the fan-outs may be.
    workflows: VecDeque<Turns>,
    /// Whether the lane's own line was left without the odd one the last time.
    was_odd: bool,
}

/// The fan-outs of one workflow, in the order of their turns.
#[derive(Clone, Debug)]
struct Turns {
    workflow: Name,
    members: VecDeque<FanOutIndex>,
}

impl FanOuts {
    /// Puts a task at the end of its fan-out's line; where that is, and the task's ticket.
    pub(crate) fn push(&mut self, lane: Lane, fan_out: FanOut, task: TaskKey) -> (FanOutIndex, u64) {
        let is_last = |member: &Member| member.lane == lane && member.fan_out == fan_out;
        let index = if self.member(FanOutIndex(self.last)).is_some_and(is_last) {
            FanOutIndex(self.last)
        } else {
            let key = (lane.index(), fan_out);
            self.known.get(&key).copied().unwrap_or_else(|| self.add(lane, key))
        };
        self.last = index.0;
        self.tasks += 1;
        let ticket = self.list[index.0 as usize].as_mut().map_or(0, |member| {
            member.tasks += 1;
            member.line.push(task)
        });
        (index, ticket)
    }

    fn add(&mut self, lane: Lane, key: (usize, FanOut)) -> FanOutIndex {
        let workflow = &key.1.workflow.clone();
        let member = Box::new(Member { lane, fan_out: key.1.clone(), line: Line::default(), tasks: 0 });
        let at = self.free.pop().unwrap_or_else(|| {
            self.list.push(None);
            (self.list.len() - 1) as u32
        });
        self.list[at as usize] = Some(member);
        let index = FanOutIndex(at);
        self.known.insert(key, index);
        let workflows = &mut self.rotations[lane.index()].workflows;
        match workflows.iter_mut().find(|turns| turns.workflow == *workflow) {
            Some(turns) => turns.members.push_back(index),
            None => workflows.push_back(Turns { workflow: Name::clone(workflow), members: [index].into() }),
        }
        index
    }

    fn member(&self, index: FanOutIndex) -> Option<&Member> {
        self.list.get(index.0 as usize)?.as_deref()
    }

    pub(crate) fn line(&self, index: FanOutIndex) -> Option<&Line<TaskKey>> {
        self.member(index).map(|member| &member.line)
    }

    /// Takes out a task.
    pub(crate) fn remove(&mut self, index: FanOutIndex, ticket: u64) {
        let Some(member) = self.list.get_mut(index.0 as usize).and_then(Option::as_mut) else { return };
        let removed = usize::from(member.line.remove(ticket));
        member.tasks -= removed;
        self.tasks -= removed;
    }

    /// Whether fan-outs take turns in a lane.
    pub(crate) fn are_in(&self, lane: Lane) -> bool {
        !self.rotations[lane.index()].workflows.is_empty()
    }

    /// The workflows of a lane for which this holds, in the order of their turns.
    pub(crate) fn open_in(&self, lane: Lane, holds: impl Fn(&Name) -> bool) -> VecDeque<Name> {
        let workflows = self.rotations[lane.index()].workflows.iter().map(|turns| &turns.workflow);
        workflows.filter(|workflow| holds(workflow)).cloned().collect()
    }

    /// How many of a workflow take turns in a lane.
    pub(crate) fn of(&self, lane: Lane, workflow: &Name) -> usize {
        self.turns(lane, workflow).map_or(0, |turns| turns.members.len())
    }

    fn turns(&self, lane: Lane, workflow: &Name) -> Option<&Turns> {
        self.rotations[lane.index()].workflows.iter().find(|turns| turns.workflow == *workflow)
    }

    /// The one of a workflow whose turn it is.
    pub(crate) fn next(&self, lane: Lane, workflow: &Name) -> Option<FanOutIndex> {
        self.turns(lane, workflow)?.members.front().copied()
    }

    /// That one and its workflow had their turn: the others go before them, and those that are empty leave. Whether any of the
    /// workflow are left.
    pub(crate) fn rotate(&mut self, lane: Lane, workflow: &Name) -> bool {
        let Some(index) = self.next(lane, workflow) else { return false };
        let is_empty = self.line(index).is_none_or(|line| line.first().is_none());
        let workflows = &mut self.rotations[lane.index()].workflows;
        let Some(at) = workflows.iter().position(|turns| turns.workflow == *workflow) else { return false };
        let Some(mut turns) = workflows.remove(at) else { return false };
        turns.members.pop_front();
        if !is_empty {
            turns.members.push_back(index);
        }
        let is_left = !turns.members.is_empty();
        if is_left {
            workflows.push_back(turns);
        }
        if is_empty && let Some(member) = self.list[index.0 as usize].take() {
            self.known.remove(&(member.lane.index(), member.fan_out));
            self.free.push(index.0);
        }
        is_left
    }

    /// Returns the number of tasks that a claim takes from the lane's own line, the rest being for the fan-outs: half
    /// of `wanted`. If that is odd, the line gets the odd one every other time.
    pub(crate) fn share_of_line(&mut self, lane: Lane, wanted: usize) -> usize {
        let rotation = &mut self.rotations[lane.index()];
        if wanted.is_multiple_of(2) {
            return wanted / 2;
        }
        rotation.was_odd = !rotation.was_odd;
        wanted / 2 + usize::from(!rotation.was_odd)
    }

    pub(crate) fn tasks(&self) -> usize {
        self.tasks
    }

    fn members(&self) -> impl Iterator<Item = &Member> {
        self.list.iter().flatten().map(AsRef::as_ref).filter(|member| member.tasks > 0)
    }

    /// Whether there are tasks of a workflow for which this holds.
    pub(crate) fn has_some_of(&self, holds: impl Fn(&Name) -> bool) -> bool {
        self.tasks > 0 && self.members().any(|member| holds(&member.fan_out.workflow))
    }

    /// How many tasks there are of workflows for which this does not hold.
    pub(crate) fn tasks_without(&self, holds: impl Fn(&Name) -> bool) -> usize {
        self.members().filter(|member| !holds(&member.fan_out.workflow)).map(|member| member.tasks).sum()
    }
}

#[cfg(test)]
mod tests {
    use hatchet_core::backend::Priority;

    use super::*;

    fn fan_out(parent: u128, workflow: &str) -> FanOut {
        FanOut { parent, step: StepIndex(0), workflow: workflow.into() }
    }

    #[test]
    fn fan_outs_take_turns_and_leave_when_they_are_empty() {
        let (mut fan_outs, lane) = (FanOuts::default(), Lane::new(Priority::Normal));
        let (v, w) = (Name::from("v"), Name::from("w"));
        let (a, _) = fan_outs.push(lane, fan_out(1, "w"), (10, StepIndex(0)));
        let (b, ticket) = fan_outs.push(lane, fan_out(2, "w"), (20, StepIndex(0)));
        let (c, last) = fan_outs.push(lane, fan_out(1, "v"), (30, StepIndex(0)));
        assert_eq!(fan_outs.push(lane, fan_out(1, "w"), (11, StepIndex(0))).0, a);
        assert_eq!(fan_outs.open_in(lane, |_| true), [w.clone(), v.clone()]);
        assert_eq!((fan_outs.next(lane, &w), fan_outs.next(lane, &v), fan_outs.tasks()), (Some(a), Some(c), 4));
        assert!(fan_outs.rotate(lane, &w));
        assert_eq!(
            (fan_outs.next(lane, &w), fan_outs.open_in(lane, |_| true)),
            (Some(b), [v.clone(), w.clone()].into())
        );
        fan_outs.remove(b, ticket);
        assert!(fan_outs.rotate(lane, &w));
        assert_eq!((fan_outs.next(lane, &w), fan_outs.of(lane, &w)), (Some(a), 1));
        fan_outs.remove(c, last);
        assert!(!fan_outs.rotate(lane, &v));
        assert_eq!((fan_outs.open_in(lane, |_| true), fan_outs.tasks()), ([w].into(), 2));
    }

    #[test]
    fn the_line_has_the_odd_task_every_other_time() {
        let (mut fan_outs, lane) = (FanOuts::default(), Lane::new(Priority::Low));
        assert_eq!([1, 1, 4, 1, 5].map(|wanted| fan_outs.share_of_line(lane, wanted)), [0, 1, 2, 0, 3]);
    }
}
