//! A disk that says it could not write: nothing more is acknowledged, and the daemon ends saying so. And two
//! daemons that want the same data directory.

use crate::support::daemon::{BINARY, Daemon};
use crate::support::otlp::{Client, Export};
use crate::support::{eventually, tools};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);

/// Makes every sync of a process fail once there is a file of this name.
const SHIM: &str = "
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>
static int fails(void) { const char *name = getenv(\"SYNC_FAILS\"); return name && access(name, F_OK) == 0; }
int fdatasync(int fd) {
    if (fails()) { errno = EIO; return -1; }
    return ((int (*)(int))dlsym(RTLD_NEXT, \"fdatasync\"))(fd);
}
int fsync(int fd) {
    if (fails()) { errno = EIO; return -1; }
    return ((int (*)(int))dlsym(RTLD_NEXT, \"fsync\"))(fd);
}
";

fn shim(folder: &Path) -> String {
    let (source, library) = (folder.join("shim.c"), folder.join("shim.so"));
    std::fs::write(&source, SHIM).expect("written");
    let built = Command::new(tools::program(&["cc", "gcc", "clang"], "apt-get install gcc"))
        .args(["-shared", "-fPIC", "-o"])
        .args([&library, &source])
        .arg("-ldl")
        .status()
        .expect("it runs");
    assert!(built.success());
    library.display().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_that_fails_ends_the_daemon_and_loses_nothing_acknowledged() {
    for durability in ["always", "interval"] {
        let folder = tempfile::tempdir().expect("a folder");
        let fails = folder.path().join("fails");
        let (preload, name) =
            (format!("LD_PRELOAD={}", shim(folder.path())), format!("SYNC_FAILS={}", fails.display()));
        let setting = format!("journal.durability=\"{durability}\"");
        let data = folder.path().join("data");
        let mut daemon = Daemon::start_after(&["env", &preload, &name], &data, &[&setting]);
        let mut client = Client::new(&daemon.url("otlp_grpc"));
        let mut acknowledged = 0;
        for _ in 0..20 {
            client.export(&Export::of(0, "before", 10)).await.expect("taken");
            acknowledged += 10;
        }
        std::fs::write(&fails, "").expect("written");
        let code = eventually("the daemon ends", PATIENCE, async || {
            if client.export(&Export::of(0, "after", 10)).await.is_ok() {
                acknowledged += 10;
                assert_ne!(durability, "always", "acknowledged though the sync failed");
            }
            daemon.ended()
        })
        .await;
        assert_eq!(code, Some(1), "{durability}");
        let log = std::fs::read_to_string(data.join("log")).expect("a log");
        assert!(log.contains("could not be made durable"), "{log}");
        drop(daemon);
        // The kernel still had everything: only a power loss would have cost what was not synced.
        let daemon = Daemon::start(&data, &[&setting]);
        let counted = || daemon.ask(&["status"])["accepted"]["spans"].as_u64();
        let what = format!("{durability}: {acknowledged} are counted; now {:?}", counted());
        eventually(&what, PATIENCE, async || (counted() >= Some(acknowledged)).then_some(())).await;
        assert_eq!(daemon.stop(), Some(0));
    }
}

#[test]
fn a_second_daemon_on_a_data_directory_ends_and_names_the_first() {
    let folder = tempfile::tempdir().expect("a folder");
    let daemon = Daemon::start(folder.path(), &[]);
    let mut second = Command::new(&*BINARY);
    second.arg("serve").args(["--set", &format!("data_dir={:?}", folder.path().display().to_string())]);
    for name in ["otlp_grpc", "otlp_http", "query", "http"] {
        second.args(["--set", &format!("listen.{name}=\"127.0.0.1:0\"")]);
    }
    let output = second.output().expect("it runs");
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains(&format!("process {}", daemon.id())), "{told}");
    assert_eq!(daemon.stop(), Some(0));
}
