//! Bundles on their way to the object store, one at a time and beside everything that counts. What waits is
//! held in memory as it was when it was made, so that a later pass cannot change it under way.

use super::{Bucket, Failure, Retry, Uploaded};
use crate::confirm::{Anomaly, AnomalyId};
use crate::diagnose::{Config, Evidence, Pass, packed};
use crate::model::Clock;
use crate::observe::{Collect, Counter, Exposition, Kind};
use crate::store::{self, Ledger, Stage};
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// Bundles that wait at most, and their bytes.
const WAITING: usize = 32;
const WAITING_BYTES: usize = 64 << 20;
/// After a start, bundles that are not there are taken up again if they are no older.
const RESUMED_FOR: Duration = Duration::from_secs(86_400);

/// A bundle that is to be put.
#[derive(Clone, Debug)]
struct Upload {
    anomaly: AnomalyId,
    pass: Pass,
    /// Of its objects, without what tells them apart.
    name: String,
    archive: Bytes,
    page: Bytes,
}

impl Upload {
    fn bytes(&self) -> usize {
        self.archive.len().saturating_add(self.page.len())
    }
}

/// Puts bundles into an object store.
pub struct Uploading {
    bucket: Bucket,
    retry: Retry,
    clock: Arc<dyn Clock>,
    ledger: Ledger,
    waiting: Mutex<VecDeque<Upload>>,
    more: Notify,
    uploaded: Counter,
    failed: Counter,
    left_out: Counter,
    superseded: Counter,
    failed_tries: Counter,
    bytes: Counter,
}

impl Uploading {
    /// Opens the store that is configured, if one is.
    ///
    /// # Errors
    /// When it cannot be used as it is configured, in words.
    pub fn open(
        config: &Config,
        environment: impl IntoIterator<Item = (String, String)>,
        retry: Retry,
        ledger: Ledger,
        clock: Arc<dyn Clock>,
    ) -> Result<Option<Arc<Self>>, String> {
        let Some(url) = &config.evidence_url else { return Ok(None) };
        let bucket = Bucket::open(url, environment)?;
        Ok(Some(Arc::new(Self {
            bucket,
            retry,
            clock,
            ledger,
            waiting: Mutex::default(),
            more: Notify::new(),
            uploaded: Counter::default(),
            failed: Counter::default(),
            left_out: Counter::default(),
            superseded: Counter::default(),
            failed_tries: Counter::default(),
            bytes: Counter::default(),
        })))
    }

    /// Takes a bundle that was just written. Blocking: it is read and packed.
    pub fn offer(&self, anomaly: &Anomaly, evidence: &Evidence) {
        let directory: &Path = &evidence.bundle.path;
        let read = packed(directory).map_err(|error| error.to_string()).and_then(|archive| {
            let page = std::fs::read(directory.join("index.html")).map_err(|error| error.to_string())?;
            Ok((archive, page))
        });
        let (archive, page) = match read {
            Ok(read) => read,
            Err(error) => {
                tracing::error!(anomaly = %anomaly.id, error, "a bundle cannot be read to be uploaded");
                self.left_out.add(1);
                return;
            }
        };
        let day: String = anomaly.opened_at.to_string().chars().take(10).collect();
        self.push(Upload {
            anomaly: anomaly.id.clone(),
            pass: evidence.pass,
            name: format!("{day}/{}", anomaly.id),
            archive: archive.into(),
            page: page.into(),
        });
    }

    fn push(&self, upload: Upload) {
        let mut waiting = self.waiting.lock();
        let before = waiting.len();
        waiting.retain(|one| one.anomaly != upload.anomaly);
        self.superseded.add(before.saturating_sub(waiting.len()) as u64);
        let bytes = waiting.iter().map(Upload::bytes).fold(upload.bytes(), usize::saturating_add);
        if waiting.len() >= WAITING || bytes > WAITING_BYTES {
            tracing::warn!(anomaly = %upload.anomaly, "a bundle is not uploaded: too many are waiting");
            self.left_out.add(1);
            return;
        }
        waiting.push_back(upload);
        drop(waiting);
        self.more.notify_one();
    }

    /// Takes up the bundles that an earlier life of the process did not get to, or failed to put. Blocking.
    pub fn resume(&self) {
        if let Err(error) = self.take_up() {
            tracing::warn!(%error, "the ledger cannot be read, bundles that are not uploaded yet stay where they are");
        }
    }

