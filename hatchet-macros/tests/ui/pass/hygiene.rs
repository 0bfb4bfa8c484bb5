//! No name in scope is in the way of an expansion.
#![no_implicit_prelude]
#![allow(dead_code)]

mod core {}
mod std {}
mod serde {}
mod tokio {}
mod inventory {}
mod alloc {}

struct Result;
struct Option;
struct Box;
struct Vec;
struct Arc;
struct Future;
struct Position;
struct StepDef;
trait Iterator {}
trait Send {}
trait Sync {}
trait Default {}
trait Debug {}
trait Clone {}
trait Workflow {}
trait WorkflowOptions {}
trait StepReturn {}
trait Serialize {}
trait Deserialize {}
#[allow(non_camel_case_types)]
struct u16;
#[allow(non_snake_case)]
fn Ok() {}
#[allow(non_snake_case)]
fn Err() {}
#[allow(non_snake_case)]
fn Some() {}
#[allow(non_upper_case_globals)]
const None: () = ();

#[::hatchet::workflow(timeout = "1s")]
struct Hygiene;

#[::hatchet::workflow]
impl Hygiene {
    #[step(retries = 1, backoff = "1s..2s")]
    async fn call(&self, _ctx: &::hatchet::StepContext, input: ::std::string::String) -> ::hatchet::StepResult<u8> {
        let _ = input;
        ::core::result::Result::Ok(1)
    }

    #[step]
    fn arguments(&self, _ctx: &::hatchet::StepContext, call: &u8) -> ::core::result::Result<u8, &'static str> {
        ::core::result::Result::Ok(*call)
    }

    #[step]
    async fn execute(&self, _ctx: &::hatchet::StepContext, _arguments: u8) -> ::hatchet::StepResult<u8> {
        ::core::result::Result::Ok(1)
    }

    #[step]
    async fn clone(&self, _ctx: &::hatchet::StepContext, _execute: &u8) -> ::hatchet::StepResult<u8> {
        ::core::result::Result::Ok(1)
    }

    #[step]
    async fn finish(&self, _ctx: &::hatchet::StepContext, _arguments: u8) -> ::hatchet::StepResult<u8> {
        ::core::result::Result::Ok(1)
    }

    #[step]
    #[cfg(all())]
    async fn output(&self, _ctx: &::hatchet::StepContext, _arguments: u8) -> ::hatchet::StepResult<u8> {
        ::core::result::Result::Ok(1)
    }

    #[on_failure]
    async fn failed(
        &self,
        _ctx: &::hatchet::StepContext,
        _failure: &::hatchet::RunFailure,
    ) -> ::hatchet::StepResult<()> {
        ::core::result::Result::Ok(())
    }
}

#[::hatchet::workflow]
#[derive(::core::default::Default)]
struct WithState {
    _number: u8,
}

#[::hatchet::workflow]
impl WithState {
    #[step]
    async fn left(&self, _ctx: &::hatchet::StepContext) -> ::hatchet::StepResult<u8> {
        ::core::result::Result::Ok(1)
    }

    #[step]
    async fn right(&self, _ctx: &::hatchet::StepContext) -> ::hatchet::StepResult<u8> {
        ::core::result::Result::Ok(1)
    }
}

fn main() {
    ::core::assert!(<Hygiene as ::hatchet::Workflow>::STEPS.len() == 6);
}
