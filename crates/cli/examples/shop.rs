//! The small HTTP server that the demo's workflow works with. Prints `ready <url>` and serves until it is ended.
//!
//! `GET /orders/{id}`, `/customers/{id}`, `/prices?skus=a,b`, `/stock/{id}` (fails twice per order, then answers),
//! `POST /results`.
#![allow(missing_docs)]

use std::collections::HashMap;
use std::io::Write;
use std::sync::{Arc, Mutex};

use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

#[derive(Clone, Default)]
struct Shop(Arc<Mutex<Books>>);

#[derive(Default)]
struct Books {
    /// Requests for stock by order.
    asked: HashMap<String, u32>,
    /// Results by idempotency key: a repeat is the same result.
    results: HashMap<String, Value>,
}

const PRICES: [(&str, f64); 4] = [("tea", 4.5), ("kettle", 39.0), ("cup", 7.25), ("robot", 899.0)];

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let shop = Shop::default();
    let app = Router::new()
        .route("/orders/{id}", get(order))
        .route("/customers/{id}", get(customer))
        .route("/prices", get(prices))
        .route("/stock/{id}", get(stock))
        .route("/results", post(results).get(all_results))
        .with_state(shop);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("ready http://{}", listener.local_addr()?);
    std::io::stdout().flush()?;
    axum::serve(listener, app).await
}

async fn order(Path(id): Path<String>) -> Json<Value> {
    let lines = if id.starts_with('L') {
        json!([{ "sku": "robot", "quantity": 2 }, { "sku": "cup", "quantity": 4 }])
    } else {
        json!([{ "sku": "tea", "quantity": 3 }, { "sku": "kettle", "quantity": 1 }, { "sku": "cup", "quantity": 2 }])
    };
    Json(json!({ "orderId": id, "customerId": "c-17", "lines": lines }))
}

async fn customer(Path(id): Path<String>) -> Json<Value> {
    Json(json!({ "customerId": id, "name": "Ada Lovelace" }))
}

async fn prices(Query(query): Query<HashMap<String, String>>) -> Json<Value> {
    let wanted = query.get("skus").map(String::as_str).unwrap_or_default();
    let prices: serde_json::Map<_, _> = PRICES
        .iter()
        .filter(|(sku, _)| wanted.split(',').any(|it| it == *sku))
        .map(|(sku, price)| ((*sku).to_owned(), json!(price)))
        .collect();
    Json(Value::Object(prices))
}

async fn stock(State(shop): State<Shop>, Path(id): Path<String>) -> (StatusCode, Json<Value>) {
    let Ok(mut books) = shop.0.lock() else { return (StatusCode::INTERNAL_SERVER_ERROR, Json(Value::Null)) };
    let asked = books.asked.entry(id).or_default();
    *asked += 1;
    if *asked <= 2 {
        return (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "error": "the stock service is being restarted" })));
    }
    (StatusCode::OK, Json(json!({ "available": true })))
}

async fn results(State(shop): State<Shop>, headers: HeaderMap, Json(body): Json<Value>) -> (StatusCode, Json<Value>) {
    let key = headers.get("idempotency-key").and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let Ok(mut books) = shop.0.lock() else { return (StatusCode::INTERNAL_SERVER_ERROR, Json(Value::Null)) };
    let number = books.results.len() + 1;
    let result =
        books.results.entry(key).or_insert_with(|| json!({ "resultId": format!("r-{number}"), "result": body }));
    (StatusCode::CREATED, Json(json!({ "resultId": result["resultId"] })))
}

async fn all_results(State(shop): State<Shop>) -> Json<Value> {
    let results = shop.0.lock().map(|books| books.results.values().cloned().collect());
    Json(results.unwrap_or(Value::Null))
}
