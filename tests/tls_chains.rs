//! Chains of certificates that OpenSSL, and so nginx, would not let in, and those that it would:
//! each is made here, and judged as the daemon and the client judge it.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer,
    CustomExtension, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, KeyIdMethod, KeyPair,
    KeyUsagePurpose, NameConstraints, RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};

use turnstile::net::tls::chain::{Chain, ChainError};
use turnstile::net::tls::purpose::Role;

type Issuer = CertifiedIssuer<'static, KeyPair>;

/// A root, an authority below it, and one whom that has certified.
struct World {
    root: Issuer,
    between: Issuer,
    own: CertificateDer<'static>,
    lists: Vec<CertificateRevocationListDer<'static>>,
    role: Role,
}

/// What a test changes in the certificates before they are made.
struct Plan {
    root: CertificateParams,
    between: CertificateParams,
    own: CertificateParams,
    role: Role,
}

fn plan(role: Role) -> Plan {
    let mut own = parameters("alice");
    own.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    own.extended_key_usages = vec![match role {
        Role::Client => ExtendedKeyUsagePurpose::ClientAuth,
        Role::Server => ExtendedKeyUsagePurpose::ServerAuth,
    }];
    own.serial_number = Some(SerialNumber::from(3));
    let mut between = authority("between");
    between.serial_number = Some(SerialNumber::from(2));
    Plan { root: authority("root"), between, own, role }
}

fn parameters(name: &str) -> CertificateParams {
    let mut parameters = CertificateParams::new(["localhost".to_owned()]).expect("a name");
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters.use_authority_key_identifier_extension = true;
    parameters.not_before = date_time_ymd(2020, 1, 1);
    parameters.not_after = date_time_ymd(2100, 1, 1);
    parameters
}

fn authority(name: &str) -> CertificateParams {
    let mut parameters = parameters(name);
    parameters.subject_alt_names.clear();
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    parameters
}

fn key() -> KeyPair {
    KeyPair::generate().expect("a key")
}

impl Plan {
    fn make(self) -> World {
        let root = Issuer::self_signed(self.root, key()).expect("signed");
        let between = Issuer::signed_by(self.between, key(), &root).expect("signed");
        let own = self.own.signed_by(&key(), &between).expect("signed");
        let own = own.der().clone();
        World { root, between, own, lists: Vec::new(), role: self.role }
    }
}

