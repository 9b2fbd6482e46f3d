//! Decisions as a program for the kernel's classic BPF machine.
//!
//! The kernel runs the program over every call number when it is installed, to learn which calls it always allows, and
//! then for every other call. So numbers are found by bisection over ranges of equal decisions, some twenty
//! instructions a call: this program installs in 0.2 ms, one that compares number after number in 1.0 ms (6.18, measured).

use std::collections::BTreeMap;

use rustix::io::Errno;

use super::profile::{Comparison, Test};
use super::{Architecture, Decision};
use crate::sys::seccomp::{Instruction, data};

// Opcodes of linux/bpf_common.h.
const LOAD_WORD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
const JUMP_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const JUMP_GREATER: u16 = 0x25; // BPF_JMP | BPF_JGT | BPF_K
const JUMP_FROM: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
const JUMP_ANY_BIT: u16 = 0x45; // BPF_JMP | BPF_JSET | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

// Answers of linux/seccomp.h.
const ALLOW: u32 = 0x7FFF_0000;
const FAIL: u32 = 0x0005_0000;
const KILL_PROCESS: u32 = 0x8000_0000;

/// From here on x86-64 numbers are calls of the x32 ABI.
const X32: u32 = 0x4000_0000;

/// What is decided for one architecture.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) architecture: Architecture,
    /// What numbers get something other than `EPERM`.
    pub(super) decisions: BTreeMap<u32, Decision>,
    /// The newest call that the policy knows; what is newer does not exist.
    pub(super) newest: u32,
}

/// Writes the program. A call of an architecture without a table ends the process.
pub(super) fn write(tables: &[Table]) -> Vec<Instruction> {
    let mut program = vec![load(data::ARCHITECTURE)];
    for table in tables {
        let code = write_table(table);
        program.push(jump(JUMP_EQUAL, table.architecture.audit(), 1, 0));
        program.push(skip(code.len()));
        program.extend(code);
    }
    program.push(answer(KILL_PROCESS));
    program
}

fn write_table(table: &Table) -> Vec<Instruction> {
    let mut code = vec![load(data::NUMBER)];
    code.extend(bisect(&ranges(table)));
    code
}

/// The starts of ranges of numbers with one decision each, ascending, the first at 0.
fn ranges(table: &Table) -> Vec<(u32, Decision)> {
    let refused = Decision::Fail(Errno::PERM);
    let missing = Decision::Fail(Errno::NOSYS);
    let mut ranges: Vec<(u32, Decision)> = Vec::new();
    let mut add = |start: u32, decision: &Decision| {
        if ranges.last().is_none_or(|(_, last)| last != decision) {
            ranges.push((start, decision.clone()));
        }
    };
    for number in 0..=table.newest {
        add(number, table.decisions.get(&number).unwrap_or(&refused));
    }
    add(table.newest + 1, &missing);
    // 32-bit ARM has calls of its own far above all others.
    for (&number, decision) in table.decisions.range(table.newest + 1..) {
        add(number, decision);
        if !table.decisions.contains_key(&(number + 1)) {
            add(number + 1, &missing);
        }
    }
    if table.architecture == Architecture::X86_64 {
        add(X32, &missing);
    }
    ranges
}

fn bisect(ranges: &[(u32, Decision)]) -> Vec<Instruction> {
    match ranges {
        [] => vec![fail(Errno::PERM)],
        [(_, decision)] => decide(decision),
        _ => {
            let (lower, upper) = ranges.split_at(ranges.len() / 2);
            let lower = bisect(lower);
            let mut code = vec![jump(JUMP_FROM, upper[0].0, 0, 1), skip(lower.len())];
            code.extend(lower);
            code.extend(bisect(upper));
            code
        }
    }
}

fn decide(decision: &Decision) -> Vec<Instruction> {
    match decision {
        Decision::Allow => vec![answer(ALLOW)],
        Decision::Fail(errno) => vec![fail(*errno)],
        Decision::AllowIf(tests) => {
            let mut code: Vec<Instruction> = tests.iter().flat_map(test).collect();
            code.push(fail(Errno::PERM));
            code
        }
    }
}

