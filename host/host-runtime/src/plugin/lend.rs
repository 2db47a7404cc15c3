//! What the host lends to a plugin instance.

/// What one plugin instance is lent.
#[derive(Clone)]
pub struct Lent {}
