//! What is wrong with a TLS session, in words that say what can be done about it.

use rustls::CertificateError;

/// What is wrong with a TLS session.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TlsError {
    /// The name to verify is neither a DNS name nor an address.
    #[error("{name} is no name that a certificate can have")]
    ServerName {
        /// The name.
        name: Box<str>,
    },
    /// A certificate, message or record was refused, by us or by the peer.
    #[error("{0}{hint}", hint = hint(.0))]
    Refused(#[source] rustls::Error),
    /// The peer closed the connection in the handshake.
    #[error("the peer closed the connection in the handshake (is this a TLS port?)")]
    ClosedInHandshake,
}

/// What an operator can do about it, where the library's own words do not say.
fn hint(error: &rustls::Error) -> &'static str {
    match error {
        rustls::Error::InvalidCertificate(certificate) => certificate_hint(certificate),
        rustls::Error::InvalidMessage(_) => " (does a TLS server answer there?)",
        _ => "",
    }
}

fn certificate_hint(error: &CertificateError) -> &'static str {
    match error {
        CertificateError::UnknownIssuer => {
            " (name the authority's certificate with upstream.ca_file)"
        }
        // rustls' verifier reports webpki's CaUsedAsEndEntity so: `openssl req -x509` makes such certificates.
        CertificateError::Other(other) if format!("{other:?}").contains("CaUsedAsEndEntity") => {
            " (the server shows an authority's certificate as its own: make it with basicConstraints=CA:FALSE)"
        }
        _ => "",
    }
}
