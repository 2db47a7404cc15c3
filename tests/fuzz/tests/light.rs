//! Every parser that needs no wasmtime, under mutated input.

#[test]
fn no_input_makes_a_parser_of_the_agent_or_of_the_cloud_panic_hang_or_grow() {
    fuzz::run_each(fuzz::targets::LIGHT, fuzz::runs());
}
