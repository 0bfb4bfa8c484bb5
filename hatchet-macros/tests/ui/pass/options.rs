//! Every option, with durations read in full.

use std::time::Duration;

use hatchet::{Workflow, WorkflowOptions, prelude::*};

#[workflow(
    name = "report:daily",
    queue = "slow",
    priority = "high",
    timeout = "1h30m",
    queue_timeout = "1day 1ms",
    crate = ::hatchet,
)]
struct Report;

#[workflow(crate = hatchet)]
impl Report {
    #[step(retries = 3, backoff = "1s..30s", timeout = "42m30s", after = [audit], on_retry = "keep")]
    async fn fetch(&self, _ctx: &StepContext) -> StepResult<()> {
        Ok(())
    }

    #[step(on_retry = "rerun", retries = 4_000_000_000, backoff = "5s")]
    async fn audit(&self, _ctx: &StepContext) -> StepResult<()> {
        Ok(())
    }

    #[step(after = [fetch, audit, fetch,],)]
    async fn send(&self, _ctx: &StepContext, _fetch: ()) -> StepResult<()> {
        Ok(())
    }

    #[on_failure(retries = 1, backoff = "1s .. 1m 1s", timeout = "1h 30m")]
    async fn clean(&self, _ctx: &StepContext) -> StepResult<()> {
        Ok(())
    }
}

#[workflow(priority = "low")]
struct Low;

#[workflow()]
impl Low {
    #[step()]
    async fn only(&self, _ctx: &StepContext) -> StepResult<()> {
        Ok(())
    }
}

fn main() {
    let seconds = Duration::from_secs;
    let options = Report::OPTIONS;
    assert_eq!((options.name, options.queue), ("report:daily", "slow"));
    assert_eq!(options.timeout, Some(seconds(5400)));
    assert_eq!(options.queue_timeout, Some(Duration::new(86_400, 1_000_000)));
    assert!(options.priority == hatchet::__private::Priority::High);
    assert!(Low::OPTIONS.priority == hatchet::__private::Priority::Low);

    let [fetch, audit, send] = Report::STEPS else { panic!() };
    assert_eq!((fetch.retries, fetch.backoff), (3, Some((seconds(1), seconds(30)))));
    assert_eq!((fetch.timeout, fetch.keep_failures, fetch.needs), (Some(seconds(2550)), true, &[1][..]));
    assert_eq!((audit.retries, audit.backoff), (4_000_000_000, Some((seconds(5), seconds(5)))));
    assert!(!audit.keep_failures);
    assert_eq!(send.needs, [0, 1]);

    let clean = Report::ON_FAILURE.unwrap();
    assert_eq!((clean.name, clean.retries), ("clean", 1));
    assert_eq!(clean.backoff, Some((seconds(1), seconds(61))));
    assert_eq!(clean.timeout, Some(seconds(5400)));
}
