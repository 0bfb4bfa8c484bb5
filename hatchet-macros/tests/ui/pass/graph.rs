//! Arguments are edges; the order of the methods is only that of the positions.

use hatchet::{Workflow, prelude::*};
use serde::{Deserialize, Serialize};

#[derive(Debug, Default, Serialize, Deserialize)]
struct Query;
#[derive(Debug, Default, Serialize, Deserialize)]
struct Rows;
#[derive(Debug, Default, Serialize, Deserialize)]
struct Stats;
#[derive(Debug, Default, Serialize, Deserialize)]
struct Png;
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Html(String);

#[workflow]
#[derive(Default)]
struct Report;

#[workflow]
impl Report {
    #[step]
    async fn fetch(&self, _ctx: &StepContext, input: Query) -> StepResult<Rows> {
        let Query = input;
        Ok(Rows)
    }

    #[step]
    async fn stats(&self, _ctx: &StepContext, _fetch: &Rows) -> Result<Stats, std::io::Error> {
        Ok(Stats)
    }

    #[step]
    async fn chart(&self, _ctx: &StepContext, _fetch: &Rows) -> StepResult<Png> {
        Ok(Png)
    }

    #[step(after = [audit])]
    async fn render(&self, _ctx: &StepContext, stats: Stats, _chart: Png, _input: &Query) -> StepResult<Html> {
        Ok(Html(format!("{stats:?}")))
    }

    #[step]
    async fn audit(&self, _ctx: &StepContext, _input: &Query) -> StepResult<()> {
        Ok(())
    }

    #[on_failure]
    async fn cleanup(&self, _ctx: &StepContext, _failure: &RunFailure) -> StepResult<()> {
        Ok(())
    }
}

fn main() {
    let names: Vec<_> = Report::STEPS.iter().map(|step| step.name).collect();
    assert_eq!(names, ["fetch", "stats", "chart", "render", "audit"]);
    let needs: Vec<_> = Report::STEPS.iter().map(|step| step.needs).collect();
    assert_eq!(needs, [&[][..], &[0], &[0], &[1, 2, 4], &[]]);
    let output: <Report as Workflow>::Output = Html::default();
    assert_eq!(output, Html(String::new()));
    let Query = <Report as Workflow>::Input::default();
}
