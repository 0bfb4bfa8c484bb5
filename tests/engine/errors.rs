//! What an error says of itself, wherever it sits in the error that a step or a recorded call gives.

use std::{error::Error as StdError, sync::Arc, time::Duration};

use anyhow::Context;
use hatchet::{
    Error, Failure, FailureKind, RunError, RunHandle, StdStepError, StepFailure, prelude::*, testing::TestWorld,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::play::{self, Leaf, Play, Retried, begin, secs};

/// An error with a word for each of its cases.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, thiserror::Error, Failure)]
#[details]
enum ChargeError {
    #[error("the card was declined: {reason}")]
    #[fatal]
    Declined { reason: String },
    #[error("too many requests")]
    Busy {
        #[retry_after]
        wait: Duration,
    },
    #[error("the other side is not there")]
    #[retry_after = "1m 30s"]
    Away,
    #[error("no word")]
    Other,
}

fn declined() -> ChargeError {
    ChargeError::Declined { reason: "expired".to_owned() }
}

/// Without a word of its own: what it holds speaks.
#[derive(Debug, thiserror::Error)]
enum OrderError {
    #[error("charging failed")]
    Charge(#[from] ChargeError),
    #[error(transparent)]
    Engine(#[from] Error),
    #[error(transparent)]
    Child(#[from] RunError),
    #[error("a step of it failed")]
    Step(#[source] StdStepError),
    #[error("shared")]
    Shared(#[source] Arc<ChargeError>),
}

/// With a word of its own against what it holds.
#[derive(Debug, thiserror::Error, Failure)]
enum Insistent {
    #[error("again")]
    #[retryable]
    Again(#[source] ChargeError),
    #[error(transparent)]
    Passes(#[from] ChargeError),
    #[error("no")]
    #[fatal]
    Never(#[source] Box<dyn StdError + Send + Sync>),
}

type Made = Result<(), Box<dyn StdError + Send + Sync>>;

/// What a step error made from this says: whether it is retried, its details, its causes.
fn said(error: impl Into<Box<dyn StdError + Send + Sync>>) -> (bool, Option<ChargeError>) {
    let made: Made = Err(error.into());
    let error = hatchet::StepReturn::into_step_result(made, |_| None).unwrap_err();
    (error.is_retryable(), error.details())
}

#[test]
fn a_type_says_whether_a_retry_may_help_and_is_its_own_details() {
    assert_eq!(said(declined()), (false, Some(declined())));
    assert_eq!(said(ChargeError::Other), (true, Some(ChargeError::Other)));
}

#[test]
fn what_an_error_says_is_found_through_every_wrapper() {
    let fatal = (false, Some(declined()));
    assert_eq!(said(OrderError::from(declined())), fatal);
    assert_eq!(said(OrderError::Shared(Arc::new(declined()))), fatal);
    assert_eq!(said(Arc::new(declined())), fatal);
    assert_eq!(said(Box::new(declined())), fatal);
    assert_eq!(said(Insistent::from(declined())), fatal);
    assert_eq!(said(std::io::Error::other(declined())), fatal);
    assert_eq!(said(anyhow::Error::new(declined()).context("a").context("b")), fatal);
    assert_eq!(said(anyhow::Error::new(OrderError::from(declined()))), fatal);
    let of_ours = || StepError::fatal("no").with_details(&declined());
    assert_eq!(said(OrderError::Step(of_ours().into())), fatal);
    assert_eq!(said(anyhow::Error::new(StdStepError::from(of_ours()))), fatal);
    assert_eq!(said(anyhow::Error::from_boxed(of_ours().into())), fatal);
    assert_eq!(said(anyhow::Error::from_boxed(of_ours().into()).context("a")), fatal);
    let misuse = || Error::InvalidOption("no".to_owned());
    assert!(!said(OrderError::from(misuse())).0);
    assert!(!said(anyhow::Error::new(misuse())).0);
    assert!(!said(anyhow::Error::new(OrderError::from(misuse())).context("a")).0);
    assert!(!said(Arc::new(misuse())).0);
}

#[test]
fn the_outermost_word_counts() {
    assert_eq!(said(Insistent::Again(declined())), (true, Some(declined())));
    assert_eq!(said(Insistent::Never(ChargeError::Other.into())), (false, Some(ChargeError::Other)));
    assert_eq!(said(Insistent::Never("no more".into())), (false, None));
}

#[test]
fn an_error_of_ours_has_its_own_source_for_everybody_else() {
    let error = OrderError::from(Error::InvalidOption("no".to_owned()));
    assert!(!said(error).0);
    assert!(Error::InvalidOption("no".to_owned()).source().is_none());
    assert!(StdStepError::from(StepError::new("no")).source().is_none());
}

#[test]
fn a_type_that_a_bare_anyhow_hides_is_found_by_of() {
    let hidden = || anyhow::Error::new(declined());
    assert!(said(hidden()).0, "then `StepError::of` is not needed any more");
    let error = StepError::of(hidden());
    assert_eq!((error.is_retryable(), error.details()), (false, Some(declined())));
}

/// Fails with an `anyhow::Error` that is made as its input says.
#[workflow(name = "errors:anyhow")]
struct Anyhow;

#[workflow]
impl Anyhow {
    #[step(retries = 3)]
    async fn fail(&self, ctx: &StepContext, input: String) -> anyhow::Result<()> {
        match &*input {
            "bare" => Err(declined())?,
            "context" => Err(declined()).context("in a context")?,
            "away" if ctx.attempt() == 1 => Err(ChargeError::Away).context("in a context")?,
            "away" => return Ok(()),
            "busy" if ctx.attempt() == 1 => Err(ChargeError::Busy { wait: secs(500) })?,
            "busy" => return Ok(()),
            "key" => {
                ctx.run("k", async || Ok::<_, StepError>(1)).await?;
                ctx.run("k", async || Ok::<_, StepError>(2)).await?;
            }
            "key in context" => {
                ctx.run("k", async || Ok::<_, StepError>(1)).await?;
                ctx.run("k", async || Ok::<_, StepError>(2)).await.context("a second time")?;
            }
            "payload" => {
                ctx.run("k", async || Ok::<_, StepError>(f64::NAN)).await?;
            }
            "child" => {
                ctx.spawn::<Leaf>(play::Do::Details(json!("of the child"))).await?.result().await?;
            }
            other => anyhow::bail!("what is {other}?"),
        }
        Ok(())
    }
}

async fn failure_of<T: DeserializeOwned + std::fmt::Debug>(run: &RunHandle<T>) -> StepFailure {
    let error = run.result().await.unwrap_err();
    error.failure().unwrap().first().clone()
}

#[tokio::test(start_paused = true)]
async fn errors_keep_their_word_through_anyhow() {
    let world = crate::world();
    let end = async |what: &str| failure_of(&world.start::<Anyhow>(&what.to_owned()).await).await;
    for (what, message) in [("bare", declined().to_string()), ("context", "in a context".to_owned())] {
        let failure = end(what).await;
        assert_eq!((failure.attempts, failure.message), (1, message));
        assert_eq!(failure.details, Some(serde_json::to_value(declined()).unwrap()));
    }
    for what in ["key", "key in context"] {
        let failure = end(what).await;
        assert_eq!((failure.attempts, failure.kind), (1, FailureKind::Nondeterminism), "{what}");
    }
    let failure = end("payload").await;
    assert_eq!((failure.attempts, failure.kind), (1, FailureKind::Payload));
    let failure = end("child").await;
    assert_eq!((failure.attempts, failure.kind, failure.details), (4, FailureKind::Error, Some(json!("of the child"))));
    assert_eq!(end("nothing").await.attempts, 4);
}

#[tokio::test(start_paused = true)]
async fn a_type_says_how_long_to_wait() {
    let world = crate::world();
    for (what, wait) in [("away", 90), ("busy", 500)] {
        let begun = tokio::time::Instant::now();
        world.start::<Anyhow>(&what.to_owned()).await.result().await.unwrap();
        let took = begun.elapsed();
        assert!((secs(wait)..secs(wait + 5)).contains(&took), "{what} took {took:?}");
    }
}

/// Records a call that fails.
fn recording(call: fn() -> anyhow::Result<u8>) -> TestWorld {
    play::world(move |ctx, _| {
        Box::pin(async move {
            let first = ctx.run("charge", async || call().map_err(StepError::of)).await;
            ctx.sleep(secs(1)).await?;
            Ok(json!(first?))
        })
    })
}

#[tokio::test(start_paused = true)]
async fn a_recorded_call_keeps_what_its_error_says() {
    let world = recording(|| Err(declined()).context("at the till"));
    let failure = failure_of(&begin::<Retried>(&world).await).await;
    assert_eq!((failure.attempts, failure.kind), (1, FailureKind::Error));
    assert_eq!(failure.message, "\"charge\" failed: at the till");
    assert_eq!(failure.causes, [declined().to_string()]);
    assert_eq!(failure.details, Some(serde_json::to_value(declined()).unwrap()));
}

#[tokio::test(start_paused = true)]
async fn a_replay_answers_the_same_error() {
    let passes = play::Passes::default();
    let seen = passes.clone();
    let world = play::world(move |ctx, _| {
        let pass = seen.begin();
        Box::pin(async move {
            let call = async || Err::<u8, _>(StepError::fatal("no").with_details(&declined()).retry_after(secs(7)));
            let Error::Recorded { error, .. } = ctx.run("charge", call).await.unwrap_err() else { panic!("another") };
            pass.note((&error, error.kind(), error.details::<ChargeError>(), error.causes().len()));
            ctx.sleep(secs(1)).await?;
            pass.note("slept");
            Ok(Value::Null)
        })
    });
    let run = play::begin_and_crash::<Play>(&world, hatchet::testing::Boundary::Recorded, 2).await;
    world.start_worker().await;
    run.result().await.unwrap();
    assert_eq!((passes.count(), passes.same().len()), (2, 2));
}
