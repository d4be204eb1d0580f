//! `once`: one message of up to 1,024 bytes comes back stripped of white space at both ends and
//! upper-cased; then the connection closes. The message is logged.

use std::io;

use super::{message, message_has_come};
use crate::proto::end::{End, Progress, Turn};
use crate::proto::event::Event;
use crate::proto::pipe::Pipe;

/// The service's side of one connection.
#[derive(Debug)]
pub struct Once;

impl End for Once {
    fn exchange(
        &mut self,
        to: &mut Pipe,
        from: &mut Pipe,
        turn: &mut Turn<'_>,
    ) -> io::Result<Progress> {
        if !message_has_come(to) || from.room(turn.pool) < super::MESSAGE_LIMIT {
            return Ok(Progress::Moved(0));
        }
        turn.watch.report(&Event::Message(message(to)));
        let answer = strip(message(to)).to_ascii_uppercase();
        from.append(turn.pool, &answer);
        to.discard(turn.pool);
        Ok(Progress::Done)
    }
}

/// The same for a datagram: the answer takes the place of the message.
pub fn answer_in_place(message: &mut [u8]) -> usize {
    let stripped = strip(message);
    let len = stripped.len();
    let start = stripped.as_ptr() as usize - message.as_ptr() as usize;
    message.copy_within(start..start + len, 0);
    message[..len].make_ascii_uppercase();
    len
}

/// Without the white space at both ends: the six ASCII characters that C's `isspace` knows.
fn strip(message: &[u8]) -> &[u8] {
    let is_space = |byte: &u8| matches!(byte, b'\t'..=b'\r' | b' ');
    let start = message.iter().position(|byte| !is_space(byte)).unwrap_or(message.len());
    let end = message.iter().rposition(|byte| !is_space(byte)).map_or(start, |last| last + 1);
    &message[start..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_goes_at_both_ends_only() {
        assert_eq!(strip(b" \t\r\n\x0b\x0ca b \n"), b"a b");
        assert_eq!(strip(b" \n "), b"");
        assert_eq!(strip(b""), b"");
        assert_eq!(strip("\u{a0}é".as_bytes()), "\u{a0}é".as_bytes());
    }

    #[test]
    fn a_datagram_is_answered_where_it_lies() {
        let mut message = *b"  hello world\n";
        let len = answer_in_place(&mut message);
        assert_eq!(&message[..len], b"HELLO WORLD");
        assert_eq!(answer_in_place(&mut []), 0);
    }
}
