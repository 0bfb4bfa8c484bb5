//! An order in several parts, each of which can be undone: when one fails for good, those before it are undone, the last one
//! first. `cargo run --example order_saga`

use std::sync::{Arc, Mutex};

use hatchet::{Error, prelude::*};

/// What was booked. Where everything was undone, it sums to zero.
#[derive(Default)]
struct Ledger(Mutex<Vec<i64>>);

impl Ledger {
    async fn book(&self, what: &str, amount: i64) -> Result<(), String> {
        if what == "ship parcel" {
            return Err("the address does not exist".to_owned());
        }
        println!("{what}: {amount}");
        self.0.lock().unwrap().push(amount);
        Ok(())
    }

    fn sum(&self) -> i64 {
        self.0.lock().unwrap().iter().sum()
    }
}

#[workflow]
struct Order {
    ledger: Arc<Ledger>,
}

#[workflow]
impl Order {
    #[step]
    async fn place(&self, ctx: &StepContext, input: i64) -> StepResult<()> {
        let parts = [
            ("reserve goods", "release goods", -input),
            ("charge customer", "refund customer", 2 * input),
            ("ship parcel", "call parcel back", -input / 10),
        ];
        let mut done = Vec::new();
        for (what, undo, amount) in parts {
            // Recorded: after a crash the step runs again from its start, and a booking that is recorded is not made again.
            match ctx.run(what, || self.ledger.book(what, amount)).await {
                Ok(()) => done.push((undo, amount)),
                Err(error @ Error::Recorded { .. }) => {
                    for (undo, amount) in done.into_iter().rev() {
                        ctx.run(undo, || self.ledger.book(undo, -amount)).await?;
                    }
                    return Err(StepError::from(error).no_retry());
                }
                // It was not the booking that failed: a store that is lost, an attempt that was stopped.
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let ledger = Arc::new(Ledger::default());
    let hatchet = Hatchet::from_env().await?;
    let worker = hatchet.worker().register(Order { ledger: Arc::clone(&ledger) }).start().await?;

    let error = hatchet.run::<Order>(100).await.unwrap_err();
    println!("{error}\nthe ledger sums to {}", ledger.sum());
    assert_eq!(ledger.sum(), 0);

    worker.shutdown().await?;
    Ok(())
}
