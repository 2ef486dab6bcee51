//! `emr check --certificates`, as a person or a program meets it: bundles of certificates that are made here, good and bad in each way.
//! Needs no privileges and touches nothing.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::{Cursor, Write};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use assert_cmd::Command;
use assert_cmd::assert::Assert;
use predicates::prelude::*;
use predicates::str::{contains, is_empty};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use serde_json::{Value, json};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

const KEY: &str = "privateKey.pem";
const CHAIN: &str = "certificateChain.pem";
const TRUSTED: &str = "trustedCertificates.pem";
const NAME: &str = "*.eu-central-1.compute.internal";

/// A certificate with its key.
struct Made {
    params: CertificateParams,
    key: KeyPair,
    pem: String,
}

impl Made {
    fn issuer(&self) -> Issuer<'_, &KeyPair> {
        Issuer::from_params(&self.params, &self.key)
    }
}

/// Parameters of a certificate with a common name, and no other names.
fn params(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::CommonName, common_name);
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2120, 1, 1));
    params
}

fn ca(common_name: &str) -> CertificateParams {
    let mut params = params(common_name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

fn self_signed(params: CertificateParams) -> Made {
    let key = KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    Made { params, key, pem }
}

fn issued(params: CertificateParams, by: &Made) -> Made {
    let key = KeyPair::generate().unwrap();
    let pem = params.signed_by(&key, &by.issuer()).unwrap().pem();
    Made { params, key, pem }
}

/// A leaf, an intermediate and a root.
fn family(leaf: CertificateParams) -> [Made; 3] {
    let root = self_signed(ca("Root"));
    let middle = issued(ca("Middle"), &root);
    [issued(leaf, &middle), middle, root]
}

fn zipped(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in files {
        writer.start_file(*name, SimpleFileOptions::default().compression_method(CompressionMethod::Deflated)).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// A bundle of a leaf that a family issued.
fn bundle([leaf, middle, root]: &[Made; 3]) -> Vec<u8> {
    let chain = format!("{}{}", leaf.pem, middle.pem);
    zipped(&[(KEY, leaf.key.serialize_pem().as_bytes()), (CHAIN, chain.as_bytes()), (TRUSTED, root.pem.as_bytes())])
}

/// A bundle of a certificate that signed itself.
fn bundle_of_one(one: &Made) -> Vec<u8> {
    let pem = one.pem.as_bytes();
    zipped(&[(KEY, one.key.serialize_pem().as_bytes()), (CHAIN, pem), (TRUSTED, pem)])
}

fn check(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_luks-agent"));
    command.env_clear().current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/emr"));
    command.args(["emr", "check", "--certificates", "-"]).args(args);
    command
}

fn checked(bundle: &[u8], args: &[&str]) -> Assert {
    check(args).write_stdin(bundle).assert()
}

fn parsed(bundle: &[u8], args: &[&str]) -> Value {
    serde_json::from_slice(&checked(bundle, args).get_output().stdout).unwrap()
}

/// The weights and names of what is found in a bundle.
fn found(bundle: &[u8], args: &[&str]) -> Vec<String> {
    let object = parsed(bundle, &[&["--json"], args].concat());
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let findings = object["certificates"][0]["findings"].as_array().unwrap_or_else(|| panic!("{object}"));
    findings.iter().map(|finding| format!("{} {}", text(&finding["weight"]), text(&finding["id"]))).collect()
}

#[test]
fn a_good_bundle_passes_in_each_form_of_output() {
    let bundle = bundle(&family(params(NAME)));
    let region = ["--region", "eu-central-1"];
    let shown = contains("private key: that of certificate 1")
        .and(contains("1  CN=*.eu-central-1.compute.internal\n      issued by CN=Middle\n"))
        .and(contains("valid from 2020-01-01T00:00:00Z until 2120-01-01T00:00:00Z"))
        .and(contains("emr check: 1 bundle of certificates\n"));
    checked(&bundle, &region).success().stderr(is_empty()).stdout(shown);
    let object = parsed(&bundle, &["--json", "--region", "eu-central-1"]);
    assert_eq!((&object["exit_code"], &object["files"]), (&json!(0), &json!([])));
    let one = &object["certificates"][0];
    assert_eq!((&one["private_key"], &one["findings"]), (&json!("fits"), &json!([])));
    assert_eq!((&one["chain"][0]["names"], &one["regions"]), (&json!([NAME]), &json!(["eu-central-1"])));
    assert_eq!((one["chain"].as_array().unwrap().len(), one["trusted"].as_array().unwrap().len()), (2, 1));
    let log = parsed(&bundle, &["--sarif"]);
    assert_eq!(log["runs"][0]["results"], json!([]));
}

#[test]
fn a_bundle_is_checked_beside_security_configurations() {
    let bundle = bundle(&family(params("*.ec2.internal")));
    let both = checked(&bundle, &["12-ebs-encryption.json", "--region", "us-east-1"]).success();
    both.stdout(contains("emr check: 1 checked, 1 with local disks encrypted, 1 bundle of certificates\n"));
    // each can fail
    checked(&bundle, &["10-sse-s3-only.json"]).code(1).stderr(contains("local disks are in clear"));
    checked(&bundle, &["12-ebs-encryption.json", "--region", "us-east-2"]).code(1).stderr(contains("in us-east-2"));
    checked(&bundle, &["-"]).code(2).stderr(contains("'-' is given twice"));
    // a region alone, and nothing at all
    let mut command = Command::new(env!("CARGO_BIN_EXE_luks-agent"));
    command.args(["emr", "check", "--region", "us-east-1"]).assert().code(2).stderr(contains("--certificates"));
    checked(&bundle, &["--region", "us-east-1a"]).code(2).stderr(contains("expected one like us-east-1"));
}

#[test]
fn dates_are_told_with_what_to_do() {
    let in_days = |days: i64| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let days = Duration::from_secs(days.unsigned_abs() * 86_400);
        date_time_ymd(1970, 1, 1) + now + days
    };
    let dated = |from, until| {
        let mut params = params(NAME);
        (params.not_before, params.not_after) = (from, until);
        bundle(&family(params))
    };
    let past = date_time_ymd(2020, 1, 1);
    let expired = dated(past, date_time_ymd(2021, 1, 1));
    assert_eq!(found(&expired, &[]), ["wrong certificate-expired"]);
    let said = "standard input: certificateChain.pem: certificate 1 expired on 2021-01-01T00:00:00Z";
    checked(&expired, &[]).code(1).stderr(contains(said)).stdout(contains("Nodes cannot use it:"));
    let early = dated(date_time_ymd(2119, 1, 1), date_time_ymd(2120, 1, 1));
    assert_eq!(found(&early, &[]), ["wrong certificate-not-yet-valid"]);
    let soon = dated(past, in_days(29));
    assert_eq!(found(&soon, &[]), ["doubtful certificate-expires-soon"]);
    checked(&soon, &[]).success().stdout(contains("certificate 1 expires on"));
    assert_eq!(found(&dated(past, in_days(31)), &[]), [""; 0]);
}

#[test]
fn a_key_that_is_not_that_of_the_certificate_fails() {
    let [leaf, middle, root] = family(params(NAME));
    let chain = format!("{}{}", leaf.pem, middle.pem);
    let with = |key: &str| zipped(&[(KEY, key.as_bytes()), (CHAIN, chain.as_bytes()), (TRUSTED, root.pem.as_bytes())]);
    let other = with(&KeyPair::generate().unwrap().serialize_pem());
    assert_eq!(found(&other, &[]), ["wrong private-key-mismatch"]);
    checked(&other, &[]).code(1).stderr(contains("the key is that of no certificate in certificateChain.pem"));
    let of_the_issuer = with(&middle.key.serialize_pem());
    checked(&of_the_issuer, &[]).code(1).stderr(contains("that of a later certificate"));
}

#[test]
fn a_key_in_another_form_is_told_and_never_shown() {
    let [leaf, middle, root] = family(params(NAME));
    let chain = format!("{}{}", leaf.pem, middle.pem);
    let secret = leaf.key.serialize_pem().lines().nth(1).unwrap().to_owned();
    let der = leaf.key.serialize_der();
    let pem =
        |label: &str, body: &str| format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n").into_bytes();
    for (key, id, said) in [
        (der, "wrong private-key-not-pem", "it seems to be DER, expected 'BEGIN PRIVATE KEY'"),
        (pem("ENCRYPTED PRIVATE KEY", &secret), "wrong private-key-encrypted", "EMR has no passphrase for it"),
        (
            pem("RSA PRIVATE KEY", &format!("Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,0\n\n{secret}")),
            "wrong private-key-encrypted",
            "decrypt it with 'openssl pkey'",
        ),
        (pem("PRIVATE KEY", &format!("{secret}*")), "wrong private-key-damaged", "not followed by base64"),
        (pem("PRIVATE KEY", &secret), "doubtful private-key-unreadable", ""),
        (leaf.pem.clone().into_bytes(), "wrong private-key-not-pem", "found 'BEGIN CERTIFICATE'"),
        (leaf.key.serialize_pem().repeat(2).into_bytes(), "wrong several-private-keys", "2 private keys"),
        (Vec::new(), "wrong private-key-not-pem", "it is empty"),
    ] {
        let bundle = zipped(&[(KEY, &key), (CHAIN, chain.as_bytes()), (TRUSTED, root.pem.as_bytes())]);
        assert_eq!(found(&bundle, &[]), [id]);
        for format in [&[][..], &["--json"], &["--sarif"]] {
            let assert = checked(&bundle, format).stderr(contains(said));
            let output = assert.get_output();
            let all = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            assert!(
                !secret.as_bytes().windows(12).any(|part| all.contains(std::str::from_utf8(part).unwrap())),
                "{all}"
            );
        }
    }
}

/// An RSA key of 1,024 bits and its certificate, which OpenSSL made, until 2126. EMR's documentation once made such keys.
const WEAK: &str = include_str!("fixtures/certificates/weak.pem");

#[test]
fn a_short_rsa_key_is_told_and_not_compared() {
    let other = KeyPair::generate().unwrap().serialize_pem();
    let broken = other.replacen("-----\nM", "-----\nN", 1);
    let with = |key: &str| zipped(&[(KEY, key.as_bytes()), (CHAIN, WEAK.as_bytes()), (TRUSTED, WEAK.as_bytes())]);
    let told = ["doubtful private-key-unreadable", "doubtful certificate-self-signed", "doubtful certificate-weak-key"];
    assert_eq!(found(&with(&broken), &[]), told);
    assert_eq!(found(&with(&other), &[])[0], "wrong private-key-mismatch");
}

#[test]
fn a_key_that_cannot_be_read_is_not_that_of_a_common_certificate() {
    let key = KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
    let params = params(NAME);
    let pem = params.self_signed(&key).unwrap().pem();
    let one = Made { params, key, pem };
    let good = bundle_of_one(&one);
    assert_eq!(found(&good, &[]), ["doubtful certificate-self-signed"]);
    let broken = one.key.serialize_pem().replacen("-----\nM", "-----\nN", 1);
    let broken = zipped(&[(KEY, broken.as_bytes()), (CHAIN, one.pem.as_bytes()), (TRUSTED, one.pem.as_bytes())]);
    assert_eq!(found(&broken, &[]), ["wrong private-key-unreadable", "doubtful certificate-self-signed"]);
}

#[test]
fn files_that_are_missing_or_elsewhere_are_told() {
    let one = self_signed(params(NAME));
    let (key, pem) = (one.key.serialize_pem(), one.pem.as_bytes());
    let without_chain = zipped(&[(KEY, key.as_bytes()), (TRUSTED, pem)]);
    assert_eq!(found(&without_chain, &[]), ["wrong missing-file"]);
    let folder =
        zipped(&[("certs/privateKey.pem", key.as_bytes()), ("certs/certificateChain.pem", pem), (TRUSTED, pem)]);
    let assert = checked(&folder, &[]).code(1);
    assert.stderr(contains("privateKey.pem: it is missing, and EMR requires it; found 'certs/privateKey.pem'"));
    // nobody else would trust it
    let alone = zipped(&[(KEY, key.as_bytes()), (CHAIN, pem)]);
    assert_eq!(found(&alone, &[]), ["wrong certificate-not-trusted", "doubtful certificate-self-signed"]);
    checked(&alone, &[]).code(1).stderr(contains("copy certificateChain.pem to trustedCertificates.pem"));
    // Java's default roots may have issued this one
    let [leaf, middle, _] = family(params(NAME));
    let chain = format!("{}{}", leaf.pem, middle.pem);
    let public = zipped(&[(KEY, leaf.key.serialize_pem().as_bytes()), (CHAIN, chain.as_bytes()), ("x\u{1b}.txt", b"")]);
    assert_eq!(found(&public, &[]), ["doubtful unknown-file", "doubtful certificate-not-trusted"]);
    checked(&public, &[]).success().stdout(contains("x\\u{1b}.txt"));
}

#[test]
fn the_names_must_be_those_of_the_nodes() {
    let with_dns = |common_name: &str, dns: &[&str]| {
        let mut params = params(common_name);
        params.subject_alt_names =
            dns.iter().map(|name| rcgen::SanType::DnsName((*name).try_into().unwrap())).collect();
        bundle(&family(params))
    };
    let two = with_dns("emr", &["*.ec2.internal", NAME]);
    checked(&two, &["--region", "us-east-1", "--region", "eu-central-1"]).success();
    checked(&two, &["--region", "us-east-1", "--region", "us-west-2"]).code(1).stderr(
        contains("not for the nodes in us-west-2: it is for *.ec2.internal, *.eu-central-1.compute.internal, expected *.us-west-2.compute")
            .and(contains("hadoop.ssl.hostname.verifier")),
    );
    // without a Region, a wrong name may be meant
    for wrong in
        [with_dns("ip-10-0-0-1.ec2.internal", &[]), with_dns("*.compute.internal", &[]), with_dns(NAME, &["emr.test"])]
    {
        assert_eq!(found(&wrong, &[]), ["doubtful certificate-names"]);
        assert_eq!(found(&wrong, &["--region", "us-east-1"]), ["wrong certificate-names"]);
    }
}

#[test]
fn a_self_signed_certificate_is_told() {
    let bundle = bundle_of_one(&self_signed(ca(NAME)));
    assert_eq!(found(&bundle, &["--region", "eu-central-1"]), ["doubtful certificate-self-signed"]);
    checked(&bundle, &[]).success().stdout(contains("issued by itself").and(contains("To look at:")));
}

#[test]
fn a_chain_in_the_wrong_order_fails() {
    let [leaf, middle, root] = family(params(NAME));
    let in_order = |chain: &[&Made]| {
        let chain: String = chain.iter().map(|one| one.pem.as_str()).collect();
        let key = leaf.key.serialize_pem();
        zipped(&[(KEY, key.as_bytes()), (CHAIN, chain.as_bytes()), (TRUSTED, root.pem.as_bytes())])
    };
    assert_eq!(found(&in_order(&[&leaf, &middle, &root]), &[]), [""; 0]);
    checked(&in_order(&[&leaf, &root, &middle]), &[])
        .code(1)
        .stderr(contains("certificate 2 did not issue certificate 1: certificate 3 issued it"));
    let reversed = found(&in_order(&[&root, &middle, &leaf]), &[]);
    assert!(reversed.contains(&"wrong chain-order".to_owned()), "{reversed:?}");
    assert!(reversed.contains(&"wrong private-key-mismatch".to_owned()), "{reversed:?}");
    // another key under the name of the issuer
    let impostor = issued(ca("Middle"), &root);
    checked(&in_order(&[&leaf, &impostor]), &[]).code(1).stderr(contains("its issuer is not in the chain"));
    assert_eq!(found(&in_order(&[&leaf, &leaf]), &[])[0], "wrong chain-order");
}

#[test]
fn certificates_in_another_form_are_told() {
    let one = self_signed(params(NAME));
    let der = one.params.self_signed(&one.key).unwrap().der().to_vec();
    let key = one.key.serialize_pem();
    for (chain, id, said) in [
        (der, "wrong certificate-not-pem", "it seems to be DER, expected 'BEGIN CERTIFICATE'"),
        (key.clone().into_bytes(), "wrong certificate-not-pem", "found 'BEGIN PRIVATE KEY'"),
        (one.pem.replacen("\nM", "\nN", 1).into_bytes(), "wrong certificate-damaged", "certificate 1 cannot be read"),
    ] {
        let bundle = zipped(&[(KEY, key.as_bytes()), (CHAIN, &chain), (TRUSTED, one.pem.as_bytes())]);
        assert_eq!(found(&bundle, &[]), [id]);
        checked(&bundle, &[]).code(1).stderr(contains(said));
    }
}

/// Changes bytes at a distance from the beginning of each entry: in the local headers, or in the directory.
fn patched(mut zip: Vec<u8>, signature: &[u8], offset: usize, bytes: &[u8]) -> Vec<u8> {
    let entries: Vec<usize> =
        zip.windows(4).enumerate().filter(|(_, window)| *window == signature).map(|(at, _)| at).collect();
    for at in entries {
        zip[at + offset..at + offset + bytes.len()].copy_from_slice(bytes);
    }
    zip
}

#[test]
fn what_is_no_bundle_is_bad_input() {
    let good = bundle(&family(params(NAME)));
    let bomb = zipped(&[(KEY, b"x"), (CHAIN, &vec![0; 8 << 20])]);
    assert!(bomb.len() < 100_000);
    // the directory lies about the size
    let lying = patched(bomb.clone(), b"PK\x01\x02", 24, &10_u32.to_le_bytes());
    let encrypted = patched(patched(good.clone(), b"PK\x03\x04", 6, &[1]), b"PK\x01\x02", 8, &[1]);
    let many: Vec<String> = (0..1_001).map(|n| n.to_string()).collect();
    let many: Vec<(&str, &[u8])> = many.iter().map(|name| (name.as_str(), &b""[..])).collect();
    for (bytes, said) in [
        (b"not a zip file".to_vec(), "not a zip file that can be read"),
        (Vec::new(), "not a zip file that can be read"),
        (good[..good.len() / 2].to_vec(), "not a zip file that can be read"),
        (bomb, "certificateChain.pem in it is larger than 1 MiB"),
        (lying, "certificateChain.pem in it"),
        (encrypted, "privateKey.pem in it is encrypted"),
        (zipped(&many), "more than 1000 files in it"),
        (vec![0; (16 << 20) + 1], "larger than 16 MiB"),
    ] {
        checked(&bytes, &["12-ebs-encryption.json"]).code(2).stdout(is_empty()).stderr(contains(said));
        let object = parsed(&bytes, &["--json"]);
        assert_eq!((&object["exit_code"], &object["certificates"]), (&json!(2), &json!([])));
        assert!(object["error"].as_str().unwrap().contains(said), "{object}");
    }
    let twice = patched(zipped(&[("a", b"1"), ("b", b"2")]), b"PK\x01\x02", 46, b"a");
    checked(&twice, &[]).code(2).stderr(contains("two files of one name"));
    // a file with a wrong checksum
    let damaged = patched(good, b"PK\x01\x02", 16, &[0; 4]);
    checked(&damaged, &[]).code(2).stderr(contains("privateKey.pem in it cannot be decompressed"));
}

#[test]
fn findings_are_results_in_sarif() {
    let one = self_signed(params("emr"));
    let log = parsed(&bundle_of_one(&one), &["--sarif", "--region", "us-east-1"]);
    let run = &log["runs"][0];
    assert_eq!(run["invocations"][0]["exitCode"], 1);
    let results = run["results"].as_array().unwrap();
    let shown: Vec<String> = results.iter().map(|result| format!("{} {}", result["level"], result["ruleId"])).collect();
    assert_eq!(shown, [r#""error" "certificate-names""#, r#""warning" "certificate-self-signed""#]);
    assert_eq!(results[0]["locations"][0]["logicalLocations"][0]["fullyQualifiedName"], CHAIN);
    let index = usize::try_from(results[1]["ruleIndex"].as_u64().unwrap()).unwrap();
    assert_eq!(run["tool"]["driver"]["rules"][index]["id"], "certificate-self-signed");
    assert_ne!(results[0]["partialFingerprints"], results[1]["partialFingerprints"]);
}
