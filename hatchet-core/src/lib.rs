//! The internals of the hatchet workflow SDK: vocabulary, state machine, backend contract, engine, and test kit.
//!
//! Programs use the facade, package `hatchet-workflow`. Use this crate to write a backend: [`backend`] defines the
//! contract, and `conformance` (with the feature of that name) tests it. This crate depends on no backend and not on
//! the macros.

pub mod backend;
mod catalog;
mod client;
#[cfg(feature = "conformance")]
pub mod conformance;
mod context;
mod definition;
mod duration;
mod engine;
mod error;
mod failure;
mod hash;
pub mod history;
mod ids;
pub mod interceptor;
mod journal;
mod machine;
mod mismatch;
mod payload;
#[doc(hidden)]
pub mod private;
mod registry;
mod retry;
#[cfg(feature = "testing")]
pub mod testing;
mod workflow;

pub use crate::{
    backend::{Activity, Durations, Limit, Pausable, Pause, Priority, Query, RunPage, RunStatus, RunView, Timestamp},
    client::{Hatchet, RunHandle, SendSignal, StartRun, WorkerView},
    context::{
        StepContext,
        children::{ChildHandle, Children, EndedChild},
        shutdown::ShuttingDown,
        signals::WaitFor,
        spawn::{Spawn, SpawnAll, Untyped},
        timers::Sleep,
    },
    engine::worker::{Worker, WorkerBuilder},
    error::{ChildConflict, Error, KeyConflict, TimerConflict},
    failure::{FailureKind, RunError, RunErrorKind, RunFailure, StdStepError, StepError, StepFailure, StepResult},
    history::History,
    ids::{Name, ParseRunIdError, RunId, SessionId},
    mismatch::Stall,
    payload::{DEFAULT_MAX_PAYLOAD, Payload, PayloadError, Unfaithful},
    workflow::{AsInput, StepReturn, Workflow, WorkflowOptions},
};
