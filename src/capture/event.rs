//! Types of events that are not about rows.

pub(super) const QUERY: u8 = 2;
pub(super) const STOP: u8 = 3;
pub(super) const ROTATE: u8 = 4;
pub(super) const FORMAT: u8 = 15;
pub(super) const XID: u8 = 16;
pub(super) const BEGIN_LOAD: u8 = 17;
pub(super) const EXECUTE_LOAD: u8 = 18;
pub(super) const TABLE_MAP: u8 = 19;
pub(super) const INCIDENT: u8 = 26;
pub(super) const HEARTBEAT: u8 = 27;
pub(super) const GTID: u8 = 33;
pub(super) const ANONYMOUS_GTID: u8 = 34;
pub(super) const PREVIOUS_GTIDS: u8 = 35;
pub(super) const XA_PREPARE: u8 = 38;
pub(super) const PARTIAL_UPDATE: u8 = 39;
pub(super) const PAYLOAD: u8 = 40;
pub(super) const TAGGED_GTID: u8 = 42;
pub(super) const MARIADB_GTID: u8 = 162;
pub(super) const MARIADB_ENCRYPTION: u8 = 164;
pub(super) const MARIADB_QUERY_COMPRESSED: u8 = 165;
