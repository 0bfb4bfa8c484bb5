//! The dashboard for Grafana in `docs/grafana.json` shows exactly the metrics that there are, by labels that they have.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::world::World;

const GRAFANA: &str = include_str!("../../../docs/grafana.json");
const OPERATING: &str = include_str!("../../../docs/operating.md");

type Metrics = BTreeMap<String, BTreeSet<String>>;

/// The words of a text that may be names.
fn names(text: &str) -> impl Iterator<Item = &str> {
    text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').filter(|name| !name.is_empty())
}

/// What the feature `metrics` counts, with its labels. That this list is right is tested where they are counted.
fn of_programs() -> Metrics {
    let rows = OPERATING.lines().filter(|line| line.starts_with("| `hatchet_"));
    let metric = |row: &str| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let labels = names(cells[3]).map(str::to_owned).collect();
        (cells[1].trim_matches('`').to_owned(), labels)
    };
    rows.map(metric).collect()
}

/// What `/metrics` says, with its labels.
async fn of_the_store() -> Metrics {
    let world = World::new("grafana").await;
    world.hatchet.start_named("nobody", 1).queue("desert").unchecked().await.unwrap();
    let text = world.get("/metrics").await.is(200).text;
    let mut metrics = Metrics::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, rest) = line.split_at(line.find(['{', ' ']).unwrap());
        let labels = rest.split("=\"").filter_map(|part| part.rsplit(['{', ',']).next());
        let labels = labels.filter(|label| label.chars().all(|letter| letter.is_ascii_lowercase()));
        metrics.entry(name.to_owned()).or_default().extend(labels.map(str::to_owned));
    }
    metrics
}

/// All values of this name, wherever they are.
fn all<'a>(value: &'a Value, name: &str, found: &mut Vec<&'a Value>) {
    match value {
        Value::Array(values) => values.iter().for_each(|value| all(value, name, found)),
        Value::Object(fields) => {
            found.extend(fields.get(name));
            fields.values().for_each(|value| all(value, name, found));
        }
        _ => {}
    }
}

/// The metrics in a query, by the names under which they are counted.
fn metrics_in(query: &str) -> BTreeSet<&str> {
    let own = names(query).filter(|name| name.starts_with("hatchet_"));
    own.map(|name| ["_bucket", "_sum", "_count"].into_iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name))
        .collect()
}

/// The labels in a query: those by which it groups, and those that it compares.
fn labels_in(query: &str) -> BTreeSet<&str> {
    let groups = query.split("by (").skip(1).flat_map(|rest| names(rest.split(')').next().unwrap()));
    let selectors = query.split('{').skip(1).filter_map(|rest| rest.split('}').next());
    let compared = selectors.flat_map(|selector| selector.split(',')).filter_map(|pair| names(pair).next());
    groups.chain(compared).filter(|label| *label != "le").collect()
}

#[tokio::test]
async fn each_metric_has_a_panel_and_each_panel_its_metrics() {
    let grafana: Value = serde_json::from_str(GRAFANA).unwrap();
    let of_the_store = of_the_store().await;
    for name in of_the_store.keys() {
        assert!(OPERATING.contains(&format!("`{name}`")), "{name} is not in docs/operating.md");
    }
    let mut known = of_programs();
    assert!(known.len() >= 9 && of_the_store.len() >= 4, "{known:?} {of_the_store:?}");
    known.extend(of_the_store);
    let mut queries = Vec::new();
    all(&grafana["panels"], "expr", &mut queries);
    let queries: Vec<&str> = queries.into_iter().map(|query| query.as_str().unwrap()).collect();
    let shown: BTreeSet<&str> = queries.iter().flat_map(|query| metrics_in(query)).collect();
    assert_eq!(shown, known.keys().map(String::as_str).collect());
    for query in queries {
        let allowed = metrics_in(query).into_iter().flat_map(|metric| &known[metric]);
        let allowed: BTreeSet<&str> = allowed.map(String::as_str).collect();
        assert!(labels_in(query).is_subset(&allowed), "{query}: there are {allowed:?}");
    }
}

#[test]
fn the_panels_have_places_of_their_own() {
    let grafana: Value = serde_json::from_str(GRAFANA).unwrap();
    let panels = grafana["panels"].as_array().unwrap();
    let mut ids = BTreeSet::new();
    let mut taken = BTreeSet::new();
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
        let place = |name: &str| panel["gridPos"][name].as_u64().unwrap();
        for cell in (0..place("w")).flat_map(|x| (0..place("h")).map(move |y| (x, y))) {
            let (x, y) = (place("x") + cell.0, place("y") + cell.1);
            assert!(x < 24 && taken.insert((x, y)), "{} lies on another panel", panel["title"]);
        }
        if panel["type"] != "row" {
            assert!(!panel["description"].as_str().unwrap().is_empty(), "{}", panel["title"]);
            assert_eq!(panel["datasource"]["uid"], "${datasource}");
        }
    }
}
