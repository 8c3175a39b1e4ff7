//! What all connections to the regions' databases have in common: the account, the
//! session's settings, and how bytes are quoted under these. Pure.

/// How to log in to a database.
#[derive(Clone)]
pub struct Login {
    /// The user.
    pub user: String,
    /// The password.
    pub password: Option<String>,
    /// Ask for TLS.
    pub tls: bool,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}

/// Settings of a session that writes rows, whatever the server's are: times are in UTC, as
/// the records have them, a value is stored as it is or refused, and a backslash escapes.
pub const SESSION: &str = "time_zone = '+00:00', \
    sql_mode = 'STRICT_ALL_TABLES,ALLOW_INVALID_DATES,NO_AUTO_VALUE_ON_ZERO'";

/// Writes bytes as a quoted literal; at most twice as long, and two more.
pub fn quoted(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'\'');
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|b| matches!(b, b'\'' | b'\\' | 0)) {
        out.extend_from_slice(&rest[..at]);
        out.push(b'\\');
        out.push(if rest[at] == 0 { b'0' } else { rest[at] });
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
    out.push(b'\'');
}
