//! Ports, and how many newcomers the kernel keeps for them.

use std::io;
use std::net::SocketAddr;
use tokio::net::{TcpListener, TcpSocket};

/// Connections that wait to be accepted; the kernel may hold fewer (`net.core.somaxconn`). Beyond it a newcomer is
/// dropped without a word, and tries again only a second later.
const BACKLOG: u32 = 4_096;

/// Listens on this address. Must be called in a runtime.
///
/// # Errors
/// What the kernel has against it, such as an address that is in use.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A daemon that starts again takes over the port of connections that are being closed. Elsewhere the option
    // has two listen on one port.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    #[tokio::test]
    async fn hundreds_who_come_at_once_wait_although_nobody_accepts() {
        let listener = listen(([127, 0, 0, 1], 0).into()).unwrap();
        let address = listener.local_addr().unwrap();
        let begun = std::time::Instant::now();
        // More than the 128 that are usual.
        let came: Vec<TcpStream> = (0..400).map(|_| TcpStream::connect(address).unwrap()).collect();
        assert!(
            begun.elapsed().as_millis() < 900,
            "one of {} was dropped: {:?}",
            came.len(),
            begun.elapsed()
        );
        let taken = listen(address).unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
    }
}
