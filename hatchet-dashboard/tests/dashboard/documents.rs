//! The OpenAPI document describes what is answered.

use axum::http::{Method, Request};
use hatchet::RunStatus;
use serde_json::{Map, Value, json};

use crate::world::{World, send};

/// Whether a value fits a schema of the document, with what does not fit.
fn check(document: &Value, schema: &Value, value: &Value, place: &str) -> Result<(), String> {
    if let Some(name) = schema["$ref"].as_str() {
        let schema = document.pointer(name.trim_start_matches('#')).ok_or(format!("{name} is missing"))?;
        return check(document, schema, value, place);
    }
    if let Some(choices) = schema["oneOf"].as_array() {
        let fitting = choices.iter().filter(|choice| check(document, choice, value, place).is_ok()).count();
        return if fitting == 1 { Ok(()) } else { Err(format!("{place}: {value} fits {fitting} of {schema}")) };
    }
    if let Some(parts) = schema["allOf"].as_array() {
        // Each part alone would refuse the fields of the others.
        let merged =
            parts.iter().fold(json!({ "type": "object", "properties": {}, "required": [] }), |mut merged, part| {
                let part = match part["$ref"].as_str() {
                    Some(name) => document.pointer(name.trim_start_matches('#')).unwrap(),
                    None => part,
                };
                merged["properties"].as_object_mut().unwrap().extend(part["properties"].as_object().unwrap().clone());
                let required = part["required"].as_array().cloned().unwrap_or_default();
                merged["required"].as_array_mut().unwrap().extend(required);
                merged
            });
        return check(document, &merged, value, place);
    }
    if let Some(values) = schema["enum"].as_array() {
        return if values.contains(value) { Ok(()) } else { Err(format!("{place}: {value} is none of {values:?}")) };
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let fits = |name: &Value| name == kind || (name == "number" && kind == "integer");
    let is_fitting = match &schema["type"] {
        Value::Null => true,
        Value::Array(kinds) => kinds.iter().any(fits),
        name => fits(name),
    };
    if !is_fitting {
        return Err(format!("{place}: {value} is {kind} and not {}", schema["type"]));
    }
    if let (Some(items), Some(values)) = (schema.get("items"), value.as_array()) {
        for value in values {
            check(document, items, value, &format!("{place}[]"))?;
        }
    }
    let (Some(properties), Some(fields)) = (schema["properties"].as_object(), value.as_object()) else { return Ok(()) };
    check_fields(document, schema, properties, fields, place)
}

fn check_fields(
    document: &Value,
    schema: &Value,
    properties: &Map<String, Value>,
    fields: &Map<String, Value>,
    place: &str,
) -> Result<(), String> {
    for name in schema["required"].as_array().into_iter().flatten() {
        if !fields.contains_key(name.as_str().unwrap()) {
            return Err(format!("{place}.{name} is missing"));
        }
    }
    for (name, value) in fields {
        let schema = properties.get(name).ok_or(format!("{place}.{name} is not documented"))?;
        check(document, schema, value, &format!("{place}.{name}"))?;
    }
    Ok(())
}

#[tokio::test]
async fn each_documented_answer_fits_real_answers() {
    let world = World::new("documents").await;
    let document: Value = world.get("/api/v1/openapi.json").await.is(200).json();
    assert!(document["openapi"].as_str().unwrap().starts_with("3."));
    assert_eq!(document["components"]["securitySchemes"]["token"]["scheme"], "bearer");
    let failed = world.run("order", json!(0), RunStatus::Failed).await;
    let order = world.run("order", json!(1), RunStatus::Succeeded).await;
    let flaky = world.start("flaky", Value::Null).await;
    world.detail_with(flaky, "for retry 1").await;
    let fan = world.run("fan", json!([3, 0]), RunStatus::Succeeded).await;
    let stalled = world.stalled().await;
    let waiting = world.start("approval", json!("a")).await;
    let nobody = "00000000000000000000000000000007";
    let start = json!({ "workflow": "echo", "input": 1, "metadata": { "a": "b" } });
    let questions = [
        ("get", "/api/v1/runs", "/api/v1/runs".to_owned(), Value::Null),
        ("get", "/api/v1/runs", "/api/v1/runs?limit=1".to_owned(), Value::Null),
        ("get", "/api/v1/runs", "/api/v1/runs?limit=0".to_owned(), Value::Null),
        ("get", "/api/v1/runs/{id}", format!("/api/v1/runs/{failed}"), Value::Null),
        ("get", "/api/v1/runs/{id}", format!("/api/v1/runs/{order}"), Value::Null),
        ("get", "/api/v1/runs/{id}", format!("/api/v1/runs/{flaky}"), Value::Null),
        ("get", "/api/v1/runs/{id}", format!("/api/v1/runs/{fan}.0.0"), Value::Null),
        ("get", "/api/v1/runs/{id}", format!("/api/v1/runs/{stalled}"), Value::Null),
        ("get", "/api/v1/runs/{id}", format!("/api/v1/runs/{waiting}"), Value::Null),
        ("get", "/api/v1/runs/{id}", format!("/api/v1/runs/{nobody}"), Value::Null),
        ("get", "/api/v1/runs/{id}/input", format!("/api/v1/runs/{order}/input"), Value::Null),
        ("get", "/api/v1/runs/{id}/output", format!("/api/v1/runs/{order}/output"), Value::Null),
        ("get", "/api/v1/runs/{id}/children", format!("/api/v1/runs/{fan}/children"), Value::Null),
        ("get", "/api/v1/runs/{id}/history", format!("/api/v1/runs/{fan}/history"), Value::Null),
        ("post", "/api/v1/runs", "/api/v1/runs".to_owned(), start),
        ("post", "/api/v1/runs/{id}/signals", format!("/api/v1/runs/{waiting}/signals"), json!({ "name": "b" })),
        ("post", "/api/v1/runs/{id}/cancel", format!("/api/v1/runs/{waiting}/cancel"), json!({ "reason": "x" })),
        ("post", "/api/v1/runs/{id}/resume", format!("/api/v1/runs/{stalled}/resume"), json!({})),
        ("post", "/api/v1/runs/{id}/replay", format!("/api/v1/runs/{failed}/replay"), json!({})),
        ("post", "/api/v1/runs/{id}/restart", format!("/api/v1/runs/{failed}/restart"), json!({ "step": "charge" })),
        ("get", "/api/v1/runs/{id}", format!("/api/v1/runs/{failed}"), Value::Null),
        ("post", "/api/v1/bulk", "/api/v1/bulk".to_owned(), json!({ "action": { "restart": { "step": "x" } } })),
        ("get", "/api/v1/queues", "/api/v1/queues".to_owned(), Value::Null),
        ("get", "/api/v1/workflows", "/api/v1/workflows".to_owned(), Value::Null),
        ("get", "/api/v1/fsck", "/api/v1/fsck".to_owned(), Value::Null),
        ("get", "/healthz", "/healthz".to_owned(), Value::Null),
        ("get", "/readyz", "/readyz".to_owned(), Value::Null),
    ];
    for (method, documented, path, body) in questions {
        let reply = if method == "get" { world.get(&path).await } else { world.post(&path, body).await };
        let responses = &document["paths"][documented][method]["responses"];
        let status = reply.status.as_str();
        let of_kind = format!("{}XX", &status[..1]);
        let response = responses.get(status).or(responses.get(&of_kind));
        let response = response.unwrap_or_else(|| panic!("{method} {path} answers {status}: {}", reply.text));
        let schema = &response["content"]["application/json"]["schema"];
        assert!(schema.is_object(), "{method} {documented} has no schema for {status}: {response}");
        check(&document, schema, &reply.json(), documented).unwrap_or_else(|why| panic!("{method} {path}: {why}"));
    }
}

#[tokio::test]
async fn each_documented_method_is_routed() {
    let world = World::new("methods").await;
    let document: Value = world.get("/api/v1/openapi.json").await.is(200).json();
    for (path, methods) in document["paths"].as_object().unwrap() {
        let path = path.replace("{id}", "00000000000000000000000000000007");
        for method in [Method::GET, Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
            let is_documented = methods.get(method.as_str().to_lowercase()).is_some();
            let request = Request::builder().method(&method).uri(&path).body("".into()).unwrap();
            let reply = send(&world.app, request).await;
            assert_eq!(reply.status != 405, is_documented, "{method} {path}: {}", reply.status);
        }
    }
}
