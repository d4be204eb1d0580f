//! `echo`: every byte comes back (RFC 862).

use std::io;

use crate::proto::end::{End, Progress, Turn};
use crate::proto::pipe::Pipe;

/// The service's side of one connection.
#[derive(Debug)]
pub struct Echo;

impl End for Echo {
    fn exchange(
        &mut self,
        to: &mut Pipe,
        from: &mut Pipe,
        _turn: &mut Turn<'_>,
    ) -> io::Result<Progress> {
        super::send_back(to, from, |_| ())
    }
}
