//! The daemon's parsers and the loader of components under mutated input.

/// A component costs as much as some hundred lines; the goal is a million of these and ten thousand of those.
const COMPONENT_SHARE: u64 = 100;

#[test]
fn no_input_makes_a_parser_of_the_daemon_panic_hang_or_grow() {
    fuzz::run_each(fuzz::targets::HOST, fuzz::runs());
}

#[test]
fn no_component_file_makes_the_loader_panic_hang_or_compile_what_is_not_valid() {
    fuzz::run_each(
        &[fuzz::targets::COMPONENT],
        fuzz::runs().div_ceil(COMPONENT_SHARE),
    );
}
