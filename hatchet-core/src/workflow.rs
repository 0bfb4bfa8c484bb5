//! The traits that the macros implement for a user's struct: its options, its steps, and how to call a step.
//!
//! Users see [`Workflow`] as a bound and in `spawn::<W>`. They implement it only with the attributes.

use std::{error::Error as StdError, fmt, sync::Arc};

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    context::StepContext,
    definition::{BoxFuture, Definition, Options, StepDef, StepOutcome},
    engine::attempt::state::AttemptState,
    failure::{RunFailure, StepError},
    mismatch::Mismatch,
    payload::{self, Payload},
};

/// A workflow. Implemented by `#[workflow]` on an `impl` block whose methods are annotated with `#[step]`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a workflow",
    label = "no `#[workflow] impl {Self}` with `#[step]` methods was found",
    note = "annotate the struct and its impl block with `#[workflow]`, and at least one method of it with `#[step]`"
)]
pub trait Workflow: WorkflowOptions + Send + Sync + 'static {
    /// The type of a run's input: the type of the steps' argument `input`, or `()` if no step has one.
    type Input: Serialize + DeserializeOwned + Send + Sync + 'static;
    /// The type of a run's output: the output of the last step, or a struct with one field for each step that has no
    /// successor.
    type Output: Serialize + DeserializeOwned + Send + 'static;

    /// The steps, in the order of the source.
    #[doc(hidden)]
    const STEPS: &'static [StepDef];
    /// The step that runs once when another has failed for good.
    #[doc(hidden)]
    const ON_FAILURE: Option<StepDef>;

    /// Runs one step: of [`STEPS`](Self::STEPS), or the one behind them for `#[on_failure]`.
    #[doc(hidden)]
    fn execute(self: Arc<Self>, step: usize, call: StepCall) -> BoxFuture<'static, StepOutcome>;
}

/// A value that can be used as the input of a workflow with the input type `I`: an `I`, or a reference or smart
/// pointer to one.
#[diagnostic::on_unimplemented(
    message = "the workflow takes a `{I}`, not a `{Self}`",
    label = "expected `{I}` or `&{I}`"
)]
pub trait AsInput<I> {
    /// Returns the input.
    fn as_input(&self) -> &I;
}

impl<I> AsInput<I> for I {
    fn as_input(&self) -> &I {
        self
    }
}

macro_rules! as_input {
    ($($pointer:ty),*) => {
        $(impl<I> AsInput<I> for $pointer {
            fn as_input(&self) -> &I {
                self
            }
        })*
    };
}

as_input!(&I, &mut I, Box<I>, std::rc::Rc<I>, Arc<I>);

/// The options of a workflow. Implemented by `#[workflow]` on the struct.
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no `#[workflow]` on its struct",
    label = "annotate the struct itself with `#[workflow]` too",
    note = "`#[workflow]` on the struct gives the workflow its name and options, on the impl block its steps"
)]
pub trait WorkflowOptions: Sized {
    /// The name and the options.
    #[doc(hidden)]
    const OPTIONS: Options;
}

/// What a step is called with. The macros' code takes the arguments out of it.
#[derive(Debug)]
#[doc(hidden)]
pub struct StepCall {
    ctx: StepContext,
    /// The run's input.
    input: Payload,
    /// The outputs of the steps that this one needs, by position.
    outputs: Vec<(u16, Payload)>,
    /// Whether anything of the run had begun before this attempt.
    has_begun: bool,
}

impl StepCall {
    pub(crate) fn new(
        attempt: Arc<AttemptState>,
        input: Payload,
        outputs: Vec<(u16, Payload)>,
        has_begun: bool,
    ) -> Self {
        Self { ctx: StepContext::new(attempt), input, outputs, has_begun }
    }

    pub(crate) fn attempt(&self) -> &AttemptState {
        self.ctx.state()
    }

    /// The context that the step is handed. Taken when its other arguments have been decoded.
    pub fn ctx(&self) -> &StepContext {
        if self.attempt().is_rehearsed() {
            // The code of a step that has done nothing durable is not rehearsed.
            std::panic::resume_unwind(Box::new("there is no stored answer to compare the code with"));
        }
        &self.ctx
    }

    /// The argument `input`.
    ///
    /// # Errors
    /// A non-retryable error if the run's input is not a `T`.
    pub fn input<T: DeserializeOwned>(&self) -> Result<T, StepError> {
        let input = payload::decode("the run's input", &self.input);
        // Where nothing of the run has begun, nobody has read it: then it is what the caller gave.
        input.map_err(|error| if self.has_begun { self.misfit(error.into()) } else { StepError::from_payload(error) })
    }

