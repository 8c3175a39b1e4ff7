//! What `agent` and `doctor` begin with: the topology, its region, the settings, and
//! the secrets that the settings name.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;

use super::{secret, topology};
use crate::conf::{self, AgentConf};
use crate::topology::{Region, Topology};

/// Which region, and where its settings stand.
#[derive(Debug, Args)]
pub(super) struct SettingsArguments {
    /// The topology file
    #[arg(long)]
    topology: PathBuf,
    /// The region
    #[arg(long)]
    region: String,
    /// The agent's settings
    #[arg(long)]
    conf: PathBuf,
}

/// Both files, read and checked.
pub(super) struct Settings {
    pub(super) topology: Topology,
    pub(super) region: Region,
    pub(super) conf: AgentConf,
}

impl SettingsArguments {
    /// Reads both files; their problems go to stderr, and then there are no settings.
    pub(super) fn load(&self) -> anyhow::Result<Option<Settings>> {
        let Some(topology) = topology::load(&self.topology)? else { return Ok(None) };
        let Some(region) = topology::region(&topology, &self.region) else { return Ok(None) };
        let text = topology::read(&self.conf)?;
        match conf::parse(&text) {
            Ok(conf) => Ok(Some(Settings { topology, region, conf })),
            Err(problems) => {
                topology::tell(&self.conf, &text, &problems);
                Ok(None)
            }
        }
    }
}

impl Settings {
    /// The database's password.
    pub(super) fn password(&self) -> anyhow::Result<Option<String>> {
        self.conf.database.password.as_ref().map(secret::read).transpose()
    }

    /// librdkafka properties, secret ones included.
    pub(super) fn kafka(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let mut kafka = self.conf.kafka.clone();
        for (name, held) in &self.conf.kafka_secrets {
            kafka.insert(name.clone(), secret::read(held)?);
        }
        Ok(kafka)
    }
}
