//! What stands between the engine and the search server: it does to requests what the [weather](Weather) is, lends itself to
//! kills at a chosen moment, and remembers what was written.

use std::io::Read as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use crate::bulk::{self, Newest};
use crate::random::Random;
use crate::tally::{Group, Result, Tally, locked};
use crate::weather::{Fault, Weather};
use crate::wire::{Request, Response, forward, read_request, write};

/// How long a request that sprung a trap waits for the kill.
const KILL_TAKES: Duration = Duration::from_millis(300);

/// When, in the life of a request, a trap springs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    /// It has arrived, and the server has not done it.
    Before,
    /// The server has done it, and nothing was answered.
    After,
}

struct Trap {
    bulk: bool,
    moment: Moment,
    /// How many such requests pass before it springs.
    passes: u64,
    sprung: oneshot::Sender<()>,
}

struct Shared {
    server: SocketAddr,
    tally: Arc<Tally>,
    weather: Mutex<Weather>,
    random: Mutex<Random>,
    trap: Mutex<Option<Trap>>,
    newest: Mutex<Newest>,
    late: AtomicUsize,
}

pub(crate) struct Proxy {
    pub(crate) url: String,
    shared: Arc<Shared>,
}

/// What goes back.
enum Reply {
    Answer(Vec<u8>),
    /// So many bytes of it, then the end of the connection.
    Cut(Vec<u8>),
    Close,
    Reset,
    Silence,
}

impl Proxy {
    pub(crate) async fn start(server: SocketAddr, random: Random, tally: Arc<Tally>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let shared = Arc::new(Shared {
            server,
            tally,
            weather: Mutex::default(),
            random: Mutex::new(random),
            trap: Mutex::default(),
            newest: Mutex::default(),
            late: AtomicUsize::new(0),
        });
        let serving = shared.clone();
        tokio::spawn(async move {
            loop {
                if let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(serve(stream, serving.clone()));
                }
            }
        });
        Ok(Self { url, shared })
    }

    pub(crate) fn set(&self, weather: Weather) {
        *locked(&self.shared.weather) = weather;
    }

    /// Tells when the next such request but so many is at this moment of its life.
    pub(crate) fn trap(&self, bulk: bool, moment: Moment, passes: u64) -> oneshot::Receiver<()> {
        let (sprung, told) = oneshot::channel();
        *locked(&self.shared.trap) = Some(Trap { bulk, moment, passes, sprung });
        told
    }

    /// Requests that will still reach the server after they were given up.
    pub(crate) fn late(&self) -> usize {
        self.shared.late.load(Ordering::SeqCst)
    }

    /// The writes that took a document back in time.
    pub(crate) fn backwards(&self) -> Vec<String> {
        locked(&self.shared.newest).backwards.clone()
    }
}

async fn serve(mut stream: TcpStream, shared: Arc<Shared>) {
    while let Some(request) = read_request(&mut stream).await {
        let reply = match plain(request) {
            Some(request) => shared.reply(request).await,
            None => Reply::Close,
        };
        match reply {
            Reply::Answer(bytes) => {
                if write(&mut stream, &bytes).await.is_err() {
                    return;
                }
            }
            Reply::Cut(bytes) => {
                let _ = write(&mut stream, &bytes).await;
                let _ = stream.shutdown().await;
                return;
            }
            Reply::Close => {
                let _ = stream.shutdown().await;
                return;
            }
            Reply::Reset => {
                let _ = stream.set_zero_linger();
                return;
            }
            Reply::Silence => {
                // Until the other side has had enough.
                let _ = stream.read(&mut [0; 16]).await;
                return;
            }
        }
    }
}

/// The request with its body as it was before it was compressed.
fn plain(mut request: Request) -> Option<Request> {
    if request.header("content-encoding") == Some("gzip") {
        let mut body = Vec::new();
        flate2::read::GzDecoder::new(&request.body[..]).read_to_end(&mut body).ok()?;
        request.body = body;
        request.headers.retain(|(name, _)| name != "content-encoding");
    }
    Some(request)
}

impl Shared {
    async fn reply(self: &Arc<Self>, request: Request) -> Reply {
        let bulk = request.path.starts_with("/_bulk");
        let fault = locked(&self.weather).fault(bulk, &mut locked(&self.random));
        let fault = fault.filter(|fault| {
            !(fault.blames_the_request() && bulk::items(&request).iter().any(bulk::Item::is_anchor))
        });
        if let Some(fault) = fault {
            self.tally.add(Group::Fault, fault.name(), 1);
            self.tally.journal(&format!("{fault:?} for {} {}", request.method, request.path));
        }
        if self.sprung(bulk, Moment::Before).await && locked(&self.random).percent(50) {
            return Reply::Reset;
        }
        let reply = self.fare(&request, fault).await;
        self.sprung(bulk, Moment::After).await;
        reply
    }

