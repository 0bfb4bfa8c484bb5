//! Who may look and act: the token, the read-only mode, and browsers without scripts.

use hatchet_dashboard::Options;
use serde_json::json;

use crate::{browser::Browser, pages::PAGES, site::Site};

#[tokio::test]
async fn people_sign_in_with_the_token_and_out_again() {
    let site = Site::with("token", Options::default().token("open sesame"), "/ops").await;
    let runs = site.fill().await;
    let browser = Browser::open(&site, "/runs?status=failed").await;
    browser.shows_at("h1", "Sign in").await;
    assert_eq!(browser.text("tbody").await, "", "nothing is shown yet");
    browser.press("Sign in").await;
    browser.has(1, "input[name=token]:invalid").await;
    browser.fill("input[name=token]", "guess").await;
    browser.press("Sign in").await;
    browser.shows("This is not the token.").await;
    browser.fill("input[name=token]", "open sesame").await;
    browser.press("Sign in").await;
    // One is where one wanted to be.
    browser.is_at("/runs?status=failed").await;
    browser.has(1, "tbody tr").await;
    browser.shows_at("#live", "live").await;
    assert_eq!(browser.evaluate("return document.cookie").await, json!(""), "no script can read the cookie");
    let cookies = browser.client.get_all_cookies().await.unwrap();
    let [cookie] = &cookies[..] else { panic!("{cookies:?}") };
    assert_eq!((cookie.http_only(), cookie.path()), (Some(true), Some("/ops")));
    assert!(!cookie.value().contains("sesame"));
    browser.goto(&format!("/runs/{}", runs.waiting)).await;
    browser.unfold("actions").await;
    browser.press("Send").await;
    browser.shows_at("h1 .badge", "succeeded").await;
    browser.press("Sign out").await;
    browser.shows_at("h1", "Sign in").await;
    browser.goto("/attention").await;
    browser.shows_at("h1", "Sign in").await;
    browser.finish(&["401"]).await;
}

#[tokio::test]
async fn a_read_only_dashboard_has_no_buttons() {
    let site = Site::with("read-only", Options::default().read_only(true), "").await;
    let runs = site.fill().await;
    let browser = Browser::open(&site, "").await;
    let ids = [runs.order, runs.failed, runs.flaky, runs.waiting, runs.fan, runs.stalled];
    let paths = PAGES.iter().map(|(_, path)| (*path).to_owned()).chain(ids.map(|id| format!("/runs/{id}")));
    for path in paths {
        browser.goto(&path).await;
        browser.shows_at("header", "read-only").await;
        browser.has(0, "form[method=post], details#actions, details#bulk").await;
    }
    browser.goto("/bulk?action=resume").await;
    browser.shows("read-only").await;
    // Whoever makes a form of their own is refused.
    browser.goto(&format!("/runs/{}", runs.waiting)).await;
    let own = "const form = document.createElement('form'); form.method = 'post'; form.action = location.href + '/cancel'; \
               document.body.append(form); form.submit()";
    browser.evaluate(own).await;
    browser.shows("actions are refused").await;
    browser.goto(&format!("/runs/{}", runs.waiting)).await;
    browser.shows_at("h1 .badge", "waiting").await;
    browser.finish(&["403", "403"]).await;
}

#[tokio::test]
async fn pages_are_read_and_buttons_act_without_scripts() {
    let site = Site::new("no-script").await;
    let runs = site.fill().await;
    let browser = Browser::open(&site, "/login").await;
    browser.tell("Emulation.setScriptExecutionDisabled", json!({ "value": true })).await;
    for (title, path) in PAGES {
        browser.goto(path).await;
        browser.shows_at("h1", title).await;
        assert_eq!(browser.text("#live").await, "", "no script runs on {title}");
        let rows = browser.count("tbody tr").await;
        assert!(rows > 0, "{title} has no rows");
    }
    browser.goto("/runs").await;
    browser.click("input[value=waiting]").await;
    browser.press("Filter").await;
    browser.has(2, "tbody tr").await;
    browser.goto(&format!("/runs/{}", runs.waiting)).await;
    browser.shows("for signal decision").await;
    browser.unfold("actions").await;
    browser.fill("input[name=reason]", "no script needed").await;
    browser.press("Cancel the run").await;
    browser.shows("no script needed").await;
    browser.finish(&[]).await;
}
