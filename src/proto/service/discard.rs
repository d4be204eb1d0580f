//! `discard`: every byte is thrown away, nothing is sent (RFC 863).

use std::io;

use crate::proto::end::{End, Progress, Turn};
use crate::proto::pipe::Pipe;

/// The service's side of one connection.
#[derive(Debug)]
pub struct Discard;

impl End for Discard {
    fn exchange(
        &mut self,
        to: &mut Pipe,
        from: &mut Pipe,
        turn: &mut Turn<'_>,
    ) -> io::Result<Progress> {
        let moved = super::swallow(to, turn);
        if to.is_finished() {
            from.end();
        }
        Ok(Progress::Moved(moved))
    }
}
