//! What can go wrong in Kafka, what the agent does about it, and what the operator
//! can do.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::change::{OrderError, RecordError, Seq};

/// How the agent goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// It passes: try again.
    Retry,
    /// Someone must act.
    Halt,
}

/// An error of the Kafka side.
#[derive(Debug, thiserror::Error)]
pub enum ShipError {
    /// A broker does not answer, or refused for now.
    #[error("Kafka is away: {0}")]
    Away(String),
    /// The broker refuses this client.
    #[error("Kafka refuses: {0}")]
    Refused(String),
    /// A record is larger than Kafka takes.
    #[error("a record is too large for Kafka: {0}")]
    TooLarge(String),
    /// The topic has settings under which the stream is not safe.
    #[error("topic {topic} has {found}, wanted {wanted}")]
    Settings {
        /// The topic.
        topic: String,
        /// What it has.
        found: String,
        /// What it needs.
        wanted: String,
    },
    /// The records to go on from are not there any more.
    #[error("topic {topic} does not hold offset {offset} any more")]
    Purged {
        /// The topic.
        topic: String,
        /// Where it should go on.
        offset: i64,
    },
    /// A record of the topic can't be read.
    #[error("the record at offset {offset} of topic {topic} can't be read")]
    Record {
        /// The topic.
        topic: String,
        /// Where it stands.
        offset: i64,
        /// What is wrong with it.
        #[source]
        source: RecordError,
    },
    /// The outbox and its inbox, or two inboxes of it, differ where both have a record.
    #[error("topic {topic} does not hold what was copied of offset {offset} of the outbox")]
    Parted {
        /// The topic that was to be copied.
        topic: String,
        /// Where the copy ends, in the outbox.
        offset: i64,
    },
    /// An inbox lacks what comes next, or what both should have.
    #[error("topic {topic} does not hold what follows offset {offset} of the outbox")]
    Gapped {
        /// The topic that was to be copied.
        topic: String,
        /// Where the copy ends, in the outbox.
        offset: i64,
    },
    /// A record of another origin stands in the topic.
    #[error("the record at offset {offset} of topic {topic} is of origin {found}")]
    Origin {
        /// The topic.
        topic: String,
        /// Where it stands.
        offset: i64,
        /// The origin it names.
        found: u8,
    },
    /// The outbox does not hold what this database knows to be in it.
    #[error("topic {topic} was deleted or made anew: what was shipped is not in it")]
    Lost {
        /// The topic.
        topic: String,
    },
    /// The outbox holds what this database has never shipped.
    #[error("topic {topic} holds {seq} transactions of another database")]
    Foreign {
        /// The topic.
        topic: String,
        /// The last one.
        seq: Seq,
    },
    /// The outbox holds more of this region than the database was seeded with.
    #[error(
        "the database was seeded with its region's transactions up to {seq}, and topic {topic} holds them up to {found}"
    )]
    Behind {
        /// The topic.
        topic: String,
        /// The last in the seed.
        seq: Seq,
        /// The last in the topic.
        found: Seq,
    },
    /// The outbox holds a higher epoch than the database has given.
    #[error("topic {topic} is at epoch {found}, beyond the database's")]
    Epoch {
        /// The topic.
        topic: String,
        /// Its epoch.
        found: u64,
    },
    /// Records are missing in the topic.
    #[error("topic {topic}, before offset {offset}")]
    Order {
        /// The topic.
        topic: String,
        /// Where the next one stands.
        offset: i64,
        /// What is missing.
        #[source]
        source: OrderError,
    },
}

impl ShipError {
    /// From the client's error.
    #[must_use]
    pub fn from_kafka(error: &KafkaError) -> Self {
        match error.rdkafka_error_code() {
            Some(code) => Self::from_code(code, error.to_string()),
            None => Self::Away(error.to_string()),
        }
    }