    fn take_up(&self) -> Result<(), store::Error> {
        let records = self.ledger.latest(Stage::Diagnose)?;
        let uploads: BTreeMap<AnomalyId, Uploaded> =
            records.iter().filter_map(Uploaded::read).map(|one| (one.uploaded.clone(), one)).collect();
        let since = self.clock.now().saturating_sub(RESUMED_FOR);
        for record in records {
            let Ok(evidence) = serde_json::from_value::<Evidence>(record.payload) else { continue };
            let known = uploads.get(&evidence.anomaly);
            let is_there = known.is_some_and(|one| one.pass == evidence.pass && one.failed.is_none());
            if is_there || evidence.at < since || !evidence.bundle.path.is_dir() {
                continue;
            }
            let anomaly = self.ledger.latest_of(Stage::Confirm, &evidence.anomaly.0)?;
            if let Some(anomaly) = anomaly.and_then(|record| serde_json::from_value(record.payload).ok()) {
                self.offer(&anomaly, &evidence);
            }
        }
        Ok(())
    }

    /// Puts one bundle after the other until told to stop.
    pub async fn run(self: Arc<Self>, mut stopping: watch::Receiver<bool>) {
        tokio::select! {
            () = async { loop { self.next().await; } } => {}
            _ = stopping.wait_for(|stop| *stop) => {}
        }
    }

    async fn next(&self) {
        let upload = loop {
            if let Some(upload) = self.waiting.lock().pop_front() {
                break upload;
            }
            self.more.notified().await;
        };
        let heard = |failure: &Failure| {
            self.failed_tries.add(1);
            let reason = &failure.reason;
            tracing::warn!(anomaly = %upload.anomaly, reason, "a bundle could not be uploaded");
            !self.is_superseded(&upload)
        };
        let url = self.bucket.url_of(&format!("{}.tar.zst", upload.name));
        let (tries, failed) = match self.retry.run(|| self.put(&upload), heard).await {
            Ok((tries, ())) => (tries, None),
            Err(_) if self.is_superseded(&upload) => {
                self.superseded.add(1);
                return;
            }
            Err((tries, failure)) => (tries, Some(failure.reason)),
        };
        match &failed {
            None => {
                tracing::info!(anomaly = %upload.anomaly, url, tries, "a bundle was uploaded");
                self.uploaded.add(1);
                self.bytes.add(upload.bytes() as u64);
            }
            Some(reason) => {
                tracing::error!(anomaly = %upload.anomaly, url, tries, reason, "a bundle is not uploaded");
                self.failed.add(1);
            }
        }
        self.tell(&Uploaded {
            bytes: upload.bytes() as u64,
            uploaded: upload.anomaly,
            pass: upload.pass,
            at: self.clock.now(),
            url,
            tries,
            failed,
        });
    }

    async fn put(&self, upload: &Upload) -> Result<(), Failure> {
        // The archive last: where it is, the page is, too.
        let (page, archive) = (format!("{}.html", upload.name), format!("{}.tar.zst", upload.name));
        self.bucket.put(&page, "text/html; charset=utf-8", upload.page.clone()).await?;
        self.bucket.put(&archive, "application/zstd", upload.archive.clone()).await
    }

    /// Whether a later bundle of the same anomaly waits.
    fn is_superseded(&self, upload: &Upload) -> bool {
        self.waiting.lock().iter().any(|one| one.anomaly == upload.anomaly)
    }

    fn tell(&self, uploaded: &Uploaded) {
        let (object, key) = (uploaded.object(), uploaded.key());
        if let Err(error) = self.ledger.append(uploaded.at, Stage::Diagnose, &object, &key, uploaded) {
            tracing::warn!(%error, "that a bundle was uploaded, or not, is missing in its timeline");
        }
    }
}

