//! What is wrong with a TLS session, and what an operator can do about it at either end.

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
    #[error("{0}")]
    Refused(#[source] rustls::Error),
    /// The peer closed the connection in the handshake.
    #[error("the peer closed the connection in the handshake")]
    ClosedInHandshake,
}

impl TlsError {
    /// What can be done about an origin's session, where the library's own words do not say.
    #[must_use]
    pub fn hint_of_origin(&self) -> &'static str {
        match self {
            Self::Refused(rustls::Error::InvalidCertificate(certificate)) => match certificate {
                CertificateError::UnknownIssuer => {
                    " (name the authority's certificate with upstream.ca_file, or with the ca_file of its [[origin]] or [[endpoint]])"
                }
                // `openssl req -x509` makes such certificates.
                _ if is_an_authoritys(certificate) => {
                    " (the server shows an authority's certificate as its own: make it with basicConstraints=CA:FALSE)"
                }
                _ => "",
            },
            Self::Refused(rustls::Error::InvalidMessage(_)) => " (does a TLS server answer there?)",
            Self::ClosedInHandshake => " (is this a TLS port?)",
            Self::Refused(_) | Self::ServerName { .. } => "",
        }
    }

    /// The same about a client's.
    #[must_use]
    pub fn hint_of_client(&self) -> &'static str {
        match self {
            Self::Refused(rustls::Error::InvalidCertificate(certificate)) => match certificate {
                CertificateError::UnknownIssuer => {
                    " (the authority of its certificate is not in tls.client_ca_file)"
                }
                _ if is_an_authoritys(certificate) => {
                    " (the client shows an authority's certificate as its own: make it with basicConstraints=CA:FALSE)"
                }
                _ => "",
            },
            Self::Refused(_) | Self::ClosedInHandshake | Self::ServerName { .. } => "",
        }
    }
}

/// rustls' verifier reports webpki's CaUsedAsEndEntity so.
fn is_an_authoritys(error: &CertificateError) -> bool {
    matches!(error, CertificateError::Other(other) if format!("{other:?}").contains("CaUsedAsEndEntity"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_names_the_setting_of_its_own_end() {
        let unknown = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let unknown = TlsError::Refused(unknown);
        assert!(unknown.hint_of_origin().contains("upstream.ca_file"));
        assert!(unknown.hint_of_client().contains("tls.client_ca_file"));
        let message = rustls::InvalidMessage::InvalidContentType;
        let message = TlsError::Refused(rustls::Error::InvalidMessage(message));
        assert!(
            message
                .hint_of_origin()
                .contains("does a TLS server answer")
        );
        assert_eq!(message.hint_of_client(), "");
        assert_eq!(TlsError::ClosedInHandshake.hint_of_client(), "");
    }
}
