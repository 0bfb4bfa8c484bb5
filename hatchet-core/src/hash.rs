//! Fast hashing of keys that are random or counted (ids, fencing tokens, internal numbers), and of contents that are
//! compared with earlier ones.
//!
//! Not for keys that somebody could choose so that they collide: see `ids.rs` for those.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

/// A map by an identity or a number.
pub(crate) type IdMap<K, V> = HashMap<K, V, BuildHasherDefault<IdHasher>>;

/// Folds an identity to 64 bits.
#[derive(Debug, Default)]
pub(crate) struct IdHasher(u64);

impl IdHasher {
    fn mix(&mut self, word: u64) {
        self.0 = fold(self.0 ^ word, 0x9e37_79b9_7f4a_7c15);
    }
}

/// A hash that is the same on every machine and in every version.
pub(crate) fn hash64(seed: u64, bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let rest = rest.iter().rev().fold(bytes.len() as u64, |word, &byte| word << 8 | u64::from(byte));
    let words = words.iter().map(|word| u64::from_le_bytes(*word));
    words.chain([rest]).fold(seed, combine64)
}

/// The hash of two hashes; the order counts.
pub(crate) fn combine64(a: u64, b: u64) -> u64 {
    fold(a ^ 0xa076_1d64_78bd_642f, b ^ 0xe703_7ed1_a0b4_28db)
}

/// The two halves of the product, since a plain one leaves the low bits, which choose the bucket, as poor as they were.
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product >> 64) as u64 ^ product as u64
}

impl Hasher for IdHasher {
    fn write_u128(&mut self, id: u128) {
        // The low 16 bits of a run are the same in a whole tree; the high half of a root's is its time.
        self.mix((id >> 64) as u64 ^ (id as u64).rotate_right(16));
    }

    fn write_u32(&mut self, number: u32) {
        self.mix(u64::from(number));
    }

    fn write_u16(&mut self, number: u16) {
        self.mix(u64::from(number));
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.mix(u64::from(byte)));
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
