//! The admin port.
//!
//! * `/metrics`: all metrics, Prometheus text format
//! * `/healthz`: 200 while every shard gives signs of life, else 503 and which one does not
//! * `/readyz`: 200 while viewers can connect, else 503 and why not: `starting`, `draining`, `stopping`

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;

use super::Health;

/// Prometheus' text format by its registered name.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

#[derive(Clone)]
struct Admin {
    metrics: PrometheusHandle,
    health: Arc<Health>,
}

/// The routes of the admin port.
pub(super) fn router(metrics: PrometheusHandle, health: Arc<Health>) -> Router {
    Router::new()
        .route("/metrics", get(render_metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(Admin { metrics, health })
}

async fn render_metrics(State(admin): State<Admin>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, METRICS_TYPE)], admin.metrics.render())
}

async fn healthz(State(admin): State<Admin>) -> impl IntoResponse {
    match admin.health.stale(tokio::time::Instant::now().into_std()) {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some((shard, silent)) => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("shard {shard} gave no sign of life for {} s\n", silent.as_secs()))
        }
    }
}

async fn readyz(State(admin): State<Admin>) -> impl IntoResponse {
    if admin.health.ready() {
        (StatusCode::OK, "ok\n")
    } else if admin.health.stopping() {
        (StatusCode::SERVICE_UNAVAILABLE, "stopping\n")
    } else if admin.health.draining() {
        (StatusCode::SERVICE_UNAVAILABLE, "draining\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "starting\n")
    }
}
