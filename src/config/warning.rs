//! What an operator should know of settings that hold: they work, and may not be meant.
//!
//! `load.rs` calls [`warnings`]; `main.rs` prints each as one line that names the setting.

use std::net::SocketAddr;

use super::table::{Access, ClientCertificate, Settings};
use super::url::{OriginUrl, Scheme};

/// What works and may not be meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Warning {
    /// A door that other hosts reach, and no rule about who may read.
    #[error(
        "{key} {door} can be reached from other hosts, and with cache.access = \"open\" whoever reaches it may read what is cached"
    )]
    OpenDoor {
        /// The list of doors.
        key: &'static str,
        /// The door.
        door: SocketAddr,
    },
    /// Metrics for everybody.
    #[error(
        "admin.listen {address} can be reached from other hosts, and the admin address has no authentication"
    )]
    OpenAdmin {
        /// The admin address.
        address: SocketAddr,
    },
    /// Requests and bodies in clear on a network.
    #[error("{key} {url} is plain HTTP to another host: requests and bodies travel in clear")]
    PlainOrigin {
        /// The key that names the origin.
        key: &'static str,
        /// The origin.
        url: OriginUrl,
    },
    /// A size for a disk that is not there.
    #[error("disk.size has no effect while disk.dir is \"none\"")]
    DiskSizeUnused,
}

/// What an operator should know of settings that hold.
#[must_use]
pub fn warnings(settings: &Settings) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let others_reach = |address: &SocketAddr| !address.ip().to_canonical().is_loopback();
    match settings.cache.access {
        Access::Open => {
            let listener = &settings.listener;
            let tls = match (
                &settings.tls.client_ca_file,
                settings.tls.client_certificate,
            ) {
                (Some(_), ClientCertificate::Required) => &[],
                _ => &listener.tls[..],
            };
            let kinds = [
                ("listener.http", &listener.http[..], &listener.http_allow),
                ("listener.tls", tls, &listener.tls_allow),
            ];
            for (key, doors, allow) in kinds {
                let doors = doors.iter().copied().filter(|_| allow.is_empty());
                let open = doors.filter(others_reach);
                warnings.extend(open.map(|door| Warning::OpenDoor { key, door }));
            }
        }
        Access::Revalidate | Access::Exact => {}
    }
    let address = settings.admin.listen;
    if others_reach(&address) {
        warnings.push(Warning::OpenAdmin { address });
    }
    for (key, url) in origin_urls(settings) {
        if url.scheme == Scheme::Http && !url.is_loopback() {
            let url = url.clone();
            warnings.push(Warning::PlainOrigin { key, url });
        }
    }
    if settings.disk.dir.is_none() && settings.disk.size_bytes > 0 {
        warnings.push(Warning::DiskSizeUnused);
    }
    warnings
}

fn origin_urls(settings: &Settings) -> impl Iterator<Item = (&'static str, &OriginUrl)> {
    let single = settings.routing.origin.iter();
    let named = settings.origins.iter().map(|origin| &origin.url);
    single
        .map(|url| ("routing.origin", url))
        .chain(named.map(|url| ("origin.url", url)))
}

#[cfg(test)]
mod tests {
    use crate::config::{Flags, Settings, Sources};

    fn warnings(flags: &[(&str, &str)], file: &str) -> Vec<String> {
        let given = |flags: Flags, (flag, value): &(&str, &str)| flags.with(flag, value);
        let sources = Sources {
            file: Some(("millrace.toml".into(), file.to_owned())),
            flags: flags.iter().fold(Flags::default(), given),
            ..Sources::default()
        };
        let loaded = Settings::load(sources).expect("a configuration that holds");
        loaded.warnings.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_defaults_warn_of_nothing() {
        assert_eq!(warnings(&[], ""), Vec::<String>::new());
    }

    #[test]
    fn a_door_that_other_hosts_reach_warns_in_one_line_that_names_the_setting() {
        assert_eq!(
            warnings(&[("--listen", "127.0.0.1:8080,[::1]:80,0.0.0.0:80")], ""),
            [
                "listener.http 0.0.0.0:80 can be reached from other hosts, and with cache.access = \"open\" whoever reaches it may read what is cached"
            ]
        );
    }

    #[test]
    fn an_admin_address_that_other_hosts_reach_warns() {
        assert_eq!(
            warnings(&[("--admin", "10.0.0.1:9180")], ""),
            [
                "admin.listen 10.0.0.1:9180 can be reached from other hosts, and the admin address has no authentication"
            ]
        );
    }

    #[test]
    fn plain_http_to_another_host_warns_and_to_loopback_does_not() {
        assert_eq!(
            warnings(&[("--origin", "http://10.0.0.2:9000")], ""),
            [
                "routing.origin http://10.0.0.2:9000 is plain HTTP to another host: requests and bodies travel in clear"
            ]
        );
        assert!(warnings(&[("--origin", "http://127.0.0.1:9000")], "").is_empty());
        assert!(warnings(&[("--origin", "http://localhost:9000")], "").is_empty());
        assert!(warnings(&[("--origin", "https://s3.example.com")], "").is_empty());
        let named = "[[origin]]\nname = \"a\"\nurl = \"http://store:9000\"\n";
        assert_eq!(warnings(&[], named).len(), 1);
    }

    #[test]
    fn a_disk_size_without_a_disk_warns() {
        let size = [("--disk", "1GB"), ("--cache-dir", "none")];
        assert_eq!(
            warnings(&size, ""),
            ["disk.size has no effect while disk.dir is \"none\""]
        );
    }
}
