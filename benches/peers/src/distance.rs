//! A server that is farther away than it is.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// Where a server on this port is reached: there, or, where `DISTANCE_US` says so, through something that keeps whatever comes
/// for so many microseconds in each direction. Its threads and copies take processor time of their own.
pub(crate) fn port(server: u16) -> u16 {
    let Ok(distance) = std::env::var("DISTANCE_US") else { return server };
    let distance = Duration::from_micros(distance.parse().expect("DISTANCE_US is a number"));
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let server = TcpStream::connect(("127.0.0.1", server)).expect("the server listens");
            for stream in [&client, &server] {
                stream.set_nodelay(true).expect("a socket");
            }
            pass(client.try_clone().expect("a socket"), server.try_clone().expect("a socket"), distance);
            pass(server, client, distance);
        }
    });
    port
}

/// Passes everything on, so much later.
fn pass(mut from: TcpStream, mut to: TcpStream, later: Duration) {
    let (send, receive) = mpsc::channel::<(Instant, Vec<u8>)>();
    thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            if send.send((Instant::now() + later, buffer[..count].to_vec())).is_err() {
                break;
            }
        }
    });
    thread::spawn(move || {
        for (at, bytes) in receive {
            thread::sleep(at.saturating_duration_since(Instant::now()));
            if to.write_all(&bytes).is_err() {
                break;
            }
        }
        // Whoever is gone already need not be told.
        let _ = to.shutdown(Shutdown::Write);
    });
}
