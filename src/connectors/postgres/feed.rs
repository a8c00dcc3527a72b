//! Keeps a replication connection alive while its stream is not polled, and confirms while it is.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::MissedTickBehavior;

use super::error::PostgresError;
use super::wire::{Frame, Wire};

/// How many bytes of frames wait to be polled, besides one that alone is larger.
const BUFFER_BYTES: u32 = 4 << 20;

/// How many frames do.
const BUFFER_FRAMES: usize = 4096;

/// How often the server is told that somebody listens; by default it gives up after a minute.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);

/// How long to look for the server's own reason when a connection breaks.
const LAST_WORDS_TIMEOUT: Duration = Duration::from_secs(1);

/// A frame, and the room it takes in the buffer until it is dropped.
pub(super) type Held = (Frame, OwnedSemaphorePermit);

/// What a stream reads of.
pub(super) type Frames = mpsc::Receiver<Result<Held, PostgresError>>;

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

/// Follows the connection until the frames are dropped, or it ends. The slot has confirmed a position already: a status
/// that told less would set it back.
pub(super) fn follow(wire: Wire, confirmed: u64) -> (Frames, Confirm) {
    let (frames, polled) = mpsc::channel(BUFFER_FRAMES);
    let (told, sent) = watch::channel(confirmed);
    let (wanted, confirmed) = watch::channel(confirmed);
    tokio::spawn(async move {
        let mut wire = wire;
        let result = pump(&mut wire, &frames, confirmed, &told).await;
        if let Err(error) = result {
            let error = reason(&mut wire, error).await;
            // Behind what was read before. Nobody may be there to hear it.
            let _ = frames.send(Err(error)).await;
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
    frames: &mpsc::Sender<Result<Held, PostgresError>>,
    mut confirmed: watch::Receiver<u64>,
    told: &watch::Sender<u64>,
) -> Result<(), PostgresError> {
    let room = Arc::new(Semaphore::new(BUFFER_BYTES as usize));
    let mut beat = tokio::time::interval(STATUS_INTERVAL);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // A frame that waits for room.
    let mut waiting: Option<Frame> = None;
    loop {
        let bytes = waiting.as_ref().map_or(0, bytes);
        tokio::select! {
            biased;
            () = frames.closed() => break,
            changed = confirmed.changed() => {
                if changed.is_err() {
                    break;
                }
                tell(wire, &mut confirmed, told).await?;
            }
            _ = beat.tick() => tell(wire, &mut confirmed, told).await?,
            both = async { (frames.reserve().await, Arc::clone(&room).acquire_many_owned(bytes).await) },
                if waiting.is_some() =>
            {
                if let ((Ok(place), Ok(room)), Some(frame)) = (both, waiting.take()) {
                    place.send(Ok((frame, room)));
                }
            }
            frame = wire.frame(), if waiting.is_none() => waiting = Some(frame?),
        }
    }
    // What was confirmed last is not lost with the stream.
    if *confirmed.borrow() > *told.borrow() {
        tell(wire, &mut confirmed, told).await?;
    }
    Ok(())
}

fn bytes(frame: &Frame) -> u32 {
    match frame {
        Frame::Data(data) => u32::try_from(data.len()).unwrap_or(u32::MAX).min(BUFFER_BYTES),
        Frame::KeepAlive(_) => 0,
    }
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
