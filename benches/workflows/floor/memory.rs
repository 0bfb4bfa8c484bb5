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

/// What so many children give.
pub(crate) fn outputs(children: usize) -> Result<Vec<Bytes>> {
    (0..children).map(|number| encode(&Summary::of(&Page::numbered(number)))).collect()
}

/// The sum of what children gave.
pub(crate) fn sum(outputs: &[Bytes]) -> Result<u64> {
    outputs.iter().map(|output| Ok(decode::<Summary>(output)?.number())).sum()
}

/// Sleeps until each of so many moments, all the same; how late each sleep was over.
pub(crate) async fn sleep_all(sleepers: usize, moment: Instant) -> Result<Vec<Duration>> {
    let sleep = || async move {
        tokio::time::sleep_until(moment.into()).await;
        moment.elapsed()
    };
    let sleepers: Vec<_> = (0..sleepers).map(|_| tokio::spawn(sleep())).collect();
    let mut lateness = Vec::with_capacity(sleepers.len());
    for sleeper in sleepers {
        lateness.push(sleeper.await?);
    }
    Ok(lateness)
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
