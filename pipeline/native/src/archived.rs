//! Blocks of the archive read back: every leaf hashed again, and what a comparison needs, packed.
//! Bytes from a store may be anything: what is not a datum is refused with its number.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use sha2::{Digest, Sha256};
use std::borrow::Cow;

use crate::seal::{leaf_hash, node_hash};
use crate::text::push_uuid;

const POSTGRES_EPOCH_US: i64 = 946_684_800_000_000;
const HASH_BYTES: usize = 32;
const LONG_BITS: u32 = 64;

/// Datums of one block, read from the front.
struct Datums<'b> {
    left: &'b [u8],
}

impl<'b> Datums<'b> {
    fn take(&mut self, count: usize) -> Option<&'b [u8]> {
        let (taken, left) = self.left.split_at_checked(count)?;
        self.left = left;
        Some(taken)
    }

    fn fixed<const N: usize>(&mut self) -> Option<&'b [u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn long(&mut self) -> Option<i64> {
        let (mut number, mut shift) = (0_u64, 0);
        loop {
            let [byte] = *self.fixed()?;
            // The tenth byte of a long has one bit.
            if shift >= LONG_BITS || (shift == 63 && byte > 1) {
                return None;
            }
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some((number >> 1) as i64 ^ -((number & 1) as i64));
            }
            shift += 7;
        }
    }

    fn bytes(&mut self) -> Option<&'b [u8]> {
        let length = usize::try_from(self.long()?).ok()?;
        self.take(length)
    }
}

/// What of a sealed event is compared: the rest is in its hash.
#[derive(Deserialize)]
struct Sealed<'e> {
    #[serde(borrow)]
    clear: Clear<'e>,
    sealed: Subjects,
}

#[derive(Deserialize)]
struct Clear<'e> {
    #[serde(borrow)]
    event_id: Cow<'e, str>,
    occurred_at: i64,
}

/// The subjects that an event has sealed values of, without the one that has no key.
struct Subjects(Vec<[u8; 16]>);

impl<'de> Deserialize<'de> for Subjects {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = Subjects;

            fn expecting(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                out.write_str("subjects")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Subjects, A::Error> {
                let mut found = Vec::new();
                while let Some((name, IgnoredAny)) = map.next_entry::<Cow<'de, str>, _>()? {
                    let subject_ref = parse_uuid(&name)
                        .ok_or_else(|| serde::de::Error::custom("not a subject_ref"))?;
                    if subject_ref != [0; 16] {
                        found.push(subject_ref);
                    }
                }
                Ok(Subjects(found))
            }
        }
        deserializer.deserialize_map(Names)
    }
}

/// The 16 bytes of a UUID in its usual lower-case text.
fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let mut digits = text.bytes().filter(|&byte| byte != b'-');
    let mut uuid = [0; 16];
    for byte in &mut uuid {
        let high = (digits.next()? as char).to_digit(16)?;
        let low = (digits.next()? as char).to_digit(16)?;
        *byte = (high << 4 | low) as u8;
    }
    let mut again = Vec::with_capacity(36);
    push_uuid(&mut again, &uuid);
    (again == text.as_bytes()).then_some(uuid)
}

#[derive(Default)]
struct Found {
    places: Vec<u8>,
    server: Vec<u8>,
    hashes: Vec<u8>,
    sealed: Vec<u8>,
    wrong: Vec<usize>,
}

fn push_time(out: &mut Vec<u8>, time_us: i64) -> Option<()> {
    out.extend_from_slice(&time_us.checked_sub(POSTGRES_EPOCH_US)?.to_be_bytes());
    Some(())
}

