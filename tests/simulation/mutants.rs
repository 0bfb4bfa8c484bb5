//! The small faults in `tests/mutants/` fit the code, so that a fault which the code has outgrown is noticed at once and not when somebody
//! looks whether the simulation finds it.

use std::{fs, path::Path};

/// The lines that a patch expects, and those that it leaves, by their file.
fn hunks(patch: &str) -> Vec<(String, String, String)> {
    let (mut hunks, mut file, mut inside) = (Vec::<(String, String, String)>::new(), String::new(), false);
    for line in patch.lines() {
        if let Some(name) = line.strip_prefix("+++ b/") {
            name.clone_into(&mut file);
        } else if line.starts_with("--- a/") {
            // What follows is of another file.
            inside = false;
        } else if line.starts_with("@@ ") {
            hunks.push((file.clone(), String::new(), String::new()));
            inside = true;
        } else if let Some((_, before, after)) = hunks.last_mut().filter(|_| inside) {
            // An editor may have taken away the space of an empty line.
            let (kind, text) = line.split_at(line.len().min(1));
            for side in [(before, "+"), (after, "-")] {
                if kind != side.1 {
                    *side.0 += &format!("{text}\n");
                }
            }
        }
    }
    hunks
}

#[test]
fn every_mutant_fits_the_code_in_one_place() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = fs::read_dir(root.join("tests/mutants")).unwrap().map(|file| file.unwrap().path());
    let patches: Vec<_> = files.filter(|path| path.extension().is_some_and(|kind| kind == "patch")).collect();
    assert!(patches.len() > 30, "the mutants are here");
    let mut unfit = Vec::new();
    for path in patches {
        let patch = fs::read_to_string(&path).unwrap();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let hunks = hunks(&patch);
        if hunks.is_empty() {
            unfit.push(format!("{name} changes nothing"));
        }
        for (file, before, after) in hunks {
            let code = fs::read_to_string(root.join(&file)).unwrap_or_default();
            match code.matches(&before).count() {
                1 if before != after => {}
                places => unfit.push(format!("{name} fits {file} in {places} places")),
            }
        }
    }
    assert!(unfit.is_empty(), "{unfit:#?}");
}
