//! A peer that fails: a proxy in front of a real one that refuses, hangs, trickles or floods.

use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// An answer that says no and is 1 GiB long.
const HEAD: &str = "HTTP/1.1 500 Internal Server Error\r\ncontent-type: application/json\r\ncontent-length: 1073741824\r\n\r\n";

/// How it behaves. Open connections end when that changes, but for those that hang for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Passes everything on.
    Pass,
    /// Ends each connection at once.
    Refuse,
    /// Takes what comes and never answers.
    Hang,
    /// The same, and does not end these connections when it is back: whoever waits for them has to give up himself, as
    /// with a peer whose machine is gone.
    HangForEver,
    /// Answers a byte a second.
    Trickle,
    /// Answers without an end.
    Flood,
}

/// On a port of its own, until it is dropped.
pub struct Proxy {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    task: tokio::task::JoinHandle<()>,
}

impl Proxy {
    pub async fn start(to: String, mode: Mode) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (mode, modes) = watch::channel(mode);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let mut modes = modes.clone();
                let to = to.clone();
                tokio::spawn(async move {
                    let mode = *modes.borrow_and_update();
                    tokio::select! {
                        () = serve(stream, &to, mode) => {}
                        _ = modes.changed(), if mode != Mode::HangForEver => {}
                    }
                });
            }
        });
        Self { address, mode, task }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn behave(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: TcpStream, to: &str, mode: Mode) {
    let mut bytes = vec![b'x'; 1 << 16];
    match mode {
        Mode::Pass => {
            if let Ok(mut upstream) = TcpStream::connect(to).await {
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut upstream).await;
            }
        }
        Mode::Refuse => {}
        Mode::Hang | Mode::HangForEver => while let Ok(1..) = stream.read(&mut bytes).await {},
        Mode::Trickle => {
            let _ = stream.read(&mut bytes).await;
            for byte in HEAD.as_bytes() {
                tokio::time::sleep(Duration::from_secs(1)).await;
                if stream.write_all(&[*byte]).await.is_err() {
                    return;
                }
            }
        }
        Mode::Flood => {
            let _ = stream.read(&mut bytes).await;
            let mut sent = stream.write_all(HEAD.as_bytes()).await.is_ok();
            while sent {
                sent = stream.write_all(&bytes).await.is_ok();
            }
        }
    }
}
