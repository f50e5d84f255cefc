//! Which process has a port, as far as the system tells this user.

use std::path::Path;

/// State of a listening socket in the kernel's table.
const LISTENING: &str = "0A";

/// The name and id of the process that listens on a TCP port, where it can be found out.
pub fn holder(port: u16) -> Option<String> {
    let inodes: Vec<u64> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| std::fs::read_to_string(table).ok())
        .flat_map(|table| listening(&table, port))
        .collect();
    let processes = std::fs::read_dir("/proc").ok()?;
    processes.flatten().find_map(|process| {
        let pid: u32 = process.file_name().to_str()?.parse().ok()?;
        if !holds(&process.path(), &inodes) {
            return None;
        }
        let name = std::fs::read_to_string(process.path().join("comm")).ok()?;
        Some(format!("{} (process {pid})", name.trim()))
    })
}

/// Inodes of the sockets that listen on a port, from a table such as `/proc/net/tcp`.
fn listening(table: &str, port: u16) -> Vec<u64> {
    let mut inodes = Vec::new();
    for line in table.lines().skip(1) {
        let mut words = line.split_whitespace();
        let (Some(local), Some(state)) = (words.nth(1), words.nth(1)) else { continue };
        let is_port = local.rsplit_once(':').is_some_and(|(_, hex)| u16::from_str_radix(hex, 16) == Ok(port));
        if is_port && state == LISTENING {
            // After the state come queues, timer, retransmissions, user and time-out, then the inode.
            inodes.extend(words.nth(5).and_then(|inode| inode.parse::<u64>().ok()));
        }
    }
    inodes
}

fn holds(process: &Path, inodes: &[u64]) -> bool {
    let Ok(files) = std::fs::read_dir(process.join("fd")) else { return false };
    files.flatten().any(|file| {
        let target = std::fs::read_link(file.path()).unwrap_or_default();
        let inode = target.to_str().and_then(|t| t.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
        inode.is_some_and(|inode| inodes.contains(&inode))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    const TABLE: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
        0: 0100007F:1E2C 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4242 1 0 100 0 0 10 0\n\
        1: 0100007F:1E2C 0100007F:9999 01 00000000:00000000 00:00000000 00000000  1000        0 4243 1 0 100 0 0 10 0\n\
        2: 0100007F:1E2D 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4244 1 0 100 0 0 10 0\n\
        torn line\n";

    #[test]
    fn the_kernels_table_tells_who_listens() {
        assert_eq!(listening(TABLE, 7724), [4242]);
        assert_eq!(listening(TABLE, 80), [0; 0]);
        assert_eq!(listening("", 7724), [0; 0]);
    }

    #[test]
    fn a_port_of_this_process_is_found_to_be_its_own() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let found = holder(listener.local_addr().unwrap().port()).unwrap();
        assert!(found.contains(&format!("process {}", std::process::id())), "{found}");
    }
}
