//! Arguments are taken by value or by reference, mutable, unused, or as what a reference coerces to.

use hatchet::{Workflow, prelude::*};

#[workflow]
struct Arguments;

#[workflow]
impl Arguments {
    #[step]
    async fn words(&self, _: &StepContext, mut input: Vec<String>) -> StepResult<Vec<String>> {
        input.push(String::new());
        Ok(input)
    }

    #[step]
    async fn text(&self, ctx: &StepContext, input: &Vec<String>, words: &[String]) -> StepResult<String> {
        let _ = ctx;
        Ok(input.concat() + &words.concat())
    }

    #[step]
    async fn by_value(&self, context: &StepContext, mut words: Vec<String>, text: &str) -> StepResult<usize> {
        let _ = context;
        words.pop();
        Ok(words.len() + text.len())
    }

    #[step]
    async fn unused(
        self: &Self,
        _ctx: &StepContext,
        _words: &Vec<String>,
        _text: String,
        by_value: usize,
        _input: Vec<String>,
    ) -> StepResult<usize> {
        Ok(by_value)
    }

    #[step]
    async fn with_lifetimes<'a>(
        &'a self,
        _ctx: &'a StepContext,
        #[allow(unused)] unused: &'a usize,
        #[allow(unused_parens)] (input): &'a Vec<String>,
    ) -> StepResult<usize>
    where
        Self: Sized,
    {
        Ok(input.len())
    }
}

fn main() {
    let needs: Vec<_> = Arguments::STEPS.iter().map(|step| step.needs).collect();
    assert_eq!(needs, [&[][..], &[0], &[0, 1], &[0, 1, 2], &[3]]);
}
