//! The API against its own description: schemathesis makes requests from the OpenAPI document, good and bad ones, and looks
//! for answers with 5xx, answers that are not described, and answers that are not as described. `schemathesis.sh` beside
//! this directory installs it and runs this test.

use std::{net::SocketAddr, path::Path, process::Command};

use hatchet::{RunId, RunStatus};
use serde_json::json;
use tokio::net::TcpListener;

use crate::world::World;

#[path = "../dashboard/load.rs"]
mod load;
#[allow(dead_code, reason = "another program speaks to the router, and this test needs only some of the words")]
#[path = "../dashboard/world.rs"]
mod world;

/// The same requests each time.
const SEED: &str = "20260301";
/// The maximum number of requests that are made up for each operation, beside those for each limit in the document.
const EXAMPLES: &str = "12";

/// Runs of all kinds. Returns for each path a run with which it has something to answer.
async fn fill(world: &World) -> Vec<(&'static str, RunId)> {
    let failed = world.run("order", json!(0), RunStatus::Failed).await;
    let succeeded = world.run("order", json!(1), RunStatus::Succeeded).await;
    let fan = world.run("fan", json!([20, 0]), RunStatus::Succeeded).await;
    vec![
        ("", fan),
        ("/input", failed),
        ("/output", succeeded),
        ("/children", fan),
        ("/history", fan),
        ("/cancel", world.start("approval", json!("a")).await),
        ("/resume", world.stalled().await),
        ("/replay", failed),
        ("/restart", failed),
        ("/delete", world.run("order", json!(2), RunStatus::Succeeded).await),
        ("/signals", world.start("approval", json!("b")).await),
    ]
}

/// Runs schemathesis with these settings. It exits with an error if it finds anything.
async fn run(address: SocketAddr, settings: &str, phases: &str) {
    let program = std::env::var("SCHEMATHESIS").expect("SCHEMATHESIS names the program");
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("schemathesis");
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("schemathesis.toml"), settings).unwrap();
    let mut command = Command::new(program);
    command.current_dir(&directory).args(["run", &format!("http://{address}/api/v1/openapi.json")]);
    // A request that fits its schema may be refused: a run may not exist, or have ended.
    command.args(["--checks", "all", "--exclude-checks", "positive_data_acceptance", "--phases", phases]);
    command.args(["--seed", SEED, "--generation-database", "none", "--max-examples", EXAMPLES, "--no-shrink"]);
    // A stream of events has no end.
    command.args(["--exclude-path-regex", "/events$", "--request-timeout", "20", "--no-color", "--warnings", "off"]);
    let status = tokio::task::spawn_blocking(move || command.status()).await.unwrap().unwrap();
    assert!(status.success(), "schemathesis has found something, see above");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs schemathesis: hatchet-dashboard/tests/schemathesis.sh installs it and runs this"]
async fn each_answer_is_one_that_the_document_describes() {
    let world = World::new("schemathesis").await;
    let runs = fill(&world).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = world.app.clone();
    let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    // Once with ids that it makes up or finds in answers, and once with those of runs of the right kind.
    run(address, "", "examples,coverage,fuzzing,stateful").await;
    let of_path = |(path, id): &(&str, RunId)| {
        format!("[[operations]]\ninclude-path = \"/api/v1/runs/{{id}}{path}\"\nparameters = {{ id = \"{id}\" }}\n")
    };
    run(address, &runs.iter().map(of_path).collect::<String>(), "coverage,fuzzing").await;
    world.get("/readyz").await.is(200);
    server.abort();
}
