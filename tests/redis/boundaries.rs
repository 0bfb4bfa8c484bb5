//! A worker process dies at each write boundary: before and after each call that changes something.

use std::time::Duration;

use crate::{
    program::{Branch, Tree},
    world::{ALWAYS, Spec, World},
};

/// How many worlds there are at once.
const AT_ONCE: u64 = 4;
/// More boundaries than the program has.
const MOST: u64 = 200;
const SLOTS: usize = 4;

/// Lets a worker die at a boundary and another one finish; whether the first one got so far.
async fn die_at(boundary: u64) -> bool {
    let world = World::new(ALWAYS).await;
    let tree = Branch { name: "tree".into(), fans: vec![2] };
    let run = world.hatchet.start::<Tree>(&tree).unchecked().await.unwrap();
    // The lease is short, for its end is waited for. A worker that loses it though it lives opens another session.
    let spec = Spec { lease: Duration::from_millis(400), slots: SLOTS, dies_at: Some(boundary), ..world.spec() };
    let mut mortal = world.start_worker(&spec);
    let outcome = tokio::select! {
        () = mortal.dies() => None,
        output = world.result(&run) => Some(output),
    };
    let died = outcome.is_none();
    let _heir = world.start_worker(&Spec { slots: SLOTS, ..world.spec() });
    let output = match outcome {
        Some(output) => output,
        None => world.result(&run).await,
    };
    assert_eq!(output, 2, "boundary {boundary}");
    world.ledger().check();
    world.check_children(run.id(), 2).await;
    world.check().await;
    died
}

#[tokio::test]
async fn a_worker_dies_at_each_write_boundary_and_another_one_finishes() {
    let mut first = 0;
    loop {
        let tests: Vec<_> = (first..first + AT_ONCE).map(|boundary| tokio::spawn(die_at(boundary))).collect();
        let mut survived = false;
        for test in tests {
            survived |= !test.await.expect("the test of a boundary");
        }
        first += AT_ONCE;
        if survived {
            eprintln!("a worker has about {first} boundaries");
            return;
        }
        assert!(first < MOST, "a worker never gets through");
    }
}
