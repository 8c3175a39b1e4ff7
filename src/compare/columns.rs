//! Which columns are compared, and the SQL that makes their values equal bytes on
//! every server.

use crate::change::TableName;

use super::chunk::{Key, Range};

/// A table as one region has it.
#[derive(Clone, Debug, Default)]
pub struct Shape {
    /// In order.
    pub columns: Vec<Column>,
    /// The server's guess of how many rows it has.
    pub rows_estimate: u64,
}

/// A column as `information_schema` describes it.
#[derive(Clone, Debug, Default)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type's name, e.g. `varchar`.
    pub data_type: String,
    /// Its type in full, e.g. `int(10) unsigned zerofill`.
    pub column_type: String,
    /// Its character set, for text.
    pub charset: Option<String>,
    /// Its collation, for text.
    pub collation: Option<String>,
    /// Its values are worked out by the server.
    pub generated: bool,
    /// Its place in the primary key, from 1.
    pub key: Option<u32>,
}

/// How the values of a column are made comparable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Integer,
    Decimal,
    Real,
    /// By number: BIT, ENUM, SET.
    Number,
    Time,
    /// Types that the server prints in one canonical form.
    Printed,
    Text,
    Binary,
    Json,
    Geometry,
}

/// What the value of a column may look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Width {
    /// No `#` in it.
    Plain,
    /// Any bytes, at most a row's.
    Bytes,
    /// Any bytes, perhaps more than a packet: hashed by itself.
    Long,
}

#[derive(Clone, Debug)]
pub(super) struct Compared {
    pub(super) name: String,
    value: String,
    width: Width,
    pub(super) literal: Literal,
}

/// How a column's value is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Literal {
    Number,
    Real,
    Quoted,
    Text(String),
    Binary,
}

#[derive(Clone, Debug)]
struct KeyPart {
    name: String,
    value: String,
    literal: Literal,
}

/// How a table is compared: the same SQL for every region.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The table.
    pub table: TableName,
    /// Columns that are not compared, each with the reason.
    pub left_out: Vec<String>,
    pub(super) columns: Vec<Compared>,
    key: Vec<KeyPart>,
}

pub(super) fn quote(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

fn family(data_type: &str) -> Option<Family> {
    Some(match data_type {
        "tinyint" | "smallint" | "mediumint" | "int" | "bigint" => Family::Integer,
        "decimal" => Family::Decimal,
        "float" | "double" => Family::Real,
        "bit" | "enum" | "set" => Family::Number,
        "year" | "date" | "time" | "datetime" | "timestamp" => Family::Time,
        "uuid" | "inet4" | "inet6" => Family::Printed,
        "char" | "varchar" | "tinytext" | "text" | "mediumtext" | "longtext" => Family::Text,
        "binary" | "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" => Family::Binary,
        "json" => Family::Json,
        "geometry" | "point" | "linestring" | "polygon" | "multipoint" | "multilinestring"
        | "multipolygon" | "geometrycollection" | "geomcollection" => Family::Geometry,
        _ => return None,
    })
}

/// Servers call the same set `utf8` and `utf8mb3`; all read the old name.
fn old_name(name: &str) -> String {
    name.strip_prefix("utf8mb3").map_or_else(|| name.to_owned(), |rest| format!("utf8{rest}"))
}

fn is_long(data_type: &str) -> bool {
    data_type.ends_with("text") || data_type.ends_with("blob")
}

/// The column that every region has under that name, if they have.
fn counterparts<'a>(name: &str, shapes: &[(&str, &'a Shape)]) -> Result<Vec<&'a Column>, String> {
    shapes
        .iter()
        .map(|(region, shape)| {
            let found = shape.columns.iter().find(|c| c.name.eq_ignore_ascii_case(name));
            found.ok_or_else(|| format!("column {name} is missing in {region}"))
        })
        .collect()
}

