//! The pages for people.

use std::time::Duration;

use axum::{body::Body, http::Request};
use hatchet::{RunId, RunStatus};
use hatchet_dashboard::Options;
use serde_json::{Value, json};

use crate::world::{Reply, World, away, send};

fn location_of(reply: &Reply) -> RunId {
    reply.header("location").strip_prefix("/runs/").unwrap().parse().unwrap()
}

#[tokio::test]
async fn an_empty_store_has_pages() {
    let world = World::new("empty").await;
    for path in ["/", "/runs", "/attention", "/queues", "/workflows"] {
        world.get(path).await.is(200).has("<!DOCTYPE html>");
    }
}

#[tokio::test]
async fn the_overview_counts_runs_and_shows_failures() {
    let world = World::new("overview").await;
    world.run("order", json!(1), RunStatus::Succeeded).await;
    let failed = world.run("order", json!(0), RunStatus::Failed).await;
    let page = world.get("/").await.is(200).has("the bank refused").has(&format!("/runs/{failed}"));
    page.has("<strong>1</strong><span class=\"badge failed\">").has("Of all root runs:");
}

#[tokio::test]
async fn runs_are_filtered_in_the_url_and_have_a_next_page() {
    let world = World::new("runs-page").await;
    for _ in 0..3 {
        world.run("order", json!(1), RunStatus::Succeeded).await;
    }
    world.run("fail", json!("x"), RunStatus::Failed).await;
    let page = world.get("/runs?status=succeeded&limit=2").await.is(200);
    assert_eq!(page.text.matches("<td><span class=\"badge succeeded\">").count(), 2);
    let next = page.text.split('"').find(|part| part.contains("cursor=")).unwrap().replace("&amp;", "&");
    assert!(next.contains("status=succeeded") && next.contains("limit=2"), "{next}");
    let last = world.get(&next).await.is(200);
    assert_eq!(last.text.matches("<td><span class=\"badge succeeded\">").count(), 1);
    assert!(!last.text.contains("rel=\"next\""));
    world.get("/runs?status=lost").await.is(400).has("not a status");
}

#[tokio::test]
async fn a_run_shows_its_steps_its_failure_and_its_links() {
    let world = World::new("run-page").await;
    let failed = world.run("order", json!(0), RunStatus::Failed).await;
    let page = world.get(&format!("/runs/{failed}")).await.is(200);
    let page = page.has("the bank refused").has("Caused by: no money\nnone at all").has("step charge").has("step ship");
    let page = page.has("<svg class=\"bar\"").has("&quot;code&quot;: 51").has("<option value=\"charge\">");
    assert!(page.text.contains(&format!("/runs/{failed}/replay")) && !page.text.contains("Cancel the run"));
    let again = location_of(&world.form(&format!("/runs/{failed}/restart"), &[("step", "charge")]).await.is(303));
    world.get(&format!("/runs/{again}")).await.has("Restarted from").has(&format!("/runs/{failed}\""));
    world.get(&format!("/runs/{failed}")).await.has("Restarted as").has(&format!("/runs/{again}\""));
}

#[tokio::test]
async fn the_buttons_act_and_lead_back_to_the_run() {
    let world = World::new("buttons").await;
    let id = world.start("approval", json!("approval")).await;
    world.detail_with(id, "for signal approval").await;
    world.get(&format!("/runs/{id}")).await.has("value=\"approval\"").has("for signal approval");
    let signal = format!("/runs/{id}/signal");
    world.form(&signal, &[("name", "approval"), ("payload", "not json")]).await.is(400).has("text needs quotes");
    world.form(&signal, &[("name", "approval"), ("payload", "{\"ok\": true}")]).await.is(303);
    world.until(id, RunStatus::Succeeded).await;
    world.form(&format!("/runs/{id}/cancel"), &[("reason", "late")]).await.is(409).has("has ended");
    let again = location_of(&world.form(&format!("/runs/{id}/replay"), &[]).await.is(303));
    world.form(&format!("/runs/{again}/cancel"), &[("reason", "")]).await.is(400).has("needs a reason");
    world.form(&format!("/runs/{again}/cancel"), &[("reason", "enough")]).await.is(303);
    world.get(&format!("/runs/{again}")).await.has("was cancelled").has("enough");
    let stalled = world.stalled().await;
    world.get(&format!("/runs/{stalled}")).await.has("deploy code that matches");
    world.get("/attention").await.has("deploy code that matches");
    world.form(&format!("/runs/{stalled}/resume"), &[]).await.is(303);
}

