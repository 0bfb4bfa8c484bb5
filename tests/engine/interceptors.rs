//! What an interceptor sees, and what it can change.

use std::{
    cell::Cell,
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use hatchet::{
    Error, Hatchet, RunId, RunStatus,
    interceptor::{AttemptEnd, AttemptInfo, AttemptScope, Interceptor, NewRuns, StartEnd, StartScope},
    prelude::*,
    testing::{Boundary, TestWorld},
};
use serde_json::{Value, json};

use crate::play::{Do, Leaf, Play, Retried, begin, begin_and_crash, perform, secs, stage, until};

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Notes what it sees, and hands a header on that tells the way.
#[derive(Clone, Default)]
struct Notes {
    lines: Arc<Mutex<Vec<String>>>,
    /// How many runs get the same headers.
    together: Option<usize>,
}

impl Notes {
    fn note(&self, line: String) {
        self.lines.lock().unwrap().push(line);
    }

    /// What was noted so far, but for the start of the root run, whose answer arrives at any time.
    fn take(&self) -> Vec<String> {
        let mut lines = std::mem::take(&mut *self.lines.lock().unwrap());
        lines.retain(|line| !line.starts_with("the program"));
        lines
    }

    /// Adds to the way that the caller's headers tell.
    fn send(&self, from: &str, runs: &mut NewRuns<'_>) -> Option<Box<dyn StartScope>> {
        if let Some(together) = self.together {
            runs.only(together);
        }
        let which = match (runs.is_bulk, runs.key) {
            (true, _) => format!("{} from {}", runs.count, runs.before),
            (false, key) => format!("{:?} at {}", key.unwrap_or(""), runs.before),
        };
        assert_eq!(runs.id.is_none(), runs.is_bulk);
        let repeats = if runs.repeats.is_some() { " again" } else { "" };
        self.note(format!("{from} sends {} {which}{repeats}", runs.workflow));
        let way = format!("{from}@{}", runs.before);
        runs.headers_mut().insert("way".to_owned(), way);
        Some(Box::new(Sent(self.clone(), from.to_owned())))
    }
}

struct Sent(Notes, String);

impl StartScope for Sent {
    fn end(self: Box<Self>, end: StartEnd<'_>) {
        let end = match end {
            StartEnd::Done => "has sent".to_owned(),
            StartEnd::Existed(_) => "finds it there".to_owned(),
            StartEnd::Failed(error) => format!("cannot send: {error}"),
            end => panic!("{end:?}"),
        };
        self.0.note(format!("{} {end}", self.1));
    }
}

impl Interceptor for Notes {
    fn start(&self, runs: &mut NewRuns<'_>) -> Option<Box<dyn StartScope>> {
        self.send("the program", runs)
    }

    fn attempt(&self, attempt: &AttemptInfo<'_>) -> Option<Box<dyn AttemptScope>> {
        let AttemptInfo { step, attempt: number, recoveries, is_resumed, note, .. } = *attempt;
        let way = attempt.headers.get("way").map_or("nowhere", |way| way);
        let name = format!("{step} {number}");
        let recovered = if recoveries > 0 { ", recovered" } else { "" };
        let resumed = if is_resumed { ", resumed" } else { "" };
        let noted = note.map_or(String::new(), |note| format!(", {note}"));
        self.note(format!("{name} begins, from {way}{recovered}{resumed}{noted}"));
        Some(Box::new(Around { notes: self.clone(), name }))
    }
}

struct Around {
    notes: Notes,
    name: String,
}

impl AttemptScope for Around {
    fn enter(&self, code: &mut dyn FnMut()) {
        assert!(!INSIDE.replace(true), "a step is polled inside of another");
        code();
        INSIDE.set(false);
    }

    fn spawn(&self, runs: &mut NewRuns<'_>) -> Option<Box<dyn StartScope>> {
        assert!(INSIDE.get());
        self.notes.send(&self.name, runs)
    }

    fn park(&self) -> Option<String> {
        Some(format!("parked in {}", self.name))
    }

    fn end(&self, end: AttemptEnd<'_>) {
        let end = match end {
            AttemptEnd::Succeeded => "succeeds".to_owned(),
            AttemptEnd::Failed { error, retry_in: Some(wait), .. } => format!("fails ({error}), next in {wait:?}"),
            AttemptEnd::Failed { error, retry_in: None, .. } => format!("fails ({error})"),
            AttemptEnd::Parked => "is parked".to_owned(),
            AttemptEnd::Stalled { reason, .. } => format!("is stalled: {reason}"),
            AttemptEnd::Stopped => "is stopped".to_owned(),
            end => panic!("{end:?}"),
        };
        self.notes.note(format!("{} {end}", self.name));
    }
}

fn noted(world: TestWorld) -> (Notes, TestWorld) {
    let notes = Notes::default();
    (notes.clone(), world.interceptor(notes))
}

/// Runs [`Play`] with this code, and gives what was noted.
async fn notes_of(
    world: TestWorld,
    act: impl for<'a> Fn(&'a StepContext, Value) -> crate::play::Played<'a> + Send + Sync + 'static,
) -> Vec<String> {
    let (notes, world) = noted(stage(world, act));
    drop(perform(&world).await);
    notes.take()
}

