//! Which staged files of one content belong to which work: each work gets a copy of its own.

use std::collections::{BTreeMap, HashMap};

use crate::core::action::WorkId;
use crate::core::content::Content;
use crate::engine::shared::Shared;
use crate::fs::stage;

/// Numbers of copies in use, from the order until the work has been applied.
#[derive(Default)]
pub(super) struct Copies {
    /// For each copy the work, and whether it is complete.
    of_content: HashMap<Content, BTreeMap<u32, bool>>,
    of_work: HashMap<WorkId, (Content, u32)>,
}

impl Copies {
    /// The lowest free number for a work.
    pub fn take(&mut self, work: WorkId, content: Content) -> u32 {
        self.free(work);
        let used = self.of_content.entry(content).or_default();
        let copy =
            (0..).zip(used.keys()).find(|(free, used)| free != *used).map_or(used.len() as u32, |(free, _)| free);
        used.insert(copy, false);
        self.of_work.insert(work, (content, copy));
        copy
    }

    /// The work's staged file is complete.
    pub fn complete(&mut self, work: WorkId) {
        if let Some((content, copy)) = self.of_work.get(&work)
            && let Some(complete) = self.of_content.get_mut(content).and_then(|used| used.get_mut(copy))
        {
            *complete = true;
        }
    }

    /// The work is over.
    pub fn free(&mut self, work: WorkId) {
        if let Some((content, copy)) = self.of_work.remove(&work)
            && let Some(used) = self.of_content.get_mut(&content)
        {
            used.remove(&copy);
            if used.is_empty() {
                self.of_content.remove(&content);
            }
        }
    }

    /// True where some work has this copy, complete or not.
    pub fn is_used(&self, content: Content, copy: u32) -> bool {
        self.of_content.get(&content).is_some_and(|used| used.contains_key(&copy))
    }

    /// Complete copies that wait to be put into place.
    pub fn complete_of(&self, content: Content) -> Vec<u32> {
        let used = self.of_content.get(&content).into_iter().flatten();
        used.filter(|(_, complete)| **complete).map(|(copy, _)| *copy).collect()
    }

    /// Drops what lies in the stage since long ago and no work wants. Where that fails it is tried again at the next call.
    pub fn clear(&self, folder: &Shared, before_ns: i64) {
        let Ok(root) = folder.root.open() else { return };
        let idle = stage::staged_before(&root, before_ns).unwrap_or_default();
        for (content, copy) in idle.into_iter().filter(|(content, copy)| !self.is_used(*content, *copy)) {
            match stage::discard(&root, content, copy) {
                Ok(()) => {
                    tracing::debug!(folder = %folder.label, size = content.size, "an old download is dropped")
                }
                Err(problem) => tracing::warn!(folder = %folder.label, %problem, "an old download stays"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_work_has_a_number_of_its_own_until_it_is_over() {
        let mut copies = Copies::default();
        let (a, b) = (Content::of_chunk(b"a"), Content::of_chunk(b"b"));
        assert_eq!([(1, a), (2, a), (3, b), (4, a)].map(|(work, content)| copies.take(work, content)), [0, 1, 0, 2]);
        copies.complete(2);
        assert_eq!((copies.complete_of(a), copies.complete_of(b)), (vec![1], vec![]));
        copies.free(2);
        copies.free(2);
        assert_eq!((copies.complete_of(a), copies.take(5, a), copies.take(6, a)), (vec![], 1, 3));
        (1..=6).for_each(|work| copies.free(work));
        assert!(copies.of_content.is_empty() && copies.of_work.is_empty());
    }
}
