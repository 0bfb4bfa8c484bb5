//! Workflows that a function answers for.

use std::marker::PhantomData;

use crate::{
    definition::{BoxFuture, Definition, StepDef, StepOutcome},
    failure::StepResult,
    workflow::{AnyWorkflow, ErasedWorkflow, StepCall, Workflow},
};

struct Mock<W, F> {
    definition: Definition,
    answer: F,
    workflow: PhantomData<fn() -> W>,
}

/// A workflow with the name and options of `W` and one step, which is this function.
pub(super) fn mock<W: Workflow>(
    answer: impl Fn(W::Input) -> StepResult<W::Output> + Clone + Send + Sync + 'static,
) -> AnyWorkflow {
    const STEP: StepDef =
        StepDef { name: "mock", needs: &[], retries: 0, backoff: None, timeout: None, keep_failures: false };
    let definition = Definition { type_name: "a mock", options: W::OPTIONS, steps: &[STEP], on_failure: None };
    AnyWorkflow(std::sync::Arc::new(Mock::<W, _> { definition, answer, workflow: PhantomData }))
}

impl<W, F> ErasedWorkflow for Mock<W, F>
where
    W: Workflow,
    F: Fn(W::Input) -> StepResult<W::Output> + Clone + Send + Sync + 'static,
{
    fn definition(&self) -> &Definition {
        &self.definition
    }

    fn execute(&self, _step: usize, call: StepCall) -> BoxFuture<'static, StepOutcome> {
        let answer = self.answer.clone();
        Box::pin(async move {
            let input = call.input()?;
            call.finish(answer(input))
        })
    }
}
