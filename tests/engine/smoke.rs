use hatchet::{
    prelude::*,
    testing::{Boundary, TestWorld},
};

#[workflow]
struct Square;

#[workflow]
impl Square {
    #[step]
    async fn square(&self, _ctx: &StepContext, input: u64) -> StepResult<u64> {
        Ok(input * input)
    }
}

#[workflow]
struct SumOfSquares;

#[workflow]
impl SumOfSquares {
    #[step]
    async fn sum(&self, ctx: &StepContext, input: u64) -> StepResult<u64> {
        let mut children = Vec::new();
        for i in 0..input {
            children.push(ctx.spawn::<Square>(i).key(format!("child{i}")).await?);
        }
        Ok(ctx.gather(children).await?.into_iter().sum())
    }
}

#[workflow]
struct Bulk;

#[workflow]
impl Bulk {
    #[step]
    async fn sum(&self, ctx: &StepContext, input: u64) -> StepResult<u64> {
        Ok(ctx.spawn_all::<Square>(0..input).await?.gather().await?.into_iter().sum())
    }
}

#[tokio::test(start_paused = true)]
async fn a_parent_gathers_its_children() {
    let world = crate::world();
    let run = world.start::<SumOfSquares>(&10).await;
    assert_eq!(run.result().await.unwrap(), 285);
    assert_eq!(world.children(&run).await.len(), 10);
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_with_one_slot_runs_a_parent_and_its_children() {
    let world = crate::world().slots(1);
    let run = world.start::<SumOfSquares>(&10).await;
    assert_eq!(run.result().await.unwrap(), 285);
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn an_interrupted_parent_finds_the_same_children() {
    let world = crate::world();
    let run = world.start::<SumOfSquares>(&100).await;
    world.crash_worker_after(Boundary::ChildDone, 37).await;
    world.start_worker().await;
    assert_eq!(run.result().await.unwrap(), (0..100).map(|i| i * i).sum::<u64>());
    assert_eq!(world.children(&run).await.len(), 100);
    assert_eq!(world.attempts(&run, "sum").await, 1);
    assert_eq!(world.recoveries(&run, "sum").await, 1);
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_crash_anywhere_changes_nothing() {
    let points = TestWorld::sweep_crashes(crate::world, |world| async move {
        let run = world.start::<SumOfSquares>(&3).await;
        assert_eq!(world.survive(run.result()).await.unwrap(), 5);
        assert_eq!(world.children(&run).await.len(), 3);
    })
    .await;
    assert!(points > 10, "{points}");
}

#[tokio::test(start_paused = true)]
async fn a_hundred_thousand_children_in_one_step() {
    let world = crate::world();
    let run = world.start::<Bulk>(&100_000).await;
    assert_eq!(run.result().await.unwrap(), (0..100_000).map(|i| i * i).sum::<u64>());
}
