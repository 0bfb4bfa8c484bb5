//! The smallest workflow: names and defaults come from the source.

use hatchet::{Workflow, WorkflowOptions, prelude::*};

#[workflow]
struct Greet;

#[workflow]
impl Greet {
    #[step]
    async fn greet(&self, _ctx: &StepContext, input: String) -> StepResult<usize> {
        Ok(input.len())
    }
}

fn same<T>(_: T, _: T) {}

fn main() {
    let options = Greet::OPTIONS;
    assert_eq!((options.name, options.queue), ("Greet", "default"));
    assert_eq!((options.timeout, options.queue_timeout), (None, None));
    assert!(options.location.0.ends_with("one_step.rs"));
    assert_eq!(options.location.1, 5);

    let [greet] = Greet::STEPS else { panic!() };
    assert_eq!((greet.name, greet.needs, greet.retries), ("greet", &[][..], 0));
    assert_eq!((greet.backoff, greet.timeout, greet.keep_failures), (None, None, false));
    assert!(Greet::ON_FAILURE.is_none());

    same(<Greet as Workflow>::Input::default(), String::new());
    same(<Greet as Workflow>::Output::default(), 0_usize);
}
