//! A certificate of its own making, by openssl, for servers of `shop.example`.

use std::path::{Path, PathBuf};
use std::process::Command;

const SETTINGS: &str = "[req]\ndistinguished_name = dn\nx509_extensions = own\n[dn]\n[own]\n\
                        subjectAltName = DNS:shop.example\nbasicConstraints = critical,CA:FALSE\n";
const ARGUMENTS: &str = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes \
                         -days 2 -subj /CN=shop.example";

/// Its two files, in PEM.
pub struct Certificate {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl Certificate {
    /// Makes one in this directory.
    ///
    /// # Panics
    /// If openssl cannot be run, or fails.
    pub fn new(directory: &Path) -> Self {
        let [settings, key, certificate] =
            ["openssl.cnf", "key.pem", "cert.pem"].map(|name| directory.join(name));
        std::fs::write(&settings, SETTINGS).expect("openssl.cnf");
        let made = Command::new("openssl")
            .args(ARGUMENTS.split_whitespace())
            .arg("-config")
            .arg(&settings)
            .arg("-keyout")
            .arg(&key)
            .arg("-out")
            .arg(&certificate)
            .output()
            .expect("openssl");
        let told = String::from_utf8_lossy(&made.stderr);
        assert!(made.status.success(), "{told}");
        Self { certificate, key }
    }
}
