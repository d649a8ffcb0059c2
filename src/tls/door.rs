//! What the TLS door shows its clients: certificate, key, versions, and whose certificates it wants to see.
//!
//! Built by `server` at start and again when the files change; read by `listener` at each handshake, without a lock. Files that do not hold leave what
//! was there before in effect. Session tickets begin anew with each change, so that a client certificate is looked at again when the
//! authority has changed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ServerSessionMemoryCache, VerifierBuilderError, WebPkiClientVerifier};
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Sessions of TLS 1.2 without tickets that are remembered.
const SESSIONS_MAX: usize = 1024;

/// Where it is, and how strict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DoorFiles {
    /// PEM: the server's certificate first, then those between it and its authority.
    pub cert: PathBuf,
    /// PEM: its key.
    pub key: PathBuf,
    /// PEM: the authorities of client certificates.
    pub client_ca: Option<PathBuf>,
    /// Whether a client may do without.
    pub client_optional: bool,
    /// Whether TLS 1.2 is spoken.
    pub tls12: bool,
}

/// The same, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DoorText {
    cert: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

/// Why the door cannot be opened so.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    /// A file cannot be read.
    #[error("{} cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// It is no PEM, or holds nothing of what it should.
    #[error("{} holds no {what} in PEM: {source}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is looked for.
        what: &'static str,
        /// What is wrong.
        source: pem::Error,
    },
    /// The certificate cannot be read.
    #[error("the certificate in {} is invalid", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
    },
    /// Certificate and key are not of each other, or not usable.
    #[error("{} and {} cannot be used together: {source}", cert.display(), key.display())]
    Pair {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What is wrong.
        source: rustls::Error,
    },
    /// An authority of client certificates is none.
    #[error("an authority in {} is invalid: {source}", path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: rustls::Error,
    },
    /// There is no authority of client certificates.
    #[error("the authorities in {} cannot be used: {source}", path.display())]
    Authorities {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: VerifierBuilderError,
    },
    /// The cryptography library does not do its part.
    #[error("TLS cannot be set up: {0}")]
    Provider(#[source] rustls::Error),
}

/// What handshakes are made with now.
pub struct TlsDoor {
    files: DoorFiles,
    config: ArcSwap<ServerConfig>,
}

impl DoorFiles {
    /// Reads the files; blocks.
    ///
    /// # Errors
    /// [`DoorError::Read`].
    pub fn read(&self) -> Result<DoorText, DoorError> {
        let read = |path: &Path| {
            std::fs::read(path).map_err(|source| DoorError::Read {
                path: path.to_owned(),
                source,
            })
        };
        Ok(DoorText {
            cert: read(&self.cert)?,
            key: read(&self.key)?,
            client_ca: self.client_ca.as_deref().map(read).transpose()?,
        })
    }

    fn config(&self, text: &DoorText) -> Result<(ServerConfig, i64), DoorError> {
        let pem = |path: &Path, what: &'static str| {
            let path = path.to_owned();
            move |source| DoorError::Pem { path, what, source }
        };
        let chain = CertificateDer::pem_slice_iter(&text.cert);
        let chain: Result<Vec<_>, _> = chain.collect();
        let chain = chain.map_err(pem(&self.cert, "certificate"))?;
        let Some(first) = chain.first() else {
            return Err(pem(&self.cert, "certificate")(pem::Error::NoItemsFound));
        };
        let Ok((_, parsed)) = X509Certificate::from_der(first) else {
            let path = self.cert.clone();
            return Err(DoorError::Certificate { path });
        };
        let not_after = parsed.validity().not_after.timestamp();
        let key = PrivateKeyDer::from_pem_slice(&text.key).map_err(pem(&self.key, "key"))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let versions: &[&SupportedProtocolVersion] = match self.tls12 {
            true => &[&TLS13, &TLS12],
            false => &[&TLS13],
        };
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)
            .map_err(DoorError::Provider)?;
        let builder = match (&self.client_ca, &text.client_ca) {
            (Some(path), Some(text)) => {
                let roots = Arc::new(authorities(path, text)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
                let verifier = match self.client_optional {
                    true => verifier.allow_unauthenticated(),
                    false => verifier,
                };
                let path = path.clone();
                let verifier = verifier
                    .build()
                    .map_err(|source| DoorError::Authorities { path, source })?;
                builder.with_client_cert_verifier(verifier)
            }
            _ => builder.with_no_client_auth(),
        };
        let mut config =
            builder
                .with_single_cert(chain, key)
                .map_err(|source| DoorError::Pair {
                    cert: self.cert.clone(),
                    key: self.key.clone(),
                    source,
                })?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.session_storage = ServerSessionMemoryCache::new(SESSIONS_MAX);
        config.ticketer = rustls::crypto::ring::Ticketer::new().map_err(DoorError::Provider)?;
        Ok((config, not_after))
    }
}

