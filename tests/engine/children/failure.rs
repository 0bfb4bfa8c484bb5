//! How a parent meets a child that did not succeed.

use hatchet::{Error, FailureKind, Limit, RunErrorKind, RunStatus, prelude::*};
use serde_json::{Value, json};

use crate::play::{Do, Leaf, Play, begin, perform, secs, statuses, world};

#[tokio::test(start_paused = true)]
async fn a_failed_child_says_everything_about_its_failure() {
    let world = world(|ctx, _| {
        Box::pin(async move {
            let child = ctx.spawn::<Leaf>(Do::Details(json!({ "code": 7 }))).key("k").await?;
            let error = child.clone().result().await.unwrap_err();
            assert_eq!(error.kind(), RunErrorKind::Failed);
            assert!(!error.is_cancelled());
            assert_eq!((error.workflow(), error.key(), error.run()), ("leaf", Some("k"), child.id()));
            assert_eq!((error.step(), error.attempts(), error.message()), (Some("grow"), 1, "it carries something"));
            assert_eq!(error.details::<Value>(), Some(json!({ "code": 7 })));
            assert_eq!(error.details::<String>(), None);
            let failure = error.failure().unwrap();
            assert_eq!((failure.workflow.as_str(), failure.errors.len()), ("leaf", 1));
            assert_eq!(failure.first().kind, FailureKind::Error);
            let text = "workflow leaf with the key \"k\" failed in step grow after 1 attempt: it carries something";
            assert_eq!(error.to_string(), text);
            Ok(Value::Null)
        })
    });
    perform(&world).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_child_that_panics_fails_and_its_worker_goes_on() {
    let world = world(|ctx, _| {
        Box::pin(async move {
            let error = ctx.spawn::<Leaf>(Do::Panic).await?.result().await.unwrap_err();
            assert_eq!((error.key(), error.message()), (None, "panicked: it panics"));
            assert_eq!(error.failure().unwrap().first().kind, FailureKind::Panic);
            Ok(json!(ctx.spawn::<Leaf>(Do::Give(1)).await?.result().await?))
        })
    });
    assert_eq!(perform(&world.slots(1)).await.unwrap(), json!(1));
}

#[workflow(name = "children:slow")]
struct Slow;

#[workflow]
impl Slow {
    #[step(timeout = "5s", retries = 1)]
    async fn dawdle(&self, _ctx: &StepContext) -> StepResult<u64> {
        std::future::pending().await
    }
}

#[tokio::test(start_paused = true)]
async fn a_child_whose_step_takes_too_long_fails_by_timeout() {
    let world = world(|ctx, _| {
        Box::pin(async move {
            let error = ctx.spawn::<Slow>(()).await?.result().await.unwrap_err();
            assert_eq!((error.kind(), error.step(), error.attempts()), (RunErrorKind::Failed, Some("dawdle"), 2));
            assert_eq!(error.failure().unwrap().first().kind, FailureKind::Timeout);
            assert!(error.message().contains("5s"), "{error}");
            Ok(Value::Null)
        })
    });
    perform(&world).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_child_that_is_over_its_own_time_expires() {
    let world = world(|ctx, _| {
        Box::pin(async move {
            for input in [Do::Wait, Do::Hang] {
                let child = ctx.spawn::<Leaf>(input).timeout(secs(30)).await?;
                let error = child.result().await.unwrap_err();
                assert_eq!(error.kind(), RunErrorKind::Expired(Limit::Run));
                assert_eq!((error.message(), error.step()), ("it took longer than 30s", None));
                assert_eq!((error.attempts(), error.failure()), (0, None));
            }
            Ok(Value::Null)
        })
    });
    perform(&world).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_child_that_nobody_takes_in_time_expires() {
    let world = world(|ctx, _| {
        Box::pin(async move {
            let child = ctx.spawn::<Leaf>(Do::Give(1)).queue("served by nobody").queue_timeout(secs(30)).await?;
            let error = child.result().await.unwrap_err();
            assert_eq!(error.kind(), RunErrorKind::Expired(Limit::Queue));
            assert_eq!(error.message(), "no worker claimed it within 30s");
            Ok(Value::Null)
        })
    });
    perform(&world).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_child_that_somebody_cancels_is_no_failure_but_cancelled() {
    let world = world(|ctx, _| {
        Box::pin(async move {
            let error = ctx.spawn::<Leaf>(Do::Wait).key("k").await?.result().await.unwrap_err();
            assert!(error.is_cancelled());
            assert_eq!((error.message(), error.failure(), error.key()), ("by hand", None, Some("k")));
            Err(error.into())
        })
    });
    let run = begin::<Play>(&world).await;
    crate::play::until(async || !world.children(&run).await.is_empty()).await;
    let child = crate::play::child(&world, &run, "k").await;
    crate::play::handle_of(&world, &child).await.cancel("by hand").await.unwrap();
    let error = run.result().await.unwrap_err();
    assert_eq!(error.kind(), RunErrorKind::Failed, "the parent failed by it");
    assert_eq!(error.message(), "workflow leaf with the key \"k\" was cancelled: by hand");
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_workflow_that_nobody_has_is_an_error_at_once_and_not_retried() {
    let world = world(|ctx, _| {
        Box::pin(async move {
            let missing = ctx.spawn_named("children:nobody", 1).await;
            let Err(Error::UnknownWorkflow { name, known }) = missing else { panic!("{missing:?}") };
            assert_eq!(name, "children:nobody");
            assert!(known.contains(&"leaf".to_owned()));
            Ok(json!(ctx.spawn_named("children:nobody", 1).await.map(drop)?))
        })
    });
    let run = begin::<crate::play::Retried>(&world).await;
    let error = run.result().await.unwrap_err();
    assert_eq!(error.attempts(), 1);
    assert!(error.message().contains("no worker has announced workflow \"children:nobody\""), "{error}");
    assert!(world.children(&run).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_input_that_the_child_cannot_read_fails_the_child() {
    let world = world(|ctx, _| {
        Box::pin(async move {
            let error = ctx.spawn_named("leaf", json!({ "Nonsense": 1 })).await?.result::<Value>().await.unwrap_err();
            assert_eq!(error.failure().unwrap().first().kind, FailureKind::Payload);
            Ok(Value::Null)
        })
    });
    perform(&world).await.unwrap();
}

#[workflow(name = "children:recovery")]
struct Recovery;

#[workflow]
impl Recovery {
    #[step]
    async fn note(&self, _ctx: &StepContext, input: String) -> StepResult<String> {
        Ok(format!("recovered from {input}"))
    }
}

#[tokio::test(start_paused = true)]
async fn a_parent_spawns_a_recovery_workflow_for_a_child_that_failed() {
    let world = world(|ctx, _| {
        Box::pin(async move {
            let mut notes = Vec::new();
            for (key, input) in [("good", Do::Give(1)), ("bad", Do::Fail), ("worse", Do::Panic)] {
                notes.push(match ctx.spawn::<Leaf>(input).key(key).await?.result().await {
                    Ok(number) => number.to_string(),
                    Err(error) if error.is_cancelled() => return Err(error.into()),
                    Err(error) => {
                        let recovery = ctx.spawn::<Recovery>(error.message().to_owned()).key(format!("recover {key}"));
                        recovery.await?.result().await?
                    }
                });
            }
            Ok(json!(notes))
        })
    });
    let run = begin::<Play>(&world).await;
    let notes = json!(["1", "recovered from it fails", "recovered from panicked: it panics"]);
    assert_eq!(run.result().await.unwrap(), notes);
    use RunStatus::{Failed, Succeeded};
    let expected = [
        ("bad", Failed),
        ("good", Succeeded),
        ("recover bad", Succeeded),
        ("recover worse", Succeeded),
        ("worse", Failed),
    ];
    assert_eq!(statuses(&world, &run).await, expected.map(|(key, status)| (key.to_owned(), status)));
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_is_passed_on_keeps_its_details() {
    let world = world(|ctx, _| {
        Box::pin(async move { Ok(json!(ctx.spawn::<Leaf>(Do::Details(json!(42))).await?.result().await?)) })
    });
    let error = perform(&world).await.unwrap_err();
    assert_eq!(error.details::<u64>(), Some(42));
    assert_eq!((error.workflow(), error.step()), ("play", Some("act")));
}
