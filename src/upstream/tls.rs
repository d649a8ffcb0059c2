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

use crate::tls::{ClientSession, TlsError};

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

/// How this process speaks TLS to origins: TLS 1.2 and 1.3, `http/1.1`, sessions resumed.
#[derive(Debug)]
pub struct TlsConfig {
    client: Arc<ClientConfig>,
}

impl TlsConfig {
    /// Reads the roots; blocks on files, so only at start.
    ///
    /// # Errors
    /// [`TlsSetupError`]. System roots that cannot be read leave the compiled-in ones.
    pub fn new(roots: &TlsRoots) -> Result<Arc<Self>, TlsSetupError> {
        let store = match roots {
            TlsRoots::System => system_roots(),
            TlsRoots::File(path) => file_roots(path)?,
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(TlsSetupError::Provider)?
            .with_root_certificates(store)
            .with_no_client_auth();
        client.alpn_protocols = vec![b"http/1.1".to_vec()];
        client.resumption = Resumption::in_memory_sessions(SESSIONS_MAX);
        Ok(Arc::new(Self {
            client: Arc::new(client),
        }))
    }

    /// A session with nothing sent yet.
    pub(super) fn session(&self, server_name: &str) -> Result<ClientSession, TlsError> {
        let name =
            ServerName::try_from(server_name.to_owned()).map_err(|_| TlsError::ServerName {
                name: server_name.into(),
            })?;
        ClientSession::to(Arc::clone(&self.client), name).map_err(TlsError::Refused)
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
            config.session("a b"),
            Err(TlsError::ServerName { .. })
        ));
        assert!(config.session("127.0.0.1").is_ok() && config.session("a.example").is_ok());
    }
}