    /// Springs the trap where there is one for this moment, and waits for the kill.
    async fn sprung(&self, bulk: bool, moment: Moment) -> bool {
        let sprung = {
            let mut trap = locked(&self.trap);
            match &mut *trap {
                Some(trap) if trap.bulk != bulk || trap.moment != moment => None,
                Some(trap) if trap.passes > 0 => {
                    trap.passes -= 1;
                    None
                }
                _ => trap.take(),
            }
        };
        let Some(trap) = sprung else { return false };
        let _ = trap.sprung.send(());
        tokio::time::sleep(KILL_TAKES).await;
        true
    }

    async fn fare(self: &Arc<Self>, request: &Request, fault: Option<Fault>) -> Reply {
        let Some(fault) = fault else { return Reply::Answer(self.ask(request).await.to_bytes()) };
        match fault {
            Fault::Slow(before, after) => {
                tokio::time::sleep(before).await;
                let answer = self.ask(request).await;
                tokio::time::sleep(after).await;
                Reply::Answer(answer.to_bytes())
            }
            Fault::Reset => Reply::Reset,
            Fault::Lost => Reply::Silence,
            Fault::AnswerLost => {
                self.ask(request).await;
                Reply::Close
            }
            Fault::AnswerCut => {
                let mut whole = self.ask(request).await.to_bytes();
                whole.truncate(whole.len() / 2);
                Reply::Cut(whole)
            }
            Fault::AnswerHeld => {
                self.ask(request).await;
                Reply::Silence
            }
            Fault::Late(after) => {
                let (shared, request) = (self.clone(), request.clone());
                shared.late.fetch_add(1, Ordering::SeqCst);
                // It goes on after the connection, and the one who asked, are gone.
                tokio::spawn(async move {
                    tokio::time::sleep(after).await;
                    shared.ask(&request).await;
                    shared.late.fetch_sub(1, Ordering::SeqCst);
                });
                Reply::Silence
            }
            Fault::Torn => {
                let items = bulk::items(request);
                let some = locked(&self.random).below(items.len() as u64) as usize;
                if some > 0 {
                    self.ask(&bulk::with_items(request, &items[..some])).await;
                }
                Reply::Close
            }
            Fault::Refused(status, delays) => {
                let error = format!(
                    r#"{{"error":{{"type":"torture","reason":"said by the torture test"}},"status":{status}}}"#
                );
                let answer = Response::new(status, error).with("content-type", "application/json");
                Reply::Answer(if delays { answer.with("retry-after", "1") } else { answer }.to_bytes())
            }
            Fault::Items(status) => Reply::Answer(self.without_some(request, status).await.to_bytes()),
        }
    }

    /// Keeps one document in eight from the server, and one at the least.
    async fn without_some(&self, request: &Request, status: u16) -> Response {
        let items = bulk::items(request);
        let count = items.len() as u64;
        let (mut asked, mut refused) = (Vec::new(), Vec::new());
        {
            let mut random = locked(&self.random);
            let chosen = random.below(count);
            for (at, item) in items.iter().enumerate() {
                let is_chosen = at as u64 == chosen || random.below(8) == 0;
                match is_chosen && !(status == 400 && item.is_anchor()) {
                    true => refused.push((at, bulk::refused(item, status))),
                    false => asked.push(item),
                }
            }
        }
        self.tally.add(Group::Check, "documents kept from the server", refused.len() as u64);
        let answer = match asked.is_empty() {
            true => None,
            false => Some(self.ask(&bulk::with_items(request, asked)).await),
        };
        bulk::merged(answer, refused)
    }

    /// Has the server do it.
    async fn ask(&self, request: &Request) -> Response {
        match forward(self.server, request).await {
            Ok(answer) => {
                if request.path.starts_with("/_bulk") {
                    let items = bulk::items(request);
                    self.tally.add(Group::Check, "documents written", items.len() as u64);
                    locked(&self.newest).note(&items, &answer, &self.tally);
                }
                answer
            }
            Err(error) => Response::new(502, format!("{error}")),
        }
    }
}
