//! The Debian package: built, installed into a directory of its own, looked at, removed again.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::harness::World;

/// What a package has to bring.
const INSTALLED: [&str; 8] = [
    "usr/bin/p2psync",
    "usr/lib/systemd/user/p2psync.service",
    "usr/share/bash-completion/completions/p2psync",
    "usr/share/zsh/vendor-completions/_p2psync",
    "usr/share/fish/vendor_completions.d/p2psync.fish",
    "usr/share/man/man1/p2psync.1.gz",
    "usr/share/doc/p2psync/README.md",
    "usr/share/doc/p2psync/docs/getting-started.md",
];

fn has(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}

fn must(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// dpkg as it acts on a directory that stands for a whole system.
fn dpkg(system: &Path) -> Command {
    let mut command = Command::new("dpkg");
    // Only what the package depends on is missing there; who runs the tests may be anybody.
    command.arg(format!("--root={}", system.display())).args(["--force-depends", "--force-not-root"]);
    command.args(["--force-script-chrootless", "--log=/dev/null"]);
    command
}

#[test]
fn the_debian_package_installs_and_leaves_nothing_behind() {
    let is_root = rustix::process::getuid().is_root();
    if !is_root || !["dpkg", "dpkg-deb", "objdump", "strip"].into_iter().all(has) {
        eprintln!("skipped: needs root, dpkg and binutils");
        return;
    }
    let world = World::new();
    let (packages, system) = (world.path("packages"), world.path("system"));
    let build = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/build-deb");
    must(Command::new("sh").arg(build).arg(env!("CARGO_BIN_EXE_p2psync")).arg(&packages));
    let package = fs::read_dir(&packages).unwrap().next().unwrap().unwrap().path();
    let told = must(Command::new("dpkg-deb").arg("--info").arg(&package));
    assert!(told.contains("Package: p2psync") && told.contains("Depends: libc6 (>= 2."), "{told}");

    for directory in ["var/lib/dpkg/info", "var/lib/dpkg/updates"] {
        fs::create_dir_all(system.join(directory)).unwrap();
    }
    fs::write(system.join("var/lib/dpkg/status"), "").unwrap();
    must(dpkg(&system).arg("--install").arg(&package));
    for path in INSTALLED {
        assert!(system.join(path).is_file(), "{path} is missing");
    }
    let version = must(Command::new(system.join("usr/bin/p2psync")).arg("--version"));
    assert_eq!(version.trim(), format!("p2psync {}", env!("CARGO_PKG_VERSION")));
    // What the README leads to has come along.
    let readme = fs::read_to_string(system.join("usr/share/doc/p2psync/README.md")).unwrap();
    for link in readme.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next()) {
        if link.starts_with("docs/") {
            assert!(system.join("usr/share/doc/p2psync").join(link).is_file(), "{link}");
        }
    }
    must(dpkg(&system).args(["--purge", "p2psync"]));
    assert!(INSTALLED.iter().all(|path| !system.join(path).exists()));
}
