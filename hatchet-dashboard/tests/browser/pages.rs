//! Each page, as somebody sees it who clicks from one to the next.

use hatchet::RunStatus;
use hatchet_dashboard::Options;
use serde_json::json;

use crate::{
    browser::Browser,
    site::{Runs, Site},
};

/// The titles and paths of the pages in the bar at the top.
pub(crate) const PAGES: [(&str, &str); 6] = [
    ("Overview", ""),
    ("Runs", "/runs"),
    ("Attention", "/attention"),
    ("Queues", "/queues"),
    ("Workers", "/workers"),
    ("Workflows", "/workflows"),
];

#[tokio::test]
async fn each_page_shows_what_is_in_the_store() {
    let site = Site::with("pages", Options::default().title("Shop"), "/ops").await;
    let runs = site.fill().await;
    let browser = Browser::open(&site, "").await;
    for (title, path) in PAGES {
        browser.follow(title).await;
        browser.is_at(path).await;
        browser.shows_at("h1", title).await;
        assert_eq!(browser.client.title().await.unwrap(), format!("{title} – Shop"));
        assert_eq!(browser.text("nav a[aria-current=page]").await, title);
        let wide = browser.evaluate("return document.documentElement.scrollWidth > innerWidth").await;
        assert_eq!(wide, json!(false), "{title} is wider than the window");
        match title {
            "Overview" => overview(&browser).await,
            "Runs" => browser.has(Runs::COUNT, "tbody tr").await,
            "Attention" => attention(&browser).await,
            "Queues" => queues(&browser).await,
            "Workers" => browser.shows("approval, echo, fail, fan, flaky, leaf, order, sleeper").await,
            _ => browser.shows("sleeper").await,
        }
    }
    // By its runs to one of them, and on to its children and back.
    browser.click("a[href$='workflow=fan']").await;
    browser.has(1, "tbody tr").await;
    browser.click("td a.id").await;
    browser.is_at(&format!("/runs/{}", runs.fan)).await;
    browser.shows("for 2 of 60 children").await;
    browser.shows("and 10 more children").await;
    browser.has(50, "tr.child").await;
    browser.follow("All children").await;
    browser.shows_at("h1", "Children of").await;
    browser.follow("Next page").await;
    browser.has(10, "tbody tr").await;
    browser.click("td a.id").await;
    browser.shows_at("dl.facts", "Parent").await;
    browser.follow(&runs.fan.to_string()).await;
    browser.is_at(&format!("/runs/{}", runs.fan)).await;
    browser.finish(&[]).await;
}

async fn overview(browser: &Browser) {
    let tiles = [("queued", 2), ("waiting", 2), ("stalled", 1), ("succeeded", 1), ("failed", 1), ("cancelled", 0)];
    for (status, count) in tiles {
        browser.shows_at(&format!(".tiles a[href$='status={status}'] strong"), &count.to_string()).await;
    }
    browser.shows("Of all root runs:").await;
    browser.shows("the bank refused").await;
    browser.shows("desert").await;
    browser.shows("8 of 9 known workflows are on an open worker").await;
}

async fn attention(browser: &Browser) {
    for text in ["deploy code that matches", "the bank refused", "not today", "nobody", "desert"] {
        browser.shows(text).await;
    }
    browser.has(1, "section:nth-of-type(1) tbody tr").await;
}

async fn queues(browser: &Browser) {
    let row = "[...document.querySelectorAll('tbody tr')].find((row) => row.cells[0].innerText === 'desert')";
    let cells = browser.evaluate(&format!("return [...{row}.cells].map((cell) => cell.innerText)")).await;
    assert_eq!(cells, json!(["desert", "1", "0", "0", "0", "0", "1", "", "Pause"]));
}

#[tokio::test]
async fn a_run_shows_all_that_is_known_of_it() {
    let site = Site::new("run").await;
    let runs = site.fill().await;
    let browser = Browser::open(&site, &format!("/runs/{}", runs.failed)).await;
    browser.shows_at("h1", "order").await;
    browser.shows_at("h1 .badge", "failed").await;
    for text in ["It failed", "Caused by: no money", "\"code\": 51", "step charge", "step ship"] {
        browser.shows(text).await;
    }
    browser.goto(&format!("/runs/{}", runs.order)).await;
    for text in ["order 1", "42", "\"shipped for 2\"", "Output"] {
        browser.shows(text).await;
    }
    browser.click("#output-0 summary").await;
    browser.shows_at("#output-0 pre", "2").await;
    browser.follow("history with journals").await;
    browser.shows_at("body", "\"workflow\":\"order\"").await;
    browser.client.back().await.unwrap();
    browser.goto(&format!("/runs/{}", runs.flaky)).await;
    browser.shows("for retry 1").await;
    browser.shows("said the moon").await;
    browser.goto(&format!("/runs/{}", runs.stalled)).await;
    browser.shows("deploy code that matches").await;
    browser.goto(&format!("/runs/{}", runs.unserved)).await;
    browser.shows_at("h1 .badge", "queued").await;
    browser.goto("/runs/00000000000000000000000000000007").await;
    browser.shows("does not exist").await;
    browser.follow("To the overview").await;
    browser.is_at("/").await;
    // A browser asks for the icon of a document that is no page.
    browser.finish(&["favicon.ico", "404"]).await;
}

#[tokio::test]
async fn a_list_is_narrowed_by_its_filter() {
    let site = Site::new("filter").await;
    let runs = site.fill().await;
    for number in 0..60 {
        site.world.run("echo", json!(number), RunStatus::Succeeded).await;
    }
    let browser = Browser::open(&site, "/runs").await;
    browser.has(50, "tbody tr").await;
    browser.follow("Next page").await;
    browser.has(60 + Runs::COUNT - 50, "tbody tr").await;
    browser.follow("First page").await;
    browser.is_at("/runs").await;
    browser.click("input[value=failed]").await;
    browser.click("input[value=stalled]").await;
    browser.press("Filter").await;
    browser.has(2, "tbody tr").await;
    assert!(browser.place().await.contains("status=stalled&status=failed"), "{}", browser.place().await);
    browser.fill("input[name=workflow]", "order").await;
    browser.press("Filter").await;
    browser.has(1, "tbody tr").await;
    browser.shows("the bank refused").await;
    browser.follow("Clear").await;
    browser.has(50, "tbody tr").await;
    // The browser itself refuses what is no pair.
    browser.fill("input[name=meta]", "customer").await;
    browser.press("Filter").await;
    browser.has(1, "input[name=meta]:invalid").await;
    browser.fill("input[name=meta]", "customer:42").await;
    browser.press("Filter").await;
    browser.has(1, "tbody tr").await;
    let short: String = runs.order.to_string().chars().skip(24).collect();
    browser.shows(&short).await;
    // A time goes into the URL and comes back into its field.
    browser.goto("/runs?from=2020-01-01T10%3A30&before=2020-01-02T10%3A30").await;
    browser.shows("There are no such runs.").await;
    let from = browser.evaluate("return document.querySelector('input[name=from]').value").await;
    assert_eq!(from, json!("2020-01-01T10:30"));
    browser.press("Filter").await;
    browser.shows("There are no such runs.").await;
    browser.finish(&[]).await;
}
