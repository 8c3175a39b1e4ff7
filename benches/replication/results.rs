//! `benches/results.json`: one entry for each stage, replaced when the stage runs again.

use std::process::Command;

use serde_json::{Map, Value, json};

/// Tells on stderr how far the run is.
#[macro_export]
macro_rules! say {
    ($($what:tt)*) => { eprintln!("bench: {}", format_args!($($what)*)) };
}

/// Enters a stage's results, with the machine and the day.
pub(crate) fn enter(stage: &str, found: Value) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/results.json");
    let held = std::fs::read_to_string(&path).unwrap_or_default();
    let mut results: Map<String, Value> = serde_json::from_str(&held).unwrap_or_default();
    let mut entry = found;
    if let Value::Object(found) = &mut entry {
        found.insert("date".to_owned(), json!(today()));
    }
    results.insert("machine".to_owned(), machine());
    results.insert(stage.to_owned(), entry);
    let text = serde_json::to_string_pretty(&results).unwrap();
    std::fs::write(&path, format!("{text}\n")).unwrap();
}

fn machine() -> Value {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu = cpu.lines().find_map(|l| l.strip_prefix("model name\t: ")).unwrap_or("unknown");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    json!({ "cpu": cpu, "cores": cores, "mariadb": answer(super::lab::db::MARIADBD, &["--version"]) })
}

fn today() -> String {
    answer("date", &["-u", "+%F"])
}

fn answer(program: &str, arguments: &[&str]) -> String {
    let done = Command::new(program).args(arguments).output();
    done.map(|done| String::from_utf8_lossy(&done.stdout).trim().to_owned()).unwrap_or_default()
}
