//! Hashing and signature checks of the host: native code, the operator's trust store, no network.

/// Whose signatures count for a target.
#[derive(Debug, Default)]
pub struct TrustPolicy {}
