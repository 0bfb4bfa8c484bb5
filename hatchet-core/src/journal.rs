//! The journal of one step in the memory of its worker: children, recorded values, timers, signals.
//!
//! Pure bookkeeping: no clock, no backend, nothing async. Resolutions arrive in any order ([`Journal::push`]). They take
//! effect in the order of their sequence numbers, one at a time, and only while the step's code waits
//! ([`Journal::advance`], [`Journal::apply_next`]). A replay loads all resolutions at once and applies them by the same
//! rule. So the code sees them in the same order as the first time.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    task::Waker,
};

use serde::{Deserialize, Serialize};

use crate::{
    backend::{
        ChildEntry, Content, Entry, EntryKey, JournalItem, Known, Name, Outcome, Payload, Resolution, Resolved,
        Timestamp, Wake,
    },
    hash::IdMap,
    ids::{RunId, Slot},
};

/// How the names of entries begin that the engine writes for itself.
const ENGINES: [&str; 2] = ["attempt:", "engine:"];

/// The journal of a step in memory.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    items: Vec<Item>,
    by_index: Vec<Option<Place>>,
    by_key: HashMap<u128, Place>,
    by_name: HashMap<Name, Place>,
    /// Children in the order in which they ended, as far as that took effect, with the sequence numbers of their ends. One that was
    /// run again since has no end of that number any more.
    ended: Vec<(u64, Place)>,
    /// Resolutions up to here have taken effect.
    sequence: u64,
    /// Those that have not, from the next one on: they come in any order, and nearly without gaps.
    pending: VecDeque<Option<(EntryKey, Resolution)>>,
    /// How many calls that make items have not been answered.
    unanswered: usize,
    /// Who waits, by a number that is never given twice, so that items may keep the numbers of waits that ended.
    waiters: IdMap<u32, Waiter>,
    next_waiter: u32,
    waiting: usize,
    /// Failures of children up to here are of earlier attempts.
    mark: u64,
    /// The places of the keyed children that this attempt has asked for, a bit each.
    asked: Vec<u64>,
    /// With which input it asked first, where that is not the stored one.
    asked_with: HashMap<Place, u64>,
    /// How many items were there when it was loaded.
    loaded: usize,
    /// Which of them the code has asked for, a bit each.
    used: Vec<u64>,
    /// Which of them it need not ask for, a bit each: code that did not fit has added them.
    void: Vec<u64>,
    /// The patches among them whose new path the step takes.
    patches: Vec<(Name, Place)>,
    /// What of them code has added that did not ask for some of these patches.
    patchless: Vec<Patchless>,
    /// How many notes about items that may not fit this attempt has made.
    notes: usize,
    /// Up to which of them all were asked for, and whether the next one is known to be of the code.
    met: (usize, bool),
    /// Children that are on their way to the store.
    unwritten: BTreeSet<Place>,
    /// What is known to be stored.
    stored: Stored,
}

/// How many entries of a journal are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Stored {
    /// Slots that have a child.
    children: u64,
    /// Entries with a name, and children with a key.
    named: u64,
}

impl Stored {
    /// What one entry adds.
    fn one(key: &EntryKey) -> Self {
        Self {
            children: u64::from(matches!(key, EntryKey::Child(_))),
            named: u64::from(!matches!(key, EntryKey::Child(Slot::Index(_)))),
        }
    }
}

/// What code has added that had asked for all that was stored, but for some patches: it is older than they are, or newer than their
/// removal. Only code that asks for the patches knows that this is not of it.
#[derive(Debug)]
struct Patchless {
    /// The entry that notes it.
    note: Name,
    added: Vec<String>,
    places: Vec<Place>,
    patches: Vec<Place>,
}

/// A note about what code has added.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Note {
    /// The code had not asked for all that was stored, or does not fit.
    Void(Vec<String>),
    /// See [`Patchless`].
    Patchless { added: Vec<String>, without: Vec<Name> },
}

/// How far a journal goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    items: usize,
    sequence: u64,
    /// How many resolutions, some of which may be missing, come behind those that have taken effect.
    pending: u64,
}

/// How much is stored of what a step did and met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// Children and entries, but those that the engine writes for itself.
    pub(crate) items: u64,
    /// Resolutions.
    pub(crate) sequence: u64,
}

