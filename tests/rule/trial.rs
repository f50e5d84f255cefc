//! Trials: what a few devices may do and meet, and what has to hold whatever they do.

use super::item::{CLOSED, DEVICES_MAX, DIRECTORY, Item, NOTHING, SAME, UNIQUE_MAX, World, bit};
use super::state::{Claim, Device, State};

/// What users, and misfortune, may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    /// Writes a content that loses against all others of its kind.
    WriteSmall,
    /// Writes a content that wins.
    WriteGreat,
    /// Writes the same content as everyone else who does this, at another time.
    WriteSame,
    /// Puts there a file of the same content and mtime as everyone else who does this.
    CopySame,
    MakeDirectory,
    Delete,
    ChangeMode,
    /// Sets another mtime without writing.
    Touch,
    /// The index is lost and the disk scanned anew.
    LoseIndex,
}

/// What the devices hold when the trial begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start {
    Empty,
    /// The same content and mtime found everywhere by a first scan.
    FoundSame,
    /// The same content with another mtime found on every device.
    FoundTouched,
    /// Another content found on every device.
    FoundOther,
    /// One content on all devices, known to all.
    InSync,
}

#[derive(Clone, Copy, Debug)]
pub struct Trial {
    pub devices: usize,
    pub ops: u8,
    pub start: Start,
    pub allowed: &'static [Op],
    /// True: only the first device has a user, only the others lose their index. Then what the first holds is what
    /// all must hold in the end, without a single conflict copy.
    pub has_one_user: bool,
    /// False: a device acts on rivals as soon as it can, which makes for far fewer states.
    pub may_act_late: bool,
}

impl Trial {
    pub fn loses(&self) -> bool {
        self.allowed.contains(&Op::LoseIndex)
    }

    /// True where counts of a first scan occur.
    pub fn finds(&self) -> bool {
        self.loses() || matches!(self.start, Start::FoundSame | Start::FoundTouched | Start::FoundOther)
    }

    pub fn writes_same(&self) -> bool {
        self.start != Start::Empty || self.allowed.iter().any(|op| matches!(op, Op::WriteSame | Op::CopySame))
    }

