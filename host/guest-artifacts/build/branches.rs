//! Makes `if` and `else` of branches round code: a block, a branch to its end and the end are five bytes, `if` and its
//! end three.
//!
//! Two rules, where nothing before the branch leads to the block's end too:
//!
//! ```text
//! block A; c; br_if 0; B end            A; not c; if B end
//! block A; c; if B; br 1 end C end      A; c; if B else C end     or     A; not c; if C else B end
//! ```
//!
//! The `if` takes over the block's label, so further branches to its end may stand in B and C.

use wasm_encoder::Encode;

use crate::code::{Code, Instruction, Kind};

const BLOCK: &[u8] = &[0x02, 0x40];
const IF: &[u8] = &[0x04, 0x40];
const ELSE: &[u8] = &[0x05];
const BR: u8 = 0x0c;
const BR_IF: u8 = 0x0d;
const BR_TABLE: u8 = 0x0e;
const I32_EQZ: u8 = 0x45;

/// Comparisons of integers, each with its opposite: for `i32`, for `i64` in the same order.
const OPPOSITES: [(u8, u8); 10] = [
    (0x46, 0x47),
    (0x48, 0x4e),
    (0x49, 0x4f),
    (0x4a, 0x4c),
    (0x4b, 0x4d),
    (0x51, 0x52),
    (0x53, 0x59),
    (0x54, 0x5a),
    (0x55, 0x57),
    (0x56, 0x58),
];

/// The same module with fewer blocks.
pub(crate) fn fold(module: &[u8]) -> Result<Vec<u8>, String> {
    let mut code = Code::read(module)?;
    for function in code.functions.iter_mut().filter(|f| f.is_known()) {
        let mut instructions = std::mem::take(&mut function.instructions).into_iter();
        let (nodes, last) = tree(&mut instructions);
        write(folded(nodes), &mut function.instructions);
        function.instructions.extend(last);
    }
    code.write(module)
}

/// Instructions as they are nested.
#[derive(Clone)]
enum Node<'a> {
    One(Instruction<'a>),
    Nest(Nest<'a>),
}

/// A block, a loop or an `if`.
#[derive(Clone)]
struct Nest<'a> {
    begin: Instruction<'a>,
    body: Vec<Node<'a>>,
    /// `else` and what follows.
    otherwise: Option<(Instruction<'a>, Vec<Node<'a>>)>,
    end: Instruction<'a>,
}

/// Reads up to the `else` or `end` that belongs to what is around, and that instruction.
fn tree<'a>(
    instructions: &mut impl Iterator<Item = Instruction<'a>>,
) -> (Vec<Node<'a>>, Option<Instruction<'a>>) {
    let mut nodes = vec![];
    while let Some(instruction) = instructions.next() {
        match instruction.kind {
            Kind::Else | Kind::End => return (nodes, Some(instruction)),
            Kind::Begin | Kind::Loop => {
                let (body, mut end) = tree(instructions);
                let mut otherwise = None;
                if let Some(other) = end.take_if(|end| end.kind == Kind::Else) {
                    let (nodes, last) = tree(instructions);
                    otherwise = Some((other, nodes));
                    end = last;
                }
                nodes.extend(end.map(|end| {
                    Node::Nest(Nest {
                        begin: instruction,
                        body,
                        otherwise,
                        end,
                    })
                }));
            }
            _ => nodes.push(Node::One(instruction)),
        }
    }
    (nodes, None)
}

fn write<'a>(nodes: Vec<Node<'a>>, instructions: &mut Vec<Instruction<'a>>) {
    for node in nodes {
        match node {
            Node::One(instruction) => instructions.push(instruction),
            Node::Nest(nest) => {
                instructions.push(nest.begin);
                write(nest.body, instructions);
                if let Some((other, nodes)) = nest.otherwise {
                    instructions.push(other);
                    write(nodes, instructions);
                }
                instructions.push(nest.end);
            }
        }
    }
}

