//! A bundle over crash images: whatever a power loss leaves, what was written last is there whole, or what was
//! there before it is.

use super::collect::Output;
use super::evidence::{Collected, Evidence, Pass};
use super::tests::{END_S, anomaly, diagnosed, healthy_shop};
use super::{Bundle, Case, Config, Diagnosis};
use crate::detect::Symptom;
use crate::disk::{Disk, Trace, make_folders, wanted};
use crate::model::Timestamp;
use crate::window::Topology;
use fastrand::Rng;
use std::path::Path;

/// Crash images of one life.
const IMAGES: usize = 100;

fn said(text: &str) -> Output {
    let told = Collected {
        name: "dump".into(),
        at: Timestamp::from_secs(END_S),
        took_ns: 1,
        ended: "exit status: 0".into(),
        is_good: true,
        bytes: text.len() as u64,
        binary_bytes: 0,
        is_cut: false,
    };
    Output { told, file: "collected-dump.txt".into(), bytes: text.into(), binary: None }
}

/// What is in a bundle that opens, each file as its manifest says.
fn found(path: &Path) -> Option<(Pass, bool)> {
    if !path.exists() {
        return None;
    }
    Bundle::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let manifest = std::fs::read(path.join("manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    let pass = serde_json::from_value(manifest["pass"].clone()).unwrap();
    Some((pass, path.join("collected-dump.txt").exists()))
}

#[test]
fn a_power_loss_leaves_what_was_written_last_or_what_was_there_before() {
    let folder = tempfile::tempdir().unwrap();
    let trace = Trace::begin(folder.path());
    let directory = folder.path().join("evidence");
    make_folders(&directory).unwrap();
    let (anomaly, shop) = (anomaly(Symptom::Errors), healthy_shop());
    let diagnosis = Diagnosis::new(Config::default(), &directory);
    let write = |pass| -> Evidence {
        let case = Case {
            anomaly: &anomaly,
            changes: &[],
            topology: &Topology::default(),
            pass,
            now: Timestamp::from_secs(END_S),
            collected: &[],
            counted: &[],
        };
        diagnosis.run(&case, &shop).unwrap()
    };
    write(Pass::First);
    let first = trace.now();
    let evidence = write(Pass::Complete);
    let complete = trace.now();
    let evidence = diagnosis.add_collected(&evidence, &said("threads")).unwrap();
    let added = trace.now();
    assert_eq!(evidence.bundle.collected.len(), 1);
    assert!(evidence.bundle.files.iter().any(|(name, ..)| name == "collected-dump.txt"));
    let name = evidence.bundle.path.file_name().unwrap().to_owned();
    let mut seen = std::collections::BTreeSet::new();
    let images = IMAGES.max(wanted() / 10);
    Disk::new(&trace).images(images, &mut Rng::with_seed(5), |image, _| {
        let found = found(&image.folder.path().join("evidence").join(&name));
        // What was promised is there; of what was begun after it, anything whole.
        let order =
            [None, Some((Pass::First, false)), Some((Pass::Complete, false)), Some((Pass::Complete, true))];
        let at = order.iter().position(|one| *one == found).unwrap_or_else(|| panic!("{found:?}"));
        let least = [first, complete, added].iter().filter(|promised| image.at >= **promised).count();
        assert!(at >= least && at <= least + 1, "{found:?} at {} of {first}, {complete}, {added}", image.at);
        seen.insert(at);
    });
    assert!(seen.len() >= 3, "{seen:?}");
}

#[test]
fn what_a_disk_does_not_take_leaves_the_bundle_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let trace = Trace::begin(folder.path());
    let when = (Pass::Complete, END_S);
    let anomaly = anomaly(Symptom::Errors);
    let evidence = diagnosed(Config::default(), folder.path(), &anomaly, when, &healthy_shop());
    let diagnosis = Diagnosis::new(Config::default(), folder.path());
    for (syncs, writes) in [(true, false), (false, true)] {
        trace.fail(crate::disk::Failure { name: "txt", syncs, writes, error: 28 });
        let error = diagnosis.add_collected(&evidence, &said("threads")).unwrap_err().to_string();
        assert!(error.contains("collected-dump.txt"), "{error}");
        trace.heal();
        assert_eq!(found(&evidence.bundle.path), Some((Pass::Complete, false)));
        let left = std::fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(left, 1, "only the bundle itself is left");
    }
    diagnosis.add_collected(&evidence, &said("threads")).unwrap();
    assert_eq!(found(&evidence.bundle.path), Some((Pass::Complete, true)));
}
