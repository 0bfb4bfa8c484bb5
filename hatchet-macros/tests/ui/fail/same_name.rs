//! rustc reports two methods of one name, and that is all there is to say.

use hatchet::prelude::*;

#[workflow]
struct Report;

#[workflow]
impl Report {
    #[step]
    async fn fetch(&self, _ctx: &StepContext) -> StepResult<u8> {
        Ok(1)
    }

    #[step]
    async fn fetch(&self, _ctx: &StepContext) -> StepResult<String> {
        Ok(String::new())
    }

    #[step]
    async fn render(&self, _ctx: &StepContext, fetch: String) -> StepResult<String> {
        Ok(fetch)
    }
}

#[workflow]
struct Conditional;

#[workflow]
impl Conditional {
    #[cfg(unix)]
    #[step]
    async fn fetch(&self, _ctx: &StepContext) -> StepResult<u8> {
        Ok(1)
    }

    #[cfg(not(unix))]
    #[step]
    async fn fetch(&self, _ctx: &StepContext) -> StepResult<u8> {
        Ok(2)
    }
}

fn main() {}
