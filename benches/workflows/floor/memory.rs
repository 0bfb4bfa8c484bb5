//! The floor in memory: payloads are encoded and decoded, and a child is a tokio task and a channel.

use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::oneshot;

use crate::{
    Result,
    flows::{Page, Summary, sum_of},
};

/// One fan-out and its gathering.
pub(crate) async fn gather(children: usize) -> Result<Duration> {
    let start = Instant::now();
    let mut outputs = Vec::with_capacity(children);
    for number in 0..children {
        outputs.push(spawn(&Page::numbered(number))?);
    }
    let mut sum = 0;
    for output in outputs {
        sum += decode::<Summary>(&output.await?)?.number();
    }
    let time = start.elapsed();
    if sum != sum_of(children) {
        return Err(format!("{children} children gave {sum}").into());
    }
    Ok(time)
}

/// One run.
pub(crate) async fn run(page: Page) -> Result<Summary> {
    decode(&spawn(&page)?.await?)
}

fn spawn(page: &Page) -> Result<oneshot::Receiver<Bytes>> {
    let input = encode(page)?;
    let (sender, receiver) = oneshot::channel();
    tokio::spawn(async move {
        if let Ok(output) = decode::<Page>(&input).and_then(|page| encode(&Summary::of(&page))) {
            let _ = sender.send(output);
        }
    });
    Ok(receiver)
}

pub(crate) fn encode(value: &impl Serialize) -> Result<Bytes> {
    Ok(serde_json::to_vec(value)?.into())
}

pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    Ok(serde_json::from_slice(bytes)?)
}
