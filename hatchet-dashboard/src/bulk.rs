//! Actions on many runs at once.

use std::time::Duration;

use axum::http::StatusCode;
use futures_util::StreamExt as _;
use hatchet_core::{Error, Query, RunId, RunStatus, RunView};

use crate::{
    api::{BulkAction, BulkFailure, BulkRequest, BulkResult, ErrorCode},
    app::App,
    refusal::{Answer, Refusal},
};

/// The maximum number of runs of one call.
pub(crate) const MOST_RUNS: usize = 10_000;
/// The runs on which it acts at once.
const AT_ONCE: usize = 16;
/// The maximum number of failures in an answer.
const MOST_FAILURES: usize = 100;
/// The time for which runs are looked for.
const PATIENCE: Duration = Duration::from_secs(60);

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
    /// A conflict if the number of runs is not the expected one; that the store cannot be reached.
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
        let (runs, more) = self.some(&query, MOST_RUNS, PATIENCE, |run| action.applies(run).then_some(run.id)).await?;
        let matched = runs.len() as u64;
        let mut result = BulkResult { matched, done: 0, failed: Vec::new(), more };
        if *dry_run {
            return Ok(result);
        }
        if expect.is_some_and(|expect| expect != matched) {
            let expected = expect.unwrap_or_default();
            let message = format!("{matched} runs fit now, and not {expected}: nothing was done; look again");
            return Err(Refusal::new(StatusCode::CONFLICT, ErrorCode::Conflict, message));
        }
        let mut failures = 0;
        let acts = runs.into_iter().map(|run| async move { (run, self.act(action, run).await) });
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

    async fn act(&self, action: &BulkAction, run: RunId) -> Answer<()> {
        match action {
            BulkAction::Cancel { reason } => match self.ask(as_is(self.hatchet.cancel(run, reason))).await? {
                // It ended meanwhile, by itself or with its parent.
                Ok(()) | Err(Error::Ended(_)) => Ok(()),
                Err(error) => Err(error.into()),
            },
            BulkAction::Resume => self.ask(self.hatchet.resume(run)).await.map(drop),
            BulkAction::Replay => self.ask(self.hatchet.replay(run)).await.map(drop),
            BulkAction::Delete => self.ask(self.hatchet.delete(run)).await,
            BulkAction::Restart { step } => self.ask(self.hatchet.restart_from(run, step)).await.map(drop),
        }
    }
}

async fn as_is<T>(call: impl Future<Output = Result<T, Error>>) -> Result<Result<T, Error>, Refusal> {
    Ok(call.await)
}
