//! Keeps a replication connection alive while its stream is not polled, and confirms while it is.

use std::sync::Arc;
use std::time::Duration;
use std::vec::IntoIter;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::MissedTickBehavior;

use super::error::PostgresError;
use super::wire::{Frame, Wire};

/// How many bytes of frames wait to be polled, besides a batch that waits for room.
const BUFFER_BYTES: u32 = 4 << 20;

/// How many batches of them do.
const BUFFER_BATCHES: usize = 1024;

/// How often the server is told that somebody listens; by default it gives up after a minute.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);

/// How long to look for the server's own reason when a connection breaks.
const LAST_WORDS_TIMEOUT: Duration = Duration::from_secs(1);

/// Frames that came at once. They take their room in the buffer until the last is dropped: with each for itself, a frame of
/// some bytes would cost as much to pass on as to decode.
#[derive(Debug)]
pub(super) struct Batch {
    frames: IntoIter<Frame>,
    _room: OwnedSemaphorePermit,
}

impl Iterator for Batch {
    type Item = Frame;

    fn next(&mut self) -> Option<Frame> {
        self.frames.next()
    }
}

/// What a stream reads of.
pub(super) type Batches = mpsc::Receiver<Result<Batch, PostgresError>>;

/// How positions are confirmed on a connection.
#[derive(Debug, Clone)]
pub(super) struct Confirm {
    wanted: Arc<watch::Sender<u64>>,
    sent: watch::Receiver<u64>,
}

impl Confirm {
    /// Confirms a position, and returns once the server was told. `false` where the connection is gone.
    pub(super) async fn confirm(&self, position: u64) -> bool {
        self.wanted.send_if_modified(|wanted| {
            let newer = position > *wanted;
            *wanted = position.max(*wanted);
            newer
        });
        self.sent.clone().wait_for(|sent| *sent >= position).await.is_ok()
    }
}

/// Follows the connection until the batches are dropped, or it ends. The slot has confirmed a position already: a status
/// that told less would set it back.
pub(super) fn follow(wire: Wire, confirmed: u64) -> (Batches, Confirm) {
    let (batches, polled) = mpsc::channel(BUFFER_BATCHES);
    let (told, sent) = watch::channel(confirmed);
    let (wanted, confirmed) = watch::channel(confirmed);
    tokio::spawn(async move {
        let mut wire = wire;
        let result = pump(&mut wire, &batches, confirmed, &told).await;
        if let Err(error) = result {
            let error = reason(&mut wire, error).await;
            // Behind what was read before. Nobody may be there to hear it.
            let _ = batches.send(Err(error)).await;
        } else {
            wire.close().await;
        }
    });
    (polled, Confirm { wanted: Arc::new(wanted), sent })
}

/// Why a connection broke: where it could not be written to, the server may have said so before.
async fn reason(wire: &mut Wire, error: PostgresError) -> PostgresError {
    if !matches!(error, PostgresError::Connection { .. }) {
        return error;
    }
    let last_words = async {
        loop {
            if let Err(error) = wire.frame().await {
                return error;
            }
        }
    };
    match tokio::time::timeout(LAST_WORDS_TIMEOUT, last_words).await {
        Ok(said @ PostgresError::Refused { .. }) => said,
        _ => error,
    }
}

async fn pump(
    wire: &mut Wire,
    batches: &mpsc::Sender<Result<Batch, PostgresError>>,
    mut confirmed: watch::Receiver<u64>,
    told: &watch::Sender<u64>,
) -> Result<(), PostgresError> {
    let room = Arc::new(Semaphore::new(BUFFER_BYTES as usize));
    let mut beat = tokio::time::interval(STATUS_INTERVAL);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Frames that wait for room, and the failure behind them: where the connection breaks meanwhile, it is why.
    let mut waiting: Vec<Frame> = Vec::new();
    let mut failure = None;
    loop {
        let bytes = bytes(&waiting);
        tokio::select! {
            biased;
            () = batches.closed() => break,
            changed = confirmed.changed() => {
                if changed.is_err() {
                    break;
                }
                tell(wire, &mut confirmed, told).await.map_err(|error| failure.take().unwrap_or(error))?;
            }
            _ = beat.tick() => tell(wire, &mut confirmed, told).await.map_err(|error| failure.take().unwrap_or(error))?,
            both = async { (batches.reserve().await, Arc::clone(&room).acquire_many_owned(bytes).await) },
                if !waiting.is_empty() =>
            {
                if let (Ok(place), Ok(room)) = both {
                    let frames = std::mem::take(&mut waiting).into_iter();
                    place.send(Ok(Batch { frames, _room: room }));
                }
                if let Some(error) = failure.take() {
                    return Err(error);
                }
            }
            frame = wire.frame(), if waiting.is_empty() => {
                waiting.push(frame?);
                while let Some(frame) = wire.frame_at_hand() {
                    match frame {
                        Ok(frame) => waiting.push(frame),
                        Err(error) => {
                            failure = Some(error);
                            break;
                        }
                    }
                }
            }
        }
    }
    // What was confirmed last is not lost with the stream.
    if *confirmed.borrow() > *told.borrow() {
        tell(wire, &mut confirmed, told).await?;
    }
    Ok(())
}

