//! Reading lists of runs: pages that are full, and counts.

use std::time::{Duration, Instant};

use hatchet_core::{Query, RunView};

use crate::{app::App, refusal::Answer};

/// Why a search for runs has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// All are found.
    All,
    /// As many as were wanted are found, and there are more.
    Enough,
    /// It took too long. There may be more.
    Time,
}

/// The time for which a page is filled.
const PATIENCE: Duration = Duration::from_secs(2);
/// The runs that are read at once. Each may come with megabytes of payloads, of which little is kept.
const AT_ONCE: usize = 100;

impl App {
    /// A page of runs, of each only what is taken. The store may give less than a page at once; it is asked again until
    /// the page is full, there are no more, or the time is over.
    ///
    /// # Errors
    /// That the cursor is bad, or that the store cannot be reached.
    pub(crate) async fn page<T>(
        &self,
        query: &Query,
        take: impl Fn(&RunView) -> T,
    ) -> Answer<(Vec<T>, Option<String>)> {
        let begun = Instant::now();
        let mut query = query.clone();
        let wanted = query.limit;
        let mut runs = Vec::new();
        loop {
            query.limit = AT_ONCE.min(wanted - runs.len());
            let page = self.ask(self.hatchet.list(&query)).await?;
            runs.extend(page.runs.iter().map(&take));
            let is_full = runs.len() >= wanted || begun.elapsed() > PATIENCE;
            if is_full || page.next.is_none() {
                return Ok((runs, page.next));
            }
            query.cursor = page.next;
        }
    }

    /// The runs of a query for which something holds, at most `most`, and why there are no more of them.
    ///
    /// # Errors
    /// That the store cannot be reached.
    pub(crate) async fn some<T>(
        &self,
        query: &Query,
        most: usize,
        patience: Duration,
        take: impl Fn(&RunView) -> Option<T>,
    ) -> Answer<(Vec<T>, End)> {
        let begun = Instant::now();
        let mut query = Query { cursor: None, limit: AT_ONCE, ..query.clone() };
        let mut taken = Vec::new();
        loop {
            let page = self.ask(self.hatchet.list(&query)).await?;
            for found in page.runs.iter().filter_map(&take) {
                if taken.len() == most {
                    return Ok((taken, End::Enough));
                }
                taken.push(found);
            }
            if page.next.is_none() {
                return Ok((taken, End::All));
            }
            if begun.elapsed() > patience {
                return Ok((taken, End::Time));
            }
            query.cursor = page.next;
        }
    }
}
