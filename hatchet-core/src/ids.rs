//! Identities of runs, steps, sessions and the slots of children.
//!
//! A run that a program starts has a random, time-ordered id. The id of a child is derived from its parent, the step
//! and its slot (its index or its key). So two spawns of the same child have the same id, without a lookup. An id is
//! never reused.

use std::{fmt, hash::Hasher as _, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use siphasher::sip128::{Hasher128 as _, SipHasher13};
use uuid::Uuid;

/// A short name that is cheap to clone: of a workflow, a step, a queue or a signal.
pub type Name = Arc<str>;

/// The name of a workflow without its version: `order` of `order@2`. Idempotency keys belong to it.
pub fn unversioned(workflow: &str) -> &str {
    split_version(workflow).0
}

/// Splits the name of a workflow into its base and its version; the version is 0 if it has none.
pub(crate) fn split_version(name: &str) -> (&str, u32) {
    let version = |(base, number): (_, &str)| Some((base, number.parse().ok().filter(|number| *number > 0)?));
    name.rsplit_once('@').and_then(version).unwrap_or((name, 0))
}

/// The number of a step in its run. The state of the run names its steps in the order of their numbers; the order in the
/// source means nothing. The only step of a run has the number 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StepIndex(pub u16);

impl StepIndex {
    /// The number as an index into the list of the run's steps.
    pub fn at(self) -> usize {
        usize::from(self.0)
    }
}

/// Identifies a child among the children of one step: its index or its key. The two are separate: `Index(3)` is not
/// the key `"3"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Slot {
    /// The n-th spawn of the step, counted from 0.
    Index(u32),
    /// The hash of an explicit key.
    Key(u128),
}

impl Slot {
    /// Returns the slot of an explicit key.
    pub fn of_key(key: &str) -> Self {
        Self::Key(hash128(0, key.as_bytes()))
    }
}

/// Identifies a run. An id is never reused and is cheap to copy. Two ids are compared by their [`uid`](Self::uid).
///
/// The text form is stable and can be parsed back. For a run that a program started it has 32 hexadecimal digits. For
/// a child it is `<parent>.<step>.<index>` or `<parent>.<step>.k<key hash>`, followed by `~<generation>` if a retry
/// of the parent ran a failed child again.
#[derive(Clone, Copy)]
pub struct RunId {
    uid: u128,
    // The origin in parts, since it takes less room like that and a run's identity is in whatever concerns the run.
    kind: Kind,
    step: StepIndex,
    generation: u32,
    parent: u128,
    /// An index, or the hash of a key.
    slot: u128,
}

/// What a run is, and of a child what its slot is.
#[derive(Clone, Copy)]
enum Kind {
    Root,
    Indexed,
    Keyed,
}

/// The origin of a child: the values from which its id is derived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The [`uid`](RunId::uid) of the parent run.
    pub parent: u128,
    /// The step that spawned it.
    pub step: StepIndex,
    /// Which child of the step it is.
    pub slot: Slot,
    /// How often retries of the parent ran this child again after a failure.
    pub generation: u32,
}

impl RunId {
    /// Creates an id for a run that a program starts: random, and ordered by time.
    pub fn random() -> Self {
        // A version 7 uuid has its time in front and its random bits behind, where the partition is taken from.
        Self::from_uid(Uuid::now_v7().as_u128())
    }

    /// Returns the id of a root run with this [`uid`](Self::uid).
    pub fn from_uid(uid: u128) -> Self {
        Self { uid, kind: Kind::Root, step: StepIndex(0), generation: 0, parent: 0, slot: 0 }
    }

