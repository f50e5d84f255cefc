//! Further connections of whole devices over loopback.

use std::sync::atomic::Ordering::SeqCst;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::common::lock;
use super::tests::{Device, pair_of_devices, until};
use super::*;
use crate::net::codec::encode;
use crate::net::frame::{Chunks, Frame, Lanes};
use crate::net::lane::{self, LANES_ALL_MAX, LANES_MAX, LaneKey};
use crate::net::tls::{self, Secured, Tls};

/// How many lanes a device has.
fn lanes(device: &Device) -> usize {
    LANES_ALL_MAX - device.links.common.lanes_room.available_permits()
}

async fn wait_lanes(device: &Device, count: usize) {
    until(|| (lanes(device) == count).then_some(())).await;
}

/// By which lanes of the first device join its link with the second.
async fn key_at(dialled: &Device, peer: DeviceId) -> LaneKey {
    until(|| lock(&dialled.links.common.doors).get(&peer).map(|door| door.key)).await
}

/// A connection of a device's own making with another, to join a link.
async fn connection(from: &Device, to: &Device) -> Secured {
    let tls = Tls::new(&from.identity, Arc::new(|_| true)).unwrap();
    tls::connect_lane(socket::dial(to.links.address()).await.unwrap(), to.id, &tls).await.unwrap()
}

async fn joined(from: &Device, to: &Device, key: LaneKey) -> Result<Secured, NetError> {
    let mut secured = connection(from, to).await;
    lane::join(&mut secured.stream, key).await.map(|()| secured)
}

async fn ask_for(dialled: &Device, dialling: &Device, wanted: u16) {
    let key = key_at(dialled, dialling.id).await;
    dialled.linked(dialling.id).await.outbox.control(&Frame::Lanes(Lanes { key, wanted })).unwrap();
}

#[tokio::test]
async fn the_device_that_dialled_opens_as_many_lanes_as_the_other_wants_and_no_more_than_the_most() {
    let (a, b) = pair_of_devices().await;
    let (mut at_a, _at_b) = (a.run_folder("photos"), b.run_folder("photos"));
    at_a.next().await;
    ask_for(&b, &a, 2).await;
    wait_lanes(&a, 2).await;
    wait_lanes(&b, 2).await;
    ask_for(&b, &a, u16::MAX).await;
    wait_lanes(&a, LANES_MAX).await;
    wait_lanes(&b, LANES_MAX).await;
    let link = b.linked(a.id).await;
    for _ in 0..200 {
        let items = vec![(0, Bytes::from(vec![0; 50_000]))];
        link.outbox.bulk(encode(&Frame::Chunks(Chunks { request: 7, items })).unwrap()).await.unwrap();
    }
    until(|| (at_a.chunks.lock().unwrap().len() == 200).then_some(())).await;
    // One more of the peer's own accord is refused, and the link goes on.
    assert!(joined(&a, &b, key_at(&b, a.id).await).await.is_err());
    assert_eq!((lanes(&a), lanes(&b)), (LANES_MAX, LANES_MAX));
    link.end("test");
    wait_lanes(&a, 0).await;
    wait_lanes(&b, 0).await;
}

#[tokio::test]
async fn lanes_that_are_dialled_and_no_longer_wanted_when_they_come_leave_with_a_goodbye() {
    let (a, b) = pair_of_devices().await;
    let (mut at_a, mut at_b) = (a.run_folder("photos"), b.run_folder("photos"));
    assert_eq!((at_a.next().await, at_b.next().await), ("connected".into(), "connected".into()));
    ask_for(&b, &a, u16::MAX).await;
    ask_for(&b, &a, 0).await;
    let dialling = async {
        while lanes(&a) == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), dialling).await.expect("it dials");
    wait_lanes(&a, 0).await;
    wait_lanes(&b, 0).await;
    assert_eq!((at_a.lost.load(SeqCst), at_b.lost.load(SeqCst)), (0, 0));
}

#[tokio::test]
async fn the_device_that_was_dialled_does_not_dial_at_the_other_ones_bidding() {
    let (a, b) = pair_of_devices().await;
    let _folders = (a.run_folder("photos"), b.run_folder("photos"));
    let link = a.linked(b.id).await;
    let mut at_b = b.run_folder("photos");
    link.outbox.control(&Frame::Lanes(Lanes { key: LaneKey::random(), wanted: 5 })).unwrap();
    // A later frame on the same connection has been taken in.
    at_b.next().await;
    assert_eq!((lanes(&a), lanes(&b)), (0, 0));
}

#[tokio::test]
async fn a_connection_joins_only_with_the_key_of_the_link_that_is_up() {
    let (a, b) = pair_of_devices().await;
    let link = a.linked(b.id).await;
    let key = key_at(&b, a.id).await;
    assert!(joined(&a, &b, LaneKey::random()).await.is_err());
    let lane = joined(&a, &b, key).await.unwrap();
    wait_lanes(&b, 1).await;
    link.end("test");
    let again = until(|| lock(&b.links.common.doors).get(&a.id).map(|d| d.key).filter(|k| *k != key)).await;
    assert!(joined(&a, &b, key).await.is_err(), "a key of a link that is gone");
    drop(lane);
    let _lane = joined(&a, &b, again).await.unwrap();
}

#[tokio::test]
async fn a_lane_that_is_cut_has_what_was_asked_for_asked_again_and_the_link_goes_on() {
    let (a, b) = pair_of_devices().await;
    let (mut at_a, mut at_b) = (a.run_folder("photos"), b.run_folder("photos"));
    assert_eq!((at_a.next().await, at_b.next().await), ("connected".into(), "connected".into()));
    let link = b.linked(a.id).await;
    let lane = joined(&a, &b, key_at(&b, a.id).await).await.unwrap();
    wait_lanes(&b, 1).await;
    assert_eq!(at_b.lost.load(SeqCst), 0);
    drop(lane);
    until(|| (at_b.lost.load(SeqCst) == 1).then_some(())).await;
    wait_lanes(&b, 0).await;
    assert!(b.linked(a.id).await.is_same_link(&link));
}

#[tokio::test]
async fn a_peer_that_sends_other_things_over_a_lane_loses_its_link() {
    let (a, b) = pair_of_devices().await;
    let (mut at_a, mut at_b) = (a.run_folder("photos"), b.run_folder("photos"));
    assert_eq!((at_a.next().await, at_b.next().await), ("connected".into(), "connected".into()));
    let mut lane = joined(&a, &b, key_at(&b, a.id).await).await.unwrap();
    let hello = Frame::Hello(a.links.common.hello(&a.links.common.offers(&b.id).unwrap()));
    lane.stream.write_all(&encode(&hello).unwrap().parts().concat()).await.unwrap();
    lane.stream.flush().await.unwrap();
    assert_eq!(at_b.next().await, "lost");
    assert!(until(|| a.status_of(b.id).last_error).await.contains("does not belong there"));
}

#[tokio::test]
async fn a_removed_peer_loses_its_lanes_at_once() {
    let (a, b) = pair_of_devices().await;
    a.linked(b.id).await;
    let mut lane = joined(&a, &b, key_at(&b, a.id).await).await.unwrap();
    wait_lanes(&b, 1).await;
    b.links.set_config(LinkConfig { peers: vec![], ..b.config.clone() });
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(20), lane.stream.read_to_end(&mut rest));
    // An end of the stream or a broken one are the same here.
    let _ = ended.await.expect("the lane ends");
    wait_lanes(&b, 0).await;
    assert!(b.link(a.id).is_none());
}
