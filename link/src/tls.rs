//! Who may talk: both ends show a certificate of the same authority.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use catchment_cells::limits::FRAME_BYTES_MAX;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{EndpointConfig, TransportConfig, VarInt};
use quinn_proto::HashedConnectionIdGenerator;
use ring::hmac;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use serde::Deserialize;
use thiserror::Error;

use crate::{ALPN, QUESTIONS_MAX};

/// A peer that says nothing for this long is gone.
const IDLE_TIME_MAX: Duration = Duration::from_secs(15);
/// So often a client says something: a peer that has died and come back is known by its answer.
const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// What a peer may send ahead of our reading it: enough to keep a transatlantic line busy.
const RECEIVE_WINDOW_BYTES: u32 = 4 * FRAME_BYTES_MAX as u32;

/// The PEM files of one end.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The authority's certificate: whoever shows one signed by it is let in.
    pub ca: PathBuf,
    /// This end's certificate, and those between it and the authority. A server's carries the DNS name `aggregator`.
    pub cert: PathBuf,
    /// The certificate's private key.
    pub key: PathBuf,
}

/// A client's side, ready for use.
#[derive(Debug, Clone)]
pub struct ClientTls(pub(crate) quinn::ClientConfig);

/// A server's side, ready for use.
#[derive(Debug, Clone)]
pub struct ServerTls {
    pub(crate) server: quinn::ServerConfig,
    pub(crate) endpoint: EndpointConfig,
}

/// Why the files don't do.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file can't be read, or isn't what it should be.
    #[error("{}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: pem::Error,
    },
    /// The files don't go together.
    #[error("{} and {} can't be used: {reason}", cert.display(), key.display())]
    Unusable {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

impl Tls {
    /// The same files, relative paths taken from `folder`.
    pub fn in_folder(&self, folder: &Path) -> Tls {
        Tls { ca: folder.join(&self.ca), cert: folder.join(&self.cert), key: folder.join(&self.key) }
    }

    /// Reads the files for a client.
    pub fn client(&self) -> Result<ClientTls, TlsError> {
        let (roots, chain, key) = (self.roots()?, certificates(&self.cert)?, self.key()?);
        let mut tls = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| self.unusable(error))?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(|error| self.unusable(error))?;
        tls.alpn_protocols = vec![ALPN.to_vec()];
        let crypto = QuicClientConfig::try_from(tls).map_err(|error| self.unusable(error))?;
        let mut client = quinn::ClientConfig::new(Arc::new(crypto));
        let mut transport = transport();
        transport.keep_alive_interval(Some(KEEP_ALIVE)).max_concurrent_bidi_streams(VarInt::from_u32(0));
        client.transport_config(Arc::new(transport));
        Ok(ClientTls(client))
    }

    /// Reads the files for a server.
    pub fn server(&self) -> Result<ServerTls, TlsError> {
        let (roots, chain, key) = (self.roots()?, certificates(&self.cert)?, self.key()?);
        let endpoint = endpoint(&key);
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
            .build()
            .map_err(|error| self.unusable(error))?;
        let mut tls = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| self.unusable(error))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .map_err(|error| self.unusable(error))?;
        tls.alpn_protocols = vec![ALPN.to_vec()];
        let crypto = QuicServerConfig::try_from(tls).map_err(|error| self.unusable(error))?;
        let mut server = quinn::ServerConfig::with_crypto(Arc::new(crypto));
        let mut transport = transport();
        // Frames and acks have one for good.
        transport.max_concurrent_bidi_streams(VarInt::from_u32(1 + QUESTIONS_MAX));
        server.transport_config(Arc::new(transport));
        Ok(ServerTls { server, endpoint })
    }

    fn roots(&self) -> Result<RootCertStore, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&self.ca)? {
            roots.add(certificate).map_err(|error| self.unusable(error))?;
        }
        Ok(roots)
    }

    fn key(&self) -> Result<PrivateKeyDer<'static>, TlsError> {
        PrivateKeyDer::from_pem_file(&self.key).map_err(|error| TlsError::File { path: self.key.clone(), error })
    }

    fn unusable(&self, reason: impl ToString) -> TlsError {
        TlsError::Unusable { cert: self.cert.clone(), key: self.key.clone(), reason: reason.to_string() }
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = || -> Result<Vec<_>, pem::Error> {
        let certificates = CertificateDer::pem_file_iter(path)?.collect::<Result<Vec<_>, _>>()?;
        if certificates.is_empty() { Err(pem::Error::NoItemsFound) } else { Ok(certificates) }
    };
    read().map_err(|error| TlsError::File { path: path.to_owned(), error })
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_idle_timeout(Some(VarInt::from_u32(IDLE_TIME_MAX.as_millis() as u32).into()))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(RECEIVE_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(RECEIVE_WINDOW_BYTES))
        .send_window(u64::from(RECEIVE_WINDOW_BYTES))
        .datagram_receive_buffer_size(None);
    transport
}

/// Connection ids and their reset tokens come from the private key, so that a server that was killed and started
/// again knows the connections of its former life, and tells their clients at once that they are gone.
fn endpoint(key: &PrivateKeyDer<'_>) -> EndpointConfig {
    let derive = |label: &str| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.secret_der()), label.as_bytes());
    let reset_key = hmac::Key::new(hmac::HMAC_SHA256, derive("catchment reset").as_ref());
    let mut id_key = [0; 8];
    id_key.copy_from_slice(&derive("catchment connection id").as_ref()[..8]);
    let mut endpoint = EndpointConfig::new(Arc::new(reset_key));
    endpoint.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(u64::from_le_bytes(id_key))));
    endpoint
}
