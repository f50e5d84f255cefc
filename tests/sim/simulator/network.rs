//! What is on its way between devices: frames as they are on the wire, in order per connection, cut off anywhere.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use p2psync::core::id::FolderId;
use p2psync::core::message::Message;
use p2psync::net::bounds;
use p2psync::net::codec::{decode, encode};
use p2psync::net::frame::Frame;

use super::random::Random;

/// Bytes of a frame's length, which a reader of the stream takes off.
const LENGTH_BYTES: usize = 4;
/// Frames that wait on one way at most: the real outbox takes as many.
const FRAMES_MAX: usize = 4096;

/// Something that arrives.
pub enum Arrival {
    Message(Message),
    /// The connection has ended.
    Closed,
}

enum Item {
    Frame(Bytes),
    Closed,
}

/// One way of a connection.
#[derive(Default)]
struct Way {
    items: VecDeque<Item>,
}

/// All connections. A device that has not yet noticed the end of one cannot begin another.
#[derive(Default)]
pub struct Network {
    ways: BTreeMap<(usize, usize), Way>,
    pub frames: u64,
    pub bytes: u64,
}

impl Network {
    pub fn is_open(&self, from: usize, to: usize) -> bool {
        self.ways.contains_key(&(from, to))
    }

    /// True where neither side has anything left of an earlier connection.
    pub fn can_connect(&self, a: usize, b: usize) -> bool {
        !self.ways.contains_key(&(a, b)) && !self.ways.contains_key(&(b, a))
    }

    pub fn connect(&mut self, a: usize, b: usize) {
        self.ways.insert((a, b), Way::default());
        self.ways.insert((b, a), Way::default());
    }

    /// Puts a message on its way, in as many frames as the agent would use.
    pub fn send(&mut self, from: usize, to: usize, folder: &FolderId, message: Message) {
        let Some(way) = self.ways.get_mut(&(from, to)) else { return };
        if matches!(way.items.back(), Some(Item::Closed)) {
            return;
        }
        for part in bounds::fit(message) {
            let encoded = encode(&Frame::Folder(folder.clone(), part)).expect("what fits can be encoded");
            let mut frame = encoded.parts().concat();
            frame.drain(..LENGTH_BYTES);
            self.frames += 1;
            self.bytes += frame.len() as u64;
            way.items.push_back(Item::Frame(Bytes::from(frame)));
        }
        assert!(way.items.len() <= FRAMES_MAX, "{from} has too many frames on their way to {to}");
    }

    /// Ends a connection: of what was under way a random part still arrives on each side.
    pub fn cut(&mut self, a: usize, b: usize, random: &mut Random) {
        for ends in [(a, b), (b, a)] {
            let Some(way) = self.ways.get_mut(&ends) else { continue };
            if matches!(way.items.back(), Some(Item::Closed)) {
                continue;
            }
            let arrive = random.below(way.items.len() + 1);
            way.items.truncate(arrive);
            way.items.push_back(Item::Closed);
        }
    }

    /// The agent of a device is gone: it hears nothing more, and the others find their connections ended.
    pub fn leave(&mut self, gone: usize, random: &mut Random) {
        let others: Vec<usize> = self.ways.keys().filter(|(_, to)| *to == gone).map(|(from, _)| *from).collect();
        for other in others {
            self.cut(gone, other, random);
            self.ways.remove(&(other, gone));
        }
    }

    /// Ways on which something can arrive.
    pub fn waiting(&self) -> Vec<(usize, usize)> {
        self.ways.iter().filter(|(_, way)| !way.items.is_empty()).map(|(ends, _)| *ends).collect()
    }

    pub fn deliver(&mut self, from: usize, to: usize) -> Option<Arrival> {
        match self.ways.get_mut(&(from, to))?.items.pop_front()? {
            Item::Closed => {
                self.ways.remove(&(from, to));
                Some(Arrival::Closed)
            }
            Item::Frame(bytes) => match decode(bytes) {
                Ok(Frame::Folder(_, message)) => Some(Arrival::Message(message)),
                other => panic!("a frame does not come out as it went in: {other:?}"),
            },
        }
    }

    /// Frames under way.
    pub fn waiting_frames(&self) -> usize {
        self.ways.values().map(|way| way.items.len()).sum()
    }
}
