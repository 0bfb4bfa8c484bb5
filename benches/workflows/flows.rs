//! The workflows that are measured. One child of a trivial step, with some 32 bytes of input and 20 of output, is the unit.

use hatchet::prelude::*;
use serde::{Deserialize, Serialize};

/// 31 bytes of JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Page {
    pub(crate) page: u32,
    pub(crate) name: String,
}

impl Page {
    pub(crate) fn numbered(number: usize) -> Self {
        Self { page: 100_000 + number as u32, name: "abcdefg".to_owned() }
    }
}

/// 20 bytes of JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Summary {
    pub(crate) value: String,
}

impl Summary {
    /// What the child does: as good as nothing, but its result depends on its input.
    pub(crate) fn of(page: &Page) -> Self {
        Self { value: format!("{:08}", page.page - 100_000) }
    }

    /// So that a measurement can prove that each child gave its own result.
    pub(crate) fn number(&self) -> u64 {
        self.value.parse().unwrap_or(u64::MAX)
    }
}

/// The unit.
#[workflow]
pub(crate) struct Child;

#[workflow]
impl Child {
    #[step]
    async fn summarize(&self, _ctx: &StepContext, input: Page) -> StepResult<Summary> {
        Ok(Summary::of(&input))
    }
}

/// Spawns so many children, gathers them, and adds up what they give.
#[workflow]
pub(crate) struct FanOut;

#[workflow]
impl FanOut {
    #[step]
    async fn gather(&self, ctx: &StepContext, input: usize) -> StepResult<u64> {
        let children = ctx.spawn_all::<Child>((0..input).map(Page::numbered)).await?;
        Ok(children.gather().await?.iter().map(Summary::number).sum())
    }
}

/// The same with a loop that spawns one child each time.
#[workflow]
pub(crate) struct Loop;

#[workflow]
impl Loop {
    #[step]
    async fn gather(&self, ctx: &StepContext, input: usize) -> StepResult<u64> {
        let mut children = Vec::with_capacity(input);
        for number in 0..input {
            children.push(ctx.spawn::<Child>(Page::numbered(number)).await?);
        }
        Ok(ctx.gather(children).await?.iter().map(Summary::number).sum())
    }
}

/// The same with a key for each child.
#[workflow]
pub(crate) struct KeyedLoop;

#[workflow]
impl KeyedLoop {
    #[step]
    async fn gather(&self, ctx: &StepContext, input: usize) -> StepResult<u64> {
        let mut children = Vec::with_capacity(input);
        for number in 0..input {
            children.push(ctx.spawn::<Child>(Page::numbered(number)).key(format!("page-{number}")).await?);
        }
        Ok(ctx.gather(children).await?.iter().map(Summary::number).sum())
    }
}

/// Spawns children with keys by one call, and gathers them.
#[workflow]
pub(crate) struct Keyed;

#[workflow]
impl Keyed {
    #[step]
    async fn gather(&self, ctx: &StepContext, input: usize) -> StepResult<u64> {
        let pages = (0..input).map(Page::numbered);
        let children = ctx.spawn_all::<Child>(pages).keyed(|page| format!("page-{}", page.page)).await?;
        Ok(children.gather().await?.iter().map(Summary::number).sum())
    }
}

/// What these give if every child did its work.
pub(crate) fn sum_of(children: usize) -> u64 {
    (0..children as u64).sum()
}
