//! Why a comparison can't go on.

use std::time::Duration;

/// Each passes by itself or is the operator's to mend; the comparison is begun again
/// either way, from its state file.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// No database of the region takes writes, or several do.
    #[error("region {region}: {why}")]
    Writable {
        /// The region.
        region: String,
        /// What each database answered.
        why: String,
    },
    /// The connection broke, or was not made.
    #[error("the database of {region} is away")]
    Away {
        /// The region.
        region: String,
        /// The driver's words.
        #[source]
        source: mysql_async::Error,
    },
    /// No answer of the region's database in that time.
    #[error("the database of {0} does not answer within {after} s", after = .1.as_secs())]
    Silent(String, Duration),
    /// The server refused a statement.
    #[error("the database of {region} refused: error {code}: {message}")]
    Refused {
        /// The region.
        region: String,
        /// Its error number.
        code: u16,
        /// Its words; none of the statements carries a value in them.
        message: String,
    },
    /// The outbox can't be read.
    #[error("the outbox of {region} can't be read")]
    Outbox {
        /// The region.
        region: String,
        /// The client's words.
        #[source]
        source: rdkafka::error::KafkaError,
    },
    /// The state can't be kept.
    #[error("the state can't be kept")]
    State(#[source] std::io::Error),
}

impl VerifyError {
    pub(super) fn from_driver(region: &str, source: mysql_async::Error) -> Self {
        let region = region.to_owned();
        if let mysql_async::Error::Server(error) = source {
            return Self::Refused { region, code: error.code, message: error.message };
        }
        Self::Away { region, source }
    }
}
