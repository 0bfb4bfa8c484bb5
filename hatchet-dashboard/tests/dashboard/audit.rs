//! Each action leaves a line in the log.

use std::{
    fmt,
    sync::{Arc, Mutex},
};

use hatchet::RunStatus;
use serde_json::json;
use tracing::{
    Event, Id, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Record},
};

use crate::world::World;

/// Keeps the audit lines.
#[derive(Clone, Default)]
struct Audit(Arc<Mutex<Vec<String>>>);

/// The fields of one line, as `name=value`.
struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0 += &format!("{}={value:?} ", field.name());
    }
}

impl Subscriber for Audit {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "hatchet::audit"
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        self.0.lock().unwrap().push(line.0);
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[tokio::test]
async fn each_action_leaves_one_line() {
    let audit = Audit::default();
    let _guard = tracing::subscriber::set_default(audit.clone());
    let world = World::new("audit").await;
    let line = |action: &str, parts: &[String]| {
        let lines = std::mem::take(&mut *audit.0.lock().unwrap());
        let [line] = &lines[..] else { panic!("{action}: one line, but {lines:?}") };
        assert!(line.contains(&format!("action=\"{action}\"")), "{line}");
        parts.iter().for_each(|part| assert!(line.contains(part), "{part} is missing in {line}"));
    };
    let id = world.post("/api/v1/runs", json!({ "workflow": "order", "input": 0 })).await.is(201).id();
    line("start", &[format!("run={id}"), "workflow=\"order\"".to_owned()]);
    world.until(id, RunStatus::Failed).await;
    let path = format!("/api/v1/runs/{id}");
    let new = world.post(&format!("{path}/replay"), json!({})).await.is(201).id();
    line("replay", &[format!("run={id}"), format!("new={new}")]);
    let new = world.post(&format!("{path}/restart"), json!({ "step": "charge" })).await.is(201).id();
    line("restart", &[format!("run={id}"), format!("new={new}")]);
    world.post(&format!("{path}/resume"), json!({})).await.is(200);
    line("resume", &[format!("run={id}"), "count=0".to_owned()]);
    let waiting = world.start("approval", json!("a")).await;
    world.form(&format!("/runs/{waiting}/signal"), &[("name", "b")]).await.is(303);
    line("signal", &[format!("run={waiting}"), "signal=\"b\"".to_owned()]);
    world.form(&format!("/runs/{waiting}/cancel"), &[("reason", "why\nnot")]).await.is(303);
    line("cancel", &[format!("run={waiting}"), "reason=\"why\\nnot\"".to_owned()]);
    world.post(&format!("/api/v1/runs/{waiting}/cancel"), json!({ "reason": "late" })).await.is(409);
    assert!(audit.0.lock().unwrap().is_empty(), "nothing was done");
    let bulk = json!({ "action": { "cancel": { "reason": "x" } }, "filter": { "workflow": "approval" } });
    world.post("/api/v1/bulk", bulk).await.is(200);
    line("cancel", &["filter=".to_owned(), "matched=0".to_owned(), "done=0".to_owned()]);
}
