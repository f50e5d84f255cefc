//! The address book: what announcements told, bounded. Configured addresses are not in here.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use tokio::time::{Duration, Instant};

use crate::core::id::DeviceId;
use crate::net::discovery::Heard;
use crate::net::pairing_code::Nameplate;

/// Most devices that are remembered: a whole office. Anybody can announce any number, so there is a limit.
const DEVICES_MAX: usize = 256;
/// Most addresses of one device: a few networks, IPv4 and IPv6 on each.
const ADDRESSES_MAX: usize = 6;
/// How long an announcement says something about a pairing code: a few repetitions.
const PLATE_FRESH: Duration = Duration::from_secs(60);

/// Where devices were heard.
#[derive(Default)]
pub struct AddressBook {
    devices: BTreeMap<DeviceId, Known>,
}

struct Known {
    /// The latest first.
    addresses: Vec<SocketAddr>,
    /// Of the agent's start that was heard last; `None` where the device was not heard but found otherwise.
    instance: Option<u64>,
    plate: Option<Nameplate>,
    heard: Instant,
}

impl AddressBook {
    /// Notes an announcement; true where the device, its start or its address was not known.
    pub fn hear(&mut self, heard: &Heard, now: Instant, is_peer: impl Fn(&DeviceId) -> bool) -> bool {
        let announcement = &heard.announcement;
        let is_new_address = self.note(announcement.device, heard.address(), now, is_peer);
        let Some(known) = self.devices.get_mut(&announcement.device) else { return false };
        known.plate = announcement.pairing;
        let is_new_start = known.instance.replace(announcement.instance) != Some(announcement.instance);
        is_new_address || is_new_start
    }

    /// Notes that the device is reachable there; true where that is new.
    pub fn note(
        &mut self,
        device: DeviceId,
        address: SocketAddr,
        now: Instant,
        is_peer: impl Fn(&DeviceId) -> bool,
    ) -> bool {
        if !self.devices.contains_key(&device) && self.devices.len() >= DEVICES_MAX {
            self.forget_one(&is_peer);
        }
        let unheard = || Known { addresses: Vec::new(), instance: None, plate: None, heard: now };
        let known = self.devices.entry(device).or_insert_with(unheard);
        known.heard = now;
        let before = known.addresses.iter().position(|a| *a == address);
        if let Some(i) = before {
            known.addresses.remove(i);
        }
        known.addresses.insert(0, address);
        known.addresses.truncate(ADDRESSES_MAX);
        before.is_none()
    }

    /// Where the device was heard, the latest first.
    pub fn addresses(&self, device: &DeviceId) -> Vec<SocketAddr> {
        self.devices.get(device).map(|known| known.addresses.clone()).unwrap_or_default()
    }

    /// Addresses of the devices that show a pairing code with this public part.
    pub fn showing(&self, plate: &Nameplate, now: Instant) -> Vec<SocketAddr> {
        let shows = |known: &&Known| known.plate == Some(*plate) && now.duration_since(known.heard) <= PLATE_FRESH;
        self.devices.values().filter(shows).flat_map(|known| known.addresses.clone()).collect()
    }

    /// Strangers go first, and whoever was not heard for the longest time.
    fn forget_one(&mut self, is_peer: &impl Fn(&DeviceId) -> bool) {
        let oldest = self.devices.iter().min_by_key(|(id, known)| (is_peer(id), known.heard)).map(|(id, _)| *id);
        if let Some(oldest) = oldest {
            self.devices.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::announcement::Announcement;

    fn heard(device: u8, port: u16, instance: u64, pairing: Option<Nameplate>) -> Heard {
        let announcement = Announcement { device: DeviceId([device; 32]), port, pairing, instance };
        Heard { announcement, from: ([10, 0, 0, device], 9).into() }
    }

    #[test]
    fn only_a_new_device_start_or_address_is_news() {
        let (mut book, now) = (AddressBook::default(), Instant::now());
        let news = [heard(1, 5, 1, None), heard(1, 5, 1, None), heard(1, 5, 2, None), heard(1, 6, 2, None)]
            .map(|h| book.hear(&h, now, |_| false));
        assert_eq!(news, [true, false, true, true]);
        let ports: Vec<u16> = book.addresses(&DeviceId([1; 32])).iter().map(SocketAddr::port).collect();
        assert_eq!(ports, [6, 5]);
    }

    #[test]
    fn a_flood_of_devices_does_not_push_out_a_peer() {
        let (mut book, start) = (AddressBook::default(), Instant::now());
        let peer = DeviceId([1; 32]);
        book.hear(&heard(1, 5, 1, None), start, |_| false);
        for n in 0..1000u64 {
            let mut stranger = heard(2, 5, n, None);
            stranger.announcement.device.0[..8].copy_from_slice(&n.to_be_bytes());
            book.hear(&stranger, start + Duration::from_secs(n + 1), |id| *id == peer);
        }
        assert_eq!(book.devices.len(), DEVICES_MAX);
        assert_eq!(book.addresses(&peer).len(), 1);
    }

    #[test]
    fn a_code_is_found_by_its_public_part_as_long_as_it_is_announced() {
        let (mut book, now) = (AddressBook::default(), Instant::now());
        let (plate, other) = (Nameplate::from_bytes(b"7K"), Nameplate::from_bytes(b"8K"));
        book.hear(&heard(1, 5, 1, plate), now, |_| false);
        book.hear(&heard(2, 6, 1, other), now, |_| false);
        let plate = plate.unwrap();
        assert_eq!(book.showing(&plate, now), [SocketAddr::from(([10, 0, 0, 1], 5))]);
        assert!(book.showing(&plate, now + PLATE_FRESH * 2).is_empty());
        book.hear(&heard(1, 5, 1, None), now, |_| false);
        assert!(book.showing(&plate, now).is_empty());
    }
}
