//! Leases of a worker that nothing in it runs, since an answer was lost without a word.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use hatchet::{
    Hatchet, Name, Payload, RunError, RunErrorKind, RunId, SessionId, StepContext, StepResult,
    backend::{
        Backend, BackendError, Cancelled, Claim, Commit, CommitReply, Query, RunData, SessionSpec, Signalled, Start,
        StartReply, Task, Then,
    },
    workflow,
};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use crate::{
    play::secs,
    wrapper::{Answer, instead, pass_on},
};

/// A store that may hold up claims, and may lose what an answer to a commit gives.
#[derive(Debug)]
struct Lossy {
    inner: Arc<dyn Backend>,
    holds_up_claims: watch::Sender<bool>,
    loses_tasks: AtomicBool,
}

impl Backend for Lossy {
    instead! {
        async fn claim(self, request: Claim) -> Vec<Task> {
            let mut holds_up = self.holds_up_claims.subscribe();
            holds_up.wait_for(|holds_up| !holds_up).await.expect("it is let go before it is gone");
            self.inner.claim(request).await
        }
    }

    instead! {
        async fn commit(self, session: SessionId, commits: Vec<Commit>) -> CommitReply {
            let mut reply = self.inner.commit(session, commits).await?;
            if !reply.tasks.is_empty() && self.loses_tasks.swap(false, Ordering::SeqCst) {
                reply.tasks.clear();
            }
            Ok(reply)
        }
    }

    pass_on! {
        info open heartbeat close workflows announced sessions activity remove resume pause unpause paused start held disown record journal sequences load watch receive cancel signal get list
        counts sweep fsck
    }
}

#[workflow(name = "lost:two")]
struct Two;

#[workflow]
impl Two {
    #[step]
    async fn one(&self, _ctx: &StepContext) -> StepResult<u64> {
        Ok(1)
    }

