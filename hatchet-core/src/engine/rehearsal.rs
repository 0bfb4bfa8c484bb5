//! A rehearsal: the code of a step runs against the history of a run and has no other effects.
//!
//! Stored answers are returned as in a replay, with two differences. The last stored answer is withheld, so that no code
//! runs that has not run before. A durable call without a stored answer is not made, and its branch of the code waits.

use std::sync::{
    Mutex,
    atomic::{AtomicBool, Ordering},
};

use super::lock;

/// What is learnt of one step. One worker rehearses one step.
#[derive(Debug, Default)]
pub(crate) struct Rehearsal {
    is_over: AtomicBool,
    learnt: Mutex<Learnt>,
}

/// What a rehearsal came to, but for a mismatch.
#[derive(Clone, Debug, Default)]
#[cfg_attr(not(feature = "testing"), expect(dead_code, reason = "only the test kit rehearses"))]
pub(crate) struct Learnt {
    /// What is stored and the code has not asked for.
    pub(crate) unchecked: Vec<String>,
    /// The error that the code returned before it had asked for everything.
    pub(crate) error: Option<String>,
}

#[cfg_attr(not(feature = "testing"), expect(dead_code, reason = "only the test kit rehearses"))]
impl Rehearsal {
    /// The code does not go on from where it is.
    pub(crate) fn end(&self) {
        self.is_over.store(true, Ordering::Release);
    }

    pub(crate) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    /// Notes how the code ended.
    pub(crate) fn learn(&self, unchecked: Vec<String>, error: Option<String>) {
        let error = error.filter(|_| !self.is_over());
        *lock(&self.learnt) = Learnt { unchecked, error };
    }

    pub(crate) fn learnt(&self) -> Learnt {
        lock(&self.learnt).clone()
    }
}
