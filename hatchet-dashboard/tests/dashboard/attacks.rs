//! What others have stored cannot become part of a page.

use std::time::Duration;

use axum::{body::Body, http::Request};
use hatchet::{
    Priority, RunId, RunStatus, SessionId,
    backend::{Extras, NewRun, SessionSpec, Start, StartGroup},
};
use serde_json::{Value, json};

use crate::world::{World, send};

/// Texts that would do something if a page took them as they are.
const ATTACKS: [&str; 8] = [
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>",
    "'><svg/onload=alert(1)>",
    "<!--<b>",
    "{{7*7}}${7*7}<%= 7*7 %>",
    "javascript:alert(1)",
    "a\u{202e}b\u{2066}c\u{200b}d",
];

/// Every page that can show a run.
async fn pages(world: &World, id: RunId) -> Vec<String> {
    let lists = ["/", "/runs", "/attention", "/queues", "/workflows"].map(str::to_owned);
    let mut pages: Vec<String> =
        lists.into_iter().chain([format!("/runs/{id}"), format!("/runs?parent={id}")]).collect();
    for path in &mut pages {
        let reply = world.get(path).await.is(200);
        assert_eq!(reply.header("content-type"), "text/html; charset=utf-8");
        *path = reply.text;
    }
    pages
}

fn assert_harmless(page: &str) {
    // Our own markup has one script, no image, and SVG only for bars.
    assert_eq!(page.matches("<script").count(), 1, "{page}");
    assert!(
        !page.contains("<img") && !page.contains("<svg/") && !page.contains("<b>") && !page.contains("<!--"),
        "{page}"
    );
    assert!(!page.contains("href=\"javascript:"), "{page}");
    let turns = |letter: char| matches!(letter, '\u{1b}' | '\u{202e}' | '\u{2066}' | '\u{200b}');
    // A form must give back what it got, so only values and titles may contain them.
    let shown: String = page.split('<').map(|tag| tag.split_once('>').map_or("", |(_, text)| text)).collect();
    assert!(!shown.contains(turns), "{page}");
}

#[tokio::test]
async fn names_keys_metadata_and_signals_are_only_text() {
    let world = World::new("attack-names").await;
    for attack in ATTACKS {
        let run = world.hatchet.start_named(attack, attack).unchecked().key(attack).queue(attack);
        let run = run.metadata(attack, attack).header(attack, attack).await.unwrap();
        for page in pages(&world, run.id()).await {
            assert_harmless(&page);
        }
        let query = [("workflow", attack), ("meta", &format!("{attack}:{attack}"))];
        let mut text = form_urlencoded::Serializer::new(String::new());
        let page = world.get(&format!("/runs?{}", text.extend_pairs(query).finish())).await.is(200);
        assert_harmless(&page.text);
        let waiting = world.start("approval", json!(attack)).await;
        world.detail_with(waiting, "for signal").await;
        world.hatchet.signal(waiting, "another", &attack).await.unwrap();
        for page in pages(&world, waiting).await {
            assert_harmless(&page);
        }
        world.hatchet.cancel(waiting, attack).await.unwrap();
        for page in pages(&world, waiting).await {
            assert_harmless(&page);
        }
    }
}

#[tokio::test]
async fn errors_are_only_text() {
    let world = World::new("attack-errors").await;
    for attack in ATTACKS.into_iter().chain(["\u{1b}[2J\u{1b}]0;owned\u{7}", "\u{0}\r\n\u{85}"]) {
        let id = world.run("fail", json!(attack), RunStatus::Failed).await;
        for page in pages(&world, id).await {
            assert_harmless(&page);
            assert!(!page.contains(['\u{0}', '\u{7}', '\u{85}']));
        }
    }
}

#[tokio::test]
async fn requests_are_only_text_in_what_refuses_them() {
    let world = World::new("attack-requests").await;
    for attack in ATTACKS {
        let encoded: String = form_urlencoded::byte_serialize(attack.as_bytes()).collect();
        let encoded = encoded.replace('+', "%20");
        let paths = ["/", "/runs/", "/runs?status=", "/runs?cursor=", "/runs?from=", "/bulk?action=", "/login?next="];
        for path in paths {
            assert_harmless(&world.get(&format!("{path}{encoded}")).await.text);
        }
        world.get(&format!("/api/v1/runs/{encoded}")).await.refuses(400, "bad_request");
    }
}

