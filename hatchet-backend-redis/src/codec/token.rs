//! Fencing tokens as the engine sees them.
//!
//! What is stored is one random number for all tasks that one call leased. What is given out is a permutation of that
//! number and a hash of the task, so that each task has its own and none is near another.

use hatchet_core::backend::{RunId, StepIndex};

const ROUNDS: [u64; 3] = [0x9e37_79b9_7f4a_7c15, 0xbf58_476d_1ce4_e5b9, 0x94d0_49bb_1331_11eb];

fn mix(half: u64, key: u64) -> u64 {
    let product = u128::from(half ^ key) * u128::from(key | 1);
    (product >> 64) as u64 ^ (product as u64).rotate_left(29)
}

/// The number that all tasks of one call share.
pub(crate) type Stored = [u8; 12];

/// As good as never the same for two tasks: one that shared the token of another would be taken for that one.
fn hash(run: &RunId, step: StepIndex) -> u128 {
    let uid = run.uid();
    u128::from((uid ^ (uid >> 64)) as u64 ^ u64::from(step.0).wrapping_mul(ROUNDS[0]))
}

/// The token that is given out for a stored one.
pub(crate) fn seal(stored: Stored, run: &RunId, step: StepIndex) -> u128 {
    let mut wide = [0; 16];
    wide[..12].copy_from_slice(&stored);
    permute(u128::from_be_bytes(wide) ^ hash(run, step))
}

/// The stored token of one that was given out; one that fits no lease if it was given out for another task.
pub(crate) fn unseal(token: u128, run: &RunId, step: StepIndex) -> Stored {
    let mut stored = Stored::default();
    let wide = (restore(token) ^ hash(run, step)).to_be_bytes();
    if wide[12..] == [0; 4] {
        stored.copy_from_slice(&wide[..12]);
    }
    stored
}

fn permute(wide: u128) -> u128 {
    let (mut left, mut right) = ((wide >> 64) as u64, wide as u64);
    for key in ROUNDS {
        (left, right) = (right, left ^ mix(right, key));
    }
    (u128::from(left) << 64) | u128::from(right)
}

fn restore(token: u128) -> u128 {
    let (mut left, mut right) = ((token >> 64) as u64, token as u64);
    for key in ROUNDS.into_iter().rev() {
        (left, right) = (right ^ mix(left, key), left);
    }
    (u128::from(left) << 64) | u128::from(right)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use hatchet_core::backend::Slot;

    use super::*;

    #[test]
    fn no_two_tasks_of_one_claim_share_a_token() {
        const CHILDREN: u32 = 300_000;
        let parent = RunId::random().uid();
        let child = |index| RunId::child(parent, StepIndex(0), Slot::Index(index), 0);
        let tokens: HashSet<u128> = (0..CHILDREN).map(|index| seal([7; 12], &child(index), StepIndex(0))).collect();
        assert_eq!(tokens.len(), CHILDREN as usize);
    }

    #[test]
    fn a_token_is_read_back_as_it_is_stored() {
        let (run, step) = (RunId::random(), StepIndex(3));
        for stored in [[1; 12], [255; 12], *b"abcdefghijkl"] {
            let token = seal(stored, &run, step);
            assert_eq!(unseal(token, &run, step), stored);
            assert_ne!(unseal(token, &RunId::from_uid(run.uid() + 1), step), stored);
            assert_ne!(unseal(token, &run, StepIndex(4)), stored);
        }
    }
}
