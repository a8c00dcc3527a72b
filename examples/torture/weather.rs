//! What may happen to a request, and how often it does.

use std::time::Duration;

use crate::random::Random;

/// What is done to one request. "Before" and "after" are meant of the server's doing what it asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It waits, before or after.
    Slow(Duration, Duration),
    /// The connection is reset before.
    Reset,
    /// Nothing is ever answered; the server never hears of it.
    Lost,
    /// The server does it; the connection is closed without an answer.
    AnswerLost,
    /// The server does it; a part of the answer arrives.
    AnswerCut,
    /// The server does it; nothing is ever answered.
    AnswerHeld,
    /// Nothing is answered, and the server does it after this time.
    Late(Duration),
    /// The server does a part of a bulk request; the connection is closed without an answer.
    Torn,
    /// The server is not asked; this status is the answer, and whether it tells when to come back.
    Refused(u16, bool),
    /// Some documents of a bulk request are kept from the server, and answered for with this status.
    Items(u16),
}

impl Fault {
    /// Whether a whole request is answered as if a document of it were to blame.
    pub(crate) fn blames_the_request(self) -> bool {
        matches!(self, Self::Refused(400 | 413, _))
    }

    /// As it is counted.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Slow(..) => "slow",
            Self::Reset => "reset before the write",
            Self::Lost => "never arrived",
            Self::AnswerLost => "written and the answer lost",
            Self::AnswerCut => "written and the answer cut off",
            Self::AnswerHeld => "written and never answered",
            Self::Late(_) => "written late",
            Self::Torn => "written in part",
            Self::Refused(429, _) => "answered 429",
            Self::Refused(503, _) => "answered 503",
            Self::Refused(500, _) => "answered 500",
            Self::Refused(413, _) => "answered 413",
            Self::Refused(401, _) => "answered 401",
            Self::Refused(..) => "answered 400",
            Self::Items(429) => "documents throttled by 429",
            Self::Items(503) => "documents throttled by 503",
            Self::Items(_) => "documents rejected",
        }
    }
}

/// How requests fare for a while.
#[derive(Debug, Clone, Default)]
pub(crate) struct Weather {
    /// Of how many bulk requests in a hundred something is made.
    bulk_percent: u64,
    /// Of how many others.
    other_percent: u64,
    /// Which of the kinds below there are, as bits.
    kinds: u64,
}

const KINDS: u64 = 17;

impl Weather {
    /// Fair, mixed or foul; and each time other kinds of faults, so that none hides what another would show.
    pub(crate) fn draw(random: &mut Random) -> Self {
        let bulk_percent = [0, 5, 20, 45][random.below(4) as usize];
        let other_percent = [0, 2, 8][random.below(3) as usize];
        Self { bulk_percent, other_percent, kinds: random.next() | random.next() }
    }

    /// What happens to the next request.
    pub(crate) fn fault(&self, bulk: bool, random: &mut Random) -> Option<Fault> {
        let percent = if bulk { self.bulk_percent } else { self.other_percent };
        if !random.percent(percent) {
            return None;
        }
        let kind = random.below(KINDS);
        let there_is = self.kinds & (1 << kind) != 0;
        let fault = of_kind(kind, random);
        let fits = bulk || !matches!(fault, Fault::Torn | Fault::Items(_) | Fault::Refused(400 | 413, _));
        (there_is && fits).then_some(fault)
    }
}

fn of_kind(kind: u64, random: &mut Random) -> Fault {
    let mut up_to = |ms: u64| Duration::from_millis(random.below(ms));
    match kind {
        0 | 1 => Fault::Slow(up_to(600), up_to(600)),
        2 => Fault::Reset,
        3 => Fault::Lost,
        4 | 5 => Fault::AnswerLost,
        6 => Fault::AnswerCut,
        7 => Fault::AnswerHeld,
        8 | 9 => Fault::Late(Duration::from_millis(200) + up_to(8_000)),
        10 | 11 => Fault::Torn,
        12 => Fault::Refused(429, random.percent(50)),
        13 => Fault::Refused([503, 500][random.below(2) as usize], false),
        // These end a run under some policies: less often.
        14 => match random.below(8) {
            0 => Fault::Refused(401, false),
            1 | 2 => Fault::Refused(400, false),
            _ => Fault::Refused(413, false),
        },
        15 => Fault::Items([429, 503][random.below(2) as usize]),
        _ => Fault::Items(400),
    }
}
