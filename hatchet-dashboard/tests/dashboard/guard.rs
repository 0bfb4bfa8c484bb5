//! Who may ask and act, and what browsers are told.

use axum::{
    Router,
    body::Body,
    http::{Request, header},
};
use hatchet::RunStatus;
use hatchet_dashboard::{Options, Part};
use serde_json::json;

use crate::world::{Reply, World, body_of, form, send};

async fn get_with(app: &Router, path: &str, headers: &[(&str, &str)]) -> Reply {
    let request = headers.iter().fold(Request::get(path), |request, (name, value)| request.header(*name, *value));
    send(app, request.body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn every_answer_tells_browsers_what_is_allowed() {
    let world = World::new("headers").await;
    for path in ["/", "/runs", "/api/v1/runs", "/api/v1/nothing", "/assets/style.css", "/assets/script.js", "/nothing"]
    {
        let reply = world.get(path).await;
        assert!(reply.header("content-security-policy").starts_with("default-src 'none'; style-src 'self'"), "{path}");
        assert!(reply.header("content-security-policy").ends_with("frame-ancestors 'none'"), "{path}");
        assert_eq!(reply.header("x-content-type-options"), "nosniff");
        assert_eq!(reply.header("referrer-policy"), "same-origin");
        assert!(!reply.header("cache-control").is_empty(), "{path}");
    }
}

#[tokio::test]
async fn no_page_has_a_script_or_a_style_inside() {
    let world = World::new("inline").await;
    let id = world.run("order", json!(1), RunStatus::Succeeded).await;
    for path in ["/", "/runs", "/queues", "/workflows", "/attention", &format!("/runs/{id}"), "/nothing", "/login"] {
        let page = world.get(path).await;
        assert!(!page.text.contains(" style=") && !page.text.contains("<style"), "{path}");
        assert!(!page.text.contains(" onclick") && page.text.matches("<script").count() == 1, "{path}");
    }
}

#[tokio::test]
async fn a_page_of_another_origin_cannot_act() {
    let world = World::new("origins").await;
    let id = world.start("approval", json!("a")).await;
    for (name, value) in
        [("sec-fetch-site", "cross-site"), ("sec-fetch-site", "same-site"), ("origin", "https://evil.example")]
    {
        for path in [format!("/api/v1/runs/{id}/cancel"), format!("/runs/{id}/cancel"), "/bulk".to_owned()] {
            let request = Request::post(&path)
                .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                .header(header::HOST, "dashboard.test")
                .header(name, value);
            send(&world.app, request.body(body_of(&[("reason", "x")])).unwrap()).await.is(403);
        }
    }
    assert!(!world.hatchet.get(id).await.unwrap().status.is_terminal());
    // Looking is harmless: no answer allows the other page to read it.
    let reply = get_with(&world.app, "/api/v1/runs", &[("origin", "https://evil.example")]).await.is(200);
    assert_eq!(reply.header("access-control-allow-origin"), "");
    // A page of our own may, and so may a program.
    world.form(&format!("/runs/{id}/cancel"), &[("reason", "ours")]).await.is(303);
}

#[tokio::test]
async fn a_read_only_dashboard_refuses_all_actions_and_has_no_buttons() {
    let world = World::with("read-only", Options::default().read_only(true)).await;
    let id = world.start("approval", json!("a")).await;
    let actions = ["cancel", "resume", "replay", "restart", "signals"];
    for action in actions {
        world.post(&format!("/api/v1/runs/{id}/{action}"), json!({})).await.refuses(403, "forbidden");
    }
    world.post("/api/v1/runs", json!({})).await.refuses(403, "forbidden");
    world.post("/api/v1/bulk", json!({})).await.refuses(403, "forbidden");
    for action in ["cancel", "resume", "replay", "restart", "signal"] {
        world.form(&format!("/runs/{id}/{action}"), &[]).await.is(403);
    }
    world.form("/bulk", &[]).await.is(403);
    world.get("/bulk?action=resume").await.is(403);
    for path in ["/runs".to_owned(), format!("/runs/{id}")] {
        let page = world.get(&path).await.is(200);
        assert!(!page.text.contains("method=\"post\"") && !page.text.contains("Act on all"), "{path}");
    }
}

#[tokio::test]
async fn without_the_token_nothing_is_shown() {
    let world = World::new("token").await;
    let id = world.run("echo", json!("secret thing"), RunStatus::Succeeded).await;
    let app = world.router(Options::default().token("open sesame"));
    for path in ["/api/v1/runs".to_owned(), format!("/api/v1/runs/{id}"), "/metrics".to_owned(), "/live".to_owned()] {
        get_with(&app, &path, &[]).await.refuses(401, "unauthorized");
        get_with(&app, &path, &[("authorization", "Bearer open sesam")]).await.refuses(401, "unauthorized");
        get_with(&app, &path, &[("authorization", "Basic open sesame")]).await.refuses(401, "unauthorized");
        get_with(&app, &path, &[("cookie", "hatchet_session=open sesame")]).await.refuses(401, "unauthorized");
    }
    get_with(&app, "/api/v1/runs", &[("authorization", "bearer open sesame")]).await.is(200);
    get_with(&app, "/healthz", &[]).await.is(200);
    let reply = get_with(&app, "/runs?status=failed", &[]).await.is(303);
    assert_eq!(reply.header("location"), "/login?next=%2Fruns%3Fstatus%3Dfailed");
    let act = form("/bulk", &[]).body(Body::empty()).unwrap();
    send(&app, act).await.is(401);
}

#[tokio::test]
async fn people_sign_in_with_the_token_and_out_again() {
    let world = World::new("sign-in").await;
    let app = world.router(Options::default().token("open sesame"));
    get_with(&app, "/login", &[]).await.is(200).has("type=\"password\"");
    let sign_in = async |token: &str, next: &str| {
        let fields = [("token", token), ("next", next)];
        send(&app, form("/login", &fields).body(body_of(&fields)).unwrap()).await
    };
    sign_in("guess", "/").await.is(401).has("not the token");
    let reply = sign_in("open sesame", "/runs?status=failed").await.is(303);
    assert_eq!(reply.header("location"), "/runs?status=failed");
    assert_eq!(sign_in("open sesame", "//evil.example").await.header("location"), "/");
    let cookie = reply.header("set-cookie");
    assert!(
        cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict") && !cookie.contains("sesame"),
        "{cookie}"
    );
    let session = cookie.split(';').next().unwrap();
    get_with(&app, "/runs", &[("cookie", session)]).await.is(200);
    get_with(&app, "/api/v1/runs", &[("cookie", session)]).await.is(200);
    // Another page cannot use the cookie to act.
    let foreign = Request::post("/api/v1/runs").header("cookie", session).header("sec-fetch-site", "cross-site");
    send(&app, foreign.body(Body::empty()).unwrap()).await.is(403);
    let out = form("/logout", &[]).header("cookie", session).body(Body::empty()).unwrap();
    assert!(send(&app, out).await.is(303).header("set-cookie").contains("Max-Age=0"));
    assert!(
        get_with(&world.router(Options::default().token("new")), "/runs", &[("cookie", session)]).await.status == 303
    );
}

#[tokio::test]
async fn secrets_are_redacted_wherever_payloads_are_shown() {
    let world = World::new("redacted").await;
    let echo = world.run("echo", json!({ "card": "4242" }), RunStatus::Succeeded).await;
    let fail = world.run("fail", json!("the card 4242 was declined"), RunStatus::Failed).await;
    let approval = world.start("approval", json!("4242")).await;
    world.hatchet.signal(approval, "4242", &json!("4242")).await.unwrap();
    world.until(approval, RunStatus::Succeeded).await;
    let options = Options::default().redact(|place, payload| {
        assert!(!place.workflow.is_empty());
        *payload = match place.part {
            Part::Failure => serde_json::from_str(&payload.to_string().replace("4242", "hidden")).unwrap(),
            _ => json!("hidden"),
        };
    });
    let app = world.router(options);
    for id in [echo, fail, approval] {
        let paths = ["", "/input", "/output", "/history"].map(|rest| format!("/api/v1/runs/{id}{rest}"));
        for path in paths.into_iter().chain([format!("/runs/{id}"), "/runs".to_owned(), "/".to_owned()]) {
            let text =
                get_with(&app, &path, &[]).await.text.replace("\"signal\":\"4242\"", "").replace("\"signal:4242", "");
            assert!(!text.contains("4242"), "{path}: {text}");
        }
    }
    get_with(&app, &format!("/api/v1/runs/{fail}"), &[]).await.has("the card hidden was declined");
}

#[tokio::test]
async fn the_dashboard_works_below_any_prefix() {
    let world = World::new("prefix").await;
    let id = world.run("order", json!(0), RunStatus::Failed).await;
    let app = Router::new().nest("/ops/flows", world.router(Options::default().token("t").prefix("proxy")));
    let bearer = [("authorization", "Bearer t")];
    for path in ["/ops/flows", "/ops/flows/runs", &format!("/ops/flows/runs/{id}"), "/ops/flows/attention"] {
        let page = get_with(&app, path, &bearer).await.is(200);
        for part in page.text.split(['"']).filter(|part| part.starts_with('/')) {
            assert!(part.starts_with("/proxy/ops/flows/") || part == "/proxy/ops/flows", "{part} on {path}");
        }
        assert!(page.text.contains("/proxy/ops/flows/assets/style.css"));
    }
    get_with(&app, "/ops/flows/assets/style.css", &[]).await.is(200);
    get_with(&app, "/ops/flows/api/v1/nothing", &bearer).await.refuses(404, "not_found");
    get_with(&app, "/ops/flows/nothing", &bearer).await.is(404).has("<!DOCTYPE html>");
    let reply = get_with(&app, "/ops/flows/runs", &[]).await.is(303);
    assert_eq!(reply.header("location"), "/proxy/ops/flows/login?next=%2Fruns");
    let fields = [("token", "t"), ("next", "/runs")];
    let reply = send(&app, form("/ops/flows/login", &fields).body(body_of(&fields)).unwrap()).await.is(303);
    assert_eq!(reply.header("location"), "/proxy/ops/flows/runs");
    assert!(reply.header("set-cookie").contains("Path=/proxy/ops/flows;"));
    let app = Router::new().nest_service("/ops", world.router(Options::default()));
    for path in ["/ops", "/ops/", "/ops/runs"] {
        get_with(&app, path, &[]).await.is(200).has("href=\"/ops/assets/style.css\"");
    }
}

#[tokio::test]
async fn a_name_that_is_not_ours_is_refused() {
    let world = World::new("hosts").await;
    let app = world.router(Options::default().hosts(["127.0.0.1:8233", "localhost:8233"]));
    get_with(&app, "/api/v1/runs", &[("host", "LOCALHOST:8233")]).await.is(200);
    get_with(&app, "/api/v1/runs", &[("host", "evil.example:8233")]).await.refuses(421, "bad_request");
    get_with(&app, "/runs", &[]).await.is(421);
}

#[test]
fn options_do_not_print_their_token() {
    let text = format!("{:?}", Options::default().token("open sesame"));
    assert!(!text.contains("sesame") && text.contains("has_token: true"), "{text}");
}
