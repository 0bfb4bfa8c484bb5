//! Threads: a fan-out of 100 000 children on a runtime of N threads. Everything else is measured on one.

use super::fanout;
use crate::{Result, place::Site, runtime, sample::Sample};

const CHILDREN: usize = 100_000;

pub(crate) async fn measure(site: Site, threads: usize) -> Result<Sample> {
    // A runtime cannot be entered from within another, but from a thread beside it.
    let inner = std::thread::spawn(move || runtime(threads)?.block_on(fanout::measure(site, CHILDREN)));
    inner.join().map_err(|_| "the measurement panicked")?
}