impl Progress {
    pub(crate) fn is_beyond(self, before: Self) -> bool {
        self.items > before.items || self.sequence > before.sequence
    }
}

/// So many items are named in a message.
const SHOWN: usize = 5;

/// How the names of entries begin that say what code has added which does not fit.
const VOID: &str = "engine:void:";

/// How the names of entries begin that say which path of a patch the step takes.
pub(crate) const PATCH: &str = "patch:";

/// An output of at most so many bytes is kept until the step ends.
const SMALL_OUTPUT: usize = 4096;

/// Where an item is; stays valid for the life of the journal.
pub(crate) type Place = u32;

/// A child or an entry.
#[derive(Debug)]
struct Item {
    content: Option<Content>,
    resolved: Option<Resolved>,
    waiters: Waiters,
}

/// The numbers of those who wait for an item: seldom more than one.
#[derive(Debug, Default)]
enum Waiters {
    #[default]
    None,
    One(u32),
    // Boxed, since it is rare and there are many items.
    #[expect(clippy::box_collection, reason = "a boxed slice would be copied for each one that comes")]
    Many(Box<Vec<u32>>),
}

impl Waiters {
    fn as_slice(&self) -> &[u32] {
        match self {
            Self::None => &[],
            Self::One(id) => std::slice::from_ref(id),
            Self::Many(ids) => ids,
        }
    }

    fn push(&mut self, id: u32) {
        match self {
            Self::None => *self = Self::One(id),
            Self::One(first) => *self = Self::Many(Box::new(vec![*first, id])),
            Self::Many(ids) => ids.push(id),
        }
    }
}

/// Somebody who waits for items.
#[derive(Debug)]
struct Waiter {
    mode: Mode,
    /// How many of its items have not been resolved.
    remaining: usize,
    satisfied: bool,
    waker: Waker,
}

/// What satisfies a waiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// One of its items is resolved.
    Any,
    /// All are.
    All,
    /// All are, or a child among them has ended without success.
    AllOrFailure,
}

/// What [`Journal::advance`] came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Advance {
    /// There is nothing more to take effect now.
    Idle,
    /// The next resolution satisfies a waiter: [`Journal::apply_next`] lets it take effect.
    WouldWake,
}

/// A child as the journal knows it.
#[derive(Debug)]
pub(crate) struct ChildRef<'a> {
    pub(crate) place: Place,
    pub(crate) entry: &'a ChildEntry,
    /// Whether it failed in an earlier attempt of the step, so that this one may run it again.
    pub(crate) failed_before: bool,
    /// Whether it was stored before the code ran this time, which has not asked for it so far.
    pub(crate) is_of_before: bool,
}

impl Journal {
    /// Takes in what is stored. `mark` is the sequence number at which this attempt of the step began: what was resolved by
    /// then was resolved for all of it.
    pub(crate) fn load(&mut self, items: Vec<JournalItem>, mark: u64) {
        self.mark = mark;
        // What came as a message while this was read is part of it.
        self.pending.drain(..self.pending.len().min(mark.saturating_sub(self.sequence) as usize));
        self.sequence = self.sequence.max(mark);
        for item in items {
            let place = self.place_of(&item.key);
            self.put(&item.key, place, item.content);
            if let Some(resolved) = item.resolved {
                if resolved.sequence <= mark {
                    self.settle(place, resolved);
                } else {
                    self.push([(item.key, resolved)]);
                }
            }
        }
        // Children that ended before this attempt are met in the order in which they ended.
        self.ended.sort_unstable();
        self.loaded = self.items.len();
        self.used = vec![0; self.loaded.div_ceil(64)];
        let is_taken = |name: &Name| name.starts_with(PATCH) && self.value(name) == Some(b"true");
        let taken = self.by_name.iter().filter(|(name, _)| is_taken(name));
        self.patches = taken.map(|(name, &place)| (name.clone(), place)).collect();
        self.read_notes();
    }

    /// Finds what was noted as added by code that may not fit.
    fn read_notes(&mut self) {
        let notes = self.values_of(VOID);
        let notes: Vec<(Name, Note)> =
            notes.filter_map(|(name, value)| Some((name.into(), serde_json::from_slice(value).ok()?))).collect();
        for (note, what) in notes {
            match what {
                Note::Void(added) => self.disregard(&self.places_of(&added)),
                Note::Patchless { added, without } => {
                    let patches = without.iter().filter_map(|patch| self.by_name.get(patch).copied()).collect();
                    let places = self.places_of(&added);
                    self.patchless.push(Patchless { note, added, places, patches });
                }
            }
        }
    }

