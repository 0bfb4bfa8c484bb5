//! The arguments of a call, one behind the other in one buffer.

use bytes::BytesMut;

/// Arguments that are written one after the other: a call has up to some thousand of them, too many for a buffer each.
#[derive(Debug, Default)]
pub(crate) struct Arguments {
    bytes: BytesMut,
    ends: Vec<usize>,
}

impl Arguments {
    /// Adds what `write` appends as one argument.
    pub(crate) fn add(&mut self, write: impl FnOnce(&mut BytesMut)) {
        write(&mut self.bytes);
        self.ends.push(self.bytes.len());
    }

    /// How many bytes they have.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| &self.bytes[start..*end])
    }
}
