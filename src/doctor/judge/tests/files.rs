//! `binlog_dir`.

use super::*;

#[test]
fn files_are_read_where_they_can_be() {
    on_database("binlog_dir", Warn, |db| db.binlog_files = Some(Err("no".to_owned())));
    let purge = "slave_connections_needed_for_purge";
    for (variable, value, wanted) in
        [("encrypt_binlog", "OFF", Pass), ("encrypt_binlog", "ON", Warn), (purge, "1", Warn)]
    {
        on_database(if variable == purge { purge } else { "binlog_dir" }, wanted, |db| {
            db.binlog_files = Some(Ok("bin.000001".to_owned()));
            db.variables.insert(variable.to_owned(), value.to_owned());
        });
    }
}
