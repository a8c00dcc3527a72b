//! The `sqlite` connector against real database files.

#![cfg(feature = "sqlite")]
#![allow(clippy::unwrap_used, clippy::panic)]

mod sqlite {
    mod capture;
    mod documents;
    mod fidelity;
    mod log;
    mod quarantine;
    mod replace;
    mod snapshot;
    mod world;
    mod writers;
}
