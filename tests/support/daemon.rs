//! Our own binary as people run it: `barograph serve` on free ports, asked over the command line.

use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;

/// The binary under test: `$BAROGRAPH_BINARY` if that is set, such as a release build, else the one of
/// this build.
pub static BINARY: LazyLock<PathBuf> = LazyLock::new(|| {
    std::env::var_os("BAROGRAPH_BINARY").map_or_else(|| env!("CARGO_BIN_EXE_barograph").into(), PathBuf::from)
});

/// A running daemon, until it is dropped.
pub struct Daemon {
    child: Child,
    addresses: BTreeMap<String, String>,
}

impl Daemon {
    /// Starts one over this data directory with further `KEY=VALUE` settings, and waits until it is ready.
    /// What it logs is in `DATA/log`.
    pub fn start(data: &Path, settings: &[&str]) -> Self {
        Self::start_after(&[], data, settings)
    }

    /// The same with words before the command, such as `taskset -c 0`: what they name must run it in its own
    /// place.
    pub fn start_after(words: &[&str], data: &Path, settings: &[&str]) -> Self {
        std::fs::create_dir_all(data).expect("a data directory");
        let log = data.join("log");
        let mut command = match words {
            [] => Command::new(&*BINARY),
            [program, rest @ ..] => {
                let mut command = Command::new(program);
                command.args(rest).arg(&*BINARY);
                command
            }
        };
        command.arg("serve").arg("--set").arg(format!("data_dir={:?}", data.display().to_string()));
        for name in ["otlp_grpc", "otlp_http", "query", "http"] {
            command.arg("--set").arg(format!("listen.{name}=\"127.0.0.1:0\""));
        }
        for setting in settings {
            command.arg("--set").arg(setting);
        }
        let errors = std::fs::OpenOptions::new().create(true).append(true).open(&log).expect("a log");
        let mut child = command.stdout(Stdio::piped()).stderr(errors).spawn().expect("the binary starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let ready = loop {
            match lines.next() {
                Some(Ok(line)) if line.starts_with("ready ") => break line,
                Some(Ok(_)) => {}
                _ => {
                    let _ = child.wait();
                    panic!(
                        "it ended before it was ready: {}",
                        std::fs::read_to_string(&log).unwrap_or_default()
                    );
                }
            }
        };
        std::thread::spawn(move || lines.for_each(drop));
        let addresses = ready
            .split_whitespace()
            .filter_map(|word| word.split_once('='))
            .map(|(name, address)| (name.to_owned(), address.to_owned()))
            .collect();
        Self { child, addresses }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The most memory that it had resident so far.
    pub fn peak_bytes(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.id())).expect("a status");
        let line = text.lines().find(|line| line.starts_with("VmHWM")).expect("a peak");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number") << 10
    }

    /// `http://HOST:PORT` of `otlp_grpc`, `otlp_http`, `query` or `http`.
    pub fn url(&self, name: &str) -> String {
        format!("http://{}", self.addresses.get(name).unwrap_or_else(|| panic!("{name} in the ready line")))
    }

    /// What a client command answers, as JSON.
    pub fn ask(&self, arguments: &[&str]) -> Value {
        let output = Command::new(&*BINARY)
            .args(arguments)
            .args(["--endpoint", &self.url("query"), "-o", "json"])
            .output()
            .expect("the binary runs");
        assert!(
            output.status.success(),
            "{arguments:?}: {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// What a client command prints for people.
    pub fn command(&self, arguments: &[&str]) -> String {
        let (code, out, error) = self.run(arguments);
        assert_eq!(code, Some(0), "{arguments:?}: {error}");
        out
    }

    /// Exit code of a client command, what it prints, and what it says of mistakes.
    pub fn run(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let mut command = Command::new(&*BINARY);
        command.args(arguments).args(["--endpoint", &self.url("query")]);
        let output = command.output().expect("the binary runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    }

    /// Its exit code, if it has ended of its own accord.
    pub fn ended(&mut self) -> Option<Option<i32>> {
        self.child.try_wait().expect("it can be asked").map(|status| status.code())
    }

    /// Asks it to stop and waits; its exit code.
    pub fn stop(mut self) -> Option<i32> {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, rustix::process::Signal::TERM).expect("signalled");
        self.child.wait().expect("it ends").code()
    }

    /// Ends it at once, as a crash does.
    pub fn kill(mut self) {
        self.child.kill().expect("killed");
        let _ = self.child.wait();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
