//! `ringtoll drain`: asks a running node to leave, and waits until it has.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::NodeError;

/// Lets the node whose admin pages are at `admin` end in order, and returns when it has ended.
pub fn drain_node(admin: SocketAddr) -> Result<(), NodeError> {
    let wrong = |error| NodeError::Admin(admin, error);
    let answer = ask(admin, "POST", "/drain").map_err(wrong)?;
    if !answer.starts_with("HTTP/1.1 202") {
        let said = answer.lines().last().unwrap_or_default();
        return Err(wrong(io::Error::other(said.to_owned())));
    }
    let mut shown = None;
    while let Ok(page) = ask(admin, "GET", "/metrics") {
        let calls = calls_in(&page);
        if calls.is_some() && calls != shown {
            shown = calls;
            println!("calls left: {}", calls.unwrap_or_default());
        }
        std::thread::sleep(LOOK);
    }
    println!("the node has ended");
    Ok(())
}

fn calls_in(page: &str) -> Option<u64> {
    let lines = page
        .lines()
        .filter(|line| line.starts_with("ringtoll_calls{"));
    let mut counts = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
    let first = counts.next()?;
    Some(first + counts.sum::<u64>())
}

fn ask(admin: SocketAddr, method: &str, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&admin, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {admin}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.take(ANSWER_MAX).read_to_string(&mut answer)?;
    Ok(answer)
}

const PATIENCE: Duration = Duration::from_secs(5);
/// Pause between looks how many calls are left.
const LOOK: Duration = Duration::from_millis(200);
/// Longest page that is read, bytes.
const ANSWER_MAX: u64 = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_of_all_shards_are_counted() {
        let page = "ringtoll_calls{node=\"a\",shard=\"0\"} 3\nringtoll_calls{shard=\"1\"} 4\n\
                    ringtoll_calls_other{shard=\"1\"} 9\n";
        assert_eq!(calls_in(page), Some(7));
        assert_eq!(calls_in("HTTP/1.1 404 Not Found"), None);
    }
}
