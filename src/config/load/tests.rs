use std::time::Duration;

use super::super::values::{Expect, Noise, Policy, WhenNotBlank};
use super::*;
use crate::key::Provider;
use crate::storage::FilesystemKind;

fn load(text: &str) -> Result<Config, ConfigError> {
    Config::from_text(Path::new("config.toml"), text)
}

fn error(text: &str) -> String {
    load(text).unwrap_err().to_string()
}

#[test]
fn the_key_id_is_enough() {
    let config = load("[kms]\nkey_id = \"alias/nodes\"\n").unwrap();
    assert_eq!(config.keys.key_id, "alias/nodes");
    assert_eq!(config.kms.deadline, Duration::from_secs(600));
    assert_eq!(config.state.dir, Path::new("/etc/luks-agent/state"));
    assert_eq!(config.volumes.ebs, Policy::Encrypt);
    assert_eq!(config.volumes.when_not_blank, WhenNotBlank::Refuse);
    assert_eq!(config.volumes.noise, Noise::Refuse);
    assert_eq!(config.luks.cipher.parts(), ("aes", "xts-plain64"));
    assert_eq!(config.luks.key_size, 512);
    assert_eq!(config.filesystem.kind, FilesystemKind::Xfs);
    assert_eq!(config.filesystem.mount_base, Path::new("/mnt"));
    assert_eq!(config.filesystem.options, ["noatime"]);
}

#[test]
fn paths_are_normalised() {
    let config = load("[kms]\nkey_id = \"x\"\n[state]\ndir = \"/a//b/\"\n[filesystem]\nmount_base = \"/data/./\"\n");
    let config = config.unwrap();
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    assert_eq!((text(&config.state.dir), text(&config.filesystem.mount_base)), ("/a/b".into(), "/data".into()));
}

#[test]
fn drop_ins_can_give_a_part_of_what_is_expected() {
    let dir = tempfile::tempdir().unwrap();
    let main = dir.path().join("config.toml");
    fs::create_dir(dir.path().join("config.d")).unwrap();
    fs::write(&main, "[kms]\nkey_id = \"a\"\n[volumes.expect]\nebs = 1\nwithin = \"9m\"\n").unwrap();
    fs::write(dir.path().join("config.d/1.toml"), "[volumes.expect]\nebs = 2\ninstance_store = 0\n").unwrap();
    let expected = Expect { ebs: Some(2), instance_store: Some(0), within: Duration::from_secs(540) };
    assert_eq!(Config::load(&main).unwrap().volumes.expect, expected);
    assert_eq!(load("[kms]\nkey_id = \"k\"\n").unwrap().volumes.expect.ebs, None);
}

/// Loads a configuration with `[emr]`, in which `text` comes first, and a security configuration.
fn load_with(document: &str, text: &str) -> Result<Config, String> {
    let dir = tempfile::tempdir().unwrap();
    let (main, file) = (dir.path().join("config.toml"), dir.path().join("nodes.json"));
    fs::write(&file, document).unwrap();
    fs::write(&main, format!("{text}\n[emr]\nsecurity_configuration = \"{}\"\n", file.display())).unwrap();
    Config::load(&main).map_err(|e| e.to_string())
}

#[test]
fn a_security_configuration_gives_key_and_policies() {
    let luks = include_str!("../../../tests/fixtures/emr/05-sse-s3-luks.json");
    let ebs = include_str!("../../../tests/fixtures/emr/12-ebs-encryption.json");
    let key = "arn:aws:kms:us-east-1:111122223333:key/12345678-1234-1234-1234-123456789012";
    let config = load_with(luks, "").unwrap();
    assert_eq!((config.keys.key_id.as_str(), config.volumes.ebs), (key, Policy::Encrypt));
    let digest = config.emr.unwrap().digest;
    assert_eq!(load_with(&luks.replace('\n', " "), "").unwrap().emr.unwrap().digest, digest);
    let config = load_with(ebs, &format!("[kms]\nkey_id = \"{key}\"\n[volumes]\ninstance_store = \"ignore\"")).unwrap();
    assert_eq!((config.volumes.instance_store, config.volumes.ebs), (Policy::Ignore, Policy::Ignore));
    assert_ne!(config.emr.unwrap().digest, digest);
}

#[test]
fn what_contradicts_a_security_configuration_or_cannot_be_taken_over_is_an_error() {
    let luks = include_str!("../../../tests/fixtures/emr/05-sse-s3-luks.json");
    for (document, text, said) in [
        (luks, "[kms]\nkey_id = \"alias/x\"", "and the configuration says \"alias/x\"; remove kms.key_id"),
        (luks, "[volumes]\nebs = \"ignore\"", "it says volumes.ebs = \"encrypt\""),
        (luks, "[keys]\nprovider = \"exec\"", "remove keys.provider"),
        ("{}", "", "the document is empty"),
        (include_str!("../../../tests/fixtures/emr/10-sse-s3-only.json"), "", "it encrypts no local disks"),
    ] {
        let error = load_with(document, text).unwrap_err();
        assert!(error.starts_with("emr.security_configuration ") && error.contains(said), "{error}");
    }
    let missing = "[emr]\nsecurity_configuration = \"/nonexistent/x.json\"\n";
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("config.toml"), missing).unwrap();
    let error = Config::load(&dir.path().join("config.toml")).unwrap_err().to_string();
    assert_eq!(error, "cannot read configuration file /nonexistent/x.json");
}

