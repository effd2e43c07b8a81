//! The echo service (RFC 862): on TCP port 7 everything comes back.

use embassy_net::Stack;
use embassy_net::tcp::TcpSocket;
use embassy_time::Duration;

/// Where it is.
pub(super) const PORT: u16 = 7;
/// Connections at a time.
pub(crate) const CONNECTIONS_MAX: usize = 4;
const BUFFER_BYTES: usize = 16 << 10;
/// A silent connection makes room for another.
const IDLE_LIMIT: Duration = Duration::from_secs(60);

/// Serves one connection after the other.
#[embassy_executor::task(pool_size = CONNECTIONS_MAX)]
pub(crate) async fn serve(stack: Stack<'static>) -> ! {
    let mut receive = alloc::vec![0; BUFFER_BYTES];
    let mut send = alloc::vec![0; BUFFER_BYTES];
    let mut bytes = alloc::vec![0; BUFFER_BYTES];
    loop {
        let mut socket = TcpSocket::new(stack, &mut receive, &mut send);
        socket.set_timeout(Some(IDLE_LIMIT));
        if let Err(error) = socket.accept(PORT).await {
            log::warn!("echo service: accept: {error:?}");
            embassy_time::Timer::after(Duration::from_secs(1)).await;
            continue;
        }
        if echo(&mut socket, &mut bytes).await.is_ok() {
            socket.close();
            // The peer's side of the closing: an error here ends it as well.
            if socket.flush().await.is_ok() {
                continue;
            }
        }
        socket.abort();
        let _ = socket.flush().await;
    }
}

/// Until the peer closes its side.
async fn echo(socket: &mut TcpSocket<'_>, bytes: &mut [u8]) -> Result<(), embassy_net::tcp::Error> {
    loop {
        let count = socket.read(bytes).await?;
        if count == 0 {
            return Ok(());
        }
        let mut rest = &bytes[..count];
        while !rest.is_empty() {
            let written = socket.write(rest).await?;
            rest = &rest[written..];
        }
    }
}
