//! What a workflow is, as data: its options and its steps, as the attributes give them. Nothing here runs anything.

use std::{future::Future, pin::Pin, time::Duration};

use crate::{
    backend::{Payload, Priority},
    failure::StepError,
};

/// A boxed future that is `Send`.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The options of a workflow, as its attribute gives them.
#[derive(Clone, Copy, Debug)]
#[doc(hidden)]
pub struct Options {
    /// `name = ".."`, or the struct's name.
    pub name: &'static str,
    /// `queue = ".."`, or `"default"`.
    pub queue: &'static str,
    /// `priority = ".."`, or normal.
    pub priority: Priority,
    /// `timeout = ".."`: of the whole run, from its start.
    pub timeout: Option<Duration>,
    /// `queue_timeout = ".."`: how long a run may wait for a worker.
    pub queue_timeout: Option<Duration>,
    /// `on_mismatch = "fail"`: a run fails, instead of being stalled, where what is stored of it does not fit the code.
    pub fails_on_mismatch: bool,
    /// `file!()` and `line!()` of the attribute.
    pub location: (&'static str, u32),
}

impl Options {
    /// Of a workflow that this program does not know.
    pub(crate) const UNKNOWN: Self = Self {
        name: "",
        queue: "default",
        priority: Priority::Normal,
        timeout: None,
        queue_timeout: None,
        fails_on_mismatch: false,
        location: ("", 0),
    };
}

/// A step, as its attribute and its signature give it.
#[derive(Clone, Copy, Debug)]
#[doc(hidden)]
pub struct StepDef {
    /// The method's name.
    pub name: &'static str,
    /// The steps whose output it takes or that it comes after, as positions, each once and in order.
    pub needs: &'static [u16],
    /// How often it is run again after a failure.
    pub retries: u32,
    /// `backoff = "first..longest"`: the wait before the first retry, doubled each time up to the longest.
    pub backoff: Option<(Duration, Duration)>,
    /// How long one attempt may take, waits included.
    pub timeout: Option<Duration>,
    /// `on_retry = "keep"`: failures of children are kept for the next attempt instead of running the children again.
    pub keep_failures: bool,
}

/// What a step gave: its output encoded, or its error.
#[doc(hidden)]
pub type StepOutcome = Result<Payload, StepError>;

/// The static part of a workflow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Definition {
    /// What the compiler calls its type.
    pub(crate) type_name: &'static str,
    pub(crate) options: Options,
    pub(crate) steps: &'static [StepDef],
    pub(crate) on_failure: Option<&'static StepDef>,
}