/// Answers "allow" when the test holds, else goes on behind itself.
fn test(test: &Test) -> Vec<Instruction> {
    let (low, high) = data::argument(test.argument);
    match test.comparison {
        Comparison::Equal(value) => {
            let (value_low, value_high) = halves(value);
            vec![
                load(high),
                jump(JUMP_EQUAL, value_high, 0, 3),
                load(low),
                jump(JUMP_EQUAL, value_low, 0, 1),
                answer(ALLOW),
            ]
        }
        Comparison::Below(value) => {
            let (value_low, value_high) = halves(value);
            vec![
                load(high),
                jump(JUMP_GREATER, value_high, 4, 0),
                jump(JUMP_EQUAL, value_high, 0, 2),
                load(low),
                jump(JUMP_FROM, value_low, 1, 0),
                answer(ALLOW),
            ]
        }
        Comparison::NoneOf(bits) => {
            let (bits_low, bits_high) = halves(bits);
            vec![
                load(high),
                jump(JUMP_ANY_BIT, bits_high, 3, 0),
                load(low),
                jump(JUMP_ANY_BIT, bits_low, 1, 0),
                answer(ALLOW),
            ]
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the lower half is what is asked for"
)]
const fn halves(value: u64) -> (u32, u32) {
    (value as u32, (value >> 32) as u32)
}

const fn instruction(code: u16, value: u32, if_true: u8, if_false: u8) -> Instruction {
    Instruction {
        code,
        if_true,
        if_false,
        value,
    }
}

const fn load(offset: u32) -> Instruction {
    instruction(LOAD_WORD, offset, 0, 0)
}

/// Skips as many instructions as its outcome says.
const fn jump(code: u16, value: u32, if_true: u8, if_false: u8) -> Instruction {
    instruction(code, value, if_true, if_false)
}

/// Skips any number of instructions; the programs here have a few thousand.
fn skip(count: usize) -> Instruction {
    let count = u32::try_from(count).expect("the kernel takes 4096 instructions at most");
    instruction(JUMP, count, 0, 0)
}

const fn answer(value: u32) -> Instruction {
    instruction(RETURN, value, 0, 0)
}

fn fail(errno: Errno) -> Instruction {
    answer(FAIL | errno.raw_os_error().unsigned_abs())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// What the program answers, by the rules of the machine that it is written for.
    pub(in super::super) fn run(
        program: &[Instruction],
        architecture: u32,
        number: u32,
        arguments: [u64; 6],
    ) -> u32 {
        let mut accumulator = 0;
        let mut next = 0;
        loop {
            let Instruction {
                code,
                if_true,
                if_false,
                value,
            } = program[next];
            next += 1;
            let holds = match code {
                LOAD_WORD => {
                    accumulator = word(value, architecture, number, arguments);
                    continue;
                }
                RETURN => return value,
                JUMP => {
                    next += value as usize;
                    continue;
                }
                JUMP_EQUAL => accumulator == value,
                JUMP_GREATER => accumulator > value,
                JUMP_FROM => accumulator >= value,
                JUMP_ANY_BIT => accumulator & value != 0,
                code => panic!("opcode {code:#x}"),
            };
            next += usize::from(if holds { if_true } else { if_false });
        }
    }

    fn word(offset: u32, architecture: u32, number: u32, arguments: [u64; 6]) -> u32 {
        match offset {
            data::NUMBER => number,
            data::ARCHITECTURE => architecture,
            _ => {
                let found = (0..6).find_map(|index| {
                    let (low, high) = data::argument(index);
                    let (value_low, value_high) = halves(arguments[usize::from(index)]);
                    match offset {
                        _ if offset == low => Some(value_low),
                        _ if offset == high => Some(value_high),
                        _ => None,
                    }
                });
                found.expect("an argument's offset")
            }
        }
    }

    fn table(decisions: &[(u32, Decision)]) -> Vec<Instruction> {
        write(&[Table {
            architecture: Architecture::X86_64,
            decisions: decisions.iter().cloned().collect(),
            newest: 9,
        }])
    }

    const AMD64: u32 = Architecture::X86_64.audit();
    const EPERM: u32 = FAIL | 0x01;
    const ENOSYS: u32 = FAIL | 0x26;

    #[test]
    fn numbers_get_their_decision_and_others_none() {
        let program = table(&[
            (0, Decision::Allow),
            (1, Decision::Allow),
            (3, Decision::Fail(Errno::NOSYS)),
            (9, Decision::Allow),
        ]);
        let answers: Vec<u32> = (0..12)
            .map(|number| run(&program, AMD64, number, [0; 6]))
            .collect();
        let expected = [
            ALLOW, ALLOW, EPERM, ENOSYS, EPERM, EPERM, EPERM, EPERM, EPERM, ALLOW, ENOSYS, ENOSYS,
        ];
        assert_eq!(answers, expected);
        assert_eq!(run(&program, AMD64, X32, [0; 6]), ENOSYS);
        assert_eq!(run(&program, AMD64, u32::MAX, [0; 6]), ENOSYS);
        assert_eq!(run(&program, AMD64 + 1, 0, [0; 6]), KILL_PROCESS);
    }

    #[test]
    fn comparisons_see_all_64_bits() {
        let wide = 7 | 1 << 32;
        let answers = |comparison, values: &[u64]| -> Vec<bool> {
            let test = Test {
                argument: 2,
                comparison,
            };
            let program = table(&[(5, Decision::AllowIf(vec![test]))]);
            let made = |&value: &u64| {
                let answer = run(&program, AMD64, 5, [0, 0, value, 0, 0, 0]);
                assert!(answer == ALLOW || answer == EPERM);
                answer == ALLOW
            };
            values.iter().map(made).collect()
        };
        assert_eq!(
            answers(Comparison::Equal(7), &[7, 6, wide, 0]),
            [true, false, false, false]
        );
        assert_eq!(answers(Comparison::Equal(wide), &[wide, 7]), [true, false]);
        assert_eq!(
            answers(Comparison::Below(7), &[0, 6, 7, 8, wide, 1 << 32]),
            [true, true, false, false, false, false]
        );
        assert_eq!(
            answers(Comparison::Below(wide), &[6, 7, 8, wide - 1, wide, 2 << 32]),
            [true, true, true, true, false, false]
        );
        assert_eq!(
            answers(Comparison::NoneOf(wide), &[0, 8, 1, 1 << 32, 2 << 32]),
            [true, true, false, false, true]
        );
    }
}
