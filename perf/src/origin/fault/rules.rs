//! Fault rules: which requests fail, and how.
//!
//! Posted as a JSON list to `/faults` of the side port; asked once per request by the connection. Invariants: rules
//! are looked at in order and all that apply act together; a rule counts every request that matches it, whether it
//! applied or not, so "the third" means the third since the rule was set. Left to others: doing it (`plan`, `write`).

use std::sync::Mutex;

use regex::Regex;
use serde::{Deserialize, Serialize};

use super::request::Request;
use crate::Headers;

/// Which requests a rule looks at. A regex that is absent matches all; none is anchored by itself.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Match {
    /// Regex on the method.
    pub method: Option<String>,
    /// Regex on `bucket/key` as on the wire.
    pub key: Option<String>,
    /// Regex on the query as on the wire, empty when there is none.
    pub query: Option<String>,
    /// Regex on the value of `Range`, empty when there is none.
    pub range: Option<String>,
}

/// One rule.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Which requests.
    #[serde(default, rename = "match")]
    pub matches: Match,
    /// Only the n-th of them, from 1. The same as `after` n-1, `count` 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nth: Option<u64>,
    /// Not the first so many.
    #[serde(default)]
    pub after: u64,
    /// At most so many times; without it, always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// What happens.
    pub action: Action,
}

impl Rule {
    /// A rule for every request.
    pub fn always(action: Action) -> Self {
        Rule {
            matches: Match::default(),
            nth: None,
            after: 0,
            count: None,
            action,
        }
    }

    /// A rule for the requests whose `bucket/key` matches the regex.
    pub fn for_key(key: &str, action: Action) -> Self {
        let mut rule = Rule::always(action);
        rule.matches.key = Some(key.to_string());
        rule
    }

    /// The same, for one method only.
    pub fn method(mut self, method: &str) -> Self {
        self.matches.method = Some(format!("^{method}$"));
        self
    }

    /// The same, but only the n-th time.
    pub fn nth(mut self, nth: u64) -> Self {
        self.nth = Some(nth);
        self
    }

    /// The same, but at most so many times.
    pub fn times(mut self, count: u64) -> Self {
        self.count = Some(count);
        self
    }
}

/// What a changed ETag depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Vary {
    /// Another one on every request.
    Request,
    /// Another one for each start of a range.
    Range,
}

/// One fault. Byte positions count from the start of the body of this answer. In JSON an object whose `kind` is
/// the name in snake case. Fields are explained with their variant.
#[allow(missing_docs)]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Action {
    /// Waits before the head.
    DelayHead { ms: u64 },
    /// Waits once `at` body bytes are sent.
    DelayBody { at: u64, ms: u64 },
    /// Sends the head in pieces, waiting between them.
    TrickleHead { bytes: usize, ms: u64 },
    /// Sends the body at about this rate.
    Rate { bytes_per_s: u64 },
    /// Closes instead of answering.
    CutBeforeHead {
        #[serde(default)]
        rst: bool,
    },
    /// Closes after the head.
    CutAfterHead {
        #[serde(default)]
        rst: bool,
    },
    /// Closes once `at` body bytes are sent.
    CutBody {
        at: u64,
        #[serde(default)]
        rst: bool,
    },
    /// Closes once `at` bytes of the request body are read.
    CutUpload {
        at: u64,
        #[serde(default)]
        rst: bool,
    },
    /// Answers with this status and an S3 error document; does nothing else of what was asked.
    Status {
        code: u16,
        #[serde(default)]
        retry_after_s: Option<u64>,
    },
    /// Announces so many bytes more or less than are sent. Closes after more, stays open after less.
    ContentLength { add: i64 },
    /// Announces another `Content-Range`: this value, or the true one moved.
    ContentRange {
        #[serde(default)]
        value: Option<String>,
        #[serde(default)]
        start_add: i64,
        #[serde(default)]
        end_add: i64,
        #[serde(default)]
        total_add: i64,
    },
    /// Answers 200 and the whole object to a `Range` request.
    IgnoreRange,
    /// Answers without `ETag`.
    MissingEtag,
    /// Answers with another `ETag`: this value, or one that varies. Conditions are still judged by the true one.
    Etag {
        #[serde(default)]
        value: Option<String>,
        #[serde(default)]
        vary: Option<Vary>,
    },
    /// The object becomes another version, bytes and ETag, before the request is looked at.
    NewVersion,
    /// Leaves a header out.
    RemoveHeader { name: String },
    /// Sets or adds a header.
    SetHeader { name: String, value: String },
    /// `Transfer-Encoding: chunked` without a length.
    Chunked {
        #[serde(default)]
        chunk_bytes: Option<usize>,
        #[serde(default)]
        trailers: Headers,
    },
    /// Neither length nor chunks: the body ends with the connection.
    CloseDelimited,
    /// Keep-alive is announced, and the connection closed so many ms after the answer.
    CloseIdle {
        #[serde(default)]
        ms: u64,
    },
    /// `Connection: close`, and closed.
    Close,
    /// Sends so many interim answers before the final one.
    Interim {
        status: u16,
        #[serde(default = "one")]
        count: u32,
        #[serde(default)]
        headers: Headers,
    },
    /// Answers an upload before its body is read. Then reads the body and stays open (`drain`), or closes.
    EarlyAnswer {
        status: u16,
        #[serde(default)]
        drain: bool,
    },
    /// Never answers; the connection stays open until the client closes it.
    Hang,
    /// Answers with bytes that are not HTTP, and closes.
    Garbage,
    /// Answers with exactly these bytes (each character is one byte, up to U+00FF), then closes or stays open.
    Raw {
        text: String,
        #[serde(default)]
        keep_open: bool,
    },
    /// Flips the body byte at this position.
    Corrupt { at: u64 },
}

