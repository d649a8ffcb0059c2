//! `MILLRACE_…` variables: one for each key, and none besides.
//!
//! `load.rs` calls this with the environment as data. An unknown name is an error, since a mistyped one would
//! otherwise be ignored in silence. Excepted are the variables that container platforms set by themselves for a
//! service which happens to be named `millrace`.

use std::net::IpAddr;

use super::error::{Fault, Place};
use super::layers::Layers;
use super::suggest::nearest;
use super::table::settings;
use super::value::ValueError;

/// What the name of every variable of ours begins with.
pub const PREFIX: &str = "MILLRACE_";

/// Names the configuration file, as `--config` does; the flag overrides it.
pub const CONFIG: &str = "MILLRACE_CONFIG";

/// Lays the variables over what is there.
pub(super) fn apply(mut env: Vec<(String, String)>, layers: &mut Layers) {
    env.retain(|(name, value)| {
        name.starts_with(PREFIX) && name != CONFIG && !is_service_link(name, value)
    });
    env.sort();
    for (name, value) in env {
        match settings().find(|setting| setting.variable() == name) {
            // The replacement character is what text of unknown encoding was turned into on its way here.
            Some(setting) if value.contains('\u{fffd}') => {
                let error = ValueError::NotUtf8;
                layers.set(setting, Place::Variable(name), Err(error));
            }
            Some(setting) => {
                let parsed = setting.kind.parse_word(&value);
                layers.set(setting, Place::Variable(name), parsed);
            }
            None => {
                let mut known: Vec<String> = settings().map(|s| s.variable()).collect();
                known.push(CONFIG.to_owned());
                let rest = &name[PREFIX.len()..];
                let near = nearest(rest, known.iter().map(|known| &known[PREFIX.len()..]));
                let nearest = near.map(|near| format!("{PREFIX}{near}"));
                layers.fail(Place::Variable(name), Fault::UnknownVariable { nearest });
            }
        }
    }
}

/// Whether a platform set it to tell about a service: Kubernetes' service variables and Docker's links,
/// `MILLRACE_SERVICE_HOST=10.0.0.1`, `MILLRACE_PORT_8080_TCP=tcp://10.0.0.1:8080` and their like.
fn is_service_link(name: &str, value: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let parts: Vec<&str> = name[PREFIX.len()..].split('_').collect();
    match parts.as_slice() {
        [.., "SERVICE", "HOST"] => value.parse::<IpAddr>().is_ok(),
        [.., "PORT", number, "TCP" | "UDP" | "SCTP"]
        | [
            ..,
            "PORT",
            number,
            "TCP" | "UDP" | "SCTP",
            "PROTO" | "PORT" | "ADDR",
        ] => digits(number),
        [.., "PORT"] if value.contains("://") => true,
        _ => parts.windows(2).any(|pair| pair == ["SERVICE", "PORT"]) && digits(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_key_has_a_variable_of_its_own() {
        let names: BTreeSet<String> = settings().map(|setting| setting.variable()).collect();
        assert_eq!(names.len(), settings().count());
        assert!(names.contains("MILLRACE_RAM_SIZE"));
        assert!(names.contains("MILLRACE_LISTENER_HEAD_TIMEOUT"));
        assert!(!names.contains(CONFIG));
    }

    #[test]
    fn variables_of_a_container_platform_are_not_ours() {
        for (name, value) in [
            ("MILLRACE_SERVICE_HOST", "10.0.0.1"),
            ("MILLRACE_SERVICE_PORT", "8080"),
            ("MILLRACE_SERVICE_PORT_HTTP", "8080"),
            ("MILLRACE_ADMIN_SERVICE_HOST", "fd00::1"),
            ("MILLRACE_PORT", "tcp://10.0.0.1:8080"),
            ("MILLRACE_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
            ("MILLRACE_PORT_8080_TCP_ADDR", "10.0.0.1"),
            ("MILLRACE_ADMIN_PORT_9180_TCP_PROTO", "tcp"),
        ] {
            assert!(is_service_link(name, value), "{name}");
        }
        for (name, value) in [
            ("MILLRACE_PORT", "8080"),
            ("MILLRACE_LISTENER_PORT", "8080"),
            ("MILLRACE_RAM_SIZE", "1GiB"),
            ("MILLRACE_", ""),
        ] {
            assert!(!is_service_link(name, value), "{name}");
        }
        for setting in settings() {
            assert!(!is_service_link(&setting.variable(), "8080"));
        }
    }
}
