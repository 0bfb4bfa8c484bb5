//! The conformance suite: the contract of [`Backend`], sentence by sentence, as cases that run against any
//! implementation.
//!
//! One line in a test of the backend's crate creates a `#[test]` for each case, so that a failing case has its own
//! name:
//!
//! ```no_run
//! # use std::{sync::Arc, time::Duration};
//! # use hatchet_core::{self as hatchet, backend::Backend};
//! # fn my_backend(retention: Duration) -> Arc<dyn Backend> { unreachable!() }
//! hatchet::conformance_suite!(mine, async |settings| my_backend(settings.retention));
//! # fn main() {}
//! ```
//!
//! The factory creates a fresh, empty backend for each case, with the [`Settings`] that the case needs. It may be any
//! `async` closure whose result converts into a [`Fixture`], such as an `Arc<dyn Backend>`. If the backend uses the
//! clock of the runtime ([`Clock::Runtime`]), a case runs in paused time, so that waiting costs nothing. Otherwise it
//! waits in real time, for a short while. No case depends on the speed of the store or the machine.
//!
//! After each case, the harness checks with [`Backend::fsck`] that nothing violates the contract, cancels the runs of
//! the case, and checks that all of them have left the queues.
//!
//! [`FaultyBackend`] is a tool for tests of code that uses a backend: it injects faults between the two.
//!
//! This module depends on no backend and must not use the engine: a case sees only the trait.

mod activity;
mod cancel;
mod children;
mod claim;
mod commit;
mod describe;
mod expiry;
mod faulty;
mod fleet;
mod fsck;
mod harness;
mod journal;
mod park;
mod pauses;
mod payloads;
mod races;
mod removal;
mod repetition;
mod restarts;
mod retention;
mod scale;
mod sessions;
mod signals;
mod spread;
mod stalls;
mod start;
mod sweep;
mod turns;
mod undone;
mod views;

use std::{any::Any, fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

pub use self::faulty::{Element, Fault, FaultCounts, FaultPlan, FaultyBackend, Method};
use self::harness::Harness;
use crate::backend::{Backend, Clock};

/// The settings that a case needs from its backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settings {
    /// The retention of an ended tree of runs.
    pub retention: Duration,
}

/// A backend for one case, together with values that must live as long, such as the handle of a server.
pub struct Fixture {
    backend: Arc<dyn Backend>,
    guard: Box<dyn Any>,
}

impl Fixture {
    /// Creates a fixture from a backend alone.
    pub fn new(backend: impl Backend) -> Self {
        Self::from(Arc::new(backend) as Arc<dyn Backend>)
    }

    /// Keeps `guard` alive until the case has ended. It is dropped after the backend.
    pub fn with_guard(self, guard: impl Any) -> Self {
        Self { guard: Box::new((self.guard, guard)), ..self }
    }
}

impl From<Arc<dyn Backend>> for Fixture {
    fn from(backend: Arc<dyn Backend>) -> Self {
        Self { backend, guard: Box::new(()) }
    }
}

impl fmt::Debug for Fixture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fixture").field("backend", &self.backend).finish_non_exhaustive()
    }
}

type Body = for<'a> fn(&'a Harness) -> Pin<Box<dyn Future<Output = ()> + 'a>>;

/// One case of the suite.
#[derive(Clone, Copy)]
pub struct Case {
    /// The part of the contract that it tests, such as `"claim"`.
    pub theme: &'static str,
    /// The name, a sentence such as `"a_lost_lease_refuses_the_commit"`.
    pub name: &'static str,
    body: Body,
}

impl Case {
    /// The settings that the case needs from its backend.
    pub fn settings(&self) -> Settings {
        let short = self.theme == "retention";
        Settings { retention: if short { retention::RETENTION } else { Duration::from_secs(7 * 24 * 3600) } }
    }
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}::{}", self.theme, self.name)
    }
}

