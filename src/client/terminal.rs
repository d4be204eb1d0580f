//! The terminal, or whatever standard input and output are, as the local end of a session.
//!
//! On a terminal it is a conversation: a prompt, a line that is sent with the [end](LineEnds) that
//! the server wants, the reply, the prompt again; `quit` leaves. From a pipe or a file, bytes go as
//! they are: all of the input, then the end of the stream; and all that comes back is printed. That
//! the server has ended its side does not end the input: it may go on reading (TCP's half-close).

use std::io;
use std::time::{Duration, Instant};

use crate::net::output;
use crate::net::stdio::Stdio;
use crate::proto::end::{End, Progress, Turn};
use crate::proto::pipe::Pipe;

/// What asks for the next line.
pub const PROMPT: &str = ">>: ";

/// The longest line that a person may type, in bytes; a terminal in its usual mode passes 4,095.
const LINE_LIMIT: usize = 64 * 1024;

/// How long more input is waited for once the server has ended its side: programs that leave their
/// standard input open would else keep a connection that is over.
const INPUT_WAIT: Duration = Duration::from_secs(2);

/// How long the challenge of a gate is, which is told from text by not being any.
const CHALLENGE_LEN: usize = 32;

/// What is sent behind each line that a person types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineEnds {
    /// A line feed, as on Unix.
    Lf,
    /// A carriage return and a line feed, as the protocols of the Internet have it.
    CrLf,
    /// Nothing: white space at either end of the line is dropped too, and blank lines are skipped.
    None,
}

impl LineEnds {
    fn bytes(self) -> &'static [u8] {
        match self {
            Self::Lf => b"\n",
            Self::CrLf => b"\r\n",
            Self::None => b"",
        }
    }
}

/// How to talk to whoever is at the terminal.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// What a person's lines end with; `None` talks to a program.
    pub by_hand: Option<LineEnds>,
    /// Whether there is a gate, whose silence after its challenge means something.
    pub has_gate: bool,
    /// Whether bytes that look like the challenge of a gate are to be noticed.
    pub notices_gate: bool,
    /// Whether what is printed is seen by a person, whose screen such bytes would garble.
    pub is_seen: bool,
}

/// Standard input and output, and what has been typed.
pub struct Terminal {
    stdio: Stdio,
    manner: Manner,
    conversation: Option<Conversation>,
    was_cut_off: bool,
    has_heard: bool,
    seems_gated: bool,
    /// When something last moved after the server had ended its side.
    ended: Option<Instant>,
    /// Whether all of the input has been taken out of the session's hands, towards the server.
    has_said_all: bool,
}

/// A conversation with a person.
struct Conversation {
    /// What was typed of the next line.
    typed: Vec<u8>,
    line_ends: LineEnds,
    /// Whether the prompt is to be shown (again).
    prompt_is_due: bool,
    /// Whether the cursor stands where a line begins, as far as the server's replies tell.
    at_line_start: bool,
    has_left: bool,
}

impl Terminal {
    /// Talks in this manner.
    #[must_use]
    pub fn new(stdio: Stdio, manner: Manner) -> Self {
        Self {
            stdio,
            manner,
            conversation: manner.by_hand.map(Conversation::new),
            was_cut_off: false,
            has_heard: false,
            seems_gated: false,
            ended: None,
            has_said_all: false,
        }
    }

    /// Whether the server began with what looks like the challenge of a gate.
    #[must_use]
    pub fn seems_gated(&self) -> bool {
        self.seems_gated
    }

    /// Whether the server has ended its side.
    #[must_use]
    pub fn has_heard_end(&self) -> bool {
        self.ended.is_some()
    }

    /// Whether all of the input was on its way to the server.
    #[must_use]
    pub fn has_said_all(&self) -> bool {
        self.has_said_all
    }

    /// When to run even if nothing happens.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.ended.filter(|_| !self.has_said_all).map(|ended| ended + INPUT_WAIT)
    }

    /// Whether the server ended the conversation while there could have been more to say.
    #[must_use]
    pub fn was_cut_off(&self) -> bool {
        self.was_cut_off
    }

    /// Prints what has come. A challenge is not for people.
    fn print(&mut self, to: &mut Pipe, turn: &mut Turn<'_>) -> io::Result<usize> {
        if !std::mem::replace(&mut self.has_heard, true) && self.manner.notices_gate {
            self.seems_gated = looks_like_challenge(to.bytes());
            if self.seems_gated && self.manner.is_seen {
                return Ok(to.discard(turn.pool));
            }
        }
        let Some(count) = unless_blocked(self.stdio.write(to.bytes()))? else { return Ok(0) };
        if let Some(conversation) = &mut self.conversation {
            conversation.at_line_start = to.bytes()[..count].ends_with(b"\n");
            conversation.prompt_is_due = true;
        }
        to.consume(turn.pool, count);
        Ok(count)
    }

    /// Passes input on as it is.
    fn pass(&mut self, from: &mut Pipe, turn: &mut Turn<'_>) -> io::Result<usize> {
        if !from.wants_more(turn.pool) {
            return Ok(0);
        }
        match unless_blocked(from.fill(turn.pool, |space| self.stdio.read(space)))? {
            None => Ok(0),
            Some(0) => {
                from.end();
                Ok(1)
            }
            Some(count) => Ok(count),
        }
    }
}

