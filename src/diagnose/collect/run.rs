//! Running a collector: with an end, and with no more output than is wanted.

use super::collector::Told;
use super::{Asked, Collector};
use crate::diagnose::evidence::Collected;
use crate::diagnose::{Cause, Redaction};
use crate::model::Clock;
use bytes::Bytes;
use http::{Request, Uri, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Full};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use std::ops::Range;
use std::process::Stdio;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

/// What a collector said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// What ran, when, and how it ended.
    pub told: Collected,
    /// The file of the bundle that holds the text of it.
    pub file: String,
    /// The text, redacted.
    pub bytes: Vec<u8>,
    /// What is no text, such as a heap dump, with the file that holds it. As it came: there is nothing to redact by.
    pub binary: Option<(String, Vec<u8>)>,
}

impl Output {
    /// The files of a bundle that hold what it said: no empty one of text beside one of what is none.
    pub fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let text = (self.binary.is_none() || !self.bytes.is_empty())
            .then_some((self.file.as_str(), self.bytes.as_slice()));
        let binary = self.binary.as_ref().map(|(file, bytes)| (file.as_str(), bytes.as_slice()));
        text.into_iter().chain(binary)
    }
}

/// What comes from a collector while it runs.
#[derive(Debug, Default)]
struct Said {
    /// In the order in which it came.
    bytes: Vec<u8>,
    /// Which of that was written to standard error: a dump on standard output must not be mixed with it.
    errors: Vec<Range<usize>>,
}

impl Said {
    /// Text, and what is none, where that may be: else who sends telemetry that is echoed could have all of it kept
    /// unredacted by one zero byte.
    fn parted(self, may_be_binary: bool) -> (Vec<u8>, Option<Vec<u8>>) {
        if !may_be_binary {
            return (self.bytes, None);
        }
        let (mut out, mut errors, mut at) = (Vec::new(), Vec::new(), 0);
        for range in self.errors {
            out.extend_from_slice(self.bytes.get(at..range.start).unwrap_or_default());
            // The last may be cut off.
            let end = range.end.min(self.bytes.len());
            errors.extend_from_slice(self.bytes.get(range.start..end).unwrap_or_default());
            at = end;
        }
        out.extend_from_slice(self.bytes.get(at..).unwrap_or_default());
        if is_text(&out) { (self.bytes, None) } else { (errors, Some(out)) }
    }
}

/// Of what is said to be text, at most one character in so many is none: lines in an encoding of old are still text,
/// and are redacted like it.
const ODD_IN_TEXT: usize = 10;

/// Whether something is text: it holds no zero byte, and hardly any byte that is neither a character nor white space.
fn is_text(bytes: &[u8]) -> bool {
    let is_odd = |c: char| c.is_control() && !c.is_whitespace() && !matches!(c, '\u{8}' | '\u{1b}');
    let odd: usize = bytes
        .utf8_chunks()
        .map(|chunk| chunk.invalid().len() + chunk.valid().chars().filter(|&c| is_odd(c)).count())
        .sum();
    !bytes.contains(&0) && odd.saturating_mul(ODD_IN_TEXT) <= bytes.len()
}

/// Runs a collector for the most likely cause of an anomaly, until its time is over.
pub async fn run(
    collector: &Collector,
    anomaly: &str,
    cause: &Cause,
    redaction: &Redaction,
    clock: &dyn Clock,
) -> Output {
    let told = Told::of(anomaly, cause);
    let at = clock.now();
    let begun = tokio::time::Instant::now();
    let mut said = Said::default();
    let most = collector.max_bytes;
    let ended = match &collector.asked {
        Asked::Url(url) => {
            tokio::time::timeout(collector.timeout, post(url, &told, most, &mut said.bytes)).await
        }
        Asked::Command(words) => {
            tokio::time::timeout(collector.timeout, execute(words, &told, most, &mut said)).await
        }
    };
    let (ended, is_good) = match ended {
        Ok(Ok(ended)) => ended,
        Ok(Err(why)) => (why, false),
        Err(_) => (format!("broken off after {} s", collector.timeout.as_secs()), false),
    };
    let is_cut = said.bytes.len() > most;
    said.bytes.truncate(most);
    let (text, binary) = said.parted(collector.binary);
    let bytes = redaction.text(&String::from_utf8_lossy(&text)).into_owned().into_bytes();
    Output {
        told: Collected {
            name: collector.name.clone(),
            at,
            took_ns: u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX),
            ended,
            is_good,
            bytes: bytes.len() as u64,
            binary_bytes: binary.as_ref().map_or(0, |binary| binary.len() as u64),
            is_cut,
        },
        file: collector.file("txt"),
        bytes,
        binary: binary.map(|binary| (collector.file("bin"), binary)),
    }
}

