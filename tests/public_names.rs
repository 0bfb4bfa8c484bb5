//! The names at the root of the facade. A new item of the core is public only if it is added to the list here.

use std::collections::BTreeSet;

const ITEMS: &str = "
    Activity AsInput ChildConflict ChildHandle Children DEFAULT_MAX_PAYLOAD Durations EndedChild Error Failure FailureKind Hatchet History
    KeyConflict Limit Name ParseRunIdError Pausable Pause Payload PayloadError Priority Query RunError RunErrorKind RunFailure RunHandle
    RunId RunPage RunStatus RunView SendSignal SessionId ShuttingDown Sleep Spawn SpawnAll Stall StartRun StdStepError
    StepContext StepError StepFailure StepResult StepReturn TimerConflict Timestamp Unfaithful Untyped WaitFor Worker
    WorkerBuilder WorkerView Workflow WorkflowOptions on_failure step workflow";

const MODULES: &str = "__private backend changing_workflows history interceptor memory operating prelude redis";

const OF_FEATURES: &str = "conformance conformance_suite testing";

/// The public names of a source file: what its `pub` items at the root define or re-export. Fails on a glob.
fn public(source: &str) -> BTreeSet<String> {
    let code: Vec<&str> = source.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let code = code.join("\n");
    let mut names = BTreeSet::new();
    for item in code.split("\npub ").skip(1) {
        match item.strip_prefix("use ") {
            Some(path) => {
                let path = path.split(';').next().unwrap();
                assert!(!path.contains('*'), "the glob {path} makes every new item public");
                let of_group = path.split_once('{').map_or(path.rsplit("::").next().unwrap(), |(_, group)| group);
                let listed = of_group.trim_end_matches('}').split(',').map(str::trim).filter(|name| !name.is_empty());
                names.extend(listed.map(str::to_owned));
            }
            None => {
                let name = item.split_whitespace().nth(1).unwrap();
                names.insert(name.trim_end_matches([';', '{', ':']).to_owned());
            }
        }
    }
    names
}

#[test]
fn the_root_has_the_names_that_are_listed_here() {
    let listed: BTreeSet<String> =
        [ITEMS, MODULES, OF_FEATURES].into_iter().flat_map(str::split_whitespace).map(str::to_owned).collect();
    let found = public(include_str!("../src/lib.rs"));
    let new: Vec<_> = found.difference(&listed).collect();
    let gone: Vec<_> = listed.difference(&found).collect();
    assert!(new.is_empty() && gone.is_empty(), "new: {new:?}, gone: {gone:?}");
}

#[test]
fn each_form_of_a_public_name_is_found() {
    let source = "\n//! pub use a::b;\npub use a::B;\n    pub use inner::C;\n#[cfg(x)]\npub use a::{\n    D, e,\n};\npub mod f {\n    pub use g::H;\n}\nuse i::J;\n";
    assert_eq!(public(source).into_iter().collect::<Vec<_>>().join(" "), "B D e f");
}

#[test]
#[should_panic = "the glob"]
fn a_glob_is_noticed() {
    public("\npub use a::*;\n");
}