#[test]
fn mistakes_name_file_line_and_what_was_expected() {
    insta::assert_snapshot!(
        [
            "",
            "[kms]\nkey_id = \"\"\n",
            "[kms]\nkey_idd = \"alias/x\"\n",
            "[kms]\nkey_id = 7\n",
            "[kms]\nkey_id = \"alias/x\"\ndeadline = \"soon\"\n",
            "[kms]\nkey_id = \"alias/x\"\ndeadline = \"0s\"\n",
            "[kms]\nkey_id = \"alias/x\"\nendpoint_url = \"kms\"\n",
            "[kms]\nkey_id = \"alias/x\"\nfips = \"yes\"\n",
            "[imds]\nendpoint_mode = \"IPv6\"\n",
            "[volume]\nebs = \"encrypt\"\n",
            "[volumes]\nebs = \"encrpyt\"\n",
            "[luks]\ncipher = \"aes-cbc-plain\"\n",
            "[luks]\nkey_size = 128\n",
            "[luks]\nsector_size = 8192\n",
            "[filesystem]\nmount_base = \"mnt\"\n",
            "[filesystem]\nmount_base = \"/\"\n",
            "[filesystem]\noptions = [\"noatime,nodev\"]\n",
            "[state]\ndir = \"state\"\n",
            "[[volumes.match]]\nrole = \"ebs\"\n",
            "[[volumes.match]]\npath = \"/dev/[\"\nrole = \"ebs\"\n",
            "[kms\n",
            "[keys]\nprovider = \"vault\"\n",
            "[keys]\nprovider = \"exec\"\n",
            "[keys]\nprovider = \"exec\"\n[kms]\nkey_id = \"alias/x\"\n",
            "[exec]\ncommand = [\"/x\"]\nkey_id = \"k\"\n",
            "[kms]\nkey_id = \"alias/x\"\n[exec]\ncommand = [\"/x\"]\n",
            "[kms]\nkey_id = \"alias/x\"\n[exec]\nkey_id = \"k\"\n",
            "[exec]\ncommand = \"/x --y\"\n",
            "[exec]\ncommand = []\n",
            "[exec]\ncommand = [\"nodes-kms\", \"--x\"]\n",
            "[exec]\ncommand = [\"/opt/../x\"]\n",
            "[exec]\ncommand = [\"/x\", \"a\\u0000b\"]\n",
            "[exec]\npass_environment = [\"A=B\"]\n",
            "[audit]\ninterval = \"daily\"\n",
            "[audit]\ninterval = \"59s\"\n",
            "[audit]\nreport = \"audit.json\"\n",
            "[kms]\nkey_id = \"alias/x\"\n[audit]\nssm_inventory = true\n",
        ]
        .map(error)
        .join("\n")
    );
}

#[test]
fn one_key_says_what_wraps_new_data_keys_and_both_sections_may_stand() {
    let both =
        "[kms]\nkey_id = \"alias/nodes\"\n[exec]\ncommand = [\"/opt//kms/./x\", \"-v\"]\nkey_id = \"transit/nodes\"\n";
    let kms = load(both).unwrap();
    assert_eq!((kms.keys.provider, kms.keys.key_id.as_str()), (Provider::AwsKms, "alias/nodes"));
    let exec = kms.exec.unwrap();
    assert_eq!(
        (exec.program.as_path(), exec.arguments.as_slice()),
        (Path::new("/opt/kms/x"), ["-v".to_owned()].as_slice())
    );
    assert_eq!((exec.timeout, exec.deadline), (Duration::from_secs(30), Duration::from_secs(600)));

    let chosen = load(&format!("[keys]\nprovider = \"exec\"\n{both}deadline = \"20m\"\n")).unwrap();
    assert_eq!((chosen.keys.provider, chosen.keys.key_id.as_str()), (Provider::Exec, "transit/nodes"));
    assert_eq!((chosen.kms.key_id.as_deref(), chosen.key_deadline()), (Some("alias/nodes"), Duration::from_secs(1200)));
    let alone = both.split_once("[exec]").unwrap().1;
    let alone = load(&format!("[keys]\nprovider = \"exec\"\n[exec]{alone}")).unwrap();
    assert_eq!(alone.kms.key_id, None);
}

