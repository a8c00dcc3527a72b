//! What stands in front of a server and does to its exchanges what networks, balancers and overloaded nodes do; or what
//! stands in the place of one, and answers as the documentation says.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::Value as Json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

use crate::wire::{Request, Response, forward, read_request, write};

/// What is done to one exchange.
pub(crate) enum Fault {
    /// The server is not asked; this is answered.
    Answer(Response),
    /// The server is not asked; this is answered to this request.
    With(Box<dyn Fn(&Request) -> Response + Send + Sync>),
    /// The server is not asked, and the connection is reset.
    Reset,
    /// The server does it; the connection is closed without an answer.
    LoseAnswer,
    /// The server does it, and only so many bytes of the answer arrive.
    CutAnswer(usize),
    /// The server is not asked, and nothing is answered.
    Hang,
    /// The server does it, and nothing is answered.
    HangAnswer,
    /// Documents of these ids are kept from the server, and answered for with this status and error. For requests that are
    /// not compressed.
    Items(Vec<&'static str>, u16, &'static str),
    /// The server is asked, and its answer passed on, when the test says so.
    Held(Arc<Late>),
    /// Nothing is answered, and the server is asked when the test says so.
    Late(Arc<Late>),
}

/// A request on its way.
#[derive(Default)]
pub(crate) struct Late {
    caught: Notify,
    go: Notify,
    answer: Mutex<Option<oneshot::Receiver<Response>>>,
}

impl Late {
    /// Waits until the request has left its sender.
    pub(crate) async fn caught(&self) {
        self.caught.notified().await;
    }

    /// Lets it go on.
    pub(crate) fn release(&self) {
        self.go.notify_one();
    }

    /// Lets it arrive, and tells what the server answered.
    pub(crate) async fn deliver(&self) -> Response {
        let answer = self.answer.lock().unwrap().take().expect("caught before");
        self.go.notify_one();
        answer.await.unwrap()
    }
}

struct Rule {
    method: &'static str,
    path: String,
    fault: Arc<Fault>,
    times: usize,
}

/// The end of a connection: after so many requests nothing gets through.
struct Cut {
    left: usize,
    /// Whether the first that comes too late still reaches the server.
    reaches: bool,
    /// Whether one came too late.
    met: bool,
}

#[derive(Default)]
struct Shared {
    rules: Mutex<Vec<Rule>>,
    cut: Mutex<Option<Cut>>,
    seen: Mutex<Vec<Request>>,
    now: AtomicUsize,
    most: AtomicUsize,
}

pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// In front of a server, or alone, where everything that no rule answers is 501.
    pub(crate) async fn start(server: Option<SocketAddr>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let accepting = shared.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, server, accepting.clone()));
            }
        });
        Self { address, shared, task }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The next `times` requests of this method whose path holds this text meet this fault. Rules are used in their order.
    pub(crate) fn on(&self, method: &'static str, path: impl Into<String>, times: usize, fault: Fault) {
        let rule = Rule { method, path: path.into(), fault: Arc::new(fault), times };
        self.shared.rules.lock().unwrap().push(rule);
    }

    /// The next such request is held up.
    pub(crate) fn held(&self, method: &'static str, path: impl Into<String>) -> Arc<Late> {
        let late = Arc::new(Late::default());
        self.on(method, path, 1, Fault::Held(late.clone()));
        late
    }

    /// The next such request is late.
    pub(crate) fn late(&self, method: &'static str, path: impl Into<String>) -> Arc<Late> {
        let late = Arc::new(Late::default());
        self.on(method, path, 1, Fault::Late(late.clone()));
        late
    }

    /// After so many more requests no answer comes any more, and none reaches the server, but for the first where this says
    /// so.
    pub(crate) fn cut_after(&self, requests: usize, reaches: bool) {
        *self.shared.cut.lock().unwrap() = Some(Cut { left: requests, reaches, met: false });
    }

    /// Lets everything through again. Returns whether it came to the cut.
    pub(crate) fn heal(&self) -> bool {
        self.shared.cut.lock().unwrap().take().is_some_and(|cut| cut.met)
    }

    /// Forgets all rules, and tells those that were not used up.
    pub(crate) fn forget(&self) -> Vec<String> {
        let left = std::mem::take(&mut *self.shared.rules.lock().unwrap());
        let left = left.into_iter();
        left.map(|rule| format!("{} {} ({} times more)", rule.method, rule.path, rule.times)).collect()
    }

    /// Fails the test where a rule was never used: the fault it is about did not happen.
    #[track_caller]
    pub(crate) fn all_used(&self) {
        let left = self.forget();
        assert!(left.is_empty(), "never met: {left:?}");
    }

    /// The requests so far whose path holds this text.
    pub(crate) fn seen(&self, path: &str) -> Vec<Request> {
        self.shared
            .seen
            .lock()
            .unwrap()
            .iter()
            .filter(|request| request.path.contains(path))
            .cloned()
            .collect()
    }

    /// How many requests were under way at once, at the most, since this was last asked.
    pub(crate) fn most_at_once(&self) -> usize {
        self.shared.most.swap(0, Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn fault(&self, request: &Request) -> Option<Arc<Fault>> {
        if let Some(cut) = &mut *self.cut.lock().unwrap() {
            if cut.left > 0 {
                cut.left -= 1;
                return None;
            }
            cut.met = true;
            return Some(Arc::new(match std::mem::take(&mut cut.reaches) {
                true => Fault::LoseAnswer,
                false => Fault::Reset,
            }));
        }
        let mut rules = self.rules.lock().unwrap();
        let at = rules
            .iter()
            .position(|rule| rule.method == request.method && request.path.contains(&rule.path))?;
        let fault = rules[at].fault.clone();
        rules[at].times -= 1;
        if rules[at].times == 0 {
            rules.remove(at);
        }
        Some(fault)
    }
}

async fn serve(mut stream: TcpStream, server: Option<SocketAddr>, shared: Arc<Shared>) {
    while let Some(request) = read_request(&mut stream).await {
        let now = shared.now.fetch_add(1, Ordering::SeqCst) + 1;
        shared.most.fetch_max(now, Ordering::SeqCst);
        shared.seen.lock().unwrap().push(request.clone());
        let fault = shared.fault(&request);
        let answer = answer(&request, fault.as_deref(), server).await;
        shared.now.fetch_sub(1, Ordering::SeqCst);
        let done = match answer {
            Some(bytes) if !bytes.is_empty() => write(&mut stream, &bytes).await.is_ok(),
            Some(_) => false,
            None if matches!(fault.as_deref(), Some(Fault::Reset | Fault::LoseAnswer)) => false,
            None => std::future::pending().await,
        };
        let cut = matches!(fault.as_deref(), Some(Fault::CutAnswer(_)));
        if !done || cut {
            if matches!(fault.as_deref(), Some(Fault::Reset)) {
                let _ = stream.set_zero_linger();
            } else {
                let _ = stream.shutdown().await;
            }
            return;
        }
    }
}

/// The bytes to answer; `None` for silence.
async fn answer(request: &Request, fault: Option<&Fault>, server: Option<SocketAddr>) -> Option<Vec<u8>> {
    let asked = async |request: &Request| match server {
        Some(server) => match forward(server, request).await {
            Ok(answer) => answer,
            Err(error) => Response::new(502, format!("{error}")),
        },
        None => Response::new(501, format!("{} {}", request.method, request.path)),
    };
    Some(match fault {
        None => asked(request).await.to_bytes(),
        Some(Fault::Answer(answer)) => answer.to_bytes(),
        Some(Fault::With(make)) => make(request).to_bytes(),
        Some(Fault::CutAnswer(bytes)) => {
            let mut whole = asked(request).await.to_bytes();
            let head = whole.windows(4).position(|window| window == b"\r\n\r\n").unwrap_or_default();
            whole.truncate(head + 4 + bytes);
            whole
        }
        Some(Fault::Items(ids, status, kind)) => without(request, ids, *status, kind, asked).await.to_bytes(),
        Some(Fault::Reset | Fault::Hang) => return None,
        Some(Fault::LoseAnswer | Fault::HangAnswer) => {
            asked(request).await;
            return None;
        }
        Some(Fault::Held(late)) => {
            late.caught.notify_one();
            late.go.notified().await;
            asked(request).await.to_bytes()
        }
        Some(Fault::Late(late)) => {
            let (tell, told) = oneshot::channel();
            *late.answer.lock().unwrap() = Some(told);
            late.caught.notify_one();
            let (late, request, server) =
                (late.clone(), request.clone(), server.expect("something in the back"));
            // It goes on after the connection, and the one who asked, are gone.
            tokio::spawn(async move {
                late.go.notified().await;
                let _ = tell.send(forward(server, &request).await.unwrap());
            });
            return None;
        }
    })
}

/// Has the server do what of a bulk request is not about these ids, and answers for those itself.
async fn without(
    request: &Request,
    ids: &[&str],
    status: u16,
    kind: &str,
    asked: impl AsyncFnOnce(&Request) -> Response,
) -> Response {
    let text = request.text();
    let mut lines = text.lines();
    let mut kept = String::new();
    let mut held = Vec::new();
    let mut at = 0;
    while let Some(head) = lines.next() {
        let action: Json = serde_json::from_str(head).unwrap();
        let (name, meta) = action.as_object().unwrap().iter().next().unwrap();
        let body = (name != "delete").then(|| lines.next().unwrap());
        if ids.contains(&meta["_id"].as_str().unwrap()) {
            let error = serde_json::json!({ "type": kind, "reason": "said by the proxy" });
            let item = serde_json::json!({ "_index": meta["_index"], "_id": meta["_id"], "status": status, "error": error });
            held.push((at, serde_json::json!({ name: item })));
        } else {
            kept.push_str(head);
            kept.push('\n');
            if let Some(body) = body {
                kept.push_str(body);
                kept.push('\n');
            }
        }
        at += 1;
    }
    let mut answer = match kept.is_empty() {
        true => serde_json::json!({ "took": 0, "errors": true, "items": [] }),
        false => asked(&Request { body: kept.into_bytes(), ..request.clone() }).await.json(),
    };
    for (at, item) in held {
        answer["items"].as_array_mut().unwrap().insert(at, item);
    }
    Response::new(200, answer.to_string())
}
