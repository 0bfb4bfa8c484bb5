//! The buttons of a run.

use hatchet::RunStatus;
use serde_json::json;

use crate::{browser::Browser, site::Site};

#[tokio::test]
async fn each_button_of_a_run_acts() {
    let site = Site::new("buttons").await;
    let runs = site.fill().await;
    let browser = Browser::open(&site, &format!("/runs/{}", runs.waiting)).await;
    // The name of the signal that it waits for is there already. What is no JSON is refused with words.
    browser.unfold("actions").await;
    browser.fill("textarea[name=payload]", "yes").await;
    browser.press("Send").await;
    browser.shows("text needs quotes").await;
    browser.client.back().await.unwrap();
    browser.unfold("actions").await;
    browser.fill("textarea[name=payload]", "{\"by\": \"me\"}").await;
    browser.press("Send").await;
    browser.is_at(&format!("/runs/{}", runs.waiting)).await;
    browser.shows_at("h1 .badge", "succeeded").await;
    browser.shows("\"by\": \"me\"").await;

    // Replay leads to the new run.
    browser.unfold("actions").await;
    browser.press("Replay").await;
    browser.shows_at("h1 .badge", "waiting").await;
    let again = browser.place().await;
    assert_ne!(again, format!("/runs/{}", runs.waiting));

    // A cancellation needs a reason: the browser itself asks for it.
    browser.unfold("actions").await;
    browser.press("Cancel the run").await;
    browser.has(1, "input[name=reason]:invalid").await;
    browser.fill("input[name=reason]", "asked twice").await;
    browser.press("Cancel the run").await;
    browser.shows("It was cancelled").await;
    browser.shows("asked twice").await;
    assert_eq!(browser.place().await, again);

    // Restart from a step leads to the new run, which has a link back.
    browser.goto(&format!("/runs/{}", runs.failed)).await;
    browser.unfold("actions").await;
    browser.choose("select[name=step]", "charge").await;
    browser.press("Restart").await;
    browser.shows("Restarted from").await;
    browser.shows_at("h1 .badge", "failed").await;
    browser.follow(&runs.failed.to_string()).await;
    browser.shows("Restarted as").await;

    browser.goto(&format!("/runs/{}", runs.stalled)).await;
    browser.unfold("actions").await;
    browser.press("Resume").await;
    browser.shows_at("h1 .badge", "queued").await;
    site.world.until(runs.stalled, RunStatus::Queued).await;

    let order = format!("/runs/{}", runs.order);
    browser.goto(&order).await;
    browser.unfold("actions").await;
    browser.press("Delete the run").await;
    browser.is_at("/runs").await;
    browser.goto(&order).await;
    browser.shows("does not exist").await;
    let view = site.world.get(&format!("/api/v1/runs/{}", runs.waiting)).await;
    assert_eq!(view.json::<serde_json::Value>()["output"]["json"], json!({ "by": "me" }));
    browser.finish(&["400", "404"]).await;
}

#[tokio::test]
async fn a_queue_and_a_workflow_are_paused_and_resumed() {
    let site = Site::new("pauses").await;
    site.fill().await;
    let browser = Browser::open(&site, "/queues").await;
    for page in ["/queues", "/workflows"] {
        browser.goto(page).await;
        browser.press("Pause").await;
        browser.has(1, ".badge.paused").await;
        browser.is_at(page).await;
        // The page of problems names the pause.
        browser.goto("/attention").await;
        browser.shows("since").await;
        browser.goto(page).await;
        browser.press("Resume").await;
        browser.has(0, ".badge.paused").await;
    }
    let paused = site.world.get("/api/v1/pauses").await;
    assert_eq!(paused.json::<serde_json::Value>(), json!([]));
    browser.finish(&[]).await;
}
