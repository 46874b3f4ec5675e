//! What need not be told is added, listed, ended, and outlives the daemon.

use crate::support::daemon::Daemon;

#[tokio::test(flavor = "multi_thread")]
async fn exemptions_outlive_a_kill_and_can_be_ended() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut daemon = Daemon::start(folder.path(), &[]);
    let line = "service=billing daily=02:00-04:00 days=sat,sun because=nightly backup";
    let added = daemon.ask(&["exempt", "--author", "ada", "add", line]);
    assert_eq!((&added["line"], &added["author"]), (&line.into(), &"ada".into()), "{added:#}");
    let id = added["id"].as_str().expect("an id").to_owned();
    daemon.kill();
    daemon = Daemon::start(folder.path(), &[]);
    let listed = daemon.ask(&["exempt"]);
    assert_eq!(listed[0]["id"], added["id"], "{listed:#}");
    let ended = daemon.ask(&["exempt", "--author", "bob", "end", &id]);
    assert_eq!(ended["ended_by"], "bob", "{ended:#}");
    assert_eq!(daemon.ask(&["exempt"]), serde_json::json!([]));
    let all = daemon.ask(&["exempt", "list", "--all"]);
    assert_eq!(all[0]["ended_by"], "bob", "what was suppressed, and why, stays: {all:#}");
    assert_eq!(daemon.stop(), Some(0));
}
