//! The Debian package: built, installed into a directory of its own, looked at, removed again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::World;

/// What a package has to bring.
const INSTALLED: [&str; 9] = [
    "usr/bin/p2psync",
    "usr/lib/systemd/user/p2psync.service",
    "usr/share/bash-completion/completions/p2psync",
    "usr/share/zsh/vendor-completions/_p2psync",
    "usr/share/fish/vendor_completions.d/p2psync.fish",
    "usr/share/man/man1/p2psync.1.gz",
    "usr/share/doc/p2psync/README.md",
    "usr/share/doc/p2psync/changelog.gz",
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

/// The package, built into a directory.
fn build(packages: &Path) -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/build-deb");
    must(Command::new("sh").arg(script).arg(env!("CARGO_BIN_EXE_p2psync")).arg(packages));
    fs::read_dir(packages).unwrap().next().unwrap().unwrap().path()
}

#[test]
fn the_debian_changelog_begins_with_this_version() {
    let changelog = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/changelog")).unwrap();
    assert!(changelog.starts_with(&format!("p2psync ({}) ", env!("CARGO_PKG_VERSION"))), "{changelog}");
}

/// What Debian's own checker has to say of a package.
fn check_rules(package: &Path) {
    if !has("lintian") {
        return eprintln!("not checked: the rules of Debian, without lintian");
    }
    // There is no address to write to yet.
    let known = ["bogus-mail-host", "bogus-mail-host-in-debian-changelog"];
    let mut lintian = Command::new("lintian");
    lintian.args(["--allow-root", "--fail-on=none", "--suppress-tags"]).arg(known.join(",")).arg(package);
    assert_eq!(must(&mut lintian).trim(), "");
}

#[test]
fn the_debian_package_installs_and_leaves_nothing_behind() {
    let is_root = rustix::process::getuid().is_root();
    if !is_root || !["dpkg", "dpkg-deb", "objdump", "strip"].into_iter().all(has) {
        eprintln!("skipped: needs root, dpkg and binutils");
        return;
    }
    let world = World::new();
    let system = world.path("system");
    let package = build(&world.path("packages"));
    let told = must(Command::new("dpkg-deb").arg("--info").arg(&package));
    assert!(told.contains("Package: p2psync") && told.contains("Depends: libc6 (>= 2."), "{told}");

    check_rules(&package);
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
    must(dpkg(&system).args(["--verify", "p2psync"]));
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

/// What a new user does who has nothing but the package: the first start makes everything, commands find the agent, and
/// a signal ends it.
const FIRST_STEPS: &str = r#"
p2psync run 2>"$HOME/log" &
agent=$!
looks=0
until p2psync | grep -q 'p2psync is running'; do
    looks=$((looks + 1))
    [ $looks -lt 600 ] || { cat "$HOME/log"; exit 1; }
    sleep 0.1
done
echo 'Dear all,' > "$HOME/P2PSync/letter.txt"
p2psync id
p2psync status --exit-code || true
p2psync config check
kill $agent
wait $agent
"#;

/// A command in a system of its own, which sees its own processes only.
fn inside(system: &Path, options: &[&str], line: &str) -> String {
    let proc = format!("--mount-proc={}", system.join("proc").display());
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--fork", "--kill-child"]).arg(proc).args(options).arg("chroot").arg(system);
    // The tests' own surroundings stay outside.
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("DEBIAN_FRONTEND", "noninteractive");
    must(command.args(["sh", "-euc", line]))
}

/// The release of the system that the tests run on: what is built here fits a clean one of the same kind.
fn release() -> String {
    let told = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = told.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    name.expect("a release of Debian or of its like").trim_matches('"').to_owned()
}

/// Where this system takes its packages from; none: where debootstrap thinks.
fn mirror(release: &str) -> Option<String> {
    let codename = format!("Codename: {release}");
    let told = must(Command::new("apt-get").args(["indextargets", "--format", "$(REPO_URI)", &codename]));
    told.lines().next().map(str::to_owned)
}

#[test]
#[ignore = "fetches a Debian system over the network; needs root and debootstrap"]
fn the_debian_package_works_on_a_clean_system() {
    assert!(rustix::process::getuid().is_root() && has("debootstrap"), "needs root and debootstrap");
    let world = World::new();
    let (system, release) = (world.path("system"), release());
    let mut make = Command::new("debootstrap");
    make.args(["--variant=minbase", &release]).arg(&system).args(mirror(&release));
    must(&mut make);
    let package = build(&world.path("packages"));
    fs::copy(&package, system.join("root/p2psync.deb")).unwrap();

    inside(&system, &[], "apt-get install --yes --no-install-suggests /root/p2psync.deb");
    let version = inside(&system, &[], "p2psync --version");
    assert_eq!(version.trim(), format!("p2psync {}", env!("CARGO_PKG_VERSION")));
    let page = inside(&system, &[], "zcat /usr/share/man/man1/p2psync.1.gz");
    assert!(page.contains(".TH p2psync 1"), "{page}");
    let completions = "bash -c '. /usr/share/bash-completion/completions/p2psync; complete -p p2psync'";
    assert!(inside(&system, &[], completions).contains("complete"));

    // In a network of its own, in which nobody is.
    inside(&system, &[], "useradd --create-home someone");
    fs::write(system.join("home/someone/first"), FIRST_STEPS).unwrap();
    inside(&system, &["--net"], "su - someone -c 'sh -eu first'");

    inside(&system, &[], "apt-get purge --yes p2psync");
    assert!(INSTALLED.iter().all(|path| !system.join(path).exists()));
    // What is the user's stays.
    assert_eq!(fs::read_to_string(system.join("home/someone/P2PSync/letter.txt")).unwrap(), "Dear all,\n");
    assert!(system.join("home/someone/.config/p2psync/config.toml").is_file());
}
