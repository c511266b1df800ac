//! placeholder
/// x
pub fn run(_: &crate::context::Context) -> crate::failure::Result {
    crate::fail!("not yet")
}
