use std::collections::BTreeSet;

use super::*;

fn graph(needs: &[&[u16]], on_failure: bool) -> Graph {
    Graph { needs: needs.iter().map(|needs| needs.to_vec()).collect(), on_failure }
}

fn steps(positions: &[u16]) -> Vec<StepIndex> {
    positions.iter().copied().map(StepIndex).collect()
}

/// Plays a run: each active step in turn ends as `fails` says, in the order that `pick` chooses.
fn play(
    graph: &Graph,
    fails: impl Fn(u16) -> bool,
    mut pick: impl FnMut(usize) -> usize,
) -> (RunState, Decision, Vec<u16>) {
    let mut active = Vec::new();
    let mut order = Vec::new();
    let (mut state, mut decision) = apply(graph, RunState::default(), RunEvent::Started);
    loop {
        match &decision {
            Decision::Go(ready) => active.extend(ready.iter().copied()),
            Decision::CleanUp(step, _) => active.push(*step),
            _ => {
                assert!(active.is_empty(), "the run ended while {active:?} were active");
                return (state, decision, order);
            }
        }
        let step = active.remove(pick(active.len()));
        order.push(step.0);
        let event = if fails(step.0) { RunEvent::Failed(step) } else { RunEvent::Succeeded(step) };
        (state, decision) = apply(graph, state, event);
    }
}

const DIAMOND: &[&[u16]] = &[&[], &[0], &[0], &[1, 2]];

#[test]
fn a_step_starts_when_all_it_needs_has_succeeded() {
    let graph = graph(DIAMOND, false);
    let (state, first) = apply(&graph, RunState::default(), RunEvent::Started);
    assert_eq!(first, Decision::Go(steps(&[0])));
    let (state, both) = apply(&graph, state, RunEvent::Succeeded(StepIndex(0)));
    assert_eq!(both, Decision::Go(steps(&[1, 2])));
    let (state, none) = apply(&graph, state, RunEvent::Succeeded(StepIndex(2)));
    assert_eq!(none, Decision::Go(vec![]));
    let (state, last) = apply(&graph, state, RunEvent::Succeeded(StepIndex(1)));
    assert_eq!(last, Decision::Go(steps(&[3])));
    let (_, end) = apply(&graph, state, RunEvent::Succeeded(StepIndex(3)));
    assert_eq!(end, Decision::Succeed(steps(&[3])));
}

#[test]
fn a_failure_cancels_what_needs_it_and_lets_the_rest_finish() {
    // 0 -> 1 -> 2, and 3 -> 4 beside it
    let graph = graph(&[&[], &[0], &[1], &[], &[3]], false);
    let (state, end, order) = play(&graph, |step| step == 0, |_| 0);
    assert_eq!(order, [0, 3, 4]);
    assert_eq!(end, Decision::Fail(steps(&[0])));
    assert_eq!(state.as_bytes(), b"fccssw");
}

#[test]
fn on_failure_runs_once_with_all_failures_and_does_not_change_the_outcome() {
    let graph = graph(&[&[], &[], &[0, 1]], true);
    for cleanup_fails in [false, true] {
        let fails = |step| step < 2 || (step == 3 && cleanup_fails);
        let (_, end, order) = play(&graph, fails, |_| 0);
        assert_eq!(order, [0, 1, 3]);
        assert_eq!(end, Decision::Fail(steps(&[0, 1])));
    }
    let (_, end, order) = play(&graph, |_| false, |_| 0);
    assert_eq!((order, end), (vec![0, 1, 2], Decision::Succeed(steps(&[2]))));
}

#[test]
fn an_event_is_applied_once() {
    let graph = graph(DIAMOND, true);
    let (state, _) = apply(&graph, RunState::default(), RunEvent::Started);
    let (state, _) = apply(&graph, state, RunEvent::Succeeded(StepIndex(0)));
    for event in [
        RunEvent::Started,
        RunEvent::Succeeded(StepIndex(0)),
        RunEvent::Failed(StepIndex(0)),
        RunEvent::Failed(StepIndex(3)),
    ] {
        assert_eq!(apply(&graph, state.clone(), event), (state.clone(), Decision::Stale));
    }
}

#[test]
fn every_order_of_every_small_graph_ends_the_same_way() {
    let mut seed = 1u64;
    let mut random = move |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % below
    };
    for case in 0..2_000 {
        let count = 1 + case % 7;
        let needs: Vec<Vec<u16>> =
            (0..count as u16).map(|step| (0..step).filter(|_| random(3) == 0).collect()).collect();
        let graph = Graph { needs, on_failure: case % 2 == 0 };
        let failing: BTreeSet<u16> = (0..count as u16).filter(|_| random(4) == 0).collect();
        let (_, expected, first_order) = play(&graph, |step| failing.contains(&step), |_| 0);
        for _ in 0..5 {
            let (_, end, order) = play(&graph, |step| failing.contains(&step), &mut random);
            assert_eq!(end, expected);
            let set = |order: &[u16]| order.iter().copied().collect::<BTreeSet<_>>();
            assert_eq!(set(&order), set(&first_order));
            assert_eq!(set(&order).len(), order.len(), "a step ran twice");
        }
    }
}

#[test]
fn a_cycle_is_found() {
    assert_eq!(graph(&[&[], &[0, 3], &[1], &[2]], false).first_of_a_cycle(), Some(1));
    assert_eq!(graph(DIAMOND, false).first_of_a_cycle(), None);
}

#[test]
fn bytes_that_are_no_state_of_the_graph_count_as_not_started() {
    let graph = graph(DIAMOND, false);
    let (state, _) = apply(&graph, RunState::default(), RunEvent::Started);
    assert_eq!(RunState::from_bytes(&graph, state.as_bytes()), state);
    assert_eq!(RunState::from_bytes(&graph, b"was"), RunState::default());
    assert_eq!(RunState::from_bytes(&graph, b"xwwww"), RunState::default());
}