    /// The places of items, as people know them.
    fn places_of(&self, shown: &[String]) -> Vec<Place> {
        let shown: HashSet<&str> = shown.iter().map(|shown| &**shown).collect();
        let named = self.by_name.iter().filter(|(name, _)| shown.contains(&***name)).map(|(_, &place)| place);
        let is_shown = |item: &Item| matches!(&item.content, Some(Content::Child(child)) if shown.contains(&*shown_child(child.id)));
        let children = (0..).zip(&self.items).filter(|(_, item)| is_shown(item)).map(|(place, _)| place);
        named.chain(children).collect()
    }

    /// The code need not ask for these.
    fn disregard(&mut self, places: &[Place]) {
        self.void.resize(self.loaded.div_ceil(64), 0);
        places.iter().for_each(|&place| set(&mut self.void, place));
    }

    /// The code has asked for a patch. What was added without it and the other patches that the code has asked for is not of this
    /// code, and of none that comes: the notes that say so, to be written.
    pub(crate) fn settle_notes(&mut self) -> Vec<(Name, Payload)> {
        let used = &self.used;
        let settled: Vec<Patchless> =
            self.patchless.extract_if(.., |note| note.patches.iter().all(|&patch| is_set(used, patch))).collect();
        settled.iter().for_each(|note| self.disregard(&note.places));
        let notes = settled.into_iter();
        notes.filter_map(|Patchless { note, added, .. }| Some((note, encode_note(&Note::Void(added))?))).collect()
    }

    /// Notes that the code has asked for an item.
    pub(crate) fn use_item(&mut self, place: Place) {
        set(&mut self.used, place);
    }

    /// Whether the code, if it is the one that made this item, has still to ask for it.
    fn is_owed(&self, place: usize) -> bool {
        place < self.loaded && !is_set(&self.used, place as Place) && !is_set(&self.void, place as Place)
    }

    /// The same for an entry of this name, if there is one.
    pub(crate) fn use_named(&mut self, name: &str) {
        if let Some(&place) = self.by_name.get(name) {
            self.use_item(place);
        }
    }

    /// The same for all entries whose names begin with `prefix`.
    pub(crate) fn use_all_named(&mut self, prefix: &str) {
        if self.loaded > 0 {
            let places: Vec<Place> =
                self.by_name.iter().filter(|(name, _)| name.starts_with(prefix)).map(|(_, &place)| place).collect();
            places.into_iter().for_each(|place| self.use_item(place));
        }
    }

    /// What was loaded and the code has not asked for, as people know it; the first few. What code wrote that was found
    /// not to fit does not count.
    pub(crate) fn left_out(&self) -> Vec<String> {
        let owed = (0..self.loaded).filter(|&place| self.is_owed(place));
        owed.filter_map(|place| self.shown(place)).take(SHOWN).collect()
    }

    /// Whether something was loaded that the code has not asked for so far.
    pub(crate) fn has_more(&mut self) -> bool {
        let (mut at, mut is_known) = self.met;
        while at < self.loaded && !(self.is_owed(at) && (is_known || self.shown(at).is_some())) {
            (at, is_known) = (at + 1, false);
        }
        self.met = (at, at < self.loaded);
        self.met.1
    }

    /// Whether the code has asked for all that was loaded, and has met all that was resolved.
    pub(crate) fn is_met(&mut self) -> bool {
        !self.has_more() && self.pending.is_empty()
    }

    /// Whether something was loaded that the code should have asked for before it adds anything. A patch may be removed from the
    /// code again, but until then code that does not ask for it is older.
    pub(crate) fn is_early(&mut self) -> bool {
        self.has_more() || self.patches.iter().any(|(_, place)| !is_set(&self.used, *place))
    }

    /// Whether an entry of this name, which is to be written, is one of the code that the journal does not have.
    pub(crate) fn is_new(&self, name: &Name) -> bool {
        is_of_code(name) && !self.by_name.contains_key(name)
    }

