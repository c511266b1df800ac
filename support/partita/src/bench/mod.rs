//! Measurements. To be written.

/// Runs the measurements.
///
/// # Errors
/// Always, until they are written.
pub fn run(_context: &crate::context::Context) -> crate::failure::Result {
    crate::fail!("bench is not written yet")
}
