//! What else stands in the block stays as it is.

/// Attributes by path need no import.
#[hatchet::workflow]
#[derive(Debug)]
pub struct Mixed;

#[hatchet::workflow]
#[allow(dead_code)]
impl Mixed {
    const LIMIT: usize = 3;

    /// A constructor.
    pub const fn new() -> Self {
        Self
    }

    /// Documented.
    #[inline]
    #[must_use]
    #[hatchet::step(retries = 2)]
    pub async fn first(&self, _ctx: &hatchet::StepContext) -> hatchet::StepResult<usize> {
        Ok(self.helper(Self::LIMIT))
    }

    fn helper<T>(&self, value: T) -> T {
        value
    }

    #[hatchet::on_failure]
    pub(crate) async fn failed(&self, _ctx: &hatchet::StepContext) -> hatchet::StepResult<()> {
        Ok(())
    }
}

#[hatchet::workflow]
#[allow(non_camel_case_types)]
struct r#struct;

#[hatchet::workflow]
impl r#struct {
    #[hatchet::step]
    async fn r#match(&self, _ctx: &hatchet::StepContext) -> hatchet::StepResult<u8> {
        Ok(1)
    }

    #[hatchet::step(after = [r#match])]
    async fn r#loop(&self, _ctx: &hatchet::StepContext, r#match: u8) -> hatchet::StepResult<u8> {
        Ok(r#match)
    }
}

fn main() {
    use hatchet::{Workflow, WorkflowOptions};

    assert_eq!(Mixed::new().helper(Mixed::STEPS[0].retries), 2);
    assert_eq!(r#struct::OPTIONS.name, "struct");
    assert_eq!(r#struct::STEPS[1].name, "loop");
    assert_eq!(r#struct::STEPS[1].needs, [0]);
}
