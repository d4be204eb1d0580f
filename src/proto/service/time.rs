//! `time`: each message is answered with the local time in the form of C's `ctime()` without its
//! newline. The message `END` (a line ending may follow it) ends the connection without an answer.
//! What else a message says does not matter, so it need not be text.

use std::io;

use crate::proto::end::{End, Progress, Turn};
use crate::proto::pipe::Pipe;

/// The service's side of one connection.
#[derive(Debug)]
pub struct Time;

impl End for Time {
    fn exchange(
        &mut self,
        to: &mut Pipe,
        from: &mut Pipe,
        turn: &mut Turn<'_>,
    ) -> io::Result<Progress> {
        if to.is_drained() || is_end(to.bytes()) {
            return Ok(Progress::Done);
        }
        if to.is_empty() || !from.is_empty() {
            return Ok(Progress::Moved(0));
        }
        let answer = ctime(&turn.clock.local_time());
        from.append(turn.pool, answer.as_bytes());
        Ok(Progress::Moved(to.discard(turn.pool)))
    }
}

/// Whether a message asks for the end.
#[must_use]
pub fn is_end(message: &[u8]) -> bool {
    matches!(message, b"END" | b"END\n" | b"END\r\n")
}

/// A moment as `ctime()` writes it (C11, 7.27.3.1), without the newline: always 24 characters
/// for years of four digits, the day of the month padded with a space.
#[must_use]
pub fn ctime(moment: &jiff::Zoned) -> String {
    moment.strftime("%a %b %e %H:%M:%S %Y").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_day_of_the_month_is_padded_with_a_space() {
        let at = |text: &str| ctime(&text.parse().expect("a zoned time"));
        assert_eq!(at("2015-03-15T12:09:16+01:00[Europe/Belgrade]"), "Sun Mar 15 12:09:16 2015");
        assert_eq!(at("2015-03-01T00:00:00[UTC]"), "Sun Mar  1 00:00:00 2015");
    }

    #[test]
    fn only_end_is_the_end() {
        assert!(is_end(b"END") && is_end(b"END\n") && is_end(b"END\r\n"));
        assert!(!is_end(b"") && !is_end(b"end") && !is_end(b"END ") && !is_end(b"THE END"));
    }
}
