//! Certificates, keys, tokens and kubeconfigs of one cluster.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use serde_json::json;

pub const SERVER: &str = "https://127.0.0.1:16443";
pub const CONTROLLER: &str = "system:serviceaccount:tidegate:tidegate";

/// The files that the programs are started with.
pub struct Pki {
    dir: PathBuf,
}

impl Pki {
    pub fn create(dir: &Path) -> Result<Pki> {
        let pki = Pki { dir: dir.to_owned() };
        fs::create_dir_all(dir)?;

        let ca_key = KeyPair::generate()?;
        let mut ca = CertificateParams::default();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        ca.distinguished_name.push(DnType::CommonName, "e2e-ca");
        fs::write(pki.file("ca.crt"), ca.self_signed(&ca_key)?.pem())?;
        let issuer = Issuer::new(ca, ca_key);

        let key = KeyPair::generate()?;
        let names = ["localhost", "kubernetes.default.svc", "127.0.0.1", "10.96.0.1"].map(str::to_owned);
        let mut api = CertificateParams::new(names)?;
        api.distinguished_name.push(DnType::CommonName, "kube-apiserver");
        fs::write(pki.file("api.crt"), api.signed_by(&key, &issuer)?.pem())?;
        fs::write(pki.file("api.key"), key.serialize_pem())?;

        let signing = KeyPair::generate()?;
        fs::write(pki.file("sa.key"), signing.serialize_pem())?;
        fs::write(pki.file("sa.pub"), signing.public_key_pem())?;

        fs::write(
            pki.file("tokens.csv"),
            format!(
                "admin-token,admin,admin,system:masters\n\
                 controller-token,{CONTROLLER},controller,\"system:serviceaccounts,system:serviceaccounts:tidegate\"\n"
            ),
        )?;
        for user in ["admin", "controller"] {
            let config = json!({
                "apiVersion": "v1", "kind": "Config", "current-context": "e2e",
                "clusters": [{"name": "e2e", "cluster": {"server": SERVER, "certificate-authority": pki.file("ca.crt")}}],
                "users": [{"name": user, "user": {"token": format!("{user}-token")}}],
                "contexts": [{"name": "e2e", "context": {"cluster": "e2e", "user": user}}],
            });
            fs::write(pki.kubeconfig(user), config.to_string())?;
        }
        Ok(pki)
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub fn kubeconfig(&self, user: &str) -> PathBuf {
        self.file(&format!("{user}.kubeconfig"))
    }
}
