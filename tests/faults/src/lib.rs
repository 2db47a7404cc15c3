//! What a whole gateway survives: lost messages, cuts, bad images, restarts. Tests only.
