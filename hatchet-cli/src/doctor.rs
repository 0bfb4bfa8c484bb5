//! `doctor`: is the store fit to hold runs, and does everything in it go on? A line for each thing, with what to do.

mod address;
mod consistency;
mod server;
mod settings;
mod store;

use serde::Serialize;

use crate::{
    api::{Api, url_of},
    args::Common,
    failure::{Failure, Outcome},
    out::{Out, Paint},
    text::shown,
};

use self::address::Address;

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Check {
    state: State,
    /// What was looked at.
    name: String,
    /// What was found.
    found: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

/// How it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ok,
    Warn,
    Fail,
    /// It could not be read.
    Unknown,
}

impl Check {
    fn new(state: State, name: impl Into<String>, found: impl Into<String>) -> Self {
        Self { state, name: name.into(), found: found.into(), advice: None }
    }

    fn ok(name: impl Into<String>, found: impl Into<String>) -> Self {
        Self::new(State::Ok, name, found)
    }

    fn warn(name: impl Into<String>, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { advice: Some(advice.into()), ..Self::new(State::Warn, name, found) }
    }

    fn fail(name: impl Into<String>, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { advice: Some(advice.into()), ..Self::new(State::Fail, name, found) }
    }

    fn unknown(name: impl Into<String>) -> Self {
        Self::new(State::Unknown, name, "could not be read")
    }

    fn lines(&self, out: &Out) -> Vec<String> {
        let (word, paint) = match self.state {
            State::Ok => ("ok  ", Paint::Good),
            State::Warn => ("warn", Paint::Warn),
            State::Fail => ("fail", Paint::Bad),
            State::Unknown => ("?   ", Paint::Dim),
        };
        let mut lines =
            vec![format!("{}  {}: {}", out.paint(Some(paint), word), shown(&self.name), shown(&self.found))];
        lines.extend(self.advice.iter().map(|advice| format!("      {}", shown(advice))));
        lines
    }
}

/// Prints checks as they are made, or all together as JSON.
struct Findings {
    out: Out,
    checks: Vec<Check>,
}

impl Findings {
    fn add(&mut self, checks: impl IntoIterator<Item = Check>) -> Outcome {
        for check in checks {
            if !self.out.json {
                self.out.lines(check.lines(&self.out))?;
            }
            self.checks.push(check);
        }
        Ok(())
    }

    /// Whether anything was reached at all.
    fn has_reached(&self) -> bool {
        self.checks.iter().any(|check| check.state == State::Ok)
    }

    fn has_failed(&self) -> bool {
        self.checks.iter().any(|check| check.state == State::Fail)
    }
}

pub(crate) async fn doctor(out: &Out, common: &Common, full: bool) -> Outcome {
    let url = url_of(common)?;
    if full && url.starts_with("http") {
        return Err(Failure::Usage("--full needs the URL of the store itself".to_owned()));
    }
    let mut findings = Findings { out: *out, checks: Vec::new() };
    let examined = examine(&mut findings, common, url, full).await;
    if let Err(failure) = &examined
        && failure.has_words()
        && !matches!(failure, Failure::Usage(_))
    {
        findings.add([Check::fail(
            "store",
            failure.to_string(),
            "nothing else can be checked before this is right",
        )])?;
    }
    if out.json {
        out.value(&findings.checks)?;
    }
    match examined {
        Ok(()) if findings.has_failed() => Err(Failure::Told),
        Err(Failure::Unreachable(_)) if !findings.has_reached() => Err(Failure::Away),
        Err(Failure::No(_) | Failure::Unreachable(_)) => Err(Failure::Told),
        examined => examined,
    }
}

async fn examine(findings: &mut Findings, common: &Common, url: &str, full: bool) -> Outcome {
    if let Some(address) = Address::of_url(url)? {
        let known = server::examine(findings, &address).await?;
        if !known {
            // To connect would make it.
            return Ok(());
        }
    }
    let api = Api::connect(common).await?;
    let examined = store::examine(findings, &api, full).await;
    api.close().await;
    examined
}
