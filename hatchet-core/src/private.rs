//! What the code of the macros calls. Nothing here is part of the public interface.

pub use std::boxed::Box;
use std::{error::Error as StdError, future::Future, marker::PhantomData, ops::Deref};

pub use inventory;
pub use serde;

use crate::workflow::Workflow;
pub use crate::{
    backend::Priority,
    definition::{BoxFuture, Options, StepDef, StepOutcome},
    failure::said::{Describe, Described, Said},
    workflow::{AnyWorkflow, Registration, StepCall},
};
use crate::{context, failure::StepError};

/// The argument `input` of a step of `W`. Asks nothing of the type that [`Workflow`] does not ask, so that rustc complains about
/// an input that is not serializable once, and not in each step.
///
/// # Errors
/// A non-retryable error if the run's input is not of that type.
pub fn input<W: Workflow>(call: &StepCall) -> Result<W::Input, StepError> {
    call.input()
}

/// Runs the body of a plain `fn` step on a thread of its own, so that it may block.
pub fn blocking<F>(call: StepCall, body: F) -> BoxFuture<'static, StepOutcome>
where
    F: FnOnce(&StepCall) -> StepOutcome + Send + 'static,
{
    Box::pin(context::blocking::run(call, body))
}

/// A check that a step's future is `Send`; its error lands where the macro spans the call.
pub fn require_send<F: Future + Send>(future: F) -> F {
    future
}

/// A check that `W` is a workflow; its error lands where the macro spans the call.
pub const fn require_workflow<W: Workflow>() {}

/// Finds out whether `W` is `Default` without requiring it: `(&Make::<W>::NEW).make()` takes [`MakeDefault`] where it can,
/// and else, one reference further away, [`MakeNothing`].
#[derive(Debug)]
pub struct Make<W>(PhantomData<W>);

impl<W> Make<W> {
    /// The question.
    pub const NEW: Self = Self(PhantomData);
}

/// The answer for types with a default value.
pub trait MakeDefault {
    /// The workflow, of its default value.
    fn make(&self) -> Option<AnyWorkflow>;
}

impl<W: Workflow + Default> MakeDefault for Make<W> {
    fn make(&self) -> Option<AnyWorkflow> {
        Some(AnyWorkflow::new(W::default()))
    }
}

/// The answer for all other types.
pub trait MakeNothing {
    /// Nothing: it must be registered by hand.
    fn make(&self) -> Option<AnyWorkflow>;
}

impl<W> MakeNothing for &Make<W> {
    fn make(&self) -> Option<AnyWorkflow> {
        None
    }
}

/// Finds the error that a value holds or is, without requiring anything: `(&Look(&value)).look()` takes [`LookInside`] for
/// `anyhow::Error` and its like, else, each one reference further away, [`LookAt`] for an error and [`LookNowhere`].
#[derive(Debug)]
pub struct Look<'e, E>(pub &'e E);

/// The answer for what holds an error.
pub trait LookInside<'e> {
    /// The error that it holds.
    fn look(&self) -> Option<&'e (dyn StdError + 'static)>;
}

impl<'e, E: Deref<Target = dyn StdError + Send + Sync>> LookInside<'e> for &&Look<'e, E> {
    fn look(&self) -> Option<&'e (dyn StdError + 'static)> {
        Some(&**self.0)
    }
}

/// The answer for what is an error.
pub trait LookAt<'e> {
    /// It.
    fn look(&self) -> Option<&'e (dyn StdError + 'static)>;
}

impl<'e, E: StdError + 'static> LookAt<'e> for &Look<'e, E> {
    fn look(&self) -> Option<&'e (dyn StdError + 'static)> {
        Some(self.0)
    }
}

/// The answer for everything else.
pub trait LookNowhere<'e> {
    /// Nothing.
    fn look(&self) -> Option<&'e (dyn StdError + 'static)>;
}

impl<'e, E> LookNowhere<'e> for Look<'e, E> {
    fn look(&self) -> Option<&'e (dyn StdError + 'static)> {
        None
    }
}
