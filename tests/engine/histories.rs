//! Exported histories: what is in them, and what today's code makes of them.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use hatchet::{
    Error, History, RunHandle, RunId, RunStatus, Workflow,
    prelude::*,
    testing::{Replayed, TestWorld},
};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    deploy::{Log, Stage, called, go},
    play::secs,
};

code!(before { charge(); hold(charge); ship(hold); });
code!(step_between { charge(); hold(charge); pack(hold); ship(pack); });
code!(begun_removed { charge(); ship(charge); });
code!(one { hold(); });
code!(one_and_more { hold(); ship(hold); });
code!(another_one { hold_on(); });

act!(sleeps, ctx => { ctx.sleep(secs(1)).await?; go(ctx, "slept").await });
act!(sleeps_longer, ctx => { ctx.sleep(secs(2)).await?; go(ctx, "slept longer").await });
act!(calls_once, ctx => { called(ctx, "a").await?; go(ctx, "called").await });
act!(calls_more, ctx => { called(ctx, "a").await?; let said = go(ctx, "called more").await?; called(ctx, "b").await?; Ok(said) });
act!(calls_another_before, ctx => { called(ctx, "b").await?; called(ctx, "a").await?; go(ctx, "called both").await });
act!(only_ends, _ctx => Ok("ended".to_owned()));
act!(fails_before, _ctx => Err(StepError::fatal("no")));
act!(fails_on_mismatch[on_mismatch = "fail"], ctx => { ctx.sleep(secs(2)).await?; go(ctx, "slept longer").await });
act!(patched, ctx => {
    if ctx.patched("new").await? {
        called(ctx, "b").await?;
    }
    called(ctx, "a").await?;
    go(ctx, "patched").await
});

/// A world with this code alone, which has done nothing before; and what it does.
fn world<W: Workflow + From<Log>>() -> (TestWorld, Log) {
    let log = Log::default();
    let own = log.clone();
    (TestWorld::new().register(move || W::from(own.clone())), log)
}

/// The history of a run in progress, through a file.
async fn exported(stage: &Stage, run: RunId) -> History {
    let text = stage.hatchet.export(run).await.unwrap().to_json();
    let history = History::from_json(&text).unwrap();
    assert_eq!(history.to_json(), text);
    history
}

/// A run that waits under the old code.
async fn waiting<Old: Workflow<Input = ()> + From<Log>>() -> (Stage, RunHandle<Value>, History) {
    let stage = Stage::new().await;
    stage.worker_for_good::<Old>().await;
    let run = stage.start::<Old>().await;
    let history = exported(&stage, run.id()).await;
    (stage, run, history)
}

async fn replayed<New: Workflow + From<Log>>(history: &History) -> Replayed {
    world::<New>().0.check_replay(history).await.unwrap()
}

fn goes_on(replayed: &Replayed) -> &[String] {
    match replayed {
        Replayed::GoesOn { unchecked } => unchecked,
        other => panic!("{other}"),
    }
}

/// The check says what a stall under the same code says.
async fn stalls<Old: Workflow<Input = ()> + From<Log>, New: Workflow + From<Log>>() {
    let (stage, run) = Stage::replaced::<Old, New>().await;
    let history = exported(&stage, run.id()).await;
    stage.go(&run).await;
    sleep(secs(3)).await;
    let [stall] = &run.view().await.unwrap().stalls()[..] else { panic!("it is not stalled") };
    let Replayed::Stalls(found) = replayed::<New>(&history).await else { panic!("it goes on") };
    assert_eq!(found.len(), 1);
    assert_eq!((&found[0].step, &found[0].wanted), (&stall.step, &stall.wanted));
    assert_eq!((&found[0].stored, &found[0].advice), (&stall.stored, &stall.advice));
    assert_eq!(goes_on(&replayed::<Old>(&history).await), [] as [String; 0]);
}

