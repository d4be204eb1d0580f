//! What a [reader](super::framing) of replies says of the bytes that it is fed.

/// What of the bytes belongs to the reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fed {
    /// So many, from the first on.
    pub taken: usize,
    /// Whether that is all of it.
    pub is_whole: bool,
}

/// What came cannot be a reply: one sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub String);

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Where the replies in `stream` end, fed in pieces that `cuts` give the lengths of.
    pub(in crate::load) fn ends(
        mut feed: impl FnMut(&[u8]) -> Result<Fed, Malformed>,
        stream: &[u8],
        cuts: &[usize],
    ) -> Result<Vec<usize>, Malformed> {
        let (mut at, mut ends, mut cuts) = (0, Vec::new(), cuts.iter().cycle());
        while at < stream.len() {
            let upto = stream.len().min(at + cuts.next().map_or(1, |cut| (*cut).max(1)));
            while at < upto {
                let fed = feed(&stream[at..upto])?;
                at += fed.taken;
                if fed.is_whole {
                    ends.push(at);
                } else {
                    assert_eq!(at, upto, "what is not whole takes all");
                }
            }
        }
        Ok(ends)
    }
}