/// How it ended, and whether that is good.
type Ended = Result<(String, bool), String>;

async fn post(url: &Uri, told: &Told, most: usize, said: &mut Vec<u8>) -> Ended {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    let connector = HttpsConnectorBuilder::new()
        .with_native_roots()
        .map_err(|error| format!("the system's authorities cannot be read: {error}"))?
        .https_or_http()
        .enable_http1()
        .wrap_connector(connector);
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
    let body = serde_json::to_vec(told).map_err(|error| error.to_string())?;
    let request = Request::post(url).header(CONTENT_TYPE, "application/json").body(Full::new(body.into()));
    let answer = client.request(request.map_err(|error| error.to_string())?).await;
    let answer = answer.map_err(|error| format!("no answer: {error}"))?;
    let status = answer.status();
    let mut body = answer.into_body();
    while said.len() <= most
        && let Some(frame) = body.frame().await
    {
        match frame {
            Ok(frame) => said.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data)),
            Err(error) => return Err(format!("HTTP {}, then {error}", status.as_u16())),
        }
    }
    Ok((format!("HTTP {}", status.as_u16()), status.is_success()))
}

/// A program in a process group of its own, which ends with us, whatever it started.
struct Group(Option<rustix::process::Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // It may have ended.
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    }
}

async fn execute(words: &[String], told: &Told, most: usize, said: &mut Said) -> Ended {
    let (program, arguments) = words.split_first().ok_or("there is no program")?;
    let mut child = Command::new(program)
        .args(arguments)
        .env("BAROGRAPH_ANOMALY", &told.anomaly)
        .env("BAROGRAPH_SERVICE", &told.service)
        .env("BAROGRAPH_ENVIRONMENT", &told.environment)
        .env("BAROGRAPH_NAMESPACE", &told.namespace)
        .env("BAROGRAPH_KIND", told.kind)
        .env("BAROGRAPH_OPERATION", &told.operation)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("{program} cannot be started: {error}"))?;
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
    let mut group = Group(pid);
    let (mut out, mut errors) = (child.stdout.take(), child.stderr.take());
    let (mut out_buffer, mut errors_buffer) = ([0u8; 8_192], [0u8; 8_192]);
    while (out.is_some() || errors.is_some()) && said.bytes.len() <= most {
        let (read, is_error) = tokio::select! {
            read = some(&mut out, &mut out_buffer) => (read.map(|bytes| out_buffer.get(..bytes)), false),
            read = some(&mut errors, &mut errors_buffer) => (read.map(|bytes| errors_buffer.get(..bytes)), true),
        };
        let read = read.map_err(|error| format!("what it says cannot be read: {error}"))?.unwrap_or_default();
        let from = said.bytes.len();
        said.bytes.extend_from_slice(read);
        if is_error {
            match said.errors.last_mut() {
                Some(last) if last.end == from => last.end = said.bytes.len(),
                _ => said.errors.push(from..said.bytes.len()),
            }
        }
    }
    if said.bytes.len() > most {
        return Ok((format!("broken off after {most} bytes"), false));
    }
    let status = child.wait().await.map_err(|error| format!("its end is not known: {error}"))?;
    group.0 = None;
    Ok((status.to_string(), status.success()))
}

