//! Programs that tests need, and how they are installed.

use std::path::PathBuf;

/// The first of `names` on the path; panics with what to install. Never skips.
pub fn program(names: &[&str], install: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/bin", "/usr/local/bin"].map(PathBuf::from))
        .flat_map(|folder| names.iter().map(move |name| folder.join(name)))
        .find(|file| file.is_file())
        .unwrap_or_else(|| {
            panic!(
                "{} is missing: run scripts/install-test-tools, or install it: {install}",
                names.join(" or ")
            )
        })
}

/// A file that `scripts/install-test-tools` makes below `target/test-tools`.
pub fn installed(path: &str) -> PathBuf {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/test-tools").join(path);
    assert!(file.exists(), "{} is missing: run scripts/install-test-tools", file.display());
    file
}
