//! What `agent` and `doctor` begin with: the topology, its region, the settings, and
//! the secrets that the settings name.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

use super::{secret, topology};
use crate::apply;
use crate::conf::{self, AgentConf};
use crate::database::{Login, SESSION};
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

    /// How the region's databases are reached.
    pub(super) fn databases(&self) -> anyhow::Result<Vec<mysql_async::Opts>> {
        let password = self.password()?;
        let addresses = self.region.databases.iter();
        addresses.map(|address| options(&self.conf, password.as_deref(), address)).collect()
    }

    /// A connection to the region's writable database. The session's settings are its
    /// own, whatever the server's are.
    pub(super) async fn connect(&self) -> anyhow::Result<mysql_async::Conn> {
        let (opts, ..) = apply::find_writable(&self.databases()?).await?;
        let session = format!("SET NAMES utf8mb4, {SESSION}");
        let opts = mysql_async::OptsBuilder::from_opts(opts).init(vec![session]);
        Ok(mysql_async::Conn::new(opts).await?)
    }

    /// The agent's account.
    pub(super) fn login(&self) -> anyhow::Result<Login> {
        let database = &self.conf.database;
        Ok(Login { user: database.user.clone(), password: self.password()?, tls: database.tls })
    }

    /// The account that reads the databases of all regions.
    pub(super) fn reader(&self) -> anyhow::Result<Login> {
        let Some(held) = &self.conf.verify else { return self.login() };
        Ok(Login {
            user: held.user.clone(),
            password: held.password.as_ref().map(secret::read).transpose()?,
            tls: self.conf.database.tls,
        })
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

/// How the database at an address is reached.
fn options(
    conf: &AgentConf,
    password: Option<&str>,
    address: &str,
) -> anyhow::Result<mysql_async::Opts> {
    let (host, port) = address.rsplit_once(':').context("a database address has no port")?;
    let builder = mysql_async::OptsBuilder::default()
        .ip_or_hostname(host.trim_matches(['[', ']']))
        .tcp_port(port.parse().context("a database address has no port")?)
        .user(Some(&conf.database.user))
        .pass(password)
        .prefer_socket(false)
        .tcp_nodelay(true)
        .max_allowed_packet(Some(1 << 30))
        .ssl_opts(conf.database.tls.then(mysql_async::SslOpts::default));
    Ok(builder.into())
}
