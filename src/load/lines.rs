//! Text in lines that fit a terminal.

/// The narrowest that anything is made.
const NARROWEST: usize = 40;

/// What is written to.
#[derive(Clone, Debug)]
pub struct Page {
    /// What was written.
    pub text: String,
    /// How many columns a line may have.
    pub width: usize,
}

impl Page {
    /// An empty one of so many columns, but for very few.
    #[must_use]
    pub fn new(width: usize) -> Self {
        Self { text: String::new(), width: width.max(NARROWEST) }
    }

    /// Writes a sentence behind `head`, in lines that fit; those after the first are indented.
    pub fn wrap(&mut self, head: &str, indent: usize, sentence: &str) {
        self.text.push_str(head);
        let (mut width, mut is_first) = (head.chars().count(), true);
        for word in sentence.split_whitespace() {
            let mut word = word;
            if !is_first && width + 1 + word.chars().count() > self.width {
                self.break_line(indent);
                width = indent;
            } else if !is_first {
                self.text.push(' ');
                width += 1;
            }
            // What is longer than a line is cut: nothing is wider than the terminal.
            while width + word.chars().count() > self.width {
                let room = self.width - width;
                let cut = word.char_indices().nth(room).map_or(word.len(), |(at, _)| at);
                self.text.push_str(&word[..cut]);
                word = &word[cut..];
                self.break_line(indent);
                width = indent;
            }
            self.text.push_str(word);
            width += word.chars().count();
            is_first = false;
        }
        self.text.push('\n');
    }

    fn break_line(&mut self, indent: usize) {
        self.text.push('\n');
        self.text.extend(std::iter::repeat_n(' ', indent));
    }
}
