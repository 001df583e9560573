//! A program as Python holds it, with the beginnings of its documents.

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use crate::decode::Event;
use crate::program::Program;

const HEADS_MAX: usize = 1_000;

/// The program of one writer's schema, and where its documents' beginnings come from.
#[pyclass(frozen, module = "pipeline.native")]
pub struct CompiledProgram {
    pub program: Arc<Program>,
    heads: RwLock<HashMap<Vec<u8>, Arc<[u8]>>>,
    make_head: Py<PyAny>,
}

#[pymethods]
impl CompiledProgram {
    /// `make_head(activity, outcome, severity)` gives a document's beginning.
    #[new]
    fn new(spec: &str, make_head: Py<PyAny>) -> PyResult<Self> {
        let program = Program::parse(spec)
            .map_err(|error| pyo3::exceptions::PyValueError::new_err(error.to_string()))?;
        let heads = RwLock::new(HashMap::new());
        Ok(CompiledProgram { program: Arc::new(program), heads, make_head })
    }
}

impl CompiledProgram {
    pub fn head(&self, py: Python<'_>, event: &Event) -> PyResult<Arc<[u8]>> {
        let roles = &self.program.roles;
        let text = |path: Option<u32>| {
            let is_clear = |path: &u32| self.program.paths[*path as usize].group.is_none();
            path.filter(is_clear).and_then(|path| event.find(path)).map(|entry| entry.text)
        };
        let named = [text(roles.activity), text(Some(roles.outcome)), text(Some(roles.severity))];
        let mut key = Vec::with_capacity(64);
        for part in named {
            key.push(u8::from(part.is_some()));
            key.extend_from_slice(part.unwrap_or_default());
            key.push(0x1f);
        }
        let known = self.heads.read().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(head) = known {
            return Ok(head);
        }
        let words = named.map(|part| part.map(String::from_utf8_lossy));
        let made = self.make_head.bind(py).call1((&words[0], &words[1], &words[2]))?;
        let head: Arc<[u8]> = made.cast::<PyBytes>()?.as_bytes().into();
        let mut heads = self.heads.write().unwrap_or_else(PoisonError::into_inner);
        if heads.len() >= HEADS_MAX {
            heads.clear();
        }
        heads.insert(key, head.clone());
        Ok(head)
    }
}
