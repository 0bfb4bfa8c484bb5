//! The forms of the method that runs after a failure.

use hatchet::{Workflow, prelude::*};

macro_rules! workflow_with {
    ($name:ident: $($on_failure:tt)*) => {
        #[workflow]
        struct $name;

        #[workflow]
        impl $name {
            $($on_failure)*

            #[step]
            async fn only(&self, _ctx: &StepContext) -> StepResult<()> {
                Ok(())
            }
        }
    };
}

workflow_with!(Nothing: #[on_failure] async fn failed(&self, _: &StepContext) -> StepResult<()> { Ok(()) });
workflow_with!(Value: #[on_failure] fn failed(&self, _: &StepContext, failure: RunFailure) -> Result<(), String> {
    Err(format!("{failure:?}"))
});
workflow_with!(Reference: #[on_failure(retries = 2)]
    async fn failed(&self, _: &StepContext, _input: String, _failure: &RunFailure) -> std::io::Result<()> {
        Ok(())
    }
);

fn main() {
    assert_eq!(Nothing::ON_FAILURE.unwrap().name, "failed");
    assert_eq!(Value::ON_FAILURE.unwrap().needs, [0; 0]);
    assert_eq!(Reference::ON_FAILURE.unwrap().retries, 2);
    assert_eq!(<Reference as Workflow>::Input::default(), "");
}
