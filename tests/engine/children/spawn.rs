//! The ways to spawn, and what can be said about a child.

use std::time::Duration;

use hatchet::{Priority, RunStatus, backend::Slot};
use serde_json::{Value, json};

use crate::play::{Do, Leaf, Play, begin, child, perform, secs, world};

fn is_after(later: hatchet::Timestamp, earlier: hatchet::Timestamp, by: Duration) -> bool {
    Duration::from_millis(later.0 - earlier.0) >= by
}

#[tokio::test(start_paused = true)]
async fn children_in_a_loop_have_their_keys() {
    let world = world(|ctx, _| {
        Box::pin(async move {
            let mut children = Vec::new();
            for i in 0..5 {
                children.push(ctx.spawn::<Leaf>(Do::Give(i)).key(format!("child{i}")).await?);
            }
            assert_eq!(children[3].key().as_deref(), Some("child3"));
            Ok(json!(ctx.gather(children).await?))
        })
    });
    let run = begin::<Play>(&world).await;
    assert_eq!(run.result().await.unwrap(), json!([0, 1, 2, 3, 4]));
    let mut keys: Vec<_> = world.children(&run).await.into_iter().map(|child| child.key.unwrap().to_string()).collect();
    keys.sort();
    assert_eq!(keys, ["child0", "child1", "child2", "child3", "child4"]);
}

#[tokio::test(start_paused = true)]
async fn children_without_keys_have_their_indexes() {
    let world = world(|ctx, _| {
        Box::pin(async move {
            let mut children = Vec::new();
            for i in 0..5 {
                children.push(ctx.spawn::<Leaf>(Do::Give(i)).await?);
            }
            let slots: Vec<_> = children.iter().map(|child| child.id().origin().unwrap().slot).collect();
            assert_eq!(slots, (0..5).map(Slot::Index).collect::<Vec<_>>());
            assert_eq!(children[0].key(), None);
            Ok(json!(ctx.gather(children).await?))
        })
    });
    assert_eq!(perform(&world).await.unwrap(), json!([0, 1, 2, 3, 4]));
}