    /// What was added since it was loaded: to be noted where the code is found not to fit.
    pub(crate) fn added(&mut self) -> Option<(Name, Payload)> {
        let added: Vec<String> = (self.loaded..self.items.len()).filter_map(|place| self.shown(place)).collect();
        self.note((!added.is_empty()).then_some(Note::Void(added))?)
    }

    /// The entry that notes what is to be added by code that is [early](Self::is_early), so that code that fits is not blamed for not
    /// asking for it.
    pub(crate) fn note_early(&mut self, added: Vec<String>) -> Option<(Name, Payload)> {
        if added.is_empty() {
            return None;
        }
        if self.has_more() {
            return self.note(Note::Void(added));
        }
        let unasked = self.patches.iter().filter(|(_, place)| !is_set(&self.used, *place));
        let without = unasked.map(|(name, _)| name.clone()).collect();
        self.note(Note::Patchless { added, without })
    }

    fn note(&mut self, note: Note) -> Option<(Name, Payload)> {
        self.notes += 1;
        // Later attempts load more than this one has, since they load this note.
        Some((format!("{VOID}{}.{}", self.loaded, self.notes).into(), encode_note(&note)?))
    }

    /// A child or an entry of the code, as people know it.
    fn shown(&self, place: usize) -> Option<String> {
        match self.items[place].content.as_ref()? {
            Content::Child(child) => Some(shown_child(child.id)),
            Content::Entry(..) => {
                let (name, _) = self.by_name.iter().find(|(_, at)| **at as usize == place)?;
                is_of_code(name).then(|| name.to_string())
            }
        }
    }

    /// Takes in resolutions. Ones that are known are ignored. Answers whether one is of another history than this one,
    /// as after the store lost the last of what it had acknowledged: something is resolved again, or something else was
    /// to be next.
    pub(crate) fn push(&mut self, items: impl IntoIterator<Item = (EntryKey, Resolved)>) -> bool {
        let mut is_another_history = false;
        for (key, resolved) in items {
            let Some(at) = resolved.sequence.checked_sub(self.sequence + 1) else { continue };
            let at = at as usize;
            if self.pending.len() <= at {
                self.pending.resize_with(at + 1, || None);
            }
            let met = self.find(&key).and_then(|place| self.items[place as usize].resolved.as_ref());
            let is_met = met.is_some_and(|met| met.sequence > self.mark);
            let expected = self.pending[at].as_ref().map(|(key, _)| key);
            is_another_history |= is_met || expected.is_some_and(|expected| *expected != key);
            self.pending[at] = Some((key, resolved.resolution));
        }
        is_another_history
    }

    /// How far this journal goes now.
    pub(crate) fn extent(&self) -> Extent {
        let items = self.unwritten.first().map_or(self.items.len(), |first| *first as usize);
        Extent { items, sequence: self.sequence, pending: self.pending.len() as u64 }
    }

    /// How far the step has come.
    pub(crate) fn progress(&self) -> Progress {
        let own = self.by_name.keys().filter(|name| is_engines(name)).count();
        let there = self.items.iter().filter(|item| item.content.is_some()).count();
        let there = there.saturating_sub(own + self.unwritten.len());
        Progress { items: there as u64, sequence: self.sequence + self.pending.len() as u64 }
    }

    /// Whether what is stored is another history than this one was when it had this extent, as after the store lost the last of
    /// what it had acknowledged. `sequence` is the stored one before `stored` was read. What is only newer there contradicts
    /// nothing.
    pub(crate) fn contradicts(&self, extent: Extent, stored: &[JournalItem], sequence: u64) -> bool {
        if sequence < extent.sequence + extent.pending {
            return true;
        }
        let had = |place: Place| (place as usize) < extent.items && self.items[place as usize].content.is_some();
        let mut missing = (0..self.items.len()).filter(|&place| had(place as Place)).count();
        for JournalItem { key, resolved, .. } in stored {
            let stored = resolved.as_ref().map(|resolved| resolved.sequence);
            let ahead = stored.and_then(|stored| stored.checked_sub(self.sequence + 1));
            if let Some(Some((known, _))) = ahead.and_then(|ahead| self.pending.get(ahead as usize))
                && known != key
            {
                return true;
            }
            let Some(place) = self.find(key).filter(|&place| had(place)) else { continue };
            missing = missing.saturating_sub(1);
            let met = self.items[place as usize].resolved.as_ref().map(|resolved| resolved.sequence);
            if met.is_some_and(|met| met <= extent.sequence && Some(met) != stored) {
                return true;
            }
            // What was met twice has the number of the second time, and then something was not met at all.
            if met.is_none() && stored.is_some_and(|stored| stored <= extent.sequence) {
                return true;
            }
        }
        missing > 0
    }

