//! The hot path of the worker, compiled. It accepts what is plainly acceptable and leaves all else
//! to the form in Python, which judges it; for what it accepts it gives the same bytes.
//! `tests/unit/test_native.py` holds the two together.

mod archived;
mod compiled;
mod decode;
mod document;
mod event;
mod outputs;
mod owners;
mod program;
mod ring;
mod seal;
mod sealer;
mod text;

use pyo3::prelude::*;

#[pymodule]
fn audit_native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<event::SealedEvent>()?;
    module.add_class::<ring::KeyRing>()?;
    module.add_class::<compiled::CompiledProgram>()?;
    module.add_class::<sealer::Sealer>()?;
    module.add_function(wrap_pyfunction!(outputs::leading, module)?)?;
    module.add_function(wrap_pyfunction!(outputs::event_rows, module)?)?;
    module.add_function(wrap_pyfunction!(outputs::leaf_rows, module)?)?;
    module.add_function(wrap_pyfunction!(outputs::blob_rows, module)?)?;
    module.add_function(wrap_pyfunction!(outputs::bulk_lines, module)?)?;
    module.add_function(wrap_pyfunction!(outputs::leaf_datums, module)?)?;
    module.add_function(wrap_pyfunction!(outputs::blob_datums, module)?)?;
    module.add_function(wrap_pyfunction!(outputs::parents, module)?)?;
    module.add_function(wrap_pyfunction!(archived::archived_leaves, module)?)?;
    module.add_function(wrap_pyfunction!(archived::archived_blobs, module)?)?;
    module.add_function(wrap_pyfunction!(archived::packed_parents, module)?)?;
    Ok(())
}
