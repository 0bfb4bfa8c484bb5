//! What happened in a simulation, as far as the test sees it, and what must not have.
//!
//! Steps write here what they meet and when; connections write what the store acknowledged. A check that fails is kept and told
//! in the end, since a panic in a step would only be a failed attempt.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Mutex,
    time::Duration,
};

use hatchet::{
    RunId, SessionId,
    backend::{Lease, Outcome, StepIndex, Then},
};
use tokio::time::Instant;

/// How late a timer, a backoff, a delay, a limit or the beginning of a ready step may be where nothing disturbs it: what is
/// promised, a second. Programs that hold slots add what they hold them for.
const PUNCTUAL: Duration = Duration::from_secs(1);
/// How long a trouble is felt behind its end: calls are repeated after up to 2 s, what was doubted is looked at 1 s after that, and
/// a process finds out by calls that are late themselves.
const AFTERMATH: Duration = Duration::from_secs(5);

/// The longest delay of what is decided.
const DECIDED: Duration = Duration::from_secs(10);
/// How long processes look for what a store may have lost that came back.
const LOOKS: Duration = Duration::from_secs(60);
/// How long it takes at most until what a step asked for is written down, where nothing is in the way.
const WRITTEN: Duration = Duration::from_secs(1);

/// A step of a run.
pub(super) type StepOfRun = (RunId, String);

#[derive(Debug)]
pub(super) struct Ledger(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    began: Instant,
    /// In this time nobody can be sure that what happens is not forgotten.
    unsure: Option<(Instant, Instant)>,
    /// The attempts that began in it.
    begun_unsurely: HashSet<(StepOfRun, u32)>,
    /// Beyond [`PUNCTUAL`].
    held_up: Duration,
    faults: Vec<String>,
    troubles: Vec<Trouble>,
    /// Until when processes look again and again for what was lost.
    looks_until: Option<Instant>,
    /// What was met, by run, step, attempt and place: whoever comes there again meets the same.
    notes: HashMap<(StepOfRun, u32, String), String>,
    /// The attempts that began, each with its first and its last begin.
    attempts: HashMap<(StepOfRun, u32), (Instant, Instant)>,
    dues: HashMap<(StepOfRun, u32), Due>,
    /// When each step began last.
    begun: HashMap<StepOfRun, Instant>,
    /// The attempts whose code has come to its end, in which session, and when: what it came to is kept there.
    returned: HashMap<(StepOfRun, u32), Vec<(SessionId, Instant)>>,
    /// The sessions of workers that shut down in time and undisturbed, and until when steps had to end there to be written.
    parted: HashMap<SessionId, Instant>,
    /// When a wait was begun, by run, step and place.
    waits: HashMap<(StepOfRun, String), Wait>,
    asked: HashMap<(StepOfRun, String), Instant>,
    acked: HashMap<(RunId, StepIndex), Lease>,
    ended: HashMap<RunId, Lease>,
    awaited: BTreeSet<(RunId, String)>,
    detached: BTreeMap<RunId, u32>,
    /// Those that a pass has spawned which came to its end: they are stored before that is.
    left: HashMap<(RunId, StepIndex), BTreeSet<RunId>>,
    /// When a session asked last how a run ended.
    asked_about: HashMap<(SessionId, RunId), Instant>,
    /// Those that are stored for sure.
    stored: BTreeSet<RunId>,
    hooks: BTreeSet<RunId>,
    /// The names of the steps of a run, by their numbers, as far as its state names them.
    names: HashMap<RunId, Vec<String>>,
    /// The attempts at which code was at work that is not the old one.
    by_new_code: HashSet<(StepOfRun, u32)>,
    /// Where an attempt went the old way of what newer code does in another way, before such code was at work at it or one before it.
    old_ways: HashSet<(StepOfRun, u32, String)>,
    /// Which step of the code did what stands at a place of the program.
    places: HashMap<(RunId, usize), String>,
    counts: BTreeMap<&'static str, u64>,
}

/// A time in which things may be late.
#[derive(Clone, Copy, Debug)]
struct Trouble {
    from: Instant,
    to: Option<Instant>,
    /// Nobody is there who could do what is to be done. Those who are there are not disturbed.
    is_lack: bool,
}

