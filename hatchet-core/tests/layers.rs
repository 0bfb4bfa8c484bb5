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
        "interceptor",
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

/// The module that a file is: `engine::session` for `engine/session.rs`.
fn module_path(name: &str) -> Vec<String> {
    name.trim_end_matches(".rs").split('/').map(str::to_owned).collect()
}

/// All paths in code that begin with `crate`, `super` or `self`, those in groups too.
fn paths(code: &str) -> Vec<Vec<String>> {
    let roots = ["crate::", "super::", "self::"];
    let mut places: Vec<usize> = roots.iter().flat_map(|root| code.match_indices(root)).map(|(at, _)| at).collect();
    places.sort_unstable();
    let (mut found, mut read) = (Vec::new(), 0);
    for at in places {
        let before = &code[..at];
        let is_whole = !before.ends_with(|letter| is_of_a_name(letter) || letter == ':');
        // A visibility is not a use. What stands in a group was read with it.
        if at >= read && is_whole && !before.ends_with("pub(in ") {
            read = code.len() - read_tree(&code[at..], Vec::new(), &mut found).len();
        }
    }
    found
}

/// Reads one path, or a path that ends with a group of paths. Returns what follows it.
fn read_tree<'c>(mut code: &'c str, mut path: Vec<String>, found: &mut Vec<Vec<String>>) -> &'c str {
    loop {
        code = code.trim_start();
        if let Some(mut group) = code.strip_prefix('{') {
            loop {
                group = read_tree(group, path.clone(), found).trim_start();
                match group.chars().next() {
                    Some(',') => group = &group[1..],
                    Some('}') => return &group[1..],
                    // ` as name`
                    Some(_) => group = group.trim_start_matches(|letter| letter != ',' && letter != '}'),
                    None => return group,
                }
            }
        }
        let name: String = code.chars().take_while(|letter| is_of_a_name(*letter)).collect();
        code = &code[name.len()..];
        if !name.is_empty() {
            path.push(name);
        }
        match code.strip_prefix("::") {
            Some(rest) => code = rest,
            None => {
                found.push(path);
                return code;
            }
        }
    }
}

/// The files of this crate that a file uses, as modules, whether it names them from the top or from where it is.
fn uses(file: &File, modules: &BTreeSet<Vec<String>>) -> BTreeSet<Vec<String>> {
    let own = module_path(&file.name);
    let of_path = |path: &Vec<String>| {
        let ups = path.iter().take_while(|name| *name == "super").count();
        let begin = match path[0].as_str() {
            "crate" => &own[..0],
            "self" => &own[..],
            _ => &own[..own.len() - ups.min(own.len())],
        };
        let rest = path.iter().skip(ups.max(1));
        let mut whole: Vec<String> = begin.iter().chain(rest).cloned().collect();
        while !whole.is_empty() && !modules.contains(&whole) {
            whole.pop();
        }
        whole
    };
    let mut used: BTreeSet<_> = paths(&file.code).iter().map(of_path).collect();
    used.retain(|module| !module.is_empty() && *module != own);
    used
}

/// Which file uses which, all as modules.
fn graph(files: &[File]) -> BTreeMap<Vec<String>, BTreeSet<Vec<String>>> {
    let modules: BTreeSet<_> = files.iter().map(|file| module_path(&file.name)).collect();
    files.iter().map(|file| (module_path(&file.name), uses(file, &modules))).collect()
}

/// Everything that a module uses, directly or through others.
fn reach(graph: &BTreeMap<Vec<String>, BTreeSet<Vec<String>>>, from: &[String]) -> BTreeSet<Vec<String>> {
    let mut reached = BTreeSet::new();
    let mut left: Vec<&Vec<String>> = graph[from].iter().collect();
    while let Some(next) = left.pop() {
        if reached.insert(next.clone()) {
            left.extend(&graph[next]);
        }
    }
    reached
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
    let code = "use crate::{\n    a::{b, c},\n    d,\n    e::f as g,\n};\nuse crate::h::i;\nuse super::{k::L, super::m};\n\
                fn n() { crate::o::p() }\npub(in crate::q) fn r() { self::s::T }\nuse other::crate_::u;";
    let of = |name: &str, code: &str| File { name: name.to_owned(), code: code.to_owned() };
    let names = ["a", "a/b", "d", "e", "h", "x", "x/y", "x/y/z", "x/y/z/s", "x/y/k", "x/m", "o", "q", "u"];
    let files: Vec<_> = names.map(|name| of(&format!("{name}.rs"), "")).into_iter().collect();
    let modules = files.iter().map(|file| module_path(&file.name)).collect();
    let used = uses(&of("x/y/z.rs", code), &modules);
    let used: Vec<_> = used.iter().map(|module| module.join("/")).collect();
    assert_eq!(used.join(" "), "a a/b d e h o x/m x/y/k x/y/z/s");
}

#[test]
fn no_file_uses_a_room_that_comes_after_its_own() {
    let mut wrong = Vec::new();
    for (file, used) in graph(&core()) {
        let Some(own) = room(&file[0]) else { continue };
        for used in used {
            if room(&used[0]).is_some_and(|other| other > own) {
                wrong.push(format!("{} uses {}", file.join("/"), used.join("/")));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_engine_does_not_know_what_its_users_see() {
    for (file, used) in graph(&core()).into_iter().filter(|(file, _)| file[0] == "engine") {
        let known: Vec<_> =
            used.iter().filter(|used| ["client", "context", "testing"].contains(&used[0].as_str())).collect();
        assert!(known.is_empty(), "{} uses {known:?}", file.join("/"));
    }
}

/// The rings of files that use each other. A folder stands for all of its files.
const RINGS: [&[&str]; 5] = [
    &["backend", "backend/", "definition", "error", "failure", "failure/", "machine", "mismatch", "payload"],
    &[
        "engine/session",
        "engine/session/",
        "engine/host",
        "engine/routes",
        "engine/attempt/state",
        "engine/attempt/journal",
        "engine/attempt/outbox",
        "engine/attempt/shutdown",
    ],
    &[
        "engine/worker",
        "engine/worker/",
        "engine/attempt",
        "engine/attempt/failing",
        "engine/attempt/preparing",
        "engine/committer",
        "engine/committer/",
        "engine/driver",
        "engine/recovery",
        "engine/runners",
        "engine/waiting",
        "engine/watchdog",
    ],
    &["context/children", "context/spawn"],
    &["client", "client/"],
];

#[test]
fn files_use_each_other_only_in_the_rings_that_are_listed() {
    let inside: Vec<_> =
        core().into_iter().filter(|file| !["testing", "conformance"].contains(&module(&file.name))).collect();
    let graph = graph(&inside);
    let ring_of = |name: &str| {
        let is_in = |listed: &&str| *listed == name || listed.ends_with('/') && name.starts_with(*listed);
        RINGS.iter().position(|ring| ring.iter().any(is_in))
    };
    let mut met = BTreeSet::new();
    for file in graph.keys() {
        for other in reach(&graph, file).into_iter().filter(|other| other > file) {
            if reach(&graph, &other).contains(file) {
                let (file, other) = (file.join("/"), other.join("/"));
                let ring = ring_of(&file).filter(|ring| ring_of(&other) == Some(*ring));
                met.insert(ring.unwrap_or_else(|| panic!("{file} and {other} use each other")));
            }
        }
    }
    assert_eq!(met.len(), RINGS.len(), "a ring that is listed is none any more: {met:?}");
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
