//! One file whose content comes from a reader or from the output of a command.

use std::fmt;
use std::io::{self, Read};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use holdfast_repository::format::node::{Node, NodeKind, mode};
use holdfast_repository::format::time::Timestamp;
use holdfast_repository::source::{DirEntries, Entry, Found, OpenFile, Source, SourceError};

use crate::file_tree::FileTreeError;

/// How much of what a command says on its standard error is kept for the message.
const STDERR_KEPT_BYTES: usize = 4096;

/// One file under a path of its own, whose content is read once.
///
/// An error on the way, a command that fails included, means that there must be no snapshot: half a dump looks like a
/// whole one.
pub struct Stream {
    path: Vec<u8>,
    time: Timestamp,
    content: Mutex<Option<Content>>,
}

enum Content {
    Reader(Box<dyn Read + Send>),
    Command(Command),
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Stream {
    /// A file at `path` (absolute, in the snapshot) that is made at `time` of what `reader` gives.
    pub fn reader(
        path: &[u8],
        time: jiff::Timestamp,
        reader: impl Read + Send + 'static,
    ) -> Result<Self, FileTreeError> {
        Self::new(path, time, Content::Reader(Box::new(reader)))
    }

    /// A file at `path` that is made at `time` of what `command` writes to its standard output. The command is
    /// started when the file is opened, without a standard input, and killed when reading ends early.
    pub fn command(path: &[u8], time: jiff::Timestamp, command: Command) -> Result<Self, FileTreeError> {
        Self::new(path, time, Content::Command(command))
    }

    fn new(path: &[u8], time: jiff::Timestamp, content: Content) -> Result<Self, FileTreeError> {
        if crate::file_tree::components(path)?.is_empty() {
            return Err(FileTreeError::BadPath(path.to_vec()));
        }
        Ok(Self { path: path.to_vec(), time: time.into(), content: Mutex::new(Some(content)) })
    }

    /// The only entry of the directory `dir`, which is on the way to the file; `/` is the empty path.
    fn entry_in(&self, dir: &[u8]) -> Result<DirEntries, SourceError> {
        let rest = self.path.strip_prefix(dir).and_then(|rest| rest.strip_prefix(b"/"));
        let Some(rest) = rest else {
            let error = io::Error::from(io::ErrorKind::NotFound);
            return Err(SourceError::new("list", dir, error));
        };
        let length = rest.iter().position(|&byte| byte == b'/').unwrap_or(rest.len());
        let (kind, permissions) = if length < rest.len() { (NodeKind::Dir, 0o755) } else { (NodeKind::File, 0o644) };
        let node = Node {
            name: rest[..length].to_vec(),
            kind,
            mode: mode::from_unix(kind, permissions),
            mtime: self.time,
            atime: self.time,
            ctime: self.time,
            content: (kind == NodeKind::File).then(Vec::new),
            ..Node::default()
        };
        let path = self.path[..dir.len() + 1 + length].to_vec();
        Ok(Box::new(std::iter::once(Ok(Found::Entry(Entry { node, path, parent: Arc::new(()) })))))
    }
}

impl Source for Stream {
    fn paths(&self) -> Vec<Vec<u8>> {
        vec![self.path.clone()]
    }

    fn root(&self) -> Result<DirEntries, SourceError> {
        self.entry_in(b"")
    }

    fn read_dir(&self, dir: &Entry) -> Result<DirEntries, SourceError> {
        self.entry_in(&dir.path)
    }

    fn open(&self, file: &Entry) -> Result<OpenFile, SourceError> {
        let content = self.content.lock().unwrap_or_else(PoisonError::into_inner).take();
        let content: io::Result<Box<dyn Read + Send>> = match content {
            Some(Content::Reader(reader)) => Ok(reader),
            Some(Content::Command(command)) => CommandOutput::start(command).map(|output| Box::new(output) as _),
            None => Err(io::Error::other("its content was read before, and can be read only once")),
        };
        match content {
            Ok(content) => Ok(OpenFile { node: file.node.clone(), content }),
            Err(error) => Err(SourceError::new("open", file.path.clone(), error)),
        }
    }

