//! Lent things for unit tests.
