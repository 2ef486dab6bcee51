//! The public key that verifies a signature.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, VerificationAlgorithm,
};
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject;

/// One algorithm for each kind of key: those that `kms` signs with.
static ALGORITHMS: [&dyn VerificationAlgorithm; 3] =
    [&ECDSA_P256_SHA256_ASN1, &ECDSA_P384_SHA384_ASN1, &RSA_PKCS1_2048_8192_SHA256];

/// A public key.
#[derive(Debug)]
pub struct PublicKey(ParsedPublicKey);

/// A text that is not a public key, or not one of a kind that signs here.
#[derive(Debug, thiserror::Error)]
pub enum PublicKeyError {
    /// No PEM with a public key.
    #[error(
        "no public key in PEM, expected 'BEGIN PUBLIC KEY'; 'openssl pkey -pubin -inform DER' makes it of what KMS returns"
    )]
    NotPem,
    /// Another kind of key.
    #[error(
        "this kind of public key signs no audit reports; expected ECC_NIST_P256, ECC_NIST_P384 or RSA with 2048 bits or more"
    )]
    OtherKind,
}

impl PublicKey {
    /// Reads a public key in PEM, the first if there are several.
    ///
    /// # Errors
    /// If there is none, or it is of another kind.
    pub fn read(pem: &[u8]) -> Result<Self, PublicKeyError> {
        let der = SubjectPublicKeyInfoDer::from_pem_slice(pem).map_err(|_| PublicKeyError::NotPem)?;
        // a key is accepted only with the algorithm of its kind
        let mut keys = ALGORITHMS.iter().filter_map(|algorithm| ParsedPublicKey::new(*algorithm, &der).ok());
        keys.next().map(Self).ok_or(PublicKeyError::OtherKind)
    }

    /// Returns whether a signature of a message is by the private key.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        self.0.verify_sig(message, signature).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pem: &str) -> Result<PublicKey, PublicKeyError> {
        PublicKey::read(pem.as_bytes())
    }

    #[test]
    fn verifies_with_a_key_of_each_kind() {
        use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
        use aws_lc_rs::rand::SystemRandom;
        use aws_lc_rs::rsa::KeySize;
        use aws_lc_rs::signature::{
            ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256,
            RsaKeyPair,
        };
        let pem = |der: PublicKeyX509Der<'_>| {
            use base64::Engine as _;
            let text = base64::engine::general_purpose::STANDARD.encode(der.as_ref());
            format!("-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n")
        };
        let mut signed = Vec::new();
        for algorithm in [&ECDSA_P256_SHA256_ASN1_SIGNING, &ECDSA_P384_SHA384_ASN1_SIGNING] {
            let pair = EcdsaKeyPair::generate(algorithm).unwrap();
            let signature = pair.sign(&SystemRandom::new(), b"message").unwrap();
            signed.push((pem(pair.public_key().as_der().unwrap()), signature.as_ref().to_vec()));
        }
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let mut signature = vec![0; pair.public_modulus_len()];
        pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), b"message", &mut signature).unwrap();
        signed.push((pem(pair.public_key().as_der().unwrap()), signature));
        for (n, (pem, signature)) in signed.iter().enumerate() {
            let key = read(pem).unwrap();
            assert!(key.verifies(b"message", signature) && !key.verifies(b"massage", signature));
            let (_, other) = &signed[(n + 1) % signed.len()];
            assert!(!key.verifies(b"message", other) && !key.verifies(b"message", b""));
        }
    }

    #[test]
    fn refuses_what_is_no_public_key_and_kinds_that_sign_no_report() {
        let error = |pem: &str| read(pem).unwrap_err().to_string();
        for pem in ["", "MFkw", "-----BEGIN PUBLIC KEY-----\n!\n-----END PUBLIC KEY-----\n"] {
            assert!(error(pem).starts_with("no public key in PEM"), "{pem}");
        }
        let private = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIA==\n-----END PRIVATE KEY-----\n";
        assert!(error(private).starts_with("no public key in PEM"));
        // Ed25519
        let other = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";
        assert!(error(other).contains("this kind of public key signs no audit reports"), "{}", error(other));
    }
}
