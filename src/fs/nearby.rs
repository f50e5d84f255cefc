//! Reads that come in the order of paths, each through the directory that the one before has opened.

use std::cell::RefCell;

use rustix::io::Errno;

use super::root::{Area, OpenRoot, parent_bytes};
use super::sys::{Place, SharedHandle};
use crate::core::disk::DiskState;
use crate::core::path::RelPath;
use crate::core::problem::Problem;

/// Keeps the directory of the last read open for the next one in it.
///
/// What is read through it may be as old as the opening of the directory, which a user may have renamed since. So it is
/// for a short batch of paths whose changes from its beginning on are looked at once more.
pub struct Nearby<'a> {
    root: &'a OpenRoot,
    last: RefCell<Option<Opened>>,
}

struct Opened {
    area: Area,
    path: Box<[u8]>,
    handle: SharedHandle,
}

impl<'a> Nearby<'a> {
    pub fn new(root: &'a OpenRoot) -> Self {
        Self { root, last: RefCell::default() }
    }

    /// Lets go of the directory, after what has taken long.
    pub fn forget(&self) {
        self.last.take();
    }

    pub fn root(&self) -> &'a OpenRoot {
        self.root
    }

    /// As [`OpenRoot::look`].
    pub fn look(&self, path: &RelPath) -> Result<Option<DiskState>, Problem> {
        self.root.seen(self.place(Area::Tree, path).and_then(|place| place.stat()), path)
    }

    /// The directory that holds `path`, and the name in it.
    pub(super) fn place(&self, area: Area, path: &RelPath) -> Result<Place, Errno> {
        let parent = parent_bytes(path);
        let mut last = self.last.borrow_mut();
        if let Some(opened) = last.as_ref().filter(|opened| (opened.area, &*opened.path) == (area, parent)) {
            return Ok(Place { dir: opened.handle.clone(), name: path.file_name().into() });
        }
        let place = self.root.place(area, path)?;
        *last = Some(Opened { area, path: parent.into(), handle: place.dir.clone() });
        Ok(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::testing::{Folder, path};

    #[test]
    fn neighbours_are_read_through_one_directory_and_others_through_their_own() {
        let folder = Folder::new();
        for directory in ["a", "b"] {
            std::fs::create_dir(folder.at(directory)).unwrap();
            folder.write(&format!("{directory}/x"), directory.as_bytes());
        }
        folder.write("a/y", b"long");
        let near = Nearby::new(&folder.open);
        let size = |name: &str| near.look(&path(name)).unwrap().map(|state| state.size);
        assert_eq!(
            (size("a/x"), size("a/y"), size("a/z"), size("b/x"), size("b/y")),
            (Some(1), Some(4), None, Some(1), None)
        );
        let handle = |name: &str| near.place(Area::Tree, &path(name)).unwrap().dir;
        assert!(std::sync::Arc::ptr_eq(&handle("a/x"), &handle("a/y")));
        assert!(!std::sync::Arc::ptr_eq(&handle("a/x"), &handle("b/x")));
        near.forget();
        assert_eq!(size("a/x"), Some(1));
        assert_eq!((size("missing/x"), size("a/x/z")), (None, None));
    }
}
