//! The replication connection: a session that streams changes instead of answering queries.
//!
//! The client library does not speak this part of the protocol. What is written here is only that; the messages that are
//! sent, the authentication and its hashes come from `postgres-protocol`, on which the client library itself is built,
//! and TLS is that of all other connections. Of the crates that speak it, `pgwire-replication` bounds its buffer by
//! messages and not by bytes, gives SQLSTATEs as texts, and pulls in a second TLS provider that takes minutes to build;
//! `pg_walstream` reconnects by itself and hides the keepalives, which are checkpoints here.

use std::io;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_postgres::Config;
use tokio_postgres::config::Host;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};

use super::error::PostgresError;
use super::server::{Server, quoted};
use super::tls::Mode;

/// The longest message that the server may send, which is longer than any row it can store.
const MAX_MESSAGE_BYTES: usize = 1 << 30;

/// How much is asked of the socket at once, at the least.
const READ_BYTES: usize = 64 << 10;

/// Into blocks of how much.
const BLOCK_BYTES: usize = 256 << 10;

/// How long connecting and starting may take.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// What is being done once the stream has begun, for errors.
const STREAMING: &str = "streaming changes";

/// Microseconds from 1970 to 2000, when PostgreSQL's time begins.
const EPOCH_MICROS: i64 = 946_684_800_000_000;

pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// What the server says on a stream of changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Frame {
    /// A message of the output plugin.
    Data(Bytes),
    /// Everything before this position was sent.
    KeepAlive(u64),
}

/// A replication connection.
pub(super) struct Wire {
    server: Server,
    stream: Box<dyn Stream>,
    read: BytesMut,
}

impl Wire {
    /// Connects, and starts to stream from the position that the slot has confirmed. Errors: a server that is away, or
    /// refuses; a slot that is in use.
    pub(super) async fn open(server: &Server, slot: &str, publication: &str) -> Result<Self, PostgresError> {
        let doing = "opening the replication connection";
        let opened = tokio::time::timeout(START_TIMEOUT, async {
            let mut wire = Self::connect(server, doing).await?;
            wire.start(slot, publication).await?;
            Ok(wire)
        });
        match opened.await {
            Ok(result) => result,
            Err(_) => Err(server.place.cut(doing)(io::ErrorKind::TimedOut.into())),
        }
    }

    /// One whose other end is a test.
    #[cfg(test)]
    pub(super) fn over(server: &Server, stream: impl Stream + 'static) -> Self {
        Self { server: server.clone(), stream: Box::new(stream), read: BytesMut::new() }
    }

