//! Acting on all runs that fit a filter.

use hatchet::{Query, RunStatus};
use serde_json::json;

use crate::{browser::Browser, site::Site};

/// Chooses an action at the end of a list, and looks at how many runs it is about.
async fn count(browser: &Browser, action: &str, fields: &[(&str, &str)], expected: &str) {
    browser.unfold("bulk").await;
    browser.choose("#bulk select[name=action]", action).await;
    for (name, text) in fields {
        browser.fill(&format!("#bulk input[name={name}]"), text).await;
    }
    browser.press("Count first").await;
    browser.shows_at("h1", expected).await;
}

#[tokio::test]
async fn each_action_on_many_runs_is_counted_and_then_done() {
    let site = Site::new("bulk").await;
    site.fill().await;
    for _ in 0..3 {
        site.world.run("order", json!(0), RunStatus::Failed).await;
    }
    let browser = Browser::open(&site, "/runs?workflow=approval").await;

    // Somebody who changes their mind is back where they were, and nothing was done.
    count(&browser, "cancel", &[("reason", "shop closed")], "Really cancel 1 run?").await;
    browser.shows("shop closed").await;
    browser.follow("No, back to the runs").await;
    browser.is_at("/runs?workflow=approval").await;
    browser.shows_at("tbody", "waiting").await;
    count(&browser, "cancel", &[("reason", "shop closed")], "Really cancel 1 run?").await;
    browser.press("Yes, cancel 1 run").await;
    browser.shows_at("h1", "Done: cancel 1 of 1 run").await;
    browser.follow("Back to the runs").await;
    browser.shows_at("tbody", "cancelled").await;

    browser.goto("/runs?workflow=order&status=failed").await;
    count(&browser, "restart", &[("step", "charge")], "Really restart 4 runs?").await;
    browser.press("Yes, restart 4 runs").await;
    browser.shows_at("h1", "Done: restart 4 of 4 runs").await;
    let orders = Query { workflow: Some("order".into()), ..Query::default() };
    let all_failed = async || {
        let runs = site.world.hatchet.list(&orders).await.unwrap().runs;
        runs.len() == 9 && runs.iter().all(|run| run.status.is_terminal())
    };
    crate::world::wait_until("the restarted runs have failed", all_failed).await;

    // Between the count and the action something may happen: then nothing is done.
    browser.follow("Back to the runs").await;
    count(&browser, "replay", &[], "Really replay 8 runs?").await;
    site.world.run("order", json!(0), RunStatus::Failed).await;
    browser.press("Yes, replay 8 runs").await;
    browser.shows("9 runs fit now, and not 8").await;
    browser.goto("/runs?workflow=order&status=failed").await;
    count(&browser, "replay", &[], "Really replay 9 runs?").await;
    browser.press("Yes, replay 9 runs").await;
    browser.shows_at("h1", "Done: replay 9 of 9 runs").await;

    browser.goto("/runs").await;
    count(&browser, "resume", &[], "Really resume 1 run?").await;
    browser.shows("There is no filter").await;
    browser.press("Yes, resume 1 run").await;
    browser.shows_at("h1", "Done: resume 1 of 1 run").await;

    browser.goto("/runs?workflow=approval").await;
    count(&browser, "delete", &[], "Really delete 1 run?").await;
    browser.press("Yes, delete 1 run").await;
    browser.shows_at("h1", "Done: delete 1 of 1 run").await;
    browser.follow("Back to the runs").await;
    browser.shows("There are no such runs.").await;

    // What is missing is said.
    count(&browser, "cancel", &[], "Not understood").await;
    browser.shows("needs a reason").await;
    browser.finish(&["409", "400"]).await;
}
