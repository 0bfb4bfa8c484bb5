//! A generic workflow is implemented for all its types, and registered by hand.

use std::{fmt::Display, marker::PhantomData};

use hatchet::{__private::Registration, Workflow, WorkflowOptions, prelude::*};
use serde::{Serialize, de::DeserializeOwned};

trait Db: Send + Sync + 'static {
    type Row: Serialize + DeserializeOwned + Send + Sync + 'static;

    fn row(&self) -> Self::Row;
}

struct Memory;

impl Db for Memory {
    type Row = u64;

    fn row(&self) -> u64 {
        7
    }
}

#[workflow(name = "report")]
struct Report<D, const N: usize = 3>
where
    D: ?Sized,
{
    db: Box<D>,
}

#[workflow]
impl<D: Db, const N: usize> Report<D, N>
where
    D::Row: Display,
{
    #[step]
    async fn fetch(&self, _ctx: &StepContext) -> StepResult<Vec<D::Row>> {
        Ok((0..N).map(|_| self.db.row()).collect())
    }

    #[step]
    fn show(&self, _ctx: &StepContext, fetch: &[D::Row]) -> Result<String, String> {
        Ok(fetch.iter().map(|row| row.to_string()).collect())
    }
}

#[workflow]
#[derive(Default)]
struct Echo<T>(PhantomData<T>);

#[workflow]
impl<T: Serialize + DeserializeOwned + Send + Sync + 'static> Echo<T> {
    #[step]
    async fn echo(&self, _ctx: &StepContext, input: T) -> StepResult<T> {
        Ok(input)
    }
}

#[workflow]
struct Fixed<T>(T);

#[workflow]
impl Fixed<u8> {
    #[step]
    async fn one(&self, _ctx: &StepContext) -> StepResult<u8> {
        Ok(self.0)
    }

    #[step]
    async fn two(&self, _ctx: &StepContext) -> StepResult<u8> {
        Ok(self.0)
    }
}

fn main() {
    assert_eq!(Report::<Memory, 2>::OPTIONS.name, "report");
    assert_eq!(Report::<Memory, 2>::STEPS[1].needs, [0]);
    assert_eq!(<Echo<String> as Workflow>::Input::default(), "");
    assert_eq!(FixedOutput { one: 1, two: 2 }.two, 2);
    let _ = (Report::<Memory, 2> { db: Box::new(Memory) }, Echo::<u8>::default(), Fixed(0_u8));
    assert_eq!(hatchet::__private::inventory::iter::<Registration>().count(), 0);
}