    pub(super) fn from_code(code: RDKafkaErrorCode, text: String) -> Self {
        use RDKafkaErrorCode as Code;
        let refused = [
            Code::TopicAuthorizationFailed,
            Code::ClusterAuthorizationFailed,
            Code::GroupAuthorizationFailed,
            Code::SaslAuthenticationFailed,
            Code::Authentication,
            Code::PolicyViolation,
        ];
        let large =
            [Code::MessageSizeTooLarge, Code::InvalidMessageSize, Code::MessageBatchTooLarge];
        if refused.contains(&code) {
            Self::Refused(text)
        } else if large.contains(&code) {
            Self::TooLarge(text)
        } else {
            Self::Away(text)
        }
    }

    /// Whether it is of one record alone, which says nothing of others.
    pub(super) const fn is_unreadable(&self) -> bool {
        matches!(self, Self::Record { .. } | Self::Origin { .. })
    }

    /// How the agent goes on.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Away(_) | Self::Epoch { .. } | Self::Gapped { .. } => ErrorKind::Retry,
            Self::Refused(_)
            | Self::TooLarge(_)
            | Self::Lost { .. }
            | Self::Foreign { .. }
            | Self::Behind { .. }
            | Self::Settings { .. }
            | Self::Purged { .. }
            | Self::Parted { .. }
            | Self::Record { .. }
            | Self::Origin { .. }
            | Self::Order { .. } => ErrorKind::Halt,
        }
    }

    /// The operator's next step.
    #[must_use]
    pub const fn advice(&self) -> &'static str {
        match self {
            Self::Away(_) | Self::Epoch { .. } | Self::Gapped { .. } => "none: it is tried again",
            Self::Refused(_) => {
                "give the agent's Kafka user its rights in both clusters (docs/OPERATIONS.md, The \
                 Kafka account)"
            }
            Self::TooLarge(_) => {
                "raise max.message.bytes of the topic and message.max.bytes of the brokers, or \
                 lower record_bytes in the topology"
            }
            Self::Settings { .. } => "change the topic's settings, then restart the agent",
            Self::Order { source: OrderError::Behind { .. }, .. } => {
                "its region was seeded anew: restart this agent, which then goes on behind what is \
                 applied here; if that is more than the seed holds, seed this region too \
                 (docs/OPERATIONS.md, Seeding a region anew)"
            }
            Self::Order { .. } => {
                "where a link fills the inbox, delete that inbox topic (never an outbox) so that it \
                 is copied anew; if records are missing then too, the log was kept for less than \
                 the outage: seed this region anew from a peer (docs/OPERATIONS.md, Seeding a \
                 region anew)"
            }
            Self::Purged { .. } => {
                "the log was kept for less than the outage: seed this region anew from a peer \
                 (docs/OPERATIONS.md, Seeding a region anew)"
            }
            Self::Parted { .. } => {
                "if something else than the link wrote to the inbox, delete that inbox topic (never \
                 an outbox) so that it is copied anew; else the outbox was made anew, or its Kafka \
                 lost records that it had acknowledged: seed its region anew from the peer that \
                 has applied most of it (docs/OPERATIONS.md, Seeding a region anew)"
            }
            Self::Lost { .. } => {
                "bring the topic back with its records; else seed this region anew from the peer \
                 that has applied most of it (docs/OPERATIONS.md, Seeding a region anew)"
            }
            Self::Foreign { .. } => {
                "start the agent on the database that filled it; else seed this database from a \
                 peer (docs/OPERATIONS.md, Seeding a region anew)"
            }
            Self::Behind { .. } => {
                "seed this database again, from a peer that has applied all of this region's \
                 outbox (docs/OPERATIONS.md, Seeding a region anew)"
            }
            Self::Record { .. } | Self::Origin { .. } => {
                "find out who wrote it; where a link fills the inbox, delete that inbox topic (never \
                 an outbox) so that it is copied anew; else seed this region anew from the origin"
            }
        }
    }
}
