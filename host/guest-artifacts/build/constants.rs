//! Makes globals of constants that stand in many places: a global takes two bytes wherever it is read, the number
//! `i32::MIN`, by which an `Option<String>` is told to be none, six.

use std::collections::BTreeMap;

use wasmparser::ValType;

use crate::code::{Code, Kind};

/// What a global's declaration takes besides its value: type, that it is not written, end.
const DECLARATION_BYTES: usize = 3;

/// What reading a global takes while its number is below 128.
const READ_BYTES: usize = 2;

/// How many globals a byte can number.
const GLOBALS_MAX: u32 = 128;

/// The same module with its frequent constants in globals.
pub(crate) fn hoist(module: &[u8]) -> Result<Vec<u8>, String> {
    let mut code = Code::read(module)?;
    let mut uses = BTreeMap::<Vec<u8>, (ValType, usize)>::new();
    for instruction in code.functions.iter().flat_map(|f| &f.instructions) {
        if let Kind::Constant(ty) = instruction.kind {
            uses.entry(instruction.bytes.to_vec()).or_insert((ty, 0)).1 += 1;
        }
    }
    let mut uses: Vec<_> = uses
        .into_iter()
        .map(|(bytes, (ty, count))| (saved(bytes.len(), count), bytes, ty))
        .filter(|(saved, ..)| *saved > 0)
        .collect();
    uses.sort_by_key(|(saved, ..)| std::cmp::Reverse(*saved));
    let mut numbers = BTreeMap::new();
    for (_, bytes, ty) in uses {
        let number = code.globals + code.constants.len() as u32;
        if number >= GLOBALS_MAX {
            break;
        }
        code.constants.push((ty, bytes.clone().into()));
        numbers.insert(bytes, number);
    }
    for instruction in code.functions.iter_mut().flat_map(|f| &mut f.instructions) {
        if let Kind::Constant(_) = instruction.kind
            && let Some(number) = numbers.get(&*instruction.bytes)
        {
            // `global.get`
            instruction.bytes = vec![0x23, *number as u8].into();
        }
    }
    code.write(module)
}

/// How many bytes it saves to have a constant in a global.
fn saved(bytes: usize, count: usize) -> usize {
    (bytes * count).saturating_sub(READ_BYTES * count + bytes + DECLARATION_BYTES)
}