/// Reads some of a pipe, and closes it at its end.
async fn some(pipe: &mut Option<impl AsyncRead + Unpin>, buffer: &mut [u8]) -> std::io::Result<usize> {
    let Some(open) = pipe else { return std::future::pending().await };
    let bytes = open.read(buffer).await?;
    if bytes == 0 {
        *pipe = None;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnose::CauseKind;
    use crate::model::SystemClock;
    use std::time::Duration;
    use tokio::io::AsyncWriteExt;

    fn cause() -> Cause {
        Cause {
            rank: 1,
            service: "cart".into(),
            environment: "production".into(),
            namespace: String::new(),
            kind: CauseKind::Database,
            operation: Some("GET /cart".into()),
            score: 0.9,
            reason: "slow".into(),
            reasons: Vec::new(),
        }
    }

    async fn ran(asked: Asked, timeout: Duration, max_bytes: usize) -> Output {
        ran_as(false, asked, timeout, max_bytes).await
    }

    async fn ran_as(binary: bool, asked: Asked, timeout: Duration, max_bytes: usize) -> Output {
        let name = "probe".to_owned();
        let collector = Collector { name, asked, service: None, kind: None, timeout, max_bytes, binary };
        run(&collector, "a1", &cause(), &Redaction::new(&["password".into()]), &SystemClock).await
    }

    fn shell(script: &str) -> Asked {
        Asked::Command(vec!["sh".into(), "-c".into(), script.into()])
    }

    const LONG: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn a_command_is_told_what_broke_and_its_secrets_are_hidden() {
        let said = "echo $BAROGRAPH_SERVICE/$BAROGRAPH_KIND/$BAROGRAPH_OPERATION; echo password=x >&2";
        let output = ran(shell(said), LONG, 1_000).await;
        let text = String::from_utf8(output.bytes).unwrap();
        assert!(text.contains("cart/database/GET /cart") && text.contains("password=[redacted]"), "{text}");
        assert!(output.told.is_good && !output.told.is_cut, "{:?}", output.told);
        assert_eq!(output.file, "collected-probe.txt");
    }

    #[tokio::test]
    async fn what_is_no_text_is_kept_as_it_came_apart_from_what_is() {
        let said = "printf '\\211HEAP\\000\\001\\377password=x'; echo dumped, password=x >&2";
        // Only where it is expected.
        let output = ran(shell(said), LONG, 1_000).await;
        assert_eq!(output.files().map(|(name, _)| name).collect::<Vec<_>>(), ["collected-probe.txt"]);
        let text = String::from_utf8_lossy(&output.bytes);
        assert!(text.contains("HEAP") && !text.contains("password=x"), "{text}");
        let output = ran_as(true, shell(said), LONG, 1_000).await;
        let files: Vec<(&str, &[u8])> = output.files().collect();
        assert_eq!(
            files,
            [
                ("collected-probe.txt", &b"dumped, password=[redacted]\n"[..]),
                ("collected-probe.bin", &b"\x89HEAP\0\x01\xffpassword=x"[..])
            ]
        );
        assert_eq!((output.told.bytes, output.told.binary_bytes), (28, 18));
        let output = ran_as(true, shell("printf '\\000\\001'"), LONG, 1_000).await;
        assert_eq!(output.files().collect::<Vec<_>>(), [("collected-probe.bin", &b"\0\x01"[..])]);
    }

    #[test]
    fn text_is_told_from_what_is_none() {
        let mut random = fastrand::Rng::with_seed(3);
        let noise: Vec<u8> = (0..4_096).map(|_| random.u8(1..)).collect();
        assert!(!is_text(&noise) && !is_text(b"\x1f\x8b\x08\0\0"));
        assert!(is_text(b"") && is_text("\u{1b}[31mred\u{1b}[0m\tüber\n".as_bytes()));
        assert!(is_text(b"gr\xfc\xdfe aus einem alten Programm"), "Latin-1");
        assert!(is_text(&"ü".as_bytes()[..1].iter().chain(b"0123456789").copied().collect::<Vec<u8>>()));
    }

    #[tokio::test]
    async fn one_that_hangs_floods_fails_or_is_not_there_ends() {
        let directory = tempfile::tempdir().unwrap();
        let left = directory.path().join("left");
        // What it started ends with it.
        let script = format!("(sleep 2; touch {}) & sleep 60", left.display());
        let hangs = ran(shell(&script), Duration::from_millis(300), 1_000).await;
        assert!(!hangs.told.is_good && hangs.told.ended.starts_with("broken off after"), "{:?}", hangs.told);
        assert!(hangs.told.took_ns < 2_000_000_000);
        let floods = ran(shell("yes"), LONG, 10_000).await;
        assert!(floods.told.is_cut && floods.bytes.len() == 10_000, "{:?}", floods.told);
        let fails = ran(shell("echo no; exit 3"), LONG, 1_000).await;
        assert!(!fails.told.is_good && fails.told.ended.contains('3'), "{:?}", fails.told);
        assert_eq!(fails.bytes, b"no\n");
        let missing = ran(Asked::Command(vec!["/nowhere/at-all".into()]), LONG, 1_000).await;
        assert!(missing.told.ended.contains("cannot be started"), "{:?}", missing.told);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(!left.exists());
    }

    #[tokio::test]
    async fn a_hook_is_posted_what_broke() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url: Uri = format!("http://{}/dump", listener.local_addr().unwrap()).parse().unwrap();
        let served = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (mut asked, mut buffer) = (Vec::new(), [0u8; 4_096]);
            while !asked.ends_with(b"}") {
                let bytes = stream.read(&mut buffer).await.unwrap();
                asked.extend_from_slice(&buffer[..bytes]);
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\nthreads").await.unwrap();
            String::from_utf8(asked).unwrap()
        });
        let output = ran(Asked::Url(url.clone()), LONG, 1_000).await;
        assert_eq!((output.bytes.as_slice(), output.told.ended.as_str()), (&b"threads"[..], "HTTP 200"));
        let asked = served.await.unwrap();
        assert!(asked.starts_with("POST /dump") && asked.contains(r#""kind":"database""#), "{asked}");
        let gone = ran(Asked::Url(url), LONG, 1_000).await;
        assert!(!gone.told.is_good && gone.told.ended.starts_with("no answer"), "{:?}", gone.told);
    }
}
