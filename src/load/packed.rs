//! Histograms as text, and back, whoever wrote them.
//!
//! What is read may come from anywhere, and says itself how large it is. So its head is looked at before
//! anything is allocated by it, and what it unfolds to is bounded.

use std::io::Read;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::read::ZlibDecoder;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2DeflateSerializer};

use super::statistics::new_histogram;

/// What HdrHistogram's V2 form begins with, and its compressed form.
const COOKIE: u32 = 0x1c84_9313;
const COMPRESSED_COOKIE: u32 = 0x1c84_9314;

/// How long the head of the V2 form is.
const HEAD: usize = 40;

/// How much a histogram may unfold to: three digits of all times up to an hour take a tenth of it, even
/// where no two of them are alike.
const LONGEST: usize = 1 << 20;

/// The largest count or sum of counts: all that JSON's numbers hold exactly.
pub const MOST: u64 = 1 << 53;

/// A histogram as text: HdrHistogram's V2 form, compressed, in base 64.
///
/// # Panics
/// Never: a histogram goes into memory.
#[must_use]
pub fn pack(histogram: &Histogram<u64>) -> String {
    let mut bytes = Vec::new();
    V2DeflateSerializer::new()
        .serialize(histogram, &mut bytes)
        .expect("a histogram goes into memory");
    STANDARD.encode(bytes)
}

/// Reads what [`pack`] wrote.
///
/// # Errors
/// The text is damaged: how.
pub fn unpack(text: &str) -> Result<Histogram<u64>, String> {
    if text.len() > LONGEST * 2 {
        return Err("it is too long".to_owned());
    }
    read_histogram(&STANDARD.decode(text).map_err(|error| error.to_string())?)
}

/// Reads any form of HdrHistogram's V2 into a histogram that can be added to all others here.
///
/// # Errors
/// The bytes are damaged, or say of themselves what cannot be: how.
pub fn read_histogram(bytes: &[u8]) -> Result<Histogram<u64>, String> {
    let flat = unfold(bytes)?;
    check_head(&flat)?;
    check_counts(&flat[HEAD..])?;
    let read: Histogram<u64> =
        Deserializer::new().deserialize(&mut &flat[..]).map_err(|error| error.to_string())?;
    let mut whole = new_histogram();
    whole.add(&read).map_err(|error| error.to_string())?;
    Ok(whole)
}

fn unfold(bytes: &[u8]) -> Result<Vec<u8>, String> {
    match number(bytes, 0)? {
        COOKIE => Ok(bytes.to_vec()),
        COMPRESSED_COOKIE => {
            let folded = bytes.get(8..).unwrap_or_default();
            let mut flat = Vec::new();
            let limit = LONGEST as u64 + 1;
            let unfolded = ZlibDecoder::new(folded).take(limit).read_to_end(&mut flat);
            unfolded.map_err(|error| format!("it cannot be unfolded: {error}"))?;
            if flat.len() > LONGEST {
                return Err(format!("it unfolds to more than {LONGEST} bytes"));
            }
            Ok(flat)
        }
        _ => Err("it does not begin as HdrHistogram's V2 form does".to_owned()),
    }
}

/// The head says how much is to be allocated.
fn check_head(flat: &[u8]) -> Result<(), String> {
    if flat.len() < HEAD || number(flat, 0)? != COOKIE {
        return Err("its head is cut off".to_owned());
    }
    let (payload, digits) = (number(flat, 4)? as usize, number(flat, 12)?);
    if payload != flat.len() - HEAD {
        let there = flat.len() - HEAD;
        return Err(format!("it says that it has {payload} bytes of counts, and has {there}"));
    }
    if digits > 3 {
        return Err(format!("it has {digits} significant digits, and 3 is the most"));
    }
    Ok(())
}

/// The counts are zigzag varints; one below zero stands for so many zeros.
fn check_counts(mut rest: &[u8]) -> Result<(), String> {
    let (mut places, mut sum) = (0u64, 0u64);
    while !rest.is_empty() {
        let mut value = 0u64;
        let mut length = 0;
        loop {
            let byte = *rest.get(length).ok_or("its counts are cut off")?;
            let bits = if length == 8 { byte } else { byte & 0x7f };
            value |= u64::from(bits) << (7 * length);
            length += 1;
            if length == 9 || byte < 0x80 {
                break;
            }
        }
        rest = &rest[length..];
        let (magnitude, is_zeros) = ((value >> 1) + (value & 1), value & 1 == 1);
        if magnitude > MOST {
            return Err("one of its counts is too large".to_owned());
        }
        places += if is_zeros { magnitude } else { 1 };
        sum += if is_zeros { 0 } else { magnitude };
        if places > LONGEST as u64 || sum > MOST {
            return Err("it has more counts than it can have".to_owned());
        }
    }
    Ok(())
}

fn number(bytes: &[u8], at: usize) -> Result<u32, String> {
    let four = bytes.get(at..at + 4).ok_or("it is cut off")?;
    Ok(u32::from_be_bytes(four.try_into().expect("four bytes")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn head(payload: u32, digits: u32, highest: u64) -> Vec<u8> {
        let mut head = COOKIE.to_be_bytes().to_vec();
        head.extend(payload.to_be_bytes());
        head.extend(0u32.to_be_bytes());
        head.extend(digits.to_be_bytes());
        head.extend(1u64.to_be_bytes());
        head.extend(highest.to_be_bytes());
        head.extend(1f64.to_be_bytes());
        head
    }

    #[test]
    fn a_head_that_lies_is_refused_before_anything_is_allocated() {
        for (head, why) in [
            (head(0xc000_0000, 3, 3_600_000_000_000), "says that it has 3221225472 bytes"),
            (head(0, 5, u64::MAX), "5 significant digits"),
            (COOKIE.to_be_bytes().to_vec(), "head is cut off"),
            (vec![1, 2, 3, 4], "does not begin"),
            (vec![1], "cut off"),
        ] {
            let error = read_histogram(&head).expect_err(why);
            assert!(error.contains(why), "{error}");
        }
        read_histogram(&head(0, 3, u64::MAX / 2)).expect("a wide range is none that harms");
    }

    #[test]
    fn what_unfolds_to_too_much_is_refused() {
        let mut folded = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        std::io::Write::write_all(&mut folded, &vec![0; 64 << 20]).expect("into memory");
        let folded = folded.finish().expect("into memory");
        let mut bytes = COMPRESSED_COOKIE.to_be_bytes().to_vec();
        bytes.extend((folded.len() as u32).to_be_bytes());
        bytes.extend(folded);
        let error = read_histogram(&bytes).expect_err("too much");
        assert!(error.contains("unfolds to more than"), "{error}");
    }

    #[test]
    fn a_run_of_zeros_without_end_is_refused() {
        for payload in [&[0xff; 9][..], &[0x80], &[0xfe; 9]] {
            let mut bytes = head(payload.len() as u32, 3, 3_600_000_000_000);
            bytes.extend(payload);
            assert!(read_histogram(&bytes).is_err(), "{payload:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_packed_is_unpacked(times in prop::collection::vec(0u64..u64::MAX, 0..300)) {
            let mut histogram = new_histogram();
            times.iter().for_each(|time| histogram.saturating_record(*time));
            prop_assert_eq!(unpack(&pack(&histogram)).expect("our own"), histogram);
        }

        #[test]
        fn no_bytes_are_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), digits in 0u32..9) {
            let mut all = head(bytes.len() as u32, digits, 3_600_000_000_000);
            all.extend(&bytes);
            let _ = read_histogram(&all);
            let _ = read_histogram(&bytes);
        }
    }
}
