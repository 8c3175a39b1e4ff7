//! One region's database: two connections, so that the end of the next chunk is found
//! while this one is read.

use std::collections::BTreeMap;
use std::time::Duration;

use mysql_async::prelude::{FromRow, Queryable as _};
use mysql_async::{Conn, Opts, OptsBuilder, Row, SslOpts, from_value};

use super::VerifyError;
use crate::change::{BinlogPoint, Dot, RegionId, Seq, TableName, Vector, is_generated};
use crate::compare::{Column, Image, Key, Seen, Shape};
use crate::database::{Login, takes_writes};
use crate::topology::{Region, Topology};

/// Bounds every statement: a chunk is made to take less than a second.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long a database may take to let the comparison in.
const LOGIN_MAX: Duration = Duration::from_secs(10);

/// A region under comparison.
pub(super) struct Peer {
    pub(super) name: String,
    pub(super) id: RegionId,
    /// MySQL, whose positions only the server itself compares.
    mysql: bool,
    conn: Conn,
    scout: Conn,
    opts: Opts,
}

/// Everything that had been committed in a region at some time.
#[derive(Clone, Debug)]
pub(super) enum Committed {
    MariaDb(BinlogPoint),
    /// A GTID set.
    MySql(String),
}

pub(super) async fn bounded<T>(
    region: &str,
    work: impl Future<Output = Result<T, mysql_async::Error>>,
) -> Result<T, VerifyError> {
    bounded_by(PATIENCE, region, work).await
}

async fn bounded_by<T>(
    patience: Duration,
    region: &str,
    work: impl Future<Output = Result<T, mysql_async::Error>>,
) -> Result<T, VerifyError> {
    match tokio::time::timeout(patience, work).await {
        Ok(done) => done.map_err(|error| VerifyError::from_driver(region, error)),
        Err(_) => Err(VerifyError::Silent(region.to_owned(), patience)),
    }
}

fn opts(address: &str, login: &Login) -> Option<Opts> {
    let (host, port) = address.rsplit_once(':')?;
    let opts = OptsBuilder::default()
        .ip_or_hostname(host.trim_matches(['[', ']']))
        .tcp_port(port.parse().ok()?)
        .user(Some(&login.user))
        .pass(login.password.as_ref())
        .prefer_socket(false)
        .ssl_opts(login.tls.then(SslOpts::default))
        .init(vec![
            // CHAR without its padding, one form for every time.
            "SET SESSION sql_mode = '', time_zone = '+00:00'",
            "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
        ]);
    Some(opts.into())
}

/// Values as bytes; the text protocol sends nothing but these and NULL.
fn values(row: Row) -> Vec<Option<Vec<u8>>> {
    row.unwrap().into_iter().map(from_value::<Option<Vec<u8>>>).collect()
}

/// Hash and key of a row that a statement of [`crate::compare::Plan`] gave.
fn seen(mut values: impl Iterator<Item = Option<Vec<u8>>>) -> Seen {
    let hash = values.next().flatten().unwrap_or_default();
    Seen { hash, key: Key(values.map(Option::unwrap_or_default).collect()) }
}

/// Hash and values of a row.
pub(super) fn image(row: Row) -> Image {
    let mut values = values(row).into_iter();
    Image { hash: values.next().flatten().unwrap_or_default(), values: values.collect() }
}

impl Peer {
    /// Logs in to the region's writable database.
    pub(super) async fn connect(region: &Region, login: &Login) -> Result<Self, VerifyError> {
        let name = region.name.clone();
        let (mut found, mut others) = (Vec::new(), Vec::new());
        for address in &region.databases {
            let Some(opts) = opts(address, login) else {
                others.push(format!("{address} is no address"));
                continue;
            };
            let asked = async {
                let mut conn = Conn::new(opts.clone()).await?;
                let row: Option<(String, String)> =
                    conn.query_first("SELECT @@global.read_only, @@version").await?;
                Ok((conn, row.unwrap_or_default()))
            };
            match bounded_by(LOGIN_MAX, &name, Box::pin(asked)).await {
                Ok((conn, (read_only, version))) if takes_writes(&read_only) => {
                    found.push((conn, version, opts));
                }
                Ok(_) => others.push(format!("{address} is read-only")),
                Err(VerifyError::Away { source, .. }) => {
                    others.push(format!("{address}: {source}"))
                }
                Err(other) => others.push(format!("{address}: {other}")),
            }
        }
        if found.len() > 1 {
            return Err(VerifyError::Writable {
                region: name,
                why: "several databases are writable".to_owned(),
            });
        }
        let Some((conn, version, opts)) = found.pop() else {
            let why = format!("no database is writable: {}", others.join("; "));
            return Err(VerifyError::Writable { region: name, why });
        };
        let scout = bounded(&name, Conn::new(opts.clone())).await?;
        let mysql = !version.contains("MariaDB");
        Ok(Self { name, id: region.id, mysql, conn, scout, opts })
    }

