//! The exec provider against small scripts: what the program gets, and how each of its faults ends.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use luks_agent::config;
use luks_agent::key::{KeySource, Provider, WrappedKey};
use luks_agent::kms::{Class, ExecProvider, Fault, KeyService, KmsError};
use tempfile::TempDir;

use super::{Captured, block_on, in_child, limits};

const NAME: &str = "transit/nodes";
/// What a correct program answers to `generate`; its passphrase is this base64.
const KEY: &str = "UXo3I21hcmtlci9RejcjbWFya2VyL1F6NyNtYXJrZXI=";

/// A program and its configuration.
struct Program {
    dir: TempDir,
    exec: config::Exec,
}

impl Program {
    /// A shell script.
    fn new(script: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("program");
        fs::write(&program, format!("#!/bin/bash\n{script}\n")).unwrap();
        fs::set_permissions(&program, Permissions::from_mode(0o700)).unwrap();
        let exec = config::Exec {
            program,
            arguments: vec!["--first".to_owned(), "second word".to_owned()],
            key_id: NAME.to_owned(),
            deadline: Duration::from_secs(60),
            timeout: Duration::from_secs(20),
            pass_environment: Vec::new(),
        };
        Self { dir, exec }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn provider(&self) -> ExecProvider {
        ExecProvider::with_limits(Some(&self.exec), limits()).unwrap()
    }

    fn unwrap(&self) -> Result<String, KmsError> {
        let key = block_on(self.provider().unwrap(&source()))?;
        Ok(String::from_utf8(key.passphrase().expose().to_vec()).unwrap())
    }

    /// How often it was called, if it appends to `calls`.
    fn calls(&self) -> usize {
        self.read("calls").lines().count()
    }
}

fn source() -> KeySource {
    let wrapped_key = WrappedKey::new(b"wrapped".to_vec()).unwrap();
    KeySource { provider: Provider::Exec, wrapped_key, key_arn: NAME.to_owned() }
}

fn is_running(pid: &str) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    !status.is_empty() && !status.contains(") Z ")
}

#[track_caller]
fn wait_until_gone(pid: &str) {
    let since = Instant::now();
    while is_running(pid) {
        assert!(since.elapsed() < Duration::from_secs(20), "{pid} still runs");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_key_is_generated_and_unwrapped_with_one_call_each() {
    let program = Program::new(&format!(
        r#"cd "$(dirname "$0")" && cat >request && echo >>calls && cat request >>requests
        case $(<request) in
        *generate*) echo '{{"plaintext": "{KEY}", "wrapped_key": "d3JhcHBlZA==", "key_id": "{NAME}/3"}}' ;;
        *unwrap*) echo '{{"plaintext": "{KEY}"}}' ;;
        esac"#
    ));
    let provider = program.provider();
    let made = block_on(provider.generate()).unwrap();
    assert_eq!((made.provider, made.key_arn.as_str()), (Provider::Exec, "transit/nodes/3"));
    assert!(block_on(provider.unwrap(&made.source())).unwrap().same_as(&made.data_key));
    assert_eq!(
        program.read("requests"),
        "{\"version\":1,\"operation\":\"generate\",\"key_id\":\"transit/nodes\",\"key_bytes\":32}\n\
         {\"version\":1,\"operation\":\"unwrap\",\"key_id\":\"transit/nodes/3\",\"wrapped_key\":\"d3JhcHBlZA==\"}\n"
    );
    let usage = provider.usage();
    assert_eq!((usage.calls["generate"], usage.calls["unwrap"], usage.errors.len()), (1, 1, 0));
}

#[test]
fn the_program_gets_a_small_environment_its_arguments_and_no_key() {
    let test = "exec::the_program_gets_a_small_environment_its_arguments_and_no_key";
    let env = [
        ("AWS_SECRET_ACCESS_KEY", "no business of yours".to_owned()),
        ("HTTPS_PROXY", "http://proxy".to_owned()),
        ("PATH", "/somewhere/else".to_owned()),
    ];
    if !in_child(test, &env) {
        return;
    }
    let mut program = Program::new(&format!(
        r#"cd "$(dirname "$0")" || exit
        tr '\0' '\n' </proc/$$/environ >environment; printf '%s|' "$PWD" "$@" >arguments
        ls -l /proc/$$/fd >files; grep -i core /proc/$$/limits >limits; umask >umask; cat >/dev/null
        echo '{{"plaintext": "{KEY}"}}'"#
    ));
    program.exec.pass_environment = vec!["HTTPS_PROXY".to_owned(), "NO_SUCH_VARIABLE".to_owned()];
    // a file that the agent has open
    let open = fs::File::create(program.path("open")).unwrap();
    assert_eq!(program.unwrap().unwrap(), KEY);
    drop(open);
    let mut environment: Vec<_> = program.read("environment").lines().map(str::to_owned).collect();
    environment.sort();
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(environment, ["HTTPS_PROXY=http://proxy", "LANG=C.UTF-8", path]);
    assert!(program.read("arguments").ends_with("|--first|second word|"), "{}", program.read("arguments"));
    assert!(!program.read("files").contains("/open"), "{}", program.read("files"));
}

