//! `upper`: every byte comes back, a-z as A-Z, every other byte as it was, so UTF-8 text
//! survives. Half-close is answered with half-close.

use std::io;

use crate::proto::end::{End, Progress, Turn};
use crate::proto::pipe::Pipe;

/// The service's side of one connection.
#[derive(Debug)]
pub struct Upper;

impl End for Upper {
    fn exchange(
        &mut self,
        to: &mut Pipe,
        from: &mut Pipe,
        _turn: &mut Turn<'_>,
    ) -> io::Result<Progress> {
        super::send_back(to, from, <[u8]>::make_ascii_uppercase)
    }
}
