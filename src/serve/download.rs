//! The files of an evidence bundle as a stream, and where a name within a bundle leads.

use crate::api::v1;
use crate::api::v1::download_evidence_response::Part;
use crate::diagnose::Made;
use crate::limits::Permit;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

const CHUNK_BYTES: usize = 64 << 10;
/// Chunks read ahead of the client.
const WAITING: usize = 4;
/// How long a client may take nothing of what is held for it.
const PATIENCE: Duration = Duration::from_secs(60);

type Parts = mpsc::Sender<Result<v1::DownloadEvidenceResponse, Status>>;

/// The path of a name within a bundle; `None` if it would lead outside of it, symbolic links included.
#[must_use]
pub fn within_bundle(bundle: &Path, name: &str) -> Option<PathBuf> {
    let name = Path::new(name);
    if !name.components().all(|part| matches!(part, Component::Normal(_))) {
        return None;
    }
    let path = bundle.join(name).canonicalize().ok()?;
    path.starts_with(bundle.canonicalize().ok()?).then_some(path)
}

/// Reads the files one after the other as fast as the client takes them.
pub(super) fn download(
    bundle: PathBuf,
    files: Vec<v1::EvidenceFile>,
) -> ReceiverStream<Result<v1::DownloadEvidenceResponse, Status>> {
    let (sender, receiver) = mpsc::channel(WAITING);
    tokio::spawn(async move {
        for file in files {
            match send_file(&bundle, file, &sender).await {
                Ok(true) => {}
                Ok(false) => return,
                Err(status) => {
                    let _ = sender.send(Err(status)).await;
                    return;
                }
            }
        }
    });
    ReceiverStream::new(receiver)
}

/// Sends files that were made for this, one after the other as fast as the client takes them, and holds their memory as
/// long; a client that takes nothing for a minute is left.
pub(super) fn send(
    made: Made,
    memory: Option<Permit>,
) -> ReceiverStream<Result<v1::DownloadEvidenceResponse, Status>> {
    let (sender, receiver) = mpsc::channel(WAITING);
    tokio::spawn(async move {
        let Made { files, manifest } = made;
        for (name, bytes) in files {
            let hash = manifest.files.iter().find(|(listed, ..)| *listed == name);
            let file = v1::EvidenceFile {
                size_bytes: bytes.len() as u64,
                blake3: hash.map(|(.., hash)| hash.clone()).unwrap_or_default(),
                path: name,
            };
            let chunks = bytes.chunks(CHUNK_BYTES).map(|chunk| Part::Data(chunk.to_vec()));
            for part in std::iter::once(Part::File(file)).chain(chunks) {
                let sent = sender.send(Ok(v1::DownloadEvidenceResponse { part: Some(part) }));
                if !matches!(tokio::time::timeout(PATIENCE, sent).await, Ok(Ok(()))) {
                    return;
                }
            }
        }
        drop(memory);
    });
    ReceiverStream::new(receiver)
}

/// `false` when the client is gone.
async fn send_file(bundle: &Path, file: v1::EvidenceFile, parts: &Parts) -> Result<bool, Status> {
    let name = file.path.clone();
    let gone = |error: &dyn std::fmt::Display| Status::internal(format!("cannot read {name}: {error}"));
    let path = within_bundle(bundle, &file.path).ok_or_else(|| gone(&"it is not in the bundle"))?;
    let mut open = tokio::fs::File::open(&path).await.map_err(|error| gone(&error))?;
    let send = async |part| parts.send(Ok(v1::DownloadEvidenceResponse { part: Some(part) })).await.is_ok();
    if !send(Part::File(file)).await {
        return Ok(false);
    }
    loop {
        let mut chunk = Vec::with_capacity(CHUNK_BYTES);
        let read = (&mut open).take(CHUNK_BYTES as u64).read_to_end(&mut chunk).await;
        if read.map_err(|error| gone(&error))? == 0 {
            return Ok(true);
        }
        if !send(Part::Data(chunk)).await {
            return Ok(false);
        }
    }
}
