//! The cluster's certificates, and kubeconfigs that hold them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};
use serde_json::json;

use crate::addresses::{API, API_SERVICE, CONTROL};

/// A user who may do everything, and the group.
pub(crate) const ADMIN: [&str; 2] = ["kubernetes-admin", "system:masters"];

/// Files of the certificate authority and of the API server.
#[derive(Debug)]
pub(crate) struct Certificates {
    directory: PathBuf,
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl Certificates {
    /// Makes them in a directory.
    pub(crate) fn new(directory: &Path) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "kubernetes");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let own = Self { directory: directory.to_owned(), authority };
        fs::write(own.path("ca.crt"), own.authority.pem())?;
        let mut names = vec!["kubernetes", "kubernetes.default", "kubernetes.default.svc"];
        names.extend(["kubernetes.default.svc.cluster.local", "localhost", "127.0.0.1"]);
        names.extend(API_SERVICE.iter().chain(&CONTROL));
        own.write("apiserver", &["kube-apiserver", ""], &names)?;
        own.write("kubelet-client", &["kube-apiserver-kubelet-client", "system:masters"], &[])?;
        let accounts = KeyPair::generate()?;
        fs::write(own.path("accounts.key"), accounts.serialize_pem())?;
        fs::write(own.path("accounts.pub"), accounts.public_key_pem())?;
        Ok(own)
    }

    /// A file of the directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Writes certificate and key for somebody.
    fn write(&self, file: &str, who: &[&str; 2], names: &[&str]) -> Result<()> {
        let (certificate, key) = self.issue(who, names)?;
        fs::write(self.path(&format!("{file}.crt")), certificate)?;
        Ok(fs::write(self.path(&format!("{file}.key")), key)?)
    }

    /// Writes the kubeconfig of a user, who belongs to a group or to none, and beside it what it names.
    pub(crate) fn kubeconfig(&self, file: &Path, who: &[&str; 2]) -> Result<()> {
        let (certificate, key) = self.issue(who, &[])?;
        let texts = [("crt", certificate), ("key", key), ("ca", self.authority.pem())];
        for (extension, text) in texts {
            fs::write(file.with_extension(extension), text)?;
        }
        let beside = |extension| file.with_extension(extension).display().to_string();
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "podwire",
            "clusters": [{
                "name": "podwire",
                "cluster": {"server": API, "certificate-authority": beside("ca")},
            }],
            "users": [{
                "name": who[0],
                "user": {"client-certificate": beside("crt"), "client-key": beside("key")},
            }],
            "contexts": [{
                "name": "podwire",
                "context": {"cluster": "podwire", "user": who[0]},
            }],
        });
        Ok(fs::write(file, config.to_string())?)
    }

    fn issue(&self, [user, group]: &[&str; 2], names: &[&str]) -> Result<(String, String)> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, *user);
        if !group.is_empty() {
            params.distinguished_name.push(DnType::OrganizationName, *group);
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.authority)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }
}
