//! Small durable records in lent storage, kept twice.