impl Trouble {
    fn overlaps(&self, from: Instant, to: Instant) -> bool {
        self.from <= to && self.to.is_none_or(|end| end >= from)
    }
}

/// Something that is to begin.
#[derive(Clone, Copy, Debug)]
struct Due {
    /// When that was decided.
    since: Instant,
    not_before: Instant,
    at: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Wait {
    since: Instant,
    is_over: bool,
    /// When the code asked for it last, and how long before that it had begun: what it computes on its way to the wait, it computes again when
    /// it is resumed.
    asked: Instant,
    on_the_way: Duration,
}

/// A trouble that lasts until this is dropped.
pub(super) struct Lasting<'a>(&'a Ledger, usize);

impl Drop for Lasting<'_> {
    fn drop(&mut self) {
        self.0.end_trouble(self.1);
    }
}

impl Ledger {
    pub(super) fn new(held_up: Duration, unsure: Option<(Instant, Instant)>) -> Self {
        Self(Mutex::new(Inner {
            began: Instant::now(),
            unsure,
            begun_unsurely: HashSet::new(),
            held_up,
            faults: Vec::new(),
            troubles: Vec::new(),
            looks_until: None,
            notes: HashMap::new(),
            attempts: HashMap::new(),
            dues: HashMap::new(),
            begun: HashMap::new(),
            returned: HashMap::new(),
            parted: HashMap::new(),
            waits: HashMap::new(),
            asked: HashMap::new(),
            acked: HashMap::new(),
            ended: HashMap::new(),
            awaited: BTreeSet::new(),
            detached: BTreeMap::new(),
            left: HashMap::new(),
            asked_about: HashMap::new(),
            stored: BTreeSet::new(),
            hooks: BTreeSet::new(),
            names: HashMap::new(),
            by_new_code: HashSet::new(),
            old_ways: HashSet::new(),
            places: HashMap::new(),
            counts: BTreeMap::new(),
        }))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(super) fn count(&self, what: &'static str) {
        *self.lock().counts.entry(what).or_default() += 1;
    }

    pub(super) fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.lock().counts.clone()
    }

    pub(super) fn fault(&self, fault: String) {
        self.lock().fault(fault);
    }

    pub(super) fn faults(&self) -> Vec<String> {
        self.lock().faults.clone()
    }

    // ---- troubles

    /// Things may be late from now on for this long.
    pub(super) fn trouble(&self, lasts: Duration) {
        let now = Instant::now();
        self.lock().troubles.push(Trouble { from: now, to: Some(now + lasts + AFTERMATH), is_lack: false });
    }

    /// There is nobody for something from now on.
    pub(super) fn begin_lack(&self) -> usize {
        self.begin_trouble(true)
    }

    fn begin_trouble(&self, is_lack: bool) -> usize {
        let mut inner = self.lock();
        inner.troubles.push(Trouble { from: Instant::now(), to: None, is_lack });
        inner.troubles.len() - 1
    }

    pub(super) fn end_trouble(&self, number: usize) {
        self.lock().troubles[number].to = Some(Instant::now() + AFTERMATH);
    }

