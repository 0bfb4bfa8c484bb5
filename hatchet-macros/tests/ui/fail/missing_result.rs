//! A step returns a `Result`.

use hatchet::prelude::*;

#[workflow]
struct Report;

#[workflow]
impl Report {
    #[step]
    async fn nothing(&self, _ctx: &StepContext) {}

    #[step]
    async fn anything(&self, _ctx: &StepContext) -> impl Sized {}

    #[step]
    fn future(&self, _ctx: &StepContext) -> Result<impl Future<Output = ()>, String> {
        Ok(async {})
    }
}

fn main() {}