    #[step]
    async fn two(&self, _ctx: &StepContext, one: u64) -> StepResult<u64> {
        Ok(one + 1)
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_nothing_runs_is_found_in_minutes_however_long_claims_waited_before() {
    let inner = crate::backend().await;
    let (holds_up_claims, loses_tasks) = (watch::Sender::new(false), AtomicBool::new(false));
    let store = Arc::new(Lossy { inner, holds_up_claims, loses_tasks });
    let hatchet = Hatchet::on(Arc::clone(&store) as Arc<dyn Backend>);
    let worker = hatchet.worker().only_registered().register(Two).lease(secs(30)).start().await.unwrap();
    sleep(secs(25)).await;
    // The worker looks what it holds after 30 s, and has to wait for the claim.
    store.holds_up_claims.send_replace(true);
    let waiting = Hatchet::on(Arc::clone(&store.inner)).start::<Two>(()).await.unwrap();
    sleep(secs(60)).await;
    store.holds_up_claims.send_replace(false);
    assert_eq!(waiting.result().await.unwrap(), 2);

    store.loses_tasks.store(true, Ordering::SeqCst);
    let run = hatchet.start::<Two>(()).await.unwrap();
    let result = timeout(secs(400), run.result()).await.expect("the second step is taken up");
    assert_eq!(result.unwrap(), 2);
    assert!(!store.loses_tasks.load(Ordering::SeqCst), "the answer was lost");
    worker.shutdown().await.unwrap();
}

/// A store that forgets the first lease of a second step, which its worker has begun to prepare, and gives the step out
/// again. What the first attempt asks for is answered when it is let go.
#[derive(Debug)]
struct Forgetful {
    inner: Arc<dyn Backend>,
    forgot: AtomicBool,
    loads: AtomicUsize,
    lets_go: watch::Sender<bool>,
    refused: AtomicUsize,
}

/// A worker asks the store for the run of a task that may have been begun before.
fn asks_for_its_run(task: &mut Task) {
    task.is_new = false;
}

impl Backend for Forgetful {
    instead! {
        async fn commit(self, session: SessionId, commits: Vec<Commit>) -> CommitReply {
            let mut reply = self.inner.commit(session, commits).await?;
            if let [second] = &reply.tasks[..]
                && !self.forgot.swap(true, Ordering::SeqCst)
            {
                let release = Commit::new(second.lease, Then::Return { delay: None });
                reply.events.extend(self.inner.commit(session, vec![release]).await?.events);
            }
            reply.tasks.iter_mut().for_each(asks_for_its_run);
            Ok(reply)
        }
    }

    instead! {
        async fn claim(self, request: Claim) -> Vec<Task> {
            let mut tasks = self.inner.claim(request).await?;
            tasks.iter_mut().for_each(asks_for_its_run);
            Ok(tasks)
        }
    }

    instead! {
        async fn load(self, run: RunId) -> Option<RunData> {
            if self.loads.fetch_add(1, Ordering::SeqCst) == 0 {
                let mut lets_go = self.lets_go.subscribe();
                lets_go.wait_for(|lets_go| *lets_go).await.expect("it is let go before it is gone");
            }
            self.inner.load(run).await
        }
    }

    instead! {
        async fn start(self, request: Start) -> StartReply {
            let reply = self.inner.start(request).await?;
            self.refused.fetch_add(reply.groups.iter().filter(|group| group.is_err()).count(), Ordering::SeqCst);
            Ok(reply)
        }
    }

    pass_on! {
        info open heartbeat close workflows announced sessions activity remove resume pause unpause paused held disown record journal sequences watch receive cancel signal get list counts
        sweep fsck
    }
}

#[workflow(name = "lost:parent")]
struct Parent;

#[workflow]
impl Parent {
    #[step]
    async fn begin(&self, _ctx: &StepContext) -> StepResult<u64> {
        Ok(1)
    }

    #[step]
    async fn wait(&self, ctx: &StepContext, begin: u64) -> StepResult<u64> {
        Ok(begin + ctx.spawn::<Late>(()).await?.result().await?)
    }
}

#[workflow(name = "lost:late")]
struct Late;

#[workflow]
impl Late {
    #[step]
    async fn work(&self, ctx: &StepContext) -> StepResult<u64> {
        ctx.sleep(secs(20)).await?;
        Ok(1)
    }
}

#[tokio::test(start_paused = true)]
async fn an_attempt_whose_lease_was_forgotten_takes_no_messages_away_from_the_one_that_took_its_place() {
    let inner = crate::backend().await;
    let (forgot, loads, refused) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let store = Arc::new(Forgetful { inner, forgot, loads, lets_go: watch::Sender::new(false), refused });
    let hatchet = Hatchet::on(Arc::clone(&store) as Arc<dyn Backend>);
    let worker = hatchet.worker().only_registered().register(Parent).register(Late).start().await.unwrap();
    let run = hatchet.start::<Parent>(()).await.unwrap();
    sleep(secs(10)).await;
    assert_eq!(store.loads.load(Ordering::SeqCst), 2, "the step was given out twice");
    assert_eq!(hatchet.list(&Query { parent: Some(run.id()), ..Query::default() }).await.unwrap().runs.len(), 1);
    store.lets_go.send_replace(true);
    let result = timeout(secs(40), run.result()).await.expect("the parent hears of its child's end");
    assert_eq!(result.unwrap(), 2);
    assert_eq!(store.refused.load(Ordering::SeqCst), 1, "the first attempt was refused");
    worker.shutdown().await.unwrap();
}

/// A store that a client has not reached for so long that its session has ended, until it opens another one.
#[derive(Debug)]
struct Severed {
    inner: Arc<dyn Backend>,
    is_severed: AtomicBool,
    session: Mutex<Option<SessionId>>,
}

impl Severed {
    async fn answer<T>(&self, call: Answer<'_, T>) -> Result<T, BackendError> {
        if !self.is_severed.load(Ordering::SeqCst) {
            return call.await;
        }
        let session = self.session.lock().expect("which session").expect("one that calls");
        let _ = self.inner.close(session).await;
        Err(BackendError::Unavailable { backend: "severed", source: "it is out of reach".into() })
    }
}

impl Backend for Severed {
    instead! {
        async fn open(self, session: SessionSpec) -> () {
            *self.session.lock().expect("which session") = Some(session.id);
            self.is_severed.store(false, Ordering::SeqCst);
            self.inner.open(session).await
        }
    }

    instead! {
        async fn signal(self, run: RunId, name: Name, id: u128, payload: Payload) -> Signalled {
            self.answer(self.inner.signal(run, name, id, payload)).await
        }
    }

    instead! {
        async fn cancel(self, runs: Vec<RunId>, reason: Name) -> Vec<Cancelled> {
            self.answer(self.inner.cancel(runs, reason)).await
        }
    }

    pass_on! {
        info heartbeat close workflows announced sessions activity remove resume pause unpause paused start claim held disown commit record journal sequences load watch receive get list
        counts sweep fsck
    }
}

#[workflow(name = "lost:listen")]
struct Listen;

#[workflow]
impl Listen {
    #[step]
    async fn wait(&self, ctx: &StepContext) -> StepResult<u64> {
        Ok(ctx.wait_for("word").await?)
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_whose_session_ends_during_a_call_opens_another_one_and_does_not_say_so() {
    let inner = crate::backend().await;
    let worker = Hatchet::on(Arc::clone(&inner)).worker().only_registered().register(Listen).start().await.unwrap();
    let store = Arc::new(Severed { inner, is_severed: AtomicBool::new(false), session: Mutex::new(None) });
    let client = Hatchet::on(Arc::clone(&store) as Arc<dyn Backend>);
    let [told, cancelled] = [client.start::<Listen>(()).await.unwrap(), client.start::<Listen>(()).await.unwrap()];
    let first = *store.session.lock().unwrap();
    store.is_severed.store(true, Ordering::SeqCst);
    client.signal(told.id(), "word", &7).await.unwrap();
    let second = *store.session.lock().unwrap();
    store.is_severed.store(true, Ordering::SeqCst);
    client.cancel(cancelled.id(), "it is enough").await.unwrap();
    let third = *store.session.lock().unwrap();
    assert!(first != second && second != third, "{first:?}, {second:?}, {third:?}");
    assert_eq!(told.result().await.unwrap(), 7);
    let ended: RunError = cancelled.result().await.unwrap_err();
    assert_eq!(ended.kind(), RunErrorKind::Cancelled);
    worker.shutdown().await.unwrap();
}

/// A store that loses the answer to the first park, and refuses commits for a while then.
#[derive(Debug)]
struct Refusing {
    inner: Arc<dyn Backend>,
    parks: AtomicUsize,
    refuses: AtomicBool,
}

impl Backend for Refusing {
    instead! {
        async fn commit(self, session: SessionId, commits: Vec<Commit>) -> CommitReply {
            if self.refuses.load(Ordering::SeqCst) {
                let reason = "it takes no commit now".to_owned();
                return Err(BackendError::Unusable { backend: "refusing", reason, source: None });
            }
            let parks = commits.iter().any(|commit| matches!(commit.then, Then::Park(_)));
            let reply = self.inner.commit(session, commits).await?;
            if parks && self.parks.fetch_add(1, Ordering::SeqCst) == 0 {
                self.refuses.store(true, Ordering::SeqCst);
                return Err(BackendError::Unavailable { backend: "refusing", source: "the answer is lost".into() });
            }
            Ok(reply)
        }
    }

    pass_on! {
        info open heartbeat close workflows announced sessions activity remove resume pause unpause paused start claim held disown record journal sequences load watch receive cancel signal
        get list counts sweep fsck
    }
}

/// How many times the code behind the wait of `Brief` has run.
static BEHIND_THE_WAIT: AtomicUsize = AtomicUsize::new(0);

#[workflow(name = "lost:brief")]
struct Brief;

#[workflow]
impl Brief {
    #[step]
    async fn wait(&self, ctx: &StepContext) -> StepResult<u64> {
        let word: u64 = ctx.wait_for("word").await?;
        BEHIND_THE_WAIT.fetch_add(1, Ordering::SeqCst);
        Ok(word)
    }
}

#[tokio::test(start_paused = true)]
async fn a_step_that_may_be_parked_does_not_go_on_where_the_store_refuses_to_say_so() {
    let inner = crate::backend().await;
    let store = Arc::new(Refusing { inner, parks: AtomicUsize::new(0), refuses: AtomicBool::new(false) });
    let hatchet = Hatchet::on(Arc::clone(&store) as Arc<dyn Backend>);
    let builder = hatchet.worker().only_registered().register(Brief).park_after(secs(1));
    let worker = builder.start().await.unwrap();
    let run = hatchet.start::<Brief>(()).await.unwrap();
    sleep(secs(3)).await;
    assert!(store.refuses.load(Ordering::SeqCst), "the step is parked, and the answer is lost");
    hatchet.signal(run.id(), "word", &7).await.unwrap();
    sleep(secs(10)).await;
    store.refuses.store(false, Ordering::SeqCst);
    let result = timeout(secs(60), run.result()).await.expect("the parked step continues");
    assert_eq!(result.unwrap(), 7);
    assert_eq!(BEHIND_THE_WAIT.load(Ordering::SeqCst), 1);
    worker.shutdown().await.unwrap();
}
