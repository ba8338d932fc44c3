//! Three network namespaces in a row: server, firewall, client. Deleted when dropped.

use std::ffi::OsStr;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::mms::Control;
use super::process::{Finished, Process};
use super::program_path;

/// The server's address.
pub const SERVER: &str = "10.77.1.1";
/// The client's address, behind the firewall.
pub const CLIENT: &str = "10.77.2.2";

/// A server and a client with a firewall between them.
pub struct Network {
    server: String,
    firewall: String,
    client: String,
}

impl Network {
    /// Makes it, and loads the rules (nft syntax) into the firewall.
    #[track_caller]
    pub fn new(rules: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let named = |part: &str| format!("wmrelay-{}-{number}-{part}", std::process::id());
        let network = Self { server: named("s"), firewall: named("f"), client: named("c") };
        for name in [&network.server, &network.firewall, &network.client] {
            ip(&["netns", "add", name]);
            ip(&["-n", name, "link", "set", "lo", "up"]);
        }
        // The interfaces are born in their namespaces, so their names cannot meet others on the machine.
        join(&network.server, "10.77.1.1/24", &network.firewall, "10.77.1.254/24", "server");
        join(&network.client, "10.77.2.2/24", &network.firewall, "10.77.2.254/24", "client");
        ip(&["-n", &network.server, "route", "add", "default", "via", "10.77.1.254"]);
        ip(&["-n", &network.client, "route", "add", "default", "via", "10.77.2.254"]);
        let forward = network.firewall_command("sh", &["-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"]);
        succeed(forward);
        load(&network.firewall, rules);
        network
    }

    /// Loads rules (nft syntax) into the server's own namespace.
    #[track_caller]
    pub fn load_at_server(&self, rules: &str) {
        load(&self.server, rules);
    }

    /// Loads rules (nft syntax) into the firewall, in place of all that were there.
    #[track_caller]
    pub fn load_at_firewall(&self, rules: &str) {
        load(&self.firewall, &format!("flush ruleset\n{rules}"));
    }

    /// Loads rules (nft syntax) into the client's own namespace.
    #[track_caller]
    pub fn load_at_client(&self, rules: &str) {
        load(&self.client, rules);
    }

    /// The namespace of the server.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// A command at the server.
    pub fn server_command(&self, program: &str, arguments: &[impl AsRef<OsStr>]) -> Command {
        inside(&self.server, program, arguments)
    }

    /// A command at the client.
    pub fn client_command(&self, program: &str, arguments: &[impl AsRef<OsStr>]) -> Command {
        inside(&self.client, program, arguments)
    }

    fn firewall_command(&self, program: &str, arguments: &[&str]) -> Command {
        inside(&self.firewall, program, arguments)
    }

    /// Packets that a named counter of table `ip wmrelay` has seen at the firewall.
    #[track_caller]
    pub fn counted(&self, counter: &str) -> u64 {
        counted(&self.firewall, counter)
    }

    /// The same at the server, where what leaves in one send counts as one, whatever it is cut into later.
    #[track_caller]
    pub fn counted_at_server(&self, counter: &str) -> u64 {
        counted(&self.server, counter)
    }

    /// The same at the client.
    #[track_caller]
    pub fn counted_at_client(&self, counter: &str) -> u64 {
        counted(&self.client, counter)
    }

    /// Runs a command at the server, which must succeed.
    #[track_caller]
    pub fn at_server(&self, program: &str, arguments: &[&str]) {
        succeed(self.server_command(program, arguments));
    }

    /// A connection from the client to the server's MMS port, held by a shell there.
    pub fn connect(&self, port: u16) -> Control {
        let copy = format!("exec 3<>/dev/tcp/{SERVER}/{port}; cat <&3 & cat >&3; kill $!");
        Control::over_child(self.client_command("bash", &["-c", &copy]))
    }

    /// A plain GET at the server's own loopback: the answer's body.
    #[track_caller]
    pub fn get_at_server(&self, port: u16, path: &str) -> String {
        let script = format!(
            "exec 3<>/dev/tcp/127.0.0.1/{port}; printf 'GET {path} HTTP/1.0\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' >&3; cat <&3"
        );
        let answer = succeed(self.server_command("bash", &["-c", &script])).stdout;
        super::daemon::parse_answer(&answer).1
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in [&self.client, &self.firewall, &self.server] {
            let _ = Command::new("ip").args(["netns", "del", name]).stderr(std::process::Stdio::null()).status();
        }
    }
}

fn join(one: &str, one_address: &str, other: &str, other_address: &str, link: &str) {
    let far = format!("to-{link}");
    ip(&["-n", one, "link", "add", "eth0", "type", "veth", "peer", "name", &far, "netns", other]);
    for (name, interface, address) in [(one, "eth0", one_address), (other, far.as_str(), other_address)] {
        ip(&["-n", name, "addr", "add", address, "dev", interface]);
        ip(&["-n", name, "link", "set", interface, "up"]);
    }
}

#[track_caller]
fn load(namespace: &str, rules: &str) {
    // nft reads its rules from the variable by way of the shell: no file, no quoting.
    let mut command = inside(namespace, "sh", &["-c", "printf '%s\\n' \"$RULES\" | nft -f -"]);
    command.env("RULES", rules);
    succeed(command);
}

#[track_caller]
fn counted(namespace: &str, counter: &str) -> u64 {
    let listed = succeed(inside(namespace, "nft", &["list", "counter", "ip", "wmrelay", counter]));
    let mut words = listed.stdout.split_whitespace().skip_while(|word| *word != "packets");
    words.nth(1).and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("no count in {}", listed.stdout))
}

#[track_caller]
fn ip(arguments: &[&str]) {
    let mut command = Command::new(program_path("ip").expect("ip"));
    command.args(arguments);
    succeed(command);
}

fn inside(namespace: &str, program: &str, arguments: &[impl AsRef<OsStr>]) -> Command {
    let mut command = Command::new(program_path("ip").expect("ip"));
    command.args(["netns", "exec", namespace, program]).args(arguments);
    command
}

#[track_caller]
fn succeed(command: Command) -> Finished {
    let text = format!("{command:?}");
    let finished = Process::start(command).finish(Duration::from_secs(20));
    assert!(finished.status.success(), "{text}: {}", finished.stderr);
    finished
}
