//! The agent's own settings (`conf/agent.yaml`): credentials, addresses, logs.
//!
//! Secrets come from files or the environment, never from this file itself. Pure:
//! the caller reads the files that [`Secret`] names.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::yaml::{self, Problem, Span};

/// An agent's settings.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AgentConf {
    /// How to log in to the region's database.
    pub database: DatabaseConf,
    /// The account that reads the databases of all regions, where the topology's `verify`
    /// names this region; `database`'s when absent. It needs SELECT on the replicated
    /// tables and on `causeway`.
    #[serde(default)]
    pub verify: Option<VerifyConf>,
    /// librdkafka properties for every cluster, e.g. `security.protocol: ssl`.
    #[serde(default)]
    pub kafka: BTreeMap<String, String>,
    /// Secret librdkafka properties, e.g. `sasl.password`.
    #[serde(default)]
    pub kafka_secrets: BTreeMap<String, Secret>,
    /// The HTTP API.
    #[serde(default)]
    pub admin: AdminConf,
    /// `text` for people, `json` for collectors.
    #[serde(default)]
    pub log_format: LogFormat,
    /// How long a stop may take before what still runs is dropped.
    #[serde(default = "grace")]
    pub grace: Span,
}

const fn grace() -> Span {
    Span::from_millis(10_000)
}

/// How to log in to the region's database.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DatabaseConf {
    /// The user; `causeway doctor --fix-sql` prints its grants.
    pub user: String,
    /// Its password; none when absent.
    #[serde(default)]
    pub password: Option<Secret>,
    /// The id under which the agent reads the binlog, unique among the replicas of
    /// the database as the one 1000 above it has to be; 4000000 plus the region's id when
    /// absent.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub server_id: Option<u32>,
    /// Ask for TLS.
    #[serde(default)]
    pub tls: bool,
    /// Where the files of a MariaDB's binlog are, when the agent runs beside it and may read
    /// them: with many commits a second they cost the database less than sending its binlog.
    /// The server sends it when absent, and of a database that is elsewhere.
    #[serde(default)]
    pub binlog_dir: Option<PathBuf>,
}

/// An account that only reads.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VerifyConf {
    /// The user, the same in all regions.
    pub user: String,
    /// Its password; none when absent.
    #[serde(default)]
    pub password: Option<Secret>,
}

/// Where a secret stands.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum Secret {
    /// A file whose first line it is.
    File(PathBuf),
    /// An environment variable.
    Env(String),
}

/// The HTTP API.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AdminConf {
    /// Address and port; loopback unless told otherwise.
    pub listen: String,
    /// The token that everything but health and metrics asks for; without one only
    /// those are served.
    pub token: Option<Secret>,
}

impl Default for AdminConf {
    fn default() -> Self {
        Self { listen: "127.0.0.1:7070".to_owned(), token: None }
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Reads the settings.
///
/// # Errors
/// Every problem with its place, in the order of the file.
pub fn parse(text: &str) -> Result<AgentConf, Vec<Problem>> {
    let (conf, problems) = yaml::read(text).map_err(|problem| vec![problem])?;
    problems.none_or(conf)
}
