//! What is known of the source's tables.
//!
//! An event that describes its columns is taken at its word: the rows that follow were
//! written with that definition, whatever has become of the table since. The server's
//! dictionary adds what no event says. Without such events (MySQL before 8, or
//! `binlog_row_metadata` not FULL) the dictionary must say all, so it is read before
//! the first row, and again with each schema change.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, Opts, OptsBuilder};

use super::ahead::{Ahead, Fit, is_named};
use super::definition::{self, Definition, described_column};
use super::described::Described;
use super::table_map::{TableMap, Written, kind};
use super::{ALL_TABLES, CaptureConfig, CaptureError, Checkpoint, stream};
use crate::change::{Column, Table, TableName};

/// How often a definition is read that changes meanwhile.
const DEFINE_TRIES: u32 = 100;
const DEFINE_EVERY: Duration = Duration::from_millis(100);

/// A replicated table as its rows are read.
#[derive(Clone, Debug)]
pub struct TableInfo {
    /// What is shipped with the rows.
    pub table: Arc<Table>,
    pub(super) columns: Vec<ColumnInfo>,
}

impl TableInfo {
    /// `causeway.applied`, all of whose columns are unsigned numbers.
    pub(super) fn marker() -> Self {
        let column = ColumnInfo { unsigned: true, ..ColumnInfo::default() };
        Self { table: Arc::default(), columns: vec![column; 5] }
    }

    /// A table as its map describes it, by numbers where it names no columns.
    pub(super) fn as_mapped(map: &TableMap) -> Self {
        let described = map.described.iter().flatten().map(Some).chain(std::iter::repeat(None));
        let columns = map.columns.iter().zip(described).enumerate().map(|(n, (&how, said))| {
            let name = n.to_string();
            let named = Described { name, ..Described::default() };
            described_column(how, said.unwrap_or(&named), String::new())
        });
        let (shipped, columns) = columns.unzip();
        let (schema, name) = (map.schema.clone(), map.table.clone());
        let table = Table { schema, name, columns: shipped, ..Table::default() };
        Self { table: Arc::new(table), columns }
    }
}

/// What a column's values don't say of their form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ColumnInfo {
    pub(super) unsigned: bool,
    /// BINARY(n) comes without its trailing zeros.
    pub(super) binary_length: Option<usize>,
    /// Fractional digits, which the old temporal types don't name.
    pub(super) fraction: u8,
    /// The bytes are a UUID's, in the order in which MariaDB stores it.
    pub(super) uuid: bool,
    /// What a key over an expression holds in MySQL 8: in maps before 8.0.20, in no
    /// image, and nothing that a table has.
    pub(super) hidden: bool,
}

/// What a table was found to be, and of which events that holds.
#[derive(Debug)]
struct Known {
    columns: Vec<Written>,
    described: Option<Vec<Described>>,
    info: Arc<TableInfo>,
}

/// Knows tables; asks over a connection of its own.
#[derive(Debug)]
pub(super) struct Catalog {
    opts: Opts,
    conn: Option<Conn>,
    /// Names of collations by number, once asked for.
    collations: HashMap<usize, String>,
    /// What stands ahead in the binlog; none for a file.
    ahead: Option<Ahead>,
    /// The server's events describe no columns: definitions are read before the rows come.
    reads_ahead: bool,
    defined: HashMap<TableName, Definition>,
    /// Tables of which it is not known how the rows to come were written.
    barred: HashSet<TableName>,
    known: HashMap<TableName, Known>,
    /// The tables that a table's foreign keys refer to: as they are decides which count.
    parents: HashMap<TableName, Vec<TableName>>,
}

impl Catalog {
    pub(super) fn new(opts: Opts) -> Self {
        let opts = OptsBuilder::from_opts(opts).init(vec!["SET NAMES utf8mb4".to_owned()]).into();
        Self {
            opts,
            conn: None,
            collations: HashMap::new(),
            ahead: None,
            reads_ahead: false,
            defined: HashMap::new(),
            barred: HashSet::new(),
            known: HashMap::new(),
            parents: HashMap::new(),
        }
    }

