//! TLS for the listeners, and a certificate authority that only the tests trust.

use std::io;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// A server's certificate chain and private key, both PEM.
#[derive(Clone)]
pub struct Identity {
    /// The certificate of the server, followed by the intermediate certificates.
    pub cert_chain_pem: String,
    /// The private key of the first certificate.
    pub key_pem: String,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("cert_chain_pem", &self.cert_chain_pem).finish_non_exhaustive()
    }
}

impl Identity {
    /// Returns an acceptor that presents this certificate.
    ///
    /// # Errors
    /// If the PEM is invalid or the key does not match the certificate.
    pub(crate) fn acceptor(&self) -> io::Result<TlsAcceptor> {
        let chain = CertificateDer::pem_slice_iter(self.cert_chain_pem.as_bytes());
        let chain = chain.collect::<Result<Vec<_>, _>>().map_err(io::Error::other)?;
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes()).map_err(io::Error::other)?;
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(io::Error::other)?;
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

/// A certificate authority for one test.
#[derive(Debug)]
pub struct TestCa {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl TestCa {
    /// Creates a CA with a new key.
    ///
    /// # Errors
    /// If a key cannot be generated.
    pub fn new() -> io::Result<Self> {
        let mut params = CertificateParams::new(Vec::new()).map_err(io::Error::other)?;
        params.distinguished_name.push(DnType::CommonName, "fake-aws test CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let pem = params.self_signed(&key).map_err(io::Error::other)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), pem })
    }

    /// Returns the certificate of the CA, for the trust store of the client.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Issues a certificate for these host names and IP addresses.
    ///
    /// # Errors
    /// If a name is invalid.
    pub fn identity(&self, names: &[&str]) -> io::Result<Identity> {
        self.sign(Self::params(names)?)
    }

    /// Issues a certificate that was valid in 2020 only.
    ///
    /// # Errors
    /// If a name is invalid.
    pub fn expired_identity(&self, names: &[&str]) -> io::Result<Identity> {
        let mut params = Self::params(names)?;
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2020, 12, 31);
        self.sign(params)
    }

    fn params(names: &[&str]) -> io::Result<CertificateParams> {
        let names = names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        CertificateParams::new(names).map_err(io::Error::other)
    }

    fn sign(&self, params: CertificateParams) -> io::Result<Identity> {
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let cert_chain_pem = params.signed_by(&key, &self.issuer).map_err(io::Error::other)?.pem();
        Ok(Identity { cert_chain_pem, key_pem: key.serialize_pem() })
    }
}
