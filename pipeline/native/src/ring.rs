//! The keys of data subjects that are in memory, by (tenant, id type, id).

use aes_gcm::{Aes256Gcm, KeyInit};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use zeroize::Zeroizing;

use crate::text::push_uuid;

/// What one subject's values are sealed with: Kc for commitments, Kb for blobs.
pub struct Key {
    pub subject_ref: [u8; 16],
    /// The ref as text, in quotes.
    pub quoted_ref: Vec<u8>,
    pub commit_key: Zeroizing<[u8; 32]>,
    pub cipher: Aes256Gcm,
    /// Events up to then are sealed to nobody: the subject was erased, and came back since.
    pub erased_until_us: i64,
    used: AtomicBool,
}

pub type Keys = HashMap<Box<[u8]>, Arc<Key>>;

/// A subject as the ring knows it. No part that is looked up holds U+001F: control characters are
/// left to the form in Python.
pub fn push_subject(out: &mut Vec<u8>, tenant: &[u8], id_type: &[u8], id: &[u8]) {
    out.extend_from_slice(tenant);
    out.push(0x1f);
    out.extend_from_slice(id_type);
    out.push(0x1f);
    out.extend_from_slice(id);
}

fn name(subject: &(String, String, String)) -> Vec<u8> {
    let mut name = Vec::new();
    push_subject(&mut name, subject.0.as_bytes(), subject.1.as_bytes(), subject.2.as_bytes());
    name
}

#[pyclass(frozen, module = "pipeline.native")]
#[derive(Default)]
pub struct KeyRing {
    keys: RwLock<Keys>,
}

impl KeyRing {
    pub fn read(&self) -> RwLockReadGuard<'_, Keys> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Keys> {
        self.keys.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Mark a key as used since somebody last asked.
pub fn touch(key: &Key) {
    key.used.store(true, Ordering::Relaxed);
}

// Whoever waits for the lock must not hold the GIL: `Sealer::seal` reads the ring while it calls Python.
#[pymethods]
impl KeyRing {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    fn put(
        &self,
        py: Python<'_>,
        subject: (String, String, String),
        subject_ref: [u8; 16],
        commit_key: [u8; 32],
        blob_key: [u8; 32],
        erased_until_us: i64,
    ) -> PyResult<()> {
        let blob_key = Zeroizing::new(blob_key);
        let cipher = Aes256Gcm::new_from_slice(blob_key.as_slice())
            .map_err(|_| PyValueError::new_err("a key of another length"))?;
        let mut quoted_ref = vec![b'"'];
        push_uuid(&mut quoted_ref, &subject_ref);
        quoted_ref.push(b'"');
        let key = Key {
            subject_ref,
            quoted_ref,
            commit_key: Zeroizing::new(commit_key),
            cipher,
            erased_until_us,
            used: AtomicBool::new(false),
        };
        py.detach(|| self.write().insert(name(&subject).into(), Arc::new(key)));
        Ok(())
    }

    /// Whether the key was used since the last call for it.
    fn take_used(&self, py: Python<'_>, subject: (String, String, String)) -> bool {
        let was_used = |key: &Arc<Key>| key.used.swap(false, Ordering::Relaxed);
        py.detach(|| self.read().get(name(&subject).as_slice()).is_some_and(was_used))
    }

    fn drop_key(&self, py: Python<'_>, subject: (String, String, String)) {
        py.detach(|| self.write().remove(name(&subject).as_slice()));
    }

    fn clear(&self, py: Python<'_>) {
        py.detach(|| self.write().clear());
    }

    fn __len__(&self, py: Python<'_>) -> usize {
        py.detach(|| self.read().len())
    }
}
