//! The admin API over HTTP.
//!
//! Reads the status board and the metrics, and hands commands to the agent; it
//! decides nothing. `/healthz`, `/readyz` and `/metrics` are open, since probes and
//! Prometheus read them and they change nothing; everything else needs the bearer
//! token. Errors are problem documents (RFC 9457).
//!
//! | method and path | answer |
//! |---|---|
//! | `GET /healthz` | 200 while the process answers |
//! | `GET /readyz` | 200, or 503 with one line for each cause |
//! | `GET /metrics` | Prometheus' text format |
//! | `GET /status` | the status document, JSON |
//! | `POST /streams/{origin}/pause`, `…/resume` | 204 once it is assigned; body: empty, or `{"who": "…", "reason": "…", "for": "30m"}` |
//! | `GET /ddl` | the schema changes that wait, and the last that were released, JSON |
//! | `POST /ddl/{id}/release` | 204 once it is released; body: empty, or `{"who": "…", "reason": "…"}` |

mod problem;
mod token;

pub use problem::Problem;
pub use token::{Token, TokenError};

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::clock::wall_us;
use crate::command::{By, Command, Commands, Reply};
use crate::metrics::Metrics;
use crate::status::{Assigned, StatusBoard};
use crate::topology::Span;

/// How long the agent may take to answer a command.
const REPLY_TIMEOUT: Duration = Duration::from_secs(10);
/// Commands carry a reason and nothing more.
const BODY_BYTES_MAX: usize = 16 * 1024;
/// What Prometheus' text format is called.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What the API reads and where its commands go.
#[derive(Clone, Debug)]
pub struct Admin {
    /// The status document.
    pub board: StatusBoard,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// The agent.
    pub commands: Commands,
    /// Who may read the status and give commands.
    pub token: Arc<Token>,
}

/// Serves until `cancel`, then lets open requests finish.
///
/// # Errors
/// The listener's.
pub async fn serve(
    listener: TcpListener,
    admin: Admin,
    cancel: CancellationToken,
) -> std::io::Result<()> {
    axum::serve(listener, router(admin)).with_graceful_shutdown(cancel.cancelled_owned()).await
}

fn router(admin: Admin) -> Router {
    let guarded = Router::new()
        .route("/status", get(status))
        .route("/streams/{origin}/{verb}", post(assign))
        .route("/ddl", get(ddl))
        .route("/ddl/{id}/release", post(release))
        .layer(from_fn_with_state(admin.clone(), authorise));
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .merge(guarded)
        .fallback(|| async { Problem::not_found("there is nothing at this path") })
        .method_not_allowed_fallback(|| async {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "the path does not take this method")
        })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(admin)
}

async fn authorise(State(admin): State<Admin>, request: Request, next: Next) -> Response {
    let given = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    if given.is_some_and(|given| admin.token.matches(given)) {
        return next.run(request).await;
    }
    let problem = Problem::new(
        StatusCode::UNAUTHORIZED,
        "a bearer token is needed: the content of the agent's admin token file",
    );
    ([(header::WWW_AUTHENTICATE, "Bearer realm=\"causeway\"")], problem).into_response()
}

async fn readyz(State(admin): State<Admin>) -> Response {
    let causes = admin.board.snapshot(wall_us()).not_ready();
    if causes.is_empty() {
        return "ready\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, causes.join("\n") + "\n").into_response()
}

async fn metrics(State(admin): State<Admin>) -> Result<Response, Problem> {
    let text = admin
        .metrics
        .render(&admin.board.snapshot(wall_us()))
        .map_err(|e| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, &e.to_string()))?;
    Ok(([(header::CONTENT_TYPE, METRICS_TYPE)], text).into_response())
}

async fn status(State(admin): State<Admin>) -> Response {
    axum::Json(admin.board.snapshot(wall_us())).into_response()
}

async fn ddl(State(admin): State<Admin>) -> Response {
    let mut status = admin.board.snapshot(wall_us());
    status.ddl.append(&mut status.ddl_released);
    axum::Json(status.ddl).into_response()
}

/// The optional body of a command.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Why {
    who: Option<String>,
    reason: Option<String>,
    /// How long a pause lasts: `30m`.
    r#for: Option<String>,
}

impl Why {
    fn read(body: &Bytes) -> Result<(By, Option<Duration>), Problem> {
        let bad = |text: String| Problem::new(StatusCode::BAD_REQUEST, &text);
        let why: Self = if body.is_empty() {
            Self::default()
        } else {
            serde_json::from_slice(body).map_err(|error| bad(format!("the body: {error}")))?
        };
        let span = why.r#for.map(|text| text.parse::<Span>()).transpose();
        let span = span.map_err(|error| bad(format!("for: {error}")))?;
        Ok((By { who: why.who, reason: why.reason }, span.map(Span::get)))
    }
}

async fn assign(
    State(admin): State<Admin>,
    Path((origin, verb)): Path<(String, String)>,
    body: Bytes,
) -> Result<StatusCode, Problem> {
    let assigned = match verb.as_str() {
        "pause" => Assigned::Paused,
        "resume" => Assigned::Running,
        _ => return Err(Problem::not_found("a stream takes pause and resume")),
    };
    let (by, span) = Why::read(&body)?;
    ask(&admin.commands, |reply| Command::Assign { origin, assigned, by, span, reply }).await
}

async fn release(
    State(admin): State<Admin>,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<StatusCode, Problem> {
    let (by, _) = Why::read(&body)?;
    ask(&admin.commands, |reply| Command::ReleaseDdl { id, by, reply }).await
}

async fn ask(
    commands: &Commands,
    command: impl FnOnce(Reply) -> Command,
) -> Result<StatusCode, Problem> {
    let (reply, answer) = oneshot::channel();
    commands.try_send(command(reply)).map_err(|_| Problem::busy("the agent takes no command"))?;
    match tokio::time::timeout(REPLY_TIMEOUT, answer).await {
        Ok(Ok(Ok(()))) => Ok(StatusCode::NO_CONTENT),
        Ok(Ok(Err(refusal))) => Err(refusal.into()),
        Ok(Err(_)) => Err(Problem::busy("the agent is stopping; the outcome is not known")),
        Err(_) => Err(Problem::busy("the agent has not answered; the outcome is not known")),
    }
}