fn one() -> u32 {
    1
}

impl Action {
    /// The name in JSON, for the log.
    pub fn name(&self) -> String {
        let value = serde_json::to_value(self).expect("plain data serialises");
        value["kind"]
            .as_str()
            .expect("the tag is a string")
            .to_string()
    }
}

/// Why a list of rules was refused.
#[derive(Debug, thiserror::Error)]
pub enum RuleError {
    /// Not the JSON of a list of rules.
    #[error("not a list of rules: {0}")]
    Json(#[from] serde_json::Error),
    /// A regex that cannot be compiled.
    #[error("rule {index}: {error}")]
    Regex {
        /// Position in the list.
        index: usize,
        /// What the regex crate says.
        error: Box<regex::Error>,
    },
}

#[derive(Debug)]
struct Compiled {
    rule: Rule,
    method: Option<Regex>,
    key: Option<Regex>,
    query: Option<Regex>,
    range: Option<Regex>,
    seen: u64,
    applied: u64,
}

impl Compiled {
    fn matches(&self, request: &Request) -> bool {
        let test = |regex: &Option<Regex>, text: &str| {
            regex.as_ref().is_none_or(|regex| regex.is_match(text))
        };
        test(&self.method, &request.method)
            && test(&self.key, &request.wire_key)
            && test(&self.query, &request.query)
            && test(&self.range, request.header("range").unwrap_or(""))
    }

    /// Counts a matching request and says whether the rule applies to it.
    fn count(&mut self) -> bool {
        let earlier = self.seen;
        self.seen += 1;
        let applies = match self.rule.nth {
            Some(nth) => self.seen == nth,
            None => {
                earlier >= self.rule.after
                    && self.rule.count.is_none_or(|count| self.applied < count)
            }
        };
        self.applied += u64::from(applies);
        applies
    }
}

/// A rule with what became of it, `GET /faults`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RuleState {
    /// The rule as it was set.
    pub rule: Rule,
    /// Requests that matched.
    pub seen: u64,
    /// Requests it applied to.
    pub applied: u64,
}

/// The rules in force.
#[derive(Debug, Default)]
pub struct Faults {
    rules: Mutex<Vec<Compiled>>,
}

impl Faults {
    /// Replaces all rules by these; none ends all faults. All or nothing.
    pub fn set(&self, rules: Vec<Rule>) -> Result<(), RuleError> {
        let compiled: Result<Vec<Compiled>, RuleError> = rules
            .into_iter()
            .enumerate()
            .map(|(index, rule)| compile(index, rule))
            .collect();
        *self.rules.lock().expect("no panic while it is held") = compiled?;
        Ok(())
    }

    /// The same from JSON.
    pub fn set_json(&self, json: &[u8]) -> Result<(), RuleError> {
        self.set(serde_json::from_slice(json)?)
    }

