//! `#[cfg]` on a step takes it out of the graph: positions, input and output are those of what is left.

use hatchet::{Workflow, prelude::*};

#[workflow]
struct Report;

#[workflow]
impl Report {
    #[cfg(any())]
    #[step]
    async fn absent(&self, _ctx: &StepContext, input: NoSuchType) -> StepResult<NoSuchType> {
        Ok(input)
    }

    #[step]
    async fn fetch(&self, _ctx: &StepContext) -> StepResult<u8> {
        Ok(1)
    }

    #[step]
    #[cfg(all())]
    #[cfg(not(any()))]
    async fn present(&self, _ctx: &StepContext, _fetch: u8) -> StepResult<u16> {
        Ok(2)
    }

    #[cfg(any())]
    #[step]
    async fn needs_absent(&self, _ctx: &StepContext, absent: NoSuchType, present: u16) -> StepResult<NoSuchType> {
        Ok(absent)
    }

    #[step]
    #[cfg(all())]
    #[cfg(not(any()))]
    fn last(&self, _ctx: &StepContext, present: u16) -> StepResult<u32> {
        Ok(u32::from(present))
    }

    #[cfg(any())]
    #[on_failure]
    async fn cleanup(&self, _ctx: &StepContext, failure: NoSuchType) -> StepResult<()> {
        Ok(())
    }
}

/// The last step is configured out, which makes the one before it the last.
#[workflow]
struct Shortened;

#[workflow]
impl Shortened {
    #[step]
    async fn fetch(&self, _ctx: &StepContext) -> StepResult<u8> {
        Ok(1)
    }

    #[cfg(any())]
    #[step]
    async fn publish(&self, _ctx: &StepContext, fetch: u8) -> StepResult<NoSuchType> {
        Ok(fetch)
    }

    #[cfg(all())]
    #[on_failure]
    async fn cleanup(&self, _ctx: &StepContext) -> StepResult<()> {
        Ok(())
    }
}

/// One of several last steps is.
#[workflow]
struct Several;

#[workflow]
impl Several {
    #[step]
    async fn one(&self, _ctx: &StepContext, input: &String) -> StepResult<u8> {
        Ok(input.len() as u8)
    }

    #[step]
    #[cfg(any())]
    async fn two(&self, _ctx: &StepContext) -> StepResult<NoSuchType> {
        Ok(2)
    }

    #[step]
    #[cfg(all())]
    async fn three(&self, _ctx: &StepContext) -> StepResult<u8> {
        Ok(3)
    }
}

/// A whole workflow.
#[workflow]
#[cfg(any())]
struct Absent;

#[workflow]
#[cfg(any())]
impl Absent {
    #[step]
    async fn one(&self, _ctx: &StepContext) -> StepResult<NoSuchType> {
        Ok(1)
    }

    #[step]
    async fn two(&self, _ctx: &StepContext) -> StepResult<NoSuchType> {
        Ok(2)
    }
}

fn main() {
    let steps: Vec<_> = Report::STEPS.iter().map(|step| (step.name, step.needs)).collect();
    assert_eq!(steps, [("fetch", &[][..]), ("present", &[0]), ("last", &[1])]);
    let _: <Report as Workflow>::Output = 1_u32;
    let _: <Report as Workflow>::Input = ();
    assert!(Report::ON_FAILURE.is_none());

    assert_eq!(Shortened::STEPS.len(), 1);
    let _: <Shortened as Workflow>::Output = 1_u8;
    assert_eq!(Shortened::ON_FAILURE.unwrap().name, "cleanup");

    let output: <Several as Workflow>::Output = SeveralOutput { one: 1, three: 3 };
    assert_eq!(output.one + output.three, 4);
}
