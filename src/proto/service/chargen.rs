//! `chargen`: the printable ASCII characters, in lines of 72 that each begin one character
//! further on, for as long as the peer takes them; input is thrown away (RFC 864).

use std::io;

use crate::proto::end::{End, Progress, Turn};
use crate::proto::pipe::Pipe;

const LINE: usize = 72;
const FIRST: u8 = b' ';
const PRINTABLE: usize = 95;

/// How many bytes answer a datagram: within the 512 of RFC 864, whole lines.
const DATAGRAM_LINES: usize = 6;

/// The service's side of one connection.
#[derive(Debug, Default)]
pub struct Chargen {
    line: usize,
    column: usize,
}

impl Chargen {
    /// A generator that stands before the first character.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn generate(&mut self, space: &mut [u8]) -> usize {
        for byte in space.iter_mut() {
            *byte = match self.column {
                LINE => b'\r',
                column if column > LINE => b'\n',
                column => FIRST + ((self.line + column) % PRINTABLE) as u8,
            };
            self.column += 1;
            if self.column == LINE + 2 {
                self.column = 0;
                self.line = (self.line + 1) % PRINTABLE;
            }
        }
        space.len()
    }
}

impl End for Chargen {
    fn exchange(
        &mut self,
        to: &mut Pipe,
        from: &mut Pipe,
        turn: &mut Turn<'_>,
    ) -> io::Result<Progress> {
        let mut moved = super::swallow(to, turn);
        if from.is_empty() {
            moved += from.fill(turn.pool, |space| Ok::<_, io::Error>(self.generate(space)))?;
        }
        Ok(Progress::Moved(moved))
    }
}

/// The answer to a datagram: the first lines of the pattern.
pub fn datagram(slot: &mut [u8]) -> usize {
    Chargen::new().generate(&mut slot[..DATAGRAM_LINES * (LINE + 2)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pattern_is_that_of_the_rfc_however_it_is_cut() {
        let mut whole = vec![0; (LINE + 2) * 96];
        Chargen::new().generate(&mut whole);
        let text = String::from_utf8(whole.clone()).expect("ASCII");
        let lines: Vec<&str> = text.split_terminator("\r\n").collect();
        assert_eq!(
            lines[0],
            &" !\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefg"[..LINE]
        );
        assert!(lines[1].starts_with("!\"#") && lines[95] == lines[0]);
        assert!(lines.iter().all(|line| line.len() == LINE));

        let (mut generator, mut pieces) = (Chargen::new(), vec![0; whole.len()]);
        for piece in pieces.chunks_mut(7) {
            generator.generate(piece);
        }
        assert_eq!(pieces, whole);
    }

    #[test]
    fn a_datagram_is_whole_lines_within_512_bytes() {
        let mut slot = [0; 600];
        let len = datagram(&mut slot);
        assert!(len <= 512 && slot[..len].ends_with(b"\r\n"));
    }
}
