//! Pages that change by themselves.

use hatchet::RunStatus;
use serde_json::{Value, json};

use crate::{browser::Browser, site::Site};

/// Marks the document, so that it can be told from one that was loaded later.
async fn mark(browser: &Browser) {
    browser.evaluate("window.isSame = true").await;
}

async fn is_same(browser: &Browser) {
    assert_eq!(browser.evaluate("return window.isSame === true").await, json!(true), "the page was loaded again");
}

#[tokio::test]
async fn pages_change_without_being_loaded_again() {
    let site = Site::new("live").await;
    let runs = site.fill().await;
    let browser = Browser::open(&site, "/runs").await;
    browser.shows_at("#live", "live").await;
    mark(&browser).await;
    site.world.hatchet.start_named("echo", 1).key("a new one").await.unwrap();
    browser.shows("a new one").await;
    is_same(&browser).await;
    for path in ["/", "/attention"] {
        browser.goto(path).await;
        browser.shows_at("#live", "live").await;
        mark(&browser).await;
        let says = format!("it failed after {path} was opened");
        site.world.run("fail", json!(says), RunStatus::Failed).await;
        browser.shows(&says).await;
        is_same(&browser).await;
    }
    browser.goto("/queues").await;
    browser.shows_at("#live", "live").await;
    mark(&browser).await;
    site.world.hatchet.start_named("nobody", 1).queue("another desert").unchecked().await.unwrap();
    browser.shows("another desert").await;
    is_same(&browser).await;

    // A run: what is folded up or open stays so, and when the run has ended its stream does, too.
    browser.goto(&format!("/runs/{}", runs.waiting)).await;
    browser.shows_at("#live", "live").await;
    browser.unfold("actions").await;
    mark(&browser).await;
    site.has_streams(1).await;
    site.world.hatchet.signal(runs.waiting, "decision", &"a late yes").await.unwrap();
    browser.shows("a late yes").await;
    browser.shows_at("h1 .badge", "succeeded").await;
    browser.has(1, "details#actions[open]").await;
    is_same(&browser).await;
    site.has_streams(0).await;
    browser.until("the page no longer says that it is live", async || Ok(browser.text("#live").await.is_empty())).await;
    browser.finish(&[]).await;
}

#[tokio::test]
async fn somebody_who_types_is_not_disturbed() {
    let site = Site::new("typing").await;
    let browser = Browser::open(&site, "/runs").await;
    browser.shows_at("#live", "live").await;
    browser.fill("input[name=workflow]", "ech").await;
    site.world.run("echo", json!(1), RunStatus::Succeeded).await;
    let before = browser.events().await;
    site.world.run("echo", json!(2), RunStatus::Succeeded).await;
    browser.until("the change has arrived", async || Ok(browser.events().await > before)).await;
    let typed = browser.evaluate("return document.querySelector('input[name=workflow]').value").await;
    assert_eq!(typed, json!("ech"));
    browser.has(0, "tbody tr").await;
    // When nothing is typed any more the page catches up.
    browser.fill("input[name=workflow]", "").await;
    browser.evaluate("document.activeElement.blur()").await;
    browser.has(2, "tbody tr").await;
    browser.finish(&[]).await;
}

#[tokio::test]
async fn a_page_that_nobody_looks_at_has_no_stream() {
    let site = Site::new("hidden").await;
    let browser = Browser::open(&site, "/runs").await;
    site.has_streams(1).await;
    let first = browser.client.window().await.unwrap();
    let second = browser.client.new_window(true).await.unwrap();
    browser.client.switch_to_window(second.handle.clone()).await.unwrap();
    site.has_streams(0).await;
    site.world.start("approval", Value::from("a")).await;
    browser.client.close_window().await.unwrap();
    browser.client.switch_to_window(first).await.unwrap();
    // It catches up on what happened meanwhile.
    browser.has(1, "tbody tr").await;
    site.has_streams(1).await;
    // A page that is left closes its stream, too.
    browser.goto("/runs?cursor=").await;
    browser.goto("/login").await;
    site.has_streams(0).await;
    browser.finish(&[]).await;
}