    /// Returns the id of the child in `slot` of `step`, where `parent` is the uid of the parent run.
    pub fn child(parent: u128, step: StepIndex, slot: Slot, generation: u32) -> Self {
        let mut name = [0u8; 23];
        name[..2].copy_from_slice(&step.0.to_le_bytes());
        name[2..6].copy_from_slice(&generation.to_le_bytes());
        let (kind, slot) = match slot {
            Slot::Index(index) => (Kind::Indexed, u128::from(index)),
            Slot::Key(hash) => (Kind::Keyed, hash),
        };
        name[6] = u8::from(matches!(kind, Kind::Keyed));
        name[7..].copy_from_slice(&slot.to_le_bytes());
        let hash = hash128(parent, &name);
        // The low bits are the tree's partition: a tree never leaves it.
        let uid = (hash & !PARTITION_BITS) | (parent & PARTITION_BITS);
        Self { uid, kind, step, generation, parent, slot }
    }

    /// The 128 bits that identify this run where the text form would be too long.
    pub fn uid(&self) -> u128 {
        self.uid
    }

    /// The origin of a child; `None` for a run that a program started.
    pub fn origin(&self) -> Option<Origin> {
        let slot = match self.kind {
            Kind::Root => return None,
            Kind::Indexed => Slot::Index(self.slot as u32),
            Kind::Keyed => Slot::Key(self.slot),
        };
        Some(Origin { parent: self.parent, step: self.step, slot, generation: self.generation })
    }

    /// Returns this id moved to the partition derived from the workflow, whatever its version, and the idempotency key,
    /// so that a lookup by key finds the run.
    #[must_use]
    pub fn with_idempotency_key(&self, workflow: &str, key: &str) -> Self {
        let workflow = unversioned(workflow);
        let hash = hash128(hash128(0, workflow.as_bytes()), key.as_bytes());
        Self { uid: (self.uid & !PARTITION_BITS) | (hash & PARTITION_BITS), ..*self }
    }

    /// Returns this id moved to the partition of another run.
    pub(crate) fn beside(&self, other: &Self) -> Self {
        Self { uid: (self.uid & !PARTITION_BITS) | (other.uid & PARTITION_BITS), ..*self }
    }

    /// The partition number, below 65 536. All runs of one tree share it. Backends use it to divide their data.
    pub fn partition(&self) -> u16 {
        (self.uid & PARTITION_BITS) as u16
    }

    /// The same slot, run again after a failure.
    pub(crate) fn next_generation(&self) -> Self {
        match self.origin() {
            Some(o) => Self::child(o.parent, o.step, o.slot, o.generation + 1),
            None => *self,
        }
    }
}

/// `from_str` of integers takes a sign and leading zeros, which would give one run several names.
fn number(text: &str) -> Option<&str> {
    (text == "0" || !text.starts_with(['+', '0'])).then_some(text)
}

const PARTITION_BITS: u128 = 0xffff;

impl PartialEq for RunId {
    fn eq(&self, other: &Self) -> bool {
        self.uid == other.uid
    }
}
impl Eq for RunId {}
impl PartialOrd for RunId {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for RunId {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.uid.cmp(&other.uid)
    }
}
impl std::hash::Hash for RunId {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.uid.hash(state);
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(origin) = self.origin() else {
            return write!(f, "{:032x}", self.uid);
        };
        write!(f, "{:032x}.{}.", origin.parent, origin.step.0)?;
        match origin.slot {
            Slot::Index(index) => write!(f, "{index}")?,
            Slot::Key(hash) => write!(f, "k{hash:032x}")?,
        }
        match origin.generation {
            0 => Ok(()),
            n => write!(f, "~{n}"),
        }
    }
}

impl fmt::Debug for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not a valid run id. Expected: 32 hexadecimal digits, or `<parent>.<step>.<slot>` for a child.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a run id: expected 32 hexadecimal digits, or parent.step.slot of a child")]
pub struct ParseRunIdError(String);

impl FromStr for RunId {
    type Err = ParseRunIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_run_id(text).ok_or_else(|| ParseRunIdError(text.chars().take(80).collect()))
    }
}

