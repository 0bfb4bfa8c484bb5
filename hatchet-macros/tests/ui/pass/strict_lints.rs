//! Expansions give no warning, whatever a crate denies.
#![deny(warnings, future_incompatible, nonstandard_style, rust_2018_idioms, rust_2024_compatibility, unused)]
#![deny(missing_docs, missing_debug_implementations, missing_copy_implementations, unreachable_pub)]
#![deny(unused_qualifications, unused_lifetimes, unused_results, unused_import_braces, unused_crate_dependencies)]
#![deny(let_underscore_drop, redundant_lifetimes, single_use_lifetimes, trivial_casts, trivial_numeric_casts)]
#![deny(unit_bindings, variant_size_differences, elided_lifetimes_in_paths, explicit_outlives_requirements)]
#![forbid(unsafe_code)]
#![allow(unused_crate_dependencies)]

use hatchet::{Workflow, prelude::*};

/// A workflow with a default value.
#[workflow]
#[derive(Clone, Copy, Debug, Default)]
pub struct Strict {
    /// A number.
    pub number: u8,
}

#[workflow]
impl Strict {
    /// One.
    #[step(retries = 1)]
    pub async fn one(&self, _ctx: &StepContext, input: ()) -> StepResult<()> {
        Ok(input)
    }

    #[step]
    fn two(&self, _ctx: &StepContext, one: ()) -> Result<(), String> {
        Ok(one)
    }

    #[deprecated]
    #[step(after = [one])]
    async fn three(&self, _ctx: &StepContext, _input: &()) -> Result<(), String> {
        Ok(())
    }

    #[cfg(all())]
    #[step(after = [one])]
    async fn four(&self, _ctx: &StepContext) -> Result<(), String> {
        Ok(())
    }
}

#[deprecated]
#[workflow]
struct Unit;

#[workflow]
#[allow(deprecated)]
impl Unit {
    #[step]
    async fn only(&self, _ctx: &StepContext) -> StepResult<()> {
        Ok(())
    }
}

fn main() {
    assert_eq!(Strict::STEPS.len(), 4);
}