/// Each fault, with its class, what the message says, and how often the program is called.
#[test]
fn each_fault_of_the_program_ends_in_one_error_with_a_remedy() {
    let error = |kind: &str| format!("echo '{{\"error\": {{\"kind\": \"{kind}\", \"message\": \"so it is\"}}}}'");
    let key = |bytes: u32| format!("echo '{{\"plaintext\": \"'\"$(head -c {bytes} /dev/zero | base64)\"'\"}}'");
    let (denied, disabled, damaged) = (error("denied"), error("key-disabled"), error("wrapped-key"));
    let (misconfigured, unavailable, short) = (error("configuration"), error("unavailable"), key(31));
    let failed = format!("{unavailable}; exit 9");
    let contradiction = format!("echo '{{\"plaintext\": \"{KEY}\"}}'; exit 1");
    for (script, class, fault, says, calls) in [
        (denied.as_str(), Class::Denied, Fault::Unavailable, "reports denied: so it is", None),
        (&unavailable, Class::Transient, Fault::Unavailable, "reports unavailable: so it is", None),
        (&failed, Class::Transient, Fault::Unavailable, "reports unavailable: so it is", None),
        (&disabled, Class::KeyState, Fault::Unavailable, "enable the key", Some(1)),
        (&damaged, Class::WrappedKey, Fault::Data, "restore the wrapped key", Some(1)),
        (&misconfigured, Class::Configuration, Fault::Configuration, "correct exec.command and exec.key_id", Some(1)),
        (&short, Class::Unexpected, Fault::Data, "the data key has 31 bytes, expected 32", Some(1)),
        (&contradiction, Class::Transient, Fault::Unavailable, "failed, exit status: 1", None),
        (
            "echo one >&2; echo vault is sealed >&2; exit 7",
            Class::Transient,
            Fault::Unavailable,
            "exit status: 7: vault is sealed",
            None,
        ),
        ("kill -9 $$", Class::Transient, Fault::Unavailable, "signal: 9", None),
        ("printf '{\"plaintext\": \"UXo3'; kill -9 $$", Class::Transient, Fault::Unavailable, "signal: 9", None),
        ("printf '{\"plaintext\": \"UXo3'", Class::Garbled, Fault::Data, "ends in the middle", Some(3)),
        ("true", Class::Garbled, Fault::Data, "it is empty", Some(3)),
        ("echo <<<x hello", Class::Garbled, Fault::Data, "it is not a JSON object", Some(3)),
        ("head -c 100 /dev/urandom", Class::Garbled, Fault::Data, "it is not a JSON object", Some(3)),
        ("yes", Class::Garbled, Fault::Data, "longer than 16384 bytes", Some(3)),
        (
            "exec /bin/sleep 1000",
            Class::Transient,
            Fault::Unavailable,
            "did not finish within 0.3 s and was killed",
            None,
        ),
        ("exec >&-; exec /bin/sleep 1000", Class::Transient, Fault::Unavailable, "did not finish within 0.3 s", None),
        (
            "while sleep 0.05; do printf ' '; done",
            Class::Transient,
            Fault::Unavailable,
            "did not finish within 0.3 s",
            None,
        ),
    ] {
        let mut program = Program::new(&format!("echo >>\"$(dirname \"$0\")\"/calls\n{script}"));
        let hangs = says.contains("did not finish");
        program.exec.timeout = Duration::from_millis(if hangs { 300 } else { 20_000 });
        program.exec.deadline = Duration::from_millis(if hangs {
            900
        } else if calls.is_some() {
            60_000
        } else {
            1_500
        });
        let began = Instant::now();
        let error = program.unwrap().unwrap_err();
        let text = error.to_string();
        assert_eq!((error.class(), error.fault()), (class, fault), "{script}: {text}");
        assert!(text.contains(says), "{script}: {text}");
        assert!(text.starts_with("exec unwrap with key transit/nodes: "), "{text}");
        assert!(text.rsplit("; ").next().unwrap().len() > 20 && !text.contains("UXo3"), "{text}");
        assert_eq!(error.provider(), Provider::Exec);
        match calls {
            Some(calls) => assert_eq!(program.calls(), calls, "{text}"),
            None => assert!(program.calls() > 1, "{text}"),
        }
        assert!(began.elapsed() < Duration::from_secs(30), "{script} took {:?}", began.elapsed());
    }
}