    fn is_all_or_nothing(&self) -> bool {
        true
    }
}

/// The standard output of a running command. Its end is an error unless the command succeeded.
struct CommandOutput {
    program: String,
    child: Child,
    stdout: ChildStdout,
    stderr: Option<JoinHandle<Vec<u8>>>,
    is_finished: bool,
}

impl CommandOutput {
    fn start(mut command: Command) -> io::Result<Self> {
        let program = command.get_program().to_string_lossy().into_owned();
        let failed = |error: io::Error| io::Error::new(error.kind(), format!("cannot start {program}: {error}"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(failed)?;
        let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(failed(io::Error::other("it has no output")));
        };
        let stderr = std::thread::Builder::new().name("command-stderr".into()).spawn(move || tail(stderr))?;
        Ok(Self { program, child, stdout, stderr: Some(stderr), is_finished: false })
    }

    /// Waits for the command to end; fails unless it succeeded.
    fn finish(&mut self) -> io::Result<()> {
        let status = self.child.wait()?;
        self.is_finished = true;
        if status.success() {
            return Ok(());
        }
        let said = self.stderr.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
        let said = String::from_utf8_lossy(&said).trim().to_owned();
        let program = &self.program;
        Err(io::Error::other(match said.as_str() {
            "" => format!("command {program} failed: {status}"),
            said => format!("command {program} failed: {status}: {said}"),
        }))
    }
}

impl Read for CommandOutput {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.is_finished || buffer.is_empty() {
            return Ok(0);
        }
        let length = self.stdout.read(buffer)?;
        if length == 0 {
            self.finish()?;
        }
        Ok(length)
    }
}

impl Drop for CommandOutput {
    fn drop(&mut self) {
        if !self.is_finished {
            // Nobody wants the rest. Should it have ended by itself, there is nothing to kill.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Reads to the end and keeps the last bytes.
fn tail(mut stderr: impl Read) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut buffer = [0; 1024];
    while let Ok(length @ 1..) = stderr.read(&mut buffer) {
        kept.extend_from_slice(&buffer[..length]);
        kept.drain(..kept.len().saturating_sub(STDERR_KEPT_BYTES));
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    fn read(stream: &Stream) -> io::Result<Vec<u8>> {
        let mut entries = stream.root().unwrap();
        let mut path = Vec::new();
        loop {
            let Some(Ok(Found::Entry(entry))) = entries.next() else { panic!("no entry below {path:?}") };
            assert!(entries.next().is_none());
            path.clone_from(&entry.path);
            if entry.node.kind == NodeKind::Dir {
                entries = stream.read_dir(&entry).unwrap();
                continue;
            }
            assert_eq!(path, stream.paths()[0]);
            let mut content = Vec::new();
            let mut file = stream.open(&entry).map_err(|error| error.source)?;
            file.content.read_to_end(&mut content)?;
            assert!(stream.open(&entry).is_err(), "a second reading must fail, not be empty");
            return Ok(content);
        }
    }

    #[test]
    fn a_reader() {
        let stream = Stream::reader(b"/dumps/db.sql", jiff::Timestamp::UNIX_EPOCH, &b"content"[..]).unwrap();
        assert_eq!(read(&stream).unwrap(), b"content");
        for path in [&b"/"[..], b"", b"x", b"/a//b", b"/a/.."] {
            assert!(Stream::reader(path, jiff::Timestamp::UNIX_EPOCH, io::empty()).is_err());
        }
    }

    #[test]
    fn a_command() {
        let stream = Stream::command(b"/x", jiff::Timestamp::UNIX_EPOCH, command("seq 3; echo talk >&2")).unwrap();
        assert_eq!(read(&stream).unwrap(), b"1\n2\n3\n");
    }

    #[test]
    fn a_failing_command_is_an_error_that_says_why() {
        let stream =
            Stream::command(b"/x", jiff::Timestamp::UNIX_EPOCH, command("seq 3; echo no such db >&2; exit 7")).unwrap();
        let error = read(&stream).unwrap_err().to_string();
        assert!(error.contains("sh") && error.contains('7') && error.contains("no such db"), "{error}");
        let killed = Stream::command(b"/x", jiff::Timestamp::UNIX_EPOCH, command("seq 3; kill -9 $$")).unwrap();
        assert!(read(&killed).is_err());
        let none = Stream::command(b"/x", jiff::Timestamp::UNIX_EPOCH, Command::new("/no/such/program")).unwrap();
        assert!(read(&none).unwrap_err().to_string().contains("/no/such/program"));
    }

    #[test]
    fn a_command_that_says_much_on_stderr_does_not_block() {
        let stream = Stream::command(b"/x", jiff::Timestamp::UNIX_EPOCH, command("seq 100000 >&2; echo done")).unwrap();
        assert_eq!(read(&stream).unwrap(), b"done\n");
    }
}
