//! The command line.

use std::str::FromStr;

use crate::{Result, place::Place};

#[derive(Debug)]
pub(crate) struct Arguments {
    pub(crate) words: Vec<String>,
    pub(crate) places: Option<Vec<Place>>,
    pub(crate) sizes: Option<Vec<usize>>,
    pub(crate) runs: usize,
    pub(crate) threads: usize,
    pub(crate) update: bool,
}

impl Arguments {
    pub(crate) fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self> {
        let mut parsed = Self { words: Vec::new(), places: None, sizes: None, runs: 3, threads: 1, update: false };
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
            match argument.as_str() {
                // What cargo says to each bench program.
                "--bench" => {}
                "--on" => parsed.places = Some(list(&value()?)?),
                "--size" => parsed.sizes = Some(list(&value()?)?),
                "--runs" => parsed.runs = value()?.parse()?,
                "--threads" => parsed.threads = value()?.parse()?,
                "--update" => parsed.update = true,
                option if option.starts_with("--") => return Err(format!("unknown option {option}").into()),
                _ => parsed.words.push(argument),
            }
        }
        Ok(parsed)
    }
}

fn list<T: FromStr<Err: Into<Box<dyn std::error::Error + Send + Sync>>>>(text: &str) -> Result<Vec<T>> {
    text.split(',').map(|item| item.parse().map_err(Into::into)).collect()
}