    async fn connect(server: &Server, doing: &str) -> Result<Self, PostgresError> {
        let config = server.current_config()?;
        let cut = || server.place.cut(doing);
        let port = config.get_ports().first().copied().unwrap_or(5432);
        let (stream, host): (Box<dyn Stream>, _) = match config.get_hosts().first() {
            Some(Host::Tcp(host)) => {
                let tcp = TcpStream::connect((host.as_str(), port)).await.map_err(cut())?;
                tcp.set_nodelay(true).map_err(cut())?;
                (Box::new(tcp), host.clone())
            }
            #[cfg(unix)]
            Some(Host::Unix(directory)) => {
                let path = directory.join(format!(".s.PGSQL.{port}"));
                (Box::new(tokio::net::UnixStream::connect(path).await.map_err(cut())?), String::new())
            }
            None => return Err(PostgresError::Settings { what: "they name no host".into() }),
        };
        let mut wire = Self { server: server.clone(), stream, read: BytesMut::new() };
        if let Some((mode, mut connector)) = server.mode_and_connector()? {
            let mut request = BytesMut::new();
            frontend::ssl_request(&mut request);
            wire.stream.write_all(&request).await.map_err(cut())?;
            match (wire.stream.read_u8().await.map_err(cut())?, mode) {
                (b'S', _) => {
                    let connect = MakeTlsConnect::<Box<dyn Stream>>::make_tls_connect(&mut connector, &host)
                        .map_err(|never| match never {})?;
                    wire.stream = Box::new(connect.connect(wire.stream).await.map_err(cut())?);
                }
                (_, Mode::Prefer) => {}
                _ => {
                    return Err(server.place.cut(doing)(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "the server does not offer TLS, which the settings require",
                    )));
                }
            }
        }
        wire.log_in(&config, doing).await?;
        Ok(wire)
    }

    async fn log_in(&mut self, config: &Config, doing: &str) -> Result<(), PostgresError> {
        let user = config.get_user().unwrap_or_default();
        let parameters = [
            ("user", user),
            ("database", config.get_dbname().unwrap_or_default()),
            ("replication", "database"),
            ("client_encoding", "UTF8"),
            ("application_name", config.get_application_name().unwrap_or_default()),
            ("options", config.get_options().unwrap_or_default()),
        ];
        self.send(doing, |buffer| frontend::startup_message(parameters, buffer)).await?;
        let password = config.get_password();
        let mut scram: Option<ScramSha256> = None;
        loop {
            let (tag, mut body) = self.expect(doing).await?;
            if tag == b'Z' {
                return Ok(());
            }
            if tag != b'R' {
                continue; // notices and parameters
            }
            if body.len() < 4 {
                return Err(self.broken(doing, "an authentication request is too short"));
            }
            let kind = body.get_u32();
            let secret = || {
                password.ok_or_else(|| PostgresError::Settings {
                    what: format!("`{}` asks for a password, and none was given", self.server.place.0),
                })
            };
            match (kind, &mut scram) {
                (0, _) => {}
                (3, _) => {
                    let secret = secret()?;
                    self.send(doing, |buffer| frontend::password_message(secret, buffer)).await?;
                }
                (5, _) if body.len() >= 4 => {
                    let salt = [body[0], body[1], body[2], body[3]];
                    let hash = md5_hash(user.as_bytes(), secret()?, salt);
                    self.send(doing, |buffer| frontend::password_message(hash.as_bytes(), buffer)).await?;
                }
                (10, None) if body.split(|byte| *byte == 0).any(|name| name == SCRAM_SHA_256.as_bytes()) => {
                    // The client library keeps what it knows of the channel to itself.
                    let exchange = ScramSha256::new(secret()?, ChannelBinding::unsupported());
                    let first = exchange.message().to_vec();
                    self.send(doing, |buffer| frontend::sasl_initial_response(SCRAM_SHA_256, &first, buffer))
                        .await?;
                    scram = Some(exchange);
                }
                (11, Some(exchange)) => {
                    exchange.update(&body).map_err(self.server.place.cut(doing))?;
                    let next = exchange.message().to_vec();
                    self.send(doing, |buffer| frontend::sasl_response(&next, buffer)).await?;
                }
                (12, Some(exchange)) => exchange.finish(&body).map_err(self.server.place.cut(doing))?,
                _ => return Err(self.broken(doing, "it asks for an authentication that is not supported")),
            }
        }
    }

    async fn start(&mut self, slot: &str, publication: &str) -> Result<(), PostgresError> {
        let doing = format!("starting to stream from slot `{slot}`");
        // From 0/0: the server takes the position that the slot has confirmed.
        let names = quoted(publication).replace('\'', "''");
        let sql = format!(
            "START_REPLICATION SLOT {} LOGICAL 0/0 (proto_version '1', publication_names '{names}')",
            quoted(slot)
        );
        self.send(&doing, |buffer| frontend::query(&sql, buffer)).await?;
        loop {
            match self.expect(&doing).await? {
                (b'W', _) => return Ok(()),
                (b'N' | b'S', _) => {}
                _ => return Err(self.broken(&doing, "it answers something else")),
            }
        }
    }

    /// The next frame. Nothing is lost where the future is dropped before it is ready.
    pub(super) async fn frame(&mut self) -> Result<Frame, PostgresError> {
        loop {
            let (tag, body) = self.expect(STREAMING).await?;
            match tag {
                b'd' => return self.decode(body),
                b'N' | b'S' => {}
                b'c' | b'C' | b'Z' => {
                    let ended =
                        io::Error::new(io::ErrorKind::ConnectionAborted, "the server ended the stream");
                    return Err(self.server.place.cut(STREAMING)(ended));
                }
                _ => return Err(self.no_part_of_a_stream()),
            }
        }
    }

    /// The next frame, where all of it has been read already and nothing else goes before it.
    pub(super) fn frame_at_hand(&mut self) -> Option<Result<Frame, PostgresError>> {
        if self.read.first() != Some(&b'd') {
            return None;
        }
        match self.message_at_hand() {
            Ok(message) => message.map(|(_, body)| self.decode(body)),
            Err(error) => Some(Err(self.server.place.cut(STREAMING)(error))),
        }
    }

    fn decode(&self, mut body: Bytes) -> Result<Frame, PostgresError> {
        match body.first() {
            Some(b'w') if body.len() >= 25 => {
                body.advance(25); // the tag, two positions and a time
                Ok(Frame::Data(body))
            }
            Some(b'k') if body.len() >= 18 => {
                body.advance(1);
                let position = body.get_u64();
                // A reply that is asked for is sent with the next status at the latest, in a second.
                Ok(Frame::KeepAlive(position))
            }
            _ => Err(self.no_part_of_a_stream()),
        }
    }

    /// Tells the server that everything before `position` is durable, and nothing more.
    pub(super) async fn status(&mut self, position: u64) -> Result<(), PostgresError> {
        let mut body = BytesMut::with_capacity(34);
        body.put_u8(b'r');
        for _ in ["written", "flushed", "applied"] {
            body.put_u64(position);
        }
        body.put_i64(clock_micros());
        body.put_u8(0);
        self.send("confirming a position", |buffer| {
            frontend::CopyData::new(body.freeze())?.write(buffer);
            Ok(())
        })
        .await
    }

    /// Says goodbye, so that the slot is free at once.
    pub(super) async fn close(mut self) {
        let said = self.send("closing", |buffer| {
            frontend::copy_done(buffer);
            frontend::terminate(buffer);
            Ok(())
        });
        if said.await.is_ok() {
            let _ = self.stream.shutdown().await;
        }
    }

    async fn send(
        &mut self,
        doing: &str,
        write: impl FnOnce(&mut BytesMut) -> io::Result<()>,
    ) -> Result<(), PostgresError> {
        let mut buffer = BytesMut::new();
        write(&mut buffer).map_err(self.server.place.cut(doing))?;
        self.stream.write_all(&buffer).await.map_err(self.server.place.cut(doing))?;
        self.stream.flush().await.map_err(self.server.place.cut(doing))
    }

    /// The next message that is no error.
    async fn expect(&mut self, doing: &str) -> Result<(u8, Bytes), PostgresError> {
        let (tag, body) = self.message().await.map_err(self.server.place.cut(doing))?;
        if tag != b'E' {
            return Ok((tag, body));
        }
        let field = |wanted: u8| {
            let found = body.split(|byte| *byte == 0).find(|field| field.first() == Some(&wanted));
            found.map(|field| String::from_utf8_lossy(&field[1..]).into_owned()).unwrap_or_default()
        };
        Err(PostgresError::Refused {
            server: self.server.place.0.clone(),
            doing: doing.into(),
            code: field(b'C'),
            message: field(b'M'),
        })
    }

    /// The next message: its tag and body. What was read of one whose rest is awaited stays in the buffer.
    async fn message(&mut self) -> io::Result<(u8, Bytes)> {
        loop {
            if let Some(message) = self.message_at_hand()? {
                return Ok(message);
            }
            // Frames that wait hold on to the block they were read into: those that come one by one share it.
            if self.read.capacity() - self.read.len() < READ_BYTES {
                self.read.reserve(BLOCK_BYTES);
            }
            if self.stream.read_buf(&mut self.read).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// The next message, where all of it has been read already.
    fn message_at_hand(&mut self) -> io::Result<Option<(u8, Bytes)>> {
        let [tag, a, b, c, d, ..] = self.read[..] else { return Ok(None) };
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if !(4..=MAX_MESSAGE_BYTES).contains(&length) {
            let what = format!("a message of {length} bytes was announced");
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        if self.read.len() <= length {
            return Ok(None);
        }
        let mut message = self.read.split_to(length + 1).freeze();
        message.advance(5);
        Ok(Some((tag, message)))
    }

    fn no_part_of_a_stream(&self) -> PostgresError {
        self.broken(STREAMING, "it sends what is no part of a change stream")
    }

    fn broken(&self, doing: &str, what: &str) -> PostgresError {
        self.server.place.unexpected(format!("{doing}: {what}"))
    }
}

/// Microseconds since 2000, which the server shows to whoever monitors it.
#[expect(clippy::disallowed_types, clippy::disallowed_methods, reason = "nothing is decided by it")]
fn clock_micros() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX) - EPOCH_MICROS
}
