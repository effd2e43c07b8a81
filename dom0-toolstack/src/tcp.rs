//! A TCP connection that owns its buffers, for whoever passes connections around.
//!
//! Why unsafe: the stack's sockets borrow their buffers, so a value that holds both borrows from
//! itself. Invariant: the socket is dropped before its buffers, and nothing else refers to them.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use core::future::Future;
use core::mem::ManuallyDrop;
use core::net::IpAddr;
use core::pin::pin;
use core::task::{Context, Poll};
use embassy_net::Stack;
use embassy_net::tcp::TcpSocket;
use embassy_time::Duration;
use godwit_backends::storage::nbd::Stream;

/// Bytes of each of the two buffers: the window.
const BUFFER_BYTES: usize = 128 << 10;
/// A peer that acknowledges nothing for so long is gone.
const SILENCE_LIMIT: Duration = Duration::from_secs(20);
/// How often an idle connection asks whether the peer is there.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// A connection.
pub(crate) struct TcpStream {
    socket: ManuallyDrop<TcpSocket<'static>>,
    receive: *mut [u8],
    send: *mut [u8],
}

impl TcpStream {
    fn new(stack: Stack<'static>) -> Self {
        let buffer = || Box::into_raw(alloc::vec![0; BUFFER_BYTES].into_boxed_slice());
        let (receive, send) = (buffer(), buffer());
        // SAFETY: both are ours alone, live until `drop` frees them, and are given away once.
        let buffers = unsafe { (&mut *receive, &mut *send) };
        let mut socket = TcpSocket::new(stack, buffers.0, buffers.1);
        socket.set_timeout(Some(SILENCE_LIMIT));
        socket.set_keep_alive(Some(KEEP_ALIVE));
        socket.set_nagle_enabled(false);
        Self {
            socket: ManuallyDrop::new(socket),
            receive,
            send,
        }
    }

    /// Connects. An error in words.
    pub(crate) async fn connect(
        stack: Stack<'static>,
        address: IpAddr,
        port: u16,
    ) -> Result<Self, String> {
        let mut stream = Self::new(stack);
        match stream.socket.connect((address, port)).await {
            Ok(()) => Ok(stream),
            Err(error) => Err(format!("connect to {address} port {port}: {error:?}")),
        }
    }

    /// Waits for a connection to `port`. Gives it and who made it. An error in words.
    pub(crate) async fn accept(stack: Stack<'static>, port: u16) -> Result<(Self, String), String> {
        let mut stream = Self::new(stack);
        match stream.socket.accept(port).await {
            Ok(()) => {
                let from = stream.socket.remote_endpoint();
                let from = from.map_or_else(String::new, |from| format!("{}", from.addr));
                Ok((stream, from))
            }
            Err(error) => Err(format!("{error:?}")),
        }
    }

    /// Waits for bytes and takes some; 0 at the end of the other side. An error in words.
    pub(crate) async fn receive(&mut self, out: &mut [u8]) -> Result<usize, String> {
        let read = self.socket.read(out).await;
        read.map_err(|error| format!("receive: {error:?}"))
    }

    /// Takes some of `bytes` to be sent. An error in words.
    pub(crate) async fn transmit(&mut self, bytes: &[u8]) -> Result<usize, String> {
        let written = self.socket.write(bytes).await;
        written.map_err(|error| format!("send: {error:?}"))
    }

    /// Waits until everything was acknowledged. An error in words.
    pub(crate) async fn drained(&mut self) -> Result<(), String> {
        let flushed = self.socket.flush().await;
        flushed.map_err(|error| format!("send: {error:?}"))
    }
}

impl Drop for TcpStream {
    fn drop(&mut self) {
        self.socket.abort();
        // SAFETY: this is the one place that drops the socket, and it is not used afterwards; with
        // it the stack forgets the buffers, which come from `Box::into_raw` and are freed once.
        unsafe {
            ManuallyDrop::drop(&mut self.socket);
            drop(Box::from_raw(self.receive));
            drop(Box::from_raw(self.send));
        }
    }
}

impl Stream for TcpStream {
    fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        out: &mut [u8],
    ) -> Poll<Result<usize, String>> {
        // The future keeps nothing between polls: the socket does.
        let read = pin!(self.socket.read(out)).poll(context);
        read.map_err(|error| format!("receive: {error:?}"))
    }

    fn poll_write(
        &mut self,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize, String>> {
        let written = pin!(self.socket.write(bytes)).poll(context);
        written.map_err(|error| format!("send: {error:?}"))
    }
}