    /// When the server's events don't describe columns, reads all replicated tables'
    /// definitions: as early as can be, so that only a change of schema while nobody
    /// followed bars rows.
    pub(super) async fn read_ahead(&mut self, config: &CaptureConfig) -> Result<(), CaptureError> {
        self.ahead = Some(Ahead::new(config.clone()));
        if let Err(error) = self.conn().await {
            return Err(stream::away(&error));
        }
        let tables = match self.undescribed().await {
            Ok(tables) => tables,
            Err(error) => return Err(self.lost(&error)),
        };
        let Some(tables) = tables else { return Ok(()) };
        self.reads_ahead = true;
        let tables = tables.into_iter().filter(|(schema, name)| (config.replicates)(schema, name));
        let tables = tables.map(|(schema, name)| TableName { schema, name });
        self.define(tables.collect(), None).await
    }

    /// Reads definitions for the rows that follow `here`; without it, for all of them.
    async fn define(
        &mut self,
        mut tables: Vec<TableName>,
        here: Option<&Checkpoint>,
    ) -> Result<(), CaptureError> {
        for _ in 0..DEFINE_TRIES {
            if tables.is_empty() {
                return Ok(());
            }
            tables = self.define_unless_changed(tables, here).await?;
            if !tables.is_empty() {
                tokio::time::sleep(DEFINE_EVERY).await;
            }
        }
        match tables.first() {
            None => Ok(()),
            Some(name) => Err(CaptureError::Away(format!("{name} is being altered"))),
        }
    }

    /// The same once; gives those tables that were changed meanwhile.
    async fn define_unless_changed(
        &mut self,
        mut tables: Vec<TableName>,
        here: Option<&Checkpoint>,
    ) -> Result<Vec<TableName>, CaptureError> {
        let before = self.settled(here).await?;
        for name in &tables {
            let definition = self.ask(name).await?;
            self.defined.insert(name.clone(), definition);
        }
        let after = self.settled(here).await?;
        let (Some(ahead), Some(before), Some(after)) = (&mut self.ahead, before, after) else {
            return Ok(Vec::new());
        };
        if !here.is_some_and(|here| here.point.covers(&after.point)) {
            // A look may take longer than the server lets a connection rest.
            self.conn = None;
            ahead.look(here).await?;
        }
        let barred = &mut self.barred;
        tables.retain(|name| match ahead.fit(name, &before, &after) {
            Fit::Fits => {
                barred.remove(name);
                false
            }
            Fit::Barred => {
                barred.insert(name.clone());
                false
            }
            Fit::Unknown => true,
        });
        Ok(tables)
    }

    /// Where the binlog ends, once the tables are as all up to `here` has made them; none of a
    /// file.
    async fn settled(
        &mut self,
        here: Option<&Checkpoint>,
    ) -> Result<Option<Checkpoint>, CaptureError> {
        let Some(begun) = self.ahead.as_ref().map(|ahead| ahead.begun().clone()) else {
            return Ok(None);
        };
        let from = here.map_or(begun, |here| here.position.clone());
        let conn = match self.conn().await {
            Ok(conn) => conn,
            Err(error) => return Err(self.lost(&error)),
        };
        match stream::settled(conn, &from).await {
            Ok(now) => Ok(Some(now)),
            // It was read from this server's own binlog: its commit is late.
            Err(CaptureError::Lacks { missing }) if here.is_some() => {
                Err(CaptureError::Away(format!("{missing} is not committed yet")))
            }
            Err(error) => Err(error),
        }
    }

    /// All tables, unless the server's events describe theirs.
    async fn undescribed(&mut self) -> Result<Option<Vec<(String, String)>>, mysql_async::Error> {
        let conn = self.conn().await?;
        let metadata: Option<(String, String)> =
            conn.query_first("SHOW GLOBAL VARIABLES LIKE 'binlog_row_metadata'").await?;
        if metadata.is_some_and(|(_, value)| value.eq_ignore_ascii_case("FULL")) {
            return Ok(None);
        }
        let tables = conn
            .query(
                "SELECT CAST(table_schema AS CHAR), CAST(table_name AS CHAR) \
                 FROM information_schema.tables WHERE table_type = 'BASE TABLE' AND table_schema \
                 NOT IN ('mysql', 'sys', 'performance_schema', 'information_schema')",
            )
            .await?;
        Ok(Some(tables))
    }

