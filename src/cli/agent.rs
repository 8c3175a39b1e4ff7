//! `causeway agent`: runs the agent of a region.

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;

use super::settings::SettingsArguments;
use super::{Exit, secret};
use crate::admin::Token;
use crate::agent::{self, Setup};
use crate::conf::LogFormat;

pub(super) fn run(arguments: &SettingsArguments) -> anyhow::Result<Exit> {
    let Some(settings) = arguments.load()? else { return Ok(Exit::Usage) };
    let conf = &settings.conf;
    log(conf.log_format);
    let token = match &conf.admin.token {
        Some(held) => secret::read(held)?,
        None => random_token()?,
    };
    let setup = Setup {
        server_id: conf
            .database
            .server_id
            .unwrap_or(4_000_000 + u32::from(settings.region.id.get())),
        binlog_dir: conf.database.binlog_dir.clone(),
        databases: settings.databases()?,
        verify: settings.reader()?,
        kafka: settings.kafka()?,
        listen: conf.admin.listen.clone(),
        token: std::sync::Arc::new(Token::new(&token)?),
        grace: conf.grace.get(),
        topology: settings.topology,
        region: settings.region,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let cancel = CancellationToken::new();
        let mut stop = tokio::task::JoinSet::new();
        stop.spawn(signals(cancel.clone()));
        Box::pin(agent::run(setup, cancel)).await.context("the HTTP API can't listen")
    })?;
    Ok(Exit::Done)
}

/// Without a token in the settings nobody can give one: health and metrics alone are
/// served.
fn random_token() -> anyhow::Result<String> {
    use std::io::Read as _;
    let mut bytes = [0; 32];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn log(format: LogFormat) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("CAUSEWAY_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,rdkafka=off,librdkafka=off"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => builder.with_ansi(false).init(),
        LogFormat::Json => builder.json().init(),
    }
}

/// SIGTERM and Ctrl-C finish the batch in flight; a second one does not wait.
async fn signals(cancel: CancellationToken) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::error!("signals can't be taken: stop the agent with SIGKILL, which is safe");
        return;
    };
    for again in [false, true] {
        tokio::select! {
            _ = term.recv() => {}
            _ = interrupt.recv() => {}
        }
        if again {
            std::process::exit(130);
        }
        tracing::info!("stopping; once more stops at once");
        cancel.cancel();
    }
}
