//! The rule that leaves one connection where two devices dialled each other at the same time.

use crate::core::id::DeviceId;

/// True where this connection is the one that stays: the one that the device with the greater id dialled.
///
/// Both sides come to the same answer for the same connection.
pub fn keep_which(own: DeviceId, peer: DeviceId, dialled_by_us: bool) -> bool {
    dialled_by_us == (own > peer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_keep_the_same_one_of_two_crossed_connections() {
        let (a, b) = (DeviceId([1; 32]), DeviceId([2; 32]));
        for (dialler, other) in [(a, b), (b, a)] {
            assert_eq!(keep_which(dialler, other, true), keep_which(other, dialler, false));
        }
        assert_ne!(keep_which(a, b, true), keep_which(a, b, false));
    }
}
