//! The terminal, or whatever standard input and output are, as the local end of a session.
//!
//! On a terminal it is a conversation: a prompt, a line that is sent without its newline, the reply,
//! the prompt again; `quit` leaves. From a pipe or a file, bytes go as they are: all of the input,
//! then the end of the stream; and all that comes back is printed.

use std::io::{self, Write};

use crate::net::stdio::Stdio;
use crate::proto::end::{End, Progress, Turn};
use crate::proto::pipe::Pipe;

/// What asks for the next line.
pub const PROMPT: &str = ">>: ";

/// The longest line that a person may type, in bytes; a terminal in its usual mode passes 4,095.
const LINE_LIMIT: usize = 64 * 1024;

/// Standard input and output, and what has been typed.
pub struct Terminal {
    stdio: Stdio,
    conversation: Option<Conversation>,
    was_cut_off: bool,
    /// Whether standard output takes nothing more for now.
    is_held_up: bool,
}

/// A conversation with a person.
struct Conversation {
    /// What was typed of the next line.
    typed: Vec<u8>,
    /// Whether the prompt is to be shown (again).
    prompt_is_due: bool,
    /// Whether the cursor stands where a line begins, as far as the server's replies tell.
    at_line_start: bool,
    has_left: bool,
}

impl Terminal {
    /// Talks to a person where `is_conversation`, else to a program.
    #[must_use]
    pub fn new(stdio: Stdio, is_conversation: bool) -> Self {
        let conversation = is_conversation.then(Conversation::new);
        Self { stdio, conversation, was_cut_off: false, is_held_up: false }
    }

    /// Whether the server ended the conversation while there could have been more to say.
    #[must_use]
    pub fn was_cut_off(&self) -> bool {
        self.was_cut_off
    }

    fn print(&mut self, to: &mut Pipe, turn: &mut Turn<'_>) -> io::Result<usize> {
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
            self.is_held_up = !to.is_empty();
        }
        if to.is_drained() {
            // The server has gone, and nobody would hear what is still typed.
            self.was_cut_off = from.is_open();
            return Ok(Progress::Done);
        }
        match &mut self.conversation {
            None => moved += self.pass(from, turn)?,
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

    fn has_sent_all(&self) -> bool {
        !self.is_held_up
    }
}

impl Conversation {
    fn new() -> Self {
        Self { typed: Vec::new(), prompt_is_due: true, at_line_start: true, has_left: false }
    }

    fn show_prompt(&mut self) {
        if self.prompt_is_due {
            let line_end = if self.at_line_start { "" } else { "\n" };
            self.prompt_is_due = false;
            say(line_end);
            say(PROMPT);
        }
    }

    /// Sends the next line that is not blank. One at a time: each goes in a segment of its own, so
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
                b"" => say(PROMPT),
                b"quit" => {
                    self.has_left = true;
                    return Ok(1);
                }
                line => return Ok(from.append(turn.pool, line)),
            }
        }
    }
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
    let _ = io::stderr().write_all(text.as_bytes());
}
