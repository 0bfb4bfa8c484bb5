//! Hashing of keys that are random already: identities of runs and sessions.

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasherDefault, Hasher},
};

/// A map by the uid of a run or by a session.
pub(crate) type UidMap<K, V> = HashMap<K, V, BuildHasherDefault<UidHasher>>;

/// A set of uids or sessions.
pub(crate) type UidSet<K> = HashSet<K, BuildHasherDefault<UidHasher>>;

/// Folds an identity to 64 bits. Not for keys that somebody could choose so that they collide.
#[derive(Debug, Default)]
pub(crate) struct UidHasher(u64);

impl UidHasher {
    fn mix(&mut self, word: u64) {
        // The folded product, since a plain one leaves the low bits, which choose the bucket, as poor as they were.
        let product = u128::from(self.0 ^ word) * u128::from(0x9e37_79b9_7f4a_7c15_u64);
        self.0 = (product >> 64) as u64 ^ product as u64;
    }
}

impl Hasher for UidHasher {
    fn write_u128(&mut self, uid: u128) {
        // The low 16 bits are the same in a whole tree; the high half of a root's is its time.
        self.mix((uid >> 64) as u64 ^ (uid as u64).rotate_right(16));
    }

    fn write_u16(&mut self, step: u16) {
        self.mix(u64::from(step));
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.mix(u64::from(byte)));
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
