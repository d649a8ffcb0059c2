//! Whom this process trusts as an origin, and what a TLS failure means in words.
//!
//! `server` builds one [`TlsConfig`] at start (it reads files) and shares it with all shards, so that a session begun on one
//! shard is resumed on another. Together with `crate::tls` the only place that names the TLS crate. Invariant: a
//! certificate is always verified, against the system's roots or against the operator's file only.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};

use crate::base::hosts::ByHost;
use crate::tls::{ClientSession, TlsError};

use super::endpoint::Endpoint;

/// Server names whose sessions are remembered.
const SESSIONS_MAX: usize = 1024;

/// Which certificate authorities are trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TlsRoots {
    /// The system's, and those of Mozilla that are compiled in.
    System,
    /// Only those of this PEM file.
    File(PathBuf),
}

/// Why the roots cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsSetupError {
    /// The file cannot be read as PEM.
    #[error("{} cannot be read as PEM: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: pem::Error,
    },
    /// The file holds no certificate.
    #[error("{} holds no certificate", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The file holds a certificate that is none.
    #[error("certificate {number} of {} is invalid: {source}", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// From 1.
        number: usize,
        /// What is wrong.
        source: rustls::Error,
    },
    /// The cryptography library offers no usable protocol version.
    #[error("TLS cannot be set up: {0}")]
    Provider(#[source] rustls::Error),
}

/// The versions of TLS that are spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TlsVersions {
    /// TLS 1.2.
    pub tls12: bool,
    /// TLS 1.3.
    pub tls13: bool,
}

impl Default for TlsVersions {
    fn default() -> Self {
        Self {
            tls12: true,
            tls13: true,
        }
    }
}

/// How TLS with one origin, or with all, is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsProfile {
    /// Whom to trust.
    pub roots: TlsRoots,
    /// The versions spoken.
    pub versions: TlsVersions,
    /// The name to send and verify in the place of the endpoint's.
    pub verify_name: Option<Box<str>>,
}

impl TlsProfile {
    /// All versions, the endpoint's name.
    #[must_use]
    pub fn of(roots: TlsRoots) -> Self {
        Self {
            roots,
            versions: TlsVersions::default(),
            verify_name: None,
        }
    }
}

/// A profile with what its files held.
#[derive(Debug)]
struct Speaker {
    client: Arc<ClientConfig>,
    verify_name: Option<Box<str>>,
}

/// How this process speaks TLS to origins: `http/1.1`, sessions resumed.
#[derive(Debug)]
pub struct TlsConfig {
    usual: Speaker,
    /// Of these hosts and ports.
    places: Vec<(Box<str>, u16, Speaker)>,
    /// Of hosts, by pattern.
    hosts: ByHost<Speaker>,
}

impl TlsConfig {
    /// Reads the roots; blocks on files, so only at start.
    ///
    /// # Errors
    /// [`TlsSetupError`]. System roots that cannot be read leave the compiled-in ones.
    pub fn new(roots: &TlsRoots) -> Result<Arc<Self>, TlsSetupError> {
        Self::with_profiles(&TlsProfile::of(roots.clone()), &[], &[])
    }

    /// Profiles for all, for endpoints by host and port, and for hosts by pattern. What is said of an endpoint goes before what is said of
    /// a host.
    ///
    /// # Errors
    /// [`TlsSetupError`].
    pub fn with_profiles(
        usual: &TlsProfile,
        places: &[(&Endpoint, TlsProfile)],
        hosts: &[(&str, TlsProfile)],
    ) -> Result<Arc<Self>, TlsSetupError> {
        let places = places
            .iter()
            .map(|(place, profile)| Ok((place.host.clone(), place.port, Speaker::new(profile)?)));
        let hosts = hosts
            .iter()
            .map(|(host, profile)| Ok(((*host).into(), Speaker::new(profile)?)));
        let hosts: Vec<_> = hosts.collect::<Result<_, TlsSetupError>>()?;
        Ok(Arc::new(Self {
            usual: Speaker::new(usual)?,
            places: places.collect::<Result<_, TlsSetupError>>()?,
            hosts: ByHost::new(hosts),
        }))
    }

