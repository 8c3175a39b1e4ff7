//! The definitions of tables in records. A record brings those of its rows along, nearly
//! always the same few: each is read and written once, and shared by all who name it.

use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashMap;
use prost::Message as _;

use super::{Column, RecordError, Table};

/// What is known takes at most about so much memory: some hundreds of wide tables, or many
/// thousands of narrow ones. With more of them it begins anew.
const KNOWN_BYTES_MAX: usize = 8 << 20;

/// What one reader or one writer of records knows of tables.
#[derive(Debug, Default)]
pub struct Tables {
    read: HashMap<Bytes, Arc<Table>>,
    /// By where the definition stands in memory: it is held, so nothing else comes there.
    written: HashMap<usize, (Arc<Table>, Bytes)>,
    /// Of all that is known, about.
    bytes: usize,
}

impl Tables {
    /// The definition that a record has as these bytes.
    ///
    /// # Errors
    /// [`RecordError`] when they are none.
    pub(super) fn read(&mut self, bytes: &Bytes) -> Result<Arc<Table>, RecordError> {
        if let Some(known) = self.read.get(bytes) {
            return Ok(Arc::clone(known));
        }
        // In memory of its own: the definition must not keep a whole record alive.
        let bytes = Bytes::copy_from_slice(bytes);
        let table = Table::decode(bytes.clone()).map_err(RecordError::Corrupt)?;
        if table == Table::default() {
            return Err(RecordError::Range("table"));
        }
        let table = Arc::new(table);
        self.make_room(&bytes, &table);
        self.read.insert(bytes, Arc::clone(&table));
        Ok(table)
    }

    /// The bytes of a definition in a record.
    pub(super) fn written(&mut self, table: &Arc<Table>) -> Bytes {
        let place = Arc::as_ptr(table).addr();
        if let Some((_, bytes)) = self.written.get(&place) {
            return bytes.clone();
        }
        let bytes = Bytes::from(table.encode_to_vec());
        self.make_room(&bytes, table);
        self.written.insert(place, (Arc::clone(table), bytes.clone()));
        bytes
    }

    fn make_room(&mut self, bytes: &Bytes, table: &Table) {
        // An empty column takes two bytes in a record, and much more here.
        let bytes = 2 * bytes.len() + table.columns.len() * size_of::<Column>();
        if self.bytes + bytes > KNOWN_BYTES_MAX {
            self.read.clear();
            self.written.clear();
            self.bytes = 0;
        }
        self.bytes += bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(n: usize) -> Arc<Table> {
        Arc::new(Table { schema: "shop".to_owned(), name: n.to_string(), ..Table::default() })
    }

    #[test]
    fn a_definition_is_read_once() {
        let (mut writer, mut reader) = (Tables::default(), Tables::default());
        let first = reader.read(&writer.written(&table(1))).unwrap();
        assert_eq!(first, table(1));
        assert!(Arc::ptr_eq(&first, &reader.read(&writer.written(&table(1))).unwrap()));
        assert_eq!(reader.read(&writer.written(&table(2))).unwrap(), table(2));
    }

    #[test]
    fn a_definition_is_written_once() {
        let (mut writer, table) = (Tables::default(), table(1));
        let first = writer.written(&table);
        assert_eq!(first.as_ptr(), writer.written(&Arc::clone(&table)).as_ptr());
        assert_eq!(writer.written.len(), 1);
    }

    #[test]
    fn no_more_are_known_than_that() {
        let (mut writer, mut reader) = (Tables::default(), Tables::default());
        let columns = vec![Column::default(); KNOWN_BYTES_MAX / 10 / (size_of::<Column>() + 4)];
        for n in 0..25 {
            let table = Arc::new(Table { columns: columns.clone(), ..Table::clone(&table(n)) });
            assert_eq!(reader.read(&writer.written(&table)).unwrap(), table);
            assert_eq!(writer.written.len(), n % 9 + 1);
            assert_eq!(reader.read.len(), n % 9 + 1);
        }
        // One that is larger by itself is known until the next.
        let huge = Arc::new(Table { schema: "s".repeat(KNOWN_BYTES_MAX), ..Table::default() });
        assert_eq!(reader.read(&writer.written(&huge)).unwrap(), huge);
        assert_eq!((writer.written.len(), reader.read.len()), (1, 1));
    }

    #[test]
    fn what_is_no_definition_is_refused() {
        let mut tables = Tables::default();
        // None, and one of nothing but an empty name.
        for bytes in [&[][..], &[0x0a, 0]] {
            let read = tables.read(&Bytes::from_static(bytes));
            assert!(matches!(read, Err(RecordError::Range("table"))), "{read:?}");
        }
        let read = tables.read(&Bytes::from_static(&[0xff]));
        assert!(matches!(read, Err(RecordError::Corrupt(_))), "{read:?}");
        assert!(tables.read.is_empty());
    }
}
