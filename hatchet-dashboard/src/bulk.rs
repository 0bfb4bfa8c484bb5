//! Actions on many runs at once.

use axum::http::StatusCode;
use futures_util::StreamExt as _;
use hatchet_core::{Error, Query, RunId, RunStatus, RunView};

use crate::{
    acting::{Act, With},
    api::{BulkAction, BulkFailure, BulkRequest, BulkResult, ErrorCode},
    app::App,
    listing::End,
    refusal::{Answer, Refusal},
};

/// The maximum number of runs of one call.
pub(crate) const MOST_RUNS: usize = 10_000;
/// The runs on which it acts at once.
const AT_ONCE: usize = 16;
/// The maximum number of failures in an answer.
const MOST_FAILURES: usize = 100;

impl BulkAction {
    /// The word for it in logs and on pages.
    pub(crate) fn verb(&self) -> &'static str {
        match self {
            Self::Cancel { .. } => "cancel",
            Self::Resume => "resume",
            Self::Replay => "replay",
            Self::Restart { .. } => "restart",
            Self::Delete => "delete",
        }
    }

    /// Whether it can be done with such a run.
    fn applies(&self, run: &RunView) -> bool {
        match self {
            Self::Cancel { .. } => !run.status.is_terminal(),
            Self::Resume => run.status == RunStatus::Stalled,
            Self::Replay => run.status.is_terminal(),
            Self::Delete => run.status.is_terminal() && run.id.origin().is_none(),
            Self::Restart { .. } => {
                run.status.is_terminal() && run.status != RunStatus::Succeeded && run.restarted_as.is_empty()
            }
        }
    }
}

impl App {
    /// Counts the runs that fit, and does it with each unless the request is only to count.
    ///
    /// # Errors
    /// A conflict if the number of runs is not the expected one; unavailable if a number is expected and they could not be
    /// counted in time; that the store cannot be reached.
    pub(crate) async fn bulk(&self, request: &BulkRequest) -> Answer<BulkResult> {
        let Ok(permit) = self.scans.clone().try_acquire_owned() else {
            return Err(Refusal::unavailable("others act on many runs at the moment; try again when they are done"));
        };
        // It goes on when its caller is gone, so that what was done is said in the log.
        let (app, request) = (self.clone(), request.clone());
        let act = async move {
            let _permit = permit;
            app.bulk_here(&request).await
        };
        let done = tokio::spawn(act).await;
        done.map_err(|_| Refusal::internal("the action was broken off"))?
    }

    /// The same in this task: it ends if its caller is dropped.
    async fn bulk_here(&self, request: &BulkRequest) -> Answer<BulkResult> {
        let BulkRequest { action, filter, dry_run, expect } = request;
        let query: Query = filter.query();
        let fits = |run: &RunView| action.applies(run).then_some(run.id);
        let (runs, end) = self.some(&query, MOST_RUNS, self.options.scan, fits).await?;
        let matched = runs.len() as u64;
        let (more, cut_off) = (end != End::All, end == End::Time);
        let mut result = BulkResult { matched, done: 0, failed: Vec::new(), more, cut_off };
        if *dry_run {
            return Ok(result);
        }
        if expect.is_some() && cut_off {
            return Err(Refusal::unavailable(format!(
                "the runs that fit could not be counted in time (at least {matched} do): nothing was done; \
                 ask for fewer, by a narrower filter such as a shorter time"
            )));
        }
        if let Some(expected) = expect.filter(|expected| *expected != matched) {
            let message = format!("{matched} runs fit now, and not {expected}: nothing was done; look again");
            return Err(Refusal::new(StatusCode::CONFLICT, ErrorCode::Conflict, message));
        }
        let mut failures = 0;
        let acts = runs.into_iter().map(|run| async move { (run, self.act_on(action, run).await) });
        let mut acts = futures_util::stream::iter(acts).buffered(AT_ONCE);
        while let Some((run, done)) = acts.next().await {
            match done {
                Ok(()) => result.done += 1,
                // Every further call would wait as long.
                Err(refusal) if refusal.status == StatusCode::SERVICE_UNAVAILABLE => {
                    result.failed.push(BulkFailure { id: run, error: refusal.error.message });
                    result.more = true;
                    break;
                }
                Err(refusal) => {
                    failures += 1;
                    if failures <= MOST_FAILURES {
                        result.failed.push(BulkFailure { id: run, error: refusal.error.message });
                    }
                }
            }
        }
        let filter = serde_json::to_string(filter).unwrap_or_default();
        let (done, verb) = (result.done, action.verb());
        tracing::info!(target: "hatchet::audit", action = verb, filter, matched, done, "bulk {verb}");
        Ok(result)
    }

    async fn act_on(&self, action: &BulkAction, run: RunId) -> Answer<()> {
        let (hatchet, bulk) = (self.hatchet.clone(), action.clone());
        let call = async move {
            match &bulk {
                BulkAction::Cancel { reason } => match hatchet.cancel(run, reason).await {
                    // It ended meanwhile, by itself or with its parent.
                    Ok(()) | Err(Error::Ended(_)) => Ok(()),
                    Err(error) => Err(error),
                },
                BulkAction::Resume => hatchet.resume(run).await.map(drop),
                BulkAction::Replay => hatchet.replay(run).await.map(drop),
                BulkAction::Delete => hatchet.delete(run).await,
                BulkAction::Restart { step } => hatchet.restart_from(run, step).await.map(drop),
            }
        };
        let verb = action.verb();
        self.act(Act { verb, with: With::Run(run) }, call, move |(), when| {
            // Those in time are counted in the one line for all.
            if when.is_late() {
                tracing::info!(target: "hatchet::audit", action = verb, run = %run, late = true, "bulk {verb} {run}");
            }
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hatchet::Hatchet;

    use super::*;
    use crate::{api::Filter, options::Options};

    /// A store with more runs than are read at once, and no time to read the rest.
    async fn without_time() -> App {
        let hatchet = Hatchet::connect("memory://").await.unwrap();
        for number in 0..150 {
            hatchet.start_named("nobody", number).unchecked().await.unwrap();
        }
        App::new(hatchet, Options { scan: Duration::ZERO, ..Options::default() })
    }

    fn cancel(dry_run: bool, expect: Option<u64>) -> BulkRequest {
        let action = BulkAction::Cancel { reason: "closed".to_owned() };
        BulkRequest { action, filter: Filter::default(), dry_run, expect }
    }

    #[tokio::test]
    async fn a_count_that_was_cut_off_says_so_and_is_compared_with_nothing() {
        let app = without_time().await;
        let counted = app.bulk(&cancel(true, None)).await.unwrap();
        assert_eq!((counted.matched, counted.more, counted.cut_off), (100, true, true));
        let refusal = app.bulk(&cancel(false, Some(counted.matched))).await.unwrap_err();
        assert_eq!(refusal.status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(refusal.error.message.contains("nothing was done"), "{}", refusal.error.message);
        let open = Query { statuses: vec![RunStatus::Queued], limit: 500, ..Query::default() };
        assert_eq!(app.hatchet.list(&open).await.unwrap().runs.len(), 150);
        // Who expects no number takes what is found, and hears that there is more.
        let done = app.bulk(&cancel(false, None)).await.unwrap();
        assert_eq!((done.done, done.more, done.cut_off), (100, true, true));
    }
}