    /// Other orders of the devices that make no difference. Ties between authors or stamps are broken by who is who.
    pub fn orders(&self) -> &'static [[usize; DEVICES_MAX]] {
        let tells_apart = |op: &Op| matches!(op, Op::CopySame | Op::ChangeMode | Op::Touch);
        match (self.devices, self.has_one_user) {
            _ if self.allowed.iter().any(tells_apart) => &[],
            (2, false) => &[[1, 0, 2]],
            (3, false) => &[[1, 0, 2], [0, 2, 1], [2, 1, 0], [1, 2, 0], [2, 0, 1]],
            (3, true) => &[[0, 2, 1]],
            _ => &[],
        }
    }

    pub fn start(&self) -> State {
        let mut state = State::default();
        for at in 0..self.devices {
            let item = &mut state.devices[at].item;
            let slot = if self.start == Start::InSync { CLOSED } else { at };
            item.content = match self.start {
                Start::Empty => continue,
                Start::FoundOther => SAME + 1 + at as u8,
                Start::FoundSame | Start::FoundTouched | Start::InSync => SAME,
            };
            item.variant = if self.start == Start::FoundTouched { at as u8 } else { 0 };
            item.author = u8::from(self.start == Start::InSync);
            item.version[slot] = 1;
            let content = item.content;
            state.claim(Claim { content, slot: slot as u8, count: 1, needs_home: true });
            if self.start != Start::InSync {
                state.found |= 1 << at;
                state.unheard |= self.all_from(at);
                state.has_concurrent = self.start == Start::FoundOther;
            }
        }
        state
    }

    /// Bits of what the others have not heard of a device.
    fn all_from(&self, from: usize) -> u16 {
        (0..self.devices).filter(|to| *to != from).map(|to| 1 << (from * DEVICES_MAX + to)).sum()
    }

    /// Every state that may come next, with whether a user's operation leads to it.
    pub fn successors(&self, world: &mut World, state: &State) -> Result<Vec<(State, bool)>, String> {
        let mut next = Vec::new();
        for at in 0..self.devices {
            for peer in (0..self.devices).filter(|peer| *peer != at) {
                let bit = 1 << (peer * DEVICES_MAX + at);
                if state.unheard & bit != 0 {
                    let mut heard = *state;
                    heard.unheard &= !bit;
                    heard.devices[at].rivals[peer] = Some(state.devices[peer].item);
                    self.settle(world, &mut heard, at)?;
                    next.push((heard, false));
                }
                let mut acted = *state;
                if self.may_act_late && self.act(world, &mut acted, at, peer)? {
                    next.push((acted, false));
                }
            }
            if state.ops < self.ops {
                for op in self.allowed {
                    if self.has_one_user && (at == 0) == (*op == Op::LoseIndex) {
                        continue;
                    }
                    let mut done = *state;
                    if self.operate(world, &mut done, at, *op)? {
                        done.ops += 1;
                        next.push((done, true));
                    }
                }
            }
        }
        Ok(next)
    }

    /// A user's operation on a device; false where there is nothing to do it to.
    fn operate(&self, world: &mut World, state: &mut State, at: usize, op: Op) -> Result<bool, String> {
        let ours = state.devices[at].item;
        let epoch = stamp_epoch(at, &state.devices[at]);
        let new = match op {
            Op::LoseIndex => return Ok(self.lose_index(state, at)),
            Op::Delete if ours.is_live() => world.deleted(at as u8, &ours),
            Op::ChangeMode | Op::Touch if ours.is_live() && !(op == Op::Touch && ours.content == DIRECTORY) => {
                let mut new = ours;
                let value = 1 + (new.meta.count * 3 + at as u8);
                (new.meta.count, new.meta.epoch) = (new.meta.count + 1, epoch);
                if op == Op::ChangeMode {
                    (new.meta.mode, new.meta.on_directory) = (value, ours.content == DIRECTORY);
                } else {
                    (new.meta.touched, new.meta.touched_on) = (value, ours.content);
                }
                new
            }
            Op::Delete | Op::ChangeMode | Op::Touch => return Ok(false),
            _ => {
                let Some((content, variant)) = self.written(state, op) else { return Ok(false) };
                if content == ours.content {
                    return Ok(false);
                }
                let tells_authors = content == SAME && self.allowed.contains(&Op::CopySame);
                let author = if content == DIRECTORY { 0 } else { 1 + u8::from(tells_authors) * at as u8 };
                edited(&ours, content, variant, author, at, epoch)
            }
        };
        if new.version != ours.version {
            self.note_change(state, at, &ours, &new);
        }
        state.devices[at].item = new;
        state.unheard |= self.all_from(at);
        self.settle(world, state, at)?;
        Ok(true)
    }

    /// Content and mtime that an operation writes.
    fn written(&self, state: &State, op: Op) -> Option<(u8, u8)> {
        let items = || state.devices.iter().flat_map(|d| std::iter::once(&d.item).chain(d.rivals.iter().flatten()));
        let unique = || items().map(|item| item.content).filter(|c| (1..=UNIQUE_MAX).contains(c));
        Some(match op {
            Op::WriteSmall => {
                let least = unique().min().unwrap_or(SAME);
                (least.min(SAME).checked_sub(1).filter(|c| *c > 0).expect("few enough contents"), 0)
            }
            Op::WriteGreat => {
                let most = unique().max().unwrap_or(SAME / 2);
                let floor = if self.writes_same() { SAME } else { 0 };
                let next = most.max(floor) + 1;
                (if next == SAME { next + 1 } else { next }, 0)
            }
            Op::WriteSame => (SAME, state.ops + 1),
            Op::CopySame => (SAME, 0),
            Op::MakeDirectory => (DIRECTORY, 0),
            _ => return None,
        })
    }

    /// What a change says of the claims: those on what it replaces are met, and its own comes in.
    fn note_change(&self, state: &mut State, at: usize, ours: &Item, new: &Item) {
        // After a first scan the version does not say which writes the bytes at hand came from.
        let knows_all = self.finds();
        for claim in state.claims.iter_mut().filter(|c| c.content == ours.content && c.content != NOTHING) {
            if ours.includes(claim.slot, claim.count) {
                *claim = Claim::default();
            } else if knows_all {
                claim.needs_home = false;
            }
        }
        let count = new.version[at];
        if new.is_live() {
            state.claim(Claim { content: new.content, slot: at as u8, count, needs_home: true });
        }
        let knows_latest = state.latest.is_none_or(|(slot, count)| ours.includes(slot, count));
        state.has_concurrent |= !knows_latest;
        state.latest = if state.has_concurrent { None } else { Some((at as u8, count)) };
    }

    /// A fresh index finds what is on the disk, and the device and its peers tell each other everything anew.
    fn lose_index(&self, state: &mut State, at: usize) -> bool {
        let ours = state.devices[at].item;
        let is_known = |(peer, other): (usize, &Device)| peer != at && other.item.includes_all(&ours);
        let is_forgotten = !state.devices[..self.devices].iter().enumerate().any(is_known);
        // Nor does anyone know that it brought back bytes on purpose which had been deleted: history has them.
        let is_own = |claim: &&mut Claim| usize::from(claim.slot) == at && [SAME, DIRECTORY].contains(&claim.content);
        for claim in state.claims.iter_mut().filter(is_own) {
            claim.needs_home &= !is_forgotten;
        }
        state.close_epoch(at);
        // Where nothing is found, the first count is that of an edit.
        state.found |= u8::from(ours.is_live()) << at;
        let tells_stamps = self.allowed.iter().any(|op| matches!(op, Op::ChangeMode | Op::Touch));
        let device = &mut state.devices[at];
        device.lost += u8::from(tells_stamps);
        device.rivals = Default::default();
        let (mode, variant) = (ours.disk_mode(), ours.disk_variant());
        let epoch = stamp_epoch(at, device);
        device.item = Item::default();
        if ours.is_live() {
            device.item = Item { content: ours.content, variant, ..Item::default() };
            device.item.version[at] = 1;
            let meta = &mut device.item.meta;
            if mode != 0 {
                (meta.count, meta.epoch, meta.mode, meta.on_directory) = (1, epoch, mode, ours.content == DIRECTORY);
            }
        }
        let to_it: u16 = (0..self.devices).filter(|p| *p != at).map(|p| 1 << (p * DEVICES_MAX + at)).sum();
        state.unheard |= self.all_from(at) | to_it;
        // What only it knew, deletions above all, never happened.
        state.forgotten |= if is_forgotten { in_use(state) } else { 0 };
        // What it forgot its user may yet know.
        (state.latest, state.has_concurrent) = (None, true);
        true
    }

    /// Drops settled rivals; where devices act at once, acts on the others until nothing changes.
    fn settle(&self, world: &mut World, state: &mut State, at: usize) -> Result<(), String> {
        while !self.may_act_late && self.act_on_any(world, state, at)? {}
        for peer in 0..self.devices {
            let device = &mut state.devices[at];
            let Some(rival) = device.rivals[peer] else { continue };
            if world.step(at as u8, state.found, &device.item, &rival).is_settled {
                device.rivals[peer] = None;
            }
        }
        Ok(())
    }

    fn act_on_any(&self, world: &mut World, state: &mut State, at: usize) -> Result<bool, String> {
        let mut acted = false;
        for peer in 0..self.devices {
            acted |= self.act(world, state, at, peer)?;
        }
        Ok(acted)
    }

    /// Acts on the rival of one peer; false where there is nothing to do.
    fn act(&self, world: &mut World, state: &mut State, at: usize, peer: usize) -> Result<bool, String> {
        let ours = state.devices[at].item;
        let Some(rival) = state.devices[at].rivals[peer] else { return Ok(false) };
        let step = world.step(at as u8, state.found, &ours, &rival);
        if step.item == ours {
            return Ok(false);
        }
        state.devices[at].item = step.item;
        if step.is_event && step.item.is_live() {
            let (content, count) = (step.item.content, step.item.version[at]);
            state.claim(Claim { content, slot: at as u8, count, needs_home: false });
        }
        if step.makes_copy {
            self.note_copy(state, &ours)?;
        }
        state.unheard |= self.all_from(at);
        if self.may_act_late {
            self.settle(world, state, at)?;
        }
        Ok(true)
    }

    fn note_copy(&self, state: &mut State, ours: &Item) -> Result<(), String> {
        if self.has_one_user {
            return Err("one user's work came into conflict with itself".to_owned());
        }
        if !state.has_concurrent {
            return Err(format!("a copy of {} though nobody worked at the same time as another", ours.content));
        }
        state.copies[usize::from(ours.author == 0)] |= bit(ours.content);
        for claim in state.claims.iter_mut().filter(|c| c.content == ours.content) {
            // The bytes are kept; under which mtime and author does not matter here.
            if self.finds() || ours.includes(claim.slot, claim.count) {
                claim.needs_home = false;
            }
        }
        Ok(())
    }

    /// What must hold always: a version names one state, and nothing that a user wrote is gone.
    pub fn check_always(&self, state: &State) -> Result<(), String> {
        let devices = &state.devices[..self.devices];
        for (at, device) in devices.iter().enumerate() {
            for other in &devices[at + 1..] {
                if device.item.version == other.item.version && !device.item.same_state(&other.item) {
                    return Err("one version, two states".to_owned());
                }
            }
        }
        let is_held = |content: u8| devices.iter().any(|device| device.item.content == content);
        match state.claims().find(|claim| claim.needs_home && !is_held(claim.content)) {
            Some(claim) => Err(format!("content {} is lost", claim.content)),
            None => Ok(()),
        }
    }

    /// What must hold when nothing is left to do.
    pub fn check_at_rest(&self, state: &State) -> Result<(), String> {
        let first = &state.devices[0].item;
        for device in &state.devices[..self.devices] {
            let item = &device.item;
            if !item.same_state(first) || item.version != first.version || item.meta != first.meta {
                return Err("the devices differ".to_owned());
            }
        }
        if let Some(claim) = state.claims().find(|claim| claim.needs_home && claim.content != first.content) {
            return Err(format!("content {} is lost", claim.content));
        }
        let may_be_back = state.forgotten & bit(first.content) != 0;
        if first.is_live() && !may_be_back && !state.claims().any(|claim| claim.content == first.content) {
            return Err(format!("content {} is back from the dead", first.content));
        }
        let [by_author, as_found] = state.copies;
        // What is found again has lost its author, and with that the name of its copy.
        if by_author & as_found != 0 && !self.loses() {
            return Err("one version became two conflict copies".to_owned());
        }
        Ok(())
    }
}