fn authorities(path: &Path, text: &[u8]) -> Result<RootCertStore, DoorError> {
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(text) {
        let certificate = certificate.map_err(|source| DoorError::Pem {
            path: path.to_owned(),
            what: "certificate",
            source,
        })?;
        store
            .add(certificate)
            .map_err(|source| DoorError::Authority {
                path: path.to_owned(),
                source,
            })?;
    }
    Ok(store)
}

impl TlsDoor {
    /// Reads everything; blocks. Also says what was read, and when the certificate ends, in seconds since 1970.
    ///
    /// # Errors
    /// [`DoorError`].
    pub fn open(files: DoorFiles) -> Result<(Arc<Self>, DoorText, i64), DoorError> {
        let text = files.read()?;
        let (config, not_after) = files.config(&text)?;
        let config = ArcSwap::from_pointee(config);
        Ok((Arc::new(Self { files, config }), text, not_after))
    }

    /// The files.
    #[must_use]
    pub fn files(&self) -> &DoorFiles {
        &self.files
    }

    /// Uses what was read from now on; says when its certificate ends. Sessions that are open go on.
    ///
    /// # Errors
    /// [`DoorError`]; then nothing changes.
    pub fn renew(&self, text: &DoorText) -> Result<i64, DoorError> {
        let (config, not_after) = self.files.config(text)?;
        self.config.store(Arc::new(config));
        Ok(not_after)
    }

    /// What the next handshake is made with.
    #[must_use]
    pub fn config(&self) -> Arc<ServerConfig> {
        self.config.load_full()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let path =
            std::env::temp_dir().join(format!("millrace-door-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a temporary folder");
        path
    }

    fn files(name: &str) -> DoorFiles {
        let folder = folder(name);
        let made = rcgen::generate_simple_self_signed(vec!["door.example".to_owned()]);
        let made = made.expect("a certificate");
        let (cert, key) = (folder.join("cert.pem"), folder.join("key.pem"));
        std::fs::write(&cert, made.cert.pem()).expect("a file");
        std::fs::write(&key, made.signing_key.serialize_pem()).expect("a file");
        DoorFiles {
            cert,
            key,
            client_ca: None,
            client_optional: false,
            tls12: true,
        }
    }

    #[test]
    fn a_door_says_when_its_certificate_ends() {
        let (door, text, not_after) = TlsDoor::open(files("good")).expect("a door");
        assert!(not_after > 1_700_000_000);
        assert_eq!(door.files().read().expect("files"), text);
        assert_eq!(door.config().max_early_data_size, 0);
    }

    #[test]
    fn a_key_of_another_certificate_is_refused_and_changes_nothing() {
        let good = files("pair");
        let other = files("other");
        let (door, _, _) = TlsDoor::open(good.clone()).expect("a door");
        let before = door.config();
        std::fs::copy(&other.key, &good.key).expect("a copy");
        let text = good.read().expect("files");
        assert!(matches!(door.renew(&text), Err(DoorError::Pair { .. })));
        assert!(Arc::ptr_eq(&before, &door.config()));
    }

    #[test]
    fn what_is_no_certificate_or_key_is_refused_by_its_file() {
        let good = files("words");
        let words = |change: &dyn Fn(&mut DoorFiles)| {
            let mut files = good.clone();
            change(&mut files);
            let error = TlsDoor::open(files).err().map(|error| error.to_string());
            error.expect("an error")
        };
        let missing = words(&|files| files.cert = "/nowhere/cert.pem".into());
        assert!(
            missing.starts_with("/nowhere/cert.pem cannot be read"),
            "{missing}"
        );
        let swapped = words(&|files| files.cert = good.key.clone());
        assert!(swapped.contains("holds no certificate"), "{swapped}");
        let swapped = words(&|files| files.key = good.cert.clone());
        assert!(swapped.contains("holds no key"), "{swapped}");
        let no_authority = words(&|files| files.client_ca = Some(good.key.clone()));
        assert!(
            no_authority.contains("authorities in") && no_authority.contains("key.pem"),
            "{no_authority}"
        );
    }
}
