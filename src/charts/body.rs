//! The body of an answer, within limits: how long nothing may come, how long all may take, how
//! slowly it may trickle, how much it may be, packed and unpacked.
//!
//! It is read piece by piece and never held whole, unless by who asks for that. What it says is
//! not looked at.

use std::io::{self, Read};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use flate2::{Decompress, FlushDecompress, Status};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::client::{FetchError, Limits};

/// Before this a body may be slower than its least rate: TCP begins slowly, and so do servers that
/// make what they send.
const RATE_TIME: Duration = Duration::from_secs(10);
/// Bytes that are unpacked at once.
const PIECE: usize = 64 << 10;
/// Pieces that wait for a blocking reader: it and the network then work side by side.
const PIECES: usize = 4;
/// The largest window of deflate: 32 KiB.
const WINDOW_BITS: u8 = 15;

/// Pieces of an answer's body.
#[derive(Debug)]
pub struct Body {
    wire: Incoming,
    /// For messages: whose body this is.
    place: String,
    limits: Limits,
    /// When the request began.
    begun: Instant,
    /// Bytes as they came, and the time that was spent waiting for them.
    received: u64,
    waited: Duration,
    /// Bytes as they were given on.
    given: u64,
    gzip: Option<Gzip>,
}

#[derive(Debug)]
struct Gzip {
    inflate: Decompress,
    packed: Bytes,
    /// The last piece was full: there may be more without any input.
    full: bool,
    ended: bool,
}

impl Body {
    pub(super) fn new(
        wire: Incoming,
        place: String,
        limits: Limits,
        begun: Instant,
        is_gzip: bool,
    ) -> Self {
        let gzip = is_gzip.then(Gzip::new);
        let (received, waited, given) = (0, Duration::ZERO, 0);
        Self { wire, place, limits, begun, received, waited, given, gzip }
    }

    /// The next piece, unpacked; `None` behind the last one. After an error there is no next.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, FetchError> {
        loop {
            if let Some(piece) = self.unpacked()? {
                return self.counted(piece);
            }
            let Some(data) = self.receive().await? else {
                let is_cut = self.gzip.as_ref().is_some_and(|gzip| !gzip.ended);
                if is_cut && self.received > 0 {
                    return Err(self.broken("its gzip has no end".to_owned()));
                }
                return Ok(None);
            };
            match &mut self.gzip {
                Some(gzip) => gzip.packed = data,
                None => return self.counted(data),
            }
        }
    }

    /// All of it, in memory.
    pub(super) async fn bytes(mut self) -> Result<Bytes, FetchError> {
        let mut all = BytesMut::new();
        while let Some(piece) = self.chunk().await? {
            all.extend_from_slice(&piece);
        }
        Ok(all.freeze())
    }

    /// All of it, for code that blocks, and what fetches it. It stops being fetched when either is
    /// dropped; without the second the reader comes to an error and not to the end.
    pub(super) fn reader(mut self) -> (Reader, AbortOnDropHandle<()>) {
        let (sender, pieces) = mpsc::channel(PIECES);
        let feed = tokio::spawn(async move {
            loop {
                let piece = tokio::select! {
                    piece = self.chunk() => piece,
                    () = sender.closed() => return,
                };
                let is_last = !matches!(piece, Ok(Some(_)));
                if sender.send(piece).await.is_err() || is_last {
                    return;
                }
            }
        });
        let reader = Reader { pieces, rest: Bytes::new(), ended: false };
        (reader, AbortOnDropHandle::new(feed))
    }

    /// What the network brings next, as it is.
    async fn receive(&mut self) -> Result<Option<Bytes>, FetchError> {
        loop {
            let coming = self.received.saturating_add(self.wire.size_hint().lower());
            if coming > self.limits.bytes {
                return Err(self.too_large());
            }
            let left = self.limits.total.saturating_sub(self.begun.elapsed());
            if left.is_zero() {
                return Err(self.slow(format!("it took more than {:?}", self.limits.total)));
            }
            let from = Instant::now();
            let frame = timeout(self.limits.idle.min(left), self.wire.frame()).await;
            self.waited += from.elapsed();
            let frame = match frame {
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(error))) => return Err(self.broken(broke_off(&error))),
                Ok(None) => return Ok(None),
                Err(_) if left < self.limits.idle => continue,
                Err(_) => {
                    return Err(self.slow(format!("nothing came for {:?}", self.limits.idle)));
                }
            };
            // Trailers say nothing that we would ask for.
            let Ok(data) = frame.into_data() else { continue };
            self.received = self.received.saturating_add(data.len() as u64);
            if is_slow(self.received, self.waited, self.limits.least_rate) {
                let rate = self.limits.least_rate;
                return Err(self.slow(format!("fewer than {rate} bytes came in a second")));
            }
            return Ok(Some(data));
        }
    }

    fn unpacked(&mut self) -> Result<Option<Bytes>, FetchError> {
        let Some(gzip) = &mut self.gzip else { return Ok(None) };
        gzip.piece().map_err(|why| self.broken(why))
    }

    fn counted(&mut self, piece: Bytes) -> Result<Option<Bytes>, FetchError> {
        self.given = self.given.saturating_add(piece.len() as u64);
        if self.given > self.limits.bytes {
            return Err(self.too_large());
        }
        Ok(Some(piece))
    }

    fn too_large(&self) -> FetchError {
        FetchError::TooLarge(self.place.clone(), self.limits.bytes)
    }

    fn slow(&self, why: String) -> FetchError {
        FetchError::TooSlow(self.place.clone(), why)
    }

    fn broken(&self, why: String) -> FetchError {
        FetchError::Broken(self.place.clone(), why)
    }
}

