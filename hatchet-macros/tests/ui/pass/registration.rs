//! Unit structs and those with a default value register themselves; others leave an entry that says that they did not.

use std::collections::BTreeMap;

use hatchet::{__private::Registration, prelude::*};

#[workflow]
struct Unit;

#[workflow]
#[derive(Default)]
struct WithDefault {
    number: u32,
}

#[workflow(name = "with state")]
struct WithState(u32);

#[workflow]
struct Braces {}

macro_rules! steps {
    ($($name:ident)*) => {$(
        #[workflow]
        impl $name {
            #[step]
            async fn only(&self, _ctx: &StepContext) -> StepResult<()> {
                Ok(())
            }
        }
    )*};
}

steps!(Unit WithDefault WithState Braces);

fn main() {
    let entries = hatchet::__private::inventory::iter::<Registration>();
    let made: BTreeMap<_, _> = entries.map(|entry| (entry.options.name, (entry.make)().is_some())).collect();
    assert_eq!(made, BTreeMap::from([("Unit", true), ("WithDefault", true), ("with state", false), ("Braces", false)]));
    let _ = (WithDefault::default().number, WithState(1).0, Braces {});
}
