//! What is counted, and under which names. `docs/operating.md` has the list.

use std::{collections::BTreeMap, time::Duration};

use hatchet::{Hatchet, prelude::*};
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};

/// Fails in its first attempts, as often as the input says.
#[workflow(name = "metrics:flaky")]
#[derive(Default)]
struct Flaky;

#[workflow]
impl Flaky {
    #[step(retries = 2, backoff = "1s..1s")]
    async fn attempt(&self, ctx: &StepContext, input: u32) -> StepResult<u32> {
        if ctx.attempt() <= input { Err(StepError::new("not yet")) } else { Ok(ctx.attempt()) }
    }
}

/// A graph of two steps, of which the first has as many children as the input says.
#[workflow(name = "metrics:order", queue = "orders")]
#[derive(Default)]
struct Order;

#[workflow]
impl Order {
    #[step]
    async fn pick(&self, ctx: &StepContext, input: u32) -> StepResult<u32> {
        let children = ctx.spawn_all::<Flaky>(vec![0; input as usize]).await?;
        Ok(children.gather().await?.into_iter().sum())
    }

    #[step]
    async fn ship(&self, _ctx: &StepContext, pick: &u32) -> StepResult<u32> {
        tokio::time::sleep(Duration::from_secs(3)).await;
        Ok(*pick)
    }
}

/// Waits for a signal that nobody sends.
#[workflow(name = "metrics:approval")]
#[derive(Default)]
struct Approval;

#[workflow]
impl Approval {
    #[step]
    async fn wait(&self, ctx: &StepContext) -> StepResult<bool> {
        Ok(ctx.wait_for("approval").await?)
    }
}

type Labels = BTreeMap<String, String>;

/// The metrics so far: of a histogram the values.
struct Metrics(BTreeMap<String, Vec<(Labels, DebugValue)>>);

impl Metrics {
    fn read(snapshotter: &Snapshotter) -> Self {
        let mut metrics = BTreeMap::<_, Vec<_>>::new();
        for (key, _, _, value) in snapshotter.snapshot().into_vec() {
            let key = key.key();
            let labels = key.labels().map(|label| (label.key().to_owned(), label.value().to_owned())).collect();
            metrics.entry(key.name().to_owned()).or_default().push((labels, value));
        }
        Self(metrics)
    }

    fn values<'a>(&'a self, name: &str, labels: &'a [(&str, &str)]) -> impl Iterator<Item = &'a DebugValue> {
        let fits = |own: &Labels| labels.iter().all(|(key, value)| own.get(*key).is_some_and(|own| own == value));
        let all = self.0.get(name).into_iter().flatten();
        all.filter(move |(own, _)| fits(own)).map(|(_, value)| value)
    }

    /// The sum of the counters or gauges of this name that have these labels.
    fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let of = |value: &DebugValue| match value {
            DebugValue::Counter(count) => *count as f64,
            DebugValue::Gauge(value) => value.into_inner(),
            DebugValue::Histogram(values) => values.len() as f64,
        };
        self.values(name, labels).map(of).sum()
    }
}

/// A client and a worker in this thread, and what reads the metrics. Reading counters takes them.
async fn observed<T>(scenario: impl AsyncFnOnce(Hatchet) -> T) -> (Metrics, T) {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let hatchet = Hatchet::connect("memory://").await.unwrap();
    let worker = hatchet.worker().only_registered().register(Flaky).register(Order).register(Approval).label("w");
    let worker = worker.start().await.unwrap();
    let came = scenario(hatchet).await;
    worker.shutdown().await.unwrap();
    (Metrics::read(&snapshotter), came)
}

#[tokio::test(start_paused = true)]
async fn runs_attempts_and_tasks_are_counted_by_what_they_came_to() {
    let (metrics, ()) = observed(async |hatchet| {
        assert_eq!(hatchet.run::<Flaky>(2).await.unwrap(), 3);
        hatchet.run::<Flaky>(9).await.unwrap_err();
        assert_eq!(hatchet.run::<Order>(40).await.unwrap(), 40);
        let approval = hatchet.start::<Approval>(()).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        approval.cancel("no").await.unwrap();
    })
    .await;
    let flaky = ("workflow", "metrics:flaky");
    let order = ("workflow", "metrics:order");
    let started = |workflow| metrics.sum("hatchet_runs_started_total", &[workflow]);
    assert_eq!((started(flaky), started(order), started(("workflow", "metrics:approval"))), (42.0, 1.0, 1.0));
    let ended = |workflow, status| metrics.sum("hatchet_runs_ended_total", &[workflow, ("status", status)]);
    assert_eq!((ended(flaky, "succeeded"), ended(flaky, "failed"), ended(order, "succeeded")), (41.0, 1.0, 1.0));
    assert_eq!(metrics.sum("hatchet_runs_cancelled_total", &[]), 1.0);
    let attempts = |workflow, outcome| metrics.sum("hatchet_attempts_total", &[workflow, ("outcome", outcome)]);
    assert_eq!((attempts(flaky, "retried"), attempts(flaky, "failed")), (4.0, 1.0));
    assert_eq!((attempts(flaky, "succeeded"), attempts(order, "succeeded")), (41.0, 2.0));
    let durations: Vec<f64> = (metrics.values("hatchet_attempt_duration_seconds", &[order, ("step", "ship")]))
        .flat_map(|value| match value {
            DebugValue::Histogram(values) => values.iter().map(|value| value.into_inner()).collect(),
            _ => Vec::new(),
        })
        .collect();
    assert!(matches!(durations[..], [seconds] if (3.0..3.5).contains(&seconds)), "{durations:?}");
    assert_eq!(metrics.sum("hatchet_tasks_claimed_total", &[("queue", "orders")]), 2.0);
    assert_eq!(metrics.sum("hatchet_steps_in_memory", &[("worker", "w")]), 0.0);
    let calls = |method| metrics.sum("hatchet_backend_calls_total", &[("method", method), ("outcome", "ok")]);
    assert!(calls("commit") >= 2.0 && calls("open") == 2.0, "{} {}", calls("commit"), calls("open"));
    assert_eq!(metrics.sum("hatchet_backend_call_duration_seconds", &[("method", "open")]), calls("open"));
}

#[tokio::test(start_paused = true)]
async fn the_documentation_lists_exactly_the_metrics_that_there_are() {
    let documented = include_str!("../../docs/operating.md");
    let documented = documented.lines().filter_map(|line| line.strip_prefix("| `hatchet_")?.split_once('`'));
    let documented: Vec<String> = documented.map(|(name, _)| format!("hatchet_{name}")).collect();
    let (metrics, ()) = observed(async |hatchet| {
        hatchet.run::<Flaky>(0).await.unwrap();
        let approval = hatchet.start::<Approval>(()).await.unwrap();
        approval.cancel("no").await.unwrap();
    })
    .await;
    let mut emitted: Vec<&String> = metrics.0.keys().collect();
    let mut documented: Vec<&String> = documented.iter().collect();
    emitted.sort();
    documented.sort();
    assert_eq!(emitted, documented);
}
