//! `POST /purge`: takes objects out of RAM and disk, and says so only when that is done on every shard and written down.
//!
//! Called by [`super::serve`]; reaches shards through their mailboxes alone. Two rounds: names to all shards, then the bytes of what they knew. Only POST, and
//! never for a browser that was led here by another site (it says `Origin`).

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, StatusCode, Uri, header};
use percent_encoding::percent_decode_str;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use crate::s3::NamePattern;
use crate::shard::World;
use crate::shard::message::Message;
use crate::shard::purge::{Gone, Order, What};

/// How long all shards may take: below the patience of the door.
const PURGE_MS: u64 = 8_000;

/// What a purge needs to know of the server.
pub struct Purger {
    /// All shards.
    pub world: Arc<World>,
    /// What this run calls itself in the cache directory; one who asks for another is sent away.
    pub run: String,
}

impl std::fmt::Debug for Purger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Purger").field("run", &self.run).finish()
    }
}

/// Of the query.
#[derive(Default)]
struct Question {
    name: Vec<u8>,
    origin: Option<Vec<u8>>,
    run: Option<Vec<u8>>,
}

impl Question {
    fn read(query: &str) -> Result<Self, String> {
        let mut question = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (field, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value: Vec<u8> = percent_decode_str(value).collect();
            match field {
                "name" => question.name = value,
                "origin" => question.origin = Some(value),
                "run" => question.run = Some(value),
                other => return Err(format!("unknown parameter {other:?}")),
            }
        }
        Ok(question)
    }
}

type Answer = (StatusCode, String);

fn refuse(status: StatusCode, why: &str) -> Answer {
    (status, format!("{why}\n"))
}

impl Purger {
    /// Answers one request.
    pub(super) async fn answer(&self, uri: &Uri, headers: &HeaderMap) -> Answer {
        if headers.contains_key(header::ORIGIN) {
            return refuse(StatusCode::FORBIDDEN, "a page of a browser may not purge");
        }
        let question = match Question::read(uri.query().unwrap_or_default()) {
            Ok(question) => question,
            Err(why) => return refuse(StatusCode::BAD_REQUEST, &why),
        };
        if question.run.is_some_and(|run| run != self.run.as_bytes()) {
            return refuse(StatusCode::MISDIRECTED_REQUEST, "another server is meant");
        }
        let pattern = NamePattern::parse(&question.name, question.origin.as_deref());
        let pattern = match pattern {
            Ok(pattern) => Arc::new(pattern),
            Err(why) => return refuse(StatusCode::BAD_REQUEST, &format!("name: {why}")),
        };
        match timeout(Duration::from_millis(PURGE_MS), self.purge(pattern)).await {
            Err(_) => refuse(
                StatusCode::GATEWAY_TIMEOUT,
                "not all shards have answered in time: ask again",
            ),
            Ok(gone) => {
                let name = question.name.escape_ascii().to_string();
                let (objects, bytes) = (gone.versions.len(), gone.bytes);
                tracing::info!(name, objects, bytes, recorded = !gone.unrecorded, "purged");
                if gone.unrecorded {
                    return refuse(
                        StatusCode::SERVICE_UNAVAILABLE,
                        "gone until the server ends, but it could not be written to the cache directory: ask again",
                    );
                }
                let mut text = String::new();
                let _ = writeln!(text, "objects {objects}\nbytes {bytes}");
                (StatusCode::OK, text)
            }
        }
    }

    async fn purge(&self, pattern: Arc<NamePattern>) -> Gone {
        let mut gone = self.all(|| What::Names(Arc::clone(&pattern))).await;
        let versions: Arc<[_]> = gone.versions.as_slice().into();
        gone.bytes = self.all(|| What::Bytes(Arc::clone(&versions))).await.bytes;
        gone
    }

    /// Gives one order to all shards, and adds up what they say.
    async fn all(&self, what: impl Fn() -> What) -> Gone {
        let mut answers = Vec::new();
        for shard in &self.world.shards {
            let (said, heard) = oneshot::channel();
            answers.push(heard);
            let mut message = Message::Purge(Box::new(Order {
                what: what(),
                done: Box::new(move |gone| drop(said.send(gone))),
            }));
            while let Err(back) = shard.mailbox.push(message) {
                message = back;
                sleep(Duration::from_millis(1)).await;
            }
        }
        let mut sum = Gone::default();
        for answer in answers {
            // A shard that ends takes the process along.
            let gone = answer.await.unwrap_or_default();
            sum.versions.extend(gone.versions);
            sum.bytes += gone.bytes;
            sum.unrecorded |= gone.unrecorded;
        }
        sum
    }
}
