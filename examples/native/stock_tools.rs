//! How long `cryptsetup open` takes with the token plug-in, and with a key file. It needs root, because cryptsetup finds agent and plug-in
//! only where the system has them: they are put there in a mount namespace, which ends with this process.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use fake_aws::Server;
use luks_agent::config;
use luks_agent::kms::{AwsKms, KeyService, Options};
use luks_agent::luks2::Token;

use super::median;

/// How often each way opens the volume, in turn.
const ROUNDS: usize = 20;
/// How much longer it may take with the plug-in, in milliseconds.
const TARGET_MS: f64 = 100.0;
const PLUGIN: &str = "libcryptsetup-token-luks-agent-awskms.so";

/// Runs this program once more in a mount namespace, where it calls [`compare`].
pub(crate) fn compare_in_namespace(agent: &Path) {
    let why = if !nix::unistd::geteuid().is_root() {
        "it needs root"
    } else if !plugin(agent).exists() {
        "the plug-in is not built; run make bench-native"
    } else {
        let program = std::env::current_exe().unwrap();
        run(Command::new("unshare").args(["--mount", "--propagation", "private"]).arg(program).arg("stock-tools"));
        return;
    };
    println!("cryptsetup open with the token plug-in: not measured, {why}");
}

fn plugin(agent: &Path) -> PathBuf {
    agent.ancestors().nth(2).unwrap().join("token").join(PLUGIN)
}

/// Installs agent and plug-in in this mount namespace, and measures.
pub(crate) fn compare(agent: &Path, aws: &Server) {
    let folder = install(agent);
    let (image, key) = (folder.join("image"), folder.join("key"));
    make_volume(&image, &key, aws);
    let open = |how: &[&Path]| {
        let mut command = Command::new("cryptsetup");
        command.args(["open", "--test-passphrase"]).args(how).arg(&image).env_clear().env("PATH", "/usr/sbin:/usr/bin");
        command.env("AWS_ENDPOINT_URL", aws.url()).env("AWS_EC2_METADATA_SERVICE_ENDPOINT", aws.url());
        let start = Instant::now();
        run(&mut command);
        start.elapsed().as_secs_f64() * 1000.0
    };
    aws.clear_requests();
    // cryptsetup tries tokens first, also where it has a key file
    let key_file = [Path::new("--disable-external-tokens"), Path::new("--key-file"), &key];
    let rounds = (0..ROUNDS).map(|_| (open(&[Path::new("--token-only")]), open(&key_file)));
    let (by_plugin, by_key_file): (Vec<f64>, Vec<f64>) = rounds.unzip();
    assert_eq!(aws.count("Decrypt"), ROUNDS, "KMS was not asked once for each");
    let (by_plugin, by_key_file) = (median(by_plugin), median(by_key_file));
    let more = by_plugin - by_key_file;
    let met = if more <= TARGET_MS { "met" } else { "MISSED" };
    println!("medians of {ROUNDS} rounds");
    println!("cryptsetup open --test-passphrase, with the token plug-in  {by_plugin:6.1} ms");
    println!("the same with a key file, without plug-ins                 {by_key_file:6.1} ms");
    println!("difference                                                 {more:6.1} ms");
    println!("{met}: the token plug-in takes at most {TARGET_MS:.0} ms more than a key file");
}

/// Returns a folder in memory.
fn install(agent: &Path) -> PathBuf {
    let help = Command::new("cryptsetup").arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let plugins = help.lines().find_map(|line| line.split("token plugin path: ").nth(1)).expect("no plug-ins");
    let plugins = Path::new(plugins.trim_end_matches('.'));
    let folder = PathBuf::from("/mnt");
    run(Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(&folder));
    for (number, below) in [Path::new("/usr/sbin"), plugins.parent().unwrap()].into_iter().enumerate() {
        let below = below.canonicalize().unwrap();
        let [upper, work] = ["upper", "work"].map(|name| folder.join(format!("{name}{number}")));
        fs::create_dir(&upper).unwrap();
        fs::create_dir(&work).unwrap();
        let options = format!("lowerdir={},upperdir={},workdir={}", below.display(), upper.display(), work.display());
        run(Command::new("mount").args(["-t", "overlay", "overlay", "-o", &options]).arg(&below));
    }
    fs::create_dir_all(plugins).unwrap();
    fs::copy(plugin(agent), plugins.join(PLUGIN)).unwrap();
    fs::copy(agent, "/usr/sbin/luks-agent").unwrap();
    folder
}

/// Makes a volume in a file, with a header like the agent's.
fn make_volume(image: &Path, key_file: &Path, aws: &Server) {
    let config = config::Kms {
        key_id: Some(aws.key_arn()),
        region: None,
        endpoint_url: Some(aws.url()),
        fips: None,
        dual_stack: None,
        allow_http: false,
        deadline: Duration::from_secs(60),
    };
    let credentials = SharedCredentialsProvider::new(Credentials::new("AKIDTEST", "secret", None, None, "native"));
    let options = Options { credentials: Some(credentials), ..Options::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let made =
        runtime.block_on(async { AwsKms::connect_with(&config, options).await.unwrap().generate().await.unwrap() });
    fs::write(key_file, made.data_key.passphrase().expose()).unwrap();
    fs::File::create(image).unwrap().set_len(32 << 20).unwrap();
    let format = ["luksFormat", "--batch-mode", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--key-file"];
    run(Command::new("cryptsetup").args(format).arg(key_file).arg(image));
    let token = Token { keyslots: vec!["0".to_owned()], ..Token::new(made.source(), None) };
    let json = key_file.with_file_name("token");
    fs::write(&json, serde_json::to_vec(&token).unwrap()).unwrap();
    run(Command::new("cryptsetup").args(["token", "import", "--json-file"]).arg(json).arg(image));
}

fn run(command: &mut Command) {
    let status = command.stdin(Stdio::null()).status().unwrap();
    assert!(status.success(), "{command:?}: {status}");
}
