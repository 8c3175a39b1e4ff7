//! The replicated tables, from information_schema.

use std::collections::BTreeMap;

use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;

use super::super::{ColumnFacts, ForeignKey, TableFacts, Trigger};
use super::default::Printed;
use crate::change::{TableName, is_generated};
use crate::topology::{TableRule, Topology};

type Tables = BTreeMap<TableName, TableFacts>;

const NOT_SYSTEM: &str =
    "NOT IN ('mysql', 'information_schema', 'performance_schema', 'sys', 'causeway')";

/// The tables that the topology names, views left out.
pub(super) async fn replicated(
    conn: &mut Conn,
    topology: &Topology,
) -> Result<Tables, mysql_async::Error> {
    let mut tables = effects(conn, topology).await?;
    columns(conn, &mut tables).await?;
    keys(conn, &mut tables).await?;
    Ok(tables)
}

/// Their kinds, engines, triggers and foreign keys alone.
pub(super) async fn effects(
    conn: &mut Conn,
    topology: &Topology,
) -> Result<Tables, mysql_async::Error> {
    let mut tables = names(conn, topology).await?;
    triggers(conn, &mut tables).await?;
    foreign_keys(conn, &mut tables).await?;
    Ok(tables)
}

/// The rule of each table.
pub(super) fn rules(topology: &Topology, tables: &Tables) -> BTreeMap<TableName, TableRule> {
    tables
        .keys()
        .filter_map(|table| {
            Some((table.clone(), topology.rule(&table.schema, &table.name)?.clone()))
        })
        .collect()
}

/// Patterns that match none of `tables`.
pub(super) fn unmatched(topology: &Topology, tables: &Tables) -> Vec<String> {
    topology
        .tables
        .iter()
        .filter(|rule| !tables.keys().any(|table| rule.tables.matches(&table.schema, &table.name)))
        .map(|rule| rule.tables.to_string())
        .collect()
}

fn name(schema: String, name: String) -> TableName {
    TableName { schema, name }
}

async fn names(conn: &mut Conn, topology: &Topology) -> Result<Tables, mysql_async::Error> {
    let rows: Vec<(String, String, String, Option<String>)> = conn
        .query(format!(
            "SELECT TABLE_SCHEMA, TABLE_NAME, TABLE_TYPE, ENGINE FROM information_schema.TABLES \
             WHERE TABLE_SCHEMA {NOT_SYSTEM} AND TABLE_TYPE NOT LIKE '%VIEW'"
        ))
        .await?;
    Ok(rows
        .into_iter()
        .filter(|(schema, table, ..)| topology.replicates(schema, table))
        .map(|(schema, table, kind, engine)| {
            let facts =
                TableFacts { engine: engine.unwrap_or_default(), kind, ..TableFacts::default() };
            (name(schema, table), facts)
        })
        .collect())
}

async fn columns(conn: &mut Conn, tables: &mut Tables) -> Result<(), mysql_async::Error> {
    let mariadb: Option<bool> = conn.query_first("SELECT @@version LIKE '%MariaDB%'").await?;
    let rows: Vec<mysql_async::Row> = conn
        .query(format!(
            "SELECT TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME, COLUMN_TYPE, COLLATION_NAME, \
             IS_NULLABLE, COLUMN_DEFAULT, EXTRA, DATA_TYPE \
             FROM information_schema.COLUMNS WHERE TABLE_SCHEMA {NOT_SYSTEM} \
             ORDER BY TABLE_SCHEMA, TABLE_NAME, ORDINAL_POSITION"
        ))
        .await?;
    for row in rows {
        let text = |at: usize| row.get_opt::<String, _>(at).and_then(Result::ok);
        let say = |at: usize| text(at).unwrap_or_default();
        let Some(facts) = tables.get_mut(&name(say(0), say(1))) else { continue };
        let default = text(6);
        let extra = say(7).to_ascii_lowercase();
        let auto_increment = extra.contains("auto_increment");
        let nullable = say(5) == "YES";
        // MySQL says DEFAULT_GENERATED of a default that is an expression.
        let generated = is_generated(&extra);
        let optional = nullable
            || default.is_some()
            || auto_increment
            || extra.contains("generated")
            || generated;
        facts.columns.push(ColumnFacts {
            name: say(2),
            column_type: say(3),
            collation: text(4),
            nullable,
            generated,
            auto_increment,
            optional,
            default: Printed {
                default: default.as_deref(),
                extra: &extra,
                data_type: &say(8).to_ascii_lowercase(),
                nullable,
                mariadb: mariadb.unwrap_or_default(),
            }
            .default(),
        });
    }
    Ok(())
}

