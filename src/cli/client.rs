//! Talks to a running agent's admin API.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::Args;
use http_body_util::{BodyExt as _, Full};
use hyper::{Method, Request, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;

use super::secret;
use crate::conf::Secret;

/// The agent itself waits ten seconds for its parts.
const PATIENCE: Duration = Duration::from_secs(15);

/// Which agent, and the right to ask it.
#[derive(Debug, Args)]
pub(super) struct Agent {
    /// Address and port of the agent's admin API
    #[arg(long, env = "CAUSEWAY_ADMIN_ADDR", default_value = "127.0.0.1:7070")]
    addr: String,
    /// A file whose first line is the admin token
    #[arg(long, env = "CAUSEWAY_ADMIN_TOKEN_FILE")]
    token_file: Option<PathBuf>,
}

/// What the agent answered.
pub(super) enum Answer {
    /// It did as it was asked.
    Done(Bytes),
    /// It refused, and this is why.
    Refused(String),
}

#[derive(Deserialize)]
struct Problem {
    detail: String,
}

impl Agent {
    /// One request. Nothing but the agent's own refusal is an answer: what did not
    /// reach it, or did not come back, is an error.
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: String,
    ) -> anyhow::Result<Answer> {
        let uri = format!("http://{}{path}", self.addr);
        let mut request = Request::builder().method(method).uri(&uri);
        if let Some(file) = &self.token_file {
            let token = secret::read(&Secret::File(file.clone()))?;
            request = request.header("authorization", format!("Bearer {}", token.trim()));
        }
        let request = request.body(Full::new(Bytes::from(body)))?;
        let client = Client::builder(TokioExecutor::new()).build_http();
        let exchange = async {
            let response = client.request(request).await?;
            let status = response.status();
            anyhow::Ok((status, response.into_body().collect().await?.to_bytes()))
        };
        let (status, body) = tokio::time::timeout(PATIENCE, exchange)
            .await
            .with_context(|| format!("{} does not answer", self.addr))?
            .with_context(|| format!("no agent answers at {uri}"))?;
        if status.is_success() {
            return Ok(Answer::Done(body));
        }
        let why = serde_json::from_slice::<Problem>(&body)
            .map_or_else(|_| format!("the agent answers {status}"), |problem| problem.detail);
        match status {
            StatusCode::NOT_FOUND | StatusCode::CONFLICT => Ok(Answer::Refused(why)),
            _ => bail!(why),
        }
    }
}

/// A runtime for one command.
pub(super) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}
