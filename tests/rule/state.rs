//! A state of all devices, and its canonical form: whatever makes no difference to what may follow is left out or
//! given a fixed name, so that states that differ in nothing else are one.

use std::hash::{BuildHasher, BuildHasherDefault};

use super::hash::FastHasher;
use super::item::{CLOSED, DEVICES_MAX, DIRECTORY, Item, NOTHING, SAME, SLOTS, UNIQUE_MAX, bit};
use super::trial::Trial;

pub const CLAIMS_MAX: usize = 14;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Device {
    pub item: Item,
    pub rivals: [Option<Item>; DEVICES_MAX],
    /// How many indexes it lost; counted only where epochs of stamps depend on it.
    pub lost: u8,
}

/// An event that says that a content is to be there, and that nobody who knew of it has replaced or deleted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Claim {
    pub content: u8,
    pub slot: u8,
    pub count: u8,
    /// A user wrote it, and it has neither become a conflict copy nor been replaced by a user who had it before him.
    pub needs_home: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct State {
    pub devices: [Device; DEVICES_MAX],
    /// Bit `from * DEVICES_MAX + to`: `to` has not heard the current entry of `from`.
    pub unheard: u16,
    pub ops: u8,
    pub claims: [Claim; CLAIMS_MAX],
    /// Contents that became conflict copies, as bits: under the name of their author, and as found.
    pub copies: [u32; 2],
    /// Epochs whose first count says that something was found.
    pub found: u8,
    /// Contents whose replacement or deletion was known to a lost index alone, as bits.
    pub forgotten: u32,
    /// The last change of a user, while every change so far was made knowing all earlier ones.
    pub latest: Option<(u8, u8)>,
    /// True once two users changed something without knowing of each other.
    pub has_concurrent: bool,
}

impl State {
    pub fn claims(&self) -> impl Iterator<Item = &Claim> {
        self.claims.iter().filter(|claim| claim.content != NOTHING)
    }

    /// Adds a claim; an earlier one of the same content and epoch is included in it.
    pub fn claim(&mut self, new: Claim) {
        let same = |c: &&mut Claim| c.content == new.content && c.slot == new.slot;
        if let Some(old) = self.claims.iter_mut().find(same) {
            old.needs_home |= new.needs_home;
            old.count = new.count;
            return;
        }
        *self.claims.iter_mut().find(|c| c.content == NOTHING).expect("room for a claim") = new;
    }

    fn items(&self) -> impl Iterator<Item = &Item> {
        self.devices.iter().flat_map(|device| std::iter::once(&device.item).chain(device.rivals.iter().flatten()))
    }

    fn items_mut(&mut self) -> impl Iterator<Item = &mut Item> {
        self.devices.iter_mut().flat_map(|d| std::iter::once(&mut d.item).chain(d.rivals.iter_mut().flatten()))
    }

    /// Moves the present epoch of a device among the closed ones.
    pub fn close_epoch(&mut self, at: usize) {
        let is_free =
            |slot: &usize| self.items().all(|i| i.version[*slot] == 0) && self.claims().all(|c| c.slot != *slot as u8);
        let free = (CLOSED..SLOTS).find(is_free).expect("few enough indexes are lost");
        for item in self.items_mut() {
            item.version.swap(at, free);
        }
        for claim in &mut self.claims {
            if claim.content != NOTHING && usize::from(claim.slot) == at {
                claim.slot = free as u8;
            }
        }
        if let Some((slot, _)) = self.latest.as_mut().filter(|(slot, _)| usize::from(*slot) == at) {
            *slot = free as u8;
        }
        let was_found = self.found >> at & 1;
        self.found = self.found & !(1 << at) & !(1 << free) | was_found << free;
    }

    /// Leaves out and renames what makes no difference.
    pub fn compact(&mut self, trial: &Trial) {
        let in_use = self.items().fold(0, |all, item| all | bit(item.content));
        for claim in &mut self.claims {
            if bit(claim.content) & in_use == 0 {
                *claim = Claim::default();
            }
        }
        self.compact_contents(trial, in_use);
        for slot in 0..SLOTS {
            self.compact_counts(trial, slot);
        }
        if trial.loses() {
            self.sort_closed();
        }
        self.claims.sort_unstable_by_key(|claim| (claim.content == NOTHING, *claim));
    }

    /// Only the order of contents matters, and which of them are above and below the one that all may write.
    fn compact_contents(&mut self, trial: &Trial, in_use: u32) {
        let mut names = [NOTHING; DIRECTORY as usize + 1];
        (names[usize::from(SAME)], names[usize::from(DIRECTORY)]) = (SAME, DIRECTORY);
        let below = (in_use & (bit(SAME) - 1)).count_ones() as u8;
        let mut next = if trial.writes_same() { SAME - below } else { SAME / 2 };
        for content in 1..=UNIQUE_MAX {
            if content == SAME {
                next = if trial.writes_same() { SAME + 1 } else { next };
            } else if in_use & bit(content) != 0 {
                next += u8::from(next == SAME);
                names[usize::from(content)] = next;
                next += 1;
            }
        }
        let name = |content: u8| names[usize::from(content)];
        let rename_bits =
            |bits: u32| (1..=DIRECTORY).filter(|c| bits & bit(*c) != 0).fold(0, |all, c| all | bit(name(c)));
        let keeps_lists = trial.finds();
        for item in self.items_mut() {
            item.content = name(item.content);
            item.superseded = if keeps_lists { rename_bits(item.superseded) } else { 0 };
            item.meta.touched_on = name(item.meta.touched_on);
            item.meta.touched = if item.meta.touched_on == NOTHING { 0 } else { item.meta.touched };
        }
        for claim in &mut self.claims {
            claim.content = name(claim.content);
        }
        self.forgotten = rename_bits(self.forgotten & in_use);
        self.copies = self.copies.map(|copies| rename_bits(copies & in_use & !bit(SAME) & !bit(DIRECTORY)));
    }