#[tokio::test(start_paused = true)]
async fn what_would_stall_is_found_in_the_words_of_the_stall() {
    stalls::<before::Order, begun_removed::Order>().await;
    stalls::<sleeps::Act, sleeps_longer::Act>().await;
    stalls::<one::Order, one_with_another_input::Order>().await;
    stalls::<numbers::Typed, texts::Typed>().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_replay_leaves_out_is_found() {
    let (_stage, _, history) = waiting::<calls_once::Act>().await;
    let Replayed::Stalls(found) = replayed::<only_ends::Act>(&history).await else { panic!("it goes on") };
    assert!(found[0].stored.contains("run:a") && found[0].stored.contains("signal:go"), "{}", found[0]);
    let text = replayed::<only_ends::Act>(&history).await.to_string();
    assert!(text.starts_with("the run is stalled: step \"act\": the store has the calls ["), "{text}");
}

#[tokio::test(start_paused = true)]
async fn what_fits_goes_on() {
    let (_stage, _, history) = waiting::<before::Order>().await;
    assert_eq!(goes_on(&replayed::<step_between::Order>(&history).await), [] as [String; 0]);
    let (_stage, _, history) = waiting::<calls_once::Act>().await;
    for replayed in [replayed::<calls_once::Act>(&history).await, replayed::<calls_more::Act>(&history).await] {
        assert_eq!(goes_on(&replayed), [] as [String; 0]);
    }
    assert_eq!(goes_on(&replayed::<patched::Act>(&history).await), [] as [String; 0]);
    // A workflow of one step that has grown; and one whose only step was renamed.
    let (_stage, _, history) = waiting::<one::Order>().await;
    assert_eq!(history.steps[0].name, None);
    goes_on(&replayed::<one_and_more::Order>(&history).await);
    goes_on(&replayed::<another_one::Order>(&history).await);
}

#[tokio::test(start_paused = true)]
async fn what_is_behind_a_new_call_is_said_not_to_be_checked() {
    let (_stage, _, history) = waiting::<calls_once::Act>().await;
    let replayed = replayed::<calls_another_before::Act>(&history).await;
    assert_eq!(goes_on(&replayed), ["run:a", "signal:go:0"]);
    assert!(replayed.to_string().ends_with("continues from here; not checked: [run:a, signal:go:0]"), "{replayed}");
}

#[tokio::test(start_paused = true)]
async fn a_step_that_fails_before_it_comes_to_where_it_was_is_found() {
    let (_stage, _, history) = waiting::<calls_once::Act>().await;
    let replayed = replayed::<fails_before::Act>(&history).await;
    assert_eq!(replayed, Replayed::Fails { step: "act".to_owned(), error: "no".to_owned() });
}

#[tokio::test(start_paused = true)]
async fn a_workflow_that_fails_on_a_mismatch_is_checked_like_others() {
    let (_stage, _, history) = waiting::<sleeps::Act>().await;
    assert!(matches!(replayed::<fails_on_mismatch::Act>(&history).await, Replayed::Stalls(_)));
}

mod one_with_another_input {
    use super::*;

    #[workflow(name = "deploy:order")]
    pub(crate) struct Order(Log);

    #[workflow]
    impl Order {
        #[step]
        async fn hold(&self, ctx: &StepContext, _input: u32) -> StepResult<String> {
            self.0.play(ctx, &[]).await
        }
    }

    impl From<Log> for Order {
        fn from(log: Log) -> Self {
            Self(log)
        }
    }
}

macro_rules! typed {
    ($module:ident, $output:ty, $value:expr) => {
        mod $module {
            use super::*;

            #[workflow(name = "deploy:typed")]
            pub(crate) struct Typed(Log);

            #[workflow]
            impl Typed {
                #[step]
                async fn count(&self, _ctx: &StepContext) -> StepResult<$output> {
                    self.0.0.lock().unwrap().push("count".to_owned());
                    Ok($value)
                }

                #[step]
                async fn hold(&self, ctx: &StepContext, count: $output) -> StepResult<String> {
                    go(ctx, &count.to_string()).await
                }
            }

            impl From<Log> for Typed {
                fn from(log: Log) -> Self {
                    Self(log)
                }
            }
        }
    };
}
typed!(numbers, u32, 7);
typed!(texts, String, "seven".to_owned());

/// Whatever a step can do, and how often what is not durable was done.
#[workflow(name = "histories:all")]
struct All(Arc<Done>);

#[derive(Default)]
struct Done {
    calls: AtomicUsize,
    between: Mutex<Vec<&'static str>>,
}

impl Done {
    fn says(&self, what: &'static str) {
        self.between.lock().unwrap().push(what);
    }

    fn take(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.between.lock().unwrap())
    }
}

#[workflow]
impl All {
    #[step]
    async fn plain(&self, _ctx: &StepContext, input: u32) -> StepResult<u32> {
        self.0.says("plain");
        Ok(input)
    }

    #[step]
    async fn durable(&self, ctx: &StepContext, plain: u32) -> StepResult<Vec<u32>> {
        self.0.says("begins");
        let count = || async { Ok::<_, String>(self.0.calls.fetch_add(1, Ordering::SeqCst)) };
        let _: usize = ctx.run("call", count).await?;
        ctx.now().await?;
        ctx.extend_timeout(secs(1)).await?;
        assert!(ctx.patched("always").await?);
        let keyed = ctx.spawn::<Part>(&plain).key("one").await?.result().await?;
        let failed = ctx.spawn::<Part>(&13).await?.result().await;
        assert!(failed.is_err());
        let many = ctx.spawn_all::<Part>(100..170).await?.gather().await?;
        ctx.sleep(secs(5)).await?;
        self.0.says("waits");
        let told: u32 = ctx.wait_for("told").await?;
        self.0.says("told");
        let _: usize = ctx.run("last", count).await?;
        Ok(vec![keyed, many.len() as u32, told])
    }