    /// These tables are changed by that transaction, up to `here`; `*` stands for all of a
    /// schema.
    pub(super) async fn changed(
        &mut self,
        tables: &[TableName],
        gtid: &str,
        here: &Checkpoint,
    ) -> Result<(), CaptureError> {
        for changed in tables {
            self.known.retain(|name, _| !is_named(name, changed));
            self.defined.retain(|name, _| !is_named(name, changed));
            self.barred.retain(|name| !is_named(name, changed));
        }
        if let Some(ahead) = &mut self.ahead {
            ahead.passed(gtid);
        }
        if self.reads_ahead {
            let tables = tables.iter().filter(|table| table.name != ALL_TABLES).cloned();
            self.define(tables.collect(), Some(here)).await?;
        }
        for changed in tables {
            self.parents_changed(|name| is_named(name, changed)).await?;
        }
        Ok(())
    }

    /// These tables are changed, or new: so may be which foreign keys that refer to them
    /// count. What else is held of tables with such keys stays, since the rows to come were
    /// written with it.
    async fn parents_changed(
        &mut self,
        named: impl Fn(&TableName) -> bool,
    ) -> Result<(), CaptureError> {
        let children = self.parents.iter().filter(|(_, parents)| parents.iter().any(&named));
        let children: Vec<TableName> = children.map(|(name, _)| name.clone()).collect();
        for child in children {
            self.known.remove(&child);
            if self.defined.contains_key(&child) {
                let now = self.ask(&child).await?;
                if let Some(held) = self.defined.get_mut(&child) {
                    held.foreign = now.foreign;
                }
            }
        }
        Ok(())
    }

    /// The table that a map names, which stands behind `here`, as it was when the map was
    /// written.
    pub(super) async fn table(
        &mut self,
        map: &TableMap,
        here: &Checkpoint,
    ) -> Result<Arc<TableInfo>, CaptureError> {
        let name = TableName { schema: map.schema.clone(), name: map.table.clone() };
        if let Some(known) = self.known.get(&name)
            && known.columns == map.columns
            && known.described == map.described
        {
            return Ok(Arc::clone(&known.info));
        }
        if !self.known.contains_key(&name) {
            // That a table was created is told by its rows alone.
            self.parents_changed(|parent| *parent == name).await?;
        }
        let info = match &map.described {
            Some(described) => self.described(&name, map, described).await?,
            None => self.undescribed_table(&name, map, here).await?,
        };
        let info = Arc::new(info);
        let known = Known {
            columns: map.columns.clone(),
            described: map.described.clone(),
            info: Arc::clone(&info),
        };
        self.known.insert(name, known);
        Ok(info)
    }

    async fn undescribed_table(
        &mut self,
        name: &TableName,
        map: &TableMap,
        here: &Checkpoint,
    ) -> Result<TableInfo, CaptureError> {
        let fits = |held: &Definition| held.fitting(map).is_some();
        if !self.defined.get(name).is_some_and(fits) {
            self.define(vec![name.clone()], Some(here)).await?;
        }
        let held = self.defined.get(name).filter(|_| !self.barred.contains(name));
        match held.and_then(|held| held.fitting(map)) {
            Some(fitting) => fitting.table(name),
            None => Err(CaptureError::Moved(name.to_string())),
        }
    }

