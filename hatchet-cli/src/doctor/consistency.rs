//! Whether the store contradicts itself. A large one is checked in part, unless all of it is asked for.

use std::{io::IsTerminal as _, io::Write as _, time::Duration};

use hatchet::{
    Hatchet,
    backend::{FsckOptions, FsckPart, FsckReport, Repair},
};
use hatchet_dashboard::api::CheckReport;
use tokio::time::timeout;

use super::Check;
use crate::{
    api::Api,
    failure::{Failure, Outcome},
};

const NAME: &str = "consistency";
/// How long a check of everything may take that was not asked for, and after that a check of a part.
const LIMIT: Duration = Duration::from_millis(600);
const LIMIT_OF_PART: Duration = Duration::from_millis(60);
/// The maximum number of findings that are printed; the others are counted.
const MOST: usize = 5;

/// What was found, from the API or from the store.
struct Report {
    findings: Vec<Finding>,
    checked: u64,
    truncated: bool,
}

struct Finding {
    place: String,
    message: String,
    repairable: bool,
}

pub(super) async fn examine(api: &Api, full: bool) -> Outcome<Vec<Check>> {
    match api.store() {
        Some(hatchet) if full => Ok(whole(hatchet).await?.checks("")),
        Some(hatchet) => in_time(hatchet).await,
        None => by_api(api).await,
    }
}

/// All of it, with its progress for whoever waits.
async fn whole(hatchet: &Hatchet) -> Outcome<Report> {
    let is_seen = std::io::stderr().is_terminal();
    let say = |words: String| drop(write!(std::io::stderr().lock(), "\r\x1b[K{words}"));
    let options = FsckOptions::default().on_progress(move |progress| {
        if is_seen {
            say(format!("checked {} of about {}", progress.checked, progress.total.max(progress.checked)));
        }
    });
    let report = hatchet.backend().fsck(options).await;
    if is_seen {
        say(String::new());
    }
    Ok(report.map_err(hatchet::Error::from)?.into())
}

/// All of it if that is fast, and otherwise what is.
async fn in_time(hatchet: &Hatchet) -> Outcome<Vec<Check>> {
    let check = |part, limit| timeout(limit, hatchet.backend().fsck(FsckOptions::default().part(part)));
    if let Ok(report) = check(FsckPart::Everything, LIMIT).await {
        return Ok(Report::from(report.map_err(hatchet::Error::from)?).checks(""));
    }
    let mut checks = Vec::new();
    for (part, name) in
        [(FsckPart::Sessions, "of sessions"), (FsckPart::Queues, "of queues"), (FsckPart::Timers, "of timers")]
    {
        match check(part, LIMIT_OF_PART).await {
            Ok(report) => checks.extend(Report::from(report.map_err(hatchet::Error::from)?).checks(name)),
            Err(_) => checks.push(too_large(name)),
        }
    }
    checks.push(too_large("of runs"));
    Ok(checks)
}

fn too_large(part: &str) -> Check {
    let advice = "the store is large: `hatchet doctor --full` checks all of it";
    Check {
        found: "not checked".to_owned(),
        advice: Some(advice.to_owned()),
        ..Check::unknown(format!("{NAME} {part}").trim_end())
    }
}

async fn by_api(api: &Api) -> Outcome<Vec<Check>> {
    let path = "/api/v1/fsck";
    let Ok(report) = timeout(LIMIT, api.get::<CheckReport>(path, &Vec::new())).await else {
        let advice = "the store is large: `hatchet doctor --full` with the URL of the store itself checks all of it";
        return Ok(vec![Check { advice: Some(advice.to_owned()), ..too_large("") }]);
    };
    match report {
        Ok(report) => Ok(Report::from(report.value).checks("")),
        // The store has answered before: it is large, or the dashboard does not allow it.
        Err(Failure::No(why) | Failure::Unreachable(why)) => Ok(vec![Check { found: why, ..Check::unknown(NAME) }]),
        Err(other) => Err(other),
    }
}

impl Report {
    fn checks(&self, part: &str) -> Vec<Check> {
        let name = format!("{NAME} {part}").trim_end().to_owned();
        if self.findings.is_empty() {
            return vec![Check::ok(name, format!("{} items checked, nothing found", self.checked))];
        }
        let advice = |repairable: bool| match repairable {
            true => "a program repairs this by `hatchet.backend().fsck(FsckOptions::default().repair())`",
            false => "this is not repaired: see the kinds of findings in the documentation of FsckOptions",
        };
        let printed = self.findings.iter().take(MOST);
        let mut checks: Vec<Check> = printed
            .map(|Finding { place, message, repairable }| {
                Check::fail(name.clone(), format!("{place}: {message}"), advice(*repairable))
            })
            .collect();
        if self.findings.len() > MOST || self.truncated {
            let more = if self.truncated { " or more" } else { "" };
            checks.push(Check::fail(name, format!("{}{more} findings in all", self.findings.len()), advice(true)));
        }
        checks
    }
}

impl From<FsckReport> for Report {
    fn from(report: FsckReport) -> Self {
        let finding = |finding: hatchet::backend::Finding| Finding {
            repairable: finding.repair == Repair::Possible,
            place: finding.place,
            message: finding.message,
        };
        let FsckReport { findings, checked, truncated, .. } = report;
        Self { findings: findings.into_iter().map(finding).collect(), checked, truncated }
    }
}

impl From<CheckReport> for Report {
    fn from(report: CheckReport) -> Self {
        let finding = |finding: hatchet_dashboard::api::FindingView| Finding {
            place: finding.place,
            message: finding.message,
            repairable: finding.repairable,
        };
        let CheckReport { findings, checked, truncated } = report;
        Self { findings: findings.into_iter().map(finding).collect(), checked, truncated }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::State, *};

    #[test]
    fn of_many_findings_some_are_printed_and_all_are_counted() {
        let finding = |number| Finding { place: format!("run {number}"), message: "lost".to_owned(), repairable: true };
        let report = Report { findings: (0..9).map(finding).collect(), checked: 20, truncated: true };
        let checks = report.checks("of runs");
        assert_eq!(checks.len(), MOST + 1);
        assert!(checks.iter().all(|check| check.state == State::Fail && check.name == "consistency of runs"));
        assert_eq!(checks[MOST].found, "9 or more findings in all");
    }
}
