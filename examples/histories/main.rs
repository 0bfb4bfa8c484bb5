//! A folder of histories of real runs, and a test that today's code still fits them: so a change that would stall runs is noticed
//! before it is deployed.
//!
//! `cargo test --example histories --features testing` is what CI does. `cargo run --example histories --features
//! testing` says of each history what the code makes of it, and what other code would; with the name of a new file, it
//! exports a run into the folder.

use std::{path::Path, time::Duration};

use hatchet::{
    History,
    prelude::*,
    testing::{Replayed, TestWorld},
};

/// Ships an order an hour after it was placed, so that it can be cancelled until then.
#[workflow(name = "order")]
#[derive(Default)]
struct Order;

#[workflow]
impl Order {
    #[step]
    async fn reserve(&self, ctx: &StepContext, input: u32) -> StepResult<u32> {
        Ok(ctx.run("reserve", || async { Ok::<_, String>(input + 1000) }).await?)
    }

    #[step]
    async fn ship(&self, ctx: &StepContext, reserve: u32) -> StepResult<String> {
        ctx.sleep(Duration::from_secs(3600)).await?;
        let truck: String = ctx.wait_for("truck").await?;
        Ok(format!("{truck} takes {reserve}"))
    }
}

/// The next version, written in a hurry: runs in progress have a timer of one hour.
#[workflow(name = "order")]
struct Hurried;

#[workflow]
impl Hurried {
    #[step]
    async fn reserve(&self, ctx: &StepContext, input: u32) -> StepResult<u32> {
        Ok(ctx.run("reserve", || async { Ok::<_, String>(input + 1000) }).await?)
    }

    #[step]
    async fn ship(&self, ctx: &StepContext, reserve: u32) -> StepResult<String> {
        ctx.sleep(Duration::from_secs(7200)).await?;
        let truck: String = ctx.wait_for("truck").await?;
        Ok(format!("{truck} takes {reserve}"))
    }
}

/// The histories of the folder, each with the name of its file, in order.
fn histories() -> Result<Vec<(String, History)>, Box<dyn std::error::Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/histories/runs");
    let mut files = std::fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    files.sort_by_key(|file| file.file_name());
    let read = |file: &std::fs::DirEntry| -> Result<_, Box<dyn std::error::Error>> {
        let history = History::from_json(&std::fs::read_to_string(file.path())?)?;
        Ok((file.file_name().to_string_lossy().into_owned(), history))
    };
    files.iter().map(read).collect()
}

/// The code as it is in this program.
fn today() -> TestWorld {
    TestWorld::new().register(Order::default)
}

#[tokio::test]
async fn runs_in_progress_go_on_under_this_code() -> Result<(), Box<dyn std::error::Error>> {
    for (file, history) in histories()? {
        let replayed = today().check_replay(&history).await?;
        assert!(replayed.goes_on(), "{file}: {replayed}");
    }
    Ok(())
}

/// Exports a run in its first hour.
async fn export(file: &str) -> Result<(), Box<dyn std::error::Error>> {
    let hatchet = Hatchet::connect("memory://").await?;
    let worker = hatchet.worker().register(Order).only_registered().start().await?;
    let run = hatchet.start::<Order>(17).await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    std::fs::write(file, hatchet.export(run.id()).await?.to_json())?;
    worker.shutdown().await?;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    if let Some(file) = std::env::args().nth(1) {
        return export(&file).await;
    }
    for (file, history) in histories()? {
        println!("{file}: {}", today().check_replay(&history).await?);
        let hurried = TestWorld::new().register(|| Hurried);
        if let Replayed::Stalls(stalls) = hurried.check_replay(&history).await? {
            for stall in stalls {
                println!("{file}: the hurried code would stall step {:?}: {}", stall.step, stall.wanted);
            }
        }
    }
    Ok(())
}
