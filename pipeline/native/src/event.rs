//! A sealed event as Python sees it: `pipeline.domain.records.SealedEvent`, with its bytes in one
//! piece and without a Python object per value.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyList, PyTuple};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use crate::program::Program;

pub struct Blob {
    pub subject_ref: [u8; 16],
    pub nonce: [u8; 12],
    pub ciphertext: Range<u32>,
    /// The values, as a JSON object.
    pub plain: Range<u32>,
}

/// Where the parts of an event's bytes lie.
#[derive(Default)]
pub struct Parts {
    pub canonical: Range<u32>,
    /// Texts of the row of `audit_logs`, each behind its length.
    pub texts: Range<u32>,
    pub tenant: Range<u32>,
    /// The document with gaps for what the ledger sets.
    pub document: Range<u32>,
    pub late: u32,
    pub leaf_index: u32,
    pub log: u32,
    pub ingested: u32,
}

#[pyclass(frozen, module = "pipeline.native")]
pub struct SealedEvent {
    pub program: Arc<Program>,
    pub bytes: Box<[u8]>,
    pub parts: Parts,
    pub event_id: [u8; 16],
    pub leaf_hash: [u8; 32],
    pub actor_ref: Option<[u8; 16]>,
    pub occurred_at_us: i64,
    pub offset: i64,
    pub broker_timestamp_ms: i64,
    pub schema_id: i32,
    pub stored_at_us: AtomicI64,
    pub blobs: Vec<Blob>,
}

impl SealedEvent {
    pub fn part(&self, range: &Range<u32>) -> &[u8] {
        &self.bytes[range.start as usize..range.end as usize]
    }

    pub fn stored_at(&self) -> i64 {
        self.stored_at_us.load(Ordering::Relaxed)
    }
}

fn loads<'py>(py: Python<'py>, json: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    static LOADS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    LOADS.import(py, "orjson", "loads")?.call1((PyBytes::new(py, json),))
}

#[pymethods]
impl SealedEvent {
    #[getter]
    fn event_id<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.event_id)
    }

    #[getter]
    fn family(&self) -> &str {
        &self.program.family
    }

    #[getter]
    fn occurred_at_us(&self) -> i64 {
        self.occurred_at_us
    }

    #[getter]
    fn offset(&self) -> i64 {
        self.offset
    }

    #[getter]
    fn broker_timestamp_ms(&self) -> i64 {
        self.broker_timestamp_ms
    }

    #[getter]
    fn schema_id(&self) -> i32 {
        self.schema_id
    }

    #[getter]
    fn canonical<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.part(&self.parts.canonical))
    }

    #[getter]
    fn leaf_hash<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.leaf_hash)
    }

    #[getter]
    fn actor_ref<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        self.actor_ref.map(|subject_ref| PyBytes::new(py, &subject_ref))
    }

    #[getter]
    fn stored_at_us(&self) -> i64 {
        self.stored_at()
    }

    #[setter]
    fn set_stored_at_us(&self, stored_at_us: i64) {
        self.stored_at_us.store(stored_at_us, Ordering::Relaxed);
    }

    #[getter]
    fn blobs<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        static BLOB: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let blob = BLOB.import(py, "pipeline.domain.records", "SealedBlob")?;
        let list = PyList::empty(py);
        for each in &self.blobs {
            let fields = (
                PyBytes::new(py, &each.subject_ref),
                PyBytes::new(py, &each.nonce),
                PyBytes::new(py, self.part(&each.ciphertext)),
            );
            list.append(blob.call1(fields)?)?;
        }
        Ok(list)
    }

    /// Read back from the canonical bytes: a new map at every call.
    #[getter]
    fn clear<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        loads(py, self.part(&self.parts.canonical))?.get_item("clear")
    }

    /// The same of the values that are sealed.
    #[getter]
    fn opened<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let opened = PyDict::new(py);
        for blob in &self.blobs {
            opened.update(loads(py, self.part(&blob.plain))?.cast::<pyo3::types::PyMapping>()?)?;
        }
        Ok(opened)
    }

    #[getter]
    fn tenant(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(self.part(&self.parts.tenant))
    }

    /// The memory that the event holds, in bytes.
    #[getter]
    fn held_bytes(&self) -> usize {
        size_of::<Self>() + self.bytes.len() + self.blobs.len() * size_of::<Blob>() + 64
    }

    fn __repr__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let at = PyTuple::new(py, [self.offset, self.occurred_at_us])?;
        Ok(format!("<SealedEvent of {} at {at}>", self.program.family)
            .into_pyobject(py)?
            .into_any())
    }
}