#[tokio::test(start_paused = true)]
async fn it_sees_a_start_a_spawn_and_each_attempt_and_the_headers_that_it_sets_arrive() {
    let lines = notes_of(crate::world(), |ctx, _| {
        Box::pin(async move {
            let child = ctx.spawn::<Leaf>(Do::Give(1)).key("one").await?;
            assert!(INSIDE.get());
            child.result().await?;
            // Nothing happens to a child that is there.
            ctx.spawn::<Leaf>(Do::Give(1)).key("one").await?.result().await?;
            assert_eq!(ctx.spawn::<Leaf>(Do::Give(2)).await?.result().await?, 2);
            assert!(INSIDE.get());
            Ok(Value::Null)
        })
    });
    assert_eq!(
        lines.await,
        [
            "act 1 begins, from the program@0",
            "act 1 sends leaf \"one\" at 0",
            "act 1 has sent",
            "grow 1 begins, from act 1@0",
            "grow 1 succeeds",
            "act 1 sends leaf \"\" at 2",
            "act 1 has sent",
            "grow 1 begins, from act 1@2",
            "grow 1 succeeds",
            "act 1 succeeds",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn retries_are_attempts_of_their_own_and_the_last_failure_is_for_good() {
    let (notes, world) = noted(stage(crate::world(), |ctx, _| {
        Box::pin(async move {
            ctx.now().await?;
            match ctx.attempt() {
                1 => Err(StepError::new("it is early")),
                2 => panic!("it panics"),
                _ => Err(StepError::fatal("it is late")),
            }
        })
    }));
    begin::<Retried>(&world).await.result().await.unwrap_err();
    let lines = notes.take();
    let [first, fails, second, panics, third, ends] = &lines[..] else { panic!("{lines:#?}") };
    assert_eq!(
        [first, second, third],
        ["act 1 begins, from the program@0", "act 2 begins, from the program@0", "act 3 begins, from the program@0"]
    );
    assert!(fails.starts_with("act 1 fails (it is early), next in "), "{fails}");
    assert!(panics.starts_with("act 2 fails (panicked: it panics), next in "), "{panics}");
    assert_eq!(ends, "act 3 fails (it is late)");
}

#[tokio::test(start_paused = true)]
async fn a_timeout_is_a_failure() {
    #[workflow(name = "intercepted:slow")]
    #[derive(Default)]
    struct Slow;

    #[workflow]
    impl Slow {
        #[step(timeout = "2s")]
        async fn wait(&self, ctx: &StepContext, _input: Value) -> StepResult<Value> {
            ctx.sleep(secs(100)).await?;
            Ok(Value::Null)
        }
    }

    let (notes, world) = noted(crate::world());
    world.start::<Slow>(&Value::Null).await.result().await.unwrap_err();
    assert_eq!(notes.take().last().unwrap(), "wait 1 fails (took longer than its timeout of 2s)");
}

#[tokio::test(start_paused = true)]
async fn what_is_noted_of_a_parked_attempt_is_there_when_it_resumes_and_not_in_the_next_attempt() {
    let (notes, world) = noted(stage(crate::world().always_park(), |ctx, _| {
        Box::pin(async move {
            ctx.sleep(secs(1)).await?;
            if ctx.attempt() == 1 {
                return Err(StepError::new("once more"));
            }
            ctx.sleep(secs(1)).await?;
            Ok(Value::Null)
        })
    }));
    let run = begin::<Retried>(&world).await;
    run.result().await.unwrap();
    let (failed, rest): (Vec<_>, Vec<_>) = notes.take().into_iter().partition(|line| line.contains("fails"));
    assert_eq!(failed.len(), 1);
    assert_eq!(
        rest,
        [
            "act 1 begins, from the program@0",
            "act 1 is parked",
            "act 1 begins, from the program@0, resumed, parked in act 1",
            "act 2 begins, from the program@0",
            "act 2 is parked",
            "act 2 begins, from the program@0, resumed, parked in act 2",
            "act 2 succeeds",
        ]
    );
    world.check().await;
    // The note is the engine's: the history of the run has nothing that code could be asked for.
    let history = world.client().await.export(run.id()).await.unwrap();
    assert!(world.check_replay(&history).await.unwrap().goes_on());
}

#[tokio::test(start_paused = true)]
async fn a_recovered_attempt_begins_again_and_sends_only_what_it_had_not_sent() {
    let (notes, world) = noted(stage(crate::world(), |ctx, _| {
        Box::pin(async move {
            ctx.spawn::<Leaf>(Do::Give(1)).await?.result().await?;
            if ctx.recoveries() == 0 {
                ctx.run("once", || async { Ok::<_, StepError>(()) }).await?;
                std::future::pending::<()>().await;
            }
            ctx.spawn::<Leaf>(Do::Give(2)).await?.result().await?;
            Ok(Value::Null)
        })
    }));
    let run = begin_and_crash::<Play>(&world, Boundary::ChildDone, 1).await;
    world.start_worker().await;
    run.result().await.unwrap();
    let lines = notes.take();
    let has = |line: &str| lines.iter().filter(|other| *other == line).count();
    assert_eq!(has("act 1 is stopped"), 1, "{lines:#?}");
    assert_eq!(has("act 1 begins, from the program@0, recovered, resumed"), 1, "{lines:#?}");
    assert_eq!(has("act 1 sends leaf \"\" at 0"), 1, "{lines:#?}");
    assert_eq!(has("act 1 sends leaf \"\" at 1"), 1, "{lines:#?}");
    assert_eq!(has("act 1 succeeds"), 1, "{lines:#?}");
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_is_not_begun_again_since_its_workers_died_is_seen_to_fail() {
    let (notes, world) = noted(stage(crate::world(), |_, _| Box::pin(std::future::pending())));
    let run = begin::<Play>(&world).await;
    for deaths in 1..=11 {
        let begun = || notes.lines.lock().unwrap().iter().filter(|line| line.contains("act 1 begins")).count();
        until(async || begun() == deaths).await;
        world.crash_workers().await;
        world.start_worker().await;
    }
    run.result().await.unwrap_err();
    let lines = notes.take();
    let [.., begins, fails] = &lines[..] else { panic!("{lines:#?}") };
    assert_eq!(begins, "act 1 begins, from the program@0, recovered, resumed");
    assert!(fails.starts_with("act 1 fails (the worker died 11 times"), "{fails}");
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_attempt_is_stopped_inside() {
    struct Dropped(Notes);

    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.note(format!("dropped inside: {}", INSIDE.get()));
        }
    }

    let notes = Notes::default();
    let seen = notes.clone();
    let world = stage(crate::world().interceptor(notes.clone()), move |_, _| {
        let dropped = Dropped(seen.clone());
        Box::pin(async move {
            let _dropped = dropped;
            std::future::pending().await
        })
    });
    let run = begin::<Play>(&world).await;
    until(async || run.status().await.unwrap() == RunStatus::Running).await;
    world.client().await.cancel(run.id(), "enough").await.unwrap();
    until(async || notes.lines.lock().unwrap().iter().any(|line| line == "act 1 is stopped")).await;
    assert_eq!(notes.take()[1..], ["dropped inside: true", "act 1 is stopped"]);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_whose_code_no_longer_fits_is_stalled() {
    let (notes, world) = noted(crate::world().always_park());
    let changed = Arc::new(AtomicBool::new(false));
    let code = Arc::clone(&changed);
    let world = stage(world, move |ctx, _| {
        let number = u64::from(code.load(Ordering::Relaxed));
        Box::pin(async move {
            ctx.spawn::<Leaf>(Do::Give(number)).await?.stored().await?;
            Ok(ctx.wait_for("go").await?)
        })
    });
    let run = begin::<Play>(&world).await;
    until(async || notes.lines.lock().unwrap().iter().any(|line| line == "act 1 is parked")).await;
    changed.store(true, Ordering::Relaxed);
    world.client().await.signal(run.id(), "go", &1).await.unwrap();
    until(async || run.status().await.unwrap() == RunStatus::Stalled).await;
    let lines = notes.take();
    assert!(lines.last().unwrap().starts_with("act 1 is stalled: "), "{lines:#?}");
}

#[tokio::test(start_paused = true)]
async fn a_plain_fn_runs_inside_on_its_own_thread() {
    #[workflow(name = "intercepted:plain")]
    #[derive(Default)]
    struct Plain;

    #[workflow]
    impl Plain {
        #[step]
        fn count(&self, ctx: &StepContext, _input: u32) -> StepResult<(bool, u64)> {
            let child = ctx.block_on(ctx.spawn::<Leaf>(Do::Give(7)))?;
            let seven = ctx.block_on(child.result())?;
            Ok((INSIDE.get(), seven))
        }
    }

    #[derive(Clone, Default)]
    struct Threads;

    impl Interceptor for Threads {
        fn attempt(&self, _: &AttemptInfo<'_>) -> Option<Box<dyn AttemptScope>> {
            Some(Box::new(Self))
        }
    }

    impl AttemptScope for Threads {
        fn enter(&self, code: &mut dyn FnMut()) {
            INSIDE.set(true);
            code();
            INSIDE.set(false);
        }

        fn end(&self, _: AttemptEnd<'_>) {}
    }

    let world = crate::world().interceptor(Threads);
    assert_eq!(world.start::<Plain>(&1).await.result().await.unwrap(), (true, 7));
}

#[tokio::test(start_paused = true)]
async fn many_children_get_their_headers_in_groups_as_large_as_it_wants() {
    let notes = Notes { together: Some(2), ..Notes::default() };
    let world = stage(crate::world().interceptor(notes.clone()), |ctx, _| {
        Box::pin(async move {
            ctx.spawn::<Leaf>(Do::Give(0)).await?;
            let five: Vec<Do> = (1..=5).map(Do::Give).collect();
            assert_eq!(ctx.spawn_all::<Leaf>(five).await?.gather().await?, [1, 2, 3, 4, 5]);
            Ok(Value::Null)
        })
    });
    let run = begin::<Play>(&world).await;
    run.result().await.unwrap();
    let mut children = world.children(&run).await;
    children.sort_by_key(|child| child.id.origin().map(|origin| origin.slot));
    let ways: Vec<&str> = children.iter().map(|child| &*child.headers["way"]).collect();
    assert_eq!(ways, ["act 1@0", "act 1@1", "act 1@1", "act 1@3", "act 1@3", "act 1@5"]);
    let lines = notes.take();
    let sent: Vec<_> = lines.iter().filter(|line| line.contains("act 1 sends")).collect();
    assert_eq!(
        sent,
        [
            "act 1 sends leaf \"\" at 0",
            "act 1 sends leaf 5 from 1",
            "act 1 sends leaf 3 from 3",
            "act 1 sends leaf 1 from 5"
        ]
    );
    assert_eq!(lines.iter().filter(|line| *line == "act 1 has sent").count(), 4);
}

#[tokio::test(start_paused = true)]
async fn many_root_runs_get_their_headers_in_groups_too() {
    let notes = Notes { together: Some(3), ..Notes::default() };
    let world = crate::world().interceptor(notes.clone());
    let client = world.client().await;
    let worker = client.worker().start().await.unwrap();
    let runs = client.start_all::<Leaf>((0..5).map(Do::Give)).await.unwrap();
    let mut ways = Vec::new();
    for run in runs {
        ways.push(run.view().await.unwrap().headers["way"].clone());
    }
    assert_eq!(ways, ["the program@0", "the program@0", "the program@0", "the program@3", "the program@3"]);
    worker.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_start_that_finds_its_run_says_so_and_one_that_fails_says_why() {
    let notes = Notes::default();
    let client = Hatchet::on(crate::backend().await).interceptor(notes.clone());
    let start = |number| client.start::<Leaf>(Do::Give(number)).key("the key").unchecked();
    let first = start(1).await.unwrap();
    assert_eq!(start(1).await.unwrap().id(), first.id());
    assert_eq!(first.view().await.unwrap().headers["way"], "the program@0");
    assert!(matches!(start(2).await, Err(Error::KeyConflict(_))));
    let lines = notes.lines.lock().unwrap().clone();
    assert_eq!(
        lines[..4],
        [
            "the program sends leaf \"the key\" at 0",
            "the program has sent",
            "the program sends leaf \"the key\" at 0",
            "the program finds it there"
        ]
    );
    assert!(lines[5].starts_with("the program cannot send: "), "{}", lines[5]);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_repeats_another_inherits_its_headers() {
    #[derive(Default)]
    struct Inherited(Arc<Mutex<Vec<Inheritance>>>);

    type Inheritance = (Option<RunId>, BTreeMap<String, String>, BTreeMap<String, String>);

    impl Interceptor for Inherited {
        fn start(&self, runs: &mut NewRuns<'_>) -> Option<Box<dyn StartScope>> {
            self.0.lock().unwrap().push((runs.repeats, runs.inherited().clone(), runs.headers().clone()));
            None
        }
    }

    let inherited = Inherited::default();
    let seen = Arc::clone(&inherited.0);
    let world = crate::world().interceptor(inherited);
    let client = world.client().await;
    let worker = client.worker().start().await.unwrap();
    let run = client.start::<Leaf>(Do::Fail).header("way", "the first").await.unwrap();
    run.result().await.unwrap_err();
    client.replay(run.id()).await.unwrap();
    client.restart_from(run.id(), "grow").await.unwrap();
    let way: BTreeMap<_, _> = [("way".to_owned(), "the first".to_owned())].into();
    let again = (Some(run.id()), way.clone(), way.clone());
    assert_eq!(*seen.lock().unwrap(), [(None, BTreeMap::new(), way), again.clone(), again]);
    worker.shutdown().await.unwrap();
}

/// Its headers are not valid.
struct Loud;

impl Interceptor for Loud {
    fn start(&self, runs: &mut NewRuns<'_>) -> Option<Box<dyn StartScope>> {
        runs.headers_mut().insert("way".to_owned(), "x".repeat(100_000));
        None
    }

    fn attempt(&self, _: &AttemptInfo<'_>) -> Option<Box<dyn AttemptScope>> {
        Some(Box::new(Self))
    }
}

impl AttemptScope for Loud {
    fn spawn(&self, runs: &mut NewRuns<'_>) -> Option<Box<dyn StartScope>> {
        runs.headers_mut().insert("way".to_owned(), "a\nb".to_owned());
        None
    }

    fn end(&self, _: AttemptEnd<'_>) {}
}

#[tokio::test(start_paused = true)]
async fn headers_that_no_store_takes_are_left_out() {
    let world = stage(crate::world().interceptor(Loud), |ctx, _| {
        Box::pin(async move {
            ctx.spawn::<Leaf>(Do::Give(1)).header("mine", "1").await?;
            let many = ctx.spawn_all::<Leaf>([Do::Give(1), Do::Give(2)]).header("mine", "1").await?;
            many.gather().await?;
            Ok(json!(ctx.headers()))
        })
    });
    let run = begin::<Play>(&world).await;
    assert_eq!(run.result().await.unwrap(), json!({}));
    for child in world.children(&run).await {
        assert_eq!(*child.headers, [("mine".to_owned(), "1".to_owned())].into());
    }
}

/// It panics wherever it is called.
struct Panics;

impl Interceptor for Panics {
    fn start(&self, _: &mut NewRuns<'_>) -> Option<Box<dyn StartScope>> {
        panic!("at the start")
    }

    fn attempt(&self, attempt: &AttemptInfo<'_>) -> Option<Box<dyn AttemptScope>> {
        assert_ne!(attempt.workflow, "leaf", "at an attempt");
        Some(Box::new(Self))
    }
}

impl AttemptScope for Panics {
    fn spawn(&self, _: &mut NewRuns<'_>) -> Option<Box<dyn StartScope>> {
        panic!("at a spawn")
    }

    fn park(&self) -> Option<String> {
        panic!("at a note")
    }

    fn end(&self, _: AttemptEnd<'_>) {
        panic!("at the end")
    }
}

#[tokio::test(start_paused = true)]
async fn an_interceptor_that_panics_harms_nothing() {
    let world = stage(crate::world().always_park().interceptor(Panics), |ctx, _| {
        Box::pin(async move {
            let one = ctx.spawn::<Leaf>(Do::Give(1)).await?.result().await?;
            let two = ctx.spawn_all::<Leaf>([Do::After(1, 2)]).await?.gather().await?;
            Ok(json!((one, two)))
        })
    });
    assert_eq!(perform(&world).await.unwrap(), json!((1, [2])));
}

#[tokio::test(start_paused = true)]
async fn one_that_does_not_run_the_code_is_not_needed_for_that() {
    struct Idle;

    impl Interceptor for Idle {
        fn attempt(&self, _: &AttemptInfo<'_>) -> Option<Box<dyn AttemptScope>> {
            Some(Box::new(Self))
        }
    }

    impl AttemptScope for Idle {
        fn enter(&self, _: &mut dyn FnMut()) {}

        fn end(&self, _: AttemptEnd<'_>) {}
    }

    let world = stage(crate::world().interceptor(Idle), |ctx, _| {
        Box::pin(async move {
            ctx.sleep(secs(1)).await?;
            Ok(json!(7))
        })
    });
    assert_eq!(perform(&world).await.unwrap(), 7);
}

#[tokio::test(start_paused = true)]
async fn a_worker_has_the_interceptor_of_its_client_and_the_last_one_counts() {
    let (first, last) = (Notes::default(), Notes::default());
    let client =
        Hatchet::on(crate::backend().await).interceptor(first.clone()).interceptor(last.clone()).max_payload(1 << 20);
    let worker = client.worker().start().await.unwrap();
    client.run::<Leaf>(Do::Give(1)).await.unwrap();
    assert!(first.take().is_empty());
    assert_eq!(last.take(), ["grow 1 begins, from the program@0", "grow 1 succeeds"]);
    worker.shutdown().await.unwrap();
}