impl Collect for Uploading {
    fn collect(&self, out: &mut Exposition) {
        out.by_label(
            "barograph_evidence_uploads_total",
            "Bundles that were put into the object store, could not be, were left out because too many waited, or were replaced by a later one before.",
            "result",
            [
                ("uploaded", self.uploaded.get()),
                ("failed", self.failed.get()),
                ("left_out", self.left_out.get()),
                ("superseded", self.superseded.get()),
            ],
        );
        out.single(
            "barograph_evidence_upload_failed_tries_total",
            Kind::Counter,
            "Tries of uploads that failed; they are tried again a few times.",
            self.failed_tries.get() as f64,
        );
        out.single(
            "barograph_evidence_uploaded_bytes_total",
            Kind::Counter,
            "Bytes of bundles put into the object store.",
            self.bytes.get() as f64,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnose::{Manifest, ObjectUrl};
    use crate::model::{ManualClock, Timestamp};
    use axum::Router;
    use axum::extract::{Request, State};
    use axum::http::{HeaderMap, StatusCode};
    use axum::response::{IntoResponse, Response};
    use std::cell::Cell;

    /// An S3-compatible endpoint that first fails, then hangs, and then takes what is put.
    #[derive(Default)]
    struct Endpoint {
        requests: Mutex<u32>,
        objects: Mutex<BTreeMap<String, (HeaderMap, Bytes)>>,
        refuses: bool,
    }

    async fn serve(State(endpoint): State<Arc<Endpoint>>, request: Request) -> Response {
        let number = {
            let mut requests = endpoint.requests.lock();
            *requests += 1;
            *requests
        };
        if endpoint.refuses {
            let said = "<Error><AWSAccessKeyId>AKIAHUNTER2</AWSAccessKeyId> hunter2-secret</Error>";
            return (StatusCode::FORBIDDEN, said).into_response();
        }
        match number {
            1 => return StatusCode::SERVICE_UNAVAILABLE.into_response(),
            2 => return std::future::pending().await,
            _ => {}
        }
        let (head, body) = request.into_parts();
        let body = axum::body::to_bytes(body, 1 << 20).await.expect("a body");
        endpoint.objects.lock().insert(head.uri.path().to_owned(), (head.headers, body));
        ([("etag", "\"1\"")], StatusCode::OK).into_response()
    }

    async fn listen(endpoint: &Arc<Endpoint>) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let router = Router::new().fallback(serve).with_state(endpoint.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        format!("http://{address}")
    }

    const AT: Timestamp = Timestamp::from_secs(1_764_547_200);
    const ID: &str = "00112233445566aa";

    struct Setting {
        folder: tempfile::TempDir,
        ledger: Ledger,
        /// Seconds that have passed.
        lives: Cell<u64>,
    }

    impl Setting {
        fn new() -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let bundle = folder.path().join(ID);
            std::fs::create_dir(&bundle).expect("a folder");
            std::fs::write(bundle.join("index.html"), "<p>why").expect("a page");
            std::fs::write(bundle.join("manifest.json"), "{}").expect("a manifest");
            Self { folder, ledger: Ledger::in_memory().expect("a ledger"), lives: Cell::new(0) }
        }

        fn evidence(&self, pass: Pass) -> Evidence {
            let bundle = Manifest { path: self.folder.path().join(ID), ..Manifest::default() };
            Evidence { anomaly: AnomalyId(ID.into()), pass, at: AT, causes: Vec::new(), bundle }
        }

        fn uploading(&self, url: &str, endpoint: &str) -> Arc<Uploading> {
            let environment = [
                ("AWS_ACCESS_KEY_ID", "AKIAHUNTER2"),
                ("AWS_SECRET_ACCESS_KEY", "hunter2-secret"),
                ("AWS_ENDPOINT_URL_S3", endpoint),
                ("AWS_ALLOW_HTTP", "true"),
                ("BAROGRAPH_EVIDENCE_AUTHORIZATION", "Bearer hunter2-token"),
            ];
            let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
            let config =
                Config { evidence_url: Some(ObjectUrl::parse(url).expect("a URL")), ..Config::default() };
            let wait = Duration::from_millis(1);
            let retry =
                Retry { tries: 4, timeout: Duration::from_millis(500), first_wait: wait, longest_wait: wait };
            self.lives.set(self.lives.get() + 1);
            let at = AT.saturating_add(Duration::from_secs(self.lives.get()));
            let clock = Arc::new(ManualClock::new(at));
            Uploading::open(&config, environment, retry, self.ledger.clone(), clock)
                .expect("it opens")
                .expect("a store")
        }

        fn told(&self) -> Vec<Uploaded> {
            let records = self.ledger.read_from(1, 100).expect("records");
            records.iter().filter_map(Uploaded::read).collect()
        }
    }

    fn anomaly() -> Anomaly {
        crate::alert::fixture::anomaly(ID, AT)
    }

    #[tokio::test]
    async fn a_bundle_gets_into_an_s3_endpoint_that_fails_and_hangs_at_first() {
        let setting = Setting::new();
        let endpoint = Arc::new(Endpoint::default());
        let uploading = setting.uploading("s3://bucket/evidence", &listen(&endpoint).await);
        uploading.offer(&anomaly(), &setting.evidence(Pass::First));
        uploading.next().await;
        let objects = endpoint.objects.lock();
        let names: Vec<&String> = objects.keys().collect();
        let of = |ending: &str| format!("/bucket/evidence/2025-12-01/{ID}{ending}");
        assert_eq!(names, [&of(".html"), &of(".tar.zst")]);
        let (headers, page) = &objects[&of(".html")];
        assert_eq!(&page[..], b"<p>why");
        assert_eq!(headers["content-type"], "text/html; charset=utf-8");
        let signature = headers["authorization"].to_str().expect("text");
        assert!(signature.starts_with("AWS4-HMAC-SHA256 Credential=AKIAHUNTER2/"), "{signature}");
        let (_, archive) = &objects[&of(".tar.zst")];
        assert_eq!(&archive[..], packed(&setting.folder.path().join(ID)).expect("an archive"));
        let told = setting.told();
        assert_eq!((told.len(), told[0].tries, &told[0].failed), (1, 3, &None), "{told:?}");
        assert_eq!(told[0].url, format!("s3://bucket/evidence/2025-12-01/{ID}.tar.zst"));
        assert_eq!((uploading.uploaded.get(), uploading.failed_tries.get()), (1, 2));
    }

    #[tokio::test]
    async fn what_may_not_be_put_is_told_at_once_without_secrets_and_taken_up_after_a_restart() {
        let setting = Setting::new();
        let refusing = Arc::new(Endpoint { refuses: true, ..Endpoint::default() });
        let uploading = setting.uploading("s3://bucket", &listen(&refusing).await);
        let (anomaly, evidence) = (anomaly(), setting.evidence(Pass::Complete));
        let record = |stage, payload: &serde_json::Value| {
            setting.ledger.append(AT, stage, ID, ID, payload).expect("it is kept");
        };
        record(Stage::Confirm, &serde_json::to_value(&anomaly).expect("JSON"));
        record(Stage::Diagnose, &serde_json::to_value(&evidence).expect("JSON"));
        uploading.offer(&anomaly, &evidence);
        uploading.next().await;
        assert_eq!(*refusing.requests.lock(), 1, "trying again does not help");
        let told = setting.told();
        let why = told[0].failed.as_ref().expect("a reason");
        assert!(why.contains("403") && why.contains("[redacted]") && !why.contains("hunter2-"), "{why}");
        // The next life of the process finds it, puts it, and the one after that has nothing to do.
        let target = setting.folder.path().join("store");
        let url = format!("file://{}/a", target.display());
        let again = setting.uploading(&url, "http://127.0.0.1:9");
        again.resume();
        again.next().await;
        let there = target.join("a/2025-12-01").join(format!("{ID}.tar.zst"));
        assert_eq!(
            std::fs::read(there).expect("the archive"),
            packed(&evidence.bundle.path).expect("an archive")
        );
        assert_eq!(setting.told().last().expect("told").failed, None);
        again.resume();
        assert!(again.waiting.lock().is_empty());
    }

    #[tokio::test]
    async fn a_plain_http_server_is_shown_the_header_of_the_environment() {
        let setting = Setting::new();
        let endpoint = Arc::new(Endpoint::default());
        let url = format!("{}/dav", listen(&endpoint).await);
        let uploading = setting.uploading(&url, "http://127.0.0.1:9");
        uploading.offer(&anomaly(), &setting.evidence(Pass::First));
        uploading.next().await;
        let objects = endpoint.objects.lock();
        let (headers, page) = &objects[&format!("/dav/2025-12-01/{ID}.html")];
        assert_eq!(&page[..], b"<p>why");
        assert_eq!(headers["authorization"], "Bearer hunter2-token");
        assert!(objects.contains_key(&format!("/dav/2025-12-01/{ID}.tar.zst")));
    }

    #[test]
    fn of_one_anomaly_only_the_last_bundle_waits_and_of_many_a_bounded_number() {
        let setting = Setting::new();
        let uploading = setting.uploading("s3://bucket", "http://127.0.0.1:9");
        uploading.offer(&anomaly(), &setting.evidence(Pass::First));
        uploading.offer(&anomaly(), &setting.evidence(Pass::Complete));
        let passes: Vec<Pass> = uploading.waiting.lock().iter().map(|one| one.pass).collect();
        assert_eq!((passes, uploading.superseded.get()), (vec![Pass::Complete], 1));
        for number in 0..WAITING {
            let anomaly = Anomaly { id: AnomalyId(format!("{number}")), ..anomaly() };
            uploading.offer(&anomaly, &setting.evidence(Pass::First));
        }
        assert_eq!((uploading.waiting.lock().len(), uploading.left_out.get()), (WAITING, 1));
    }
}