    /// Wakes one who waits, to look again.
    pub(crate) fn wake_waiter(&self, id: u32) {
        if let Some(waiter) = self.waiters.get(&id) {
            waiter.waker.wake_by_ref();
        }
    }

    /// Wakes all who wait, to see that they are stopped.
    pub(crate) fn wake_all(&self) {
        self.waiters.values().for_each(|waiter| waiter.waker.wake_by_ref());
    }

    /// The number of resolutions that have taken effect.
    pub(crate) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Says that a call is made that makes items, or that such a call was answered and the items taken in, or given up.
    pub(crate) fn expect(&mut self, begins: bool) {
        self.unanswered = if begins { self.unanswered + 1 } else { self.unanswered.saturating_sub(1) };
    }

    /// Lets resolutions take effect in order, up to one that satisfies a waiter; none while nobody waits. What the code meets when
    /// it begins to wait must not depend on how much has come by then.
    ///
    /// Nor must it depend on when a call is answered: the resolution of an item that is not known yet waits for the answer, and
    /// what comes behind it does too.
    pub(crate) fn advance(&mut self) -> Advance {
        while self.is_waiting() {
            let Some(Some((key, resolution))) = self.pending.front() else { return Advance::Idle };
            let place = self.find(key);
            let item = place.map(|place| &self.items[place as usize]);
            let is_known = item.is_some_and(|item| item.content.is_some() && item.resolved.is_none())
                && place.is_some_and(|place| !self.unwritten.contains(&place));
            if !is_known && self.unanswered > 0 {
                return Advance::Idle;
            }
            if item.is_some_and(|item| item.waiters.as_slice().iter().any(|&id| self.would_satisfy(id, resolution))) {
                return Advance::WouldWake;
            }
            self.apply_next();
        }
        Advance::Idle
    }

    /// Lets the next resolution take effect and wakes whom it satisfies.
    pub(crate) fn apply_next(&mut self) {
        if let Some((key, resolution)) = self.pending.pop_front_if(|next| next.is_some()).flatten() {
            self.sequence += 1;
            let place = self.place_of(&key);
            self.settle(place, Resolved { sequence: self.sequence, resolution });
        }
    }

    fn settle(&mut self, place: Place, resolved: Resolved) {
        if matches!(resolved.resolution, Resolution::Child(_)) {
            self.ended.push((resolved.sequence, place));
        }
        let waiters = std::mem::take(&mut self.items[place as usize].waiters);
        for &id in waiters.as_slice() {
            let satisfied = self.would_satisfy(id, &resolved.resolution);
            let Some(waiter) = self.waiters.get_mut(&id) else { continue };
            waiter.remaining = waiter.remaining.saturating_sub(1);
            if satisfied && !waiter.satisfied {
                waiter.satisfied = true;
                self.waiting -= 1;
                waiter.waker.wake_by_ref();
            }
        }
        self.items[place as usize].resolved = Some(resolved);
    }

    fn would_satisfy(&self, id: u32, resolution: &Resolution) -> bool {
        let Some(waiter) = self.waiters.get(&id) else { return false };
        match waiter.mode {
            _ if waiter.satisfied => false,
            Mode::Any => true,
            Mode::All => waiter.remaining == 1,
            Mode::AllOrFailure => waiter.remaining == 1 || is_failure(resolution),
        }
    }