fn parse_run_id(text: &str) -> Option<RunId> {
    let hex = |s: &str| {
        let well_formed = s.len() == 32 && s.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        well_formed.then(|| u128::from_str_radix(s, 16).ok()).flatten()
    };
    // `from_str` of integers takes a sign, which would give one run two names.
    let mut parts = text.split('.');
    let uid = hex(parts.next()?)?;
    let Some(step) = parts.next() else {
        return Some(RunId::from_uid(uid));
    };
    let slot = parts.next()?;
    if parts.next().is_some() {
        return None;
    }
    let (slot, generation) = match slot.split_once('~') {
        Some((slot, generation)) => (slot, number(generation)?.parse().ok().filter(|n| *n > 0)?),
        None => (slot, 0),
    };
    let slot = match slot.strip_prefix('k') {
        Some(hash) => Slot::Key(hex(hash)?),
        None => Slot::Index(number(slot)?.parse().ok()?),
    };
    Some(RunId::child(uid, StepIndex(number(step)?.parse().ok()?), slot, generation))
}

impl Serialize for RunId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RunId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Identifies one registration of a worker or a client with the backend. It is random and never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u128);

impl SessionId {
    /// Creates a new random id.
    pub fn random() -> Self {
        Self(Uuid::now_v7().as_u128())
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A hash that is the same on every machine and in every version, keyed so that trees do not share collisions.
pub(crate) fn hash128(key: u128, data: &[u8]) -> u128 {
    let mut hasher = SipHasher13::new_with_keys(key as u64, (key >> 64) as u64);
    hasher.write(data);
    let hash = hasher.finish128();
    (u128::from(hash.h1) << 64) | u128::from(hash.h2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some_children() -> Vec<RunId> {
        let parent = RunId::random().uid();
        let slots = [Slot::Index(0), Slot::Index(3), Slot::of_key("3"), Slot::of_key("child7")];
        let mut ids = Vec::new();
        for step in [0, 7] {
            for slot in slots {
                for generation in [0, 2] {
                    ids.push(RunId::child(parent, StepIndex(step), slot, generation));
                }
            }
        }
        ids
    }

    #[test]
    fn the_text_of_an_id_parses_back() {
        for id in some_children().into_iter().chain([RunId::random()]) {
            let back: RunId = id.to_string().parse().unwrap();
            assert_eq!(back, id);
            assert_eq!(back.origin(), id.origin());
            assert_eq!(serde_json::from_str::<RunId>(&serde_json::to_string(&id).unwrap()).unwrap(), id);
        }
    }

    #[test]
    fn children_in_different_places_have_different_ids_in_one_partition() {
        let ids = some_children();
        let distinct: std::collections::BTreeSet<_> = ids.iter().collect();
        assert_eq!(distinct.len(), ids.len());
        assert!(ids.iter().all(|id| id.partition() == ids[0].partition()));
    }

    #[test]
    fn a_child_id_is_the_same_whoever_derives_it() {
        let id = RunId::child(7, StepIndex(1), Slot::of_key("child0"), 0);
        assert_eq!(id.to_string(), "00000000000000000000000000000007.1.k3c24e5058866daa67a09555db6a4bb6a");
        assert_eq!(id, RunId::child(7, StepIndex(1), Slot::of_key("child0"), 0));
    }

    #[test]
    fn one_idempotency_key_of_a_workflow_is_in_one_partition() {
        let ids = [RunId::random(), RunId::random()].map(|id| id.with_idempotency_key("W", "k"));
        assert_ne!(ids[0], ids[1]);
        assert_eq!(ids[0].partition(), ids[1].partition());
        assert_ne!(ids[0].partition(), ids[0].with_idempotency_key("V", "k").partition());
    }

    #[test]
    fn text_that_is_no_id_is_refused() {
        let uid = format!("{:032x}", 5);
        let bad = [
            "",
            "x",
            "7",
            &format!("{uid}."),
            &format!("{uid}.0"),
            &format!("{uid}.0.+3"),
            &format!("{uid}.0.03"),
            &format!("{uid}.0.3~0"),
            &format!("{uid}.0.3.4"),
            &format!("{uid}.70000.1"),
            &uid.to_uppercase().replace('0', "F"),
        ];
        for text in bad {
            assert!(text.parse::<RunId>().is_err(), "{text}");
        }
    }
}