    /// How its database is reached.
    pub(super) const fn opts(&self) -> &Opts {
        &self.opts
    }

    pub(super) async fn close(self) {
        for conn in [self.conn, self.scout] {
            if let Err(error) = conn.disconnect().await {
                tracing::debug!(%error, "the goodbye did not arrive");
            }
        }
    }

    async fn rows<T: FromRow + Send + 'static>(
        &mut self,
        sql: &str,
    ) -> Result<Vec<T>, VerifyError> {
        bounded(&self.name, self.conn.query(sql)).await
    }

    /// The replicated tables.
    pub(super) async fn shapes(
        &mut self,
        topology: &Topology,
    ) -> Result<BTreeMap<TableName, Shape>, VerifyError> {
        let tables: Vec<(String, String, Option<u64>)> = self
            .rows(
                "SELECT TABLE_SCHEMA, TABLE_NAME, TABLE_ROWS FROM information_schema.TABLES \
                 WHERE TABLE_TYPE NOT LIKE '%VIEW'",
            )
            .await?;
        let mut shapes: BTreeMap<_, _> = tables
            .into_iter()
            .filter(|(schema, name, _)| topology.replicates(schema, name))
            .map(|(schema, name, rows)| {
                let rows_estimate = rows.unwrap_or(0);
                (TableName { schema, name }, Shape { rows_estimate, ..Shape::default() })
            })
            .collect();
        let columns: Vec<Row> = self
            .rows(
                "SELECT c.TABLE_SCHEMA, c.TABLE_NAME, c.COLUMN_NAME, c.DATA_TYPE, c.COLUMN_TYPE, \
                 c.CHARACTER_SET_NAME, c.COLLATION_NAME, c.EXTRA, k.SEQ_IN_INDEX \
                 FROM information_schema.COLUMNS c LEFT JOIN information_schema.STATISTICS k \
                 ON k.TABLE_SCHEMA = c.TABLE_SCHEMA AND k.TABLE_NAME = c.TABLE_NAME \
                 AND k.INDEX_NAME = 'PRIMARY' AND k.COLUMN_NAME = c.COLUMN_NAME \
                 ORDER BY c.TABLE_SCHEMA, c.TABLE_NAME, c.ORDINAL_POSITION",
            )
            .await?;
        for row in columns {
            let mut texts = values(row)
                .into_iter()
                .map(|value| value.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()));
            let mut next = || texts.next().flatten();
            let (schema, name) = (next().unwrap_or_default(), next().unwrap_or_default());
            let Some(shape) = shapes.get_mut(&TableName { schema, name }) else { continue };
            let column = Column {
                name: next().unwrap_or_default(),
                data_type: next().unwrap_or_default().to_ascii_lowercase(),
                column_type: next().unwrap_or_default().to_ascii_lowercase(),
                charset: next(),
                collation: next(),
                generated: next().is_some_and(|extra| is_generated(&extra)),
                key: next().and_then(|place| place.parse().ok()),
            };
            shape.columns.push(column);
        }
        Ok(shapes)
    }

    /// Rows and sum of a chunk.
    pub(super) async fn sum(&mut self, sql: &str) -> Result<(u64, u64), VerifyError> {
        let rows: Vec<(u64, u64)> = self.rows(sql).await?;
        Ok(rows.into_iter().next().unwrap_or_default())
    }

    /// The rows of a range.
    pub(super) async fn list(&mut self, sql: &str) -> Result<Vec<Seen>, VerifyError> {
        let rows: Vec<Row> = self.rows(sql).await?;
        Ok(rows.into_iter().map(|row| seen(values(row).into_iter())).collect())
    }

    /// The rows of some keys, by the key's number.
    pub(super) async fn look(&mut self, sql: &str) -> Result<BTreeMap<usize, Seen>, VerifyError> {
        let rows: Vec<Row> = self.rows(sql).await?;
        let numbered = rows.into_iter().filter_map(|row| {
            let mut values = values(row).into_iter();
            let number = String::from_utf8(values.next()??).ok()?.parse().ok()?;
            Some((number, seen(values)))
        });
        Ok(numbered.collect())
    }

    /// All compared values of one row.
    pub(super) async fn row(
        &mut self,
        sql: &str,
    ) -> Result<Option<Vec<Option<Vec<u8>>>>, VerifyError> {
        let rows: Vec<Row> = self.rows(sql).await?;
        Ok(rows.into_iter().next().map(values))
    }

    /// One row as [`crate::compare::Plan::image`] reads it.
    pub(super) async fn image(&mut self, sql: &str) -> Result<Option<Image>, VerifyError> {
        let rows: Vec<Row> = self.rows(sql).await?;
        Ok(rows.into_iter().next().map(image))
    }

    /// The end of a chunk; `None` when the rest of the range is smaller.
    pub(super) async fn boundary(&mut self, sql: &str) -> Result<Option<Key>, VerifyError> {
        let row: Option<Row> = bounded(&self.name, self.scout.query_first(sql)).await?;
        Ok(row.map(|row| Key(values(row).into_iter().map(Option::unwrap_or_default).collect())))
    }

    /// Both at once: a chunk is read while the end of the next one is looked for.
    pub(super) async fn sum_and_boundary(
        &mut self,
        sum: &str,
        boundary: Option<&str>,
    ) -> Result<((u64, u64), Option<Key>), VerifyError> {
        let Self { name, conn, scout, .. } = self;
        let ahead = async {
            let Some(sql) = boundary else { return Ok(None) };
            bounded(name, scout.query_first::<Row, _>(sql)).await
        };
        let read = bounded(name, conn.query_first::<(u64, u64), _>(sum));
        let (sum, row) = tokio::try_join!(read, ahead)?;
        let key =
            row.map(|row| Key(values(row).into_iter().map(Option::unwrap_or_default).collect()));
        Ok((sum.unwrap_or_default(), key))
    }

    /// Per origin the last transaction applied here.
    pub(super) async fn applied(&mut self) -> Result<Vector, VerifyError> {
        let rows: Vec<(u8, u64)> =
            self.rows("SELECT origin, MAX(seq) FROM causeway.applied GROUP BY origin").await?;
        let dots = rows.into_iter().filter_map(|(origin, seq)| {
            RegionId::new(origin).map(|origin| Dot { origin, seq: Seq(seq) })
        });
        Ok(dots.collect())
    }

    /// Everything committed here so far.
    pub(super) async fn committed(&mut self) -> Result<Committed, VerifyError> {
        let variable = if self.mysql { "gtid_executed" } else { "gtid_binlog_pos" };
        let rows: Vec<(String,)> = self.rows(&format!("SELECT @@global.{variable}")).await?;
        let text =
            rows.into_iter().next().map(|(text,)| text.replace('\n', "")).unwrap_or_default();
        if self.mysql {
            return Ok(Committed::MySql(text));
        }
        let point = BinlogPoint::from_mariadb(&text).ok_or_else(|| VerifyError::Refused {
            region: self.name.clone(),
            code: 0,
            message: "the GTID position can't be read".to_owned(),
        })?;
        Ok(Committed::MariaDb(point))
    }

    /// Whether a position, as the outbox's records carry it, covers what was committed.
    pub(super) async fn covers(
        &mut self,
        position: &str,
        committed: &Committed,
    ) -> Result<bool, VerifyError> {
        match committed {
            Committed::MariaDb(point) => {
                Ok(BinlogPoint::from_mariadb(position).is_some_and(|held| held.covers(point)))
            }
            Committed::MySql(set) => {
                let asked = self.conn.exec_first("SELECT GTID_SUBSET(?, ?)", (set, position));
                let answer: Option<Option<u8>> = bounded(&self.name, asked).await?;
                Ok(answer.flatten() == Some(1))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::Kafka;

    #[tokio::test]
    async fn a_database_that_does_not_answer_is_named_soon() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = silent.local_addr().unwrap().to_string();
        let region = Region {
            name: "r1".to_owned(),
            id: RegionId::new(1).unwrap(),
            databases: vec![address.clone()],
            cluster: String::new(),
            kafka: Kafka { brokers: Vec::new(), peer_brokers: Vec::new() },
        };
        let login = Login { user: "u".to_owned(), password: None, tls: false };
        let asked = tokio::time::timeout(2 * LOGIN_MAX, Peer::connect(&region, &login)).await;
        let Err(VerifyError::Writable { why, .. }) = asked.unwrap() else { panic!("let in") };
        assert!(why.contains(&address) && why.contains("does not answer within 10 s"), "{why}");
    }
}
