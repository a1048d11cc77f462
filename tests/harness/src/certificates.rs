//! A certificate authority of one deployment, and what it signs.

use std::fs;
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};

use crate::{Failure, Result};

/// The DNS name that every server's certificate carries and every client expects.
const SERVER_NAME: &str = "aggregator";

/// Writes `ca.pem`, and `relay.pem`, `aggregator.pem` with their keys, into a folder.
pub(crate) fn write(folder: &Path) -> Result<()> {
    let make = || -> std::result::Result<Vec<(&str, String)>, rcgen::Error> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "catchment harness");
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let mut files = vec![("ca.pem", ca.pem())];
        for (cert, key, name) in
            [("relay.pem", "relay.key", "relay"), ("aggregator.pem", "aggregator.key", SERVER_NAME)]
        {
            let pair = KeyPair::generate()?;
            let mut params = CertificateParams::new(vec![name.to_string()])?;
            // An aggregator is the client of the central one.
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
            files.push((cert, params.signed_by(&pair, &ca)?.pem()));
            files.push((key, pair.serialize_pem()));
        }
        Ok(files)
    };
    for (name, text) in make().map_err(Failure::at("making certificates"))? {
        fs::write(folder.join(name), text).map_err(Failure::at("writing certificates"))?;
    }
    Ok(())
}
