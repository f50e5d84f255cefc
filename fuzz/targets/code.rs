//! What people type: pairing codes, device ids, folder ids; and the public part of a code, which a peer sends.

use p2psync::core::id::{DeviceId, FolderId};
use p2psync::net::pairing_code::{Nameplate, PairingCode};

use super::check;

pub fn run(data: &[u8]) {
    if let Some(plate) = Nameplate::from_bytes(data) {
        assert_eq!(plate.as_bytes(), data);
        check::shown(&plate.to_string(), 2);
    }
    let typed = String::from_utf8_lossy(data);
    match typed.parse::<PairingCode>() {
        Ok(code) => {
            let shown = code.to_string();
            check::shown(&shown, 9);
            assert_eq!(shown.parse(), Ok(code.clone()));
            assert_eq!(shown.to_lowercase().replace('-', "  ").parse(), Ok(code.clone()));
            assert_eq!(Nameplate::from_bytes(code.nameplate().as_bytes()), Some(code.nameplate()));
            assert!(!format!("{code:?}").contains(&shown[5..]), "the secret is shown");
        }
        Err(error) => check::error_text(&error.to_string()),
    }
    match typed.parse::<DeviceId>() {
        Ok(id) => {
            let shown = id.to_string();
            assert_eq!(shown.len(), 63);
            assert!(shown.starts_with(&id.short()));
            assert_eq!(shown.parse(), Ok(id));
            assert_eq!(shown.to_lowercase().replace('-', " ").parse(), Ok(id));
        }
        Err(error) => check::error_text(&error.to_string()),
    }
    match typed.parse::<FolderId>() {
        Ok(id) => {
            assert_eq!(id.as_str(), typed);
            check::shown(id.as_str(), 64);
            assert!(!id.as_str().contains('/') && id.as_str() != "." && id.as_str() != "..", "an id that leads away");
        }
        Err(error) => check::error_text(&error.to_string()),
    }
}
