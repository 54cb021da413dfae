//! Who we are, as locks, keys and snapshots record it.

/// The host, user and process that this program runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The host's name, as `uname -n` prints it.
    pub hostname: String,
    /// The user's name; the number where none is known.
    pub username: String,
    /// The user id.
    pub uid: u32,
    /// The group id.
    pub gid: u32,
    /// The process id.
    pub pid: u32,
}

impl Identity {
    /// This process.
    pub fn current() -> Self {
        let uid = rustix::process::getuid().as_raw();
        let name = user_name(uid).or_else(|| std::env::var("USER").ok().filter(|name| !name.is_empty()));
        Self {
            hostname: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            username: name.unwrap_or_else(|| uid.to_string()),
            uid,
            gid: rustix::process::getgid().as_raw(),
            pid: std::process::id(),
        }
    }
}

/// The name that the system's own table gives a user id. Directory services are not asked: this is for messages.
fn user_name(uid: u32) -> Option<String> {
    let table = std::fs::read_to_string("/etc/passwd").ok()?;
    table.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}