/// Folds from the inside out.
fn folded(nodes: Vec<Node<'_>>) -> Vec<Node<'_>> {
    let mut out = vec![];
    for node in nodes {
        match node {
            Node::One(_) => out.push(node),
            Node::Nest(mut nest) => {
                nest.body = folded(nest.body);
                nest.otherwise = nest.otherwise.map(|(o, nodes)| (o, folded(nodes)));
                out.extend(fold_block(nest));
            }
        }
    }
    out
}

/// What a block is without its begin and end, if one of the rules fits it.
fn fold_block(mut block: Nest<'_>) -> Vec<Node<'_>> {
    let leads_to_end = |node: &Node<'_>| leads_to(std::slice::from_ref(node), 0);
    let Some(at) = block.body.iter().position(leads_to_end) else {
        return vec![Node::Nest(block)];
    };
    let with_if = starts_if(&block, &block.body[at]);
    if !with_if && !ends_if(&block, &block.body[at], at + 1 == block.body.len()) {
        return vec![Node::Nest(block)];
    }
    let behind = block.body.split_off(at + 1);
    let found = block.body.pop();
    let mut nodes = without_one(block.body);
    match found {
        Some(Node::One(branch)) => {
            invert(&mut nodes);
            let begin = Instruction {
                bytes: IF.into(),
                ..branch
            };
            let body = behind;
            nodes.push(Node::Nest(Nest {
                begin,
                body,
                ..block
            }));
        }
        Some(Node::Nest(mut inner)) => {
            inner.body.pop();
            inner.body = without_one(inner.body);
            if !behind.is_empty() {
                let other = Instruction {
                    bytes: ELSE.into(),
                    ..block.end
                };
                inner.otherwise = Some((other, behind));
            }
            swap(&mut nodes, &mut inner);
            nodes.push(Node::Nest(inner));
        }
        None => {}
    }
    nodes
}

/// Whether this is `br_if 0` with nothing on the stack but the condition, so that the rest of the block may be an `if`.
fn starts_if(block: &Nest<'_>, node: &Node<'_>) -> bool {
    matches!(node, Node::One(branch) if *block.begin.bytes == *BLOCK
        && branch.bytes[0] == BR_IF
        && height(branch) == height(&block.begin).map(|height| height + 1))
}

/// Whether this is an `if` that ends with a branch to the end of the block, so that the rest of the block may be its
/// `else`. What leads to the end of the `if` leads to that rest, so there must be none of one or of the other.
fn ends_if(block: &Nest<'_>, node: &Node<'_>, last: bool) -> bool {
    let Node::Nest(inner) = node else {
        return false;
    };
    let base = height(&block.begin);
    *block.begin.bytes == *BLOCK
        && *inner.begin.bytes == *IF
        && inner.otherwise.is_none()
        && height(&inner.begin) == base.map(|height| height + 1)
        && (last || !leads_to(&inner.body, 0))
        && matches!(inner.body.last(), Some(Node::One(branch))
            if *branch.bytes == [BR, 1] && height(branch) == base)
}

/// How many values are on the stack before an instruction that is ever reached.
fn height(instruction: &Instruction<'_>) -> Option<usize> {
    instruction.stack.as_ref().map(Vec::len)
}

/// Whether something leads out of that many blocks around these instructions.
fn leads_to(nodes: &[Node<'_>], depth: u32) -> bool {
    nodes.iter().any(|node| match node {
        Node::One(instruction) => outs(instruction).contains(&depth),
        Node::Nest(nest) => {
            let other = nest.otherwise.as_ref();
            leads_to(&nest.body, depth + 1)
                || other.is_some_and(|(_, nodes)| leads_to(nodes, depth + 1))
        }
    })
}

/// The same instructions with one block less around them; those that lead to its end lead to the next one's.
fn without_one(nodes: Vec<Node<'_>>) -> Vec<Node<'_>> {
    shifted(nodes, 0)
}

fn shifted(mut nodes: Vec<Node<'_>>, depth: u32) -> Vec<Node<'_>> {
    for node in &mut nodes {
        match node {
            Node::One(instruction) => {
                let mut outs = outs(instruction);
                if outs.iter().any(|out| *out > depth) {
                    for out in &mut outs {
                        *out -= u32::from(*out > depth);
                    }
                    instruction.bytes = branch(instruction.bytes[0], &outs).into();
                }
            }
            Node::Nest(nest) => {
                nest.body = shifted(std::mem::take(&mut nest.body), depth + 1);
                if let Some((_, nodes)) = &mut nest.otherwise {
                    *nodes = shifted(std::mem::take(nodes), depth + 1);
                }
            }
        }
    }
    nodes
}

/// How many blocks out a branch leads, each way it can.
pub(crate) fn outs(instruction: &Instruction<'_>) -> Vec<u32> {
    let Kind::Branch(_) = instruction.kind else {
        return vec![];
    };
    let (mut outs, mut shift) = (vec![0], 0);
    for byte in &instruction.bytes[1..] {
        if let Some(out) = outs.last_mut() {
            *out |= u32::from(byte & 127) << shift;
        }
        shift += 7;
        if *byte < 128 {
            (outs, shift) = ([outs, vec![0]].concat(), 0);
        }
    }
    outs.pop();
    if instruction.bytes[0] == BR_TABLE {
        // How many there are.
        outs.remove(0);
    }
    outs
}

/// A branch of that code that leads there.
fn branch(code: u8, outs: &[u32]) -> Vec<u8> {
    let mut bytes = vec![code];
    if code == BR_TABLE {
        // All but the default.
        (outs.len() as u32 - 1).encode(&mut bytes);
    }
    for out in outs {
        out.encode(&mut bytes);
    }
    bytes
}

/// Turns both ways round in place of the condition.
fn swap<'a>(nodes: &mut Vec<Node<'a>>, with_else: &mut Nest<'a>) {
    if let Some((_, nodes_of_else)) = &mut with_else.otherwise
        && nodes
            .pop_if(|node| matches!(node, Node::One(last) if *last.bytes == [I32_EQZ]))
            .is_some()
    {
        std::mem::swap(&mut with_else.body, nodes_of_else);
    }
}

/// Turns the condition that these instructions leave on the stack into its opposite.
fn invert(nodes: &mut Vec<Node<'_>>) {
    if let Some(Node::One(last)) = nodes.last_mut() {
        if *last.bytes == [I32_EQZ] {
            nodes.pop();
            return;
        }
        for (one, other) in OPPOSITES {
            for (from, to) in [(one, other), (other, one)] {
                if *last.bytes == [from] {
                    last.bytes = vec![to].into();
                    return;
                }
            }
        }
    }
    nodes.push(Node::One(Instruction {
        bytes: vec![I32_EQZ].into(),
        kind: Kind::Plain,
        takes: 1,
        stack: None,
    }));
}