/// A list of `issuer` that revokes these serial numbers, in force from one year to another.
fn list(
    issuer: &Issuer,
    revoked: &[u64],
    years: (i32, i32),
) -> CertificateRevocationListDer<'static> {
    let revoked = revoked.iter().map(|serial| RevokedCertParams {
        serial_number: SerialNumber::from(*serial),
        revocation_time: date_time_ymd(2021, 1, 1),
        reason_code: None,
        invalidity_date: None,
    });
    let list = CertificateRevocationListParams {
        this_update: date_time_ymd(years.0, 1, 1),
        next_update: date_time_ymd(years.1, 1, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: revoked.collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    list.signed_by(issuer).expect("signed").der().clone()
}

const IN_FORCE: (i32, i32) = (2024, 2100);

impl World {
    /// Judges with the root as the only authority.
    fn verdict(&self) -> Result<(), String> {
        self.verdict_among(&[self.root.der().clone()], &[self.root.der().clone()])
    }

    /// Judges with `trusted`, where the certificates of `known` are there besides.
    fn verdict_among(
        &self,
        trusted: &[CertificateDer<'static>],
        known: &[CertificateDer<'static>],
    ) -> Result<(), String> {
        let mut roots = RootCertStore::empty();
        for root in trusted {
            roots.add(root.clone()).expect("a root");
        }
        let chain = Chain::new(self.role, Arc::new(roots), known);
        let chain = chain.with_lists(&self.lists).expect("sound lists");
        let others = chain.others(&[self.between.der().clone()]);
        let verdict = chain.verify(&self.own, &others, UnixTime::now());
        verdict.map_err(|error| match error {
            ChainError::Misuse(misuse) => misuse.to_string(),
            ChainError::Webpki(error) => format!("{error:?}"),
        })
    }
}

fn refused(world: &World, why: &str) {
    let said = world.verdict().expect_err(why);
    assert!(said.contains(why), "{why}: {said}");
}

#[test]
fn a_sound_chain_is_accepted_in_both_roles() {
    for role in [Role::Client, Role::Server] {
        assert_eq!(plan(role).make().verdict(), Ok(()), "{role:?}");
    }
}

#[test]
fn whoever_proves_itself_needs_a_key_that_may_sign() {
    let mut client = plan(Role::Client);
    client.own.key_usages = vec![KeyUsagePurpose::KeyEncipherment];
    refused(&client.make(), "does not let a client prove itself");

    let mut server = plan(Role::Server);
    server.own.key_usages = vec![KeyUsagePurpose::KeyEncipherment];
    assert_eq!(server.make().verdict(), Ok(()), "as OpenSSL has it");
    let mut server = plan(Role::Server);
    server.own.key_usages = vec![KeyUsagePurpose::CrlSign];
    refused(&server.make(), "does not let a server prove itself");

    let mut silent = plan(Role::Client);
    silent.own.key_usages = vec![];
    silent.own.extended_key_usages = vec![];
    assert_eq!(silent.make().verdict(), Ok(()), "what says nothing forbids nothing");
}

#[test]
fn a_certificate_for_something_else_is_refused() {
    let mut other = plan(Role::Client);
    other.own.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    refused(&other.make(), "RequiredEkuNotFound");
    let mut other = plan(Role::Client);
    other.between.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    refused(&other.make(), "RequiredEkuNotFound");
    let mut other = plan(Role::Client);
    other.root.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    refused(&other.make(), "is for other purposes only");
}

#[test]
fn an_authority_signs_only_if_its_own_certificate_lets_it() {
    let mut between = plan(Role::Client);
    between.between.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    refused(&between.make(), "`CN=between` does not let it sign certificates");
    let mut root = plan(Role::Client);
    root.root.key_usages = vec![KeyUsagePurpose::CrlSign];
    refused(&root.make(), "`CN=root` does not let it sign certificates");
    let mut root = plan(Role::Client);
    root.root.is_ca = IsCa::ExplicitNoCa;
    refused(&root.make(), "is no authority by its own certificate");
    let mut between = plan(Role::Client);
    between.between.is_ca = IsCa::ExplicitNoCa;
    refused(&between.make(), "EndEntityUsedAsCa");
}

#[test]
fn a_root_may_say_how_long_a_chain_is_and_for_whom() {
    let mut short = plan(Role::Client);
    short.root.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    refused(&short.make(), "fewer authorities below it");
    let mut enough = plan(Role::Client);
    enough.root.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
    assert_eq!(enough.make().verdict(), Ok(()));
    let mut elsewhere = plan(Role::Client);
    elsewhere.root.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![GeneralSubtree::DnsName("example.org".to_owned())],
        excluded_subtrees: vec![],
    });
    refused(&elsewhere.make(), "NameConstraintViolation");
}

#[test]
fn a_critical_extension_that_nobody_knows_refuses() {
    let unknown = |is_critical| {
        let mut extension = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
        extension.set_criticality(is_critical);
        vec![extension]
    };
    let mut root = plan(Role::Client);
    root.root.custom_extensions = unknown(true);
    refused(&root.make(), "critical extension that is unknown here (1.2.3.4)");
    let mut own = plan(Role::Client);
    own.own.custom_extensions = unknown(true);
    refused(&own.make(), "UnsupportedCriticalExtension");
    let mut harmless = plan(Role::Client);
    (harmless.root.custom_extensions, harmless.own.custom_extensions) =
        (unknown(false), unknown(false));
    assert_eq!(harmless.make().verdict(), Ok(()));
}

#[test]
fn a_root_has_its_time_too() {
    let mut old = plan(Role::Client);
    old.root.not_after = date_time_ymd(2021, 1, 1);
    refused(&old.make(), "expired on 2021-01-01");
    let mut early = plan(Role::Client);
    early.root.not_before = date_time_ymd(2099, 1, 1);
    refused(&early.make(), "not valid before 2099-01-01");
}

#[test]
fn an_owner_who_is_trusted_for_itself_need_be_no_authority() {
    let mut own = plan(Role::Client).own;
    own.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let mut world = plan(Role::Client).make();
    let mut verdict = |own: CertificateParams| {
        let alone = own.self_signed(&key()).expect("signed").der().clone();
        world.own = alone.clone();
        let alone = [alone];
        world.verdict_among(&alone, &alone)
    };
    assert_eq!(verdict(own.clone()), Ok(()));
    // As `openssl req -x509` makes them.
    let mut authority = own.clone();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    assert_eq!(verdict(authority), Ok(()));
    let mut old = own.clone();
    old.not_after = date_time_ymd(2021, 1, 1);
    assert!(verdict(old).expect_err("its time is over").contains("expired on 2021-01-01"));
    let mut other = own.clone();
    other.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    assert!(verdict(other).expect_err("a server's").contains("is for other purposes only"));
    let mut signer = own;
    signer.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    assert!(verdict(signer).expect_err("not to sign with").contains("prove itself"));
}

#[test]
fn a_second_path_is_tried_where_the_first_is_not_liked() {
    let mut world = plan(Role::Client).make();
    // The same key and name, once more, and this time without the right to sign.
    let mut bad = authority("root");
    bad.not_after = date_time_ymd(2021, 1, 1);
    let old = bad.self_signed(world.root.key()).expect("signed").der().clone();
    let known = [old.clone(), world.root.der().clone()];
    assert_eq!(world.verdict_among(&known, &known), Ok(()), "the renewed root counts");
    let only_old = [old];
    world.verdict_among(&only_old, &only_old).expect_err("expired");
    world.lists.clear();
}

#[test]
fn no_certificate_of_the_path_is_revoked() {
    let mut world = plan(Role::Client).make();
    let (root, between) = (list(&world.root, &[], IN_FORCE), list(&world.between, &[], IN_FORCE));
    world.lists = vec![root.clone(), between.clone()];
    assert_eq!(world.verdict(), Ok(()));
    world.lists = vec![root.clone(), list(&world.between, &[3], IN_FORCE)];
    refused(&world, "CertRevoked");
    world.lists = vec![list(&world.root, &[2], IN_FORCE), between.clone()];
    refused(&world, "CertRevoked");
    for lists in [vec![root.clone()], vec![between.clone()]] {
        world.lists = lists;
        refused(&world, "UnknownRevocationStatus");
    }
    for lists in [
        vec![list(&world.root, &[], (2020, 2021)), between.clone()],
        vec![root.clone(), list(&world.between, &[], (2020, 2021))],
    ] {
        world.lists = lists;
        refused(&world, "CrlExpired");
    }
    world.lists = vec![root, list(&world.between, &[], (2098, 2099))];
    refused(&world, "the revocation list of `CN=between` is not valid before 2098-01-01");
}

#[test]
fn of_two_lists_the_later_one_that_is_in_force_counts() {
    let mut world = plan(Role::Client).make();
    let root = list(&world.root, &[], IN_FORCE);
    let (old, new) =
        (list(&world.between, &[], (2020, 2100)), list(&world.between, &[3], IN_FORCE));
    let future = list(&world.between, &[], (2098, 2099));
    for lists in [[&old, &new, &future], [&future, &new, &old], [&new, &future, &old]] {
        world.lists = lists.into_iter().chain([&root]).cloned().collect();
        refused(&world, "CertRevoked");
    }
    // One that takes a revocation back counts as well.
    let (old, new) =
        (list(&world.between, &[3], (2020, 2100)), list(&world.between, &[], IN_FORCE));
    world.lists = vec![old, new, root];
    assert_eq!(world.verdict(), Ok(()));
}

#[test]
fn a_root_that_may_not_sign_lists_has_none() {
    let mut plan = plan(Role::Client);
    plan.root.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let mut world = plan.make();
    assert_eq!(world.verdict(), Ok(()));
    world.lists = vec![list_by(&world.root), list(&world.between, &[], IN_FORCE)];
    refused(&world, "does not let it sign revocation lists");
}

/// A list by an authority that should sign none, which only the library's own check would prevent.
fn list_by(root: &Issuer) -> CertificateRevocationListDer<'static> {
    let may = authority("root");
    let issuer = rcgen::Issuer::from_params(&may, root.key());
    let list = CertificateRevocationListParams {
        this_update: date_time_ymd(2024, 1, 1),
        next_update: date_time_ymd(2100, 1, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: vec![],
        key_identifier_method: KeyIdMethod::Sha256,
    };
    list.signed_by(&issuer).expect("signed").der().clone()
}

#[test]
fn an_authority_between_that_is_known_is_no_root() {
    let mut world = plan(Role::Client).make();
    world.lists = vec![list(&world.root, &[2], IN_FORCE), list(&world.between, &[], IN_FORCE)];
    let known = [world.root.der().clone(), world.between.der().clone()];
    let said = world.verdict_among(&known[..1], &known).expect_err("revoked");
    assert!(said.contains("CertRevoked"), "{said}");
    // Trusted without its own root, nobody above it is asked; and yet the list is there.
    let said = world.verdict_among(&known[1..], &known[1..]).expect_err("revoked");
    assert!(said.contains("`CN=between`, which is trusted, has been revoked"), "{said}");
}
