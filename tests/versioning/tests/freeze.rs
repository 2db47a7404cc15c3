//! The freeze, held against the real tree.

use versioning::freeze;

/// What was ever released, with the digest that stands for the version. DO NOT CHANGE A ROW: agents and plugins in the
/// field were built against these bytes. A release adds one.
const RELEASED: &[(&str, &str)] = &[];

#[test]
fn released_texts_are_as_they_were_released() {
    let wit = freeze::read(&versioning::wit()).unwrap();
    assert_eq!(freeze::violations(&wit), Vec::<String>::new());
    let released = freeze::released(&wit);
    let rows: Vec<(&str, &str)> = released
        .iter()
        .map(|(name, sum)| (name.as_str(), sum.as_str()))
        .collect();
    assert_eq!(rows, RELEASED);
}