fn compared(columns: &[&Column]) -> Result<Compared, String> {
    let first = columns[0];
    let name = quote(&first.name);
    let types = || columns.iter().map(|c| c.column_type.as_str()).collect::<Vec<_>>().join(", ");
    let kind = family(&first.data_type)
        .ok_or_else(|| format!("column {}: type {} is not known", first.name, first.data_type))?;
    if columns.iter().any(|c| family(&c.data_type) != Some(kind)) {
        return Err(format!("column {}: the regions have {}", first.name, types()));
    }
    let long = columns.iter().any(|c| is_long(&c.data_type));
    let wide = if long { Width::Long } else { Width::Bytes };
    let zerofill = columns.iter().any(|c| c.column_type.contains("zerofill"));
    let charsets = || columns.iter().map(|c| c.charset.as_deref().map(old_name));
    let one_charset = charsets().all(|set| set == first.charset.as_deref().map(old_name));
    // Of a text the bytes are compared, and written, in its own set where all have one.
    let known = |set: &String| set.bytes().all(|b| b.is_ascii_alphanumeric());
    let charset = charsets().next().flatten().filter(|set| one_charset && known(set));
    let literal = match kind {
        Family::Integer | Family::Decimal | Family::Number => Literal::Number,
        Family::Real => Literal::Real,
        Family::Time | Family::Printed => Literal::Quoted,
        Family::Text => Literal::Text(charset.unwrap_or_else(|| "utf8mb4".to_owned())),
        Family::Json => Literal::Text("utf8mb4".to_owned()),
        Family::Binary | Family::Geometry => Literal::Binary,
    };
    let (value, width) = match kind {
        Family::Integer | Family::Decimal if zerofill => (format!("{name}+0"), Width::Plain),
        Family::Integer | Family::Decimal | Family::Time => (name, Width::Plain),
        // As text a FLOAT has six digits; as a DOUBLE it has all.
        Family::Real => (format!("{name}*1e0"), Width::Plain),
        // Added to, a SET is a DOUBLE in MySQL, and its members of a number beyond 53 blur.
        Family::Number => (format!("{name}|0"), Width::Plain),
        Family::Printed => (format!("CAST({name} AS CHAR)"), Width::Plain),
        Family::Text if one_charset => (format!("CAST({name} AS BINARY)"), wide),
        Family::Text => (format!("CAST(CONVERT({name} USING utf8mb4) AS BINARY)"), wide),
        Family::Binary => (name, wide),
        Family::Json => (format!("CAST({name} AS CHAR)"), Width::Long),
        Family::Geometry => (format!("CAST({name} AS BINARY)"), Width::Long),
    };
    Ok(Compared { name: first.name.clone(), value, width, literal })
}

/// Servers compare a SET with a number as a DOUBLE, which is exact for so many members.
const SET_KEY_MEMBERS_MAX: usize = 53;

fn key_part(column: &Compared, columns: &[&Column]) -> Result<KeyPart, String> {
    let first = columns[0];
    // A member has no comma in it.
    let members = |c: &&Column| c.column_type.matches(',').count() + 1;
    if first.data_type == "set" && columns.iter().map(members).max() > Some(SET_KEY_MEMBERS_MAX) {
        let name = &first.name;
        return Err(format!("key column {name} has more than {SET_KEY_MEMBERS_MAX} members"));
    }
    let literal = match family(&first.data_type) {
        Some(Family::Integer | Family::Decimal | Family::Number) => Literal::Number,
        Some(Family::Real) => Literal::Real,
        Some(Family::Time | Family::Printed) => Literal::Quoted,
        Some(Family::Binary) => Literal::Binary,
        Some(Family::Text) => {
            let collation = |c: &Column| c.collation.as_deref().map(old_name);
            if columns.iter().any(|c| collation(c) != collation(first)) {
                let name = &first.name;
                return Err(format!("key column {name} has another collation in each region"));
            }
            let charset = first.charset.as_deref().map(old_name).unwrap_or_default();
            if !charset.bytes().all(|b| b.is_ascii_alphanumeric()) {
                return Err(format!("key column {} has no known character set", first.name));
            }
            Literal::Text(charset)
        }
        Some(Family::Json | Family::Geometry) | None => {
            return Err(format!("key column {} is of type {}", first.name, first.data_type));
        }
    };
    Ok(KeyPart { name: quote(&first.name), value: column.value.clone(), literal })
}

