//! One question and its answer over a stream, each behind its length in two bytes (RFC 7766, 8).
//!
//! Invariant: no more is kept than one answer, of at most 64 KiB, and of that no more than has
//! arrived.

/// The length that goes before a message.
const PREFIX_LEN: usize = size_of::<u16>();

/// A question that is put over a stream of its own, and as much of the answer as is there.
#[derive(Debug)]
pub struct Exchange {
    question: Vec<u8>,
    sent: usize,
    /// The length of the answer and the answer.
    received: Vec<u8>,
}

impl Exchange {
    /// An exchange of which nothing has been sent.
    ///
    /// # Panics
    /// Where `question` is longer than a message may be.
    #[must_use]
    pub fn new(question: &[u8]) -> Self {
        let len = u16::try_from(question.len()).expect("a question is shorter than 64 KiB");
        let question = [&len.to_be_bytes(), question].concat();
        Self { question, sent: 0, received: Vec::new() }
    }

    /// What is left to be sent.
    #[must_use]
    pub fn unsent(&self) -> &[u8] {
        &self.question[self.sent..]
    }

    /// So much of it was sent.
    pub fn handle_sent(&mut self, count: usize) {
        self.sent += count;
        assert!(self.sent <= self.question.len(), "more was sent than there is");
    }

    /// Takes in what arrived. What comes behind the answer is nothing that was asked for.
    pub fn handle_received(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.missing() > 0 {
            let (wanted, more) = bytes.split_at(bytes.len().min(self.missing()));
            self.received.extend_from_slice(wanted);
            bytes = more;
        }
    }

    /// The answer, once the whole of it is there.
    #[must_use]
    pub fn answer(&self) -> Option<&[u8]> {
        (self.missing() == 0).then(|| &self.received[PREFIX_LEN..])
    }

    /// How many bytes are missing for certain: of the length, or else of the answer.
    fn missing(&self) -> usize {
        match self.received.first_chunk() {
            None => PREFIX_LEN - self.received.len(),
            Some(prefix) => {
                PREFIX_LEN + usize::from(u16::from_be_bytes(*prefix)) - self.received.len()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_goes_out_in_pieces_behind_its_length() {
        let mut exchange = Exchange::new(b"who?");
        let mut sent = Vec::new();
        while let Some(byte) = exchange.unsent().first() {
            sent.push(*byte);
            exchange.handle_sent(1);
        }
        assert_eq!(sent, b"\0\x04who?");
    }

    #[test]
    fn an_answer_is_whole_however_it_is_torn() {
        let framed = b"\0\x05me, I";
        for first in 0..=framed.len() {
            for second in first..=framed.len() {
                let mut exchange = Exchange::new(b"who?");
                for piece in [&framed[..first], &framed[first..second], &framed[second..]] {
                    let is_whole = exchange.answer().is_some();
                    assert!(!is_whole || piece.is_empty(), "it was whole too soon");
                    exchange.handle_received(piece);
                }
                assert_eq!(exchange.answer(), Some(&framed[PREFIX_LEN..]));
            }
        }
    }

    #[test]
    fn nothing_is_kept_beyond_one_answer() {
        let mut exchange = Exchange::new(b"who?");
        exchange.handle_received(b"\0\x02me and everyone else");
        exchange.handle_received(b"and their friends");
        assert_eq!((exchange.answer(), exchange.received.len()), (Some(&b"me"[..]), 4));

        let mut longest = Exchange::new(b"who?");
        longest.handle_received(&[0xff; PREFIX_LEN + u16::MAX as usize - 1]);
        assert_eq!(longest.answer(), None);
        longest.handle_received(&[0xff; 100]);
        assert_eq!(longest.answer().map(<[u8]>::len), Some(u16::MAX.into()));

        let mut empty = Exchange::new(b"who?");
        empty.handle_received(b"\0\0");
        assert_eq!(empty.answer(), Some(&b""[..]));
    }
}
