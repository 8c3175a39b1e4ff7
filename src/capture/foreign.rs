//! A table's foreign keys, as information_schema has them.

use std::collections::BTreeMap;

use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;

use super::definition::{PRIMARY, read_unique};
use crate::change::{Column, ForeignKey, TableName};

/// A foreign key by the names of its columns.
#[derive(Clone, Debug, Default)]
pub(super) struct Foreign {
    columns: Vec<String>,
    target: TableName,
    referenced: Vec<String>,
    unique: bool,
    /// It refers to a whole primary or unique key. InnoDB takes other keys too, of which
    /// no value is any row's own, and with its checks off a table that is not there yet.
    whole: bool,
}

impl Foreign {
    /// The table that it refers to.
    pub(super) fn target(&self) -> &TableName {
        &self.target
    }

    /// By the places of its columns; none when one is not there, or when it refers to no
    /// whole key.
    pub(super) fn over(&self, columns: &[Column]) -> Option<ForeignKey> {
        if !self.whole {
            return None;
        }
        let place = |name: &String| {
            let at = columns.iter().position(|column| column.name.eq_ignore_ascii_case(name))?;
            u32::try_from(at).ok()
        };
        Some(ForeignKey {
            columns: self.columns.iter().map(place).collect::<Option<_>>()?,
            schema: self.target.schema.clone(),
            table: self.target.name.clone(),
            referenced: self.referenced.clone(),
            unique: self.unique,
        })
    }
}

/// All foreign keys, with what the tables that they refer to have now.
pub(super) async fn read(
    conn: &mut Conn,
    name: &TableName,
) -> Result<Vec<Foreign>, mysql_async::Error> {
    let rows: Vec<(String, String, String, String, String)> = conn
        .exec(
            "SELECT CAST(constraint_name AS CHAR), CAST(column_name AS CHAR), \
             CAST(referenced_table_schema AS CHAR), CAST(referenced_table_name AS CHAR), \
             CAST(referenced_column_name AS CHAR) FROM information_schema.key_column_usage \
             WHERE table_schema = ? AND table_name = ? AND referenced_table_name IS NOT NULL \
             ORDER BY constraint_name, ordinal_position",
            (&name.schema, &name.name),
        )
        .await?;
    let mut keys: BTreeMap<String, Foreign> = BTreeMap::new();
    for (constraint, column, schema, name, referenced) in rows {
        let key = keys.entry(constraint).or_default();
        key.target = TableName { schema, name };
        key.columns.push(column);
        key.referenced.push(referenced);
    }
    let mut found = Vec::new();
    for mut key in keys.into_values() {
        let unique = read_unique(conn, &key.target).await?;
        let same = |names: &Vec<String>| {
            names.len() == key.referenced.len()
                && names.iter().zip(&key.referenced).all(|(a, b)| a.eq_ignore_ascii_case(b))
        };
        key.unique = !unique.get(PRIMARY).is_some_and(same);
        key.whole = unique.values().any(same);
        found.push(key);
    }
    Ok(found)
}
