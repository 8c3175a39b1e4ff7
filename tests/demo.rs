//! A demo that is stopped while it starts ends its servers, leaves no folder and says so.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "each test uses a part of the harness")]
#[path = "lab/lab.rs"]
mod lab;

use std::fs::{self, File};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Command, Stdio};

use lab::proc::Folder;
use lab::{PATIENCE, root, wait_until};

/// Names of what the process keeps in `.run/tmp`.
fn folders(pid: u32) -> Vec<String> {
    let names = fs::read_dir(root().join(".run/tmp")).unwrap().flatten();
    let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with(&format!("{pid}-"))).collect()
}

/// Command lines that speak of what the process keeps there.
fn processes(pid: u32) -> Vec<String> {
    let folder = format!("/.run/tmp/{pid}-");
    let lines = fs::read_dir("/proc").unwrap().flatten();
    let lines = lines.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    lines.filter(|line| line.contains(&folder)).collect()
}

/// Starts the demo in a group of its own, as a terminal does, and sends the whole group
/// a signal once a folder of the demo holds `moment`.
async fn check(signal: &str, moment: &str) {
    let here = std::env::current_exe().unwrap();
    let demo = here.parent().unwrap().with_file_name("examples").join("demo");
    assert!(demo.exists(), "build it first: cargo build --example demo");
    let note = Folder::new("note");
    let path = note.path().join("printed");
    let printed = File::create(&path).unwrap();
    let mut child = Command::new(demo)
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(printed.try_clone().unwrap())
        .stderr(printed)
        .spawn()
        .unwrap();
    let pid = child.id();
    let text = || fs::read_to_string(&path).unwrap();
    wait_until(moment, PATIENCE, || {
        assert!(child.try_wait().unwrap().is_none(), "it has ended:\n{}", text());
        let tmp = root().join(".run/tmp");
        let found = folders(pid).iter().any(|name| tmp.join(name).join(moment).exists());
        async move { found }
    })
    .await;
    wait_until("a server runs", PATIENCE, || async { !processes(pid).is_empty() }).await;
    let sent = Command::new("kill").args([signal, "--", &format!("-{pid}")]).status().unwrap();
    assert!(sent.success());
    let mut status = None;
    wait_until("it ends", PATIENCE, || {
        status = child.try_wait().unwrap();
        let ended = status.is_some();
        async move { ended }
    })
    .await;
    let status = status.unwrap();
    let text = text();
    assert_eq!((status.code(), status.signal()), (Some(130), None), "{moment}:\n{text}");
    assert!(text.ends_with("Stopped, and every server of the demo with it.\n"), "{text}");
    assert!(!text.contains("panicked"), "{moment}:\n{text}");
    assert_eq!(processes(pid), Vec::<String>::new(), "{moment}:\n{text}");
    assert_eq!(folders(pid), Vec::<String>::new(), "{moment}:\n{text}");
}

#[tokio::test]
async fn ctrl_c_while_kafka_starts_leaves_nothing() {
    check("-INT", "server.properties").await;
}

#[tokio::test]
async fn ctrl_c_while_databases_start_leaves_nothing() {
    check("-INT", "data/ibdata1").await;
}

#[tokio::test]
async fn sigterm_while_agents_start_leaves_nothing() {
    check("-TERM", "r1.agent.log").await;
}
