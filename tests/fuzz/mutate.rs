//! Small random changes to an input, such as a fuzzer makes.

use proptest::prelude::*;
use proptest::sample::Index;

/// One change.
#[derive(Clone, Debug)]
pub enum Mutation {
    /// Another value at a place.
    Set(Index, u8),
    Flip(Index, u8),
    /// Bytes that mean something to many formats, written over what is there.
    Write(Index, Vec<u8>),
    Insert(Index, Vec<u8>),
    /// Takes out some bytes.
    Remove(Index, usize),
    /// Doubles some bytes.
    Repeat(Index, usize),
    Cut(Index),
    /// Goes on with another input.
    Splice(Index, Index),
}

/// Borders of numbers, and lengths and types of MessagePack.
const TOKENS: [&[u8]; 12] = [
    &[0xff; 8],
    &[0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    &[0x80, 0, 0, 0, 0, 0, 0, 0],
    &[0; 8],
    &[0xcf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    &[0xdd, 0xff, 0xff, 0xff, 0xff],
    &[0xdc, 0xff, 0xff],
    &[0xc6, 0xff, 0xff, 0xff, 0xff],
    &[0xc0],
    b"../",
    b"\n",
    b"\"",
];

pub fn mutation() -> impl Strategy<Value = Mutation> {
    let at = any::<Index>;
    let token = || {
        let known = any::<Index>().prop_map(|i| TOKENS[i.index(TOKENS.len())].to_vec());
        prop_oneof![known, proptest::collection::vec(any::<u8>(), 1..9)]
    };
    prop_oneof![
        (at(), any::<u8>()).prop_map(|(at, by)| Mutation::Set(at, by)),
        (at(), 0u8..8).prop_map(|(at, bit)| Mutation::Flip(at, 1 << bit)),
        (at(), token()).prop_map(|(at, bytes)| Mutation::Write(at, bytes)),
        (at(), token()).prop_map(|(at, bytes)| Mutation::Insert(at, bytes)),
        (at(), 1usize..20).prop_map(|(at, count)| Mutation::Remove(at, count)),
        (at(), 1usize..40).prop_map(|(at, count)| Mutation::Repeat(at, count)),
        at().prop_map(Mutation::Cut),
        (at(), at()).prop_map(|(at, from)| Mutation::Splice(at, from)),
    ]
}

/// The input with the change made; `other` is what is spliced in.
pub fn apply(mut bytes: Vec<u8>, other: &[u8], mutation: &Mutation) -> Vec<u8> {
    let length = bytes.len();
    let place = |at: &Index| at.index(length + 1);
    match mutation {
        Mutation::Set(at, by) => bytes.get_mut(at.index(length.max(1))).into_iter().for_each(|b| *b = *by),
        Mutation::Flip(at, bits) => bytes.get_mut(at.index(length.max(1))).into_iter().for_each(|b| *b ^= bits),
        Mutation::Write(at, token) => {
            let at = place(at);
            bytes.iter_mut().skip(at).zip(token).for_each(|(b, by)| *b = *by);
        }
        Mutation::Insert(at, token) => {
            let at = place(at);
            bytes.splice(at..at, token.iter().copied());
        }
        Mutation::Remove(at, count) => {
            let at = place(at);
            let end = (at + count).min(bytes.len());
            bytes.drain(at..end);
        }
        Mutation::Repeat(at, count) => {
            let at = place(at);
            let piece = bytes[at..(at + count).min(bytes.len())].to_vec();
            bytes.splice(at..at, piece);
        }
        Mutation::Cut(at) => {
            let at = place(at);
            bytes.truncate(at);
        }
        Mutation::Splice(at, from) => {
            let at = place(at);
            bytes.truncate(at);
            bytes.extend_from_slice(&other[from.index(other.len() + 1)..]);
        }
    }
    bytes
}
