//! One connection before TLS: what is said in the clear until the server agrees to begin.

use std::io::{self, Read, Write};

use crate::net::socket::Stream;
use crate::proto::starttls::{Next, Protocol, StartTls};

/// A connected stream, and the exchange that leads to TLS.
pub(super) struct Plain {
    stream: Stream,
    start: StartTls,
    /// What the kernel has not taken yet.
    unsent: Vec<u8>,
}

impl Plain {
    pub(super) fn new(stream: Stream, protocol: Protocol) -> Self {
        let (start, first) = StartTls::new(protocol);
        Self { stream, start, unsent: first.to_vec() }
    }

    /// Says what is to be said, and hears what there is to hear; answers whether TLS may begin. What
    /// it hears is bounded, and so is this.
    ///
    /// # Errors
    /// It may not: why, in a sentence for people.
    pub(super) fn exchange(&mut self) -> Result<bool, String> {
        loop {
            self.flush()?;
            // One byte at a time would do: nothing of TLS must be taken away.
            let mut space = [0; 1024];
            let count = match self.stream.read(&mut space) {
                Ok(0) => return Err("the server closed the connection before TLS began".to_owned()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(lost(&error)),
            };
            match self.start.handle(&space[..count])? {
                Next::Wait => {}
                Next::Say(text) => self.unsent.extend_from_slice(text),
                Next::Begin => return Ok(true),
            }
        }
    }

    pub(super) fn into_stream(self) -> Stream {
        self.stream
    }

    fn flush(&mut self) -> Result<(), String> {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(lost(&error)),
            }
        }
        Ok(())
    }
}

fn lost(error: &io::Error) -> String {
    format!("the connection was lost before TLS began: {error}")
}
