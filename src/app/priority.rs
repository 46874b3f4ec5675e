//! Which threads give way where there is too little CPU for all.

/// How much, as of `nice`.
const NICE: i32 = 10;

/// Lets everything go first that spans wait for. Of the calling thread alone.
pub(super) fn give_way() {
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::debug!(%error, "a thread has the priority of everything else");
    }
}