/// What these frames take of the buffer.
fn bytes(frames: &[Frame]) -> u32 {
    let held = |frame: &Frame| match frame {
        Frame::Data(data) => data.len() + size_of::<Frame>(),
        Frame::KeepAlive(_) => size_of::<Frame>(),
    };
    u32::try_from(frames.iter().map(held).sum::<usize>()).unwrap_or(u32::MAX).min(BUFFER_BYTES)
}

async fn tell(
    wire: &mut Wire,
    confirmed: &mut watch::Receiver<u64>,
    told: &watch::Sender<u64>,
) -> Result<(), PostgresError> {
    let position = *confirmed.borrow_and_update();
    wire.status(position).await?;
    told.send_replace(position);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt as _;

    use super::super::server::Server;
    use crate::error::Fault;

    /// A message of the server.
    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
        [&[tag], &length[..], body].concat()
    }

    fn data(payload: &[u8]) -> Vec<u8> {
        message(b'd', &[b"w", &[0; 24][..], payload].concat())
    }

    /// What is received of a server that sends these bytes at once, and no more.
    async fn received(bytes: Vec<u8>) -> (Vec<Vec<Frame>>, PostgresError) {
        let server = Server::new("host=nowhere dbname=shop user=reader").unwrap();
        let (mut theirs, ours) = tokio::io::duplex(1 << 20);
        theirs.write_all(&bytes).await.unwrap();
        theirs.shutdown().await.unwrap();
        let (mut batches, _confirm) = follow(Wire::over(&server, ours), 0);
        let mut frames = Vec::new();
        loop {
            match batches.recv().await.unwrap() {
                Ok(batch) => frames.push(batch.collect()),
                Err(error) => return (frames, error),
            }
        }
    }

    fn frames() -> Vec<Frame> {
        vec![Frame::Data("first".into()), Frame::KeepAlive(7), Frame::Data("second".into())]
    }

    fn sent() -> Vec<u8> {
        let keep_alive = message(b'd', &[b"k", &7_u64.to_be_bytes()[..], &[0; 9]].concat());
        [data(b"first"), keep_alive, data(b"second")].concat()
    }

    #[tokio::test]
    async fn what_comes_at_once_is_passed_on_at_once() {
        let half = data(b"whose rest does not come");
        let (received, error) = received([sent(), half[..10].to_vec()].concat()).await;
        assert_eq!(received, [frames()]);
        assert!(matches!(error, PostgresError::Connection { .. }), "{error}");
    }

    /// Else each small change would keep a whole block for as long as it waits.
    #[tokio::test]
    async fn what_comes_one_by_one_shares_its_memory() {
        let server = Server::new("host=nowhere dbname=shop user=reader").unwrap();
        let (mut theirs, ours) = tokio::io::duplex(1 << 20);
        let (mut batches, _confirm) = follow(Wire::over(&server, ours), 0);
        let mut held: Vec<Batch> = Vec::new();
        let mut places = Vec::new();
        for _ in 0..100 {
            theirs.write_all(&data(b"change")).await.unwrap();
            let batch = batches.recv().await.unwrap().unwrap();
            let [Frame::Data(bytes)] = batch.frames.as_slice() else { panic!("{batch:?}") };
            places.push(bytes.as_ptr() as usize);
            held.push(batch);
        }
        let step = data(b"change").len();
        assert!(places.windows(2).all(|pair| pair[1] == pair[0] + step), "{places:?}");
    }

    #[tokio::test]
    async fn a_failure_comes_behind_what_was_sent_before_it() {
        let reason = message(b'E', b"C57P01\0Mterminating\0\0");
        let malformed = message(b'd', b"?");
        let too_long = [b'd', 0xff, 0xff, 0xff, 0xff].to_vec();
        for (behind, expected) in
            [(reason, "terminating"), (malformed, "no part of a change stream"), (too_long, "was announced")]
        {
            let (received, error) = received([sent(), behind].concat()).await;
            assert_eq!(received, [frames()], "{error}");
            let error = Fault::from(error);
            assert!(error.message().contains(expected), "{error}");
        }
    }
}
