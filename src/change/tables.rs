//! The definitions of tables in records. A record brings those of its rows along, nearly
//! always the same few: each is read and written once, and shared by all who name it.

use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashMap;
use prost::Message as _;

use super::{RecordError, Table};

/// Definitions that are known at most; with more of them it begins anew.
const KNOWN_MAX: usize = 1_024;

/// What one reader or one writer of records knows of tables.
#[derive(Debug, Default)]
pub struct Tables {
    read: HashMap<Bytes, Arc<Table>>,
    /// By where the definition stands in memory: it is held, so nothing else comes there.
    written: HashMap<usize, (Arc<Table>, Bytes)>,
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
        if bytes.is_empty() {
            return Err(RecordError::Range("table"));
        }
        // In memory of its own: the definition must not keep a whole record alive.
        let bytes = Bytes::copy_from_slice(bytes);
        let table = Arc::new(Table::decode(bytes.clone()).map_err(RecordError::Corrupt)?);
        if self.read.len() >= KNOWN_MAX {
            self.read.clear();
        }
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
        if self.written.len() >= KNOWN_MAX {
            self.written.clear();
        }
        self.written.insert(place, (Arc::clone(table), bytes.clone()));
        bytes
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
    fn no_more_are_known_than_that() {
        let (mut writer, mut reader) = (Tables::default(), Tables::default());
        for n in 0..=KNOWN_MAX {
            let table = table(n);
            assert_eq!(reader.read(&writer.written(&table)).unwrap(), table);
            assert!(writer.written.len() <= KNOWN_MAX && reader.read.len() <= KNOWN_MAX);
        }
        assert_eq!((writer.written.len(), reader.read.len()), (1, 1));
    }

    #[test]
    fn what_is_no_definition_is_refused() {
        let mut tables = Tables::default();
        let read = tables.read(&Bytes::new());
        assert!(matches!(read, Err(RecordError::Range("table"))), "{read:?}");
        let read = tables.read(&Bytes::from_static(&[0xff]));
        assert!(matches!(read, Err(RecordError::Corrupt(_))), "{read:?}");
        assert!(tables.read.is_empty());
    }
}
