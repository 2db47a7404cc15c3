//! Tests of the target engine.
