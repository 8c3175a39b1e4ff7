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

/// Whether a server takes writes, by what it says of `@@global.read_only`: a number, and
/// from MariaDB 12 on a word.
#[must_use]
pub fn takes_writes(read_only: &str) -> bool {
    matches!(read_only, "0" | "OFF")
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_takes_writes_by_number_and_by_word() {
        for (read_only, wanted) in [("0", true), ("OFF", true), ("1", false), ("ON", false)] {
            assert_eq!(takes_writes(read_only), wanted, "{read_only}");
        }
        assert!(!takes_writes("NO_LOCK_NO_ADMIN"));
    }
}
