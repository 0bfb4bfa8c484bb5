//! Where several steps have no successor, the output is a struct with a field for each.

use hatchet::{Workflow, prelude::*};
use serde::{Deserialize, Serialize};

/// Neither `Debug` nor `Clone`.
#[derive(Serialize, Deserialize)]
pub struct Opaque;

#[workflow]
pub struct Plain;

#[workflow]
impl Plain {
    #[step]
    async fn start(&self, _ctx: &StepContext) -> StepResult<u8> {
        Ok(1)
    }

    #[step]
    async fn left(&self, _ctx: &StepContext, start: u8) -> StepResult<u8> {
        Ok(start)
    }

    #[step]
    async fn r#type(&self, _ctx: &StepContext, start: u8) -> Result<Option<String>, std::fmt::Error> {
        Ok(Some(start.to_string()))
    }
}

#[workflow]
pub struct WithOpaque;

#[workflow]
impl WithOpaque {
    #[step]
    async fn one(&self, _ctx: &StepContext) -> StepResult<Opaque> {
        Ok(Opaque)
    }

    #[step]
    async fn two(&self, _ctx: &StepContext) -> StepResult<Vec<Opaque>> {
        Ok(Vec::new())
    }
}

mod private {
    use super::*;

    #[derive(Debug, Serialize, Deserialize)]
    struct Hidden;

    #[workflow]
    #[derive(Debug, Serialize, Deserialize)]
    struct Inner;

    #[workflow]
    impl Inner {
        #[step]
        async fn one(&self, _ctx: &StepContext) -> StepResult<Hidden> {
            Ok(Hidden)
        }

        #[step]
        async fn two(&self, _ctx: &StepContext) -> StepResult<Option<Self>> {
            Ok(None)
        }
    }

    pub fn check() {
        let InnerOutput { one: Hidden, two } = InnerOutput { one: Hidden, two: Some(Inner) };
        assert!(two.is_some());
    }
}

fn main() {
    let output: <Plain as Workflow>::Output = PlainOutput { left: 1, r#type: Some("x".to_owned()) };
    assert_eq!(format!("{:?}", output.clone()), r#"PlainOutput { left: 1, type: Some("x") }"#);
    let json = serde_json::to_string(&output).unwrap();
    assert_eq!(json, r#"{"left":1,"type":"x"}"#);
    assert_eq!(serde_json::from_str::<PlainOutput>(&json).unwrap().r#type.unwrap(), "x");

    let WithOpaqueOutput { one: Opaque, two } = WithOpaqueOutput { one: Opaque, two: vec![Opaque] };
    assert_eq!(two.len(), 1);
    private::check();
}