    #[step]
    fn blocking(&self, ctx: &StepContext, durable: Vec<u32>) -> StepResult<usize> {
        self.0.says("blocks");
        let called: usize = ctx.block_on(ctx.run("blocked", || async { Ok::<_, String>(durable.len()) }))?;
        self.0.says("blocked");
        ctx.block_on(ctx.sleep(secs(5)))?;
        self.0.says("slept");
        Ok(called)
    }
}

#[workflow(name = "histories:part")]
struct Part;

#[workflow]
impl Part {
    #[step]
    async fn part(&self, _ctx: &StepContext, input: u32) -> StepResult<u32> {
        match input {
            13 => Err(StepError::fatal("unlucky")),
            _ => Ok(input),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_done_that_the_history_does_not_have() {
    let done = Arc::new(Done::default());
    let own = Arc::clone(&done);
    let make = move || All(Arc::clone(&own));
    let world = crate::world().register(make.clone()).register(|| Part);
    let client = world.client().await;
    let run = world.start::<All>(&5).await;
    sleep(secs(10)).await;
    assert_eq!(done.take(), ["plain", "begins", "waits"]);
    let early = client.export(run.id()).await.unwrap();
    assert_eq!(early.steps[1].journal.iter().filter(|entry| entry.child.is_some()).count(), 72);
    run.signal("told", &3u32).await.unwrap();
    assert_eq!(run.result().await.unwrap(), 3);
    let calls = done.calls.load(Ordering::SeqCst);
    done.take();
    let late = client.export(run.id()).await.unwrap();
    assert_eq!((early.status, late.status), (RunStatus::Waiting, RunStatus::Succeeded));

    let other = TestWorld::new().register(make).register(|| Part);
    assert_eq!(goes_on(&other.check_replay(&early).await.unwrap()), [] as [String; 0]);
    // It waits for a signal that has not come; the wait itself is stored, and so the code before it has run.
    assert_eq!(done.take(), ["begins", "waits"]);
    assert_eq!(goes_on(&other.check_replay(&late).await.unwrap()), [] as [String; 0]);
    // `plain` did nothing durable and is not run; the others run up to the last stored answer.
    assert_eq!(done.take(), ["begins", "waits", "told", "blocks", "blocked"]);
    assert_eq!(done.calls.load(Ordering::SeqCst), calls, "no recorded call is made");
    assert!(other.runs().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_export_is_a_document_that_stays_as_it_is() {
    let (_stage, run, history) = waiting::<calls_once::Act>().await;
    let mut document: Value = serde_json::from_str(&history.to_json()).unwrap();
    let at = document["created"].as_u64().unwrap();
    for entry in document["steps"][0]["journal"].as_array_mut().unwrap() {
        assert!(entry["at"].as_u64().unwrap() >= at);
        entry["at"] = 0.into();
    }
    document["created"] = 0.into();
    document["steps"][0]["journal"].as_array_mut().unwrap().sort_by_key(|entry| entry["name"].to_string());
    let expected = json!({
        "format": 1,
        "run": run.id().to_string(),
        "workflow": "deploy:act",
        "queue": "default",
        "priority": "normal",
        "status": "waiting",
        "created": 0,
        "input": null,
        "steps": [{
            "state": "active", "attempt": 1, "sequence": 0, "journal": [
                { "kind": "value", "name": "run:a", "at": 0, "value": { "attempt": 1, "ok": 1 } },
                { "kind": "signal", "name": "signal:go:0", "at": 0, "signal": "go" },
            ],
        }],
        "only_steps": ["act"],
    });
    assert_eq!(document, expected);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_history_of_this_format_is_refused() {
    let (_stage, _, history) = waiting::<sleeps::Act>().await;
    let text = history.to_json();
    let newer = text.replacen("\"format\": 1", "\"format\": 2", 1);
    let error = History::from_json(&newer).unwrap_err();
    assert!(matches!(error, Error::UnknownFormat { found: 2, known: 1 }), "{error}");
    assert!(error.to_string().contains("update the library"), "{error}");
    assert!(matches!(History::from_json("{}").unwrap_err(), Error::Payload(_)));
    assert!(matches!(History::from_json("{\"format\": 1}").unwrap_err(), Error::Payload(_)));
    // By whatever way it was read.
    let mut other = history.clone();
    other.format = 0;
    let (world, _) = world::<sleeps::Act>();
    assert!(matches!(world.check_replay(&other).await.unwrap_err(), Error::UnknownFormat { found: 0, .. }));
    let mut broken = history.clone();
    broken.steps[0].journal[0].at = None;
    assert!(matches!(world.check_replay(&broken).await.unwrap_err(), Error::Payload(_)));
    let mut unknown = history;
    unknown.workflow = "deploy:act@7".to_owned();
    assert!(matches!(world.check_replay(&unknown).await.unwrap_err(), Error::UnknownWorkflow { .. }));
    assert!(matches!(Stage::new().await.hatchet.export(RunId::random()).await.unwrap_err(), Error::NotFound(_)));
}