    /// The child in a slot, which the code asks for.
    pub(crate) fn child(&mut self, slot: Slot) -> Option<ChildRef<'_>> {
        let place = self.find(&EntryKey::Child(slot))?;
        let is_of_before = (place as usize) < self.loaded && !is_set(&self.used, place);
        self.use_item(place);
        let item = &self.items[place as usize];
        let Some(Content::Child(entry)) = &item.content else { return None };
        let failed_before = item
            .resolved
            .as_ref()
            .is_some_and(|resolved| resolved.sequence <= self.mark && is_failure(&resolved.resolution));
        Some(ChildRef { place, entry, failed_before, is_of_before })
    }

    /// Notes that this attempt asks for a child with an input of this hash. Whether it is the first time, or the same as then.
    pub(crate) fn ask_for(&mut self, place: Place, input: u64) -> bool {
        let stored = self.child_at(place).map_or(input, |child| child.fingerprint);
        let (word, bit) = (place as usize / 64, 1 << (place % 64));
        if self.asked.len() <= word {
            self.asked.resize(word + 1, 0);
        }
        if self.asked[word] & bit != 0 {
            return self.asked_with.get(&place).copied().unwrap_or(stored) == input;
        }
        self.asked[word] |= bit;
        if input != stored {
            self.asked_with.insert(place, input);
        }
        true
    }

    /// Makes room for so many more items. Once for many, since each time may move all that are there.
    pub(crate) fn reserve(&mut self, items: usize) {
        self.items.reserve(items);
        self.by_index.reserve(items);
    }

    /// Takes in a child that was created; a new generation takes the place of the one before.
    pub(crate) fn insert_child(&mut self, slot: Slot, entry: ChildEntry) -> Place {
        let key = EntryKey::Child(slot);
        let place = self.place_of(&key);
        let item = &mut self.items[place as usize];
        // A resolution of this attempt is the new generation's: it can be here before the answer to the call that made the child.
        if let Some(Content::Child(before)) = &item.content
            && before.id != entry.id
            && item.resolved.as_ref().is_some_and(|resolved| resolved.sequence <= self.mark)
        {
            item.resolved = None;
        }
        self.put(&key, place, Content::Child(entry));
        place
    }

    /// Takes in a child that is going to be created. Until [`insert_child`](Self::insert_child) it is not taken for stored.
    pub(crate) fn insert_unwritten(&mut self, slot: Slot, entry: ChildEntry) -> Place {
        let place = self.insert_child(slot, entry);
        if self.unwritten.insert(place) {
            let one = Stored::one(&EntryKey::Child(slot));
            self.stored.children -= one.children;
            self.stored.named -= one.named;
        }
        place
    }

    /// Takes in what is stored of an entry.
    fn put(&mut self, key: &EntryKey, place: Place, content: Content) {
        let was_stored =
            self.items[place as usize].content.replace(content).is_some() && !self.unwritten.remove(&place);
        if !was_stored {
            let one = Stored::one(key);
            self.stored.children += one.children;
            self.stored.named += one.named;
        }
    }

    /// The entry of a name.
    pub(crate) fn entry(&self, name: &str) -> Option<(Place, &Entry, Timestamp)> {
        let place = *self.by_name.get(name)?;
        match &self.items[place as usize].content {
            Some(Content::Entry(entry, at)) => Some((place, entry, *at)),
            _ => None,
        }
    }

    /// The value of a name.
    pub(crate) fn value(&self, name: &str) -> Option<&[u8]> {
        match self.entry(name)? {
            (_, Entry::Value(value), _) => Some(value),
            _ => None,
        }
    }

    /// The values whose names begin with `prefix`.
    pub(crate) fn values_of<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        let named = self.by_name.iter().filter(move |(name, _)| name.starts_with(prefix));
        named.filter_map(|(name, &place)| match &self.items[place as usize].content {
            Some(Content::Entry(Entry::Value(value), _)) => Some((&**name, &value[..])),
            _ => None,
        })
    }

    /// Takes in an entry that was written.
    pub(crate) fn insert_entry(
        &mut self,
        name: Name,
        entry: Entry,
        at: Timestamp,
        resolved: Option<Resolved>,
    ) -> Place {
        let key = EntryKey::Named(name);
        let place = self.place_of(&key);
        self.put(&key, place, Content::Entry(entry, at));
        self.push(resolved.map(|resolved| (key, resolved)));
        place
    }

    /// The place of an entry that is not resolved; made if it is not known, for who waits for what is being written.
    pub(crate) fn open_place(&mut self, name: &Name) -> Option<Place> {
        let place = match self.by_name.get(name) {
            Some(place) => *place,
            None => self.place_of(&EntryKey::Named(name.clone())),
        };
        self.items[place as usize].resolved.is_none().then_some(place)
    }

    /// The resolution of an entry and its place in the order, if it has taken effect.
    pub(crate) fn resolution_of(&self, name: &str) -> Option<&Resolved> {
        self.items[*self.by_name.get(name)? as usize].resolved.as_ref()
    }

    /// Whether a resolution is of an earlier attempt of the step.
    pub(crate) fn is_of_before(&self, sequence: u64) -> bool {
        sequence <= self.mark
    }

    /// The resolution of an item, if it has taken effect.
    pub(crate) fn resolution(&self, place: Place) -> Option<&Resolution> {
        self.items[place as usize].resolved.as_ref().map(|resolved| &resolved.resolution)
    }

    /// How a child ended, and the sequence number of that resolution, if it has taken effect.
    pub(crate) fn outcome(&self, place: Place) -> Option<(u64, &Outcome)> {
        match self.items[place as usize].resolved.as_ref()? {
            Resolved { sequence, resolution: Resolution::Child(outcome) } => Some((*sequence, outcome)),
            _ => None,
        }
    }

    /// Forgets a large output that was handed out: the store has it, if it is asked for again. Small ones are kept, since they take
    /// no more room than what is known of their child.
    pub(crate) fn give_back(&mut self, place: Place) {
        if let Some(output) = self.output(place)
            && output.len() > SMALL_OUTPUT
        {
            *output = Payload::new();
        }
    }

    /// Whether the output of a child was given back. No output is an empty text.
    pub(crate) fn was_given_back(&mut self, place: Place) -> bool {
        self.output(place).is_some_and(|output| output.is_empty())
    }

    /// Takes in again what was given back.
    pub(crate) fn take_again(&mut self, place: Place, outcome: Outcome) {
        if let (Some(output), Outcome::Succeeded(again)) = (self.output(place), outcome)
            && output.is_empty()
        {
            *output = again;
        }
    }

    fn output(&mut self, place: Place) -> Option<&mut Payload> {
        match &mut self.items[place as usize].resolved.as_mut()?.resolution {
            Resolution::Child(Outcome::Succeeded(output)) => Some(output),
            _ => None,
        }
    }

    /// The child at a place.
    pub(crate) fn child_at(&self, place: Place) -> Option<&ChildEntry> {
        match &self.items[place as usize].content {
            Some(Content::Child(entry)) => Some(entry),
            _ => None,
        }
    }

    /// The next child that ended at or behind a position in their order, and the position behind it.
    pub(crate) fn next_ended(&self, from: usize) -> Option<(usize, Place)> {
        let ended = self.ended.get(from..)?.iter().enumerate();
        let still = |place: Place, sequence| {
            self.items[place as usize].resolved.as_ref().is_some_and(|r| r.sequence == sequence)
        };
        ended
            .filter(|(_, (sequence, place))| still(*place, *sequence))
            .map(|(at, (_, place))| (from + at + 1, *place))
            .next()
    }

    /// Begins to wait. Gives nothing if the waiter would be satisfied at once. A place that is named twice counts once.
    pub(crate) fn wait(&mut self, places: impl Iterator<Item = Place>, mode: Mode, waker: &Waker) -> Option<u32> {
        let id = self.next_waiter;
        self.next_waiter += 1;
        let mut remaining = 0;
        for place in places {
            let item = &mut self.items[place as usize];
            match &item.resolved {
                Some(resolved)
                    if mode == Mode::Any || (mode == Mode::AllOrFailure && is_failure(&resolved.resolution)) =>
                {
                    return None;
                }
                None if item.waiters.as_slice().last() != Some(&id) => {
                    item.waiters.push(id);
                    remaining += 1;
                }
                _ => {}
            }
        }
        if remaining == 0 {
            return None;
        }
        self.waiters.insert(id, Waiter { mode, remaining, satisfied: false, waker: waker.clone() });
        self.waiting += 1;
        Some(id)
    }

    /// Whether a waiter is satisfied; if not, `waker` is who will be woken.
    pub(crate) fn poll_waiter(&mut self, id: u32, waker: &Waker) -> bool {
        let Some(waiter) = self.waiters.get_mut(&id) else { return true };
        if !waiter.satisfied && !waiter.waker.will_wake(waker) {
            waiter.waker.clone_from(waker);
        }
        waiter.satisfied
    }

    /// Has a wait that was satisfied go on for those of its items that have not been resolved, or lets it rest.
    pub(crate) fn arm(&mut self, id: u32, armed: bool) {
        let Some(waiter) = self.waiters.get_mut(&id) else { return };
        match (armed, waiter.satisfied) {
            (true, true) => self.waiting += 1,
            (false, false) => self.waiting -= 1,
            _ => {}
        }
        waiter.satisfied = !armed;
    }

    /// Ends a wait.
    pub(crate) fn stop_waiting(&mut self, id: u32) {
        if self.waiters.remove(&id).is_some_and(|waiter| !waiter.satisfied) {
            self.waiting -= 1;
        }
    }

    /// Whether the step waits for something that has not happened.
    pub(crate) fn is_waiting(&self) -> bool {
        self.waiting > 0
    }

    /// How many of those who wait would wake `waker` itself.
    pub(crate) fn waiters_on(&self, waker: &Waker) -> usize {
        self.waiters.values().filter(|waiter| waiter.waker.will_wake(waker)).count()
    }

    /// The earliest moment at which a waiter can be satisfied, in terms of the sequence.
    pub(crate) fn wake(&self) -> Wake {
        let waiters = || self.waiters.values().filter(|waiter| !waiter.satisfied);
        let needed = waiters().map(|waiter| if waiter.mode == Mode::Any { 1 } else { waiter.remaining as u64 }).min();
        Wake {
            on_failure: waiters().any(|waiter| waiter.mode == Mode::AllOrFailure),
            seen: self.sequence,
            ..Wake::at(self.sequence + needed.unwrap_or(1))
        }
    }

    /// What is known to be stored of it.
    pub(crate) fn known(&self) -> Known {
        let Stored { children, named } = self.stored;
        Known { sequence: self.sequence, children, named, state: false }
    }

    fn find(&self, key: &EntryKey) -> Option<Place> {
        match key {
            EntryKey::Named(name) => self.by_name.get(name).copied(),
            EntryKey::Child(Slot::Index(index)) => self.by_index.get(*index as usize).copied().flatten(),
            EntryKey::Child(Slot::Key(hash)) => self.by_key.get(hash).copied(),
        }
    }

    /// The place of a key; a new one if it has none, since a resolution can be here before the answer to the call that
    /// made the item.
    fn place_of(&mut self, key: &EntryKey) -> Place {
        if let Some(place) = self.find(key) {
            return place;
        }
        let place = self.items.len() as Place;
        self.items.push(Item { content: None, resolved: None, waiters: Waiters::None });
        match key {
            EntryKey::Named(name) => {
                self.by_name.insert(name.clone(), place);
            }
            EntryKey::Child(Slot::Index(index)) => {
                let index = *index as usize;
                if self.by_index.len() <= index {
                    self.by_index.resize(index + 1, None);
                }
                self.by_index[index] = Some(place);
            }
            EntryKey::Child(Slot::Key(hash)) => {
                self.by_key.insert(*hash, place);
            }
        }
        place
    }
}