/// Time in which we did not listen is not the server's.
fn is_slow(received: u64, waited: Duration, least_rate: u64) -> bool {
    waited > RATE_TIME && received < least_rate.saturating_mul(waited.as_secs())
}

/// hyper hides in a cause what it was that broke.
fn broke_off(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("it broke off: {error} ({cause})"),
        None => format!("it broke off: {error}"),
    }
}

impl Gzip {
    fn new() -> Self {
        let inflate = Decompress::new_gzip(WINDOW_BITS);
        Self { inflate, packed: Bytes::new(), full: false, ended: false }
    }

    /// One piece out of what is there. `None`: more input is needed.
    fn piece(&mut self) -> Result<Option<Bytes>, String> {
        if self.ended && !self.packed.is_empty() {
            // A second member would be allowed by RFC 1952; no server is known to send one.
            return Err("more comes behind the end of its gzip".to_owned());
        }
        if self.ended || (self.packed.is_empty() && !self.full) {
            return Ok(None);
        }
        let mut piece = Vec::with_capacity(PIECE);
        let before = self.inflate.total_in();
        let status = self
            .inflate
            .decompress_vec(&self.packed, &mut piece, FlushDecompress::None)
            .map_err(|error| format!("its gzip cannot be unpacked: {error}"))?;
        let taken = usize::try_from(self.inflate.total_in() - before).unwrap_or(usize::MAX);
        self.packed.advance(taken.min(self.packed.len()));
        self.ended = status == Status::StreamEnd;
        self.full = piece.len() >= PIECE;
        match piece.is_empty() {
            // What comes behind the end has to be found before more is received.
            true if self.ended && !self.packed.is_empty() => self.piece(),
            true => Ok(None),
            false => Ok(Some(piece.into())),
        }
    }
}

/// A body for code that blocks: for `spawn_blocking` alone, since within a task it would panic.
/// An [`io::Error`] of it has the [`FetchError`] within.
#[derive(Debug)]
pub struct Reader {
    /// The end is told: without it a fetch that was given up would look like a short body.
    pieces: mpsc::Receiver<Result<Option<Bytes>, FetchError>>,
    rest: Bytes,
    ended: bool,
}

impl Read for Reader {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() && !self.ended {
            match self.pieces.blocking_recv() {
                Some(Ok(Some(piece))) => self.rest = piece,
                Some(Ok(None)) => self.ended = true,
                Some(Err(error)) => return Err(io::Error::other(error)),
                None => {
                    let why = "it was not fetched to its end";
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, why));
                }
            }
        }
        let length = to.len().min(self.rest.len());
        self.rest.copy_to_slice(&mut to[..length]);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trickle_is_too_slow_once_it_had_its_time() {
        let seconds = Duration::from_secs;
        assert!(!is_slow(1, seconds(10), 1000));
        assert!(is_slow(11, seconds(11), 1000));
        assert!(!is_slow(11_000, seconds(11), 1000));
        assert!(!is_slow(0, seconds(1000), 0));
    }
}
