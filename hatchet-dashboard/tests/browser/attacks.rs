//! What others have stored does nothing in a real browser, and does not hide what it is.

use hatchet::RunStatus;
use serde_json::json;

use crate::{browser::Browser, pages::PAGES, site::Site};

/// Each would leave a mark in the window, open a dialog, or ask another place for something.
const ATTACKS: [&str; 9] = [
    "<script>window.owned=1</script>",
    "</script></title></textarea></select></pre><script>window.owned=1</script>",
    "\"><img src=x onerror=window.owned=1>",
    "'><svg/onload=window.owned=1>",
    "<svg><animate onbegin=window.owned=1 attributeName=x dur=1s>",
    "<img src=http://elsewhere.example/x><link rel=stylesheet href=//elsewhere.example/y>",
    "<iframe srcdoc='<script>parent.owned=1</script>'></iframe><base href=//elsewhere.example>",
    "<a href=javascript:window.owned=1 autofocus onfocus=window.owned=1 tabindex=1>x</a>",
    "javascript:window.owned=1",
];

/// It turns, hides or colours text where that is not made visible: bidi, no width, ANSI, a bell.
const TURNING: &str = "safe\u{202e}txt.exe\u{2066}\u{200b}\u{1b}[31mred\u{1b}]0;title\u{7}";

/// What is on a page that we did not put there.
const FOREIGN: &str = r#"
  const foreign = [...document.querySelectorAll("iframe, object, embed, base, img, style, animate, video, audio, script")]
    .filter((one) => !(one.localName === "script" && one.src.endsWith("/assets/script.js")));
  const svgs = [...document.querySelectorAll("svg")].filter((one) => !one.matches(".bar, .activity > .bars"));
  const handlers = [...document.querySelectorAll("*")]
    .filter((one) => [...one.attributes].some((attribute) => attribute.name.startsWith("on")));
  const links = [...document.links].filter((one) => !one.href.startsWith(location.origin + "/"));
  return [...foreign, ...svgs, ...handlers, ...links].map((one) => one.outerHTML.slice(0, 200))
    .concat(window.owned ? ["it ran"] : []);
"#;

async fn is_harmless(browser: &Browser) {
    browser.has(1, "h1").await;
    let foreign = browser.evaluate(FOREIGN).await;
    assert_eq!(foreign, json!([]), "at {}", browser.place().await);
    let wide = browser.evaluate("return document.documentElement.scrollWidth - innerWidth").await;
    assert!(wide.as_f64().unwrap() <= 0.0, "{wide} pixels wider than the window at {}", browser.place().await);
}

#[tokio::test]
async fn what_is_stored_is_only_text() {
    let site = Site::new("attacks").await;
    let long = "x".repeat(60_000);
    let mut paths: Vec<String> = PAGES.iter().map(|(_, path)| (*path).to_owned()).collect();
    for attack in ATTACKS.into_iter().chain([TURNING]) {
        // Names with control characters are refused.
        if attack == TURNING {
            let failed = site.world.run("fail", json!(attack), RunStatus::Failed).await;
            paths.push(format!("/runs/{failed}"));
            continue;
        }
        let failed = site.world.hatchet.start_named("fail", attack).key(attack);
        let failed = failed.metadata(attack, attack).header(attack, attack).await.unwrap().id();
        let named = site.world.hatchet.start_named(attack, attack).unchecked().queue(attack).await.unwrap().id();
        let waiting = site.world.start("approval", json!(attack)).await;
        site.world.until(failed, RunStatus::Failed).await;
        site.world.detail_with(waiting, "for signal").await;
        paths.push(format!("/runs/{failed}"));
        // Of these two, some are enough.
        if paths.len().is_multiple_of(4) {
            paths.extend([named, waiting].map(|id| format!("/runs/{id}")));
        }
    }
    let large = site.world.run("echo", json!([long, { "a key": long }]), RunStatus::Succeeded).await;
    let error = site.world.run("fail", json!(long), RunStatus::Failed).await;
    let keyed = site.world.hatchet.start_named("nobody", &long).unchecked().metadata("long", &long[..200]);
    let keyed = keyed.key(&long[..200]).await.unwrap().id();
    paths.extend([large, error, keyed].map(|id| format!("/runs/{id}")));
    let browser = Browser::open(&site, "").await;
    for path in &paths {
        browser.goto(path).await;
        is_harmless(&browser).await;
    }
    // They are there, letter by letter.
    browser.goto("/attention").await;
    for attack in ATTACKS {
        browser.shows(attack).await;
    }
    browser.shows("safe\\u{202e}txt.exe\\u{2066}\\u{200b}\\u{1b}[31mred").await;
    // What was typed into a filter comes back into its field, and nowhere else.
    for attack in &ATTACKS[1..4] {
        browser.goto("/runs").await;
        browser.fill("input[name=workflow]", attack).await;
        browser.press("Filter").await;
        browser.has(1, "tbody tr").await;
        is_harmless(&browser).await;
        let typed = browser.evaluate("return document.querySelector('input[name=workflow]').value").await;
        assert_eq!(typed, json!(attack));
    }
    browser.finish(&[]).await;
}

#[tokio::test]
async fn a_breach_would_be_seen() {
    let site = Site::new("breach").await;
    let browser = Browser::open(&site, "").await;
    assert_eq!(browser.complaints().await, [""; 0]);
    assert_eq!(browser.strays().await, [""; 0]);
    // As if a page had let them through: the policy refuses the handler and the image, and the browser says so.
    let breach =
        "document.querySelector('main').innerHTML = '<img src=http://elsewhere.example/x onerror=window.owned=1>'";
    browser.evaluate(breach).await;
    browser.until("it is seen on the page", async || Ok(browser.evaluate(FOREIGN).await != json!([]))).await;
    let complaints = browser.complaints().await;
    assert!(complaints.iter().all(|one| one.contains("Content Security Policy")), "{complaints:?}");
    assert!(complaints.len() >= 2, "{complaints:?}");
    assert_eq!(browser.evaluate("return window.owned === undefined").await, json!(true));
    browser.evaluate("setTimeout(() => { throw new Error('broken') })").await;
    browser
        .until("the error is seen", async || Ok(browser.complaints().await.iter().any(|one| one.contains("broken"))))
        .await;
    // It does not matter whether anybody is there.
    let _ = browser.client.goto("http://127.0.0.1:1/elsewhere").await;
    assert!(browser.strays().await.iter().any(|url| url.contains("127.0.0.1:1/")));
}