    /// An argument that is the output of the step at `step`, named `name`.
    ///
    /// # Errors
    /// A non-retryable error if that output is not a `T`.
    pub fn output<T: DeserializeOwned>(&self, step: u16, name: &str) -> Result<T, StepError> {
        let found = self.outputs.iter().find(|(at, _)| *at == step).map(|(_, output)| output);
        let missing = || StepError::fatal(format!("the output of step {name} is missing: the step has not ended"));
        let output = found.ok_or_else(|| self.misfit(missing()))?;
        let output = payload::decode(&format!("the output of step {name}"), output);
        output.map_err(|error| self.misfit(error.into()))
    }

    /// Notes that the code cannot take what is stored.
    fn misfit(&self, error: StepError) -> StepError {
        self.attempt().misfits(Mismatch::payload(self.ctx.step(), &error));
        error
    }

    /// The argument of `#[on_failure]`.
    ///
    /// # Errors
    /// A non-retryable error if what was stored is no [`RunFailure`].
    pub fn failure(&self) -> Result<RunFailure, StepError> {
        let text = self.outputs.first().map_or(&b"null"[..], |(_, output)| &output[..]);
        payload::decode("the failure of the run", text).map_err(|error| self.misfit(error.into()))
    }

    /// Encodes what the step returned.
    ///
    /// # Errors
    /// The step's own error, or a non-retryable one if its output cannot be encoded or is too large.
    pub fn finish<R: StepReturn>(&self, returned: R) -> StepOutcome {
        let value = returned.into_step_result(|_| None)?;
        payload::encode("the step's output", &value, self.attempt().max_payload()).map_err(StepError::from_payload)
    }
}

/// The return type of a `#[step]` method: `Result<T, E>` for any serializable `T` and any `E` that converts into a
/// boxed error.
#[diagnostic::on_unimplemented(
    message = "a `#[step]` must return a `Result`, not `{Self}`",
    label = "expected `StepResult<T>` or another `Result<T, E>`",
    note = "`E` may be any error type: `anyhow::Error`, a `thiserror` enum, `String`"
)]
pub trait StepReturn {
    /// The type of the step's output.
    type Ok: Serialize + DeserializeOwned + Send + 'static;
    /// Its error.
    #[doc(hidden)]
    type Error;
    /// The result with the error in the form in which it is stored. `inside` gives the error that a container such as
    /// `anyhow::Error` holds, which nobody sees any more once it is boxed.
    #[doc(hidden)]
    fn into_step_result(
        self,
        inside: impl for<'e> Fn(&'e Self::Error) -> Option<&'e (dyn StdError + 'static)>,
    ) -> Result<Self::Ok, StepError>;
}

impl<T, E> StepReturn for Result<T, E>
where
    T: Serialize + DeserializeOwned + Send + 'static,
    E: Into<Box<dyn StdError + Send + Sync>>,
{
    type Ok = T;
    type Error = E;

    fn into_step_result(
        self,
        inside: impl for<'e> Fn(&'e E) -> Option<&'e (dyn StdError + 'static)>,
    ) -> Result<T, StepError> {
        self.map_err(|error| match inside(&error) {
            Some(inner) => StepError::of_error(inner),
            None => StepError::from_box(error.into()),
        })
    }
}

/// A workflow whose type has been forgotten: what workers keep in their registry.
pub(crate) trait ErasedWorkflow: Send + Sync {
    fn definition(&self) -> &Definition;
    fn execute(&self, step: usize, call: StepCall) -> BoxFuture<'static, StepOutcome>;
}

struct Erased<W> {
    definition: Definition,
    workflow: Arc<W>,
}

impl<W: Workflow> ErasedWorkflow for Erased<W> {
    fn definition(&self) -> &Definition {
        &self.definition
    }

    fn execute(&self, step: usize, call: StepCall) -> BoxFuture<'static, StepOutcome> {
        Arc::clone(&self.workflow).execute(step, call)
    }
}

/// A workflow of any type, ready to run.
#[derive(Clone)]
#[doc(hidden)]
pub struct AnyWorkflow(pub(crate) Arc<dyn ErasedWorkflow>);

impl AnyWorkflow {
    /// Forgets the type of `workflow`.
    pub fn new<W: Workflow>(workflow: W) -> Self {
        let definition = Definition {
            type_name: std::any::type_name::<W>(),
            options: W::OPTIONS,
            steps: W::STEPS,
            on_failure: const { W::ON_FAILURE.as_ref() },
        };
        Self(Arc::new(Erased { definition, workflow: Arc::new(workflow) }))
    }
}

impl fmt::Debug for AnyWorkflow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AnyWorkflow").field(&self.0.definition().options.name).finish()
    }
}

/// An entry that `#[workflow]` on a struct submits to `inventory`.
#[derive(Debug)]
#[doc(hidden)]
pub struct Registration {
    /// The options, for messages.
    pub options: Options,
    /// Makes the workflow; `None` if its struct has state and must be handed over by `register`.
    pub make: fn() -> Option<AnyWorkflow>,
}

inventory::collect!(Registration);