    /// The rules and their counts.
    pub fn states(&self) -> Vec<RuleState> {
        let rules = self.rules.lock().expect("no panic while it is held");
        rules
            .iter()
            .map(|c| RuleState {
                rule: c.rule.clone(),
                seen: c.seen,
                applied: c.applied,
            })
            .collect()
    }

    /// What happens to this request; counts it.
    pub fn actions_for(&self, request: &Request) -> Vec<Action> {
        let mut rules = self.rules.lock().expect("no panic while it is held");
        let mut actions = Vec::new();
        for compiled in rules.iter_mut() {
            if compiled.matches(request) && compiled.count() {
                actions.push(compiled.rule.action.clone());
            }
        }
        actions
    }
}

fn compile(index: usize, rule: Rule) -> Result<Compiled, RuleError> {
    let regex = |text: &Option<String>| {
        let compiled = text.as_deref().map(Regex::new).transpose();
        compiled.map_err(|error| RuleError::Regex {
            index,
            error: Box::new(error),
        })
    };
    let m = &rule.matches;
    let (method, key, query, range) = (
        regex(&m.method)?,
        regex(&m.key)?,
        regex(&m.query)?,
        regex(&m.range)?,
    );
    Ok(Compiled {
        rule,
        method,
        key,
        query,
        range,
        seen: 0,
        applied: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(head: &str) -> Request {
        Request::parse(head.as_bytes(), &[]).expect("well formed")
    }

    #[test]
    fn nth_after_and_count_select_the_requests() {
        let get = request("GET /b/k HTTP/1.1\r\nHost: h\r\n\r\n");
        let pattern = |json: &str| {
            let faults = Faults::default();
            faults.set_json(json.as_bytes()).expect("good rules");
            (0..5)
                .map(|_| {
                    if faults.actions_for(&get).is_empty() {
                        '.'
                    } else {
                        'x'
                    }
                })
                .collect::<String>()
        };
        assert_eq!(pattern(r#"[{"action":{"kind":"hang"}}]"#), "xxxxx");
        assert_eq!(pattern(r#"[{"nth":3,"action":{"kind":"hang"}}]"#), "..x..");
        assert_eq!(
            pattern(r#"[{"after":2,"action":{"kind":"hang"}}]"#),
            "..xxx"
        );
        assert_eq!(
            pattern(r#"[{"after":1,"count":2,"action":{"kind":"hang"}}]"#),
            ".xx.."
        );
        assert_eq!(
            pattern(r#"[{"match":{"method":"PUT"},"action":{"kind":"hang"}}]"#),
            "....."
        );
        assert_eq!(
            pattern(r#"[{"match":{"key":"^b/k$"},"action":{"kind":"hang"}}]"#),
            "xxxxx"
        );
        assert_eq!(
            pattern(r#"[{"match":{"range":"bytes"},"action":{"kind":"hang"}}]"#),
            "....."
        );
    }

    #[test]
    fn unknown_names_and_bad_regexes_are_refused_and_change_nothing() {
        let faults = Faults::default();
        faults
            .set(vec![Rule::always(Action::Hang)])
            .expect("good rule");
        for bad in [
            r#"[{"action":{"kind":"nonsense"}}]"#,
            r#"[{"action":{"kind":"cut_body"}}]"#,
            r#"[{"action":{"kind":"cut_body","at":1,"extra":2}}]"#,
            r#"[{"match":{"keys":"x"},"action":{"kind":"hang"}}]"#,
            r#"[{"match":{"key":"("},"action":{"kind":"hang"}}]"#,
            r#"{"action":{"kind":"hang"}}"#,
        ] {
            assert!(faults.set_json(bad.as_bytes()).is_err(), "{bad}");
        }
        assert_eq!(faults.states().len(), 1);
    }

    #[test]
    fn every_action_survives_json() {
        let actions = [
            Action::CutBody { at: 5, rst: true },
            Action::Etag {
                value: None,
                vary: Some(Vary::Range),
            },
            Action::Interim {
                status: 103,
                count: 2,
                headers: vec![("Link".into(), "x".into())],
            },
            Action::IgnoreRange,
        ];
        for action in actions {
            let json = serde_json::to_string(&Rule::always(action.clone())).expect("plain data");
            let back: Rule = serde_json::from_str(&json).expect("its own JSON");
            assert_eq!(back.action, action);
        }
        assert_eq!(Action::CutBody { at: 5, rst: true }.name(), "cut_body");
    }
}
