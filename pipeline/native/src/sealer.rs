//! From records to sealed events: decode, judge, seal, and the forms that the stores take.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString};
use std::collections::HashMap;
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, PoisonError, RwLock};

use crate::compiled::CompiledProgram;
use crate::decode::{Event, decode};
use crate::document::{Facts, push_document};
use crate::event::{Parts, SealedEvent};
use crate::owners::{Owned, Tenants, owners};
use crate::program::Program;
use crate::ring::{Key, KeyRing, Keys, touch};
use crate::seal::{Nonces, leaf_hash, push_blob, push_canonical};
use crate::text::parse_uuid;

const HEADER_BYTES: usize = 5;
/// PostgreSQL and `date_nanos` both end before the year 2262.
const LAST_US: i64 = 9_214_646_400_000_000;

/// How far `occurred_at` may lie from the broker's time.
struct Horizon {
    future_us: i64,
    retention_us: i64,
}

#[pyclass(frozen, module = "pipeline.native")]
pub struct Sealer {
    ring: Py<KeyRing>,
    tenants: RwLock<Arc<Tenants>>,
    horizon: Horizon,
    event_max_bytes: usize,
}

/// What became of one record.
enum Fate {
    Sealed(Box<SealedEvent>),
    /// Accepted so far; these subjects' keys are not in memory.
    Waits(i64, Vec<Vec<u8>>),
    /// For the form in Python.
    Left,
}

struct Given<'a> {
    value: &'a [u8],
    offset: i64,
    timestamp_ms: i64,
}

#[pymethods]
impl Sealer {
    #[new]
    fn new(ring: Py<KeyRing>, future_us: i64, retention_us: i64, event_max_bytes: usize) -> Self {
        let horizon = Horizon { future_us, retention_us };
        Sealer { ring, tenants: RwLock::default(), horizon, event_max_bytes }
    }

    fn know_tenants(&self, tenants: Vec<String>) {
        let known = Arc::new(tenants.into_iter().map(String::into_bytes).collect());
        *self.tenants.write().unwrap_or_else(PoisonError::into_inner) = known;
    }

    /// For each record its sealed event; or `(occurred_at_us, [(tenant, id type, id), …])` if keys
    /// are not in memory; or `None`, for the form in Python. And whether every record was sealed.
    fn seal<'py>(
        &self,
        py: Python<'py>,
        programs: &Bound<'py, PyDict>,
        records: &Bound<'py, PyAny>,
    ) -> PyResult<(Bound<'py, PyList>, bool)> {
        let by_id: HashMap<u32, Py<CompiledProgram>> = programs.extract()?;
        let ring = self.ring.get().read();
        // The lock is not held while Python is called: see `KeyRing`.
        let tenants = self.tenants.read().unwrap_or_else(PoisonError::into_inner).clone();
        let mut held = Vec::new();
        for record in records.try_iter()? {
            let record = record?;
            let offset: i64 = record.getattr(intern!(py, "offset"))?.extract()?;
            let timestamp_ms: i64 = record.getattr(intern!(py, "timestamp"))?.extract()?;
            held.push((record.getattr(intern!(py, "value"))?, offset, timestamp_ms));
        }
        let mut work = Work {
            py,
            tenants: &tenants,
            keys: &ring,
            horizon: &self.horizon,
            event: Event::default(),
            nonces: Nonces::new(),
            out: Vec::new(),
        };
        let fates = PyList::empty(py);
        let mut all_sealed = true;
        for (value, offset, timestamp_ms) in &held {
            let bytes = value.cast::<PyBytes>().map(|bytes| bytes.as_bytes()).unwrap_or_default();
            let given = Given { value: bytes, offset: *offset, timestamp_ms: *timestamp_ms };
            let fate = match self.program(&by_id, bytes) {
                Some((schema_id, program)) => work.record(program.get(), schema_id, &given)?,
                None => Fate::Left,
            };
            all_sealed &= matches!(fate, Fate::Sealed(_));
            match fate {
                Fate::Sealed(event) => fates.append(Bound::new(py, *event)?)?,
                Fate::Left => fates.append(py.None())?,
                Fate::Waits(occurred_at_us, names) => {
                    let subjects = PyList::empty(py);
                    for name in names {
                        let parts: Vec<_> = name
                            .splitn(3, |&byte| byte == 0x1f)
                            .map(|part| PyString::new(py, &String::from_utf8_lossy(part)))
                            .collect();
                        subjects.append(pyo3::types::PyTuple::new(py, parts)?)?;
                    }
                    fates.append((occurred_at_us, subjects))?;
                }
            }
        }
        Ok((fates, all_sealed))
    }
}

