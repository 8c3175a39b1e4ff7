//! What can go wrong in the database, what the applier does about it, and what the
//! operator can do.

use mysql_async::{DriverError, Error};

use crate::change::Table;
use crate::resolve::TablePlan;

/// How the applier goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// It passes: roll back and try again.
    Retry,
    /// This data can't be applied: halt its stream.
    Row,
    /// The disk or a limit of the server is full: try again slowly, and say so.
    Full,
    /// Another agent has taken the region over: stop.
    Fenced,
    /// The database is not fit: stop until someone has acted.
    Halt,
}

/// An error of the database side. Texts never hold a row's values.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// The connection broke.
    #[error("the database is away: {0}")]
    Away(String),
    /// The server refused a statement.
    #[error("the database refused a write of {table}: error {code} ({name}{detail})")]
    Server {
        /// The server's error number.
        code: u16,
        /// What the number means.
        name: &'static str,
        /// `schema.table`, or what was done.
        table: String,
        /// The column or the key that it names, empty or with its separator.
        detail: String,
    },
    /// The table does not exist here.
    #[error("table {0} does not exist here")]
    MissingTable(String),
    /// A column of the origin does not exist here.
    #[error("column {column} of {table} does not exist here")]
    MissingColumn {
        /// The table.
        table: String,
        /// The column.
        column: String,
    },
    /// The primary key or the labels of a column differ between origin and here.
    #[error("{what} of {table} differs between the origin and this database")]
    Differs {
        /// The table.
        table: String,
        /// What differs.
        what: String,
    },
    /// A primary key here whose equality only the server can tell.
    #[error("the primary key of {0} covers only the first part of a column here")]
    CutKey(String),
    /// A younger agent owns this database.
    #[error("another agent has taken this region over (this one has epoch {0})")]
    Fenced(u64),
    /// No database of the region, or more than one, is writable.
    #[error("{0}")]
    Writable(String),
    /// A large transaction has to be read again from its beginning.
    #[error("the transaction is read again: {0}")]
    Again(String),
}

impl ApplyError {
    /// From the driver's error, while `table` was written.
    #[must_use]
    pub fn from_driver(error: &Error, table: &str) -> Self {
        match error {
            Error::Server(server) => Self::Server {
                code: server.code,
                name: name(server.code),
                table: table.to_owned(),
                detail: detail(server.code, &server.message),
            },
            Error::Io(_) => Self::Away(error.to_string()),
            // The texts of some hold what was received.
            Error::Driver(DriverError::ConnectionClosed) => {
                Self::Away("the connection was closed".to_owned())
            }
            Error::Driver(_) | Error::Other(_) | Error::Url(_) => {
                Self::Away("the connection's protocol failed".to_owned())
            }
        }
    }

    /// A row that no packet takes.
    pub(super) fn too_large(table: &str) -> Self {
        let (code, detail) = (1153, String::new());
        Self::Server { code, name: name(code), table: table.to_owned(), detail }
    }

