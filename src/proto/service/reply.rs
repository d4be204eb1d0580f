//! `reply`: one message of up to 1,024 bytes is read and logged, a fixed text is sent whatever it
//! was, and the connection closes. `greet` is the same with a text of its own.

use std::io;
use std::rc::Rc;

use super::{message, message_has_come};
use crate::proto::end::{End, Progress, Turn};
use crate::proto::event::Event;
use crate::proto::pipe::Pipe;

/// What `greet` says: "dear, have you learnt it?", in UTF-8.
pub const GREETING: &[u8] = "亲,学会了吗".as_bytes();

/// The service's side of one connection.
#[derive(Debug)]
pub struct Reply {
    text: Rc<[u8]>,
    /// How much of the text is in the pipe, or `None` while the message has not come.
    put: Option<usize>,
}

impl Reply {
    /// A service that sends `text`, which may be longer than a pipe holds.
    #[must_use]
    pub fn new(text: Rc<[u8]>) -> Self {
        Self { text, put: None }
    }
}

impl End for Reply {
    fn exchange(
        &mut self,
        to: &mut Pipe,
        from: &mut Pipe,
        turn: &mut Turn<'_>,
    ) -> io::Result<Progress> {
        if self.put.is_none() && !message_has_come(to) {
            return Ok(Progress::Moved(0));
        }
        if self.put.is_none() {
            turn.watch.report(&Event::Message(message(to)));
        }
        let put = self.put.get_or_insert(0);
        let swallowed = super::swallow(to, turn);
        let appended = from.append(turn.pool, &self.text[*put..]);
        *put += appended;
        if *put == self.text.len() {
            return Ok(Progress::Done);
        }
        Ok(Progress::Moved(swallowed + appended))
    }
}