/// Runs one case, named `theme::sentence`, against the backend that `factory` makes. Panics if it fails.
///
/// [`conformance_suite!`](crate::conformance_suite) calls it once for each case.
///
/// # Panics
/// If the backend breaks the contract, if a case hangs, or if there is no case of that name.
pub fn run<F, B>(case: &str, factory: F)
where
    F: AsyncFnOnce(Settings) -> B,
    B: Into<Fixture>,
{
    let found = cases().iter().find(|known| format!("{known:?}") == case);
    let case = found.unwrap_or_else(|| panic!("there is no case {case:?}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be built");
    runtime.block_on(async {
        let Fixture { backend, guard } = factory(case.settings()).await.into();
        let clock = backend.info().clock;
        if clock == Clock::Runtime {
            tokio::time::pause();
        }
        let harness = Harness::open(backend).await;
        let limit =
            if clock == Clock::Runtime { Duration::from_secs(365 * 24 * 3600) } else { Duration::from_secs(120) };
        let whole = async {
            (case.body)(&harness).await;
            harness.finish().await;
        };
        assert!(tokio::time::timeout(limit, whole).await.is_ok(), "the case hangs: nothing happens any more");
        drop(harness);
        drop(guard);
    });
}

/// Runs the conformance suite against a backend: `conformance_suite!(name, async |settings| fixture)`.
///
/// Expands to a module of that name with a `#[test]` for each case. The names of the surrounding module can be used in
/// the factory. See [`conformance`](crate::conformance) for what the factory gives.
#[macro_export]
macro_rules! conformance_suite {
    ($name:ident, $factory:expr $(,)?) => {
        $crate::__conformance_table! { __conformance_tests [$name, $factory] }
    };
}

/// Makes the tests of a suite out of the table.
#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_tests {
    ([$name:ident, $factory:expr] $($theme:ident { $($case:ident,)* })*) => {
        mod $name {
            #[allow(unused_imports)]
            use super::*;

            fn __run(case: &str) {
                $crate::conformance::run(case, $factory);
            }

            $(mod $theme {
                $(#[test]
                fn $case() {
                    super::__run(concat!(stringify!($theme), "::", stringify!($case)));
                })*
            })*
        }
    };
}

/// Makes the function [`cases`] out of the table.
#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_cases {
    ([] $($theme:ident { $($case:ident,)* })*) => {
        /// All cases of the suite.
        pub fn cases() -> &'static [Case] {
            &[$($(Case {
                theme: stringify!($theme),
                name: stringify!($case),
                body: |harness| Box::pin($theme::$case(harness)),
            },)*)*]
        }
    };
}

