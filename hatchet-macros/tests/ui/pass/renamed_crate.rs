//! The facade under another path, as a renamed dependency or a re-export of one's own has it.

mod house {
    pub mod flows {
        pub use hatchet::*;
    }
}

use house::flows::{Workflow, prelude::*};

#[workflow(crate = crate::house::flows)]
struct Renamed;

#[workflow(crate = crate::house::flows)]
impl Renamed {
    #[step]
    async fn one(&self, _ctx: &StepContext) -> StepResult<u8> {
        Ok(1)
    }

    #[step]
    fn two(&self, _ctx: &StepContext) -> StepResult<u8> {
        Ok(2)
    }
}

fn main() {
    assert_eq!(Renamed::STEPS.len(), 2);
    assert_eq!(RenamedOutput { one: 1, two: 2 }.one, 1);
}
