//! Pairing through someone in the middle who changes, drops or adds bytes, and pairing with someone who says anything.
//!
//! Layout: how; then either edits (direction and position, what to do, with what) or what the other side says.

use std::sync::LazyLock;

use p2psync::core::id::DeviceId;
use p2psync::net::pairing::{Greeting, PairError, Paired, ShownCode, join_over, show_over};
use p2psync::net::pairing_code::PairingCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::runtime::Runtime;

use super::check;
use super::draw::Draw;

const JOINER: DeviceId = DeviceId([1; 32]);
const SHOWER: DeviceId = DeviceId([2; 32]);
const DEVICES: (DeviceId, DeviceId) = (JOINER, SHOWER);
const PIPE_BYTES: usize = 64 * 1024;
const EDITS_MAX: usize = 8;
/// The secret part of the exchange in bytes: both SPAKE2 messages and proofs, each with length and type.
const PROVEN_BYTES: usize = 2 * 3 + 33 + 32;

static CODE: LazyLock<PairingCode> = LazyLock::new(|| PairingCode::generate([9; 5]));

thread_local! {
    // Time passes only when nobody has anything left to do: who waits for ever times out at once.
    static RUNTIME: Runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
}

type Outcome = Result<Paired, PairError>;

/// One change to the bytes of one direction.
struct Edit {
    at: usize,
    how: u8,
    with: u8,
}

pub fn run(data: &[u8]) {
    let mut draw = Draw(data);
    match draw.byte() % 4 {
        0 => RUNTIME.with(|r| r.block_on(with_a_liar(draw.0, true))),
        1 => RUNTIME.with(|r| r.block_on(with_a_liar(draw.0, false))),
        _ => through_the_middle(draw),
    }
}

fn greeting(name: &str) -> Greeting {
    Greeting { name: name.into(), folders: vec![("default".parse().expect("this is an id"), format!("of {name}"))] }
}

/// Nobody pairs with who does not know the code, and a shown code is used up by the first proof.
async fn with_a_liar(said: &[u8], joins: bool) {
    let (ours, mut theirs) = duplex(PIPE_BYTES);
    let shown = ShownCode::new(CODE.clone());
    let lie = async {
        let _ = theirs.write_all(said).await;
        let _ = theirs.shutdown().await;
        let _ = theirs.read_to_end(&mut Vec::new()).await;
    };
    let greeting = greeting("honest");
    let honest = async {
        if joins {
            join_over(ours, &CODE, DEVICES, &greeting).await
        } else {
            show_over(ours, &shown, DEVICES, &greeting).await
        }
    };
    let (outcome, ()) = tokio::join!(honest, lie);
    check::error_chain(&outcome.expect_err("paired with who knows nothing"));
    assert!(!joins || shown.is_open());
}

fn through_the_middle(mut draw: Draw<'_>) {
    let (mut up, mut down) = (Vec::new(), Vec::new());
    while !draw.is_empty() && up.len() + down.len() < EDITS_MAX {
        let [place, at, how, with] = draw.array();
        let edit = Edit { at: usize::from(place >> 1) << 8 | usize::from(at), how, with };
        if place & 1 == 0 { up.push(edit) } else { down.push(edit) }
    }
    let (joined, shown, is_open, changed) = RUNTIME.with(|r| r.block_on(exchange(up, down)));
    for outcome in [&joined, &shown] {
        match outcome {
            Ok(paired) => check::introduction(&paired.name, &paired.folders),
            Err(error) => check::error_chain(error),
        }
    }
    assert!(shown.is_err() || !is_open, "a code that was used is still good");
    if changed.is_none() {
        let name = |outcome: &Outcome| outcome.as_ref().map(|p| p.name.clone()).expect("undisturbed, both pair");
        assert_eq!((name(&joined), name(&shown)), ("shower".to_owned(), "joiner".to_owned()));
    }
    // What is proved is everything that was said before: no byte of that can be changed.
    if changed.is_some_and(|at| at < PROVEN_BYTES) {
        assert!(joined.is_err() || shown.is_err(), "paired although byte {changed:?} was changed");
    }
}

/// Both outcomes, whether the code is still good, and the first byte of either direction that was changed.
async fn exchange(up: Vec<Edit>, down: Vec<Edit>) -> (Outcome, Outcome, bool, Option<usize>) {
    let (joiner, to_joiner) = duplex(PIPE_BYTES);
    let (shower, to_shower) = duplex(PIPE_BYTES);
    let shown = ShownCode::new(CODE.clone());
    let (from_joiner, into_joiner) = tokio::io::split(to_joiner);
    let (from_shower, into_shower) = tokio::io::split(to_shower);
    let (joiner_says, shower_says) = (greeting("joiner"), greeting("shower"));
    let (joined, showed, up, down) = tokio::join!(
        join_over(joiner, &CODE, DEVICES, &joiner_says),
        show_over(shower, &shown, DEVICES, &shower_says),
        pass_on(from_joiner, into_shower, up),
        pass_on(from_shower, into_joiner, down),
    );
    let changed = [up, down].into_iter().flatten().min();
    (joined, showed, shown.is_open(), changed)
}

/// Copies with the edits made; says which byte was the first that differed.
async fn pass_on(
    mut from: tokio::io::ReadHalf<DuplexStream>,
    mut to: tokio::io::WriteHalf<DuplexStream>,
    edits: Vec<Edit>,
) -> Option<usize> {
    let (mut said, mut passed) = (Vec::new(), Vec::new());
    while let Ok(byte) = from.read_u8().await {
        let mut out = vec![byte];
        for edit in edits.iter().filter(|e| e.at == said.len()) {
            match edit.how % 4 {
                0 => out.iter_mut().for_each(|b| *b ^= edit.with),
                1 => out.push(edit.with),
                2 => out.clear(),
                _ => out.insert(0, edit.with),
            }
        }
        said.push(byte);
        passed.extend_from_slice(&out);
        // The other side may have given up; what was said to it is then of no use.
        let _ = to.write_all(&out).await;
    }
    let _ = to.shutdown().await;
    // Several edits may come to nothing.
    let is_same = said == passed;
    let same = said.iter().zip(&passed).take_while(|(a, b)| a == b).count();
    (!is_same).then_some(same)
}