/// Contents that devices hold or have heard of.
fn in_use(state: &State) -> u32 {
    let items = state.devices.iter().flat_map(|d| std::iter::once(&d.item).chain(d.rivals.iter().flatten()));
    items.fold(0, |all, item| all | bit(item.content))
}

/// Epochs of a device as far as stamps are concerned.
fn stamp_epoch(at: usize, device: &Device) -> u8 {
    1 + at as u8 * 8 + device.lost
}

/// The entry of a local edit, with what the fresh file shows of metadata.
fn edited(ours: &Item, content: u8, variant: u8, author: u8, at: usize, epoch: u8) -> Item {
    let superseded = (ours.superseded | bit(ours.content)) & !bit(content);
    let mut new = Item { content, variant, author, superseded, ..*ours };
    new.version[at] += 1;
    // Writing in place keeps the mode, a new file has the usual one.
    let is_new = !ours.is_live() || (ours.content == DIRECTORY) != (content == DIRECTORY);
    let mode_differs = is_new && new.disk_mode() != 0;
    if mode_differs || (content != DIRECTORY && new.disk_variant() != variant) {
        (new.meta.count, new.meta.epoch) = (new.meta.count + 1, epoch);
        (new.meta.touched, new.meta.touched_on) = (0, NOTHING);
        if is_new {
            (new.meta.mode, new.meta.on_directory) = (0, false);
        }
    }
    new
}