/// The table of all cases: the one place where a case is listed. One that is forgotten here is dead code.
#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_table {
    ($then:ident [$($with:tt)*]) => {
        $crate::$then! { [$($with)*]
            start {
                a_started_run_has_one_ready_task,
                the_first_task_carries_what_the_run_was_started_with,
                a_run_without_extras_has_none,
                a_delayed_run_is_not_ready_before_its_time,
                a_run_of_the_same_id_is_found_and_left_as_it_is,
                a_run_of_the_same_id_is_found_after_its_end,
                the_same_idempotency_key_finds_the_first_run,
                an_idempotency_key_finds_a_run_that_has_ended,
                an_idempotency_key_belongs_to_its_workflow,
                an_idempotency_key_belongs_to_all_versions_of_its_workflow,
                an_id_is_asked_for_before_a_key,
                a_childs_key_is_no_idempotency_key,
                runs_that_stand_twice_in_one_request_are_created_once,
                answers_come_in_the_order_of_the_request,
                a_request_of_nothing_creates_nothing,
                kept_tasks_are_leased_at_once,
                kept_tasks_do_not_overtake_what_is_ready,
                a_delayed_run_is_not_kept,
                a_run_that_exists_is_not_kept,
                children_can_be_kept,
                a_new_run_has_no_state_and_no_outputs,
                the_end_of_a_watched_run_is_told_to_who_created_it,
                children_can_be_watched,
                who_creates_and_ends_a_watched_run_is_told,
                a_delay_of_nothing_is_none,
            }
            children {
                a_child_its_task_and_its_place_in_the_journal_are_made_together,
                a_child_of_an_index_has_no_key,
                without_its_parents_lease_no_child_is_created,
                after_a_recovery_the_old_lease_creates_no_child,
                after_its_parents_end_no_child_is_created,
                a_refused_group_does_not_stop_the_next,
                the_children_of_a_step_that_knows_more_than_the_store_are_refused,
                a_child_that_exists_is_found_and_left_as_it_is,
                a_child_that_stands_twice_in_one_request_is_created_once,
                a_resumed_parent_finds_its_children,
                the_key_3_is_not_the_index_3,
                each_step_has_children_of_its_own,
                a_child_has_a_delay_of_its_own,
                a_next_generation_takes_the_slot_of_one_that_has_ended,
                neighbours_come_apart_and_keep_what_is_theirs,
                generation_follows_generation,
                an_unfinished_child_is_not_replaced,
                a_generation_that_exists_is_found,
                an_earlier_generation_does_not_come_back,
                a_run_that_was_replaced_may_have_descendants_that_go_on,
                two_generations_in_one_request_are_a_child_and_a_refusal_to_replace_it,
                a_childs_end_is_told_to_the_session_that_leases_the_parent,
                every_way_to_end_is_told_to_the_parent,
                a_child_ends_while_its_parent_is_ready,
                a_child_ends_between_two_attempts_of_its_parent,
                a_child_ends_while_its_parent_is_parked,
                a_child_ends_after_its_parents_session_died,
                what_was_resolved_before_a_claim_is_not_told_again,
                a_parents_view_counts_its_children,
                a_parents_end_cancels_its_unfinished_children_and_theirs,
                a_parents_failure_cancels_its_children_too,
                a_detached_child_goes_on_when_its_parent_ends,
                a_detached_child_goes_on_among_those_that_are_cancelled,
                a_detached_child_tells_its_parent_of_its_end,
                a_child_below_a_detached_one_ends_with_it,
                a_step_that_is_done_leaves_its_children,
            }
            claim {
                tasks_are_claimed_in_the_order_in_which_they_became_ready,
                the_order_is_that_of_requests_too,
                a_higher_priority_goes_first,
                a_resumed_task_goes_before_the_highest_priority,
                resumed_tasks_go_by_priority_among_themselves,
                a_retried_task_is_not_a_resumed_one,
                a_task_is_ready_from_its_time_on_and_not_from_its_start,
                each_queue_gives_up_to_the_number_wanted,
                a_claimed_task_is_leased_to_the_session,
                no_task_is_given_to_two_sessions,
                a_task_of_an_ended_run_is_never_handed_out,
                a_fencing_token_never_comes_twice,
                fencing_tokens_cannot_be_guessed_from_one_another,
                a_session_can_ask_what_it_holds,
                a_session_holds_what_it_kept,
                a_session_does_not_hold_what_it_gave_away,
                an_attempt_that_is_held_again_is_held_by_its_new_token,
                a_session_that_wanted_more_is_told_of_the_next_task,
                a_session_that_got_some_of_what_it_wanted_is_told_of_the_next_task,
                a_session_that_got_all_it_wanted_is_told_nothing,
                a_session_is_told_of_work_once,
                a_task_that_was_claimed_before_is_not_new,
                a_session_that_asks_again_is_told_again,
                a_task_wakes_one_of_several_sessions,
                a_session_that_wants_nothing_passes_on_what_it_was_told,
                a_session_that_wants_nothing_is_told_nothing,
                work_in_another_queue_is_no_news,
                each_queue_remembers_its_sessions,
                a_kept_task_is_nobodys_work,
                a_delayed_task_is_work_once_it_is_ready,
                a_child_is_work,
                a_released_a_retried_and_a_further_step_are_work,
                a_woken_task_is_work,
                a_recovered_task_is_work,
                a_dead_session_that_waits_for_work_does_not_stand_in_the_way,
                a_closed_session_that_waits_for_work_does_not_stand_in_the_way,
                work_that_a_session_died_with_is_told_to_another,
                work_that_a_session_closed_with_is_told_to_another,
                the_age_of_an_attempt_counts_from_its_first_claim,
                the_age_does_not_count_the_time_in_the_queue,
                a_task_says_how_much_of_the_runs_time_is_left,
                the_journal_of_a_fresh_step_is_known_to_be_empty,
            }
            fleet {
                a_task_goes_only_to_a_session_that_announced_its_workflow,
                what_a_session_cannot_run_stands_in_its_way_for_nothing,
                what_was_passed_by_keeps_its_place,
                who_can_run_a_part_of_what_was_passed_by_gets_that,
                many_that_nobody_can_run_do_not_hold_up_what_somebody_can,
                a_fan_out_is_passed_by_and_given_to_who_can_run_it,
                what_was_passed_by_waits_no_longer_than_it_may,
                what_was_passed_by_can_be_cancelled,
                children_that_were_passed_by_end_with_their_parent,
                a_resumed_task_that_was_passed_by_goes_in_front,
                a_task_is_not_kept_by_who_cannot_run_it,
                what_others_can_run_is_no_reason_not_to_keep_a_task,
                of_a_task_is_told_who_can_run_it,
                of_several_tasks_are_told_who_can_run_them,
                of_a_task_that_nobody_can_run_nobody_is_told,
                of_a_task_that_becomes_ready_is_told_who_can_run_it,
                of_a_delayed_and_of_a_woken_task_is_told_who_can_run_it,
                who_wants_nothing_passes_the_news_on_to_who_can_run_it,
                news_that_a_session_died_with_goes_to_who_can_run_it,
                who_opens_again_with_other_workflows_is_given_these,
                what_was_parked_and_passed_by_goes_on_where_it_can,
                what_no_open_session_serves_is_counted,
            }
            restarts {
                a_run_continues_an_ended_one_with_its_outputs_and_another_state,
                each_of_two_runs_names_the_other,
                a_child_is_continued_by_a_root_run,
                only_an_ended_run_is_continued,
                a_repeated_start_continues_a_run_once,
                the_first_task_of_a_run_that_continues_another_is_queued,
                a_run_that_continues_another_has_limits_and_a_delay,
                the_first_step_may_be_made_ready_again,
            }
            stalls {
                a_stalled_task_goes_to_nobody_who_announced_what_it_is_stalled_unless,
                a_session_that_waits_is_told_of_a_stalled_task_that_it_may_have,
                of_a_stalled_task_another_is_told_where_the_one_who_was_told_is_gone,
                of_a_stalled_task_another_is_told_where_the_one_who_was_told_wants_nothing,
                names_of_earlier_stalls_count_until_the_task_goes_elsewhere,
                a_stalled_task_says_why_and_is_counted_apart,
                a_stalled_task_goes_in_front_of_what_was_not_resumed,
                a_stalled_run_is_ended_by_its_time_and_by_who_cancels_it,
                a_stalled_task_keeps_its_attempt_its_journal_and_its_age,
                what_is_committed_with_a_stall_is_stored,
                what_is_resumed_by_hand_goes_to_whoever_announced_its_workflow,
            }
            turns {
                a_large_fan_out_does_not_hold_up_what_became_ready_behind_it,
                who_claims_one_at_a_time_is_given_both_by_turns,
                a_large_fan_out_alone_is_given_all_in_its_order,
                large_fan_outs_take_turns_among_each_other,
                children_with_keys_take_turns_too,
                what_is_more_urgent_goes_first_in_a_large_fan_out_too,
                a_retried_child_of_a_large_fan_out_takes_turns_again,
                a_delayed_child_of_a_large_fan_out_takes_turns_when_it_is_ready,
                a_resumed_child_of_a_large_fan_out_goes_in_front,
                a_large_fan_out_that_others_can_run_stands_in_nobodys_way,
                large_fan_outs_that_others_can_run_are_passed_by_however_many_there_are,
                a_cancelled_large_fan_out_is_never_handed_out,
                of_a_child_of_a_large_fan_out_is_told_who_can_run_it,
                the_next_step_of_who_spawns_is_not_kept_while_a_large_fan_out_waits,
            }
            undone {
                what_is_given_back_undone_goes_behind_what_is_there,
                after_a_delay_it_goes_behind_what_is_ready_then,
                a_resumed_task_that_is_given_back_undone_stays_a_resumed_one,
                a_run_that_was_given_back_undone_has_not_started,
                a_run_that_has_written_something_has_started_though_its_task_is_given_back_undone,
                a_claim_before_counts_on_when_the_next_is_undone,
                what_is_given_back_undone_waits_no_longer_than_it_may,
                children_that_are_given_back_undone_are_claimed_as_before,
            }
            commit {
                a_commit_without_its_token_is_refused,
                a_lease_of_another_session_refuses_the_commit,
                a_lost_lease_refuses_the_commit,
                the_token_of_an_earlier_attempt_refuses_the_commit,
                a_task_that_nobody_holds_refuses_the_commit,
                a_run_that_never_was_refuses_the_commit,
                an_ended_run_refuses_the_commit,
                a_cancelled_run_refuses_the_commit,
                a_refused_commit_does_not_stop_those_behind_it,
                commits_are_applied_in_their_order,
                neighbours_in_one_batch_leave_each_other_alone,
                a_lease_that_was_given_up_earlier_in_the_batch_refuses_the_end,
                children_with_keys_in_one_batch_leave_each_other_alone,
                the_state_changes_from_what_is_expected,
                an_unexpected_state_refuses_the_whole_commit,
                a_lost_lease_is_said_before_a_changed_state,
                two_steps_cannot_change_the_state_past_each_other,
                steps_that_end_in_one_call_build_on_each_other,
                a_run_ends_in_the_call_in_which_others_of_its_steps_do,
                outputs_are_kept_under_their_steps,
                a_ready_step_is_a_task_of_the_same_run,
                ready_steps_take_their_place_behind_what_is_ready,
                a_kept_step_is_leased_at_once,
                the_step_that_stood_for_the_start_can_become_ready,
                a_step_can_make_its_own_position_ready,
                continue_keeps_the_lease,
                done_ends_the_task_and_not_the_run,
                an_end_is_kept_whatever_its_kind,
                an_end_is_told_to_all_who_watch_the_run,
                watches_of_one_call_join_those_of_others,
                a_watch_of_many_runs_answers_for_each,
                an_end_revokes_the_other_tasks_of_the_run,
                the_task_that_ends_its_run_is_not_revoked,
                an_end_takes_the_parked_and_the_delayed_tasks_with_it,
                an_outcome_never_changes,
                an_outcome_of_a_child_never_changes,
                a_retry_is_the_attempt_that_was_asked_for,
                a_retry_is_not_ready_before_its_delay,
                a_retry_of_a_later_step_carries_no_input,
                a_release_gives_the_same_attempt_back,
                a_delayed_release_is_not_ready_before_its_time,
                the_events_that_a_commit_causes_are_given_once,
            }
            park {
                a_leased_task_that_waits_counts_as_waiting_until_its_journal_moves_on,
                a_parked_task_holds_no_lease,
                a_parked_task_wakes_at_its_sequence_number,
                a_woken_task_is_the_same_attempt,
                a_woken_task_goes_before_what_was_not_resumed,
                a_task_that_time_woke_goes_before_what_was_not_resumed,
                a_task_wakes_once,
                what_is_there_already_refuses_the_park,
                a_park_of_a_step_that_knows_more_than_the_store_is_refused,
                the_end_of_a_step_that_knows_more_than_the_store_is_refused,
                a_refused_park_keeps_nothing_of_its_commit,
                a_failed_child_wakes_who_waits_for_failures,
                a_failed_child_does_not_wake_who_waits_for_a_number,
                a_cancelled_and_an_expired_child_count_as_failed,
                a_failure_that_was_seen_wakes_nobody,
                what_ends_earlier_in_the_batch_refuses_the_park,
                a_failure_is_seen_by_its_sequence_number_and_not_by_its_count,
                an_unseen_failure_behind_a_seen_one_refuses_the_park,
                a_timer_and_a_signal_are_no_failures,
                a_timer_wakes_a_parked_task,
                a_signal_wakes_a_parked_task,
                a_parked_task_wakes_within_its_time,
                a_task_that_nothing_wakes_stays_parked,
                an_earlier_wait_does_not_end_a_later_one,
                the_end_of_its_session_is_nothing_to_a_parked_task,
                a_wake_by_several_resolutions_at_once_is_one,
                parallel_steps_of_a_run_park_apart,
            }
            journal {
                a_journal_that_was_never_written_is_empty,
                an_entry_of_a_step_that_knows_more_than_the_store_is_refused,
                an_entry_is_written_once,
                an_entry_is_read_as_it_was_written,
                a_value_needs_no_resolution,
                a_write_that_replaces_takes_the_place_of_what_is_there,
                a_replaced_timer_does_not_fire,
                a_timer_that_replaces_a_timer_counts_from_its_own_write,
                a_resolved_entry_that_is_replaced_is_unresolved,
                a_write_without_its_lease_is_refused,
                a_write_for_an_ended_run_is_refused,
                a_refused_write_does_not_stop_those_behind_it,
                each_run_and_step_has_a_journal_of_its_own,
                an_entry_and_a_child_do_not_meet,
                a_journal_outlives_attempts_and_sessions,
                a_timer_does_not_fire_before_its_time,
                a_timer_counts_from_its_first_write,
                a_timer_fires_whatever_becomes_of_its_task,
                a_timer_of_an_ended_run_is_gone,
                a_timer_may_be_as_long_as_a_duration,
                a_timer_of_no_time_fires,
                a_timer_fires_at_its_moment_and_not_before,
                a_timer_whose_moment_is_past_fires,
                the_order_of_the_events_is_that_of_the_sequence_numbers,
                a_resolution_never_changes,
                a_journal_is_read_page_by_page,
                sequence_numbers_are_read_in_the_order_of_the_request,
                children_are_the_same_on_pages_of_any_size,
                the_smallest_page_has_one_entry,
                what_was_there_before_the_first_page_is_not_missed,
                a_page_of_nothing_tells_the_sequence_number,
            }
            signals {
                a_signal_goes_to_the_entry_that_waits_for_it,
                a_signal_that_comes_first_is_kept,
                a_signal_does_not_go_to_a_step_that_is_done,
                kept_signals_are_taken_in_the_order_in_which_they_came,
                the_entry_that_was_written_first_takes_the_signal,
                the_first_written_takes_the_signal_in_whatever_step,
                names_are_independent,
                a_signal_of_the_same_id_is_delivered_once,
                a_kept_signal_of_the_same_id_is_kept_once,
                the_same_id_for_another_run_is_another_signal,
                a_signal_that_does_not_come_in_time_is_given_up,
                a_signal_that_came_in_time_is_not_given_up,
                an_entry_that_was_replaced_takes_no_signal,
                a_signal_that_was_taken_stays_with_its_entry,
                who_ends_a_run_learns_of_signals_that_nobody_took,
                of_signals_that_were_all_taken_nothing_is_said,
                one_session_learns_of_the_signals_of_a_run_that_ends_from_outside,
                a_signal_reaches_a_run_that_is_parked_or_ready,
                a_signal_to_an_ended_run_says_so,
                a_signal_to_no_run_says_so,
                timers_and_signals_share_one_order,
            }
            cancel {
                a_queued_run_is_cancelled,
                a_delayed_run_is_cancelled,
                a_run_between_two_attempts_is_cancelled,
                a_leased_run_is_cancelled_and_its_session_told,
                a_parked_run_is_cancelled,
                all_tasks_of_a_cancelled_run_are_over,
                a_run_that_has_ended_stays_as_it_is,
                a_run_that_never_was_is_not_found,
                many_are_answered_in_their_order,
                watchers_hear_of_a_cancellation,
                a_tree_is_cancelled_to_its_leaves,
                what_waits_below_a_cancelled_run_is_not_handed_out_when_its_time_comes,
                a_detached_child_is_not_cancelled_with_its_parent,
                a_detached_child_can_be_cancelled_itself,
                a_cancelled_child_leaves_its_parent_and_its_siblings,
                a_cancelled_run_creates_no_children,
                children_spawned_below_a_cancelled_run_do_not_get_away,
                an_idempotency_key_outlives_a_cancellation,
            }
            expiry {
                a_run_that_nobody_claims_in_time_expires,
                a_claim_ends_the_wait_in_the_queue,
                the_delay_is_no_wait_in_the_queue,
                a_run_that_takes_too_long_expires,
                the_delay_is_not_counted_into_the_runs_time,
                after_its_delay_a_run_has_all_of_its_time,
                a_run_expires_wherever_its_task_is,
                a_run_expires_although_its_session_died,
                an_expired_child_wakes_its_parent,
                an_expired_parent_takes_its_children_with_it,
                a_run_that_ended_in_time_does_not_expire,
                the_longest_limits_never_come,
            }
            sessions {
                each_set_of_names_that_open_sessions_announce_is_returned_once,
                open_sessions_are_shown_with_what_they_announced_and_hold,
                a_dead_session_is_not_shown,
                a_session_that_was_never_opened_is_refused,
                a_closed_session_is_refused,
                a_dead_session_is_refused_even_before_it_is_swept,
                a_dead_session_is_refused_after_its_tasks_were_recovered,
                the_id_of_a_dead_session_is_never_accepted_again,
                one_lost_session_is_nothing_to_the_others,
                heartbeats_keep_a_session_alive,
                a_heartbeat_needs_no_other_runtime_to_go_on,
                opening_an_open_session_renews_it,
                closing_a_session_that_is_not_open_is_no_error,
                closing_a_dead_session_still_counts_its_tasks_as_recovered,
                a_closed_session_gives_its_tasks_back_as_if_released,
                a_closed_session_gives_many_tasks_back,
                a_closed_session_hears_of_nothing,
                closing_a_session_ends_its_receive,
                sessions_may_share_a_label,
                a_dead_sessions_task_is_recovered_as_the_same_attempt,
                a_recovered_task_goes_before_what_was_not_resumed,
                recoveries_are_counted_apart_from_attempts_and_over_all_of_them,
                each_step_counts_its_own_recoveries,
                all_that_a_dead_session_held_is_recovered,
                what_a_dead_session_gave_back_is_not_recovered,
                the_names_of_all_workflows_are_remembered,
                a_session_that_opens_again_adds_workflows,
            }
            pauses {
                what_is_paused_is_listed_until_it_is_resumed,
                nothing_of_a_paused_queue_is_leased,
                a_paused_workflow_is_leased_nowhere_and_in_the_way_of_nothing,
                a_workflow_is_paused_in_one_version_or_in_all,
                two_pauses_hold_a_task_back_until_both_have_ended,
                nothing_is_kept_that_is_paused,
                what_is_leased_goes_on_in_a_pause,
                what_becomes_ready_again_in_a_pause_is_held_back,
                time_goes_on_in_a_pause,
                nobody_is_told_of_what_is_held_back_before_the_pause_ends,
                who_waits_is_told_of_what_is_not_paused,
                who_wants_nothing_passes_no_news_of_what_is_held_back,
                a_stalled_task_is_held_back_like_others,
                a_fan_out_of_a_paused_workflow_is_in_the_way_of_nothing,
                many_that_are_held_back_do_not_hold_up_what_is_not,
                a_pause_holds_back_what_is_wherever,
            }
            sweep {
                a_sweep_of_nothing_changes_nothing,
                a_budget_bounds_a_sweep,
                the_smallest_budget_makes_progress,
                a_budget_bounds_a_cancellation_too,
                a_delayed_run_is_known_to_be_due,
                a_retry_and_a_timer_and_a_wait_are_known_to_be_due,
                the_limits_of_a_run_are_known_to_be_due,
                the_death_of_a_session_is_known_to_be_due,
                what_is_due_now_is_known_to_be,
                what_the_end_of_a_run_leaves_to_do_is_told,
                sweeping_when_told_is_enough,
                what_a_session_wrote_that_was_closed_is_done_when_it_is_due,
                what_a_silent_session_wrote_is_done_when_it_is_due,
                a_sooner_moment_is_told_after_a_later_one,
            }
            removal {
                a_removed_tree_is_gone_at_once_with_all_that_belongs_to_it,
                only_a_tree_that_has_ended_is_removed_by_hand,
                a_removal_is_about_root_runs_that_exist,
            }
            retention {
                an_ended_run_is_removed_after_its_retention,
                nothing_is_left_of_a_removed_run,
                an_unfinished_run_is_not_removed,
                an_ended_child_stays_with_its_unfinished_root,
                a_tree_waits_for_its_detached_children,
                an_idempotency_key_is_free_after_the_removal,
                a_removed_tree_takes_nothing_of_another,
                a_cancelled_tree_is_removed_as_well,
                a_tree_larger_than_the_budget_is_removed,
                the_removal_is_known_to_be_due,
                a_removed_run_is_no_end_that_was_missed,
            }
            views {
                an_unknown_run_is_not_there,
                a_view_shows_what_the_run_was_started_with,
                a_childs_view_names_its_key_and_its_origin,
                a_view_tells_when_things_happened,
                the_status_follows_the_tasks,
                a_view_has_the_tasks_in_the_order_of_their_steps,
                outputs_and_state_of_an_ended_run_are_kept,
                a_list_has_root_runs_newest_first,
                a_list_of_a_parent_has_its_children,
                the_views_of_a_list_are_those_of_get,
                a_list_can_be_of_some_statuses,
                pages_of_some_statuses_are_exact_while_runs_end,
                a_list_can_be_of_one_workflow_and_some_labels,
                a_list_can_be_of_a_span_of_time,
                pages_have_no_gaps_and_no_doubles_while_runs_are_added,
                pages_of_a_filtered_list_come_to_an_end,
                counts_tell_where_the_tasks_of_a_queue_are,
                a_resumed_task_is_counted_as_ready,
            }
            activity {
                each_status_in_which_root_runs_end_is_counted,
                what_was_counted_stays_when_runs_are_removed_and_is_of_root_runs,
                activity_is_listed_by_minute_and_queue,
            }
            repetition {
                a_repeated_start_creates_nothing,
                a_repeated_start_keeps_nothing_again,
                a_repeated_spawn_creates_nothing,
                a_repeated_spawn_of_a_next_generation_creates_nothing,
                a_repeated_claim_gives_no_task_twice,
                a_claim_whose_answer_was_lost_is_not_lost,
                a_repeated_end_is_refused,
                a_repeated_done_is_refused,
                a_repeated_retry_is_refused,
                a_repeated_release_is_refused,
                a_repeated_park_is_refused,
                a_repeated_change_of_the_state_is_refused,
                a_repeated_end_does_not_resolve_again,
                a_repeated_end_wakes_nobody_again,
                a_repeated_write_gives_what_is_stored,
                a_repeated_write_takes_no_second_signal,
                a_repeated_replacement_leaves_one_entry,
                a_repeated_signal_is_accepted_and_not_delivered_again,
                a_repeated_watch_is_told_once,
                a_repeated_cancel_tells_how_it_ended,
                a_repeated_close_gives_nothing_back_again,
                a_repeated_open_keeps_what_the_session_holds,
                a_repeated_sweep_does_nothing_again,
                a_repeated_batch_applies_what_was_not_applied,
                a_dropped_receive_leaves_the_session_as_it_is,
            }
            races {
                one_of_many_starts_creates_the_run,
                one_of_many_runs_gets_the_key,
                many_claims_share_what_is_ready,
                a_cancellation_and_an_end_agree_on_one_outcome,
                children_that_end_at_once_are_all_counted,
                a_park_and_what_it_waits_for_do_not_miss_each_other,
                a_watch_and_an_end_do_not_miss_each_other,
                a_signal_and_its_entry_do_not_miss_each_other,
                many_sweeps_do_things_once,
                whatever_happens_each_run_ends_once,
            }
            payloads {
                every_byte_of_a_payload_comes_back,
                a_large_payload_comes_back,
                a_name_may_contain_anything,
                different_names_never_meet,
                a_workflow_and_a_key_do_not_run_together,
                large_numbers_are_kept_to_the_last_bit,
                an_identity_may_be_any_number,
                the_last_step_is_a_step,
                attempts_may_be_many,
                a_generation_is_told_from_its_text,
                the_largest_batch_is_taken,
            }
            scale {
                ten_thousand_children_of_one_step_run_and_wake_it,
                a_thousand_children_are_cancelled_with_their_parent,
                a_detached_child_of_a_thousand_goes_on,
                a_recursion_fifty_deep_wakes_to_its_top,
            }
            spread {
                a_session_is_shown_once_with_all_that_it_holds_wherever_that_is,
                each_run_is_claimed_once_wherever_it_is,
                one_slot_gets_a_task_from_wherever_there_is_one,
                a_start_answers_in_its_order_wherever_the_runs_are,
                kept_tasks_are_no_more_than_were_wanted_wherever_they_are,
                an_idempotency_key_finds_its_run_wherever_that_is,
                commits_are_answered_in_their_order_wherever_the_runs_are,
                questions_about_many_are_answered_in_their_order,
                a_session_holds_what_it_claimed_wherever_that_is,
                root_runs_are_listed_newest_first_wherever_they_are,
                no_root_run_is_listed_twice_or_missed_wherever_it_is,
                a_session_is_told_of_work_wherever_it_is,
                a_parent_hears_of_its_children_wherever_it_is,
                what_a_dead_session_held_is_recovered_wherever_it_is,
                a_dead_session_is_refused_wherever_it_asks,
                a_closed_session_gives_back_what_it_held_wherever_that_is,
            }
            fsck {
                an_empty_store_is_sound,
                a_store_with_a_task_in_every_place_is_sound,
                a_store_between_the_changes_of_a_cancellation_is_sound,
                calls_about_unknown_runs_leave_nothing_behind,
                a_lease_that_its_living_holder_disowns_is_found_and_taken_away,
                a_lease_that_its_holder_does_not_disown_twice_is_sound,
            }
        }
    };
}

__conformance_table! { __conformance_cases [] }
