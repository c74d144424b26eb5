//! A stand-in for a Debian mirror, on this machine, with faults.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Context, Result};

use crate::rootfs;

/// The origin of the files.
#[derive(Debug, Clone)]
pub(super) enum Content {
    /// A directory of this machine.
    Directory(PathBuf),
    /// Another mirror: every request is redirected there.
    Mirror(String),
}

/// A fault in the answers for files whose path contains `path`.
#[derive(Debug, Clone)]
pub(super) struct Fault {
    pub(super) path: String,
    pub(super) kind: Kind,
    /// Requests that it still applies to.
    pub(super) times: u32,
}

/// The kind of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The answer is 404.
    NotFound,
    /// The connection ends in the middle of the file.
    Cut,
    /// The answer is 404, and from then on `dists.next` is served as `dists`.
    Outdated,
}

#[derive(Debug, Default)]
struct State {
    faults: Vec<Fault>,
    /// Paths that were asked for.
    asked: Vec<String>,
    stopped: bool,
}

/// A running stand-in. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Mirror {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    server: Option<JoinHandle<()>>,
}

impl Mirror {
    /// Serves the content on a port of this machine.
    pub(super) fn start(content: Content) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("listen on 127.0.0.1")?;
        let address = listener.local_addr()?;
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        let server = std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if lock(&shared).stopped {
                    return;
                }
                let (content, state) = (content.clone(), Arc::clone(&shared));
                // A failed answer is apt's to report.
                std::thread::spawn(move || serve(&stream, &content, &state).ok());
            }
        });
        Ok(Self {
            address,
            state,
            server: Some(server),
        })
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the mirror for a builder of root filesystems.
    pub(super) fn for_builder(&self) -> rootfs::Mirror {
        rootfs::Mirror {
            url: self.url(),
            is_trusted: true,
        }
    }

    /// Answers this many requests for files whose path contains `path` with a fault.
    pub(super) fn inject(&self, path: &str, kind: Kind, times: u32) {
        lock(&self.state).faults.push(Fault {
            path: path.to_owned(),
            kind,
            times,
        });
    }

    /// Ends all faults.
    pub(super) fn heal(&self) {
        lock(&self.state).faults.clear();
    }

    /// Returns the paths that were asked for and contain `part`.
    pub(super) fn asked(&self, part: &str) -> Vec<String> {
        let state = lock(&self.state);
        let paths = state.asked.iter().filter(|path| path.contains(part));
        paths.cloned().collect()
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        lock(&self.state).stopped = true;
        // A connection ends the wait for one.
        TcpStream::connect(self.address).ok();
        if let Some(server) = self.server.take() {
            server.join().ok();
        }
    }
}

fn lock(state: &Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Answers the requests of one connection.
fn serve(mut stream: &TcpStream, content: &Content, state: &Mutex<State>) -> Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let mut request = String::new();
        if reader.read_line(&mut request)? == 0 {
            return Ok(());
        }
        let mut header = String::from("-");
        while !header.trim().is_empty() {
            header.clear();
            if reader.read_line(&mut header)? == 0 {
                return Ok(());
            }
        }
        let path = request.split(' ').nth(1).unwrap_or("/").to_owned();
        match (fault(state, &path), content) {
            (Some(Kind::NotFound), _) => answer(stream, "404 Not Found", "", b"gone\n")?,
            (Some(Kind::Cut), Content::Directory(dir)) => {
                let bytes = fs::read(dir.join(path.trim_start_matches('/')))?;
                write!(stream, "{}", head("200 OK", "", bytes.len()))?;
                stream.write_all(&bytes[..bytes.len() / 2])?;
                stream.shutdown(Shutdown::Both)?;
                return Ok(());
            }
            (Some(Kind::Outdated), Content::Directory(dir)) => {
                fs::remove_dir_all(dir.join("dists"))?;
                fs::rename(dir.join("dists.next"), dir.join("dists"))?;
                answer(stream, "404 Not Found", "", b"gone\n")?;
            }
            (Some(Kind::Cut | Kind::Outdated), Content::Mirror(_)) => {
                stream.shutdown(Shutdown::Both)?;
                return Ok(());
            }
            (None, Content::Directory(dir)) => {
                match fs::read(dir.join(path.trim_start_matches('/'))) {
                    Ok(bytes) => answer(stream, "200 OK", "", &bytes)?,
                    Err(_) => answer(stream, "404 Not Found", "", b"not here\n")?,
                }
            }
            (None, Content::Mirror(url)) => {
                let location = format!("Location: {url}{path}\r\n");
                answer(stream, "302 Found", &location, b"")?;
            }
        }
    }
}

/// Notes a request, and takes the fault that it meets.
fn fault(state: &Mutex<State>, path: &str) -> Option<Kind> {
    let mut state = lock(state);
    state.asked.push(path.to_owned());
    let fault = state
        .faults
        .iter_mut()
        .find(|fault| fault.times > 0 && path.contains(&fault.path))?;
    fault.times -= 1;
    Some(fault.kind)
}

fn answer(mut stream: &TcpStream, status: &str, headers: &str, body: &[u8]) -> Result<()> {
    write!(stream, "{}", head(status, headers, body.len()))?;
    stream.write_all(body)?;
    Ok(())
}

fn head(status: &str, headers: &str, length: usize) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{headers}\r\n")
}
