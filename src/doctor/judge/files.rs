//! Whether the binlog's files can be read, where `binlog_dir` says where they are.

use super::super::{DatabaseFacts, Finding, Flavor};

const CHECK: &str = "binlog_dir";
const WHY: &str = "beside the database, its binlog's files cost it less than sending them";

pub(super) fn judge(database: &DatabaseFacts) -> Vec<Finding> {
    let Some(files) = &database.binlog_files else { return Vec::new() };
    let is_on = |name: &str| {
        database.variables.get(name).is_some_and(|value| matches!(value.as_str(), "ON" | "1"))
    };
    let warn = |found: String| Finding::warn(CHECK, WHY, found);
    let leave_out =
        "leave binlog_dir out of the agent's settings: the server then sends its binlog";
    let finding = match files {
        _ if database.flavor == Flavor::MySql => {
            warn("files are read of MariaDB alone; this server sends its binlog".to_owned())
                .fix(leave_out)
        }
        _ if is_on("encrypt_binlog") => {
            warn("encrypt_binlog is ON; the server sends its binlog".to_owned()).fix(leave_out)
        }
        Err(why) => warn(format!("{why}; the server sends its binlog")).fix(
            "run the agent, and this, on the database's machine and as a user that may read the \
             folder of log_bin_basename: with systemd, SupplementaryGroups= of its group",
        ),
        Ok(path) => {
            let pass = Finding::pass(CHECK, WHY, format!("{path} can be read here"));
            return purge(database).into_iter().chain([pass]).collect();
        }
    };
    vec![finding]
}

/// From MariaDB 11.4 on: files are not purged while too few replicas are connected.
fn purge(database: &DatabaseFacts) -> Option<Finding> {
    const VARIABLE: &str = "slave_connections_needed_for_purge";
    let value = database.variables.get(VARIABLE).filter(|value| *value != "0")?;
    let why = "an agent that reads the files is no connected replica, so they may stay for ever";
    Some(Finding::warn(VARIABLE, why, format!("{VARIABLE} is {value}")).fix(format!(
        "set {VARIABLE} to 0, unless so many replicas beside the agent are always connected"
    )))
}
