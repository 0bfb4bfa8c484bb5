//! The worker dies in the middle of a parent's work; another one resumes it, finds the children that there are, and nothing
//! is done twice. `cargo run --example crash_resume --features testing`

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use hatchet::{
    prelude::*,
    testing::{Boundary, TestWorld},
};

/// How often each thing happened.
#[derive(Clone, Default)]
struct Counts(Arc<Mutex<BTreeMap<String, u32>>>);

impl Counts {
    fn count(&self, what: String) {
        *self.0.lock().unwrap().entry(what).or_default() += 1;
    }

    fn print(&self) {
        self.0.lock().unwrap().iter().for_each(|(what, times)| println!("  {what}: {times}"));
    }
}

#[workflow]
struct Charge {
    counts: Counts,
}

#[workflow]
impl Charge {
    #[step]
    async fn charge(&self, ctx: &StepContext, input: u32) -> StepResult<u32> {
        self.counts.count(format!("step of child{input}"));
        let cents = ctx.run("charge", async || {
            self.counts.count(format!("charge of child{input}"));
            Ok::<_, StepError>(100 * input)
        });
        let cents = cents.await?;
        // When the worker dies, some have ended and some wait here. The timer outlives it.
        ctx.sleep(Duration::from_secs(input.into())).await?;
        Ok(cents)
    }
}

#[workflow]
struct ChargeAll {
    counts: Counts,
}

#[workflow]
impl ChargeAll {
    #[step]
    async fn spawn(&self, ctx: &StepContext, input: u32) -> StepResult<u32> {
        self.counts.count("step of the parent".to_owned());
        let mut children = Vec::new();
        for i in 1..=input {
            children.push(ctx.spawn::<Charge>(i).key(format!("child{i}")).await?);
        }
        Ok(ctx.gather(children).await?.into_iter().sum())
    }
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let counts = Counts::default();
    let (of_children, of_parent) = (counts.clone(), counts.clone());
    let world = TestWorld::new()
        .register(move || Charge { counts: of_children.clone() })
        .register(move || ChargeAll { counts: of_parent.clone() });

    let run = world.start::<ChargeAll>(&4).await;
    world.crash_worker_after(Boundary::ChildDone, 2).await;
    println!("the worker dies after two children; so far");
    counts.print();
    world.start_worker().await;
    println!("another worker ends it with {} cents; in all", run.result().await?);
    counts.print();

    // Each child was charged once, though the code of those that had not ended ran again from its start.
    assert!(counts.0.lock().unwrap().iter().all(|(what, times)| !what.starts_with("charge") || *times == 1));
    let (attempts, recoveries) = (world.attempts(&run, "spawn").await, world.recoveries(&run, "spawn").await);
    println!("{} children, parent: {attempts} attempt, {recoveries} recovery", world.children(&run).await.len());
    assert_eq!((attempts, recoveries), (1, 1));
    Ok(())
}
