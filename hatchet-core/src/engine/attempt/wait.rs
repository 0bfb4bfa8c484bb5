//! Writes down that an attempt waits, so that views of its run show it.

/// What was seen of an attempt's wait.
#[derive(Debug, Default)]
pub(crate) struct Noted {
    /// Up to which sequence number it had seen its journal when it waited in the last look.
    seen: Option<u64>,
    /// The same of what is written down.
    written: Option<u64>,
}

/// What a look at an attempt comes to.
pub(crate) enum Look {
    /// It does not wait, or that is written down.
    Nothing,
    /// It has begun to wait since the last look.
    Begun,
    /// It waits since the last look, and has seen its journal up to here.
    Waits(u64),
}

impl Noted {
    /// What was to be written down is not.
    pub(crate) fn forget(&mut self) {
        self.written = None;
    }

    pub(crate) fn look(&mut self, waits: Option<u64>) -> Look {
        let before = std::mem::replace(&mut self.seen, waits);
        match waits {
            None => Look::Nothing,
            Some(_) if self.written == waits => Look::Nothing,
            Some(sequence) if before == waits => {
                self.written = waits;
                Look::Waits(sequence)
            }
            Some(_) => Look::Begun,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looks(waits: &[Option<u64>]) -> String {
        let mut noted = Noted::default();
        let shown = waits.iter().map(|waits| match noted.look(*waits) {
            Look::Nothing => '.',
            Look::Begun => 'b',
            Look::Waits(_) => 'W',
        });
        shown.collect()
    }

    #[test]
    fn a_wait_is_written_once_when_it_was_met_twice() {
        assert_eq!(looks(&[None, Some(0), None, Some(0), Some(0), Some(0)]), ".b.bW.");
        assert_eq!(looks(&[Some(0), Some(1), Some(1), None, Some(1), Some(2), Some(2)]), "bbW..bW");
    }
}