    /// Counts of an epoch are compared with each other only.
    fn compact_counts(&mut self, trial: &Trial, slot: usize) {
        let mut used: u64 = self.items().fold(0, |all, item| all | 1 << item.version[slot]);
        used |= self.claims().filter(|c| usize::from(c.slot) == slot).fold(0, |all, c| all | 1 << c.count);
        if let Some((_, count)) = self.latest.filter(|(s, _)| usize::from(*s) == slot) {
            used |= 1 << count;
        }
        let is_found = self.found >> slot & 1 != 0;
        if is_found && used == 1 && slot >= CLOSED {
            self.found &= !(1 << slot);
        }
        // A fresh entry has no counts at all, and a found count is always the first.
        used |= if is_found { 0b11 } else { u64::from(trial.loses()) };
        if used & (used + 1) == 0 {
            return;
        }
        let rank = |count: u8| (used & ((1 << count) - 1)).count_ones() as u8;
        for item in self.items_mut() {
            item.version[slot] = rank(item.version[slot]);
        }
        for claim in self.claims.iter_mut().filter(|c| c.content != NOTHING && usize::from(c.slot) == slot) {
            claim.count = rank(claim.count);
        }
        if let Some((_, count)) = self.latest.as_mut().filter(|(s, _)| usize::from(*s) == slot) {
            *count = rank(*count);
        }
    }

    /// Which closed epoch is which makes no difference.
    fn sort_closed(&mut self) {
        let mut order: [usize; SLOTS] = std::array::from_fn(|slot| slot);
        let column = |slot: usize| {
            let mut column = [0u8; DEVICES_MAX * (DEVICES_MAX + 1) + CLAIMS_MAX + 1];
            for (at, device) in self.devices.iter().enumerate() {
                column[at] = device.item.version[slot];
                for (peer, rival) in device.rivals.iter().enumerate() {
                    column[DEVICES_MAX * (1 + at) + peer] = rival.map_or(0, |rival| rival.version[slot]);
                }
            }
            let rest = &mut column[DEVICES_MAX * (DEVICES_MAX + 1)..];
            for (place, claim) in rest.iter_mut().zip(self.claims()) {
                *place = if usize::from(claim.slot) == slot { claim.content * 8 + claim.count } else { 0 };
            }
            rest[CLAIMS_MAX] = self.found >> slot & 1;
            column
        };
        order[CLOSED..].sort_by_cached_key(|slot| std::cmp::Reverse(column(*slot)));
        if order.is_sorted() {
            return;
        }
        self.rename_slots(&order);
    }

    /// Gives epoch `order[i]` the name `i`.
    fn rename_slots(&mut self, order: &[usize; SLOTS]) {
        let mut names = [0u8; SLOTS];
        order.iter().enumerate().for_each(|(new, old)| names[*old] = new as u8);
        for item in self.items_mut() {
            item.version = std::array::from_fn(|slot| item.version[order[slot]]);
        }
        for claim in self.claims.iter_mut().filter(|c| c.content != NOTHING) {
            claim.slot = names[usize::from(claim.slot)];
        }
        if let Some((slot, _)) = &mut self.latest {
            *slot = names[usize::from(*slot)];
        }
        self.found = (0..SLOTS).fold(0, |all, slot| all | (self.found >> order[slot] & 1) << slot);
    }

    /// The same state with the devices under other names: device `order[i]` becomes `i`.
    fn permuted(&self, order: &[usize; DEVICES_MAX]) -> State {
        let mut new = *self;
        new.unheard = 0;
        for (at, old) in order.iter().enumerate() {
            let device = &self.devices[*old];
            new.devices[at] = Device { rivals: std::array::from_fn(|peer| device.rivals[order[peer]]), ..*device };
            for (to, old_to) in order.iter().enumerate() {
                new.unheard |= (self.unheard >> (old * DEVICES_MAX + old_to) & 1) << (at * DEVICES_MAX + to);
            }
        }
        let slots = std::array::from_fn(|slot| if slot < DEVICES_MAX { order[slot] } else { slot });
        new.rename_slots(&slots);
        new
    }

    /// A number for all states that differ in names alone. The state has to be compact.
    pub fn key(&self, trial: &Trial) -> u64 {
        let hash = |state: &State| BuildHasherDefault::<FastHasher>::default().hash_one(state);
        let renamed = trial.orders().iter().map(|order| {
            let mut state = self.permuted(order);
            if trial.loses() {
                state.sort_closed();
            }
            state.claims.sort_unstable_by_key(|claim| (claim.content == NOTHING, *claim));
            hash(&state)
        });
        renamed.fold(hash(self), u64::min)
    }
}
