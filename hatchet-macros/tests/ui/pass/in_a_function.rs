//! A workflow within a function, as a test has it.
#![deny(warnings)]

use hatchet::{Workflow, prelude::*};

fn main() {
    #[workflow]
    struct Local;

    #[workflow]
    impl Local {
        #[step]
        async fn one(&self, _ctx: &StepContext) -> StepResult<u8> {
            Ok(1)
        }

        #[cfg(all())]
        #[step]
        async fn two(&self, _ctx: &StepContext) -> StepResult<u8> {
            Ok(1)
        }
    }

    assert_eq!(Local::STEPS.len(), 2);
    assert_eq!(LocalOutput { one: 1, two: 2 }.two, 2);
}
