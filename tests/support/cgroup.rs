//! A control group: a bound on the memory of a process, and a quota of processor time.

use std::fs;
use std::path::{Path, PathBuf};

/// Removed when it is dropped; its processes must have ended by then.
pub struct Cgroup {
    /// With version 1 one for each resource.
    folders: Vec<PathBuf>,
}

const PERIOD_US: u64 = 20_000;

impl Cgroup {
    /// # Errors
    /// Why none can be made here: mostly that it takes root.
    pub fn make(name: &str, memory_bytes: u64, processors: f64) -> Result<Self, String> {
        let root = Path::new("/sys/fs/cgroup");
        let quota = (PERIOD_US as f64 * processors) as u64;
        let name = format!("barograph-{name}-{}", std::process::id());
        let mut made = Self { folders: Vec::new() };
        let mut folder = |path: PathBuf, settings: &[(&str, String)]| {
            let failed = |what: &Path| {
                let what = what.display().to_string();
                move |error: std::io::Error| format!("{what}: {error}")
            };
            fs::create_dir(&path).map_err(failed(&path))?;
            made.folders.push(path.clone());
            for (file, value) in settings {
                let file = path.join(file);
                fs::write(&file, value).map_err(failed(&file))?;
            }
            Ok::<(), String>(())
        };
        if root.join("cgroup.controllers").exists() {
            let settings =
                [("memory.max", memory_bytes.to_string()), ("cpu.max", format!("{quota} {PERIOD_US}"))];
            folder(root.join(name), &settings)?;
        } else {
            folder(root.join("memory").join(&name), &[("memory.limit_in_bytes", memory_bytes.to_string())])?;
            let settings =
                [("cpu.cfs_period_us", PERIOD_US.to_string()), ("cpu.cfs_quota_us", quota.to_string())];
            folder(root.join("cpu").join(&name), &settings)?;
        }
        Ok(made)
    }

    /// Words before a command that put it into the group.
    pub fn words(&self) -> Vec<String> {
        let enter: String = self
            .folders
            .iter()
            .map(|folder| format!("echo $$ > '{}' && ", folder.join("cgroup.procs").display()))
            .collect();
        ["sh".to_owned(), "-c".to_owned(), format!("{enter}exec \"$@\""), "sh".to_owned()].into()
    }

    /// Processes that were killed because the memory did not suffice.
    pub fn killed(&self) -> u64 {
        let count = |folder: &PathBuf, file: &str| {
            let text = fs::read_to_string(folder.join(file)).ok()?;
            let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "))?;
            line.trim().parse::<u64>().ok()
        };
        let counts = self.folders.iter().filter_map(|folder| {
            count(folder, "memory.events").or_else(|| count(folder, "memory.oom_control"))
        });
        counts.sum()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for folder in &self.folders {
            let _ = fs::remove_dir(folder);
        }
    }
}
