//! `src/api/` is what `proto/` says. `scripts/generate-api` writes it anew; no `protoc` is needed.

use prost::Message as _;
use std::fs;
use std::path::Path;

const FILES: [&str; 10] = [
    "barograph/v1/adjustment.proto",
    "barograph/v1/anomaly.proto",
    "barograph/v1/change.proto",
    "barograph/v1/common.proto",
    "barograph/v1/evidence.proto",
    "barograph/v1/exemption.proto",
    "barograph/v1/incident.proto",
    "barograph/v1/journal.proto",
    "barograph/v1/query.proto",
    "barograph/v1/status.proto",
];

/// Set by `scripts/generate-api`: write instead of compare.
const WRITE: &str = "BAROGRAPH_GENERATE_API";

#[test]
fn the_checked_in_code_is_what_the_definitions_say() {
    let files = protox::compile(FILES, ["proto"]).expect("the definitions in proto/ compile");
    let out = tempfile::tempdir().expect("a temporary folder");
    let descriptors = out.path().join("barograph.v1.bin");
    fs::write(&descriptors, files.encode_to_vec()).expect("a writable temporary folder");
    tonic_prost_build::configure()
        .out_dir(out.path())
        .btree_map(".")
        .emit_rerun_if_changed(false)
        .compile_fds(files)
        .expect("code from the definitions");

    for name in ["barograph.v1.rs", "barograph.v1.bin"] {
        let (made, kept) = (out.path().join(name), Path::new("src/api").join(name));
        let made = fs::read(made).expect("the generated file");
        if std::env::var_os(WRITE).is_some() {
            fs::write(&kept, made).expect("a writable src/api");
        } else {
            assert!(
                fs::read(&kept).is_ok_and(|kept| kept == made),
                "{} is not what proto/ says: run scripts/generate-api",
                kept.display()
            );
        }
    }
}

#[test]
fn every_definition_is_listed() {
    let mut found: Vec<String> = fs::read_dir("proto/barograph/v1")
        .expect("proto is there")
        .map(|entry| format!("barograph/v1/{}", entry.expect("an entry").file_name().to_string_lossy()))
        .collect();
    found.sort();
    assert_eq!(found, FILES);
}