#[tokio::test]
async fn a_payload_of_four_mebibytes_does_not_make_a_page_large() {
    let world = World::new("attack-size").await;
    let large: String = "<script>".repeat((4 << 20) / 8 - 2);
    let id = world.run("echo", json!(large), RunStatus::Succeeded).await;
    for page in pages(&world, id).await {
        assert_harmless(&page);
        assert!(page.len() < 100_000, "{}", page.len());
    }
    assert!(world.get(&format!("/api/v1/runs/{id}")).await.text.len() < 10_000);
    assert_eq!(world.get(&format!("/api/v1/runs/{id}/output")).await.json::<String>(), large);
    // Just below the limit it is on the page, and cut.
    let long: Vec<Value> = (0..9_000).map(|n| json!(n)).collect();
    let id = world.run("echo", json!(long), RunStatus::Succeeded).await;
    let page = world.get(&format!("/runs/{id}")).await.has("Cut. ");
    assert!(page.text.len() < 100_000, "{}", page.text.len());
}

#[tokio::test]
async fn bytes_that_are_no_text_are_refused_or_shown_as_such() {
    let world = World::new("attack-bytes").await;
    let request = Request::post("/runs/00000000000000000000000000000007/cancel")
        .header("content-type", "application/x-www-form-urlencoded")
        .header("origin", &b"\xff\xfe"[..]);
    send(&world.app, request.body(Body::from(&b"reason=%FF"[..])).unwrap()).await.is(403);
    let request = Request::post("/runs/00000000000000000000000000000007/cancel")
        .header("content-type", "application/x-www-form-urlencoded");
    send(&world.app, request.body(Body::from(&b"reason=%FF\xff"[..])).unwrap()).await.is(404);
    for path in ["/runs/%FF", "/runs?workflow=%FF", "/runs?%FF=%FF", "/%FF%00", "/login?next=%FF"] {
        let reply = world.get(path).await;
        assert!(reply.status.as_u16() < 500, "{path}: {}", reply.status);
    }
}

/// Stores a run whose input is no JSON, as only another program could.
async fn foreign_run(world: &World, input: &'static [u8]) -> RunId {
    let session = SessionId::random();
    let backend = world.hatchet.backend();
    let (label, lease) = ("another program".into(), Duration::from_secs(30));
    backend.open(SessionSpec { id: session, label, lease, workflows: vec![], queues: vec![] }).await.unwrap();
    let run = NewRun {
        id: RunId::random(),
        workflow: "foreign".into(),
        queue: "foreign".into(),
        priority: Priority::Normal,
        input: input.into(),
        fingerprint: 0,
        key: None,
        extras: Extras::default(),
    };
    let id = run.id;
    let groups = vec![StartGroup::new(None, vec![run])];
    backend.start(Start { session, groups, keep: 0 }).await.unwrap();
    backend.close(session).await.unwrap();
    id
}

#[tokio::test]
async fn a_payload_that_is_no_json_is_not_shown_as_any_text() {
    let world = World::new("attack-foreign").await;
    let id = foreign_run(&world, b"\xff\xfe<script>alert(1)</script>").await;
    for page in pages(&world, id).await {
        assert_harmless(&page);
    }
    world.get(&format!("/runs/{id}")).await.has("27 bytes, which cannot be shown as JSON");
    let detail: Value = world.get(&format!("/api/v1/runs/{id}")).await.is(200).json();
    assert_eq!(detail["input"], json!({ "bytes": 27 }));
    let raw = world.get(&format!("/api/v1/runs/{id}/input")).await.is(200);
    assert_eq!(raw.header("content-type"), "application/octet-stream");
    world.get(&format!("/api/v1/runs/{id}/history")).await.refuses(500, "internal").has("not a JSON text");
}
