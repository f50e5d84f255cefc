//! Valid frames drawn from bytes: every one that is cut to size can be written, and reads back as it was.

use bytes::Bytes;
use p2psync::core::message::{Ack, Batch, Message};
use p2psync::net::bounds::{FRAME_BYTES_MAX, fit};
use p2psync::net::codec::{CodecError, decode, encode};
use p2psync::net::frame::{Frame, Request};

use super::draw::Draw;
use super::{check, frame};

pub fn run(data: &[u8]) {
    let drawn = Draw(data).frame();
    match &drawn {
        Frame::Folder(folder, message) => {
            let parts = fit(message.clone());
            cut_is_invisible(message, &parts);
            for part in parts {
                check::message(&part);
                written(&Frame::Folder(folder.clone(), part));
            }
        }
        Frame::Request(request) => request_reads_back(request),
        // Too much chunk data, or a hello of too many folders, is its sender's mistake and is said so.
        Frame::Chunks(_) | Frame::Hello(_) if matches!(encode(&drawn), Err(CodecError::TooLong { .. })) => {}
        other => {
            check::frame(other);
            written(other);
        }
    }
}

fn written(drawn: &Frame) {
    let encoded = encode(drawn).unwrap_or_else(|e| panic!("a valid frame can't be written: {e}"));
    assert!(encoded.byte_count() <= FRAME_BYTES_MAX + 4);
    frame::reads_back(drawn, 0);
}

/// Hints that don't fit are left out; all else is kept.
fn request_reads_back(request: &Request) {
    let bytes = encode(&Frame::Request(request.clone())).expect("a valid request can be written").parts().concat();
    match decode(Bytes::copy_from_slice(&bytes[4..])) {
        Ok(Frame::Request(read)) => {
            let same = |(a, b): (&_, &_)| wanted_fits(a, b);
            assert_eq!((read.id, &read.folder, read.items.len()), (request.id, &request.folder, request.items.len()));
            assert!(read.items.iter().zip(&request.items).all(same));
        }
        other => panic!("a request reads back as {other:?}"),
    }
}

fn wanted_fits(read: &p2psync::net::frame::WantedContent, sent: &p2psync::net::frame::WantedContent) -> bool {
    read.content == sent.content && (read.hint.is_none() || read.hint == sent.hint)
}

/// The receiver of the parts ends where the receiver of the whole would, and none of them claims too much.
fn cut_is_invisible(whole: &Message, parts: &[Message]) {
    match whole {
        Message::Index(Batch { entries, upto, more, .. }) => {
            let batches = || parts.iter().map(|part| if let Message::Index(b) = part { b } else { panic!("{part:?}") });
            assert!(batches().flat_map(|b| &b.entries).eq(entries));
            assert_eq!(batches().next_back().map(|b| (b.upto, b.more)), Some((*upto, *more)));
            assert!(batches().rev().skip(1).all(|b| b.more && b.entries.last().is_some_and(|e| e.seq == b.upto)));
        }
        Message::Repair { bucket, entries } => {
            let of =
                |part| if let &Message::Repair { bucket: b, ref entries } = part { (b, entries) } else { panic!() };
            assert!(parts.iter().map(of).all(|(b, _)| b == *bucket));
            assert!(parts.iter().map(of).flat_map(|(_, entries)| entries).eq(entries));
        }
        Message::Ack(ack) => {
            let [Message::Ack(cut)] = parts else { panic!("{parts:?}") };
            assert_eq!((cut.epoch, cut.received), (ack.epoch, ack.received));
            assert!(cut.applied <= ack.applied && cut.exceptions.iter().all(|e| ack.exceptions.contains(e)));
            let is_told = |ack: &Ack, seq: u64| seq > ack.applied || ack.exceptions.iter().any(|e| e.seq == seq);
            assert!(
                ack.exceptions.iter().all(|e| e.seq == 0 || is_told(cut, e.seq)),
                "an exception is taken as applied"
            );
        }
        other => assert_eq!(parts, std::slice::from_ref(other)),
    }
}
