//! A step returns any `Result`, under any name, with any error that converts into a boxed one.

use std::{error::Error, fmt, io};

use hatchet::{Workflow, prelude::*};

type Mine<T> = Result<T, MyError>;
type Fixed = Result<u8, String>;

#[derive(Debug)]
struct MyError;

impl fmt::Display for MyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("mine")
    }
}

impl Error for MyError {}

#[workflow]
struct Results;

#[workflow]
impl Results {
    #[step]
    async fn aliased(&self, _ctx: &StepContext) -> Mine<u8> {
        Err(MyError)
    }

    #[step]
    async fn fixed(&self, _ctx: &StepContext, _aliased: u8) -> Fixed {
        Err("text".to_owned())
    }

    #[step]
    async fn of_another_crate(&self, _ctx: &StepContext, _fixed: u8) -> io::Result<Vec<u8>> {
        std::fs::read("nothing")
    }

    #[step]
    async fn boxed(&self, _ctx: &StepContext, of_another_crate: Vec<u8>) -> Result<(), Box<dyn Error + Send + Sync>> {
        Ok(std::str::from_utf8(&of_another_crate).map(drop)?)
    }

    #[step]
    async fn borrowed(&self, _ctx: &StepContext, boxed: ()) -> Result<u16, &'static str> {
        let () = boxed;
        "7".parse::<u16>().map_err(|_| "no number")
    }

    #[step]
    async fn last(&self, _ctx: &StepContext, borrowed: u16) -> StepResult<u32> {
        let parsed: u32 = "7".parse()?;
        Ok(parsed + u32::from(borrowed))
    }
}

fn main() {
    let _: <Results as Workflow>::Output = 7_u32;
}
