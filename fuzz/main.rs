//! Mutation fuzzing of every parser that outside bytes reach, on the stable toolchain.
//!
//! Each target first gets its seeds and what lies in `fuzz/corpus/TARGET/`, then mutations of them for
//! `$BAROGRAPH_FUZZ_SECONDS` (default 1). `$BAROGRAPH_FUZZ_SEED` repeats a run; it is printed. An input
//! that breaks a target is printed, and written into its corpus, where every later run finds it.

mod access;
mod files;
mod mutate;
mod questions;
mod targets;

use mutate::Mutator;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use targets::Target;

/// Bytes of a breaking input that are printed: where the file is lost, they are what is left of it.
const PRINTED: usize = 4 << 10;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target)
}

fn fuzz(target: &Target) {
    let folder = corpus(target.name);
    let mut known: Vec<Vec<u8>> = (target.seeds)();
    assert!(!known.is_empty(), "{} has seeds", target.name);
    if let Ok(files) = fs::read_dir(&folder) {
        known.extend(files.map(|file| fs::read(file.expect("a file").path()).expect("readable")));
    }
    let seed = setting("BAROGRAPH_FUZZ_SEED", fastrand::u64(..));
    let try_one = |input: &[u8]| {
        if catch_unwind(AssertUnwindSafe(|| (target.run)(input))).is_err() {
            fs::create_dir_all(&folder).expect("a folder");
            let file = folder.join(format!("{}.input", &blake3::hash(input).to_hex()[..16]));
            fs::write(&file, input).expect("written");
            panic!(
                "{} breaks on {} bytes, kept in {}, BAROGRAPH_FUZZ_SEED={seed}: {}",
                target.name,
                input.len(),
                file.display(),
                input[..input.len().min(PRINTED)].escape_ascii()
            );
        }
    };
    known.iter().for_each(|input| try_one(input));
    let end = Instant::now() + Duration::from_secs(setting("BAROGRAPH_FUZZ_SECONDS", 1));
    let mut mutator = Mutator::new(seed);
    let mut tried = 0u64;
    while Instant::now() < end {
        let input = mutator.mutate(&known);
        try_one(&input);
        tried += 1;
    }
    println!("{}: {tried} inputs, BAROGRAPH_FUZZ_SEED={seed}", target.name);
}

macro_rules! fuzzed {
    ($($room:ident: $($name:ident),*;)*) => {
        $($(
            #[test]
            fn $name() {
                fuzz(&$room::$name());
            }
        )*)*
    };
}

fuzzed! {
    targets: otlp_traces, otlp_logs, otlp_metrics, otlp_json_traces, otlp_json_logs, otlp_json_metrics, gzip, zstd,
        objectives, configuration;
    files: journal, recording, bundle, keepsake;
    questions: search, exemption, change, alerts;
    access: tokens, certificates, private_key, credentials;
}
