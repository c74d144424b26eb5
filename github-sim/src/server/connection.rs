//! Connections whose bytes a fault can replace.
//!
//! axum and hyper send only well-formed answers, and an axum service cannot fail, so a broken answer
//! needs the connection itself. axum's [`Listener`] may return any stream; here it returns a
//! [`Connection`], which passes all bytes through until a fault gives it a [`RawAnswer`]. The
//! connection then sends those bytes and drops the answer that hyper writes.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use axum::{
    body::Bytes,
    extract::connect_info::Connected,
    response::Response,
    serve::{IncomingStream, Listener},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// A listener whose connections end with the server. Those of [`axum::serve`] outlive it.
pub(crate) struct SimListener {
    pub(crate) listener: TcpListener,
    pub(crate) stop: CancellationToken,
}

/// One connection.
pub(crate) struct Connection {
    stream: TcpStream,
    handle: ConnectionHandle,
    stopped: Pin<Box<WaitForCancellationFutureOwned>>,
}

/// Access to a connection for the requests that arrive on it.
#[derive(Clone, Default)]
pub(crate) struct ConnectionHandle(Arc<Mutex<Option<RawAnswer>>>);

/// Bytes that are sent in place of an answer.
#[derive(Debug)]
pub(crate) struct RawAnswer {
    pub(crate) bytes: Bytes,
    pub(crate) end: ConnectionEnd,
}

/// State of a connection after a raw answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConnectionEnd {
    /// Closed (TCP FIN).
    Closed,
    /// Reset (TCP RST).
    Reset,
    /// Open for the next request.
    Open,
}

impl Listener for SimListener {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let (stream, address) = Listener::accept(&mut self.listener).await;
        // The caller awaits each small answer, so the kernel must not wait for more bytes to send.
        let _ = stream.set_nodelay(true);
        let connection = Connection {
            stream,
            handle: ConnectionHandle::default(),
            stopped: Box::pin(self.stop.clone().cancelled_owned()),
        };
        (connection, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl Connected<IncomingStream<'_, SimListener>> for ConnectionHandle {
    fn connect_info(stream: IncomingStream<'_, SimListener>) -> Self {
        stream.io().handle.clone()
    }
}

impl ConnectionHandle {
    /// Lets the next answer pass as hyper writes it.
    pub(crate) fn restore(&self) {
        *self.lock() = None;
    }

    /// Replaces the answer to the current request. Returns the answer to give to hyper, which is dropped.
    pub(crate) fn replace(&self, raw: RawAnswer) -> Response {
        *self.lock() = Some(raw);
        Response::default()
    }

    fn lock(&self) -> MutexGuard<'_, Option<RawAnswer>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection {
    /// Fails once the server has ended.
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.stopped.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::ErrorKind::ConnectionAborted.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        let Self { stream, handle, .. } = &mut *self;
        let mut raw = handle.lock();
        let Some(raw) = raw.as_mut() else {
            return Pin::new(stream).poll_write(context, bytes);
        };
        while !raw.bytes.is_empty() {
            let sent = ready!(Pin::new(&mut *stream).poll_write(context, &raw.bytes))?;
            let _ = raw.bytes.split_to(sent);
        }
        match raw.end {
            ConnectionEnd::Open => return Poll::Ready(Ok(bytes.len())),
            ConnectionEnd::Reset => stream.set_zero_linger()?,
            ConnectionEnd::Closed => {}
        }
        // hyper drops a connection that cannot be written to, and the drop closes the socket.
        Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