impl End for Terminal {
    fn exchange(
        &mut self,
        to: &mut Pipe,
        from: &mut Pipe,
        turn: &mut Turn<'_>,
    ) -> io::Result<Progress> {
        let mut moved = 0;
        if !to.is_empty() {
            moved += self.print(to, turn)?;
        }
        if to.is_drained() {
            let is_refused = self.manner.has_gate && !self.has_heard;
            if self.conversation.is_some() || is_refused {
                // Nobody would hear what is still typed.
                self.was_cut_off = from.is_open();
                return Ok(Progress::Done);
            }
            to.finish();
            self.ended = Some(turn.now);
            moved += 1;
        }
        match &mut self.conversation {
            None => {
                moved += self.pass(from, turn)?;
                self.has_said_all = !from.is_open() && from.is_empty();
                if let Some(ended) = &mut self.ended {
                    if moved > 0 || !from.is_empty() {
                        *ended = turn.now;
                    } else if from.is_open() && turn.now >= *ended + INPUT_WAIT {
                        self.was_cut_off = true;
                        return Ok(Progress::Done);
                    }
                }
            }
            Some(conversation) => {
                if to.is_empty() {
                    conversation.show_prompt();
                }
                moved += conversation.read_line(&mut self.stdio, from, turn)?;
                if conversation.has_left {
                    return Ok(Progress::Done);
                }
            }
        }
        Ok(Progress::Moved(moved))
    }
}

impl Conversation {
    fn new(line_ends: LineEnds) -> Self {
        Self {
            typed: Vec::new(),
            line_ends,
            prompt_is_due: true,
            at_line_start: true,
            has_left: false,
        }
    }

    fn show_prompt(&mut self) {
        if self.prompt_is_due {
            let line_end = if self.at_line_start { "" } else { "\n" };
            self.prompt_is_due = false;
            say(line_end);
            say(PROMPT);
        }
    }

    /// Sends the next line, which without line ends must not be blank. One at a time: each goes in a segment of its own, so
    /// that a server which takes a segment for a message understands it.
    fn read_line(
        &mut self,
        stdio: &mut Stdio,
        from: &mut Pipe,
        turn: &mut Turn<'_>,
    ) -> io::Result<usize> {
        if !from.is_open() || !from.is_empty() {
            return Ok(0);
        }
        loop {
            let Some(end) = self.typed.iter().position(|&byte| byte == b'\n') else {
                let mut space = [0; 4096];
                match unless_blocked(stdio.read(&mut space))? {
                    None => return Ok(0),
                    Some(0) => {
                        from.append(turn.pool, self.typed.trim_ascii());
                        if !self.typed.trim_ascii().is_empty() {
                            from.append(turn.pool, self.line_ends.bytes());
                        }
                        from.end();
                        return Ok(1);
                    }
                    Some(count) if self.typed.len() + count <= LINE_LIMIT => {
                        self.typed.extend_from_slice(&space[..count]);
                    }
                    Some(_) => {
                        let why = "a line is longer than 64 KiB; use a pipe for that much";
                        return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
                    }
                }
                continue;
            };
            let line: Vec<u8> = self.typed.drain(..=end).collect();
            match line.trim_ascii() {
                b"quit" => {
                    self.has_left = true;
                    return Ok(1);
                }
                b"" if self.line_ends == LineEnds::None => say(PROMPT),
                bare if self.line_ends == LineEnds::None => {
                    return Ok(from.append(turn.pool, bare));
                }
                _ => {
                    let bare = line.strip_suffix(b"\n").unwrap_or(&line);
                    let line = [bare, self.line_ends.bytes()].concat();
                    return Ok(from.append(turn.pool, &line));
                }
            }
        }
    }
}

/// Whether the first bytes of a server are as many as a gate's challenge, and no text.
fn looks_like_challenge(bytes: &[u8]) -> bool {
    let is_text = std::str::from_utf8(bytes)
        .is_ok_and(|text| !text.contains(|c: char| c.is_control() && !"\r\n\t\x1b".contains(c)));
    bytes.len() == CHALLENGE_LEN && !is_text
}

fn unless_blocked(outcome: io::Result<usize>) -> io::Result<Option<usize>> {
    match outcome {
        Ok(count) => Ok(Some(count)),
        Err(error)
            if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Talk goes to standard error, so that standard output holds only what the server sent.
fn say(text: &str) {
    output::say(text, Duration::ZERO);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_is_told_from_text() {
        let challenge: Vec<u8> =
            (0..32u8).map(|at| at.wrapping_mul(37).wrapping_add(130)).collect();
        assert!(looks_like_challenge(&challenge));
        assert!(!looks_like_challenge(&challenge[..31]));
        assert!(!looks_like_challenge(b"220 mail.example.org ESMTP 1234\n"));
        assert!(!looks_like_challenge("grüße, grüße, grüße, grüße\r\n".as_bytes()));
    }
}
