//! An authority for tests, and what it signs, the bad included: PEM files in a folder.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams,
    SerialNumber, date_time_ymd,
};

/// An authority whose certificate stands in a file of the folder.
pub(crate) struct Authority {
    folder: PathBuf,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    /// The one that signs clients, `clients-ca.pem`.
    pub(crate) fn new(folder: &Path) -> Self {
        Self::named(folder, "clients-ca")
    }

    pub(crate) fn named(folder: &Path, file: &str) -> Self {
        let authority = Self { folder: folder.to_owned(), issuer: issuer(file) };
        authority.write(&format!("{file}.pem"), &authority.issuer.pem());
        authority
    }

    /// A certificate called `file` for the host `name`, as public authorities make them.
    pub(crate) fn issue_server(&self, file: &str, name: &str) {
        let mut parameters = parameters(file, &[name], ExtendedKeyUsagePurpose::ServerAuth);
        let now = jiff::Timestamp::now().as_second();
        parameters.not_before = rcgen_time(now - 24 * 3600);
        parameters.not_after = rcgen_time(now + 80 * 24 * 3600);
        self.issue(file, &parameters);
    }

    /// One for localhost that is no longer valid.
    pub(crate) fn issue_expired_server(&self, file: &str) {
        let mut parameters = parameters(file, &["localhost"], ExtendedKeyUsagePurpose::ServerAuth);
        parameters.not_after = date_time_ymd(2021, 1, 1);
        self.issue(file, &parameters);
    }

    /// Clients of every kind.
    pub(crate) fn issue_clients(&self) {
        let client = |name: &str| parameters(name, &[], ExtendedKeyUsagePurpose::ClientAuth);
        for name in ["alice", "bob"] {
            self.issue(name, &client(name));
        }
        let mut revoked = client("revoked");
        revoked.serial_number = Some(SerialNumber::from(7));
        self.issue("revoked", &revoked);
        let mut expired = client("expired");
        expired.not_after = date_time_ymd(2021, 1, 1);
        self.issue("expired", &expired);
        let server_only = parameters("server-only", &[], ExtendedKeyUsagePurpose::ServerAuth);
        self.issue("server-only", &server_only);
        let elsewhere = Self { folder: self.folder.clone(), issuer: issuer("elsewhere") };
        elsewhere.issue("stranger", &client("stranger"));
    }

    /// An authority below this one, with a serial number and a list of its own; it has signed the
    /// client `file`, who shows both.
    pub(crate) fn issue_below(&self, between: &str, serial: u64, file: &str) -> String {
        let mut own = parameters(between, &[], ExtendedKeyUsagePurpose::Any);
        own.extended_key_usages.clear();
        own.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        own.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        own.serial_number = Some(SerialNumber::from(serial));
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::signed_by(own, key, &self.issuer).expect("signed");
        let below = Self { folder: self.folder.clone(), issuer };
        below.write(&format!("{between}.pem"), &below.issuer.pem());
        below.issue(file, &parameters(file, &[], ExtendedKeyUsagePurpose::ClientAuth));
        below.revocation_list()
    }

    /// A client whose key is not for signing.
    pub(crate) fn issue_unsigning_client(&self, file: &str) {
        let mut client = parameters(file, &[], ExtendedKeyUsagePurpose::ClientAuth);
        client.key_usages = vec![KeyUsagePurpose::KeyEncipherment];
        self.issue(file, &client);
    }

    /// A list that revokes the client called `revoked`, and whoever else has the number 7.
    pub(crate) fn revocation_list(&self) -> String {
        let revoked = RevokedCertParams {
            serial_number: SerialNumber::from(7),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(2100, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).expect("signed").pem().expect("PEM")
    }

    fn issue(&self, file: &str, parameters: &CertificateParams) {
        let key = KeyPair::generate().expect("a key");
        let certificate = parameters.signed_by(&key, &self.issuer).expect("signed");
        self.write(&format!("{file}.pem"), &certificate.pem());
        self.write(&format!("{file}-key.pem"), &key.serialize_pem());
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.folder.join(file), text).expect("the folder is ours");
    }
}

fn issuer(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut parameters = parameters(name, &[], ExtendedKeyUsagePurpose::Any);
    parameters.extended_key_usages.clear();
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    CertifiedIssuer::self_signed(parameters, KeyPair::generate().expect("a key")).expect("signed")
}

fn parameters(name: &str, hosts: &[&str], purpose: ExtendedKeyUsagePurpose) -> CertificateParams {
    let hosts: Vec<_> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let mut parameters = CertificateParams::new(hosts).expect("names");
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters.extended_key_usages = vec![purpose];
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.use_authority_key_identifier_extension = true;
    parameters.not_before = date_time_ymd(2020, 1, 1);
    parameters.not_after = date_time_ymd(2100, 1, 1);
    parameters
}

/// Midnight of the day of a moment, in seconds since 1970.
fn rcgen_time(seconds: i64) -> time::OffsetDateTime {
    let day =
        jiff::Timestamp::from_second(seconds).expect("near").to_zoned(jiff::tz::TimeZone::UTC);
    date_time_ymd(day.year().into(), day.month() as u8, day.day() as u8)
}