    /// Takes the event at its word; a column that still is what it was adds what the
    /// event does not say.
    async fn described(
        &mut self,
        name: &TableName,
        map: &TableMap,
        described: &[Described],
    ) -> Result<TableInfo, CaptureError> {
        let now = self.ask(name).await?;
        let (schema, table) = (name.schema.clone(), name.name.clone());
        let mut table = Table { schema, name: table, ..Table::default() };
        let mut columns = Vec::new();
        let visible = described.iter().filter(|said| !now.hides(&said.name)).count();
        let mut same = now.columns.len() == visible;
        for (&how, said) in map.columns.iter().zip(described) {
            let collation = self.collation(said).await?;
            let (mut column, mut info) = described_column(how, said, collation);
            if now.hides(&column.name) {
                info.hidden = true;
                columns.push(info);
                continue;
            }
            let defined = now.columns.iter().find(|defined| defined.is(&column));
            let place = now.columns.get(table.columns.len()).map(|there| &there.column.name);
            same &= defined.map(|defined| &defined.column.name) == place;
            if let Some(defined) = defined {
                defined.check(name)?;
                column.generated = defined.column.generated;
                column.default_value.clone_from(&defined.column.default_value);
                column.r#type = defined.column.r#type;
                info.fraction = defined.info.fraction;
                info.uuid = defined.info.uuid;
            } else if matches!(how.kind, kind::TIME | kind::DATETIME | kind::TIMESTAMP) {
                // The old temporal types: their fraction stands nowhere else.
                return Err(CaptureError::Moved(name.to_string()));
            }
            table.columns.push(column);
            columns.push(info);
        }
        // Without a primary key the server names a unique one in its place.
        if same && now.columns.iter().all(|defined| defined.column.key == 0) {
            table.columns.iter_mut().for_each(|column| column.key = 0);
        }
        let cut = |column: &&Column| {
            column.key > 0 && described.iter().any(|said| said.cut && said.name == column.name)
        };
        if let Some(column) = table.columns.iter().find(cut) {
            return Err(CaptureError::cut_key(name, column));
        }
        table.unique_keys = now.unique_keys(&table.columns);
        table.foreign_keys = now.foreign_keys(&table.columns);
        Ok(TableInfo { table: Arc::new(table), columns })
    }

    async fn collation(&mut self, said: &Described) -> Result<String, CaptureError> {
        let Some(id) = said.collation else { return Ok("binary".to_owned()) };
        if self.collations.is_empty() {
            self.collations = match self.ask_collations().await {
                Ok(collations) => collations,
                Err(error) => return Err(self.lost(&error)),
            };
        }
        let name = self.collations.get(&id).cloned();
        name.ok_or(CaptureError::Corrupt("a column's collation is not one of the server's"))
    }

    async fn ask_collations(&mut self) -> Result<HashMap<usize, String>, mysql_async::Error> {
        let conn = self.conn().await?;
        // MariaDB from 10.10 on has collations whose full name stands here alone.
        let full = "SELECT id, CAST(full_collation_name AS CHAR) \
            FROM information_schema.collation_character_set_applicability";
        let rows: Vec<(usize, String)> = match conn.query(full).await {
            Err(mysql_async::Error::Server(_)) => {
                let plain =
                    "SELECT id, CAST(collation_name AS CHAR) FROM information_schema.collations";
                conn.query(plain).await?
            }
            other => other?,
        };
        Ok(rows.into_iter().collect())
    }

    async fn ask(&mut self, name: &TableName) -> Result<Definition, CaptureError> {
        let conn = match self.conn().await {
            Ok(conn) => conn,
            Err(error) => return Err(self.lost(&error)),
        };
        match definition::read(conn, name).await {
            Ok(definition) => {
                let parents = definition.foreign.iter().map(|key| key.target().clone());
                self.parents.insert(name.clone(), parents.collect());
                Ok(definition)
            }
            Err(error) => Err(self.lost(&error)),
        }
    }

    async fn conn(&mut self) -> Result<&mut Conn, mysql_async::Error> {
        Ok(match &mut self.conn {
            Some(conn) => conn,
            none => none.insert(Box::pin(Conn::new(self.opts.clone())).await?),
        })
    }

    fn lost(&mut self, error: &mysql_async::Error) -> CaptureError {
        self.conn = None;
        CaptureError::Away(error.to_string())
    }
}
