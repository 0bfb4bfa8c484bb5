//! Items that a `macro_rules!` writes, whole or with fragments of its caller.

use hatchet::{Workflow, prelude::*};

macro_rules! map {
    ($name:ident, $input:ty, $output:ty, $argument:ident => $body:expr) => {
        #[workflow]
        struct $name;

        #[workflow]
        impl $name {
            #[step]
            async fn first(&self, _ctx: &StepContext, input: &$input) -> StepResult<$input> {
                Ok(input.clone())
            }

            #[step(after = [first])]
            fn second(&self, _ctx: &StepContext, $argument: $input, input: $input) -> Result<$output, String> {
                let _ = input;
                Ok($body)
            }
        }
    };
}

map!(Count, Vec<u8>, usize, first => first.len());

macro_rules! reference {
    ($name:ident, $input:ty, $result:ty) => {
        #[workflow]
        struct $name;

        #[workflow]
        impl $name {
            #[step]
            async fn only(&self, _ctx: &StepContext, input: $input) -> $result {
                Ok(input.clone())
            }
        }
    };
}

reference!(ByReference, &String, StepResult<String>);
reference!(ByValue, String, Result<String, std::io::Error>);

mod apart {
    use super::*;

    macro_rules! length {
        ($name:ident, $argument:ident) => {
            #[workflow]
            pub struct $name;

            #[workflow]
            impl $name {
                #[step]
                async fn start(&self, ctx: &StepContext, input: Vec<u8>) -> StepResult<Vec<u8>> {
                    let _ = ctx;
                    Ok(input)
                }

                #[step]
                async fn length(&self, ctx: &StepContext, $argument: &Vec<u8>) -> StepResult<usize> {
                    let _ = ctx;
                    Ok($argument.len())
                }
            }
        };
    }

    length!(Length, start);
}

fn main() {
    assert_eq!(<ByReference as Workflow>::Input::default(), "");
    assert_eq!(<ByValue as Workflow>::Input::default(), "");
    assert_eq!(Count::STEPS[1].needs, [0]);
    assert_eq!(apart::Length::STEPS[1].needs, [0]);
}
