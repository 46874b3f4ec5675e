//! `kill -9` and restart: what was acknowledged is counted once.

use crate::clients::{counted, python, receiver, send};
use crate::support::daemon::Daemon;

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_counted_once_over_kills() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut services = Vec::new();
    for life in ["first", "second", "third"] {
        let daemon = Daemon::start(folder.path(), &[]);
        counted(&daemon, &services).await;
        send(python(), &receiver(&daemon, "grpc"), ("grpc", "gzip"), life);
        services.push(life.to_owned());
        // At once: windows are open, and the last checkpoint is older than the data.
        daemon.kill();
    }
    let daemon = Daemon::start(folder.path(), &[]);
    counted(&daemon, &services).await;
    assert_eq!(daemon.stop(), Some(0), "an orderly stop");
    let daemon = Daemon::start(folder.path(), &[]);
    counted(&daemon, &services).await;
    assert_eq!(daemon.stop(), Some(0));
}