async fn keys(conn: &mut Conn, tables: &mut Tables) -> Result<(), mysql_async::Error> {
    type Part = (String, String, String, Option<String>, Option<u32>);
    let rows: Vec<Part> = conn
        .query(format!(
            "SELECT TABLE_SCHEMA, TABLE_NAME, INDEX_NAME, COLUMN_NAME, SUB_PART \
             FROM information_schema.STATISTICS \
             WHERE NON_UNIQUE = 0 AND TABLE_SCHEMA {NOT_SYSTEM} \
             ORDER BY TABLE_SCHEMA, TABLE_NAME, INDEX_NAME, SEQ_IN_INDEX"
        ))
        .await?;
    for (schema, table, index, column, part) in rows {
        let Some(facts) = tables.get_mut(&name(schema, table)) else { continue };
        // An expression has no column name.
        let column = column.unwrap_or_else(|| "(expression)".to_owned());
        if let Some(part) = part {
            facts.cut_keys.entry(index.clone()).or_default().push((column.clone(), part));
        }
        facts.unique_keys.entry(index).or_default().push(column);
    }
    Ok(())
}

async fn triggers(conn: &mut Conn, tables: &mut Tables) -> Result<(), mysql_async::Error> {
    let rows: Vec<(String, String, String, String)> = conn
        .query(format!(
            "SELECT EVENT_OBJECT_SCHEMA, EVENT_OBJECT_TABLE, TRIGGER_NAME, ACTION_STATEMENT \
             FROM information_schema.TRIGGERS WHERE EVENT_OBJECT_SCHEMA {NOT_SYSTEM} \
             ORDER BY TRIGGER_NAME"
        ))
        .await?;
    for (schema, table, trigger, body) in rows {
        let Some(facts) = tables.get_mut(&name(schema, table)) else { continue };
        facts.triggers.push(Trigger { name: trigger, body });
    }
    Ok(())
}

async fn foreign_keys(conn: &mut Conn, tables: &mut Tables) -> Result<(), mysql_async::Error> {
    type Key = (String, String, String, String, String, String, String, String, String);
    let rows: Vec<Key> = conn
        .query(format!(
            "SELECT k.TABLE_SCHEMA, k.TABLE_NAME, k.CONSTRAINT_NAME, k.COLUMN_NAME, \
             k.REFERENCED_TABLE_SCHEMA, k.REFERENCED_TABLE_NAME, k.REFERENCED_COLUMN_NAME, \
             r.DELETE_RULE, r.UPDATE_RULE \
             FROM information_schema.KEY_COLUMN_USAGE k \
             JOIN information_schema.REFERENTIAL_CONSTRAINTS r \
             ON r.CONSTRAINT_SCHEMA = k.CONSTRAINT_SCHEMA \
             AND r.CONSTRAINT_NAME = k.CONSTRAINT_NAME AND r.TABLE_NAME = k.TABLE_NAME \
             WHERE k.TABLE_SCHEMA {NOT_SYSTEM} AND k.REFERENCED_TABLE_NAME IS NOT NULL \
             ORDER BY k.TABLE_SCHEMA, k.TABLE_NAME, k.CONSTRAINT_NAME, k.ORDINAL_POSITION"
        ))
        .await?;
    for (schema, table, key, column, to_schema, to_table, to_column, on_delete, on_update) in rows {
        let Some(facts) = tables.get_mut(&name(schema, table)) else { continue };
        if facts.foreign_keys.last().is_none_or(|last| last.name != key) {
            facts.foreign_keys.push(ForeignKey {
                name: key,
                columns: Vec::new(),
                target: name(to_schema, to_table),
                target_columns: Vec::new(),
                on_delete,
                on_update,
            });
        }
        let last = facts.foreign_keys.last_mut().expect("one was pushed if there was none");
        last.columns.push(column);
        last.target_columns.push(to_column);
    }
    Ok(())
}