impl Plan {
    /// The plan for a table that every region has; `shapes` by region name.
    ///
    /// # Errors
    /// Why it can't be compared.
    pub fn new(table: TableName, shapes: &[(&str, &Shape)]) -> Result<Self, String> {
        let mut plan = Self { table, left_out: Vec::new(), columns: Vec::new(), key: Vec::new() };
        let mut key = Vec::new();
        for (_, shape) in shapes {
            for column in &shape.columns {
                let known = |c: &Compared| c.name.eq_ignore_ascii_case(&column.name);
                if plan.columns.iter().any(known) {
                    continue;
                }
                let found = counterparts(&column.name, shapes).and_then(|columns| {
                    if columns.iter().any(|c| c.generated && c.key.is_none()) {
                        return Err(format!("column {} is generated", column.name));
                    }
                    Ok((compared(&columns)?, columns))
                });
                match found {
                    Ok((compared, columns)) => {
                        if column.key.is_some() {
                            key.push((column.key, key_part(&compared, &columns)?));
                        }
                        plan.columns.push(compared);
                    }
                    Err(why) if column.key.is_some() => return Err(why),
                    Err(why) if plan.left_out.contains(&why) => {}
                    Err(why) => plan.left_out.push(why),
                }
            }
        }
        key.sort_by_key(|(place, _)| *place);
        plan.key = key.into_iter().map(|(_, part)| part).collect();
        let parts = |shape: &Shape| {
            let mut parts: Vec<_> = shape.columns.iter().filter(|c| c.key.is_some()).collect();
            parts.sort_by_key(|c| c.key);
            parts.iter().map(|c| quote(&c.name).to_ascii_lowercase()).collect::<Vec<_>>()
        };
        let names: Vec<_> = plan.key.iter().map(|part| part.name.to_ascii_lowercase()).collect();
        if let Some((region, _)) = shapes.iter().find(|(_, shape)| parts(shape) != names) {
            return Err(format!("another primary key in {region}"));
        }
        if plan.key.is_empty() { Err("no primary key".to_owned()) } else { Ok(plan) }
    }

    /// Names of the key's columns, in key order.
    pub fn key_names(&self) -> impl Iterator<Item = &str> {
        self.key.iter().map(|part| part.name.trim_matches('`'))
    }

