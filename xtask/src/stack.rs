//! How much stack the BPF programs need on the kernels that count it most strictly.
//!
//! Linux adds up the stacks of a chain of calls, callbacks of `bpf_loop` included, and takes at
//! most 512 bytes. On 6.1 every function counts as a multiple of 32 bytes, on newer kernels less: what
//! one takes another refuses. `cargo xtask vm-test` found that; counted here, the next one is found
//! without booting a machine.

use std::collections::HashMap;

use anyhow::{Context as _, Result, bail};
use object::read::elf::ElfFile64;
use object::{
    Object as _, ObjectSection as _, ObjectSymbol as _, Relocation, RelocationTarget, SectionIndex,
    SectionKind, SymbolKind,
};

/// `MAX_BPF_STACK`.
const MOST: usize = 512;
/// What a function's stack is rounded up to (`check_max_stack_depth` of Linux 6.1).
const ROUND: usize = 32;

/// Bytes of an instruction.
const WIDTH: usize = 8;
/// The frame pointer.
const FRAME: u8 = 10;
/// `bpf_timer_set_callback`: its callback begins with an empty stack.
const SET_CALLBACK: i32 = 170;

/// A place in the object: section and byte.
type Place = (SectionIndex, u64);
type Elf<'a> = ElfFile64<'a, object::LittleEndian>;

/// A function of the object.
struct Function {
    name: String,
    own: usize,
    calls: Vec<Place>,
}

/// The deepest chain of calls of the object.
///
/// # Returns
/// Its bytes of stack.
///
/// # Errors
/// Names the functions of a chain that is too deep.
pub fn deepest(object: &Elf<'_>) -> Result<usize> {
    let functions = functions(object)?;
    let mut deepest = 0;
    for place in functions.keys() {
        let (bytes, chain) = below(&functions, *place, 0)?;
        if bytes > MOST {
            bail!(
                "{bytes} bytes of stack, at most {MOST}: {}",
                chain.join(" > ")
            );
        }
        deepest = deepest.max(bytes);
    }
    Ok(deepest)
}

/// The deepest chain from a function downwards.
fn below(
    functions: &HashMap<Place, Function>,
    place: Place,
    level: usize,
) -> Result<(usize, Vec<String>)> {
    let function = functions
        .get(&place)
        .with_context(|| format!("no function at {place:?}"))?;
    if level > 16 {
        bail!("{} is called by itself", function.name);
    }
    let mut deepest = (0, Vec::new());
    for call in &function.calls {
        let chain = below(functions, *call, level + 1)?;
        if chain.0 >= deepest.0 {
            deepest = chain;
        }
    }
    let (bytes, mut chain) = deepest;
    chain.insert(0, format!("{} ({})", function.name, function.own));
    Ok((bytes + function.own.max(1).next_multiple_of(ROUND), chain))
}

fn functions(object: &Elf<'_>) -> Result<HashMap<Place, Function>> {
    let mut functions = HashMap::new();
    for symbol in object.symbols() {
        let Some(index) = symbol.section_index() else {
            continue;
        };
        if symbol.kind() != SymbolKind::Text || symbol.size() == 0 {
            continue;
        }
        let section = object.section_by_index(index)?;
        let range = symbol.address()..symbol.address() + symbol.size();
        let relocations = section
            .relocations()
            .filter(|(offset, _)| range.contains(offset))
            .collect();
        let data = section.data_range(range.start, symbol.size())?;
        let code = Code {
            object,
            start: (index, range.start),
            data: data.context("a function without code")?,
            relocations,
        };
        let (own, calls) = code.walk()?;
        let name = symbol.name()?.to_owned();
        functions.insert(code.start, Function { name, own, calls });
    }
    Ok(functions)
}

/// The code of one function.
struct Code<'a> {
    object: &'a Elf<'a>,
    start: Place,
    data: &'a [u8],
    relocations: HashMap<u64, Relocation>,
}

/// One instruction.
struct Instruction {
    opcode: u8,
    destination: u8,
    source: u8,
    offset: i16,
    immediate: i32,
}

impl Instruction {
    fn read(bytes: &[u8]) -> Option<Self> {
        let bytes: [u8; WIDTH] = bytes.try_into().ok()?;
        let [opcode, registers, o0, o1, i0, i1, i2, i3] = bytes;
        Some(Self {
            opcode,
            destination: registers & 0xf,
            source: registers >> 4,
            offset: i16::from_le_bytes([o0, o1]),
            immediate: i32::from_le_bytes([i0, i1, i2, i3]),
        })
    }

    /// Bytes below the frame pointer that it reads or writes by it.
    fn reach(&self) -> usize {
        let base = match self.opcode & 7 {
            // BPF_LDX.
            1 => self.source,
            // BPF_ST, BPF_STX.
            2 | 3 => self.destination,
            _ => return 0,
        };
        if base == FRAME {
            depth(i32::from(self.offset))
        } else {
            0
        }
    }
}

