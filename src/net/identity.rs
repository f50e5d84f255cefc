//! The device's identity: an Ed25519 key pair in a file that only its owner can read.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use ring::rand::SystemRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

use super::random_bytes;
use crate::core::id::{DeviceId, hex};
use crate::failpoint;

/// Largest key file that is read: several times what a key takes.
const KEY_BYTES_MAX: u64 = 4096;

/// This device's key pair.
pub struct Identity {
    key: Ed25519KeyPair,
    pkcs8: Vec<u8>,
}

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("cannot read the key file {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot create the key file {path}")]
    Create { path: PathBuf, source: io::Error },
    #[error(
        "the key file {path} is damaged; restore it from a backup, or move it away to get a new identity (peers must then be paired again)"
    )]
    Damaged { path: PathBuf },
}

impl Identity {
    /// The identity stored at `path`, made at the first call. A damaged file is refused, never replaced.
    pub fn load_or_create(path: &Path) -> Result<Self, IdentityError> {
        if let Some(found) = load(path)? {
            return Ok(found);
        }
        let made = Self::generate();
        match store(path, &made.pkcs8) {
            Ok(()) => Ok(made),
            // Another process was faster: its key counts.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                load(path)?.ok_or_else(|| IdentityError::Create { path: path.into(), source: error })
            }
            Err(source) => Err(IdentityError::Create { path: path.into(), source }),
        }
    }

    /// A new identity that is stored nowhere.
    pub fn generate() -> Self {
        let pkcs8 =
            Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("the operating system gives random bytes");
        Self::from_pkcs8(pkcs8.as_ref().to_vec()).expect("a key that was just made is well-formed")
    }

    /// The public key.
    pub fn device_id(&self) -> DeviceId {
        let mut id = [0; 32];
        id.copy_from_slice(self.key.public_key().as_ref());
        DeviceId(id)
    }

    /// Signature of `message` under this device's key.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        let mut signature = [0; 64];
        signature.copy_from_slice(self.key.sign(message).as_ref());
        signature
    }

    /// The key pair as PKCS#8, for TLS.
    pub(super) fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    fn from_pkcs8(pkcs8: Vec<u8>) -> Option<Self> {
        // Checks too that the stored public key belongs to the private one.
        let key = Ed25519KeyPair::from_pkcs8(&pkcs8).ok()?;
        Some(Self { key, pkcs8 })
    }
}

/// True where `signature` is that of `device` under `message`.
pub fn verify(device: &DeviceId, message: &[u8], signature: &[u8]) -> bool {
    *device != DeviceId::NONE && UnparsedPublicKey::new(&ED25519, device.0).verify(message, signature).is_ok()
}

fn load(path: &Path) -> Result<Option<Identity>, IdentityError> {
    let failed = |source| IdentityError::Read { path: path.into(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    warn_if_others_can_read(path, &file);
    let mut pkcs8 = Vec::new();
    file.take(KEY_BYTES_MAX).read_to_end(&mut pkcs8).map_err(failed)?;
    Identity::from_pkcs8(pkcs8).map(Some).ok_or_else(|| IdentityError::Damaged { path: path.into() })
}

fn warn_if_others_can_read(path: &Path, file: &File) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        if file.metadata().is_ok_and(|m| m.permissions().mode() & 0o077 != 0) {
            tracing::warn!("other users can read the key file {}; run: chmod 600 {0}", path.display());
        }
    }
    #[cfg(not(unix))]
    let _ = (path, file);
}

/// Writes the file under its name complete or not at all, and never over another.
fn store(path: &Path, pkcs8: &[u8]) -> io::Result<()> {
    let directory = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(directory)?;
    let temporary = directory.join(format!(".key-{}.tmp", hex(&random_bytes::<8>())));
    let placed = write_private(&temporary, pkcs8).and_then(|()| place(&temporary, path));
    if placed.is_err() {
        // The temporary file is this function's own; it may already be gone.
        let _ = fs::remove_file(&temporary);
    }
    placed?;
    failpoint::hit("identity.placed");
    #[cfg(unix)]
    File::open(directory)?.sync_all()?;
    failpoint::hit("identity.durable");
    Ok(())
}

fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(bytes)?;
    failpoint::hit("identity.written");
    file.sync_all()
}

/// Gives the finished file its name; fails where the name is taken.
fn place(temporary: &Path, path: &Path) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        match renameat_with(CWD, temporary, CWD, path, RenameFlags::NOREPLACE) {
            // Some file systems can't rename without replacing; a hard link does not replace either.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {}
            other => return Ok(other?),
        }
    }
    fs::hard_link(temporary, path)?;
    fs::remove_file(temporary)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_made_once_private_and_read_back() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("keys").join("device.key");
        let made = Identity::load_or_create(&path).unwrap();
        assert_eq!(Identity::load_or_create(&path).unwrap().device_id(), made.device_id());
        let names: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["device.key"]);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn a_damaged_file_is_refused_and_left_as_it_is() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("device.key");
        Identity::load_or_create(&path).unwrap();
        let good = fs::read(&path).unwrap();
        let mut flipped = good.clone();
        flipped[20] ^= 1;
        for damaged in [&b""[..], &good[..40], &flipped, &[0; 9000]] {
            fs::write(&path, damaged).unwrap();
            assert!(matches!(Identity::load_or_create(&path), Err(IdentityError::Damaged { .. })));
            assert_eq!(fs::read(&path).unwrap(), damaged);
        }
    }

    #[test]
    fn a_key_file_is_never_placed_over_another() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("device.key");
        fs::write(&path, b"precious").unwrap();
        assert_eq!(store(&path, b"other").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1);
    }

    #[test]
    fn only_the_signer_and_the_signed_bytes_verify() {
        let (a, b) = (Identity::generate(), Identity::generate());
        let signature = a.sign(b"message");
        assert!(verify(&a.device_id(), b"message", &signature));
        assert!(!verify(&b.device_id(), b"message", &signature));
        assert!(!verify(&a.device_id(), b"massage", &signature));
        assert!(!verify(&DeviceId::NONE, b"message", &signature));
        assert!(!verify(&a.device_id(), b"message", &signature[..63]));
    }
}
