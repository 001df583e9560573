//! Sealed events in the forms that ledger, index and archive take, many at a time.

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

use crate::event::SealedEvent;
use crate::seal::node_hash;
use crate::text::{push_long, push_month, push_number, push_time, push_uuid};

const POSTGRES_EPOCH_US: i64 = 946_684_800_000_000;

/// The events of a list, all of this module's class.
fn events<'l, 'py>(
    list: &'l [Bound<'py, SealedEvent>],
) -> impl Iterator<Item = &'l SealedEvent> + use<'l, 'py> {
    list.iter().map(Bound::get)
}

/// How many events at the beginning of a list are of this module's class.
#[pyfunction]
pub fn leading(list: &Bound<'_, PyList>) -> usize {
    list.iter().take_while(|each| each.cast::<SealedEvent>().is_ok()).count()
}

fn field(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
    out.extend_from_slice(bytes);
}

fn time(out: &mut Vec<u8>, time_us: i64) {
    field(out, &(time_us - POSTGRES_EPOCH_US).to_be_bytes());
}

/// Rows of `audit_logs` for COPY (FORMAT BINARY); without a time, each event keeps its own.
#[pyfunction]
#[pyo3(signature = (list, log_id, first_leaf, stored_at_us, late_after_us))]
pub fn event_rows<'py>(
    py: Python<'py>,
    list: Vec<Bound<'py, SealedEvent>>,
    log_id: i32,
    first_leaf: i64,
    stored_at_us: Option<i64>,
    late_after_us: i64,
) -> Bound<'py, PyBytes> {
    let mut out = Vec::with_capacity(list.len() * 1400);
    for (event, leaf) in events(&list).zip(first_leaf..) {
        let stored = stored_at_us.unwrap_or_else(|| event.stored_at());
        out.extend_from_slice(&18_u16.to_be_bytes());
        field(&mut out, &leaf.to_be_bytes());
        field(&mut out, &event.offset.to_be_bytes());
        time(&mut out, event.occurred_at_us);
        time(&mut out, stored);
        time(&mut out, event.broker_timestamp_ms * 1000);
        field(&mut out, &event.event_id);
        field(&mut out, &log_id.to_be_bytes());
        field(&mut out, &event.schema_id.to_be_bytes());
        field(&mut out, &[u8::from(stored - event.occurred_at_us > late_after_us)]);
        field(&mut out, &[0]); // imported events are never of this class
        match &event.actor_ref {
            Some(actor_ref) => field(&mut out, actor_ref),
            None => out.extend_from_slice(&(-1_i32).to_be_bytes()),
        }
        out.extend_from_slice(event.part(&event.parts.texts));
        field(&mut out, event.part(&event.parts.canonical));
    }
    PyBytes::new(py, &out)
}

/// Rows of `leaves`.
#[pyfunction]
pub fn leaf_rows<'py>(
    py: Python<'py>,
    list: Vec<Bound<'py, SealedEvent>>,
    log_id: i32,
    first_leaf: i64,
) -> Bound<'py, PyBytes> {
    let mut out = Vec::with_capacity(list.len() * 96);
    for (event, leaf) in events(&list).zip(first_leaf..) {
        out.extend_from_slice(&5_u16.to_be_bytes());
        field(&mut out, &leaf.to_be_bytes());
        time(&mut out, event.occurred_at_us);
        field(&mut out, &log_id.to_be_bytes());
        field(&mut out, &event.event_id);
        field(&mut out, &event.leaf_hash);
    }
    PyBytes::new(py, &out)
}

/// Rows of `audit_blobs`.
#[pyfunction]
pub fn blob_rows<'py>(
    py: Python<'py>,
    list: Vec<Bound<'py, SealedEvent>>,
    log_id: i32,
    first_leaf: i64,
) -> Bound<'py, PyBytes> {
    let mut out = Vec::with_capacity(list.len() * 256);
    for (event, leaf) in events(&list).zip(first_leaf..) {
        for blob in &event.blobs {
            out.extend_from_slice(&6_u16.to_be_bytes());
            field(&mut out, &leaf.to_be_bytes());
            time(&mut out, event.occurred_at_us);
            field(&mut out, &blob.subject_ref);
            field(&mut out, &log_id.to_be_bytes());
            field(&mut out, &blob.nonce);
            field(&mut out, event.part(&blob.ciphertext));
        }
    }
    PyBytes::new(py, &out)
}