fn depth(offset: i32) -> usize {
    usize::try_from(-offset).unwrap_or(0)
}

impl Code<'_> {
    /// Bytes of its own stack, and what it calls or has called.
    fn walk(&self) -> Result<(usize, Vec<Place>)> {
        let (mut own, mut calls) = (0, Vec::new());
        // Registers that hold the frame pointer, and a function whose address was just taken.
        let mut frames = [false; 16];
        let mut taken = None;
        for (number, bytes) in self.data.chunks_exact(WIDTH).enumerate() {
            let code = Instruction::read(bytes).context("half an instruction")?;
            own = own.max(code.reach());
            let destination = usize::from(code.destination);
            let held = frames[destination];
            match code.opcode {
                // BPF_MOV by register.
                0xbf => frames[destination] = code.source == FRAME,
                // BPF_ADD of a constant.
                0x07 if held => {
                    own = own.max(depth(code.immediate));
                    frames[destination] = false;
                }
                // BPF_CALL of a function of ours.
                0x85 if code.source == 1 => calls.extend(self.target(number, code.immediate)?),
                0x85 if code.immediate == SET_CALLBACK => taken = None,
                // BPF_CALL of a helper, which may call back.
                0x85 => calls.extend(taken.take()),
                // BPF_LD of an address.
                0x18 => taken = self.target(number, code.immediate)?.or(taken),
                _ => {}
            }
        }
        Ok((own, calls))
    }

    /// The function that the instruction of that number refers to; none if it is data.
    fn target(&self, number: usize, immediate: i32) -> Result<Option<Place>> {
        let (section, start) = self.start;
        let at = start + u64::try_from(number * WIDTH)?;
        let relocation = self.relocations.get(&at);
        let is_call = self.data.get(number * WIDTH) == Some(&0x85);
        let Some(RelocationTarget::Symbol(symbol)) = relocation.map(Relocation::target) else {
            if !is_call {
                return Ok(None);
            }
            // Within the section, relative to the next instruction.
            let next = i64::try_from(at)? + 8 * (i64::from(immediate) + 1);
            return Ok(Some((section, u64::try_from(next)?)));
        };
        let symbol = self.object.symbol_by_index(symbol)?;
        let Some(section) = symbol.section_index() else {
            return Ok(None);
        };
        if self.object.section_by_index(section)?.kind() != SectionKind::Text {
            return Ok(None);
        }
        if symbol.kind() != SymbolKind::Section {
            return Ok(Some((section, symbol.address())));
        }
        // By the section's own symbol: the addend lies in the instruction, for calls in units of
        // instructions and less one.
        let byte = if is_call {
            8 * (i64::from(immediate) + 1)
        } else {
            i64::from(immediate)
        };
        Ok(Some((section, u64::try_from(byte)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECTION: SectionIndex = SectionIndex(1);

    fn chain(stacks: &[usize]) -> HashMap<Place, Function> {
        let at = |number: usize| (SECTION, number as u64);
        let function = |(number, own): (usize, &usize)| {
            let calls = (number + 1 < stacks.len()).then(|| at(number + 1));
            let function = Function {
                name: format!("f{number}"),
                own: *own,
                calls: calls.into_iter().collect(),
            };
            (at(number), function)
        };
        stacks.iter().enumerate().map(function).collect()
    }

    #[test]
    fn every_function_of_a_chain_counts_in_whole_32_bytes() {
        // What Linux 6.1 refused with "combined stack size of 4 calls is 544".
        let (bytes, names) = below(&chain(&[112, 40, 280, 40]), (SECTION, 0), 0).unwrap();
        assert_eq!(bytes, 544);
        assert_eq!(names.join(" > "), "f0 (112) > f1 (40) > f2 (280) > f3 (40)");
        assert_eq!(below(&chain(&[0]), (SECTION, 0), 0).unwrap().0, 32);
    }

    #[test]
    fn a_function_that_calls_itself_is_found() {
        let mut functions = chain(&[8]);
        functions.get_mut(&(SECTION, 0)).unwrap().calls = vec![(SECTION, 0)];
        assert!(below(&functions, (SECTION, 0), 0).is_err());
    }

    #[test]
    fn stack_is_what_lies_below_the_frame_pointer() {
        // *(u64 *)(r10 - 0x18) = r2, and r1 = *(u64 *)(r10 - 0x20).
        let stored = Instruction::read(&[0x7b, 0x2a, 0xe8, 0xff, 0, 0, 0, 0]).unwrap();
        let loaded = Instruction::read(&[0x79, 0xa1, 0xe0, 0xff, 0, 0, 0, 0]).unwrap();
        // *(u64 *)(r1 - 0x18) = r2: not by the frame pointer.
        let other = Instruction::read(&[0x7b, 0x21, 0xe8, 0xff, 0, 0, 0, 0]).unwrap();
        assert_eq!(
            [stored, loaded, other].map(|code| code.reach()),
            [24, 32, 0]
        );
    }
}