impl Sealer {
    fn program<'m>(
        &self,
        by_id: &'m HashMap<u32, Py<CompiledProgram>>,
        value: &[u8],
    ) -> Option<(u32, &'m Py<CompiledProgram>)> {
        if value.len() < HEADER_BYTES
            || value.len() > HEADER_BYTES + self.event_max_bytes
            || value[0] != 0
        {
            return None;
        }
        let schema_id = u32::from_be_bytes([value[1], value[2], value[3], value[4]]);
        by_id.get(&schema_id).map(|program| (schema_id, program))
    }
}

struct Work<'w, 'py, 'a> {
    py: Python<'py>,
    tenants: &'w Tenants,
    keys: &'w Keys,
    horizon: &'w Horizon,
    event: Event<'a>,
    nonces: Nonces,
    out: Vec<u8>,
}

impl<'a> Work<'_, '_, 'a> {
    fn record(
        &mut self,
        compiled: &'a CompiledProgram,
        schema_id: u32,
        given: &Given<'a>,
    ) -> PyResult<Fate> {
        let program: &'a Program = &compiled.program;
        if decode(program, &given.value[HEADER_BYTES..], &mut self.event).is_none() {
            return Ok(Fate::Left);
        }
        let Some((event_id, occurred_at_us, owned)) = self.judge(program, given) else {
            return Ok(Fate::Left);
        };
        let mut keys: Vec<Arc<Key>> = Vec::with_capacity(owned.len());
        for each in &owned {
            if let Some(key) = self.keys.get(each.name.as_slice()) {
                if occurred_at_us <= key.erased_until_us {
                    return Ok(Fate::Left);
                }
                touch(key);
                keys.push(key.clone());
            }
        }
        if keys.len() < owned.len() {
            let names = owned.into_iter().map(|each| each.name).collect();
            return Ok(Fate::Waits(occurred_at_us, names));
        }
        let Ok(schema_id) = i32::try_from(schema_id) else { return Ok(Fate::Left) };
        let head = compiled.head(self.py, &self.event)?;
        let mut sealed = SealedEvent {
            program: compiled.program.clone(),
            bytes: Box::default(),
            parts: Parts::default(),
            event_id,
            leaf_hash: [0; 32],
            actor_ref: None,
            occurred_at_us,
            offset: given.offset,
            broker_timestamp_ms: given.timestamp_ms,
            schema_id,
            stored_at_us: AtomicI64::new(0),
            blobs: Vec::with_capacity(owned.len()),
        };
        Ok(match self.fill(program, &owned, &keys, &head, &mut sealed) {
            Some(()) => Fate::Sealed(Box::new(sealed)),
            None => Fate::Left,
        })
    }