#[test]
fn a_data_key_crosses_no_network_in_clear_unless_that_is_allowed() {
    let with = |url: &str, more: &str| load(&format!("[kms]\nkey_id = \"k\"\nendpoint_url = \"{url}\"\n{more}"));
    for url in [
        "https://kms.example",
        "http://127.0.0.1:4566",
        "http://127.9.9.9/x",
        "http://localhost:4566",
        "http://[::1]:4566",
        "http://169.254.169.254",
        "http://[fe80::1]",
    ] {
        assert_eq!(with(url, "").unwrap().kms.endpoint_url.as_deref(), Some(url));
    }
    for url in [
        "http://kms.example",
        "http://localhost.example",
        "http://10.0.0.1:4566",
        "http://192.168.56.10:4566",
        "http://[2001:db8::1]",
        "http://127.0.0.1@kms.example",
        "http://kms.example/127.0.0.1",
        "http://0.0.0.0:4566",
        // resolvers disagree on this form
        "http://2130706433",
        "http://[::1",
    ] {
        let message = with(url, "").unwrap_err().to_string();
        let says = [url, "kms.endpoint_url", "unencrypted", "use an https://", "kms.allow_http = true"];
        assert!(says.iter().all(|part| message.contains(part)), "{message}");
        assert!(with(url, "allow_http = false").is_err());
        assert!(with(url, "allow_http = true").unwrap().kms.allow_http);
    }
}

#[test]
fn two_keys_do_not_choose_the_endpoint_of_kms() {
    let own = "[kms]\nkey_id = \"k\"\nendpoint_url = \"https://kms.example\"\n";
    for key in ["fips", "dual_stack"] {
        let message = error(&format!("{own}{key} = true\n"));
        let says = format!("config.toml: kms.{key} and kms.endpoint_url contradict each other");
        assert!(message.starts_with(&says) && message.contains("remove kms.endpoint_url, or remove"), "{message}");
        assert!(load(&format!("{own}{key} = false\n")).is_ok());
        assert!(load(&format!("[kms]\nkey_id = \"k\"\n{key} = true\n")).is_ok());
    }
}

#[test]
fn a_key_that_is_not_set_is_not_in_the_digest_of_the_values() {
    let minimal = "[kms]\nkey_id = \"k\"\n";
    let values = serde_json::to_value(load(minimal).unwrap()).unwrap();
    assert!(values.get("imds").is_none() && values["kms"].get("fips").is_none(), "{values}");
    let digest = |more: &str| load(&format!("{minimal}{more}")).unwrap().sha256();
    let all = ["", "fips = true", "fips = false", "dual_stack = true", "[imds]\nendpoint_mode = \"ipv6\""].map(digest);
    assert!(all.iter().enumerate().all(|(i, one)| !all[..i].contains(one)), "{all:?}");
}

#[test]
fn a_drop_in_can_allow_http_for_the_endpoint_of_another_file() {
    let dir = tempfile::tempdir().unwrap();
    let main = dir.path().join("config.toml");
    fs::create_dir(dir.path().join("config.d")).unwrap();
    fs::write(&main, "[kms]\nkey_id = \"k\"\nendpoint_url = \"http://kms.example\"\n").unwrap();
    assert!(Config::load(&main).unwrap_err().to_string().contains("unencrypted"));
    fs::write(dir.path().join("config.d/1.toml"), "[kms]\nallow_http = true\n").unwrap();
    assert!(Config::load(&main).unwrap().kms.allow_http);
}

#[test]
fn drop_ins_win_in_order_of_their_names() {
    let dir = tempfile::tempdir().unwrap();
    let main = dir.path().join("config.toml");
    fs::create_dir(dir.path().join("config.d")).unwrap();
    fs::write(&main, "[kms]\nkey_id = \"a\"\nregion = \"r\"\n").unwrap();
    let drop_in = |name: &str, text: &str| fs::write(dir.path().join("config.d").join(name), text).unwrap();
    drop_in("20-b.toml", "[kms]\nkey_id = \"c\"\n");
    drop_in("10-a.toml", "[kms]\nkey_id = \"b\"\n[[volumes.match]]\nserial = \"x*\"\nrole = \"ignore\"\n");
    drop_in("30-c.conf", "not toml");
    let config = Config::load(&main).unwrap();
    assert_eq!((config.keys.key_id.as_str(), config.kms.region.as_deref()), ("c", Some("r")));
    assert_eq!(config.volumes.rules.len(), 1);

    drop_in("40-d.toml", "\n\n[kms]\nkey = \"c\"\n");
    let message = Config::load(&main).unwrap_err().to_string();
    assert!(message.contains("40-d.toml:4: key: unknown field `key`"), "{message}");
}

#[test]
fn a_missing_or_unreadable_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.toml");
    assert!(Config::load(&path).unwrap_err().to_string().contains("config.toml does not exist; create it"));
    fs::create_dir(&path).unwrap();
    assert!(Config::load(&path).unwrap_err().to_string().contains("cannot read configuration file"));
}