    /// How the applier goes on.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Away(_) | Self::Again(_) => ErrorKind::Retry,
            Self::Server { code, .. } => match code {
                // Lock wait, deadlock, shutdown in progress, killed, read-only for a
                // moment during a switch of the primary, too many connections, changed
                // since read (innodb_snapshot_isolation), a table changed meanwhile.
                1205 | 1213 | 1053 | 1317 | 1290 | 1792 | 1836 | 1040 | 1927 | 1180 | 1020
                | 1412 | 1637 => ErrorKind::Retry,
                1021 | 1114 | 3 | 28 | 1026 | 1041 | 1030 | 1206 => ErrorKind::Full,
                1044 | 1045 | 1142 | 1227 | 1698 | 1598 => ErrorKind::Halt,
                _ => ErrorKind::Row,
            },
            Self::MissingTable(_)
            | Self::MissingColumn { .. }
            | Self::Differs { .. }
            | Self::CutKey(_) => ErrorKind::Row,
            Self::Fenced(_) => ErrorKind::Fenced,
            Self::Writable(_) => ErrorKind::Retry,
        }
    }

    /// The planned table that does not fit here.
    pub(super) fn table_in(&self, tables: &[TablePlan]) -> Option<Table> {
        let (Self::MissingTable(name)
        | Self::MissingColumn { table: name, .. }
        | Self::Differs { table: name, .. }
        | Self::CutKey(name)) = self
        else {
            return None;
        };
        let mut tables = tables.iter().map(|plan| &plan.table);
        tables.find(|table| table.full_name().to_string() == *name).cloned()
    }

    /// Whether the table here does not look as the origin's: it passes when it does.
    #[must_use]
    pub const fn is_unfit(&self) -> bool {
        matches!(
            self,
            Self::MissingTable(_)
                | Self::MissingColumn { .. }
                | Self::Differs { .. }
                | Self::CutKey(_)
        )
    }

    /// The operator's next step.
    #[must_use]
    pub fn advice(&self) -> String {
        match self {
            Self::Away(_) | Self::Again(_) => "none: it is tried again".to_owned(),
            Self::Server { code: 1062, .. } => "another row here holds a unique value of this \
                row: change or remove it, then resume the stream"
                .to_owned(),
            Self::Server { code: 1153, .. } => "raise max_allowed_packet of this server above \
                twice the size of the row, then resume the stream"
                .to_owned(),
            Self::Server { .. } => match self.kind() {
                ErrorKind::Retry => "none: it is tried again".to_owned(),
                ErrorKind::Full => "free space on the database's disk".to_owned(),
                ErrorKind::Halt => "give the agent's user its privileges: causeway doctor \
                    --fix-sql prints them"
                    .to_owned(),
                ErrorKind::Row | ErrorKind::Fenced => "make the table here able to hold the \
                    origin's rows, then resume the stream"
                    .to_owned(),
            },
            Self::MissingTable(_) | Self::MissingColumn { .. } | Self::Differs { .. } => {
                "make the table here like the origin's: the stream then goes on by itself"
                    .to_owned()
            }
            Self::CutKey(_) => "let the primary key cover whole columns in all regions: the \
                stream then goes on by itself"
                .to_owned(),
            Self::Fenced(_) => "stop one of the two agents".to_owned(),
            Self::Writable(_) => "make exactly one database of the region writable".to_owned(),
        }
    }
}

/// The column or the key that the server's text names. The text's values stay out:
/// the last name in it follows all of them.
fn detail(code: u16, message: &str) -> String {
    let (word, rest) = match code {
        1062 | 1586 => ("key", message.rsplit_once(" for key ")),
        1048 | 1054 | 1264 | 1265 | 1292 | 1364 | 1366 | 1406 | 4025 => {
            ("column", message.rsplit_once("column ").or_else(|| message.rsplit_once("Field ")))
        }
        _ => return String::new(),
    };
    let Some((_, rest)) = rest else { return String::new() };
    let rest = rest.split(" at row").next().unwrap_or_default();
    let Some(quote) = rest.chars().next().filter(|c| matches!(c, '\'' | '`')) else {
        return String::new();
    };
    // `d`.`t`.`c` names the column last.
    let mut names = rest.split(quote).skip(1).step_by(2);
    let name = if quote == '`' { names.last() } else { names.next() };
    name.map_or_else(String::new, |name| format!(" {word} {name}"))
}

const fn name(code: u16) -> &'static str {
    match code {
        1021 | 3 | 28 => "disk full",
        1020 => "changed since it was read",
        1026 => "error writing a file",
        1030 => "the storage engine's error",
        1040 => "too many connections",
        1041 => "out of memory",
        1044 | 1045 => "access denied",
        1048 => "column cannot be null",
        1053 => "server shutdown in progress",
        1062 => "duplicate value of a unique key",
        1114 => "the table is full",
        1142 | 1227 => "privilege missing",
        1146 => "no such table",
        1153 => "a row larger than max_allowed_packet",
        1205 => "lock wait timeout",
        1206 => "the lock table is full",
        1213 => "deadlock",
        1264 => "value out of range",
        1265 => "data truncated",
        1290 | 1792 | 1836 => "the server is read-only",
        1317 | 1927 => "interrupted",
        1292 => "incorrect value",
        1364 => "column has no default",
        1366 => "incorrect value",
        1406 => "data too long",
        4025 => "check constraint failed",
        _ => "see the server's manual",
    }
}

#[cfg(test)]
mod tests {
    use super::detail;

    #[test]
    fn a_detail_names_the_column_or_key_and_no_value() {
        assert_eq!(detail(1062, "Duplicate entry 'a for key 'b' for key 'mail'"), " key mail");
        assert_eq!(detail(1406, "Data too long for column 'c' at row 7"), " column c");
        let text = "Incorrect integer value: 'secret' for column `d`.`t`.`c` at row 1";
        assert_eq!(detail(1366, text), " column c");
        assert_eq!(detail(1364, "Field 'x' doesn't have a default value"), " column x");
        assert_eq!(detail(1213, "Deadlock found 'x'"), "");
    }
}
