//! Commitments, blobs and canonical bytes of one event (RFC.md §3).

use aes_gcm::Aes256Gcm;
use aes_gcm::aead::{AeadInOut, Nonce};
use blake2b_simd::many::{HashManyJob, hash_many};
use sha2::{Digest, Sha256};
use std::ops::Range;
use std::sync::Arc;

use crate::decode::Event;
use crate::event::Blob;
use crate::owners::Owned;
use crate::program::Program;
use crate::ring::Key;
use crate::text::push_base64;

/// Fresh random bytes, drawn from the system many at a time, within one call: a child process
/// never draws what its parent draws.
pub struct Nonces {
    drawn: Vec<u8>,
}

impl Nonces {
    pub fn new() -> Self {
        Nonces { drawn: Vec::new() }
    }

    fn next(&mut self) -> Option<[u8; 12]> {
        if self.drawn.len() < 12 {
            self.drawn.resize(12 * 256, 0);
            if getrandom::fill(&mut self.drawn).is_err() {
                self.drawn.clear(); // what was not filled is zeros
                return None;
            }
        }
        let nonce = self.drawn.split_off(self.drawn.len() - 12);
        nonce.try_into().ok()
    }
}

/// Append the JSON object of some of the event's values.
pub fn push_object(out: &mut Vec<u8>, program: &Program, event: &Event, values: Range<usize>) {
    out.push(b'{');
    for (at, entry) in event.entries[values].iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        out.extend_from_slice(&program.paths[entry.path as usize].name);
        out.extend_from_slice(event.json_of(entry));
    }
    out.push(b'}');
}

/// Append `"ref":{path: commitment, …}`.
fn push_commitments(
    out: &mut Vec<u8>,
    program: &Program,
    event: &mut Event,
    values: Range<usize>,
    key: &Key,
    event_id: &[u8; 16],
) {
    let mut params = blake2b_simd::Params::new();
    params.hash_length(32);
    let event_key = params.clone().key(key.commit_key.as_slice()).hash(event_id);
    params.key(event_key.as_bytes());
    let entries = &event.entries[values];
    let messages = &mut event.messages;
    messages.clear();
    for entry in entries {
        messages.extend_from_slice(program.paths[entry.path as usize].path.as_bytes());
        messages.push(0);
        messages.extend_from_slice(&event.json[entry.start as usize..entry.end as usize]);
    }
    let mut start = 0;
    let mut jobs: Vec<HashManyJob> = entries
        .iter()
        .map(|entry| {
            let path = program.paths[entry.path as usize].path.len();
            let end = start + path + 1 + (entry.end - entry.start) as usize;
            let job = HashManyJob::new(&params, &messages[start..end]);
            start = end;
            job
        })
        .collect();
    hash_many(jobs.iter_mut());
    out.extend_from_slice(&key.quoted_ref);
    out.extend_from_slice(b":{");
    for (at, (entry, job)) in entries.iter().zip(&jobs).enumerate() {
        if at > 0 {
            out.push(b',');
        }
        out.extend_from_slice(&program.paths[entry.path as usize].name);
        out.push(b'"');
        let mut hash = [0; 32];
        hash.copy_from_slice(job.to_hash().as_bytes());
        push_base64(out, &hash);
        out.push(b'"');
    }
    out.push(b'}');
}

/// Append an event's canonical bytes; `keys` are those of the owners, in their order.
pub fn push_canonical(
    out: &mut Vec<u8>,
    program: &Program,
    event: &mut Event,
    owned: &[Owned],
    keys: &[Arc<Key>],
    event_id: &[u8; 16],
) {
    out.extend_from_slice(b"{\"clear\":");
    push_object(out, program, event, event.range_of(program, None));
    out.extend_from_slice(b",\"family\":\"");
    out.extend_from_slice(program.family.as_bytes());
    out.extend_from_slice(b"\",\"sealed\":{");
    let mut written = 0;
    let mut last: Option<[u8; 16]> = None;
    // In the order of the refs: few, so that looking for the next one is quicker than sorting.
    while let Some(at) = (0..owned.len())
        .filter(|&at| last.is_none_or(|last| keys[at].subject_ref > last))
        .min_by_key(|&at| keys[at].subject_ref)
    {
        if written > 0 {
            out.push(b',');
        }
        written += 1;
        last = Some(keys[at].subject_ref);
        push_commitments(out, program, event, owned[at].values.clone(), &keys[at], event_id);
    }
    out.extend_from_slice(b"},\"v\":1}");
}

pub fn leaf_hash(canonical: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update([0]);
    hash.update(canonical);
    hash.finalize().into()
}

/// RFC 6962 §2.1: SHA-256(0x01 ‖ left ‖ right).
pub fn node_hash(left: &[u8], right: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update([1]);
    hash.update(left);
    hash.update(right);
    hash.finalize().into()
}

/// Append the plain values of one subject, and their blob.
pub fn push_blob(
    out: &mut Vec<u8>,
    program: &Program,
    event: &Event,
    values: Range<usize>,
    key: &Key,
    event_id: &[u8; 16],
    nonces: &mut Nonces,
) -> Option<Blob> {
    let start = out.len();
    push_object(out, program, event, values);
    let middle = out.len();
    out.extend_from_within(start..middle);
    let nonce = nonces.next()?;
    let mut data = [0; 32];
    data[..16].copy_from_slice(event_id);
    data[16..].copy_from_slice(&key.subject_ref);
    let fresh = Nonce::<Aes256Gcm>::from(nonce);
    let tag = key.cipher.encrypt_inout_detached(&fresh, &data, (&mut out[middle..]).into()).ok()?;
    out.extend_from_slice(&tag);
    Some(Blob {
        subject_ref: key.subject_ref,
        nonce,
        ciphertext: middle as u32..out.len() as u32,
        plain: start as u32..middle as u32,
    })
}