fn read_leaf(datums: &mut Datums<'_>, found: &mut Found, number: usize) -> Option<()> {
    let leaf = datums.long()?;
    let event_id = datums.fixed::<16>()?;
    let occurred_at_us = datums.long()?;
    found.places.extend_from_slice(&leaf.to_be_bytes());
    found.places.extend_from_slice(event_id);
    push_time(&mut found.places, occurred_at_us)?;
    let server = &mut found.server;
    push_time(server, datums.long()?)?;
    push_time(server, datums.long()?.checked_mul(1000)?)?;
    server.extend_from_slice(&i32::try_from(datums.long()?).ok()?.to_be_bytes());
    server.extend_from_slice(&datums.long()?.to_be_bytes());
    match datums.long()? {
        0 => server.extend_from_slice(&[0; 17]),
        1 => {
            server.push(1);
            server.extend_from_slice(datums.fixed::<16>()?);
        }
        _ => return None,
    }
    let stored = datums.fixed::<HASH_BYTES>()?;
    let canonical = datums.bytes()?;
    let hash = leaf_hash(canonical);
    found.hashes.extend_from_slice(&hash);
    if hash != *stored || !push_subjects(found, leaf, event_id, occurred_at_us, canonical) {
        found.wrong.push(number);
    }
    Some(())
}

/// Append the subjects of an event; `false`: it says another id or time than its datum.
fn push_subjects(
    found: &mut Found,
    leaf: i64,
    event_id: &[u8; 16],
    occurred_at_us: i64,
    canonical: &[u8],
) -> bool {
    let Ok(event) = serde_json::from_slice::<Sealed<'_>>(canonical) else { return false };
    let mut text = Vec::with_capacity(36);
    push_uuid(&mut text, event_id);
    if event.clear.event_id.as_bytes() != text || event.clear.occurred_at != occurred_at_us {
        return false;
    }
    for subject_ref in event.sealed.0 {
        found.sealed.extend_from_slice(&leaf.to_be_bytes());
        found.sealed.extend_from_slice(&subject_ref);
    }
    true
}

fn refused(number: usize) -> PyErr {
    PyValueError::new_err(format!("datum {number} of the block is malformed"))
}

fn left_over(datums: &Datums<'_>, count: usize) -> PyResult<()> {
    if datums.left.is_empty() { Ok(()) } else { Err(refused(count)) }
}

type Bytes<'py> = Bound<'py, PyBytes>;
type Packed<'py> = (Bytes<'py>, Bytes<'py>, Bytes<'py>, Bytes<'py>, Vec<usize>);

/// See `audit_native.pyi`.
#[pyfunction]
pub fn archived_leaves<'py>(py: Python<'py>, block: &[u8], count: usize) -> PyResult<Packed<'py>> {
    let found = py.detach(|| {
        let mut datums = Datums { left: block };
        let mut found = Found::default();
        for number in 0..count {
            read_leaf(&mut datums, &mut found, number).ok_or_else(|| refused(number))?;
        }
        left_over(&datums, count)?;
        Ok::<Found, PyErr>(found)
    })?;
    Ok((
        PyBytes::new(py, &found.places),
        PyBytes::new(py, &found.server),
        PyBytes::new(py, &found.hashes),
        PyBytes::new(py, &found.sealed),
        found.wrong,
    ))
}

fn read_blob(datums: &mut Datums<'_>, out: &mut Vec<u8>) -> Option<()> {
    out.extend_from_slice(&datums.long()?.to_be_bytes());
    out.extend_from_slice(datums.fixed::<16>()?);
    let mut digest = Sha256::new();
    digest.update(datums.fixed::<12>()?);
    digest.update(datums.bytes()?);
    out.extend_from_slice(&digest.finalize());
    Some(())
}

/// See `audit_native.pyi`.
#[pyfunction]
pub fn archived_blobs<'py>(
    py: Python<'py>,
    block: &[u8],
    count: usize,
) -> PyResult<Bound<'py, PyBytes>> {
    let out = py.detach(|| {
        let mut datums = Datums { left: block };
        let mut out = Vec::new();
        for number in 0..count {
            read_blob(&mut datums, &mut out).ok_or_else(|| refused(number))?;
        }
        left_over(&datums, count)?;
        Ok::<Vec<u8>, PyErr>(out)
    })?;
    Ok(PyBytes::new(py, &out))
}

/// As `outputs::parents`, of hashes one after the other.
#[pyfunction]
pub fn packed_parents<'py>(py: Python<'py>, hashes: &[u8]) -> Bound<'py, PyBytes> {
    let out = py.detach(|| {
        let pairs = hashes.chunks_exact(2 * HASH_BYTES);
        pairs.flat_map(|two| node_hash(&two[..HASH_BYTES], &two[HASH_BYTES..])).collect::<Vec<u8>>()
    });
    PyBytes::new(py, &out)
}