    /// What Avro cannot state; `None` leaves the verdict to the form in Python.
    fn judge(
        &mut self,
        program: &'a Program,
        given: &Given,
    ) -> Option<([u8; 16], i64, Vec<Owned>)> {
        let roles = &program.roles;
        let event_id = parse_uuid(self.event.find(roles.event_id)?.text)?;
        let tenant = self.event.find(roles.tenant)?.text;
        let occurred_at_us = self.event.find(roles.occurred_at)?.number;
        let broker_us = given.timestamp_ms.checked_mul(1000)?;
        let is_imported = self.event.find(roles.imported)?.number != 0;
        if is_imported
            || !self.tenants.contains(tenant)
            || occurred_at_us > broker_us.checked_add(self.horizon.future_us)?
            || occurred_at_us > LAST_US
            || occurred_at_us < broker_us.checked_sub(self.horizon.retention_us)?
            || occurred_at_us < 0
        {
            return None;
        }
        let owned = owners(program, &mut self.event, self.tenants, tenant, occurred_at_us)?;
        Some((event_id, occurred_at_us, owned))
    }

    fn fill(
        &mut self,
        program: &Program,
        owned: &[Owned],
        keys: &[Arc<Key>],
        head: &[u8],
        sealed: &mut SealedEvent,
    ) -> Option<()> {
        let mut out = std::mem::take(&mut self.out);
        out.clear();
        let filled = self.write(program, owned, keys, head, sealed, &mut out);
        sealed.bytes = out.as_slice().into();
        self.out = out;
        filled
    }

    fn write(
        &mut self,
        program: &Program,
        owned: &[Owned],
        keys: &[Arc<Key>],
        head: &[u8],
        sealed: &mut SealedEvent,
        out: &mut Vec<u8>,
    ) -> Option<()> {
        let parts = &mut sealed.parts;
        let event_id = &sealed.event_id;
        push_canonical(out, program, &mut self.event, owned, keys, event_id);
        parts.canonical = 0..out.len() as u32;
        sealed.leaf_hash = leaf_hash(out);
        let mut quoted_actor_ref = None;
        for (each, key) in owned.iter().zip(keys) {
            let values = each.values.clone();
            let has_actor_id = self.event.entries[values.clone()]
                .iter()
                .any(|entry| Some(entry.path) == program.roles.actor_id);
            let nonces = &mut self.nonces;
            let blob = push_blob(out, program, &self.event, values, key, event_id, nonces)?;
            sealed.blobs.push(blob);
            if has_actor_id && !each.is_unattributed {
                sealed.actor_ref = Some(key.subject_ref);
                quoted_actor_ref = Some(key.quoted_ref.as_slice());
            }
        }
        self.texts(program, parts, out)?;
        let mut subject_refs: Vec<&[u8]> =
            keys.iter().map(|key| key.quoted_ref.as_slice()).collect();
        subject_refs.sort_unstable();
        subject_refs.dedup();
        let facts = Facts {
            leaf_hash: &sealed.leaf_hash,
            offset: sealed.offset,
            schema_id: sealed.schema_id,
            broker_timestamp_ms: sealed.broker_timestamp_ms,
            occurred_at_us: sealed.occurred_at_us,
            actor_ref: quoted_actor_ref,
            subject_refs,
        };
        let start = out.len() as u32;
        out.extend_from_slice(head);
        push_document(out, parts, program, &mut self.event, &facts);
        parts.document = start..out.len() as u32;
        Some(())
    }

    /// The texts of the row of `audit_logs`, each behind its length.
    fn texts(&self, program: &Program, parts: &mut Parts, out: &mut Vec<u8>) -> Option<()> {
        let roles = &program.roles;
        let start = out.len() as u32;
        let push = |out: &mut Vec<u8>, text: &[u8]| {
            out.extend_from_slice(&(text.len() as u32).to_be_bytes());
            out.extend_from_slice(text);
        };
        push(out, program.family.as_bytes());
        for (at, path) in
            [roles.tenant, roles.action, roles.outcome, roles.severity, roles.actor_type]
                .into_iter()
                .enumerate()
        {
            if program.paths[path as usize].group.is_some() {
                return None;
            }
            let text = self.event.find(path)?.text;
            push(out, text);
            if at == 0 {
                parts.tenant = (out.len() - text.len()) as u32..out.len() as u32;
            }
        }
        parts.texts = start..out.len() as u32;
        Some(())
    }
}
