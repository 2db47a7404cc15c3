//! The daemon's parsers and the loader of components under mutated input: in one test, for a target is judged by the memory
//! of the whole process.

/// A component costs as much as some hundred lines; the goal is a million of these and ten thousand of those.
const COMPONENT_SHARE: u64 = 100;

#[test]
fn no_input_makes_a_parser_of_the_daemon_or_the_loader_of_components_panic_hang_or_grow() {
    fuzz::run_each(fuzz::targets::HOST, fuzz::runs());
    fuzz::run_each(
        &[fuzz::targets::COMPONENT],
        fuzz::runs().div_ceil(COMPONENT_SHARE),
    );
}