    /// Things may be late as long as the answer is there.
    pub(super) fn lasting(&self) -> Lasting<'_> {
        Lasting(self, self.begin_trouble(false))
    }

    // ---- what steps meet

    /// A pass through the code of a step begins, in this session. `is_cut_off` is a process that may not know that its leases have ended.
    pub(super) fn begins(&self, step: &StepOfRun, attempt: u32, session: SessionId, is_cut_off: bool) {
        let now = Instant::now();
        let mut inner = self.lock();
        let index = inner.index(step);
        *inner.counts.entry("passes").or_default() += 1;
        let key = (step.clone(), attempt);
        if inner.is_unsure() {
            inner.begun_unsurely.insert(key);
            return;
        }
        let is_first = !inner.attempts.contains_key(&key);
        inner.attempts.entry(key.clone()).or_insert((now, now)).1 = now;
        inner.begun.insert(step.clone(), now);
        let returned = inner.returned.get(&key).cloned().unwrap_or_default();
        if returned.iter().any(|&(of, _)| of == session) {
            inner.fault(format!("{step:?} began attempt {attempt} again in the session that knows what it came to"));
        }
        if returned.iter().any(|(of, at)| inner.parted.get(of).is_some_and(|grace_ends| at < grace_ends)) {
            inner.fault(format!(
                "{step:?} began attempt {attempt} again after its worker left in peace with what it came to"
            ));
        }
        if !is_cut_off {
            if inner.attempts.contains_key(&(step.clone(), attempt + 1)) {
                inner.fault(format!("{step:?} began attempt {attempt} after the next one had begun"));
            }
            // The first task stands for the start of the run, whatever its step: its end is that of no body.
            if inner.acked.contains_key(&(step.0, index)) && index.0 > 0 || inner.ended.contains_key(&step.0) {
                inner.fault(format!("{step:?} began attempt {attempt} after its end was acknowledged"));
            }
        }
        let is_first = is_first && !inner.begun_unsurely.contains(&key);
        let Some(due) = inner.dues.get(&key).copied().filter(|_| is_first) else { return };
        if now < due.not_before {
            inner.fault(format!("{step:?} attempt {attempt} began {:?} early", due.not_before - now));
        }
        inner.check_late(due.since, due.at, now, || format!("{step:?} attempt {attempt} began"));
    }

    /// The code of a step has come to its end.
    pub(super) fn returns(&self, step: StepOfRun, attempt: u32, session: SessionId) {
        let mut inner = self.lock();
        if !inner.is_unsure() {
            inner.returned.entry((step, attempt)).or_default().push((session, Instant::now()));
        }
    }

    /// A worker has shut down in time that had begun to do so then, and whose steps had this long to end.
    pub(super) fn parts(&self, session: SessionId, began: Instant, grace: Duration) {
        let mut inner = self.lock();
        let now = Instant::now();
        let disturbs = |trouble: &Trouble| !trouble.is_lack && trouble.overlaps(began - AFTERMATH, now);
        if !inner.is_unsure() && !inner.troubles.iter().any(disturbs) {
            *inner.counts.entry("parts").or_default() += 1;
            inner.parted.insert(session, began + grace);
        }
    }

    /// An attempt is to begin, not before and not much later than this.
    pub(super) fn due(&self, step: StepOfRun, attempt: u32, not_before: Instant, within: Duration) {
        let now = Instant::now();
        let due = Due { since: now, not_before, at: now + within };
        let mut inner = self.lock();
        // What was to begin later may have been decided when nobody was sure.
        if inner.is_unsure() || inner.unsure.is_some_and(|(_, to)| now >= to && now < to + DECIDED) {
            return;
        }
        // Who passes again decides later and not earlier.
        let known = inner.dues.entry((step, attempt)).or_insert(due);
        known.at = known.at.max(due.at);
    }

    /// When something was asked for first, by this step at this place.
    pub(super) fn first_asked(&self, step: &StepOfRun, place: &str) -> Instant {
        let (now, mut inner) = (Instant::now(), self.lock());
        if inner.is_unsure() {
            return now;
        }
        *inner.asked.entry((step.clone(), place.to_owned())).or_insert(now)
    }

    /// When an attempt began first.
    pub(super) fn first_begin(&self, step: &StepOfRun, attempt: u32) -> Instant {
        self.lock().attempts.get(&(step.clone(), attempt)).map_or_else(Instant::now, |(first, _)| *first)
    }

    /// Checks that whoever was here before met the same.
    pub(super) fn note(&self, step: &StepOfRun, attempt: u32, place: &str, what: String) {
        let mut inner = self.lock();
        if inner.is_unsure() {
            return;
        }
        let before = inner.notes.entry((step.clone(), attempt, place.to_owned())).or_insert_with(|| what.clone());
        if *before != what {
            let fault = format!("{step:?} attempt {attempt} met {what} at {place} instead of {before}");
            inner.fault(fault);
        }
    }

    /// A wait is about to begin, or to go on.
    pub(super) fn waits(&self, step: &StepOfRun, place: &str) {
        let mut inner = self.lock();
        // Where the beginning of a wait may be forgotten, nobody can say when it is over.
        let (now, is_over) = (Instant::now(), inner.is_unsure());
        let on_the_way = inner.begun.get(step).map_or(Duration::ZERO, |begun| now - *begun);
        let wait = Wait { since: now, is_over, asked: now, on_the_way };
        let wait = inner.waits.entry((step.clone(), place.to_owned())).or_insert(wait);
        (wait.asked, wait.on_the_way) = (now, on_the_way);
    }

    /// A wait of this length is over.
    pub(super) fn waited(&self, step: &StepOfRun, place: &str, length: Duration) {
        let now = Instant::now();
        let mut inner = self.lock();
        let Some(wait) = inner.waits.get_mut(&(step.clone(), place.to_owned())) else { return };
        if std::mem::replace(&mut wait.is_over, true) {
            return;
        }
        let (since, at) = (wait.since, wait.since + length);
        let reached = if wait.asked > at { at + wait.on_the_way } else { at };
        // Moments are whole milliseconds to the store.
        if now + Duration::from_millis(1) < at {
            inner.fault(format!("{step:?} waited {:?} at {place} instead of {length:?}", now - since));
        }
        inner.check_late(since, reached, now, || format!("the wait of {step:?} at {place} was over"));
    }

    /// A step that has waited since `began` learns that its worker is shutting down, since `parting`. It may need a slot to go on.
    pub(super) fn learned_of_shutdown(&self, began: Instant, parting: Instant) {
        self.lock()
            .check_late(began, parting, Instant::now(), || "a step learned that its worker shuts down".to_owned());
    }

    /// A session watches runs. It gets an event for each end, so it must not ask again unless a message was lost.
    pub(super) fn asks_about(&self, session: SessionId, runs: &[RunId]) {
        let now = Instant::now();
        let mut inner = self.lock();
        for &run in runs {
            if let Some(before) = inner.asked_about.insert((session, run), now)
                && inner.looks_until.is_none_or(|until| until < now)
                && !inner.troubles.iter().any(|trouble| trouble.overlaps(before, now))
            {
                inner.fault(format!("{session} asked about {run} again after {:?}", now - before));
            }
        }
    }

    /// A run waits for a signal from outside. Answers whether that is new.
    pub(super) fn awaits(&self, run: RunId, signal: &str) -> bool {
        self.lock().awaited.insert((run, signal.to_owned()))
    }

    /// A step has spawned a detached run. If the step is stopped soon after, nobody has stored that.
    pub(super) fn detached(&self, run: RunId, node: u32) {
        self.lock().detached.insert(run, node);
    }

    /// A step has come to its end that has spawned these.
    pub(super) fn leaves(&self, step: &StepOfRun, detached: BTreeSet<RunId>) {
        let mut inner = self.lock();
        if inner.is_unsure() {
            return;
        }
        let index = inner.index(step);
        inner.left.entry((step.0, index)).or_default().extend(detached);
    }

    /// Whether a detached run is stored for sure.
    pub(super) fn is_stored(&self, run: RunId) -> bool {
        self.lock().stored.contains(&run)
    }

    pub(super) fn all_detached(&self) -> BTreeMap<RunId, u32> {
        self.lock().detached.clone()
    }

    /// A step does what stands at a place of the program. No other step of the run may, whatever code is at work.
    pub(super) fn takes_place(&self, run: RunId, at: usize, step: &str) {
        let mut inner = self.lock();
        let before = inner.places.entry((run, at)).or_insert_with(|| step.to_owned()).clone();
        if before != step {
            inner.fault(format!("step {step} of run {run} does again what {before} did"));
        }
    }

    /// Code that is not the old one is at work at an attempt.
    pub(super) fn begins_by_new_code(&self, step: &StepOfRun, attempt: u32) {
        self.lock().by_new_code.insert((step.clone(), attempt));
    }

    /// Old code has done at this place what newer code does in another way, and the store has that.
    pub(super) fn went_the_old_way(&self, step: &StepOfRun, attempt: u32, place: &str) {
        let mut inner = self.lock();
        // A retry keeps the answer that an earlier attempt was given.
        if !(1..=attempt).any(|attempt| inner.by_new_code.contains(&(step.clone(), attempt))) {
            inner.old_ways.insert((step.clone(), attempt, place.to_owned()));
        }
    }

    /// New code goes the new way at this place.
    pub(super) fn goes_the_new_way(&self, step: &StepOfRun, attempt: u32, place: &str) {
        let mut inner = self.lock();
        if inner.old_ways.contains(&(step.clone(), attempt, place.to_owned())) {
            inner.fault(format!(
                "{step:?} attempt {attempt} goes the new way at {place}, where it has gone the old one"
            ));
        }
    }

    /// Whether the store may have forgotten what it acknowledged, and not everybody knows that.
    pub(super) fn is_unsure(&self) -> bool {
        self.lock().is_unsure()
    }

    /// The store has come back.
    pub(super) fn comes_back(&self) {
        self.lock().looks_until = Some(Instant::now() + LOOKS);
    }

    /// From now on what happens is sure. Who knew what a step came to may have forgotten that.
    pub(super) fn is_sure_again(&self) {
        self.lock().returned.clear();
    }

    pub(super) fn hook_ran(&self, run: RunId) {
        self.lock().hooks.insert(run);
    }

    pub(super) fn has_hook_run(&self, run: RunId) -> bool {
        self.lock().hooks.contains(&run)
    }

    // ---- what the store acknowledged

    /// The store has taken a state, which names the steps of the run by their numbers: a number never means another step.
    pub(super) fn names(&self, run: RunId, state: &[u8]) {
        let text = std::str::from_utf8(state).unwrap_or_default();
        let named = text.split(',').filter_map(|step| step.rsplit_once('='));
        let mut inner = self.lock();
        if inner.is_unsure() {
            return;
        }
        let known = inner.names.entry(run).or_default();
        let mut changed = None;
        for (at, (name, _)) in named.enumerate() {
            let name = name.trim_start_matches('#');
            match known.get(at) {
                Some(before) if before == name => {}
                Some(before) => {
                    changed = changed.or(Some(format!("step {at} of run {run} was {before} and is {name}")))
                }
                None => known.push(name.to_owned()),
            }
        }
        changed.into_iter().for_each(|fault| inner.fault(fault));
    }

    /// The store applied a commit, whether or not the one who made it hears of that.
    pub(super) fn applied(&self, lease: Lease, then: &Then) {
        let mut inner = self.lock();
        if inner.is_unsure() {
            return;
        }
        if let Then::Done | Then::End(Outcome::Succeeded(_)) = then {
            let left = inner.left.remove(&(lease.run, lease.step)).unwrap_or_default();
            inner.stored.extend(left);
        }
        if let Then::End(_) = then {
            *inner.counts.entry("runs ended").or_default() += 1;
            let before = *inner.ended.entry(lease.run).or_insert(lease);
            if before != lease {
                inner.fault(format!("run {} ended twice", lease.run));
            }
        }
        if let Then::Stall { .. } = then {
            *inner.counts.entry("stalls").or_default() += 1;
            // What code came to that does not fit is kept by nobody.
            let returned = std::mem::take(&mut inner.returned);
            let is_stalled = |step: &StepOfRun| step.0 == lease.run && inner.index(step) == lease.step;
            inner.returned = returned.into_iter().filter(|((step, _), _)| !is_stalled(step)).collect();
        }
        if let Then::Done = then {
            let before = *inner.acked.entry((lease.run, lease.step)).or_insert(lease);
            // The first task stands for the start of the run, whatever its step.
            if before != lease && lease.step.0 > 0 {
                inner.fault(format!("step {} of run {} ended twice", lease.step.0, lease.run));
            }
        }
    }
}

impl Inner {
    fn is_unsure(&self) -> bool {
        let now = Instant::now();
        self.unsure.is_some_and(|(from, to)| from <= now && now < to)
    }

    /// The number of a step in its run. Whose number no state has named is the first task.
    fn index(&self, (run, name): &StepOfRun) -> StepIndex {
        let names = self.names.get(run);
        StepIndex(names.and_then(|names| names.iter().position(|known| known == name)).unwrap_or(0) as u16)
    }

    fn fault(&mut self, fault: String) {
        if self.faults.len() < 20 {
            self.faults.push(format!("at {:?}: {fault}", self.began.elapsed()));
        }
    }

    fn check_late(&mut self, since: Instant, at: Instant, now: Instant, what: impl FnOnce() -> String) {
        let late = now.saturating_duration_since(at);
        if late <= PUNCTUAL + self.held_up {
            return;
        }
        // What was in the way when it was to be written down, or when it was due. What happened in between is no excuse: whoever
        // wrote it, and whoever left.
        let disturbs = |trouble: &Trouble| trouble.overlaps(since, since + WRITTEN) || trouble.overlaps(at, now);
        if !self.troubles.iter().any(disturbs) {
            self.fault(format!("{} {late:?} late", what()));
        }
    }
}
