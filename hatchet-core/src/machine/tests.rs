use std::collections::BTreeSet;

use super::*;

fn graph(needs: &[&[u16]], on_failure: bool) -> Graph {
    Graph::of(needs, on_failure)
}

fn read(graph: &Graph, state: &str) -> RunState {
    RunState::read(graph, state.as_bytes()).unwrap()
}

/// Code whose steps are called like this, each with the positions of those that it needs.
fn code(steps: &[(&str, &[u16])]) -> Graph {
    let names = steps.iter().map(|(name, _)| Name::from(*name)).collect();
    Graph { names, needs: steps.iter().map(|(_, needs)| needs.to_vec()).collect(), on_failure: false }
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
    let (mut state, mut decision) = apply(graph, RunState::unstarted(graph), RunEvent::Started);
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
    let (state, first) = apply(&graph, RunState::unstarted(&graph), RunEvent::Started);
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
    assert_eq!(&state.to_bytes()[..], b"a=f,b=c,c=c,d=s,e=s");
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
    let (state, _) = apply(&graph, RunState::unstarted(&graph), RunEvent::Started);
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
        let needs: Vec<&[u16]> = needs.iter().map(Vec::as_slice).collect();
        let graph = graph(&needs, case % 2 == 0);
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
fn a_state_reads_back_and_what_is_none_is_refused() {
    let graph = graph(DIAMOND, true);
    let (state, _) = apply(&graph, RunState::unstarted(&graph), RunEvent::Started);
    assert_eq!(&state.to_bytes()[..], b"a=a,b=w,c=w,d=w,#on_failure=w");
    assert_eq!(RunState::read(&graph, &state.to_bytes()), Ok(state));
    assert_eq!(RunState::read(&graph, b""), Ok(RunState::unstarted(&graph)));
    for other in ["was", "a=x", "a=w,,b=w", "a=w=", "\u{7f}"] {
        assert_eq!(RunState::read(&graph, other.as_bytes()), Err(Unreadable), "{other:?}");
    }
}

/// All states of three steps.
fn all_states() -> impl Iterator<Item = String> {
    let letters = || "wasfcr".chars();
    letters().flat_map(move |a| letters().flat_map(move |ab| letters().map(move |c| format!("a={a},ab={ab},c={c}"))))
}

#[test]
fn what_the_code_at_hand_wrote_reads_as_what_other_code_wrote() {
    let graph = code(&[("a", &[]), ("ab", &[0]), ("c", &[1])]);
    for text in all_states() {
        let (own, longer) = (read(&graph, &text), read(&graph, &format!("{text},d=w")));
        assert_eq!((&own.steps[..], &own.numbers), (&longer.steps[..3], &longer.numbers), "{text}");
        assert_eq!(&own.to_bytes()[..], text.as_bytes());
        assert_eq!(own.missing().count(), 0);
    }
    assert_eq!(read(&graph, "a=a,ab=w,c=w,d=s").missing().map(|name| &**name).collect::<Vec<_>>(), ["d"]);
    for other in ["a=a,ab=w,c=", "a=a,ab=w,c=ww", "a=a,ab=w,c=w,", "a=a,ab=x,c=w"] {
        assert_eq!(RunState::read(&graph, other.as_bytes()), Err(Unreadable), "{other:?}");
    }
}

#[test]
fn a_state_is_behind_another_whatever_steps_are_added() {
    for (state, other) in all_states().flat_map(|state| all_states().map(move |other| (state.clone(), other))) {
        let longer = is_behind(state.as_bytes(), format!("{other},d=w").as_bytes());
        assert_eq!(is_behind(state.as_bytes(), other.as_bytes()), longer && state != other, "{state} {other}");
    }
    assert!(!is_behind(b"a=w,b=w", b"a=a,c=w"), "the states of two runs");
}

#[test]
fn the_order_of_the_source_means_nothing() {
    let before = code(&[("charge", &[]), ("audit", &[]), ("end", &[0, 1])]);
    let after = code(&[("end", &[1, 2]), ("audit", &[]), ("charge", &[])]);
    let (state, _) = apply(&before, RunState::unstarted(&before), RunEvent::Started);
    let (state, _) = apply(&before, state, RunEvent::Succeeded(StepIndex(0)));
    let state = RunState::read(&after, &state.to_bytes()).unwrap();
    assert_eq!(state.position(StepIndex(0)), Some(2), "charge");
    let (state, decision) = apply(&after, state, RunEvent::Succeeded(StepIndex(1)));
    assert_eq!((&state.to_bytes()[..], decision), (&b"charge=s,audit=s,end=a"[..], Decision::Go(steps(&[2]))));
}

#[test]
fn what_has_not_begun_follows_the_code_at_hand() {
    // A step at the end, one at the beginning, one between, and one that is gone.
    let code = code(&[("first", &[]), ("charge", &[]), ("pack", &[1]), ("ship", &[2]), ("mail", &[3])]);
    let (state, decision) = apply(&code, read(&code, "charge=a,ship=w,gone=w"), RunEvent::Succeeded(StepIndex(0)));
    assert_eq!(decision, Decision::Go(steps(&[3, 4])), "first and pack");
    assert_eq!(&state.to_bytes()[..], b"charge=s,ship=w,gone=w,first=a,pack=a,mail=w");
    let (state, _) = apply(&code, state, RunEvent::Succeeded(StepIndex(3)));
    let (state, decision) = apply(&code, state, RunEvent::Succeeded(StepIndex(4)));
    assert_eq!(decision, Decision::Go(steps(&[1])));
    // Code that does not know the last one ends without it.
    let before = self::code(&[("first", &[]), ("charge", &[]), ("pack", &[1]), ("ship", &[2])]);
    let (_, decision) =
        apply(&before, read(&before, "charge=s,ship=a,first=s,pack=s,mail=w"), RunEvent::Succeeded(StepIndex(1)));
    assert_eq!(decision, Decision::Succeed(steps(&[2, 1])));
    drop(state);
}

#[test]
fn a_new_step_behind_one_that_failed_is_cancelled() {
    let code = code(&[("charge", &[]), ("ship", &[0]), ("mail", &[1]), ("audit", &[])]);
    let (state, decision) = apply(&code, read(&code, "charge=f,ship=c,audit=a"), RunEvent::Succeeded(StepIndex(2)));
    assert_eq!(
        (&state.to_bytes()[..], decision),
        (&b"charge=f,ship=c,audit=s,mail=c"[..], Decision::Fail(steps(&[0])))
    );
}

#[test]
fn what_has_begun_and_is_missing_stops_the_code() {
    let code = code(&[("charge", &[])]);
    for (state, fits) in [
        ("charge=a,ship=w", true),
        ("charge=a,ship=c", true),
        ("charge=a,ship=a", false),
        ("charge=a,ship=s", false),
        ("charge=a,#on_failure=a", false),
    ] {
        let (after, decision) = apply(&code, read(&code, state), RunEvent::Succeeded(StepIndex(0)));
        assert_eq!(after.missing().next().is_none(), fits, "{state}");
        assert_eq!(decision == Decision::Misfit, !fits, "{state}");
        assert!(after.is_over(StepIndex(0)), "what was done is done");
    }
    // Code that has it goes on from there.
    let both = self::code(&[("charge", &[]), ("ship", &[]), ("mail", &[0, 1])]);
    let (_, decision) = apply(&both, read(&both, "charge=s,ship=s"), RunEvent::Looked);
    assert_eq!(decision, Decision::Go(steps(&[2])));
    let (_, decision) = apply(&both, read(&both, "charge=s,ship=s,mail=s"), RunEvent::Looked);
    assert_eq!(decision, Decision::Succeed(steps(&[2])));
}

#[test]
fn a_run_of_one_step_goes_on_as_the_step_of_that_name() {
    let code = code(&[("audit", &[]), ("charge", &[]), ("ship", &[1])]);
    let (state, ready) = RunState::begun_by_one_step(&code, 1);
    assert_eq!((&state.to_bytes()[..], ready), (&b"charge=a,audit=a,ship=w"[..], steps(&[1])));
}

#[test]
fn what_a_step_that_has_begun_would_need_waits_for_its_end() {
    let code = code(&[("charge", &[]), ("weigh", &[]), ("pack", &[1]), ("ship", &[0, 2]), ("mail", &[0])]);
    // Other code has begun `ship` without what this code has in front of it. That code fits until something of it has begun.
    let begun = read(&code, "charge=a,ship=a");
    let (state, decision) = apply(&code, begun, RunEvent::Succeeded(StepIndex(0)));
    assert_eq!(
        (state.to_bytes(), decision),
        ("charge=s,ship=a,weigh=w,pack=w,mail=a".into(), Decision::Go(steps(&[4])))
    );
    let (state, decision) = apply(&code, state, RunEvent::Succeeded(StepIndex(1)));
    assert_eq!(
        (state.to_bytes(), decision),
        ("charge=s,ship=s,weigh=a,pack=w,mail=a".into(), Decision::Go(steps(&[2])))
    );
}

/// Plans a restart of a run in this state; what becomes ready.
fn restarted(graph: &Graph, state: &str, step: &str) -> (String, Vec<StepIndex>) {
    let marked = marked_for_restart(state.as_bytes(), step).unwrap();
    let marked = RunState::read(graph, &marked).unwrap();
    assert!(marked.is_restarted());
    let (after, ready) = restart(graph, marked);
    (String::from_utf8(after.to_bytes().to_vec()).unwrap(), ready)
}

#[test]
fn a_restart_keeps_what_does_not_need_the_step() {
    let graph = graph(DIAMOND, false);
    let (state, ready) = restarted(&graph, "a=s,b=s,c=s,d=f", "b");
    assert_eq!((&state[..], ready), ("a=s,b=a,c=s,d=w", steps(&[1])));
    // What had failed beside it runs again too.
    let (state, ready) = restarted(&graph, "a=s,b=s,c=f,d=c", "b");
    assert_eq!((&state[..], ready), ("a=s,b=a,c=a,d=w", steps(&[1, 2])));
    let (state, ready) = restarted(&graph, "a=s,b=s,c=s,d=s", "a");
    assert_eq!((&state[..], ready), ("a=a,b=w,c=w,d=w", steps(&[0])));
    let (state, ready) = restarted(&graph, "a=s,b=s,c=s,d=s", "d");
    assert_eq!((&state[..], ready), ("a=s,b=s,c=s,d=a", steps(&[3])));
}

#[test]
fn a_restart_follows_the_graph_of_the_code_at_hand() {
    // The order of its steps, one that is new, and one that does not need the marked step any more.
    let graph = code(&[("ship", &[1, 3]), ("hold", &[2]), ("charge", &[]), ("audit", &[]), ("mail", &[2])]);
    let (state, ready) = restarted(&graph, "charge=s,hold=s,ship=s,mail=s", "hold");
    assert_eq!(state, "charge=s,hold=a,ship=w,mail=s,audit=a");
    assert_eq!(ready, steps(&[1, 4]));
    // What succeeded and is gone is missing; what did not is forgotten.
    let gone = code(&[("charge", &[]), ("ship", &[0])]);
    let read = |state: &str, step| {
        let marked = marked_for_restart(state.as_bytes(), step).unwrap();
        restart(&gone, RunState::read(&gone, &marked).unwrap()).0.missing().map(|name| name.to_string()).collect()
    };
    let missing: [Vec<String>; 3] = [
        read("charge=s,hold=s,ship=f", "ship"),
        read("charge=s,hold=f,ship=c", "ship"),
        read("charge=s,hold=f", "hold"),
    ];
    assert_eq!(missing, [vec!["hold".to_owned()], vec![], vec!["hold".to_owned()]]);
}

#[test]
fn a_hook_runs_again_in_a_restarted_run_that_fails_again() {
    let graph = graph(&[&[], &[0]], true);
    let (state, ready) = restarted(&graph, "a=s,b=f,#on_failure=s", "b");
    assert_eq!((&state[..], ready), ("a=s,b=a,#on_failure=w", steps(&[1])));
    let (_, decision) = apply(&graph, read(&graph, &state), RunEvent::Failed(StepIndex(1)));
    assert_eq!(decision, Decision::CleanUp(StepIndex(2), steps(&[1])));
}

#[test]
fn a_step_that_a_run_does_not_have_cannot_be_marked() {
    let known = vec!["a".to_owned(), "b".to_owned()];
    assert_eq!(marked_for_restart(b"a=s,b=f,#tidy=s", "c"), Err(known.clone()));
    assert_eq!(marked_for_restart(b"a=s,b=f,#tidy=s", "#tidy"), Err(known.clone()));
    assert_eq!(marked_for_restart(b"a=s,b=f,#tidy=s", "tidy"), Err(known));
    assert_eq!(marked_for_restart(b"", "a"), Err(vec![]));
}
