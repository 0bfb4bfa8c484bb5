//! Whether and when a failed step is retried: a pure function of its options, the attempt and the run.

use std::time::Duration;

use crate::{
    definition::StepDef,
    failure::StepError,
    ids::{RunId, StepIndex, hash128},
};

/// What becomes of a step whose attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The next attempt, after this wait.
    Again(Duration),
    /// It failed for good.
    GiveUp,
}

/// Decides about `step` after its attempt number `attempt`, counted from 1, ended with `error`.
pub(crate) fn after_failure(step: &StepDef, run: RunId, at: StepIndex, attempt: u32, error: &StepError) -> Verdict {
    if !error.is_retryable() || attempt > step.retries {
        return Verdict::GiveUp;
    }
    let backoff = step.backoff.map_or(Duration::ZERO, |(first, longest)| backoff(first, longest, run, at, attempt));
    Verdict::Again(backoff.max(error.wait().unwrap_or_default()))
}

/// Doubles from `first` up to `longest`, and takes off up to a quarter so that failures of one moment do not come back as one.
///
/// The jitter depends on the run, the step and the attempt alone: who computes it again gets the same, and the commit
/// of the retry stores the moment that it leads to.
fn backoff(first: Duration, longest: Duration, run: RunId, at: StepIndex, attempt: u32) -> Duration {
    let doubled = first.checked_mul(1u32.checked_shl(attempt - 1).unwrap_or(u32::MAX)).unwrap_or(longest).min(longest);
    if first == longest {
        return longest;
    }
    let hash = hash128(run.uid(), &(u64::from(at.0) << 32 | u64::from(attempt)).to_le_bytes());
    let part = (hash >> 64) as u64 as f64 / u64::MAX as f64;
    doubled.mul_f64(1.0 - JITTER * part)
}

const JITTER: f64 = 0.25;

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: StepDef = StepDef {
        name: "s",
        needs: &[],
        retries: 3,
        backoff: Some((Duration::from_secs(1), Duration::from_secs(30))),
        timeout: None,
        keep_failures: false,
    };

    fn after(attempt: u32, error: &StepError) -> Verdict {
        after_failure(&STEP, RunId::from_uid(1), StepIndex(0), attempt, error)
    }

    fn wait(step: &StepDef, run: u128, attempt: u32) -> Duration {
        match after_failure(step, RunId::from_uid(run), StepIndex(0), attempt, &StepError::new("x")) {
            Verdict::Again(wait) => wait,
            Verdict::GiveUp => panic!("gave up"),
        }
    }

    #[test]
    fn a_step_is_run_again_as_often_as_it_has_retries() {
        assert!(matches!(after(3, &StepError::new("x")), Verdict::Again(_)));
        assert_eq!(after(4, &StepError::new("x")), Verdict::GiveUp);
        assert_eq!(after(1, &StepError::fatal("x")), Verdict::GiveUp);
    }

    #[test]
    fn the_wait_doubles_up_to_the_longest_with_a_quarter_of_jitter() {
        let step = StepDef { retries: 1_000, ..STEP };
        for (attempt, full) in [(1, 1), (2, 2), (3, 4), (4, 8), (5, 16), (6, 30), (7, 30), (40, 30), (999, 30)] {
            for run in 0..50 {
                let wait = wait(&step, run, attempt);
                let full = Duration::from_secs(full);
                assert!(wait <= full && wait >= full.mul_f64(0.75), "attempt {attempt}: {wait:?}");
            }
        }
    }

    #[test]
    fn the_jitter_differs_between_runs_and_is_not_drawn_again() {
        assert_ne!(wait(&STEP, 1, 1), wait(&STEP, 2, 1));
        assert_eq!(wait(&STEP, 1, 1), wait(&STEP, 1, 1));
    }

    #[test]
    fn a_fixed_wait_has_no_jitter_and_an_error_may_ask_for_more() {
        let fixed = StepDef { backoff: Some((Duration::from_secs(5), Duration::from_secs(5))), ..STEP };
        assert_eq!(wait(&fixed, 1, 3), Duration::from_secs(5));
        let error = StepError::new("x").retry_after(Duration::from_secs(60));
        assert_eq!(after(1, &error), Verdict::Again(Duration::from_secs(60)));
    }
}
