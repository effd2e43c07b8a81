//! A TCP stream with contents that can be computed again, both ways.
//!
//! `tcp-serve port=5001` takes one connection after the other: it reads a header of three
//! little-endian 64-bit numbers (direction, bytes, seed), then receives (direction 0) or sends (1)
//! that many bytes, checks what it receives and answers a 64-bit count of good bytes; or (2) sends
//! everything back until the other end has no more, which then sees how long nothing came.
//! `tcp-send address=A.B.C.D:P bytes=N seed=1 direction=send|receive` is the other end. One line
//! `TCP sent|received bytes=N ticks=T` each.

use crate::arguments::Arguments;
use crate::clock::ticks;
use crate::pattern;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

/// What is filled and checked at a time.
const PIECE_BYTES: u64 = 64 << 10;

pub(crate) fn serve(arguments: &Arguments) -> Result<(), String> {
    let port: u16 = arguments.number("port", 5001)?;
    let listener =
        TcpListener::bind(("0.0.0.0", port)).map_err(|error| format!("port {port}: {error}"))?;
    println!("TCP serves port={port}");
    for stream in listener.incoming() {
        match stream.map_err(text).and_then(answer) {
            Ok(()) => {}
            // A peer that goes away is its own affair; bad contents are told to it, and here.
            Err(why) => println!("TCP BAD {why}"),
        }
    }
    Ok(())
}

fn answer(mut stream: TcpStream) -> Result<(), String> {
    let mut header = [0; 24];
    stream.read_exact(&mut header).map_err(text)?;
    let number = |index: usize| {
        u64::from_le_bytes(header[index * 8..][..8].try_into().expect("eight bytes"))
    };
    let (direction, bytes, seed) = (number(0), number(1), number(2));
    match direction {
        0 => {
            let good = receive(&mut stream, bytes, seed)?;
            stream.write_all(&good.to_le_bytes()).map_err(text)
        }
        1 => transmit(&mut stream, bytes, seed),
        2 => echo(&mut stream),
        other => Err(format!("direction {other}")),
    }
}

pub(crate) fn send(arguments: &Arguments) -> Result<(), String> {
    let address = arguments.text("address").ok_or("address= is missing")?;
    let bytes: u64 = arguments.number("bytes", 16 << 20)?;
    let seed: u64 = arguments.number("seed", 1)?;
    let receives = match arguments.text("direction").unwrap_or("send") {
        "send" => false,
        "receive" => true,
        other => return Err(format!("direction={other}: send or receive")),
    };
    let mut stream = TcpStream::connect(address).map_err(|error| format!("{address}: {error}"))?;
    let header: Vec<u8> = [u64::from(receives), bytes, seed]
        .iter()
        .flat_map(|number| number.to_le_bytes())
        .collect();
    stream.write_all(&header).map_err(text)?;
    if receives {
        return receive(&mut stream, bytes, seed).map(drop);
    }
    let start = ticks();
    transmit(&mut stream, bytes, seed)?;
    let mut good = [0; 8];
    stream.read_exact(&mut good).map_err(text)?;
    let good = u64::from_le_bytes(good);
    if good != bytes {
        return Err(format!("{good} of {bytes} bytes arrived as sent"));
    }
    println!("TCP acknowledged bytes={bytes} ticks={}", ticks() - start);
    Ok(())
}

fn echo(stream: &mut TcpStream) -> Result<(), String> {
    stream.set_nodelay(true).map_err(text)?;
    let mut piece = vec![0; PIECE_BYTES as usize];
    loop {
        match stream.read(&mut piece).map_err(text)? {
            0 => return Ok(()),
            length => stream.write_all(&piece[..length]).map_err(text)?,
        }
    }
}

fn transmit(stream: &mut TcpStream, bytes: u64, seed: u64) -> Result<(), String> {
    let start = ticks();
    let mut piece = vec![0; PIECE_BYTES as usize];
    for number in 0..bytes.div_ceil(PIECE_BYTES) {
        let length = PIECE_BYTES.min(bytes - number * PIECE_BYTES) as usize;
        pattern::fill(&mut piece[..length], seed, number, 0);
        stream.write_all(&piece[..length]).map_err(text)?;
    }
    println!("TCP sent bytes={bytes} ticks={}", ticks() - start);
    Ok(())
}

/// Receives and checks; the number of bytes, or where the first wrong one is.
fn receive(stream: &mut TcpStream, bytes: u64, seed: u64) -> Result<u64, String> {
    let start = ticks();
    let mut piece = vec![0; PIECE_BYTES as usize];
    for number in 0..bytes.div_ceil(PIECE_BYTES) {
        let before = number * PIECE_BYTES;
        let length = PIECE_BYTES.min(bytes - before) as usize;
        stream
            .read_exact(&mut piece[..length])
            .map_err(|error| format!("after {before} of {bytes} bytes: {error}"))?;
        if let Some(offset) = pattern::difference(&piece[..length], seed, number, 0) {
            return Err(format!("byte {} is wrong", before + offset as u64));
        }
    }
    println!("TCP received bytes={bytes} ticks={}", ticks() - start);
    Ok(bytes)
}

fn text(error: std::io::Error) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_comes_back() {
        let (mut ours, theirs) = pair();
        let server = std::thread::spawn(move || answer(theirs));
        let header = [2u64, 0, 0].map(u64::to_le_bytes).concat();
        ours.write_all(&header).unwrap();
        for piece in [&b"abc"[..], &[7; 5000]] {
            ours.write_all(piece).unwrap();
            let mut back = vec![0; piece.len()];
            ours.read_exact(&mut back).unwrap();
            assert_eq!(back, piece);
        }
        drop(ours);
        server.join().unwrap().unwrap();
    }

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (ours, listener.accept().unwrap().0)
    }

    #[test]
    fn a_stream_is_checked_at_the_other_end() {
        let bytes = 3 * PIECE_BYTES + 17;
        for (sent_as, expected) in [(5, Ok(bytes)), (6, Err("byte 0 is wrong".to_owned()))] {
            let (mut ours, mut theirs) = pair();
            let sender = std::thread::spawn(move || transmit(&mut ours, bytes, sent_as));
            assert_eq!(receive(&mut theirs, bytes, 5), expected);
            drop(theirs);
            // It may fail when the receiver gave up.
            let _ = sender.join().unwrap();
        }
    }
}