#[tokio::test]
async fn a_bulk_action_is_confirmed_with_its_number_first() {
    let world = World::new("bulk-page").await;
    for _ in 0..3 {
        world.start("approval", json!("a")).await;
    }
    let query = "action=cancel&reason=closed&step=&workflow=approval";
    let page = world.get(&format!("/bulk?{query}")).await.is(200).has("Really cancel 3 runs?").has("closed");
    assert!(page.text.contains("name=\"expect\" value=\"3\""));
    assert_eq!(world.hatchet.list(&hatchet::Query::default()).await.unwrap().runs[0].outcome, None, "only counted");
    world.form("/bulk", &[("query", query), ("expect", "2")]).await.is(409).has("3 runs fit now");
    world.form("/bulk", &[("query", query), ("expect", "3")]).await.is(200).has("Done: cancel 3 of 3 runs");
    world.get("/bulk?action=cancel").await.is(400).has("needs a reason");
    world.get("/bulk?action=restart").await.is(400);
    world.get("/bulk?action=explode").await.is(400);
    world.form("/bulk", &[("query", query)]).await.is(400);
    world.get("/bulk?action=cancel&reason=x").await.is(200).has("No run fits.");
}

#[tokio::test]
async fn attention_collects_what_a_person_should_see() {
    let world = World::new("attention").await;
    world.run("fail", json!("broken pipe"), RunStatus::Failed).await;
    let flaky = world.start("flaky", Value::Null).await;
    world.detail_with(flaky, "for retry 1").await;
    world.hatchet.start_named("nobody", 1).queue("desert").unchecked().await.unwrap();
    let page = world.get("/attention").await.is(200);
    page.has("broken pipe").has("not today").has("desert");
}

#[tokio::test]
async fn the_page_of_a_run_with_five_thousand_children_is_small() {
    let world = World::new("fan-page").await;
    let id = world.start("fan", json!([5_000, 3])).await;
    let detail = world.detail_with(id, "for 3 of 5000 children").await;
    assert_eq!(detail["children"], 5_000);
    let page = world.get(&format!("/runs/{id}")).await.is(200).has("for 3 of 5000 children").has("4950 more children");
    assert!(page.text.len() < 200_000, "{}", page.text.len());
    assert_eq!(page.text.matches("<tr class=\"child\">").count(), 50);
    world.get(&format!("/runs?parent={id}")).await.is(200).has("Children of");
}

#[tokio::test]
async fn failed_children_are_shown_first() {
    let world = World::new("failed-children").await;
    let id = world.start("fan", json!([200, 2])).await;
    world.detail_with(id, "for 2 of 200 children").await;
    // The two oldest are the last of the list.
    let query = hatchet::Query { parent: Some(id), limit: 500, ..Default::default() };
    let children = world.hatchet.list(&query).await.unwrap().runs;
    let oldest = children.iter().find(|child| !child.status.is_terminal()).unwrap().id;
    world.hatchet.signal(oldest, "go", &"not what it waits for").await.unwrap();
    world.until(oldest, RunStatus::Failed).await;
    let page = world.get(&format!("/runs/{id}")).await.is(200);
    let first = page.text.split("<tr class=\"child\">").nth(1).unwrap();
    assert!(first.contains(&oldest.to_string()), "{first}");
}

#[tokio::test]
async fn what_is_not_there_has_a_page_that_says_so() {
    let world = World::new("nowhere").await;
    world.get("/nothing").await.is(404).has("<!DOCTYPE html>");
    world.get("/runs/00000000000000000000000000000007").await.is(404).has("does not exist");
    world.get("/runs/7").await.is(400).has("is not a run id");
    let reply = world.form("/runs", &[]).await.is(405).has("<!DOCTYPE html>");
    assert!(reply.header("allow").contains("GET"));
    let app = hatchet_dashboard::router(away().await, Options::default().patience(Duration::from_millis(50)));
    let request = Request::get("/").body(Body::empty()).unwrap();
    send(&app, request).await.is(503).has("The store does not answer");
}
