//! The part of the look that is about leases which their holders do not run. Only the holders know.

use std::time::Duration;

use hatchet_core::backend::{Finding, FindingKind, FsckOptions, FsckPart, Lease, Repair, SessionId};
use tokio::time::{sleep, timeout};

use crate::{MemoryBackend, store::Store};

/// How long a check waits for answers.
const PATIENCE: Duration = Duration::from_secs(1);

/// A question to a session, by its number.
type Asked = (SessionId, u64);

impl MemoryBackend {
    /// Finds leases that their living holders disown twice, some time apart.
    pub(crate) async fn find_unattended(&self, options: &FsckOptions) -> Vec<Finding> {
        let tree = match options.part {
            FsckPart::Everything | FsckPart::Runs | FsckPart::Sessions => None,
            FsckPart::Tree(root) => Some(root.uid()),
            _ => return Vec::new(),
        };
        let mut disowned = self.ask_holders(tree).await;
        if disowned.is_empty() {
            return Vec::new();
        }
        sleep(FsckOptions::INQUIRY_DELAY).await;
        let again = self.ask_holders(tree).await;
        disowned.retain(|one| again.contains(one));
        self.with(|store| {
            let findings = disowned.into_iter();
            findings.filter_map(|(session, lease)| store.unattended(session, &lease, options.repair)).collect()
        })
    }

    /// Asks those who have held a task of this tree for a while; what they disown.
    async fn ask_holders(&self, tree: Option<u128>) -> Vec<(SessionId, Lease)> {
        let asked = self.with(|store| store.inquire(tree));
        if asked.is_empty() {
            return Vec::new();
        }
        // Whoever says nothing in this time is not waited for.
        let _ = timeout(PATIENCE, self.all_answer(&asked)).await;
        self.with(|store| {
            let said = |&(session, number): &Asked| {
                let disowned = store.sessions.disowned(session, number).unwrap_or_default();
                disowned.iter().filter(|lease| store.belongs_to(tree, lease)).map(move |lease| (session, *lease))
            };
            asked.iter().flat_map(said).collect()
        })
    }

    async fn all_answer(&self, asked: &[Asked]) {
        loop {
            // Made before looking, since it is woken by whatever happens from here on.
            let answered = self.answered.notified();
            let is_answered =
                |store: &mut Store, &(session, number): &Asked| store.sessions.disowned(session, number).is_some();
            if self.with(|store| asked.iter().all(|asked| is_answered(store, asked))) {
                return;
            }
            answered.await;
        }
    }
}

impl Store {
    /// Asks the sessions that are alive and have held a task of this tree for a while.
    fn inquire(&mut self, tree: Option<u128>) -> Vec<Asked> {
        let is_old = |(uid, step)| {
            let task = self.runs.get(&uid).filter(|run| tree.is_none_or(|root| run.root == root))?.steps.get(step)?;
            // Of an attempt that was claimed before, it is longer ago than the lease.
            task.claimed.filter(|claimed| self.now.since(*claimed) >= FsckOptions::INQUIRY_DELAY)
        };
        let old = self.alive().filter(|(_, session)| session.held.iter().any(|held| is_old(held).is_some()));
        let mut holders: Vec<SessionId> = old.map(|(id, _)| *id).collect();
        // The same in each run of a test.
        holders.sort_unstable_by_key(|id| self.sessions.number_of(*id));
        holders.into_iter().map(|id| (id, self.sessions.inquire(id))).collect()
    }

    fn belongs_to(&self, tree: Option<u128>, lease: &Lease) -> bool {
        tree.is_none_or(|root| self.runs.get(&lease.run.uid()).is_some_and(|run| run.root == root))
    }

    /// Tells of a lease that its holder disowns, if it is still held. `repairs`: and takes it away.
    fn unattended(&mut self, session: SessionId, lease: &Lease, repairs: bool) -> Option<Finding> {
        let (uid, step) = (lease.run.uid(), lease.step);
        let hold = self.leased_step(session, lease).ok()?.holder()?;
        let label = self.sessions.open.get(&session)?.label.clone();
        let what = format!("step {} is leased to session {session} ({label}), which lives and does not run it", step.0);
        let mut finding = Finding::new(FindingKind::Unattended, format!("run {}", lease.run), what);
        finding.repair = Repair::Possible;
        if repairs {
            self.sessions.release(session, hold.at, uid, step);
            self.hand_back(session, hold.at, uid, step, true);
            finding.repair = Repair::Done("it was queued again".to_owned());
        }
        Some(finding)
    }
}
