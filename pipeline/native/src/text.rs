//! Texts as canonical JSON, times and UUIDs as the stores want them.

use std::io::Write;

const DAY_US: i64 = 86_400_000_000;

/// Append `text` as a JSON string. `false`: it may hold a control character, or is not UTF-8, and
/// the form in Python must look at it; what was appended is then of no meaning.
pub fn push_json_text(out: &mut Vec<u8>, text: &[u8]) -> bool {
    if std::str::from_utf8(text).is_err() {
        return false;
    }
    out.push(b'"');
    let mut plain = 0;
    for (at, &byte) in text.iter().enumerate() {
        match byte {
            b'"' | b'\\' => {
                out.extend_from_slice(&text[plain..at]);
                out.push(b'\\');
                plain = at;
            }
            0..=0x1f | 0x7f => return false,
            0xc2 if text[at + 1] < 0xa0 => return false, // C1: U+0080 to U+009F
            _ => {}
        }
    }
    out.extend_from_slice(&text[plain..]);
    out.push(b'"');
    true
}

/// Append `"name":` for a name that a schema gave.
pub fn json_name(name: &str) -> Vec<u8> {
    let mut out = serde_json::to_vec(name).unwrap_or_default();
    out.push(b':');
    out
}

pub fn push_number(out: &mut Vec<u8>, number: i64) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Year, month and day of a day since 1970-01-01.
/// Source: Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`.
fn civil(days: i64) -> (i64, u32, u32) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = (of_year - (153 * month + 2) / 5 + 1) as u32;
    let month = if month < 10 { month + 3 } else { month - 9 } as u32;
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// Append a UTC time with microseconds, as ISO 8601 writes it.
pub fn push_time(out: &mut Vec<u8>, time_us: i64) {
    let (year, month, day) = civil(time_us.div_euclid(DAY_US));
    let rest = time_us.rem_euclid(DAY_US);
    let (seconds, micros) = (rest / 1_000_000, rest % 1_000_000);
    let mut text = *b"0000-00-00T00:00:00.000000Z";
    digits(&mut text[0..4], year);
    digits(&mut text[5..7], i64::from(month));
    digits(&mut text[8..10], i64::from(day));
    digits(&mut text[11..13], seconds / 3600);
    digits(&mut text[14..16], seconds / 60 % 60);
    digits(&mut text[17..19], seconds % 60);
    digits(&mut text[20..26], micros);
    out.extend_from_slice(&text);
}

fn digits(out: &mut [u8], mut number: i64) {
    for place in out.iter_mut().rev() {
        *place = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// The month of a time, with `separator` between year and month.
pub fn push_month(out: &mut Vec<u8>, time_us: i64, separator: char) {
    let (year, month, _) = civil(time_us.div_euclid(DAY_US));
    let _ = write!(out, "{year:04}{separator}{month:02}");
}

pub fn push_hex(out: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for &byte in bytes {
        out.push(DIGITS[usize::from(byte >> 4)]);
        out.push(DIGITS[usize::from(byte & 15)]);
    }
}

pub fn push_uuid(out: &mut Vec<u8>, uuid: &[u8; 16]) {
    for (at, part) in
        [&uuid[..4], &uuid[4..6], &uuid[6..8], &uuid[8..10], &uuid[10..]].into_iter().enumerate()
    {
        if at > 0 {
            out.push(b'-');
        }
        push_hex(out, part);
    }
}

/// The 16 bytes of a UUID in its usual form, lower case; the nil UUID is none.
pub fn parse_uuid(text: &[u8]) -> Option<[u8; 16]> {
    if text.len() != 36 {
        return None;
    }
    let mut octets = [0; 16];
    let mut at = 0;
    for octet in &mut octets {
        if matches!(at, 8 | 13 | 18 | 23) {
            if text[at] != b'-' {
                return None;
            }
            at += 1;
        }
        *octet = hex(text[at])? << 4 | hex(text[at + 1])?;
        at += 2;
    }
    (octets != [0; 16]).then_some(octets)
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Two base64 letters for each 12 bits.
static PAIRS: [[u8; 2]; 4096] = {
    let mut pairs = [[0; 2]; 4096];
    let mut at = 0;
    while at < 4096 {
        pairs[at] = [LETTERS[at >> 6], LETTERS[at & 63]];
        at += 1;
    }
    pairs
};

/// Append standard base64 (RFC 4648 §4) of 32 bytes: 44 characters.
pub fn push_base64(out: &mut Vec<u8>, hash: &[u8; 32]) {
    let mut text = [b'='; 44];
    let (threes, rest) = hash.as_chunks::<3>();
    for (three, four) in threes.iter().zip(text.as_chunks_mut::<4>().0) {
        let high = usize::from(three[0]) << 4 | usize::from(three[1] >> 4);
        let low = usize::from(three[1] & 15) << 8 | usize::from(three[2]);
        four[..2].copy_from_slice(&PAIRS[high]);
        four[2..].copy_from_slice(&PAIRS[low]);
    }
    let high = usize::from(rest[0]) << 4 | usize::from(rest[1] >> 4);
    text[40..42].copy_from_slice(&PAIRS[high]);
    text[42] = LETTERS[usize::from(rest[1] & 15) << 2];
    out.extend_from_slice(&text);
}

/// Append a zig-zag Avro long.
pub fn push_long(out: &mut Vec<u8>, number: i64) {
    let mut rest = (number << 1 ^ number >> 63) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}
