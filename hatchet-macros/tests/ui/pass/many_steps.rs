//! A step may need more others than a tuple has traits for.

use hatchet::{Workflow, prelude::*};

macro_rules! wide {
    ($($name:ident)*) => {
        #[workflow]
        struct Wide;

        #[workflow]
        impl Wide {
            $(
                #[step]
                async fn $name(&self, _ctx: &StepContext, input: u64) -> StepResult<u64> {
                    Ok(input)
                }
            )*

            #[step]
            async fn sum(&self, _ctx: &StepContext, $($name: u64,)* input: &u64) -> StepResult<u64> {
                Ok(*input $(+ $name)*)
            }
        }
    };
}

wide!(a b c d e f g h i j k l m n o p q r s t u v w x y z);

fn main() {
    assert_eq!(Wide::STEPS.len(), 27);
    assert_eq!(Wide::STEPS[26].needs, (0..26).collect::<Vec<u16>>());
}
