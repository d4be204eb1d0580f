//! `daytime`: the local time as a line, then close; input does not matter (RFC 867).

use std::io;

use super::time::ctime;
use crate::proto::end::{End, Progress, Turn};
use crate::proto::pipe::Pipe;

/// The service's side of one connection.
#[derive(Debug)]
pub struct Daytime;

impl End for Daytime {
    fn exchange(
        &mut self,
        _to: &mut Pipe,
        from: &mut Pipe,
        turn: &mut Turn<'_>,
    ) -> io::Result<Progress> {
        let line = line(&turn.clock.local_time());
        if from.room(turn.pool) < line.len() {
            return Ok(Progress::Moved(0));
        }
        from.append(turn.pool, line.as_bytes());
        Ok(Progress::Done)
    }
}

/// The time of `moment` as the line that is sent.
#[must_use]
pub fn line(moment: &jiff::Zoned) -> String {
    ctime(moment) + "\r\n"
}