    fn speaker(&self, endpoint: &Endpoint) -> &Speaker {
        let mut places = self.places.iter();
        let place = places.find(|(host, port, _)| *host == endpoint.host && *port == endpoint.port);
        if let Some((_, _, speaker)) = place {
            return speaker;
        }
        self.hosts.find(&endpoint.host).unwrap_or(&self.usual)
    }

    /// A session with nothing sent yet.
    pub(super) fn session(&self, endpoint: &Endpoint) -> Result<ClientSession, TlsError> {
        let speaker = self.speaker(endpoint);
        let name = speaker.verify_name.as_ref();
        let name = name.unwrap_or(&endpoint.server_name);
        let server_name = ServerName::try_from(name.to_string())
            .map_err(|_| TlsError::ServerName { name: name.clone() })?;
        ClientSession::to(Arc::clone(&speaker.client), server_name).map_err(TlsError::Refused)
    }
}

impl Speaker {
    fn new(profile: &TlsProfile) -> Result<Self, TlsSetupError> {
        let store = match &profile.roots {
            TlsRoots::System => system_roots(),
            TlsRoots::File(path) => file_roots(path)?,
        };
        let mut versions = Vec::new();
        if profile.versions.tls13 {
            versions.push(&rustls::version::TLS13);
        }
        if profile.versions.tls12 {
            versions.push(&rustls::version::TLS12);
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions)
            .map_err(TlsSetupError::Provider)?
            .with_root_certificates(store)
            .with_no_client_auth();
        client.alpn_protocols = vec![b"http/1.1".to_vec()];
        client.resumption = Resumption::in_memory_sessions(SESSIONS_MAX);
        Ok(Self {
            client: Arc::new(client),
            verify_name: profile.verify_name.clone(),
        })
    }
}

fn system_roots() -> RootCertStore {
    let mut store = RootCertStore::empty();
    store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "a system root certificate cannot be read");
    }
    store.add_parsable_certificates(found.certs);
    store
}

fn file_roots(path: &Path) -> Result<RootCertStore, TlsSetupError> {
    let failed = |source| TlsSetupError::File {
        path: path.to_owned(),
        source,
    };
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(failed)? {
        let certificate = certificate.map_err(failed)?;
        store
            .add(certificate)
            .map_err(|source| TlsSetupError::Certificate {
                path: path.to_owned(),
                number: store.len() + 1,
                source,
            })?;
    }
    if store.is_empty() {
        return Err(TlsSetupError::Empty {
            path: path.to_owned(),
        });
    }
    Ok(store)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(config: &TlsConfig, host: &str) -> Result<ClientSession, TlsError> {
        config.session(&Endpoint::new(true, host, 443))
    }

    fn file(name: &str, text: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("millrace-tls-{}-{name}", std::process::id()));
        std::fs::write(&path, text).expect("a temporary file");
        path
    }

    #[test]
    fn system_roots_are_there_on_any_machine() {
        assert!(system_roots().len() >= webpki_roots::TLS_SERVER_ROOTS.len());
        assert!(TlsConfig::new(&TlsRoots::System).is_ok());
    }

    #[test]
    fn a_file_without_certificate_is_refused_by_name() {
        let path = file("empty.pem", "nothing here\n");
        let error = TlsConfig::new(&TlsRoots::File(path.clone()))
            .err()
            .map(|e| e.to_string());
        assert_eq!(
            error,
            Some(format!("{} holds no certificate", path.display()))
        );
        let missing = TlsRoots::File(path.with_extension("missing"));
        assert!(matches!(
            TlsConfig::new(&missing),
            Err(TlsSetupError::File { .. })
        ));
        let broken = file(
            "broken.pem",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        );
        let error = TlsConfig::new(&TlsRoots::File(broken));
        assert!(matches!(
            error,
            Err(TlsSetupError::Certificate { number: 1, .. })
        ));
    }

    #[test]
    fn a_name_that_no_certificate_has_is_an_error() {
        let config = TlsConfig::new(&TlsRoots::System).expect("roots");
        assert!(matches!(
            session(&config, "a b"),
            Err(TlsError::ServerName { .. })
        ));
        assert!(session(&config, "127.0.0.1").is_ok() && session(&config, "a.example").is_ok());
    }
}
