//! TLS for the API over TCP, and whose certificates are believed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

/// Why there is no TLS: the file, and what is wrong with it.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct TlsError {
    path: PathBuf,
    reason: String,
}

fn wrong<E: std::fmt::Display>(path: &Path) -> impl Fn(E) -> TlsError {
    move |error| TlsError { path: path.to_owned(), reason: error.to_string() }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_file_iter(path).map_err(wrong(path))?;
    let found: Vec<_> = read.collect::<Result<_, _>>().map_err(wrong(path))?;
    if found.is_empty() { Err(wrong(path)("holds no certificate")) } else { Ok(found) }
}

/// Takes connections with this certificate chain and key (PEM). Clients must have a certificate of one of the
/// authorities in `client_ca`, where there is one; `optional` lets those in that have none and will show a token.
pub(super) fn acceptor(
    (chain, key): (&Path, &Path),
    client_ca: Option<&Path>,
    optional: bool,
) -> Result<TlsAcceptor, TlsError> {
    let provider = Arc::new(default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_safe_default_protocol_versions().map_err(wrong(chain))?;
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for authority in certificates(path)? {
                roots.add(authority).map_err(wrong(path))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = if optional { verifier.allow_unauthenticated() } else { verifier };
            builder.with_client_cert_verifier(verifier.build().map_err(wrong(path))?)
        }
    };
    let secret = PrivateKeyDer::from_pem_file(key).map_err(wrong(key))?;
    let mut config = builder.with_single_cert(certificates(chain)?, secret).map_err(wrong(key))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