    /// Names of all compared columns.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(|column| column.name.as_str())
    }

    pub(super) fn quoted(&self) -> String {
        format!("{}.{}", quote(&self.table.schema), quote(&self.table.name))
    }

    fn from(&self) -> String {
        format!("FROM {} FORCE INDEX (PRIMARY)", self.quoted())
    }

    fn key_values(&self) -> String {
        self.key.iter().map(|part| part.value.as_str()).collect::<Vec<_>>().join(", ")
    }

    fn key_order(&self) -> String {
        self.key.iter().map(|part| part.name.as_str()).collect::<Vec<_>>().join(", ")
    }

    /// MD5 of the whole row, unambiguous: the lengths of what may hold any bytes come
    /// first, so no value can pass for two, and NULL is not the empty string.
    fn hash(&self) -> String {
        let head = self.columns.iter().map(|column| match column.width {
            Width::Plain => format!("IFNULL({},'N')", column.value),
            Width::Bytes | Width::Long => format!("IFNULL(LENGTH({}),'N')", column.value),
        });
        let tail = self.columns.iter().filter_map(|column| match column.width {
            Width::Plain => None,
            Width::Bytes => Some(format!("IFNULL({},'')", column.value)),
            Width::Long => Some(format!("IFNULL(MD5({}),'')", column.value)),
        });
        format!("MD5(CONCAT_WS('#',{}))", head.chain(tail).collect::<Vec<_>>().join(","))
    }

    /// One row: how many rows, and the exclusive or of their hashes.
    #[must_use]
    pub fn sum(&self, range: &Range) -> String {
        format!(
            "SELECT COUNT(*), BIT_XOR(CAST(CONV(LEFT({}, 16), 16, 10) AS UNSIGNED)) {} WHERE {}",
            self.hash(),
            self.from(),
            self.within(range)
        )
    }

    /// Each row: its hash, then its key.
    #[must_use]
    pub fn list(&self, range: &Range) -> String {
        let (hash, key) = (self.hash(), self.key_values());
        format!("SELECT {hash}, {key} {} WHERE {}", self.from(), self.within(range))
    }

    /// The key of the row that ends a chunk of `rows` rows; no row when fewer are left.
    #[must_use]
    pub fn boundary(&self, range: &Range, rows: u64) -> String {
        format!(
            "SELECT {} {} WHERE {} ORDER BY {} LIMIT 1 OFFSET {}",
            self.key_values(),
            self.from(),
            self.within(range),
            self.key_order(),
            rows.saturating_sub(1)
        )
    }

    /// For each of `keys` that has a row: the key's number, the row's hash, its key.
    #[must_use]
    pub fn look<'a>(&self, keys: impl Iterator<Item = &'a Key>) -> String {
        let (hash, key, from) = (self.hash(), self.key_values(), self.from());
        let one = |(n, wanted): (usize, &Key)| {
            format!("(SELECT {n}, {hash}, {key} {from} WHERE {})", self.is(wanted))
        };
        keys.enumerate().map(one).collect::<Vec<_>>().join(" UNION ALL ")
    }

    /// All compared values of one row.
    #[must_use]
    pub fn row(&self, key: &Key) -> String {
        let values: Vec<_> = self.columns.iter().map(|column| column.value.as_str()).collect();
        format!("SELECT {} {} WHERE {}", values.join(", "), self.from(), self.is(key))
    }

    /// Hash and all compared values of one row; its lock is taken when it is to be
    /// written.
    #[must_use]
    pub fn image(&self, key: &Key, locked: bool) -> String {
        let values: Vec<_> = self.columns.iter().map(|column| column.value.as_str()).collect();
        let (hash, values, from) = (self.hash(), values.join(", "), self.from());
        let lock = if locked { " FOR UPDATE" } else { "" };
        format!("SELECT {hash}, {values} {from} WHERE {}{lock}", self.is(key))
    }

    pub(super) fn is(&self, key: &Key) -> String {
        let equal = self.key.iter().zip(&key.0).map(|(part, value)| part.compare("=", value));
        equal.collect::<Vec<_>>().join(" AND ")
    }

    /// The keys of a range. What both ends share is an equation, so that a table whose
    /// first key column is the same in all rows is still read by ranges.
    fn within(&self, range: &Range) -> String {
        let Range { after, through } = range;
        let shared = match (after, through) {
            (Some(after), Some(through)) => {
                let pairs = after.0.iter().zip(&through.0);
                pairs.take_while(|(a, b)| a == b).count().min(self.key.len() - 1)
            }
            _ => 0,
        };
        let mut terms = Vec::new();
        if let Some(key) = after {
            let equal = self.key.iter().zip(&key.0).take(shared);
            terms.extend(equal.map(|(part, value)| part.compare("=", value)));
            terms.push(beyond(&self.key[shared..], &key.0[shared..], ">", ">"));
        }
        if let Some(key) = through {
            terms.push(beyond(&self.key[shared..], &key.0[shared..], "<", "<="));
        }
        if terms.is_empty() { "1".to_owned() } else { terms.join(" AND ") }
    }
}

/// On that side of a key, column by column.
fn beyond(parts: &[KeyPart], key: &[Vec<u8>], side: &str, last: &str) -> String {
    match (parts, key) {
        ([part], [value, ..]) => part.compare(last, value),
        ([part, parts @ ..], [value, key @ ..]) => format!(
            "{} AND ({} OR {})",
            part.compare(&format!("{side}="), value),
            part.compare(side, value),
            beyond(parts, key, side, last)
        ),
        _ => "1".to_owned(),
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl KeyPart {
    fn compare(&self, operator: &str, value: &[u8]) -> String {
        format!("{} {operator} {}", self.name, self.literal.write(value))
    }
}

impl Literal {
    /// A value as a server printed it. Its own words come back; anything else becomes
    /// what it is, bytes.
    pub(super) fn write(&self, value: &[u8]) -> String {
        let text = String::from_utf8_lossy(value);
        let number = |c: char| c.is_ascii_digit() || matches!(c, '-' | '.');
        let real = |c: char| number(c) || matches!(c, '+' | 'e' | 'E');
        match self {
            // An exponent is a DOUBLE's: of a number that must be exact it would be a guess.
            Self::Number if text.chars().all(number) => text.into_owned(),
            Self::Real if text.contains(['e', 'E']) && text.chars().all(real) => text.into_owned(),
            Self::Real if text.chars().all(real) => format!("{text}e0"),
            Self::Quoted if !text.contains(['\'', '\\']) => format!("'{text}'"),
            Self::Text(charset) => format!("_{charset} X'{}'", hex(value)),
            Self::Number | Self::Real | Self::Quoted | Self::Binary => {
                format!("X'{}'", hex(value))
            }
        }
    }
}

#[cfg(test)]
mod tests;
