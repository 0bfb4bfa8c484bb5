//! Waiting for one child, some, or all.

use std::{pin::Pin, task::Poll};

use hatchet::{RunErrorKind, prelude::*};
use serde_json::{Value, json};

use crate::play::{Do, Leaf, Play, begin, perform, secs, stage, world};

#[tokio::test(start_paused = true)]
async fn gather_gives_outputs_in_the_order_of_the_handles() {
    let world = world(|ctx, _| {
        Box::pin(async move {
            let inputs = [30, 10, 20, 0].map(|seconds| Do::After(seconds, seconds));
            Ok(json!(ctx.spawn_all::<Leaf>(inputs).await?.gather().await?))
        })
    });
    assert_eq!(perform(&world).await.unwrap(), json!([30, 10, 20, 0]));
}

#[tokio::test(start_paused = true)]
async fn gather_gives_the_failure_that_came_first_as_soon_as_it_came() {
    let world = world(|ctx, _| {
        Box::pin(async move {
            let began = ctx.now().await?;
            let inputs = [Do::After(100, 0), Do::FailAfter(20), Do::FailAfter(10), Do::Wait];
            let children = ctx.spawn_all::<Leaf>(inputs).keyed(|input| format!("{input:?}")).await?;
            let error = children.gather().await.unwrap_err();
            assert_eq!(error.key(), Some("FailAfter(10)"));
            let took = ctx.now().await?.duration_since(began).unwrap();
            assert!(took >= secs(10) && took < secs(20), "{took:?}");
            Ok(Value::Null)
        })
    });
    perform(&world).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn settled_gives_how_each_ended_in_the_order_of_the_handles() {
    let world = world(|ctx, _| {
        Box::pin(async move {
            let inputs = [Do::FailAfter(20), Do::After(10, 1), Do::Panic, Do::Give(2)];
            let settled = ctx.spawn_all::<Leaf>(inputs).await?.settled().await;
            let shown = settled.into_iter().map(|result| result.map_err(|error| error.message().to_owned()));
            Ok(json!(shown.map(|result| result.map_or_else(|e| e, |n| n.to_string())).collect::<Vec<_>>()))
        })
    });
    assert_eq!(perform(&world).await.unwrap(), json!(["it fails late", "1", "panicked: it panics", "2"]));
}

#[tokio::test(start_paused = true)]
async fn first_gives_the_child_that_ended_first_and_lets_the_others_go_on() {
    let world = world(|ctx, _| {
        Box::pin(async move {
            let children = ctx.spawn_all::<Leaf>([Do::After(30, 3), Do::FailAfter(5), Do::After(10, 1)]).await?;
            let others: Vec<_> = children.handles().collect();
            let first = children.first().await.unwrap();
            assert_eq!(first.index, 1);
            assert_eq!(first.result.unwrap_err().message(), "it fails late");
            assert_eq!(first.run, others[1].id());
            let winner = ctx.first([others[0].clone(), others[2].clone()]).await.unwrap();
            assert_eq!((winner.index, winner.result?), (1, 1));
            Ok(json!(others[0].clone().result().await?))
        })
    });
    assert_eq!(perform(&world).await.unwrap(), json!(3));
}

#[tokio::test(start_paused = true)]
async fn next_gives_each_child_once_in_the_order_in_which_they_ended() {
    let world = world(|ctx, _| {
        Box::pin(async move {
            let inputs = [After3, Fails2, After1, Now].map(|which| which.input());
            let mut children = ctx.spawn_all::<Leaf>(inputs).await?;
            let mut order = Vec::new();
            while let Some(child) = children.next().await {
                order.push(child.index);
            }
            assert!(children.next().await.is_none());
            // Another handle goes through them again.
            let mut again = ctx.together(children.handles().collect::<Vec<_>>());
            for expected in &order {
                assert_eq!(again.next().await.unwrap().index, *expected);
            }
            Ok(json!(order))
        })
    });
    assert_eq!(perform(&world).await.unwrap(), json!([3, 2, 1, 0]));
}

use Which::*;

#[derive(Clone, Copy)]
enum Which {
    After3,
    Fails2,
    After1,
    Now,
}

impl Which {
    fn input(self) -> Do {
        match self {
            After3 => Do::After(3, 0),
            Fails2 => Do::FailAfter(2),
            After1 => Do::After(1, 0),
            Now => Do::Give(0),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_the_next_child_that_is_given_up_loses_nothing() {
    let world = world(|ctx, _| {
        Box::pin(async move {
            let mut children = ctx.spawn_all::<Leaf>((1..=5).map(|seconds| Do::After(seconds * 10, seconds))).await?;
            let mut order = Vec::new();
            let mut ticks = 0;
            while order.len() < 5 {
                tokio::select! {
                    child = children.next() => order.push(child.unwrap().result?),
                    slept = ctx.sleep(secs(3)) => {
                        slept?;
                        ticks += 1;
                    }
                }
            }
            assert!(ticks >= 15, "{ticks}");
            Ok(json!(order))
        })
    });
    assert_eq!(perform(&world).await.unwrap(), json!([1, 2, 3, 4, 5]));
}

#[tokio::test(start_paused = true)]
async fn thousands_of_children_are_met_one_by_one() {
    for park in [false, true] {
        let count = if park { 40 } else { 20_000 };
        let mut world = crate::world();
        if park {
            world = world.always_park();
        }
        let world = stage(world, move |ctx, _| {
            Box::pin(async move {
                let mut children = ctx.spawn_all::<Leaf>((0..count).map(Do::Give)).await?;
                let mut sum = 0;
                while let Some(child) = children.next().await {
                    sum += child.result?;
                }
                Ok(json!(sum))
            })
        });
        assert_eq!(perform(&world).await.unwrap(), json!((0..count).sum::<u64>()));
    }
}

#[tokio::test(start_paused = true)]
async fn waiting_for_no_children_is_over_at_once() {
    let world = world(|ctx, _| {
        Box::pin(async move {
            let none = || Vec::<hatchet::ChildHandle<'_, u64>>::new();
            assert_eq!(ctx.gather(none()).await?, Vec::<u64>::new());
            assert!(ctx.settled(none()).await.is_empty());
            assert!(ctx.first(none()).await.is_none());
            assert!(ctx.together(none()).next().await.is_none());
            Ok(json!(ctx.spawn_all::<Leaf>(Vec::<Do>::new()).await?.gather().await?))
        })
    });
    assert_eq!(perform(&world).await.unwrap(), json!([]));
}

#[tokio::test(start_paused = true)]
async fn a_child_that_has_ended_before_anyone_waits_answers_at_once() {
    let world = world(|ctx, _| {
        Box::pin(async move {
            let children = ctx.spawn_all::<Leaf>([Do::Give(1), Do::Give(2)]).await?;
            let failed = ctx.spawn::<Leaf>(Do::Fail).await?;
            ctx.sleep(secs(60)).await?;
            assert_eq!(failed.clone().result().await.unwrap_err().message(), "it fails");
            assert_eq!(failed.result().await.unwrap_err().message(), "it fails");
            Ok(json!(children.gather().await?))
        })
    });
    assert_eq!(perform(&world).await.unwrap(), json!([1, 2]));
}

#[tokio::test(start_paused = true)]
async fn clones_of_a_handle_can_be_awaited_at_the_same_time() {
    let world = world(|ctx, _| {
        Box::pin(async move {
            let child = ctx.spawn::<Leaf>(Do::After(5, 7)).await?;
            let (first, second) = tokio::join!(child.clone().result(), child.clone().result());
            Ok(json!([first?, second?, child.result().await?]))
        })
    });
    assert_eq!(perform(&world).await.unwrap(), json!([7, 7, 7]));
}

/// Polls all futures whenever one of them may go on.
async fn join_all<T>(futures: impl IntoIterator<Item = impl Future<Output = T> + Send>) -> Vec<T> {
    let mut futures: Vec<Pin<Box<_>>> = futures.into_iter().map(Box::pin).collect();
    let mut results: Vec<Option<T>> = futures.iter().map(|_| None).collect();
    std::future::poll_fn(move |cx| {
        for (future, result) in futures.iter_mut().zip(&mut results).filter(|(_, result)| result.is_none()) {
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                *result = Some(output);
            }
        }
        if results.iter().any(Option::is_none) {
            return Poll::Pending;
        }
        Poll::Ready(results.iter_mut().filter_map(Option::take).collect())
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn many_results_can_be_joined_by_other_means_than_gather() {
    for park in [false, true] {
        let mut world = crate::world();
        if park {
            world = world.always_park();
        }
        let world = stage(world, |ctx, _| {
            Box::pin(async move {
                let spawned = join_all((0..60).map(|i| ctx.spawn::<Leaf>(Do::After(i % 7, i)).into_future())).await;
                let children: Result<Vec<_>, _> = spawned.into_iter().collect();
                let results = join_all(children?.into_iter().map(|child| child.result())).await;
                Ok(json!(results.into_iter().collect::<Result<Vec<u64>, _>>()?))
            })
        });
        assert_eq!(perform(&world).await.unwrap(), json!((0..60).collect::<Vec<u64>>()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_child_and_a_timer_race() {
    let world = world(|ctx, _| {
        Box::pin(async move {
            let slow = ctx.spawn::<Leaf>(Do::Wait).key("slow").await?;
            let fast = ctx.spawn::<Leaf>(Do::After(5, 1)).key("fast").await?;
            let timed_out = tokio::select! {
                _ = slow.clone().result() => false,
                _ = ctx.sleep(secs(60)) => true,
            };
            slow.cancel("too slow").await?;
            assert!(slow.result().await.unwrap_err().is_cancelled());
            let answered = tokio::select! {
                answer = fast.result() => answer? == 1,
                _ = ctx.sleep(secs(60)) => false,
            };
            Ok(json!([timed_out, answered]))
        })
    });
    assert_eq!(perform(&world).await.unwrap(), json!([true, true]));
}

#[tokio::test(start_paused = true)]
async fn one_child_is_cancelled_and_its_siblings_go_on() {
    let world = world(|ctx, _| {
        Box::pin(async move {
            let doomed = ctx.spawn::<Leaf>(Do::Wait.nest()).key("doomed").await?;
            let other = ctx.spawn::<Leaf>(Do::After(60, 5)).key("other").await?;
            ctx.sleep(secs(1)).await?;
            doomed.cancel("not wanted").await?;
            let error = doomed.clone().result().await.unwrap_err();
            assert_eq!((error.kind(), error.message()), (RunErrorKind::Cancelled, "not wanted"));
            let number = other.clone().result().await?;
            other.cancel("too late").await?;
            assert_eq!(other.result().await?, number, "what has ended stays as it is");
            Ok(json!(number))
        })
    });
    let run = begin::<Play>(&world).await;
    assert_eq!(run.result().await.unwrap(), json!(5));
    let doomed = crate::play::child(&world, &run, "doomed").await;
    let doomed = crate::play::handle_of(&world, &doomed).await;
    assert_eq!(crate::play::statuses(&world, &doomed).await, [("inner".to_owned(), hatchet::RunStatus::Cancelled)]);
    world.check().await;
}

/// Gives a text of so many kibibytes.
#[workflow(name = "children:large")]
struct Large;

#[workflow]
impl Large {
    #[step]
    async fn write(&self, _ctx: &StepContext, input: usize) -> StepResult<String> {
        Ok(input.to_string().repeat(input << 10))
    }
}

#[tokio::test(start_paused = true)]
async fn a_large_output_can_be_had_as_often_as_it_is_asked_for() {
    let world = world(|ctx, _| {
        Box::pin(async move {
            let sizes = [1, 5, 200];
            let mut children = ctx.spawn_all::<Large>(sizes).await?;
            let handles: Vec<_> = children.handles().collect();
            let mut seen = 0;
            while let Some(child) = children.next().await {
                assert_eq!(child.result?, sizes[child.index].to_string().repeat(sizes[child.index] << 10));
                seen += 1;
            }
            assert_eq!(seen, 3);
            for (handle, size) in handles.iter().zip(sizes) {
                assert_eq!(handle.clone().result().await?.len(), size.to_string().len() * (size << 10));
            }
            let mut again = ctx.together(handles.clone());
            while let Some(child) = again.next().await {
                child.result?;
            }
            assert_eq!(ctx.gather(handles.clone()).await?.len(), 3);
            let twice = handles.iter().chain(&handles).cloned();
            let lengths: Vec<_> = ctx.settled(twice).await.into_iter().map(|text| text.unwrap().len()).collect();
            assert_eq!(lengths[..3], lengths[3..]);
            assert_eq!(children.settled().await.into_iter().filter(Result::is_ok).count(), 3);
            Ok(Value::Null)
        })
    });
    perform(&world).await.unwrap();
}