fn is_failure(resolution: &Resolution) -> bool {
    matches!(resolution, Resolution::Child(outcome) if !outcome.is_success())
}

fn encode_note(note: &Note) -> Option<Payload> {
    serde_json::to_vec(note).ok().map(Payload::from)
}

fn is_engines(name: &Name) -> bool {
    ENGINES.iter().any(|prefix| name.starts_with(prefix))
}

/// Whether code that replays has to ask for an entry of this name. A patch may be removed again.
fn is_of_code(name: &Name) -> bool {
    !is_engines(name) && !name.starts_with(PATCH)
}

/// A child as people know it.
pub(crate) fn shown_child(id: RunId) -> String {
    format!("child {id}")
}

fn set(bits: &mut [u64], place: Place) {
    if let Some(word) = bits.get_mut(place as usize / 64) {
        *word |= 1 << (place % 64);
    }
}

fn is_set(bits: &[u64], place: Place) -> bool {
    bits.get(place as usize / 64).is_some_and(|word| word & (1 << (place % 64)) != 0)
}

/// The journal's entry for a child.
pub(crate) fn child_entry(id: RunId, workflow: Name, fingerprint: u64, key: Option<Name>) -> ChildEntry {
    ChildEntry { id, workflow, fingerprint, key }
}

#[cfg(test)]
mod tests;