/// Append a document with its gaps filled.
fn push_filled(out: &mut Vec<u8>, event: &SealedEvent, log: &str, leaf: i64, late_after_us: i64) {
    let parts = &event.parts;
    let stored = event.stored_at();
    let mut gaps = [(parts.late, 0), (parts.leaf_index, 1), (parts.log, 2), (parts.ingested, 3)];
    gaps.sort_unstable();
    let mut from = parts.document.start;
    for (at, what) in gaps {
        out.extend_from_slice(event.part(&(from..at)));
        from = at;
        match what {
            0 if stored - event.occurred_at_us > late_after_us => out.extend_from_slice(b"true"),
            0 => out.extend_from_slice(b"false"),
            1 => push_number(out, leaf),
            2 => {
                out.push(b'"');
                out.extend_from_slice(log.as_bytes());
                out.push(b'"');
            }
            _ => {
                out.push(b'"');
                push_time(out, stored);
                out.push(b'"');
            }
        }
    }
    out.extend_from_slice(event.part(&(from..parts.document.end)));
}

/// The part of a bulk body that has these events, at least one, up to about `max_bytes`; and how
/// many of them it has.
#[pyfunction]
pub fn bulk_lines<'py>(
    py: Python<'py>,
    list: Vec<Bound<'py, SealedEvent>>,
    log: &str,
    first_leaf: i64,
    prefix: &str,
    late_after_us: i64,
    max_bytes: usize,
) -> (Bound<'py, PyBytes>, usize) {
    let mut out = Vec::with_capacity(max_bytes + 4096);
    let mut taken = 0;
    for (event, leaf) in events(&list).zip(first_leaf..) {
        out.extend_from_slice(b"{\"create\":{\"_index\":\"");
        out.extend_from_slice(prefix.as_bytes());
        out.push(b'-');
        push_month(&mut out, event.occurred_at_us, '.');
        out.extend_from_slice(b"\",\"_id\":\"");
        push_uuid(&mut out, &event.event_id);
        out.extend_from_slice(b"\"}}\n");
        push_filled(&mut out, event, log, leaf, late_after_us);
        out.push(b'\n');
        taken += 1;
        if out.len() >= max_bytes {
            break;
        }
    }
    (PyBytes::new(py, &out), taken)
}

/// Datums of the archive's schema of leaves, one after the other.
#[pyfunction]
pub fn leaf_datums<'py>(
    py: Python<'py>,
    list: Vec<Bound<'py, SealedEvent>>,
    first_leaf: i64,
) -> Bound<'py, PyBytes> {
    let mut out = Vec::with_capacity(list.len() * 1400);
    for (event, leaf) in events(&list).zip(first_leaf..) {
        push_long(&mut out, leaf);
        out.extend_from_slice(&event.event_id);
        push_long(&mut out, event.occurred_at_us);
        push_long(&mut out, event.stored_at());
        push_long(&mut out, event.broker_timestamp_ms);
        push_long(&mut out, i64::from(event.schema_id));
        push_long(&mut out, event.offset);
        match &event.actor_ref {
            Some(actor_ref) => {
                out.push(2);
                out.extend_from_slice(actor_ref);
            }
            None => out.push(0),
        }
        out.extend_from_slice(&event.leaf_hash);
        let canonical = event.part(&event.parts.canonical);
        push_long(&mut out, canonical.len() as i64);
        out.extend_from_slice(canonical);
    }
    PyBytes::new(py, &out)
}

/// Datums of the archive's schema of blobs, how many they are, and the subjects that they name.
#[pyfunction]
pub fn blob_datums<'py>(
    py: Python<'py>,
    list: Vec<Bound<'py, SealedEvent>>,
    first_leaf: i64,
) -> (Bound<'py, PyBytes>, usize, Vec<Bound<'py, PyBytes>>) {
    let mut out = Vec::with_capacity(list.len() * 256);
    let mut refs = std::collections::HashSet::new();
    let mut count = 0;
    for (event, leaf) in events(&list).zip(first_leaf..) {
        for blob in &event.blobs {
            push_long(&mut out, leaf);
            out.extend_from_slice(&blob.subject_ref);
            out.extend_from_slice(&blob.nonce);
            push_long(&mut out, blob.ciphertext.len() as i64);
            out.extend_from_slice(event.part(&blob.ciphertext));
            refs.insert(blob.subject_ref);
            count += 1;
        }
    }
    let refs = refs.iter().map(|subject_ref| PyBytes::new(py, subject_ref)).collect();
    (PyBytes::new(py, &out), count, refs)
}

/// SHA-256(0x01 ‖ left ‖ right) of each pair of hashes: a level of a Merkle tree (RFC 6962 §2.1).
#[pyfunction]
pub fn parents<'py>(py: Python<'py>, hashes: Vec<Bound<'py, PyBytes>>) -> Vec<Bound<'py, PyBytes>> {
    hashes
        .chunks_exact(2)
        .map(|two| PyBytes::new(py, &node_hash(two[0].as_bytes(), two[1].as_bytes())))
        .collect()
}