#[tokio::test(start_paused = true)]
async fn a_thousand_children_are_spawned_at_once() {
    let world = world(|ctx, _| {
        Box::pin(async move {
            let children = ctx.spawn_all::<Leaf>((0..1_000).map(Do::Give)).await?;
            assert_eq!(children.len(), 1_000);
            let slots: Vec<_> = children.handles().map(|child| child.id().origin().unwrap().slot).collect();
            assert_eq!(slots, (0..1_000).map(Slot::Index).collect::<Vec<_>>());
            Ok(json!(children.gather().await?))
        })
    });
    let run = begin::<Play>(&world).await;
    assert_eq!(run.result().await.unwrap(), json!((0..1_000).collect::<Vec<u64>>()));
    assert_eq!(world.children(&run).await.len(), 1_000);
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_bulk_call_takes_as_many_indexes_as_it_has_inputs() {
    let world = world(|ctx, _| {
        Box::pin(async move {
            let before = ctx.spawn::<Leaf>(Do::Give(100)).await?;
            let many = ctx.spawn_all::<Leaf>((0..3).map(Do::Give)).await?;
            let none = ctx.spawn_all::<Leaf>(Vec::<Do>::new()).await?;
            let after = ctx.spawn::<Leaf>(Do::Give(200)).await?;
            assert!(none.is_empty());
            assert_eq!(before.id().origin().unwrap().slot, Slot::Index(0));
            assert_eq!(after.id().origin().unwrap().slot, Slot::Index(4));
            let all: Vec<_> = std::iter::once(before).chain(many.handles()).chain([after]).collect();
            Ok(json!(ctx.gather(all).await?))
        })
    });
    assert_eq!(perform(&world).await.unwrap(), json!([100, 0, 1, 2, 200]));
}

#[tokio::test(start_paused = true)]
async fn children_are_spawned_by_type_and_by_name_in_one_journal() {
    let world = world(|ctx, _| {
        Box::pin(async move {
            let typed = ctx.spawn::<Leaf>(Do::Give(1)).key("same").await?;
            let named = ctx.spawn_named("leaf", json!({ "Give": 1 })).key("same").await?;
            assert_eq!(typed.id(), named.id());
            let other = ctx.spawn_named("leaf", Do::Give(2)).await?;
            let value: Value = other.clone().result().await?;
            let number: u64 = other.result().await?;
            Ok(json!([typed.result().await?, named.result::<u64>().await?, value, number]))
        })
    });
    let run = begin::<Play>(&world).await;
    assert_eq!(run.result().await.unwrap(), json!([1, 1, 2, 2]));
    assert_eq!(world.children(&run).await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_output_of_another_type_is_unreadable_and_not_lost() {
    let world = world(|ctx, _| {
        Box::pin(async move {
            let child = ctx.spawn_named("leaf", Do::Give(2)).await?;
            let error = child.clone().result::<String>().await.unwrap_err();
            assert_eq!(error.kind(), hatchet::RunErrorKind::Unreadable);
            Ok(json!(child.result::<u64>().await?))
        })
    });
    assert_eq!(perform(&world).await.unwrap(), json!(2));
}

#[tokio::test(start_paused = true)]
async fn children_inherit_labels_and_headers_and_overlay_their_own() {
    let world = world(|ctx, _| {
        Box::pin(async move {
            let child = ctx.spawn::<Leaf>(Do::Give(1).nest()).key("c");
            child.metadata("tenant", "own").metadata("page", "7").header("traceparent", "b").await?.result().await?;
            Ok(Value::Null)
        })
    });
    let start = world.client().await.start::<Play>(Value::Null).metadata("tenant", "acme").metadata("job", "1");
    let run = start.header("traceparent", "a").header("baggage", "x").await.unwrap();
    run.result().await.unwrap();
    let child = child(&world, &run, "c").await;
    let inner = world.children(&crate::play::handle_of(&world, &child).await).await.remove(0);
    for run in [child, inner] {
        let pairs = |pairs: &hatchet::backend::Pairs| pairs.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>();
        assert_eq!(pairs(&run.metadata), ["job=1", "page=7", "tenant=own"]);
        assert_eq!(pairs(&run.headers), ["baggage=x", "traceparent=b"]);
    }
    assert_eq!(world.view(&run).await.metadata["tenant"], "acme");
}

#[tokio::test(start_paused = true)]
async fn an_urgent_child_goes_before_others_of_its_queue() {
    let world = world(|ctx, _| {
        Box::pin(async move {
            let mut children = Vec::new();
            for (key, priority) in [("low", Priority::Low), ("normal", Priority::Normal), ("high", Priority::High)] {
                children.push(ctx.spawn::<Leaf>(Do::Give(0)).key(key).priority(priority).await?);
            }
            let mut children = ctx.together(children);
            let mut order = Vec::new();
            while let Some(child) = children.next().await {
                order.push(child.key.unwrap_or_default());
            }
            Ok(json!(order))
        })
    });
    assert_eq!(perform(&world.slots(1)).await.unwrap(), json!(["high", "normal", "low"]));
}

#[tokio::test(start_paused = true)]
async fn a_delayed_child_starts_after_its_delay() {
    let world = world(|ctx, _| {
        Box::pin(async move {
            let child = ctx.spawn::<Leaf>(Do::Give(1)).key("late").delay(secs(3600)).await?;
            Ok(json!(child.result().await?))
        })
    });
    let run = begin::<Play>(&world).await;
    run.result().await.unwrap();
    let child = child(&world, &run, "late").await;
    assert!(is_after(child.started.unwrap(), child.created, secs(3600)));
}

#[tokio::test(start_paused = true)]
async fn a_child_goes_to_the_queue_that_it_is_given() {
    let world = world(|ctx, _| {
        Box::pin(
            async move { Ok(json!(ctx.spawn::<Leaf>(Do::Give(1)).key("far").queue("far").await?.result().await?)) },
        )
    });
    let run = begin::<Play>(&world).await;
    crate::play::until(async || !world.children(&run).await.is_empty()).await;
    tokio::time::sleep(secs(3600)).await;
    let far = child(&world, &run, "far").await;
    assert_eq!((&*far.queue, far.status), ("far", RunStatus::Queued));
    let worker = world.client().await.worker().only_registered().register(Leaf).queue("far", 1).start().await.unwrap();
    assert_eq!(run.result().await.unwrap(), json!(1));
    worker.shutdown().await.unwrap();
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn a_bulk_call_gives_its_options_to_each_child() {
    let world = world(|ctx, _| {
        Box::pin(async move {
            let many = ctx.spawn_all::<Leaf>((0..3).map(Do::Give)).metadata("part", "yes").priority(Priority::High);
            Ok(json!(many.header("h", "1").delay(secs(5)).keyed(|input| format!("{input:?}")).await?.gather().await?))
        })
    });
    let run = begin::<Play>(&world).await;
    assert_eq!(run.result().await.unwrap(), json!([0, 1, 2]));
    let children = world.children(&run).await;
    assert_eq!(children.len(), 3);
    for child in children {
        assert_eq!((child.metadata["part"].as_str(), child.headers["h"].as_str()), ("yes", "1"));
        assert_eq!(child.priority, Priority::High);
        assert!(child.key.is_some() && is_after(child.started.unwrap(), child.created, secs(5)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_child_can_have_a_plain_step() {
    let world = world(|ctx, _| {
        Box::pin(async move { Ok(json!(ctx.spawn_named("journal:plain", 4).await?.result::<u64>().await?)) })
    });
    assert_eq!(perform(&world).await.unwrap(), json!(8));
}

#[tokio::test(start_paused = true)]
async fn a_spawn_returns_before_the_child_has_ended() {
    let world = world(|ctx, _| {
        Box::pin(async move {
            let began = ctx.now().await?;
            let child = ctx.spawn::<Leaf>(Do::After(60, 1)).await?;
            assert_eq!(ctx.now().await?, began);
            child.result().await?;
            Ok(json!(ctx.now().await?.duration_since(began).unwrap() >= secs(60)))
        })
    });
    assert_eq!(perform(&world).await.unwrap(), json!(true));
}
