//! Base64 of job signatures.
