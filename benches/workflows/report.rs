//! BENCHMARKS.md: puts what was measured between the marks of a table, `<!-- table: name -->` and `<!-- end -->`.

use std::{fs, path::PathBuf, process::Command};

use crate::Result;

/// Replaces what stands between the marks of this name.
pub(crate) fn put(name: &str, table: &str) -> Result<()> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../BENCHMARKS.md");
    let text = fs::read_to_string(&path)?;
    let begin = format!("<!-- table: {name} -->\n");
    let (before, rest) = text.split_once(&begin).ok_or_else(|| format!("no mark {begin:?} in BENCHMARKS.md"))?;
    let (_, after) = rest.split_once("<!-- end -->").ok_or("a table has no end")?;
    println!("{name}\n\n{table}");
    fs::write(&path, format!("{before}{begin}{table}<!-- end -->{after}"))?;
    Ok(())
}

/// A picture beside the benches.
pub(crate) fn put_picture(name: &str, svg: &str) -> Result<()> {
    Ok(fs::write(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name), svg)?)
}

/// On what it was measured, and how often.
pub(crate) fn machine(runs: usize) -> Result<String> {
    let cpu = fs::read_to_string("/proc/cpuinfo")?;
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map_or("?", |(_, m)| m);
    let memory = fs::read_to_string("/proc/meminfo")?;
    let kib: f64 = memory.split_whitespace().nth(1).ok_or("no MemTotal")?.parse()?;
    let load = fs::read_to_string("/proc/loadavg")?;
    Ok(format!(
        "{} cores of {model}, {:.0} GiB, Linux {}; {}; {}; load {} at the start; \
         medians of {runs}.\n",
        std::thread::available_parallelism()?,
        kib / f64::from(1 << 20),
        said_by("uname", "-r")?.split('.').take(2).collect::<Vec<_>>().join("."),
        said_by("rustc", "--version")?,
        said_by("redis-server", "--version")?.split(" sha").next().unwrap_or_default(),
        load.split(' ').next().unwrap_or_default(),
    ))
}

fn said_by(program: &str, argument: &str) -> Result<String> {
    Ok(String::from_utf8(Command::new(program).arg(argument).output()?.stdout)?.trim().to_owned())
}
