//! Holds what `ARCHITECTURE.md` says is absent: which file may use which, and what the pure part does not contain.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// The files of this crate that decide and do nothing: data and functions of data.
const PURE: [&str; 8] =
    ["catalog.rs", "definition.rs", "ids.rs", "journal.rs", "machine.rs", "mismatch.rs", "payload.rs", "retry.rs"];

/// The rooms of this crate, the lowest first: a room uses none that comes after it. What is not named here is for the outermost.
const ROOMS: [&[&str]; 3] = [
    &[
        "backend",
        "catalog",
        "definition",
        "duration",
        "error",
        "failure",
        "hash",
        "ids",
        "journal",
        "machine",
        "mismatch",
        "payload",
        "retry",
    ],
    &["engine", "registry", "workflow", "context"],
    &["client", "private", "testing", "conformance"],
];

/// A file of Rust, without its comments and without its unit tests.
struct File {
    name: String,
    code: String,
}

fn source(folder: &Path) -> Vec<File> {
    let mut folders = vec![folder.to_owned()];
    let mut files = Vec::new();
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs")
                && path.file_stem().unwrap() != "tests"
            {
                let text = fs::read_to_string(&path).unwrap();
                let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
                let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
                let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
                files.push(File { name, code: code.collect::<Vec<_>>().join("\n") });
            }
        }
    }
    assert!(!files.is_empty(), "{} has its files elsewhere", folder.display());
    files
}

fn core() -> Vec<File> {
    source(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"))
}

fn is_of_a_name(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

/// The modules at the top of this crate that a file uses.
fn used(code: &str) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let Some(group) = rest.strip_prefix('{') else {
            used.insert(rest.chars().take_while(|letter| is_of_a_name(*letter)).collect());
            continue;
        };
        let (mut depth, mut name, mut is_in_name) = (0, String::new(), true);
        for letter in group.chars() {
            match letter {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    used.insert(std::mem::take(&mut name));
                    is_in_name = true;
                }
                _ if depth > 0 || !is_in_name || letter.is_whitespace() => {}
                _ if is_of_a_name(letter) => name.push(letter),
                _ => is_in_name = false,
            }
        }
        used.insert(name);
    }
    used.retain(|name| !name.is_empty());
    used
}

/// The module at the top of this crate that a file belongs to.
fn module(name: &str) -> &str {
    name.split(['/', '.']).next().unwrap()
}

fn room(module: &str) -> Option<usize> {
    ROOMS.iter().position(|room| room.contains(&module))
}

#[test]
fn imports_are_found_in_each_form() {
    let code = "use crate::{\n    a::{b, c},\n    d,\n    e::f as g,\n};\nuse crate::h::i;\nfn j() { crate::k::l() }";
    assert_eq!(used(code).into_iter().collect::<Vec<_>>().join(" "), "a d e h k");
}

#[test]
fn no_file_uses_a_room_that_comes_after_its_own() {
    let mut wrong = Vec::new();
    for file in core() {
        let Some(own) = room(module(&file.name)) else { continue };
        for used in used(&file.code) {
            if room(&used).is_some_and(|other| other > own) {
                wrong.push(format!("{} uses {used}", file.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_engine_does_not_know_what_its_users_see() {
    for file in core().iter().filter(|file| module(&file.name) == "engine") {
        let used = used(&file.code);
        let known: Vec<_> = ["client", "context", "testing"].into_iter().filter(|name| used.contains(*name)).collect();
        assert!(known.is_empty(), "{} uses {known:?}", file.name);
    }
}

#[test]
fn what_attempts_share_does_not_know_who_runs_them() {
    let files = core();
    let below: Vec<_> = files
        .iter()
        .filter(|file| {
            let (name, folders) = (&*file.name, ["engine/session/", "engine/attempt/state", "engine/attempt/journal"]);
            folders.iter().any(|folder| name.starts_with(folder))
                || ["engine/session.rs", "engine/host.rs"].contains(&name)
        })
        .collect();
    assert!(below.len() > 8, "the files have other names");
    for file in below {
        for name in ["WorkerCore", "Committer", "Registry", "AnyWorkflow", "Driver::", "StepContext"] {
            assert!(!file.code.contains(name), "{} knows {name}", file.name);
        }
    }
}

#[test]
fn what_decides_has_no_clock_and_no_lock_and_waits_for_nothing() {
    let files = core();
    for name in PURE {
        let file = files.iter().find(|file| file.name == name).unwrap_or_else(|| panic!("{name} has another name"));
        for absent in ["::now()", "Mutex", "RwLock", "Atomic", ".await", "async ", "tokio", "dyn Backend", "tracing::"]
        {
            assert!(!file.code.contains(absent), "{name} has {absent:?}");
        }
    }
}

#[test]
fn state_that_outlives_every_owner_is_only_where_it_is_listed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut found = BTreeMap::new();
    let folders =
        ["src", "hatchet-core/src", "hatchet-macros/src", "hatchet-backend-memory/src", "hatchet-backend-redis/src"];
    for folder in folders {
        // The conformance suite is code of tests.
        for file in source(&root.join(folder)).into_iter().filter(|file| module(&file.name) != "conformance") {
            for line in file.code.lines().map(str::trim) {
                let line = line.trim_start_matches("pub(crate) ").trim_start_matches("pub ");
                if let Some((name, _)) = line.strip_prefix("static ").and_then(|line| line.split_once(':')) {
                    found.insert(name.to_owned(), format!("{folder}/{}", file.name));
                }
            }
        }
    }
    // Those that cannot change, those that are one for each thread, and those that all share.
    let constant = ["DRIVER", "DRIVERS", "EMPTY", "LIBRARY"];
    let of_a_thread = ["ASKED", "DESK", "HERE"];
    let shared = ["NAMED", "TURN"];
    let listed: BTreeSet<_> = constant.into_iter().chain(of_a_thread).chain(shared).collect();
    assert_eq!(found.keys().map(|name| &**name).collect::<BTreeSet<_>>(), listed, "{found:#?}");
}
