//! Light and dark: both can be read.

use serde_json::json;

use crate::{browser::Browser, pages::PAGES, site::Site};

/// For each element with a text of its own: the contrast between its colour and what is behind it, as WCAG 2 computes it.
/// Returns those below 4.5 (3 for large text), which is the least of level AA.
const PALE: &str = r#"
  const parse = (colour) => {
    const numbers = colour.match(/[\d.]+/g).map(Number);
    const scale = colour.startsWith("color(") ? 255 : 1;
    return [numbers[0] * scale, numbers[1] * scale, numbers[2] * scale, numbers[3] ?? 1];
  };
  const over = (front, back) => [0, 1, 2].map((at) => front[at] * front[3] + back[at] * (1 - front[3]));
  const behind = (element) => {
    if (!element) return [255, 255, 255];
    return over(parse(getComputedStyle(element).backgroundColor), behind(element.parentElement));
  };
  const light = (colour) => colour.slice(0, 3).map((part) => part / 255)
    .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
    .reduce((sum, part, at) => sum + part * [0.2126, 0.7152, 0.0722][at], 0);
  const pale = [];
  for (const element of document.querySelectorAll("body *")) {
    const says = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    const style = getComputedStyle(element);
    if (!says || !element.checkVisibility()) continue;
    const back = behind(element);
    const pair = [light(over(parse(style.color), back)), light(back)];
    const contrast = (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
    const size = parseFloat(style.fontSize);
    const isLarge = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    if (contrast < (isLarge ? 3 : 4.5)) {
      pale.push(`${element.tagName}.${element.className} "${element.innerText.slice(0, 30)}": ${contrast.toFixed(2)}`);
    }
  }
  return [...new Set(pale)];
"#;

#[tokio::test]
async fn light_and_dark_can_both_be_read() {
    let site = Site::new("colours").await;
    let runs = site.fill().await;
    let browser = Browser::open(&site, "").await;
    let (mut pages, mut pale) = (Vec::new(), Vec::new());
    let paths = PAGES.iter().map(|(_, path)| (*path).to_owned());
    let ids = [runs.order, runs.failed, runs.flaky, runs.waiting, runs.fan, runs.stalled];
    for path in paths.chain(ids.map(|id| format!("/runs/{id}"))).chain(["/login".to_owned()]) {
        browser.goto(&path).await;
        browser.has(1, "h1").await;
        browser.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })").await;
        for scheme in ["light", "dark"] {
            let feature = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
            browser.tell("Emulation.setEmulatedMedia", feature).await;
            let found = browser.evaluate(PALE).await;
            pale.extend(found.as_array().unwrap().iter().map(|one| format!("{scheme} at {path:?}: {one}")));
            pages.push(browser.evaluate("return getComputedStyle(document.body).backgroundColor").await);
        }
    }
    assert!(pale.is_empty(), "hard to read: {pale:#?}");
    assert_ne!(pages[0], pages[1], "there are two schemes");
    browser.finish(&[]).await;
}
