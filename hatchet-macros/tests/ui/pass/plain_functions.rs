//! A step without `async` may block; all else is the same. Any method can be called like the function that it is.

use hatchet::{Workflow, prelude::*};

#[workflow]
struct Blocking;

#[workflow]
impl Blocking {
    #[step(retries = 1)]
    fn read(&self, ctx: &StepContext, input: &String) -> StepResult<Vec<u8>> {
        let _ = ctx;
        Ok(std::fs::read(input)?)
    }

    #[step]
    async fn count(&self, _ctx: &StepContext, read: &[u8]) -> StepResult<usize> {
        Ok(read.len())
    }

    #[on_failure]
    fn report(&self, _ctx: &StepContext, failure: RunFailure, input: String) -> Result<(), String> {
        let (_failure, _input) = (failure, input);
        Ok(())
    }
}

#[allow(dead_code)]
async fn a_unit_test_calls_methods_as_they_are(ctx: &StepContext) {
    let bytes: StepResult<Vec<u8>> = Blocking.read(ctx, &"file".to_owned());
    let count: StepResult<usize> = Blocking.count(ctx, &bytes.unwrap_or_default()).await;
    assert_eq!(count.unwrap_or_default(), 0);
}

fn main() {
    assert_eq!(Blocking::STEPS[1].needs, [0]);
    assert_eq!(Blocking::ON_FAILURE.unwrap().name, "report");
}