#[test]
fn a_program_that_cannot_be_trusted_or_started_is_a_configuration_error() {
    for (change, says) in [
        ("chmod 777 program", "program has mode 0777"),
        ("chmod 600 program", "is not an executable file"),
        ("chmod 773 .", "has mode 0773"),
        ("rm program", "No such file"),
        ("echo '#!/no/such/interpreter' >program", "cannot start"),
        ("rm program; mkdir program", "is not an executable file"),
    ] {
        let program = Program::new("exit 1");
        let status = Command::new("sh").args(["-c", change]).current_dir(program.dir.path()).status().unwrap();
        assert!(status.success(), "{change}");
        let error = program.unwrap().unwrap_err();
        assert_eq!((error.class(), error.fault()), (Class::Configuration, Fault::Configuration), "{error}");
        let text = error.to_string();
        assert!(text.contains(says) && text.contains("exec.command"), "{change}: {text}");
        fs::set_permissions(program.dir.path(), Permissions::from_mode(0o700)).unwrap();
    }
    let error = ExecProvider::new(None).unwrap_err();
    assert!(error.fault() == Fault::Configuration && error.to_string().contains("exec.command is missing"), "{error}");
}

#[test]
fn at_the_deadline_the_program_is_killed_with_all_that_it_started() {
    for script in ["sleep 1000 & echo $! >child; sleep 1000", "(sleep 1000 & echo $! >child; wait)"] {
        let mut program = Program::new(&format!("cd \"$(dirname \"$0\")\" || exit\necho $$ >self\n{script}"));
        program.exec.timeout = Duration::from_secs(2);
        program.exec.deadline = Duration::from_millis(2500);
        let error = program.unwrap().unwrap_err();
        assert!(error.to_string().contains("did not finish within 2 s and was killed"), "{error}");
        wait_until_gone(&program.read("self"));
        wait_until_gone(&program.read("child"));
    }
}

#[test]
fn a_child_of_the_program_that_keeps_its_output_open_delays_nothing_and_is_killed() {
    let answer = format!("echo '{{\"plaintext\": \"{KEY}\"}}'");
    let program = Program::new(&format!("cd \"$(dirname \"$0\")\" || exit\nsleep 1000 &\necho $! >child\n{answer}"));
    let began = Instant::now();
    assert_eq!(program.unwrap().unwrap(), KEY);
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    wait_until_gone(&program.read("child"));
}

#[test]
fn a_program_need_not_read_its_request_and_may_heal() {
    let answer = format!("echo '{{\"plaintext\": \"{KEY}\"}}'");
    let program = Program::new(&format!(
        "exec <&-\ncd \"$(dirname \"$0\")\"\n[[ -e tried ]] || {{ touch tried; exit 1; }}\n{answer}"
    ));
    assert_eq!(program.unwrap().unwrap(), KEY);
}

#[test]
fn health_asks_for_the_state_or_unwraps_and_discards() {
    let check = |describe: &str, unwrap: &str| {
        let program = Program::new(&format!(
            "request=$(cat)\necho \"$request\" >>\"$(dirname \"$0\")\"/calls\ncase $request in\n\
             *describe*) echo '{describe}' ;;\n*unwrap*) echo '{unwrap}' ;;\nesac"
        ));
        let checked = block_on(program.provider().check(&source()));
        (checked.state.map(|state| state.name), checked.usable.err().map(|e| e.to_string()), program.calls())
    };
    let key = format!("{{\"plaintext\": \"{KEY}\"}}");
    let unsupported = "{\"error\": {\"kind\": \"unsupported\"}}";
    let (state, error, calls) = check("{\"enabled\": true, \"state\": \"Active\"}", "");
    assert_eq!((state.as_deref(), error, calls), (Some("Active"), None, 1));
    assert_eq!(check(unsupported, &key), (None, None, 2));
    let (state, error, _) = check("{\"enabled\": false, \"state\": \"Destroyed\"}", &key);
    assert_eq!(state.as_deref(), Some("Destroyed"));
    assert!(error.unwrap().contains("its state is Destroyed; enable the key"));
    let (_, error, _) = check(unsupported, "{\"error\": {\"kind\": \"key-disabled\", \"message\": \"gone\"}}");
    assert!(error.unwrap().contains("exec unwrap with key transit/nodes"));
}

#[test]
fn no_log_shows_the_data_key_and_messages_of_the_program_are_logged() {
    let test = "exec::no_log_shows_the_data_key_and_messages_of_the_program_are_logged";
    if !in_child(test, &[]) {
        return;
    }
    let captured = Captured::default();
    let writer = captured.clone();
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .init();
    let program = Program::new(&format!(
        r#"cd "$(dirname "$0")"; echo "token renewed" >&2; printf 'no newline' >&2
        [[ -e tried ]] || {{ touch tried; echo '{{"plaintext": "{KEY}"'; exit; }}
        echo '{{"plaintext": "{KEY}"}}'"#
    ));
    assert_eq!(program.unwrap().unwrap(), KEY);
    let log = String::from_utf8(captured.0.lock().unwrap().clone()).unwrap();
    for says in [
        "program: token renewed",
        "program: no newline",
        "exec unwrap failed, trying again in",
        "unwrapped the data key",
    ] {
        assert!(log.contains(says), "{says}: {log}");
    }
    assert!(!log.contains(&KEY[..20]), "{log}");
    assert!(Path::new(&program.exec.program).exists());
}
